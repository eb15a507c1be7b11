"""Work in parts on all cores, on plain threads that end with the call; for functions that release Python's lock."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")


def on_all_cores(function: Callable[[Job], object], jobs: Iterable[Job]) -> None:
    """Call `function` on each job, on as many threads as there are cores (or NUMBA_NUM_THREADS says).

    What a call raises is raised here, once the others have ended.
    """
    jobs = list(jobs)
    threads = min(len(jobs), cores())
    if threads <= 1:
        for job in jobs:
            function(job)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(function, jobs):
            pass  # raises what a job raised


def cores() -> int:
    """Return how many threads compute at once: NUMBA_NUM_THREADS if set, else the cores this process may use."""
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return available_cores()


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
