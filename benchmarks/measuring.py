"""Seconds and peak memory of a piece of work, and what figures depend on."""

import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from darts.memory import give_back_memory

GIB = 2**30


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds, CPU seconds of all threads, and the result."""
    cpu, start = time.process_time(), time.perf_counter()
    result = call()
    return time.perf_counter() - start, time.process_time() - cpu, result


def in_own_process(file: str, part: str, arguments: Sequence[str]) -> Any:
    """Return what a part of a benchmark measures in a process of its own, under the arguments of this one.

    The benchmark takes `--part` and writes its figures into the file that the last `--json` names.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures.json")
        command = [sys.executable, file, *arguments, "--part", part, "--json", str(figures)]
        subprocess.run(command, check=True)
        return json.loads(figures.read_text())


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Give resident memory before and, after the block, at its peak, in bytes."""
    gc.collect()
    give_back_memory()  # else memory that was freed earlier serves, and does not count
    memory = {"before": resident("VmRSS"), "peak": 0}
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    if resident("VmHWM") < memory["before"] + GIB // 64:
        yield memory
        memory["peak"] = resident("VmHWM")
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            memory["peak"] = max(memory["peak"], resident("VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()


def resident(field: str) -> int:
    """Return VmRSS or VmHWM of this process in bytes."""
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024


Goal = tuple[str, str, str, bool]
"""What it is about, the goal, what was reached, and whether that meets it."""


def print_goals(subject: str, goals: Sequence[Goal]) -> None:
    """Print a table of goals, nothing where there are none."""
    if goals:
        print(f"\n| {subject} | goal | reached |\n|---|---|---|")
    for what, goal, reached, met in goals:
        print(f"| {what} | {goal} | {reached}{'' if met else ', missed'} |")


def print_machine(figures: Mapping[str, Any]) -> None:
    """Print what `machine` found."""
    print(f"\n{figures['cores']} cores of {figures['cpu']}, load {figures['load']:.1f} before; ", end="")
    print(", ".join(f"{name} {number}" for name, number in figures["versions"].items()))


def machine(*packages: str) -> dict[str, Any]:
    """Return what the figures depend on, with the versions of packages."""
    cpu = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0].strip(" \t:")
    versions = {"Python": platform.python_version()} | {name: version(name) for name in packages}
    return {
        "cpu": cpu or platform.machine(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0],
        "versions": versions,
    }  # fmt: skip
