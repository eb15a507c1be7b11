"""Runs the real command in processes forked from one that has everything imported, which takes long.

The server itself computes nothing and starts no threads, so that each fork is as good as a process of its own.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import multiprocessing.context
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

IMPORTS = (
    "cffi", "dask.array", "geopandas", "h5netcdf", "icechunk", "numba", "odc.geo.xr", "pandas", "PIL.Image",
    "pyarrow.dataset", "pyarrow.pandas_compat", "pycparser", "pyogrio", "rasterio.shutil", "scipy.linalg",
    "scipy.ndimage", "segmentation_models_pytorch", "tomli_w", "torch", "zarr",
    "darts.commands.run", "darts.commands.verify", "darts.executors.lane", "darts.pipelines.running", "darts.plan",
    "darts.executors.processes", "darts.report.run_report", "darts.records.verify", "darts_export.outline_kernels",
)  # fmt: skip

FILE_OPERATIONS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"})


@dataclass(frozen=True, kw_only=True)
class Job:
    """Command lines that one process goes through until one fails, and how it is to die before."""

    lines: list[list[str]]
    log: str
    """File for all that they print."""
    folder: str = ""
    """What Python does to files below it is counted."""
    kill_at: int = 0
    """Dies by SIGKILL right before so many of these; 0: does not."""
    kill_worker: bool = False
    """The first worker that gets there dies so, in place of the run."""
    fork_workers: bool = True
    """Workers are forked too, which spares them their imports."""
    real_end: bool = False
    """Takes the interpreter down at the end as the command does, which takes a while."""
    one_core: bool = False
    """Has one core, and computes with one thread."""
    without_network: bool = False
    """Reaches no server, not even those on loopback."""


class ForkServer:
    """Starts processes through a server; `with` ends it, and all that it still runs."""

    def __init__(self) -> None:
        words = [sys.executable, "-W", "ignore", __file__]
        self._server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stdin.close()  # type: ignore[union-attr]
        self._server.wait()

    def wait_until_ready(self) -> None:
        """Wait until it has everything imported."""
        self._ask(ready=True)

    def start(self, job: Job) -> "Process":
        """Start a process and return it."""
        return Process(self, int(self._ask(start=job.__dict__)), Path(job.log))

    def has_ended(self, pid: int) -> bool:
        """Return whether a process is over; its id is not given away before it was waited for."""
        return bool(self._ask(look=pid))

    def wait(self, pid: int) -> int:
        """Wait for the end of a process; return its exit code, or minus the signal that ended it."""
        return int(self._ask(wait=pid))

    def _ask(self, **question: Any) -> Any:
        self._server.stdin.write(json.dumps(question) + "\n")  # type: ignore[union-attr]
        self._server.stdin.flush()  # type: ignore[union-attr]
        answer = self._server.stdout.readline()  # type: ignore[union-attr]
        assert answer, f"the server ended with exit code {self._server.wait()}"
        return json.loads(answer)


@dataclass
class Process:
    """A command at work in a process of its own."""

    server: ForkServer
    pid: int
    log: Path

    @property
    def text(self) -> str:
        """All that it printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def flat(self) -> str:
        """The same as one line."""
        return " ".join(self.text.split())

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.server.has_ended(self.pid)

    def wait(self) -> int:
        """Wait for its end; return its exit code, or minus the signal that ended it."""
        return self.server.wait(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def serve() -> None:
    """Fork a process for each job that comes in, until there come no more."""
    for module in IMPORTS:
        importlib.import_module(module)
    _warm_up_compiler()
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, all that the processes share
    started: set[int] = set()
    for line in sys.stdin:
        question = json.loads(line)
        answer: int | bool
        if "ready" in question:
            answer = True
        elif "start" in question:
            answer = os.fork()
            if answer == 0:
                _go_through(Job(**question["start"]))
            started.add(answer)
        elif "look" in question:
            answer = os.waitid(os.P_PID, question["look"], os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
            started.remove(question["wait"])
        print(json.dumps(answer), flush=True)
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _warm_up_compiler() -> None:
    import numba

    numba.njit(lambda x: x + 1)(1.0)


def _go_through(job: Job) -> None:
    """Be the command; the end of this process is that of the command."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))  # until there is a command to hear of it
    from darts.cli import main, run_command_line

    _redirect(job.log)
    if job.one_core:
        _keep_to_one_core()
    if job.without_network:
        _leave_the_network()
    if job.fork_workers:
        multiprocessing.get_context = lambda method=None: _ForkContext()  # type: ignore[assignment]
    if job.folder:
        _watch_files(job)
    code = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in job.lines[:-1]:
        code = code or run_command_line(line)
    sys.argv = ["darts", *job.lines[-1]]
    if code == 0 and job.real_end:
        main()
    code = code or run_command_line(job.lines[-1])
    sys.stdout.flush()
    os._exit(code)


def _redirect(log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _keep_to_one_core() -> None:
    import torch

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)  # it counted the cores when it was imported


def _leave_the_network() -> None:
    import ctypes

    new_user, new_network = 0x10000000, 0x40000000
    flags = new_network if os.geteuid() == 0 else new_network | new_user
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), "cannot leave the network")


def _watch_files(job: Job) -> None:
    """Count what Python does to files of a folder, and die before a given one."""
    main, count = os.getpid(), 0
    counter = os.open(f"{job.log}.operations", os.O_WRONLY | os.O_CREAT)

    def hear(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        in_worker = os.getpid() != main
        if event not in FILE_OPERATIONS or in_worker != job.kill_worker or not str(args[0]).startswith(job.folder):
            return
        count += 1
        if not in_worker:
            os.pwrite(counter, b"%9d" % count, 0)
        if count == job.kill_at and _is_first(job):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)


def _is_first(job: Job) -> bool:
    """Return whether no other worker died yet: one that takes its place would die at the same point again."""
    try:
        os.close(os.open(f"{job.log}.killed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class _ForkContext:
    """Forks where `multiprocessing` would spawn; children have no files and connections of their parent here either."""

    def __init__(self) -> None:
        context = multiprocessing.context.ForkContext()
        self.Pipe = context.Pipe
        self._process = context.Process

    def Process(self, *, target: Callable[..., None], args: tuple[Any, ...], **more: Any) -> Any:  # noqa: N802
        return self._process(target=_on_its_own, args=(target, args), **more)


def _on_its_own(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    own = {argument.fileno() for argument in args if isinstance(argument, Connection)}
    for descriptor in set(range(3, 256)) - own:
        with contextlib.suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
                os.close(descriptor)
    target(*args)


if __name__ == "__main__":
    serve()
