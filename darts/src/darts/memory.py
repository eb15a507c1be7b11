"""How much memory there is, and how much a run may take."""

import ctypes
import math
import re
from contextlib import suppress
from pathlib import Path

from darts_utils.errors import ConfigError
from darts_utils.quoting import shown

DEFAULT_SHARE = 0.6
"""Share of the free memory that a run may take unless told otherwise."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
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
        return None if free is None else max(int(DEFAULT_SHARE * free), 1)
    match = _SIZE.fullmatch(str(asked))
    unit = match[2].lower() if match else None
    if match and unit == "%" and free is None:
        raise ConfigError(f"memory_budget {asked!r}: the free memory of this machine is not known; give a size, '8GB'")
    size = float(match[1]) * (_UNITS[unit] if unit in _UNITS else (free or 0) / 100) if match else 0.0
    if unit == "%" and match and float(match[1]) > 100:
        size = 0
    if match is None or not (unit in _UNITS or unit == "%") or not 1 <= size < math.inf:
        raise ConfigError(
            f"memory_budget must be a size or a share of the free memory ('8GB', '60%'), got {shown(asked)}"
        )
    return int(size)


def free_memory() -> int | None:
    """Return how many bytes can be had, None if unknown: what the machine has, or what the job's group has left."""
    known = [size for size in (_of_machine(), _of_group()) if size is not None]
    return min(known) if known else None


def give_back_memory() -> None:
    """Let the system have what was freed: the allocator keeps it otherwise, in pieces, for each thread by itself."""
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _of_machine() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return None


def _of_group(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return what is left of the limits that a batch system or a container sets, None if there are none.

    Control groups of version 1 keep memory in a tree of its own; a limit of any group above counts as well.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    except OSError:
        return None
    left = []
    for _, controllers, path in lines:
        if controllers == "":
            tree, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            tree, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = tree / path.strip("/")
        # In a container the path may be that of the host, and the group's own files lie at the root.
        for folder in [folder for folder in (group, *group.parents) if folder == tree or tree in folder.parents]:
            left.append(_left_in(folder, *names))
    known = [size for size in left if size is not None]
    return min(known) if known else None


def _left_in(folder: Path, limit: str, used: str, cache: str) -> int | None:
    """Return what a group may still take; files that are cached can be dropped at any time."""
    try:
        most, taken = (folder / limit).read_text().strip(), int((folder / used).read_text())
    except (OSError, ValueError):
        return None
    if not most.isdigit() or int(most) >= 2**60:  # "max", or a number beyond any machine: no limit
        return None
    try:
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken -= int(statistics.get(cache, 0))
    except (OSError, ValueError):
        pass
    return max(int(most) - taken, 0)
