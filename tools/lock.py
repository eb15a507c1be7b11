"""Resolve the workspace and write `uv.lock` without download addresses, so that it serves any index or mirror.

    uv run --no-sync tools/lock.py            # resolve, then strip the addresses
    uv run --no-sync tools/lock.py --check    # is the committed lock free of addresses, and what this script gives?

uv reads the stripped form as preferences: a later `uv sync` takes every version in it and writes the full lock into
the work tree; running this script again gives the committed file back.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "uv.lock"


def main() -> int:
    """Write the address-free lock, or check the committed one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the committed lock is wrong")
    check = parser.parse_args().check
    committed = _committed() if check else ""
    if check and (address := re.search(r"https?://\S+", committed)):
        print(f"uv.lock: the committed file holds the address {address[0]!r}; run tools/lock.py and commit the result")
        return 1
    before = LOCK.read_text()
    try:
        if check:
            LOCK.write_text(committed)
            stripped = _resolved()
        else:
            # uv orders its markers differently with and without preferences; the second pass is the fixed point.
            stripped, previous = _resolved(), ""
            while stripped != previous:
                LOCK.write_text(stripped)
                stripped, previous = _resolved(), stripped
    except BaseException:
        LOCK.write_text(before)
        raise
    LOCK.write_text(before if check else stripped)
    if check and stripped != committed:
        print("uv.lock: the committed file is not what tools/lock.py gives; run it and commit the result")
        return 1
    return 0


def _resolved() -> str:
    subprocess.run(["uv", "lock", "--quiet"], cwd=ROOT, check=True)
    return without_addresses(LOCK.read_text())


def without_addresses(lock: str) -> str:
    """Return a lock file's text with registries and download addresses replaced by plain names."""
    lock = re.sub(r'source = \{ registry = "[^"]*" \}', 'source = { registry = "." }', lock)
    lock = re.sub(r'\{ url = "[^"]*/([^"/]+)"', r'{ path = "\1"', lock)
    return re.sub(r"^\[manifest\]\n(?:(?!\[).*\n)*(?:\[\[manifest\..*\]\]\n(?:(?!\[).*\n)*)*", "", lock, flags=re.M)


def _committed() -> str:
    shown = subprocess.run(["git", "show", "HEAD:uv.lock"], cwd=ROOT, check=True, capture_output=True, text=True)
    return shown.stdout


if __name__ == "__main__":
    sys.exit(main())
