"""One attempt at a tile: its stages, and what is told of it when it is over."""

import errno
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import rasterio.transform
import xarray as xr
from pyproj import Transformer

from darts import __version__
from darts.plan import Plan
from darts.records.events import Event, Finished, Job, Step
from darts.records.ledger import Outcome, State
from darts.tiles import Inputs
from darts.timings import TileClock
from darts_utils.errors import DartsError, RemoteError, StoreError
from darts_utils.store import remove_leftovers

logger = logging.getLogger("darts.executors.attempts")

Emit = Callable[[Event], None]

_PASSING_ERRNOS = frozenset({errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR, errno.EBUSY})
"""Failures of network file systems that a later attempt may not see."""


class Attempt:
    """A tile on its way through load, compute and finish; each stage is called once, on any thread."""

    def __init__(self, plan: Plan, job: Job, emit: Emit, worker: str) -> None:
        self.job = job
        self.worker = worker
        self._plan = plan
        self._emit = emit
        self._clock = TileClock(lambda step: emit(Step(job.tile.tile_id, step, worker)))
        self._inputs: Inputs | None = None
        self._segmented: xr.Dataset | None = None
        self._bytes_loaded = 0
        self._corners: tuple[tuple[float, float], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether there is nothing to do: all files are there, whole, and as large as the ledger says."""
        tile = self.job.tile
        if self.job.overwrite or self._plan.missing(tile) != "none":
            return False
        others = [name for name, size in self.job.sizes.items() if _size(tile.output / name) != size]
        if others:
            logger.warning("%s is made again: %s is not what was written down", tile.tile_id, ", ".join(sorted(others)))
        return not others

    @property
    def bytes_held(self) -> int:
        """About how many bytes it takes from here to the end of its next stage."""
        if self._inputs is not None:
            return self._plan.bytes_needed(self._inputs)
        return 0 if self._segmented is None else self._plan.bytes_to_finish(self._segmented)

    def load(self) -> None:
        """Read the inputs."""
        self._inputs = inputs = self._plan.load(self.job.tile, self._clock)
        self._bytes_loaded = inputs.nbytes
        with suppress(Exception):  # only maps need it, and odd grids fail in the step that cares
            self._corners = _corners(inputs.datasets[0].odc.geobox)

    def compute(self) -> None:
        """Make features and probabilities."""
        assert self._inputs is not None
        self._segmented = self._plan.compute(self.job.tile, self._inputs, self._clock, self.job.batch_size)
        self._inputs = None

    def finish(self) -> Finished:
        """Find objects, write the files, and tell what became of the tile.

        Raises:
            StoreError: the files cannot be written.
        """
        output = self.job.tile.output
        try:
            self._plan.finish(self.job.tile, self._take_segmented(), self._clock)
            files = record_files(output, self._plan.files())
        except DartsError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write {output}: {error.strerror or error}") from error
        return self._finished("success", files=files)

    def skipped(self) -> Finished:
        """Tell of a tile that is complete; with its files where nobody wrote them down."""
        remove_leftovers(self.job.tile.output)  # of a writer that was killed when all was done but that
        files = {} if self.job.sizes else record_files(self.job.tile.output, self._plan.files())
        return self._finished("skipped", files=files)

    def failed(self, error: BaseException) -> Finished:
        """Tell of a failure, and let go of everything."""
        logger.debug("%s failed", self.job.tile.tile_id, exc_info=error)
        self._inputs = self._segmented = None
        cause = type(error).__name__
        out_of_memory = any(_is_out_of_memory(e) for e in _chain(error))
        if out_of_memory:
            with suppress(Exception):  # a device that broke cannot do even that, and the tile must be told of
                _empty_device_caches()
        told = f"{cause}: {error}".removesuffix(": ")
        return self._finished(
            "failed", error=told, cause=cause, transient=is_transient(error), out_of_memory=out_of_memory
        )

    def _take_segmented(self) -> xr.Dataset:
        """Hand the layers over: nobody else holds on to them while files are written."""
        segmented, self._segmented = self._segmented, None
        assert segmented is not None
        return segmented

    def _finished(self, status: State, *, transient: bool = False, out_of_memory: bool = False, **of: Any) -> Finished:
        tile = self.job.tile
        outcome = Outcome(
            tile_id=tile.tile_id,
            output_path=str(tile.output),
            status=status,
            attempt=self.job.attempt,
            options=self._plan.fingerprint,
            version=__version__,
            models=dict(self._plan.ensemble.checksums),
            worker=self.worker,
            seconds=self._clock.seconds,
            bytes_loaded=self._bytes_loaded,
            corners=self._corners,
            **of,
        )
        return Finished(outcome, tuple(self._clock.calls), transient, out_of_memory)


def is_transient(error: BaseException) -> bool:
    """Return whether another attempt may do better: a busy server, a network file system that hiccuped."""
    return any(
        (isinstance(e, RemoteError) and e.transient) or (isinstance(e, OSError) and e.errno in _PASSING_ERRNOS)
        for e in _chain(error)
    )


def record_files(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return size in bytes and SHA-256 of files in a folder."""
    found = {}
    for name in sorted(set(names)):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = (file.tell(), digest)
    return found


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        yield at
        at = at.__cause__ or at.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device ran out of memory; torch and cupy each have a class of their own for that."""
    return type(error).__name__ in ("OutOfMemoryError", "OutOfMemory")


def _empty_device_caches() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _corners(geobox: Any) -> tuple[tuple[float, float], ...]:
    rows, columns = geobox.shape
    to_lonlat = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)
    places = [
        to_lonlat.transform(*rasterio.transform.xy(geobox.affine, row, column, offset="ul"))
        for row, column in ((0, 0), (0, columns), (rows, columns), (rows, 0))
    ]
    return tuple((round(float(lon), 6), round(float(lat), 6)) for lon, lat in places)
