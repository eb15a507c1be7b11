"""Filling a cube: chunks fetched several at once, each stored when it is there, so that nothing fetched is lost."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import xarray as xr
from odc.geo.geobox import GeoBox

from darts_acquisition.cube import Cube
from darts_acquisition.footprints import describe_area, window_of
from darts_utils.errors import DartsError


def fill_cube(
    cube: Cube,
    chunks: Sequence[GeoBox],
    fetch: Callable[[GeoBox], xr.Dataset],
    *,
    workers: int = 4,
    on_chunk: Callable[[GeoBox], None] | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Fetch and store chunks, each in a transaction of its own; return how many this call stored.

    Chunks that others filled meanwhile are skipped, before they are fetched where that is known by then: several
    processes that fill the same area share the work, since each begins at another chunk. At most `workers` chunks are
    in memory. At the first failure no further chunk is begun; those in flight are still stored, then it is raised.

    Args:
        cube: the cube to fill.
        chunks: as `Cube.missing` gives them.
        fetch: returns all variables of the cube on a chunk; called from several threads.
        workers: chunks in flight.
        on_chunk: hears of each chunk that is there, whoever stored it; called from this thread.
        stop: set when this call is interrupted, so that `fetch` can give up early.

    Raises:
        DartsError: as `fetch` and `Cube.write` raise it; names the cube and the area of the chunk.
    """
    stop = stop or threading.Event()
    waiting = _rotated(chunks)
    flying: dict[Future[bool], GeoBox] = {}
    failure: BaseException | None = None
    n_stored = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="fill-cube") as pool:
        try:
            while True:
                while failure is None and len(flying) < workers and (chunk := next(waiting, None)) is not None:
                    flying[pool.submit(_fill_chunk, cube, chunk, fetch, stop)] = chunk
                if not flying:
                    break
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    chunk = flying.pop(future)
                    if (error := future.exception()) is not None:
                        failure = failure or error
                        continue
                    n_stored += future.result()
                    if on_chunk is not None:
                        on_chunk(chunk)
        except BaseException:
            stop.set()
            raise
    if failure is not None:
        raise failure
    return n_stored


def _fill_chunk(cube: Cube, chunk: GeoBox, fetch: Callable[[GeoBox], xr.Dataset], stop: threading.Event) -> bool:
    """Return whether the chunk was stored by us."""
    try:
        if stop.is_set() or cube.is_filled(chunk):
            return False
        return cube.write(fetch(chunk), only_missing=True)
    except DartsError as error:
        area = describe_area([window_of(chunk, cube.geobox)], cube.geobox)
        raise type(error)(f"cube {cube.path}, chunk {area}: {error}") from error


def _rotated(chunks: Sequence[GeoBox]) -> Iterator[GeoBox]:
    """Return the chunks in their order, begun anywhere: neighbours share source tiles."""
    start = hash((os.getpid(), time.monotonic_ns())) % max(len(chunks), 1)
    return iter([*chunks[start:], *chunks[:start]])
