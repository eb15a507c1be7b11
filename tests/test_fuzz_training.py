"""Label files and datasets of patches of any content, through the commands of `darts train`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shapely.geometry import box

from darts_acquisition import import_scene
from darts_segmentation.training.checks import check_dataset
from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchWriter, Sample
from darts_utils.errors import DartsError
from tests.fuzzing import NASTY_NAMES, Sandbox, Seen, check_error, fuzzed, odd_values, run_watched, sandbox
from tests.test_fuzz_names import SIDE, write_tif
from tests.test_fuzz_stac import GONE, places, put

__all__ = ["sandbox"]

IMAGE = "S2A_MSIL2A_20230719T204021_N0509_R014_T08WMA_20230720T012345"
AREA = gpd.GeoSeries([box(500_000, 7_700_000 - 10 * SIDE, 500_000 + 10 * SIDE, 7_700_000)], crs="EPSG:32608")
(AROUND,) = AREA.to_crs("EPSG:4326")
CREATE = (
    "--raw-data-source", "import", "--offline", "--bands", "red", "nir", "--patch-size", "8", "--max-days", "100000",
    "--max-cloud-cover", "100", "--min-cover", "0",
)  # fmt: skip


def feature(geometry: Any, properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def square(x: float, y: float, side: float) -> dict[str, Any]:
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {"type": "Polygon", "coordinates": [corners]}


numbers = st.one_of(
    st.floats(-200, 200),
    st.sampled_from([AROUND.centroid.x, AROUND.centroid.y, 180.0, -180.0, 90.0, -90.0, 0.0, 1e300, 1e-300, 361.0]),
    st.floats(),
)
inside = st.builds(
    square, st.floats(-1e-4, 1e-4).map(lambda d: AROUND.centroid.x + d),
    st.floats(-1e-4, 1e-4).map(lambda d: AROUND.centroid.y + d), st.floats(1e-5, 1e-3),
)  # fmt: skip
shapes = st.one_of(
    inside, inside,
    st.builds(square, numbers, numbers, numbers),
    st.builds(
        lambda kind, points: {"type": kind, "coordinates": points},
        st.sampled_from(["Polygon", "MultiPolygon", "Point", "LineString", "GeometryCollection", "Nonsense"]),
        st.recursive(numbers, lambda inner: st.lists(inner, max_size=6), max_leaves=24),
    ),
    st.none(), odd_values(),
)  # fmt: skip
tables = st.fixed_dictionaries(
    {},
    optional={
        "image_id": st.one_of(st.just(IMAGE), st.just(IMAGE), st.sampled_from(NASTY_NAMES), odd_values()),
        "image_date": st.one_of(
            st.just("2023-07-19"), odd_values(),
            st.sampled_from(["202-00-722", "0000-00-00", "9999-12-31", "99999-01-01", "2023-07-19T99:00", ""]),
        ),
        "region": odd_values(),
        "label": st.one_of(st.sampled_from([0, 1, 2, "1", 1.0, 3, -1, "slump", 1e300]), odd_values()),
    },
)  # fmt: skip
layers = st.lists(st.builds(feature, shapes, st.one_of(tables, tables, odd_values())), max_size=4)
crs_members = st.one_of(
    st.none(), st.none(),
    st.sampled_from(["EPSG:4326", "EPSG:32608", "EPSG:4978", "urn:ogc:def:crs:OGC:1.3:CRS84", "nonsense"]).map(
        lambda name: {"type": "name", "properties": {"name": name}}
    ),
    odd_values(),
)  # fmt: skip


def geojson(features: list[Any], crs: Any) -> bytes:
    told = {"type": "FeatureCollection", "features": features} | ({} if crs is None else {"crs": crs})
    return json.dumps(told).encode()


RIGHT = square(AROUND.centroid.x, AROUND.centroid.y, 2e-4)


def scene(box: Sandbox) -> None:
    """Import the scene that labels are laid over, once."""
    store = box.home / "store"
    if not store.exists():
        tif = write_tif(box.home / "scene.tif")
        import_scene(tif, store, IMAGE, acquisition_time="2023-07-19T20:40:21Z")


def create(box: Sandbox, labels: Path, *more: object) -> Seen:
    scene(box)
    box.clear()
    command = ("train", "create-dataset", "sentinel2", box.out / "set", "--labels", labels)
    return box.run(*command, "--raw-data-store", box.home / "store", *CREATE, *more)


def test_labels_that_are_right_become_patches(sandbox: Sandbox) -> None:
    """What the other tests begin with."""
    (sandbox.home / "labels.geojson").write_bytes(geojson([feature(RIGHT, {"image_id": IMAGE})], None))
    seen = create(sandbox, sandbox.home / "labels.geojson", "--whole-scene")
    assert seen.code == 0
    assert "4 patches of 1 samples are added" in seen.text


@fuzzed(short=3, share=0.03)
@given(labels=layers, footprints=st.none() | layers, crs=crs_members, whole=st.booleans())
@example([feature(square(0, 0, 1e300), {"image_id": IMAGE})], None, None, True)
@example([feature({"type": "Polygon", "coordinates": []}, {"image_id": IMAGE})], None, None, True)
@example([feature(square(0, 0, float("inf")), {"image_id": IMAGE})], None, None, True)
@example([feature(RIGHT, {"image_id": IMAGE, "image_date": "9999-12-31"})], None, None, True)
@example([feature(RIGHT, {}), feature(None, {"image_id": IMAGE})], None, None, True)
@example([feature(RIGHT, {"image_id": "x"})], [feature(RIGHT, {"image_id": "x"})], None, False)
def test_labels_of_any_form(
    sandbox: Sandbox, labels: list[Any], footprints: list[Any] | None, crs: Any, whole: bool
) -> None:
    more: list[object] = ["--whole-scene"] * whole
    (sandbox.home / "labels.geojson").write_bytes(geojson(labels, crs))
    if footprints is not None:
        (sandbox.home / "footprints.geojson").write_bytes(geojson(footprints, crs))
        more += ["--footprints", sandbox.home / "footprints.geojson"]
    create(sandbox, sandbox.home / "labels.geojson", *more)


def as_file(path: Path) -> bytes:
    table = gpd.GeoDataFrame(
        {"image_id": [IMAGE], "image_date": ["2023-07-19"], "label": [1]}, geometry=[AROUND], crs="EPSG:4326"
    )
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_file(path)
    return path.read_bytes()


flips = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)


def spoilt(data: bytes, cut: float | None, changes: list[tuple[float, int]]) -> bytes:
    made = bytearray(data)
    for place, byte in changes:
        made[int(place * (len(made) - 1))] = byte
    return bytes(made if cut is None else made[: int(cut * len(made))])


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".fgb"])
@fuzzed(short=2, share=0.005)
@given(cut=st.none() | st.floats(0, 1), changes=flips)
def test_a_damaged_file_of_labels(
    sandbox: Sandbox, suffix: str, cut: float | None, changes: list[tuple[float, int]]
) -> None:
    whole = sandbox.home / f"whole{suffix}"
    data = whole.read_bytes() if whole.exists() else as_file(whole)
    path = sandbox.home / f"labels{suffix}"
    path.write_bytes(spoilt(data, cut, changes))
    create(sandbox, path, "--whole-scene")


def test_labels_whose_outlines_are_cut_short(sandbox: Sandbox) -> None:
    path = sandbox.home / "labels.parquet"
    as_file(path)
    table = pq.read_table(path)
    cut = pa.array([outline.as_py()[:40] for outline in table["geometry"]])
    pq.write_table(table.set_column(table.column_names.index("geometry"), "geometry", cut), path)
    seen = create(sandbox, path, "--whole-scene")
    assert seen.code == 2
    assert "cannot be read as GeoParquet" in seen.text


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches") / "set"
    rng = np.random.default_rng(1)
    with PatchWriter(folder, DatasetForm(bands=("red", "nir"), patch_size=8)) as writer:
        for number in range(3):
            outline = box(-130 + number, 70, -129.9 + number, 70.1)
            patch = Patch(
                x=rng.random((2, 8, 8)).astype("float32"), y=rng.integers(0, 3, (8, 8)).astype("uint8"),
                row=0, col=0, geometry=outline,
            )  # fmt: skip
            writer.add(Sample(sample_id=f"sample {number}", region="here", footprint=outline), [patch])
    return folder


def check(box: Sandbox, folder: Path) -> None:
    """Look through a dataset as the commands of training do first."""

    def look() -> int:
        try:
            check_dataset(folder)
        except DartsError as error:
            check_error(error, box.home)
            return 2
        return 0

    before = box.listing()
    run_watched(look)
    assert box.listing() == before


def copied(box: Sandbox, good: Path) -> Path:
    folder = box.home / "set"
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(good, folder)


TOLD = ("dataset.json", "data.zarr/x/zarr.json", "data.zarr/y/zarr.json")


@fuzzed(short=10, share=0.02)
@given(file=st.sampled_from(TOLD), data=st.data())
def test_a_dataset_that_says_something_else(sandbox: Sandbox, good: Path, file: str, data: st.DataObject) -> None:
    folder = copied(sandbox, good)
    told = json.loads((folder / file).read_text())
    for path, value in data.draw(
        st.lists(st.tuples(st.sampled_from(places(told)), st.just(GONE) | odd_values()), min_size=1, max_size=2)
    ):
        put(told, path, value)
    (folder / file).write_text(json.dumps(told))
    check(sandbox, folder)


def column(change: str, value: Any) -> Callable[[pd.DataFrame, str], pd.DataFrame]:
    def apply(table: pd.DataFrame, name: str) -> pd.DataFrame:
        if change == "drop":
            return table.drop(columns=name)
        if change == "rows":
            return table.iloc[:1]
        if change == "twice":
            return pd.concat([table, table])
        return table.assign(**{name: [value] * len(table)})

    return apply


@fuzzed(short=3, share=0.02)
@given(
    table=st.sampled_from(["metadata.parquet", "samples.parquet"]),
    name=st.sampled_from(["patch", "sample_id", "n_patches", "region", "row", "geometry", "state", "positive_share"]),
    change=st.sampled_from(["drop", "rows", "twice", "set", "set"]),
    value=st.one_of(st.none(), st.integers(-5, 5), st.sampled_from([2**62, 1e300, float("nan"), "x", b"x", True])),
)
@example("samples.parquet", "region", "twice", None)
@example("samples.parquet", "n_patches", "set", 2**62)
@example("samples.parquet", "n_patches", "set", -1)
@example("samples.parquet", "geometry", "set", None)
@example("metadata.parquet", "geometry", "set", None)
def test_a_table_of_a_dataset_that_says_something_else(
    sandbox: Sandbox, good: Path, table: str, name: str, change: str, value: Any
) -> None:
    folder = copied(sandbox, good)
    rows = gpd.read_parquet(folder / table)
    if name not in rows:
        return
    changed = column(change, value)(pd.DataFrame(rows), name)
    has_geometry = "geometry" in changed and not (name == "geometry" and change == "set")
    if has_geometry:
        gpd.GeoDataFrame(changed, geometry="geometry", crs="EPSG:4326").to_parquet(folder / table)
    else:
        changed.assign(geometry=None).to_parquet(folder / table)
    check(sandbox, folder)


@fuzzed(short=3, share=0.02)
@given(number=st.integers(0, 30), cut=st.none() | st.floats(0, 1), changes=flips)
def test_a_dataset_with_a_damaged_file(
    sandbox: Sandbox, good: Path, number: int, cut: float | None, changes: list[tuple[float, int]]
) -> None:
    folder = copied(sandbox, good)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = files[number % len(files)]
    data = file.read_bytes()
    file.write_bytes(spoilt(data, cut, changes) if data else b"x")
    check(sandbox, folder)


def test_a_dataset_that_is_damaged_is_refused_by_the_commands(sandbox: Sandbox, good: Path) -> None:
    folder = copied(sandbox, good)
    (folder / "dataset.json").write_text("[" * 100_000)
    for command in (("validate-dataset", folder), ("fit", sandbox.out / "run", "--datasets", folder)):
        seen = sandbox.run("train", *command)
        assert seen.code == 2
        assert "dataset.json" in seen.text
