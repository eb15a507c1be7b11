"""Rasters and metadata of any content, through the commands that read them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio import Affine
from rasterio._err import CPLE_BaseError  # what its writers raise, unwrapped

from tests.conftest import OPTICAL, results_of, save_tiny_model
from tests.fuzzing import NASTY_NAMES, Sandbox, check_message, fuzzed, known_error, odd_values, sandbox

__all__ = ["sandbox"]

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 7_700_000)
WKT = 'LOCAL_CS["here",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'

profiles = st.fixed_dictionaries({
    "driver": st.sampled_from(["GTiff"] * 6 + ["PNG", "ENVI", "HFA"]),
    "width": st.integers(1, 40),
    "height": st.integers(1, 40),
    "count": st.sampled_from([1, 3, 4, 4, 4, 5, 8, 8]),
    "dtype": st.sampled_from(["uint16"] * 6 + ["uint8", "int16", "int32", "float32", "float64", "complex64", "int8"]),
    "crs": st.sampled_from(["EPSG:32608"] * 6 + ["EPSG:4326", "EPSG:3413", "EPSG:4978", "EPSG:2225", WKT, None]),
    "transform": st.one_of(
        st.just(NORTH_UP), st.just(NORTH_UP),
        st.sampled_from([Affine.identity(), NORTH_UP * Affine.rotation(10), Affine(0, 0, 0, 0, 0, 0), None]),
        st.builds(Affine, *[st.floats() | st.sampled_from([10.0, -10.0, 0.0, 5e5])] * 6),
        st.builds(lambda a, c, f: Affine(a, 0, c, 0, -a, f), *[st.floats(1e-9, 1e12)] * 3),
    ),
    "nodata": st.one_of(st.none(), st.none(), st.sampled_from([0, 1, -9999, 65535, 65536, 1e300]), st.floats()),
    "tiled": st.booleans(),
    "compress": st.sampled_from([None, "deflate", "lzw"]),
})  # fmt: skip
damages = st.one_of(
    st.none(), st.none(),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("flip"), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8)),
    st.tuples(st.just("header"), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4)),
    st.tuples(st.just("text"), st.sampled_from([
        "", "<VRTDataset rasterXSize='9' rasterYSize='9'><SRS>EPSG:32608</SRS></VRTDataset>", "II*\0",
        "MM\0*\0\0\0\x08", '{"type": "FeatureCollection"}', "/vsicurl/http://127.0.0.1:9/x.tif",
        "II+\0\x08\0\0\0" + "\xff" * 8,
    ])),
    st.tuples(st.just("kind"), st.sampled_from(["folder", "fifo", "loop", "dangling", "device"])),
)  # fmt: skip


def write_raster(path: Path, profile: dict[str, Any], damage: tuple[str, Any] | None) -> bool:
    """Write a raster as far as GDAL does, then damage it; False where it cannot be written at all."""
    kept = {name: value for name, value in profile.items() if value is not None}
    if kept["driver"] != "GTiff":
        kept = {name: value for name, value in kept.items() if name not in ("tiled", "compress")}
    if kept.get("tiled"):
        kept |= {"blockxsize": 16, "blockysize": 16}
    dtype = np.dtype(kept["dtype"])
    rng = np.random.default_rng(1)
    try:
        with rasterio.Env(CPL_LOG="/dev/null"), rasterio.open(path, "w", **kept) as file:
            file.write(rng.integers(1, 120, (kept["count"], kept["height"], kept["width"])).astype(dtype))
    except (rasterio.errors.RasterioError, CPLE_BaseError, ValueError, TypeError, OverflowError):
        return False
    if damage is not None:
        spoil(path, *damage)
    return True


def spoil(path: Path, kind: str, how: Any) -> None:
    content = bytearray(path.read_bytes())
    if kind == "cut":
        content = content[: int(len(content) * how)]
    elif kind == "text":
        content = bytearray(how.encode("latin-1"))
    elif kind in ("flip", "header"):
        for place, byte in how:
            content[min(int(place * len(content)) if kind == "flip" else place, len(content) - 1)] = byte
    if kind != "kind":
        path.write_bytes(content)
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path, "dangling": path.parent / "gone", "device": "/dev/zero"}[how])


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.with_name(path.name + ".aux.xml").unlink(missing_ok=True)
    path.with_suffix(".hdr").unlink(missing_ok=True)


GOOD = {
    "driver": "GTiff", "width": 9, "height": 7, "count": 4, "dtype": "uint16", "crs": "EPSG:32608",
    "transform": NORTH_UP, "nodata": None, "tiled": False, "compress": None,
}  # fmt: skip

OTHER_GRID = {**GOOD, "count": 8, "dtype": "uint8", "transform": Affine(1.2345678e-9, 0, 0.1, 0, -1e299, 1e300)}

bands = st.sampled_from([
    "blue=1 green=2 red=3 nir=4", "blue green red nir", "blue none red nir", "blue,red", "blue=0", "blue=9 red=1", "=",
]).map(str.split)  # fmt: skip
options_of_import = st.fixed_dictionaries(
    {},
    optional={
        "nodata": st.one_of(st.floats().map(str), st.sampled_from(["0", "none", "1e400", "-0.1"])),
        "scale": st.floats().map(str),
        "offset": st.floats().map(str),
        "sun-azimuth": st.floats().map(str),
        "scl": st.sampled_from(["0", "1", "9", "-1", "none.tif", "²"]),
        "acquisition-time": st.sampled_from(
            ["2023-07-30", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "now", "", "2023-02-30T1"]
        ),
        "sensor": st.sampled_from(NASTY_NAMES),
    },
)


@fuzzed(short=12, share=0.08)
@given(profile=profiles, damage=damages, options=options_of_import, bands=st.none() | bands | st.just([""]))
@example(GOOD, None, {"scl": "²"}, None)
@example(GOOD, None, {}, ["blue=²"])
@example(GOOD, None, {}, ["blue=" + "9" * 5_000])
@example(GOOD, None, {"acquisition-time": "0001-01-01T00:00+14:00"}, None)
@example(GOOD, ("kind", "device"), {}, None)
@example(GOOD, ("kind", "fifo"), {}, None)
def test_a_geotiff_that_is_imported(
    sandbox: Sandbox,
    profile: dict[str, Any],
    damage: tuple[str, Any] | None,
    options: dict[str, str],
    bands: list[str] | None,
) -> None:
    sandbox.clear()
    tif = sandbox.home / "scene.tif"
    remove(tif)
    if not write_raster(tif, profile, damage):
        return
    options = {"acquisition-time": "2023-07-30T20:58:51Z", **options}
    which = () if bands is None else ("--bands", *bands)
    sandbox.run("import-scene", tif, *(f"--{name}={value}" for name, value in options.items()), *which)


def test_a_raster_of_thousands_of_bands(sandbox: Sandbox) -> None:
    tif = sandbox.home / "scene.tif"
    assert write_raster(tif, {**GOOD, "count": 3_000, "width": 1, "height": 1}, None)
    seen = sandbox.run("import-scene", tif, "--acquisition-time", "2023-07-30T20:58:51Z")
    assert "3000 bands" in seen.text


@pytest.mark.parametrize("shape", [(1_000_000, 1_000_000), (2_000_000_000, 2), (2, 2_000_000_000)])
@pytest.mark.parametrize("command", ["import-scene", "planet"])
def test_a_raster_that_says_to_be_huge(sandbox: Sandbox, shape: tuple[int, int], command: str) -> None:
    folder = sandbox.data / "input" / "planet" / "scenes" / "20220730_205851_17_2459"
    folder.mkdir(parents=True)
    tif = folder / "x_SR.tif"
    profile = {**GOOD, "height": shape[0], "width": shape[1], "tiled": True, "blockxsize": 16384, "blockysize": 16384}
    profile = {name: value for name, value in profile.items() if value is not None}
    with rasterio.open(tif, "w", **profile, SPARSE_OK=True, BIGTIFF="YES"):
        pass
    assert tif.stat().st_size < 1 << 30
    if command == "import-scene":
        seen = sandbox.run("import-scene", tif, "--acquisition-time", "2023-07-30T20:58:51Z")
        assert seen.code == 2
    else:
        seen = run_planet(sandbox)
        assert seen.code == 1
    assert "pixels" in seen.text


def run_planet(box: Sandbox) -> Any:
    """Run Planet images with a tiny model; whatever fails must fail with an error of darts."""
    model = box.home / "optical.pt"
    if not model.exists():
        save_tiny_model(model, OPTICAL)
    out = ("--output-data-dir", box.out, "--model-files", model, "--device", "cpu", "--executor", "sequential")
    seen = box.run("run", "planet", "--offline", *out)
    if seen.code in (0, 1):
        for error in results_of(box.out).error:
            name, _, message = (error or "").partition(":")
            if error:
                assert known_error(name), error
                check_message(message.strip(), box.home)
    return seen


angles = st.one_of(st.floats(), st.integers(-400, 400), odd_values())
metadata = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "properties": st.one_of(odd_values(), st.fixed_dictionaries({}, optional={"sun_azimuth": angles})),
            "sun_azimuth": angles,
            "sun_elevation": angles,
            "acquired": st.one_of(odd_values(), st.datetimes().map(str), st.just("0001-01-01T00:00:00+23:59")),
        },
    ).map(lambda value: json.dumps(value).encode()),
    odd_values().map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=30),
    st.just(b"[" * 50_000),
    st.just(b'{"sun_azimuth": ' + b"9" * 5_000 + b"}"),
)
SCENE, TILE, LONG = "20220730_205851_17_2459", "5790392_4372514_2022-07-30_2459", "x_SR_8b_harmonized_clip.tif"
file_names = st.sampled_from([
    "x_SR.tif", "x_SR_8b.tif", LONG, "x_SR.TIFF", "x_udm2.tif", "x_udm2_clip.tif", "x.tif",
    "_SR.tif", "\n_SR.tif", "[x]_SR.tif",
])  # fmt: skip


@fuzzed(short=3, share=0.04)
@given(
    name=st.sampled_from([SCENE, TILE, "00010101_000000_0000"]),
    rasters=st.lists(st.tuples(file_names, profiles, damages), min_size=1, max_size=2, unique_by=lambda part: part[0]),
    about=st.lists(metadata, max_size=2),
)
@example(SCENE, [("x_SR.tif", GOOD, ("kind", "loop"))], [])
@example("00010101_000000_0000", [("x_SR.tif", {**GOOD, "count": 4}, None)], [])
@example(SCENE, [(LONG, GOOD, ("cut", 0.5))], [])
@example(SCENE, [(LONG, GOOD, ("text", "II*\0"))], [])
@example(TILE, [(LONG, GOOD, ("text", "II+\0\b\0\0\0" + 8 * "\xff"))], [])
@example(TILE, [(LONG, {**GOOD, "crs": "EPSG:4326"}, None)], [])
@example(TILE, [(LONG, {**GOOD, "count": 8}, None), ("x_udm2_clip.tif", OTHER_GRID, None)], [])
@example(SCENE, [("x_SR.tif", GOOD, None)], [b"[" * 50_000])
@example(TILE, [("x_SR.tif", GOOD, None)], [b'{"sun_elevation": -91.12345678912345}'])
@example(SCENE, [("x_SR.tif", GOOD, None)], [b'{"sun_azimuth": 1}', b'{"sun_azimuth": 2}'])
@example(SCENE, [("x_SR.tif", GOOD, None)], [b'{"acquired": "0001-01-01T00:00:00+23:59"}'])
def test_what_lies_in_a_planet_folder(
    sandbox: Sandbox, name: str, rasters: list[tuple[str, dict[str, Any], tuple[str, Any] | None]], about: list[bytes]
) -> None:
    sandbox.clear()
    kind = "tiles/1" if "-" in name else "scenes"
    folder = sandbox.data / "input" / "planet" / kind / name
    folder.mkdir(parents=True)
    for file, profile, damage in rasters:
        write_raster(folder / file, profile, damage)
    for number, content in enumerate(about):
        (folder / f"{number}_metadata.json").write_bytes(content)
    sandbox.run("run", "planet", "--offline", "--dry-run")
    run_planet(sandbox)
