"""How busy the machine is: cores and memory that darts takes, and GPUs; read beside the run, never in its way."""

import csv
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from darts.memory import free_memory

SAMPLE_EVERY_S = 2.0
GPU_PATIENCE_S = 10.0
"""A driver that does not answer within this is not asked again."""

_GPU_QUERY = "index,uuid,utilization.gpu,memory.used,memory.total"


@dataclass(frozen=True)
class GpuUse:
    """What one GPU does."""

    index: int
    busy: float | None
    """Share of time it computes, 0 to 1; None where the driver does not tell."""
    bytes_used: int
    bytes_total: int


@dataclass(frozen=True)
class MachineUse:
    """What the machine does; None is what is not known."""

    cores_busy: float | None = None
    """Cores that this process and those below it keep busy."""
    bytes_used: int | None = None
    """Memory of this process and those below it; pages that they share count for each."""
    bytes_free: int | None = None
    gpus: tuple[GpuUse, ...] = ()


class MachineWatch:
    """Looks at the machine every other second, in a thread of its own; `use` is what it saw last."""

    def __init__(self, workers: Sequence[str] = ()) -> None:
        self.use = MachineUse()
        self._workers = tuple(workers)
        self._stop = threading.Event()

    @contextmanager
    def watching(self) -> Iterator["MachineWatch"]:
        """Watch within the block."""
        threading.Thread(target=self._watch, name="darts-machine-use", daemon=True).start()
        try:
            yield self
        finally:
            self._stop.set()  # it is not waited for: a driver may hang

    def _watch(self) -> None:
        try:
            asks_gpus = (not self._workers or any(w.startswith("cuda") for w in self._workers)) and gpus_may_be_there()
            before: tuple[float, float] | None = None
            while not self._stop.is_set():
                seconds, rss = process_tree_use()
                now = time.monotonic()
                busy = (seconds - before[0]) / (now - before[1]) if before and now > before[1] else None
                before = (seconds, now)
                gpus = self._gpus() if asks_gpus else None
                asks_gpus = gpus is not None
                self.use = MachineUse(None if busy is None else max(busy, 0.0), rss, free_memory(), gpus or ())
                self._stop.wait(SAMPLE_EVERY_S)
        except Exception:  # what is only shown must not stop a run
            self.use = MachineUse()

    def _gpus(self) -> tuple[GpuUse, ...] | None:
        """Return the GPUs that the workers use, None where the driver does not answer."""
        command = ["nvidia-smi", f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=GPU_PATIENCE_S, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        return read_gpus(answer, os.environ.get("CUDA_VISIBLE_DEVICES"), self._workers)


def gpus_may_be_there() -> bool:
    """Return whether the tool of NVIDIA's driver is installed."""
    return shutil.which("nvidia-smi") is not None


def read_gpus(answer: str, visible: str | None, workers: Sequence[str] = ()) -> tuple[GpuUse, ...]:
    """Return the GPUs of an answer of nvidia-smi that are visible and, where `workers` name GPUs, are theirs.

    Their indices are those that CUDA gives to what is visible (`cuda:0` is the first).
    """
    rows = [[cell.strip() for cell in row] for row in csv.reader(answer.splitlines()) if len(row) == 5]
    if visible is not None:
        wanted = [token.strip() for token in visible.split(",") if token.strip()]
        rows = [row for token in wanted for row in rows if row[0] == token or row[1].startswith(token)]
    numbers = {int(name[5:]) for name in workers if name.startswith("cuda:") and name[5:].isdigit()}
    gpus = []
    for number, (_, _, busy, used, total) in enumerate(rows):
        if (not numbers or number in numbers) and used.isdigit() and total.isdigit():
            share = int(busy) / 100 if busy.isdigit() else None  # "[N/A]" under MIG
            gpus.append(GpuUse(number, share, int(used) * 2**20, int(total) * 2**20))
    return tuple(gpus)


def process_tree_use(pid: int | None = None, proc: Path = Path("/proc")) -> tuple[float, int | None]:
    """Return the CPU seconds so far and the resident bytes of a process and all below it; bytes are None if unknown."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    pages: dict[int, int] = {}
    for path in proc.glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold blanks and brackets; proc(5) numbers the fields from 1.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            number = int(path.parent.name)
            parents[number] = int(fields[1])
            # utime, stime and those of children that ended, so that the sum does not fall when one ends.
            seconds[number] = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
            pages[number] = int(fields[21])
        except (OSError, ValueError, IndexError):
            continue  # it has just ended
    own = os.getpid() if pid is None else pid
    if own not in parents:  # no such file system
        return sum(os.times()[:4]), None
    children: dict[int, list[int]] = {}
    for number, parent in parents.items():
        children.setdefault(parent, []).append(number)
    tree, found = [own], {own}
    for number in tree:
        below = [child for child in children.get(number, ()) if child not in found]
        tree += below
        found.update(below)
    return sum(seconds[n] for n in tree), sum(pages[n] for n in tree) * os.sysconf("SC_PAGE_SIZE")
