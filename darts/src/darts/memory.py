"""How much memory there is, and how much a run may take."""

import re
from pathlib import Path

from darts_utils.errors import ConfigError

DEFAULT_SHARE = 0.6
"""Share of the free memory that a run may take unless told otherwise."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*|%)\s*", re.IGNORECASE)


def memory_budget(asked: str | int | None) -> int | None:
    """Return how many bytes a run may take; None where nothing was asked and free memory is not known.

    Args:
        asked: bytes, "8GB", "500 MiB", a share of the free memory ("60%"), or None for 60 %.

    Raises:
        ConfigError: it cannot be read, or is 0.
    """
    free = free_memory()
    if asked is None:
        return None if free is None else int(DEFAULT_SHARE * free)
    match = _SIZE.fullmatch(str(asked))
    unit = match[2].lower() if match else None
    if match and unit == "%" and free is None:
        raise ConfigError(f"memory_budget {asked!r}: the free memory of this machine is not known; give a size, '8GB'")
    size = float(match[1]) * (_UNITS[unit] if unit in _UNITS else (free or 0) / 100) if match else 0.0
    if match is None or not (unit in _UNITS or unit == "%") or size < 1:
        raise ConfigError(f"memory_budget must be a size or a share of the free memory ('8GB', '60%'), got {asked!r}")
    return int(size)


def free_memory() -> int | None:
    """Return how many bytes can be had, None if unknown: what the machine has, or what the job's group has left."""
    known = [size for size in (_of_machine(), _of_group()) if size is not None]
    return min(known) if known else None


def _of_machine() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return None


def _of_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what is left of the limit that a batch system or a container sets."""
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):  # fmt: skip
        try:
            most, taken = (root / limit).read_text().strip(), int((root / used).read_text())
        except (OSError, ValueError):
            continue
        if most.isdigit() and int(most) < 2**60:  # "max", or a number beyond any machine: no limit
            return max(int(most) - taken, 0)
    return None
