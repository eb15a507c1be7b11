"""A worker on a cluster: an actor of Ray's."""

# Nothing heavy is imported up here: libraries count the cores when they are imported, and are bounded before.
import os
import pickle
import socket
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from darts import __version__

_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "GDAL_NUM_THREADS")
"""Variables that say how many threads libraries may start."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A worker has found a place on the cluster."""

    version: str
    """Version of darts there."""
    node: str
    """Ray's id of the node."""
    host: str


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What a worker has to know before it starts."""

    pipeline: bytes
    """The pipeline, pickled."""
    folder: str
    """The working directory, which paths are relative to."""
    neighbours: int
    """Workers that share the memory of the node, this one counted."""


class TileWorker:
    """Works on tiles; `hear` and `send` are called at the same time."""

    def __init__(self, name: str, cores: int) -> None:
        import ray

        os.environ.update(dict.fromkeys(_COUNTS, str(cores)))
        self._name = name
        self._cores = cores
        self._received: SimpleQueue[Any] = SimpleQueue()
        self._told: SimpleQueue[Any] = SimpleQueue()
        node = ray.get_runtime_context().get_node_id()
        self._told.put(Placed(version=__version__, node=node, host=socket.gethostname()))
        threading.Thread(target=self._serve, name="darts-serve", daemon=True).start()

    def send(self, message: Any) -> None:
        """Receive the briefing, then jobs and what `serving` names."""
        self._received.put(message)

    def hear(self) -> list[Any]:
        """Return what there is to tell, at least one thing, in its order; waits for it."""
        messages = [self._told.get()]
        try:
            while True:
                messages.append(self._told.get_nowait())
        except Empty:
            return messages

    def _serve(self) -> None:
        from darts.executors.serving import Gone, serve, tell_logs

        try:
            briefing: Briefing = self._received.get()
            tell_logs(self._told.put)
            if pipeline := self._unpack(briefing):
                serve(pipeline, self._name, self._received.get, self._told.put)
        except BaseException as error:
            self._told.put(Gone(f"{type(error).__name__}: {error}"))

    def _unpack(self, briefing: Briefing) -> Any:
        """Return the pipeline, None if it cannot be had here, which is told."""
        import logging

        from darts.memory import memory_budget
        from darts_utils.errors import ConfigError

        try:
            os.chdir(briefing.folder)
        except OSError as error:
            logging.getLogger("darts.executors.ray_actor").warning(
                "%s has no folder %s (%s): paths that are relative to it are not found",
                socket.gethostname(), briefing.folder, error.strerror,
            )  # fmt: skip
        try:
            pipeline = pickle.loads(briefing.pipeline)
        except Exception as error:
            self._told.put(
                ConfigError(
                    f"the pipeline cannot be read on {socket.gethostname()}: {type(error).__name__}: {error}. "
                    "All nodes need the same packages, and the module that defines the pipeline"
                )
            )
            return None
        budget = memory_budget(pipeline.memory_budget)
        pipeline.memory_budget = None if budget is None else str(max(budget // briefing.neighbours, 1))
        import torch

        torch.set_num_threads(self._cores)
        return pipeline
