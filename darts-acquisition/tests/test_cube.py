import shutil
import subprocess
import sys
import textwrap
from multiprocessing import get_context
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio.warp
import shapely
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from rasterio import Affine

from darts_acquisition import Cube
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError, MissingDataError, StoreError

GRID = GeoBox((100, 90), Affine(10, 0, -2_000_000, 0, -10, 500_000), "EPSG:3413")


def _block(geobox: GeoBox, value: float | None = None):
    import xarray as xr

    rng = np.random.default_rng(geobox.shape.y)
    height = rng.normal(100, 20, geobox.shape.yx) if value is None else np.full(geobox.shape.yx, value)
    variables = {"height": height.astype("float32"), "code": (height.astype("uint8") | 1)}
    coords = xr_coords(geobox, dims=("y", "x"))
    return xr.Dataset({k: (("y", "x"), v) for k, v in variables.items()}, coords=coords)


def _part(rows: tuple[int, int], columns: tuple[int, int], grid: GeoBox = GRID) -> GeoBox:
    return grid[slice(*rows), slice(*columns)]


def test_what_is_written_is_read_back(make_cube):
    cube = make_cube(GRID)
    area = cube.aligned(_part((20, 40), (30, 50)))
    assert area == _part((16, 48), (16, 64))
    block = _block(area)
    cube.write(block)
    read = cube.read(_part((20, 40), (30, 50)))
    assert read.odc.geobox == _part((20, 40), (30, 50))
    np.testing.assert_array_equal(read["height"], block["height"][4:24, 14:34])
    np.testing.assert_array_equal(read["code"], block["code"][4:24, 14:34])
    assert read["code"].dtype == np.uint8


def test_a_cube_is_found_again_with_its_grid_and_chunks(make_cube):
    cube = make_cube(GRID, chunk=32)
    again = Cube.open(cube.path)
    assert again.geobox == GRID
    assert again.chunk_px == 32
    assert again.nodata["code"] == 0
    assert np.isnan(again.nodata["height"])
    assert [path.name for path in cube.path.parent.iterdir()] == [cube.path.name]


def test_a_buffer_reads_pixels_around(make_cube):
    cube = make_cube(GRID)
    cube.write(_block(GRID))
    assert cube.read(_part((20, 21), (30, 31)), 5).odc.geobox == _part((15, 26), (25, 36))


def test_the_last_chunks_end_with_the_grid(make_cube):
    cube = make_cube(GRID)
    corner = _part((96, 100), (80, 90))
    assert cube.aligned(corner) == corner
    cube.write(_block(corner))
    assert cube.missing(corner) == []


def test_beyond_the_grid_values_are_nodata_and_no_error(make_cube):
    cube = make_cube(GRID)
    block = _block(GRID)
    cube.write(block)
    read = cube.read(_part((0, 10), (0, 10)), 4)
    assert read.odc.geobox == GRID[0:10, 0:10].pad(4)
    np.testing.assert_array_equal(read["height"][4:, 4:], block["height"][:14, :14])
    assert np.isnan(read["height"][:4]).all()
    assert np.isnan(read["height"][:, :4]).all()
    assert not read["code"][:4].any()
    outside = cube.read(GeoBox((5, 6), Affine(10, 0, 0, 0, -10, 0), "EPSG:3413"))
    assert outside["height"].shape == (5, 6)
    assert np.isnan(outside["height"]).all()


def test_an_unfilled_area_is_an_error_that_names_it_and_the_command(make_cube):
    cube = make_cube(GRID)
    cube.write(_block(_part((0, 16), (0, 16))))
    with pytest.raises(MissingDataError) as caught:
        cube.read(_part((0, 20), (0, 10)), fetch="fetch it so")
    message = str(caught.value)
    # Row 16 on is missing: y from 500,000 − 200 to 500,000 − 160, x over the ten columns.
    assert "x -2000000 to -1999900, y 499800 to 499840 in EPSG:3413" in message
    longitude, latitude = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True).transform(-2e6, 499_840)
    assert f"lon/lat {longitude:.3f}/{latitude:.3f}" in message
    assert message.endswith("with fetch it so")
    assert cube.missing(_part((0, 20), (0, 10))) == [_part((16, 32), (0, 16))]


def test_a_block_that_covers_chunks_in_part_needs_pad(make_cube):
    cube = make_cube(GRID)
    block = _block(_part((5, 20), (5, 20)))
    with pytest.raises(GridMismatchError, match="aligned"):
        cube.write(block)
    cube.write(block, pad=True)
    read = cube.read(_part((0, 32), (0, 32)))
    np.testing.assert_array_equal(read["height"][5:20, 5:20], block["height"])
    assert np.isfinite(read["height"]).sum() == 15 * 15
    assert (read["code"] != 0).sum() == 15 * 15


def test_padding_keeps_what_a_chunk_holds_already(make_cube):
    cube = make_cube(GRID)
    cube.write(_block(_part((0, 16), (0, 16)), 1))
    cube.write(_block(_part((0, 16), (8, 24)), 2), pad=True)
    row = cube.read(_part((0, 1), (0, 32)))["height"].values[0]
    assert row[:8].tolist() == [1] * 8
    assert row[8:24].tolist() == [2] * 16
    assert np.isnan(row[24:]).all()


@pytest.mark.parametrize(
    "area",
    [
        GeoBox((16, 16), GRID.affine * Affine.translation(0.5, 0), GRID.crs),
        GeoBox((16, 16), GRID.affine * Affine.scale(2), GRID.crs),
        GeoBox((16, 16), GRID.affine, "EPSG:32608"),
        GeoBox((16, 16), GRID.affine * Affine.translation(-16, 0), GRID.crs),
        GeoBox((16, 32), GRID.affine * Affine.translation(80, 0), GRID.crs),
    ],
    ids=["shifted", "coarser", "another CRS", "before the grid", "after the grid"],
)
def test_a_block_off_the_grid_is_refused(make_cube, area):
    cube = make_cube(GRID)
    with pytest.raises(GridMismatchError, match=r"some\.icechunk"):
        cube.write(_block(area), pad=True)


def test_a_block_with_missing_or_lossy_variables_is_refused(make_cube):
    cube = make_cube(GRID)
    block = _block(_part((0, 16), (0, 16)))
    with pytest.raises(MissingBandError, match="code"):
        cube.write(block[["height"]])
    with pytest.raises(ConfigError, match=r"code.*float64"):
        cube.write(block.assign(code=block["code"].astype("float64")))
    assert cube.missing(_part((0, 16), (0, 16))) != []


def test_a_cube_is_not_made_twice_nor_found_where_none_is(make_cube, tmp_path):
    make_cube(GRID)
    with pytest.raises(ConfigError, match="exists"):
        make_cube(GRID)
    with pytest.raises(MissingDataError, match="nowhere"):
        Cube.open(tmp_path / "nowhere.icechunk")
    assert not (tmp_path / "nowhere.icechunk").exists()


def _chunk_files(cube: Cube) -> list[Path]:
    return sorted((cube.path / "chunks").iterdir(), key=lambda path: path.stat().st_size)


def test_pixels_in_chunks_that_the_target_does_not_touch_are_nodata_whatever_the_cube_holds(make_cube):
    # A tile turned by 45° within a window of 6 × 6 chunks, whose corners it does not touch.
    middle = GRID.affine * (48, 48)
    turned = GeoBox((40, 40), Affine.translation(*middle) * Affine.rotation(45) * Affine.scale(10, -10), GRID.crs)
    turned = GeoBox(turned.shape, turned.affine * Affine.translation(-20, -20), GRID.crs)
    sparse, full = make_cube(GRID, name="sparse.icechunk"), make_cube(GRID, name="full.icechunk")
    full.write(_block(GRID))
    needed = sparse.missing(turned)
    assert 0 < len(needed) < 16
    for chunk in needed:
        rows, columns = _place(chunk)
        sparse.write(_block(GRID).isel(y=slice(*rows), x=slice(*columns)))
    assert sparse.missing(turned) == []
    read = sparse.read(turned)
    assert read.identical(full.read(turned))
    assert np.isnan(read["height"].values[0, 0])
    assert np.isfinite(read["height"].values).sum() == sum(
        _overlap(_place(chunk), _place(read.odc.geobox)) for chunk in needed
    )


def _place(block: GeoBox) -> tuple[tuple[int, int], tuple[int, int]]:
    column, row = (round(n) for n in ~GRID.affine * (block.affine.c, block.affine.f))
    return (row, row + block.shape.y), (column, column + block.shape.x)


def _overlap(a, b) -> int:
    return int(np.prod([max(0, min(p[1], q[1]) - max(p[0], q[0])) for p, q in zip(a, b, strict=True)]))


def test_chunks_under_an_area_are_found_and_only_the_unfilled_are_missing(make_cube):
    cube = make_cube(GRID)
    area = gpd.GeoSeries([shapely.box(-1_999_990, 499_700, -1_999_700, 499_990)], crs=3413)
    chunks = cube.chunks_touching(area)
    assert chunks == [_part((16 * i, 16 * i + 16), (16 * j, 16 * j + 16)) for i in (0, 1) for j in (0, 1)]
    cube.write(_block(chunks[0]))
    assert cube.missing(area) == chunks[1:]
    assert cube.is_filled(chunks[0])
    assert not cube.is_filled(chunks[1])
    assert not cube.is_filled(_part((0, 32), (0, 16)))


def test_a_block_that_was_filled_meanwhile_is_not_written_again(make_cube):
    cube = make_cube(GRID)
    chunk = _part((0, 16), (0, 16))
    assert cube.write(_block(chunk, 1), only_missing=True)
    assert not cube.write(_block(chunk, 2), only_missing=True)
    assert (cube.read(chunk)["height"] == 1).all()
    assert cube.write(_block(_part((0, 16), (0, 32)), 3), only_missing=True)
    assert (cube.read(chunk)["height"] == 3).all()


def test_a_cube_that_exists_is_opened_where_that_is_all_right(make_cube):
    cube = make_cube(GRID)
    cube.write(_block(_part((0, 16), (0, 16)), 1))
    again = Cube.create(cube.path, GRID, {"height": ("float32", np.nan)}, 16, exist_ok=True)
    assert (again.path, again.geobox, again.chunk_px, list(again.nodata)) == (cube.path, GRID, 16, list(cube.nodata))
    assert again.missing(_part((0, 16), (0, 16))) == []


@pytest.mark.parametrize("damage", ["truncated", "gone", "one bit"])
def test_a_damaged_chunk_is_an_error_that_names_the_cube(make_cube, damage):
    cube = make_cube(GRID, chunk=64)
    cube.write(_block(_part((0, 64), (0, 64))))
    file = _chunk_files(cube)[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.unlink()
    if damage != "gone":
        file.write_bytes(content if damage == "one bit" else content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"some\.icechunk, height"):
        cube.read(_part((0, 10), (0, 10)))


def test_a_damaged_cube_is_an_error_that_names_it(make_cube):
    cube = make_cube(GRID)
    shutil.rmtree(cube.path / "snapshots")
    with pytest.raises(StoreError, match=r"some\.icechunk"):
        Cube.open(cube.path)


def test_a_cube_of_smart_geocubes_is_told_apart(tmp_path):
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "theirs.icechunk")))
    session = repository.writable_session("main")
    group = zarr.create_group(session.store, attributes={"title": "ArcticDEM10m", "loaded_patches": []})
    group.create_array("dem", shape=(100, 90), chunks=(16, 16), dtype="float32")
    session.commit("theirs")
    with pytest.raises(StoreError, match=r"theirs\.icechunk.*smart-geocubes.*fetch again"):
        Cube.open(tmp_path / "theirs.icechunk")


def test_a_store_of_others_is_no_cube(tmp_path):
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "other.icechunk")))
    session = repository.writable_session("main")
    zarr.create_group(session.store)
    session.commit("other")
    with pytest.raises(StoreError, match=r"other\.icechunk"):
        Cube.open(tmp_path / "other.icechunk")


def _write_column(path: Path, column: int) -> None:
    Cube.open(path).write(_block(_part((0, 96), (16 * column, 16 * column + 16)), column + 1))


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(make_cube):
    cube = make_cube(GRID)
    context = get_context("forkserver")
    context.set_forkserver_preload(["darts_acquisition.cube_filling"])
    with context.Pool(3) as pool:
        pool.starmap(_write_column, [(cube.path, column) for column in range(5)])
    values = cube.read(_part((0, 96), (0, 80)))["height"].values
    np.testing.assert_array_equal(values, np.repeat(np.arange(1, 6), 16)[None].repeat(96, axis=0))


KILLED = """
    import os, signal, sys
    import darts_acquisition.cube as cube_module
    import numpy as np, xarray as xr
    from odc.geo.xr import xr_coords

    cube = cube_module.Cube.open(sys.argv[1])
    area = cube.geobox[0:64, 0:64]
    height = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    block = xr.Dataset(
        {"height": (("y", "x"), height), "code": (("y", "x"), np.ones((64, 64), "uint8"))},
        coords=xr_coords(area, dims=("y", "x")),
    )
    # Dies with the chunks on disk and the transaction open.
    repository = cube_module.repository
    class Session:
        def __init__(self, session): self.session, self.store = session, session.store
        def commit(self, message): os.kill(os.getpid(), signal.SIGKILL)
    class Repository:
        def __init__(self, path): self.inner = repository(path)
        def writable_session(self, branch): return Session(self.inner.writable_session(branch))
    cube_module.repository = Repository
    cube.write(block)
"""


@pytest.mark.slow
def test_a_kill_before_the_commit_changes_nothing_and_the_cube_stays_writable(make_cube):
    cube = make_cube(GRID, chunk=64)
    assert not (cube.path / "chunks").exists()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(cube.path)], check=False)
    assert done.returncode == -9
    assert _chunk_files(cube), "killed too early to test anything"
    assert cube.missing(_part((0, 16), (0, 16))) == [_part((0, 64), (0, 64))]
    cube.write(_block(_part((0, 64), (0, 64)), 7))
    assert (cube.read(_part((0, 16), (0, 16)))["height"] == 7).all()


# A grid of 0.7° around the earth: 514.29 columns, so that it repeats with a remainder.
WORLD = GeoBox((60, 515), Affine(0.7, 0, -180, 0, -0.7, 90), "EPSG:4326")


def _world(make_cube) -> Cube:
    cube = make_cube(WORLD, chunk=50)
    block = _block(WORLD)
    columns = np.arange(WORLD.shape.x, dtype="float32")
    cube.write(block.assign(height=block["height"] * 0 + columns))
    return cube


@pytest.mark.parametrize("left", [174.0, -186.0])
def test_across_the_antimeridian_longitudes_run_on(make_cube, left):
    cube = _world(make_cube)
    target = GeoBox((10, 12), Affine(1, 0, left, 0, -1, 75), "EPSG:4326")
    read = cube.read(target)
    x = read["x"].values
    np.testing.assert_allclose(np.diff(x), 0.7)
    assert x[0] - 0.35 <= left
    assert x[-1] + 0.35 >= left + 12
    # Columns hold their number: the nearest column of the grid to each longitude, to within half a pixel.
    longitude = -180 + 0.7 * (read["height"].values[0] + 0.5)
    apart = np.abs((longitude - x + 180) % 360 - 180)
    assert apart.max() <= 0.35
    assert len(np.unique(read["height"].values[0])) == len(x)


def test_a_utm_tile_on_the_antimeridian_is_covered_without_a_seam(make_cube):
    cube = _world(make_cube)
    target = GeoBox((100, 100), Affine(4000, 0, 100_000, 0, -4000, 7_900_000), "EPSG:32601")
    read = cube.read(target, 3)
    assert read["x"].values[0] < -180 or read["x"].values[-1] > 180
    out = np.full(target.shape.yx, np.nan, "float32")
    rasterio.warp.reproject(
        (read["height"] * 0 + 1).values,
        out,
        src_transform=read.odc.geobox.affine,
        src_crs="EPSG:4326",
        dst_transform=target.affine,
        dst_crs="EPSG:32601",
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=rasterio.warp.Resampling.cubic,
    )
    assert np.isfinite(out).all()


def test_an_area_missing_beyond_the_antimeridian_is_named(make_cube):
    cube = make_cube(WORLD, chunk=50)
    cube.write(_block(WORLD[0:50, 450:515]))
    target = GeoBox((4, 10), Affine(1, 0, 175, 0, -1, 75), "EPSG:4326")
    with pytest.raises(MissingDataError, match=r"x -180 to -17\d.*EPSG:4326"):
        cube.read(target)
