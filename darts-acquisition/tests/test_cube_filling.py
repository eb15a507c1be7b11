import os
import signal
import subprocess
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine

from darts_acquisition import Cube
from darts_acquisition.cube_filling import fill_cube
from darts_utils.errors import RemoteError, StoreError

GRID = GeoBox((96, 128), Affine(10, 0, -2_000_000, 0, -10, 500_000), "EPSG:3413")


def _source(chunk: GeoBox) -> xr.Dataset:
    """What the server has on a chunk: each pixel tells its row and column."""
    column, row = (round(n) for n in ~GRID.affine * (chunk.affine.c, chunk.affine.f))
    rows, columns = np.mgrid[row : row + chunk.shape.y, column : column + chunk.shape.x]
    variables = {"height": (rows * 1000 + columns).astype("float32"), "code": np.ones(chunk.shape.yx, "uint8")}
    return xr.Dataset({k: (("y", "x"), v) for k, v in variables.items()}, coords=xr_coords(chunk, dims=("y", "x")))


def _check_whole(cube: Cube) -> None:
    assert cube.missing(GRID) == []
    assert cube.read(GRID).drop_attrs().equals(_source(GRID))


def test_missing_chunks_are_fetched_once_and_stored(make_cube):
    cube = make_cube(GRID)
    fetched, told = [], []

    def fetch(chunk):
        fetched.append(chunk)
        return _source(chunk)

    missing = cube.missing(GRID)
    assert fill_cube(cube, missing, fetch, on_chunk=told.append) == len(missing) == 48
    _check_whole(cube)
    assert sorted(map(str, fetched)) == sorted(map(str, told)) == sorted(map(str, missing))
    assert fill_cube(cube, cube.missing(GRID), fetch) == 0
    assert len(fetched) == 48


def test_several_chunks_are_in_flight_but_no_more_than_workers(make_cube):
    cube = make_cube(GRID)
    lock, flying, most = threading.Lock(), 0, 0
    together = threading.Barrier(3)

    def fetch(chunk):
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        # Passes only when three are in flight at once; all 48 chunks are multiples of three.
        together.wait(60)
        with lock:
            flying -= 1
        return _source(chunk)

    fill_cube(cube, cube.missing(GRID), fetch, workers=3)
    assert most == 3
    _check_whole(cube)


def test_a_chunk_that_others_filled_is_not_fetched(make_cube):
    cube = make_cube(GRID)
    missing = cube.missing(GRID)
    for chunk in missing[:40]:
        cube.write(_source(chunk))
    fetched = []
    told = []

    def fetch(chunk):
        fetched.append(chunk)
        return _source(chunk)

    assert fill_cube(cube, missing, fetch, on_chunk=told.append) == 8
    assert len(fetched) == 8
    assert len(told) == 48
    _check_whole(cube)


def test_the_first_failure_stops_and_what_was_fetched_is_kept(make_cube):
    cube = make_cube(GRID)
    missing = cube.missing(GRID)
    bad = missing[17]
    begun = []

    def fetch(chunk):
        begun.append(chunk)
        if chunk == bad:
            raise RemoteError("the server is on fire")
        return _source(chunk)

    told = []
    with pytest.raises(RemoteError) as caught:
        fill_cube(cube, missing, fetch, on_chunk=told.append)
    message = str(caught.value)
    x, y = bad.boundingbox.left, bad.boundingbox.top
    assert "some.icechunk" in message
    assert f"x {x:.10g} to" in message
    assert f"to {y:.10g} in EPSG:3413" in message
    assert "on fire" in message
    left = cube.missing(GRID)
    assert bad in left
    assert len(left) == 48 - len(told)
    # Nothing that was fetched is lost.
    assert {str(chunk) for chunk in begun} - {str(bad)} == {str(chunk) for chunk in told}
    assert fill_cube(cube, left, _source) == len(left)
    _check_whole(cube)


def test_a_block_off_the_grid_is_an_error_and_no_filled_chunk(make_cube):
    cube = make_cube(GRID)
    missing = cube.missing(GRID)
    with pytest.raises(Exception, match=r"some\.icechunk"):
        fill_cube(cube, missing[:1], lambda chunk: _source(missing[5]).isel(y=slice(0, 3)))
    assert len(cube.missing(GRID)) == 48


def test_an_interruption_sets_stop_and_keeps_what_is_stored(make_cube):
    cube = make_cube(GRID)
    stop = threading.Event()

    def interrupted(chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_cube(cube, cube.missing(GRID), _source, on_chunk=interrupted, stop=stop)
    assert stop.is_set()
    assert 0 < len(cube.missing(GRID)) < 48
    fill_cube(cube, cube.missing(GRID), _source)
    _check_whole(cube)


def _fill_part(path: Path, rows: tuple[int, int], log: Path) -> None:
    cube = Cube.open(path)

    def fetch(chunk):
        time.sleep(0.01)
        with log.open("a") as file:
            file.write(f"{chunk.boundingbox.bbox}\n")
        return _source(chunk)

    fill_cube(cube, cube.missing(GRID[slice(*rows), :]), fetch, workers=2)


def _processes():
    """Processes forked from one that has imported what they need but started no thread."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["darts_acquisition.cube_filling"])
    return context


@pytest.mark.slow
def test_processes_that_fill_overlapping_areas_lose_nothing_and_share_the_work(make_cube, tmp_path):
    cube = make_cube(GRID)
    log = tmp_path / "log"
    rows = [(0, 96), (0, 64), (32, 96), (0, 96)]
    with _processes().Pool(4) as pool:
        pool.starmap(_fill_part, [(cube.path, r, log) for r in rows], chunksize=1)
    _check_whole(cube)
    # Four processes need 160 chunks of the 48 in all.
    assert 48 <= len(log.read_text().splitlines()) < 110


def _fill_and_tell(path: Path, stored) -> None:
    cube = Cube.open(path)
    fill_cube(cube, cube.missing(GRID), _source, on_chunk=lambda chunk: stored.release())


@pytest.mark.slow
def test_after_kills_at_any_moment_the_cube_is_readable_and_filling_goes_on(make_cube):
    cube = make_cube(GRID)
    for n in (1, 7, 20):
        context = _processes()
        stored = context.Semaphore(0)
        process = context.Process(target=_fill_and_tell, args=(cube.path, stored))
        before = len(cube.missing(GRID))
        process.start()
        for _ in range(n):
            assert stored.acquire(timeout=60)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        missing = cube.missing(GRID)
        assert 0 < len(missing) <= before - n
        for chunk in cube.chunks_touching(GRID):
            if chunk not in missing:
                assert cube.read(chunk).drop_attrs().equals(_source(chunk))
    fill_cube(cube, cube.missing(GRID), _source)
    _check_whole(cube)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_on_a_full_disk_the_cube_stays_readable_and_filling_goes_on_later(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no small disk can be mounted: {mount.stderr}")
    try:
        grid = GeoBox((1600, 1600), GRID.affine, GRID.crs)
        cube = Cube.create(disk / "some.icechunk", grid, {"height": ("float32", np.nan)}, 200)
        rng = np.random.default_rng(0)
        values = rng.normal(size=(200, 200)).astype("float32")

        def fetch(chunk):
            return xr.Dataset({"height": (("y", "x"), values)}, coords=xr_coords(chunk, dims=("y", "x")))

        with pytest.raises(StoreError, match=r"some\.icechunk.*chunk x .*(space|nothing was changed)"):
            fill_cube(cube, cube.missing(grid), fetch, workers=2)
        missing = cube.missing(grid)
        assert 0 < len(missing) < 64
        for chunk in cube.chunks_touching(grid):
            if chunk not in missing:
                np.testing.assert_array_equal(cube.read(chunk)["height"], values)
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        assert fill_cube(cube, cube.missing(grid), fetch) == len(missing)
        assert cube.missing(grid) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
