"""Workers in processes of their own, one a device: a GPU each, or a share of the cores each."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darts.executors.crew import Crew, CrewWorkers, Member
from darts.executors.serving import CLOSE, STOP, Gone, serve, tell_logs
from darts.executors.work import Work
from darts.records.events import Event, Job, Lost
from darts_utils.errors import ConfigError, DartsError
from darts_utils.threads import available_cores

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


logger = logging.getLogger("darts.executors.processes")

PATIENCE_S = 60
"""How long a worker without work may take to end."""

BEGUN = "begun"
"""What a worker tells first: Python has imported in its process what it needs to receive the pipeline."""


class Processes(CrewWorkers["_Child"]):
    """Workers that are processes; one that dies is started again."""

    def __init__(
        self,
        pipeline: Work,
        devices: Sequence[str | int],
        *,
        memory: int | None,
        n_tiles: int,
    ) -> None:
        self._pipeline = pipeline
        self._memory = None if memory is None else str(max(memory // len(devices), 1))
        shares = _shares(sorted(_cores()), len(devices))
        children = [
            _Child(name=f"{device} ({n})" if devices.count(device) > 1 else str(device), device=device, cores=cores)
            for n, (device, cores) in enumerate(zip(devices, shares, strict=True), start=1)
        ]
        self._crew = Crew(children, n_tiles)
        try:
            for child in children:
                self._start(child)
            self._wait_for_the_first()
        except BaseException:
            self.close(now=True)
            raise

    def submit(self, job: Job) -> None:
        """Give a job to the worker that has least to do."""
        try:
            self._crew.assign(job).send(job)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ConfigError(
                f"tile {job.tile.tile_id} cannot be sent to another process: {error}. Keep only plain values in the "
                "keys of tiles"
            ) from error

    def next_event(self, timeout_s: float) -> Event | None:
        """Return what happened next; see `Workers`."""
        alive = {child.connection: child for child in self._crew.members if child.connection is not None}
        if not alive:
            raise DartsError("no worker is left: each of them died again and again; see the log for the reasons")
        for connection in multiprocessing.connection.wait(list(alive), timeout_s):
            child = alive[connection]  # type: ignore[index]
            try:
                message = child.connection.recv()  # type: ignore[union-attr]
            except Exception:  # its end, or half a message: the worker is gone
                return self._lost(child)
            child.begun = True
            if message == BEGUN:
                return None
            if isinstance(message, Gone):
                return self._lost(child, message.reason)
            return self._crew.hear(child, message)
        return None

    def stop(self) -> None:
        """Let go of jobs that are not computed yet."""
        self._crew.stopping = True
        for child in self._crew.members:
            child.send(STOP)

    def close(self, *, now: bool = False) -> None:
        """End the workers."""
        for child in self._crew.members:
            child.send(CLOSE)
        for child in self._crew.members:
            if child.process is not None and child.ready and not now:  # one that still loads models has no work
                child.process.join(PATIENCE_S)
            if child.process is not None and child.process.is_alive():
                child.process.kill()
                child.process.join()
            child.connection = None

    def _lost(self, child: "_Child", reason: str | None = None) -> Lost:
        assert child.process is not None
        child.process.join(5)
        if not child.begun and (child.process.exitcode or 0) > 0:  # the same would happen again
            raise ConfigError(
                f"worker {child.name} could not begin; the last error that its process wrote tells why. In a script, "
                'put what runs the pipeline below `if __name__ == "__main__":`; define pipelines of your own in a '
                "module, not in a notebook"
            ) from None
        lost, again = self._crew.lose(child, reason or _death(child.process.exitcode))
        child.connection = None
        if again:
            self._start(child)
        return lost

    def _start(self, child: "_Child") -> None:
        pipeline = self._pipeline.for_worker(child.device, self._memory)
        context = multiprocessing.get_context("spawn")  # a fork would share CUDA and the threads of libraries
        ours, theirs = context.Pipe()
        child.begun = False
        child.process = context.Process(
            target=_serve, args=(theirs, pipeline, child.name, child.cores), name=f"darts-{child.name}", daemon=True
        )
        try:
            with _interrupts_ignored():
                child.process.start()
        except RuntimeError as error:
            raise ConfigError(
                "workers in processes of their own import the script that started them: put what runs the pipeline "
                f'below `if __name__ == "__main__":` ({str(error).strip().partition(chr(10))[0]})'
            ) from error
        except (AttributeError, TypeError, ValueError, pickle.PicklingError) as error:
            raise ConfigError(
                f"{type(self._pipeline).__name__} cannot be sent to another process: {error}. Define it in a module, "
                "not in a notebook or a function, and keep only plain values in it"
            ) from error
        theirs.close()
        child.connection = ours


@dataclass(eq=False, kw_only=True)
class _Child(Member):
    """A worker's process."""

    device: str | int
    cores: frozenset[int]
    begun: bool = False
    process: "SpawnProcess | None" = None
    connection: "Connection[Any, Any] | None" = None

    def send(self, message: Any) -> None:
        if self.connection is not None:
            with suppress(OSError):  # it is dead, and `next_event` will find that
                self.connection.send(message)


def _serve(connection: "Connection[Any, Any]", pipeline: Work, name: str, cores: frozenset[int]) -> None:
    """Work on the jobs that come through a connection, in a process of its own, until it closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides what they mean
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before libraries count the cores
    lock = threading.Lock()

    def tell(message: Any) -> None:
        with lock, suppress(OSError):  # the parent is gone; `recv` below hears of it too
            connection.send(message)

    tell(BEGUN)
    tell_logs(tell)
    try:
        serve(pipeline, name, connection.recv, tell)
    except (EOFError, OSError):
        os._exit(1)  # nobody is there to hear of results; what is half written counts as absent


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Hear no Ctrl-C for a while: a child that starts meanwhile never hears of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _cores() -> set[int]:
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(available_cores()))


def _shares(cores: Sequence[int], count: int) -> list[frozenset[int]]:
    """Divide cores among workers, in neighbouring groups; where there are fewer cores, they are shared."""
    if len(cores) < count:
        return [frozenset({cores[n % len(cores)]}) for n in range(count)]
    edges = [round(n * len(cores) / count) for n in range(count + 1)]
    return [frozenset(cores[edges[n] : edges[n + 1]]) for n in range(count)]


def _death(exit_code: int | None) -> str:
    if exit_code is None:
        return "the connection to it broke"
    if exit_code < 0:
        with suppress(ValueError):
            name = signal.Signals(-exit_code).name
            memory = "; was the machine out of memory?" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{memory}"
    return f"its process ended with exit code {exit_code}"
