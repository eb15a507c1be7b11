import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio import Affine

import darts_acquisition as da
from darts_acquisition import raw_store, scene_writer
from darts_utils.errors import ConfigError, GridMismatchError, MissingBandError, MissingDataError, StoreError


def _read(scene: da.RawScene, band: str) -> np.ndarray:
    return np.concatenate([values for _, values in scene.strips(band)])


def test_a_scene_comes_back_as_it_was_written(store, cdse_id, scene_dn, geobox):
    scene = da.open_scene(store, da.CDSE, cdse_id)
    assert scene.info.geobox == geobox
    assert scene.bands == tuple(scene_dn.data_vars)
    for band in scene.bands:
        values = _read(scene, band)
        assert values.dtype == scene_dn[band].dtype
        np.testing.assert_array_equal(values, scene_dn[band])
    assert scene.scaling("B02_10m") == (1e-4, -0.1)
    assert scene.scaling("SCL_20m") is None


def test_the_store_on_disk_is_what_the_contract_says(store, cdse_id, geobox):
    group = zarr.open_group(store / f"cdse-s2-sr-scene-{cdse_id}.zarr", mode="r", zarr_format=3)
    attrs = dict(group.attrs)
    assert GeoBox(tuple(attrs["shape"]), Affine(*attrs["transform"]), attrs["crs"]) == geobox
    assert {k: attrs[k] for k in ("scene_id", "datetime", "sun_azimuth", "sun_elevation", "processing_baseline")} == {
        "scene_id": cdse_id,
        "datetime": "2024-11-07T11:33:11.024Z",
        "sun_azimuth": 181.5,
        "sun_elevation": 10.0,
        "processing_baseline": "05.11",
    }
    assert attrs["sensor"] == "Sentinel-2"
    assert attrs["bands"] == ["B02_10m", "B03_10m", "B04_10m", "B08_10m", "SCL_20m"]
    assert group["B02_10m"].dtype == np.uint16
    assert group["SCL_20m"].dtype == np.uint8
    assert dict(group["B02_10m"].attrs) == {"scale": 1e-4, "offset": -0.1}
    assert dict(group["SCL_20m"].attrs) == {}


def test_a_scene_of_several_chunks_comes_back(tmp_path, cdse_id, make_dataset, monkeypatch):
    monkeypatch.setattr(raw_store, "CHUNK_PX", 16)
    monkeypatch.setattr(scene_writer, "CHUNK_PX", 16)
    geobox = GeoBox((50, 33), Affine(10, 0, 0, 0, -10, 0), "EPSG:32608")
    values = np.arange(50 * 33, dtype="uint16").reshape(50, 33)
    da.write_scene(tmp_path, da.CDSE, cdse_id, make_dataset(geobox, B02_10m=values), datetime=None)
    scene = da.open_scene(tmp_path, da.CDSE, cdse_id)
    assert [rows.start for rows, _ in scene.strips("B02_10m")] == [0, 16, 32, 48]
    np.testing.assert_array_equal(_read(scene, "B02_10m"), values)


def test_what_is_absent_is_said_to_be_absent(tmp_path, store, cdse_id):
    assert da.scene_exists(store, da.CDSE, cdse_id)
    assert not da.scene_exists(store, da.GEE, cdse_id)
    assert not da.scene_exists(tmp_path / "nowhere", da.CDSE, cdse_id)
    assert da.list_scenes(store, da.CDSE) == [cdse_id]
    assert da.missing_bands(store, da.CDSE, cdse_id, ["B02_10m", "B11_20m"]) == ("B11_20m",)
    assert da.missing_bands(store, da.GEE, cdse_id, ["B2"]) == ("B2",)
    with pytest.raises(MissingDataError, match=cdse_id):
        da.open_scene(store, da.GEE, cdse_id)


def test_a_scene_that_is_there_is_not_replaced_unasked(store, cdse_id, scene_dn):
    with pytest.raises(ConfigError, match="overwrite"):
        da.write_scene(store, da.CDSE, cdse_id, scene_dn, datetime=None)
    da.write_scene(store, da.CDSE, cdse_id, scene_dn[["B02_10m"]], datetime=None, overwrite=True)
    assert da.open_scene(store, da.CDSE, cdse_id).bands == ("B02_10m",)
    assert [entry.name for entry in store.iterdir()] == [f"cdse-s2-sr-scene-{cdse_id}.zarr"]


def test_bands_are_added_alone_and_listed_last(store, cdse_id, scene_dn):
    before = (store / f"cdse-s2-sr-scene-{cdse_id}.zarr" / "B02_10m" / "zarr.json").stat().st_mtime_ns
    swir = (scene_dn[["B02_10m"]] // 2).rename(B02_10m="B11_20m")
    da.add_bands(store, da.CDSE, cdse_id, swir, scale=1e-4, offset=-0.1)
    scene = da.open_scene(store, da.CDSE, cdse_id)
    assert scene.bands[-1] == "B11_20m"
    np.testing.assert_array_equal(_read(scene, "B11_20m"), swir["B11_20m"])
    assert scene.scaling("B11_20m") == (1e-4, -0.1)
    assert (scene.path / "B02_10m" / "zarr.json").stat().st_mtime_ns == before
    assert [entry for entry in scene.path.iterdir() if entry.name.startswith(".")] == []


def test_bands_of_another_grid_are_not_added(store, cdse_id, make_dataset, geobox):
    other = make_dataset(geobox.pad(1), B11_20m=np.ones(geobox.pad(1).shape.yx, "uint16"))
    with pytest.raises(GridMismatchError, match=cdse_id):
        da.add_bands(store, da.CDSE, cdse_id, other)
    assert "B11_20m" not in da.open_scene(store, da.CDSE, cdse_id).bands


def test_an_error_while_writing_leaves_nothing(tmp_path, cdse_id, geobox):
    info = da.SceneInfo(scene_id=cdse_id, geobox=geobox)

    def strips():
        yield slice(0, 10), np.ones((10, 53), "uint16")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError), da.new_scene(tmp_path, da.CDSE, info) as writer:
        writer.add_band("B02_10m", strips())
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import os, signal, sys
    import numpy as np
    import darts_acquisition as da
    from rasterio import Affine
    from odc.geo.geobox import GeoBox

    info = da.SceneInfo(scene_id="scene", geobox=GeoBox((8, 8), Affine(10, 0, 0, 0, -10, 0), "EPSG:32608"))

    def strips(die):
        yield slice(0, 8), np.ones((8, 8), "uint16")
        if die:
            os.kill(os.getpid(), signal.SIGKILL)

    for where in ("band", "rename"):
        if os.fork() == 0:
            with da.new_scene(os.path.join(sys.argv[1], where), da.CDSE, info) as writer:
                writer.add_band("B02_10m", strips(die=where == "band"))
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.wait()[1] == signal.SIGKILL
"""


def test_a_kill_before_the_rename_leaves_no_scene_and_the_next_writer_cleans_up(tmp_path, make_dataset):
    subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)], check=True)
    geobox = GeoBox((8, 8), Affine(10, 0, 0, 0, -10, 0), "EPSG:32608")
    for store in (tmp_path / "band", tmp_path / "rename"):
        assert any(entry.name.endswith(".tmp") for entry in store.iterdir()), "killed too early to test anything"
        assert not da.scene_exists(store, da.CDSE, "scene")
        assert da.list_scenes(store, da.CDSE) == []
        dn = make_dataset(geobox, B02_10m=np.full((8, 8), 5, "uint16"))
        da.write_scene(store, da.CDSE, "scene", dn, datetime=None)
        assert [entry.name for entry in store.iterdir()] == ["cdse-s2-sr-scene-scene.zarr"]
        assert _read(da.open_scene(store, da.CDSE, "scene"), "B02_10m").max() == 5


def _scene_folder(store, cdse_id):
    return store / f"cdse-s2-sr-scene-{cdse_id}.zarr"


def _chunk(store, cdse_id):
    return next(path for path in (_scene_folder(store, cdse_id) / "B03_10m" / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "damage",
    [
        lambda chunk: chunk.write_bytes(chunk.read_bytes()[:-30]),
        lambda chunk: chunk.write_bytes(b""),
        lambda chunk: chunk.unlink(),
        lambda chunk: chunk.write_bytes(bytes(chunk.stat().st_size)),
        lambda chunk: chunk.write_bytes(_flip(chunk.read_bytes())),
    ],
    ids=["truncated", "empty", "gone", "zeros", "one bit"],
)
def test_a_damaged_chunk_is_an_error_that_names_scene_band_and_file(store, cdse_id, damage):
    damage(_chunk(store, cdse_id))
    scene = da.open_scene(store, da.CDSE, cdse_id)
    with pytest.raises(StoreError, match=rf"(?s){cdse_id}.*B03_10m.*{store.name}.*again"):
        list(scene.strips("B03_10m"))


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["attributes"].pop("crs"),
        lambda c: c["attributes"].update(crs="EPSG:no"),
        lambda c: c["attributes"].update(transform=[1, 2, 3]),
        lambda c: c["attributes"].update(transform=[10, 3, 0, 3, -10, 0]),
        lambda c: c["attributes"].update(transform=[float("nan"), 0, 0, 0, -10, 0]),
        lambda c: c["attributes"].update(shape=[0, 5]),
        lambda c: c["attributes"].update(bands=None),
        lambda c: c["attributes"].update(sun_azimuth="south"),
        lambda c: c["attributes"].update(datetime="long ago"),
        lambda c: c["attributes"].update(scene_id="another"),
        lambda c: c.pop("attributes"),
    ],
)
def test_damaged_metadata_is_an_error_that_names_the_file(store, cdse_id, change):
    _edit(_scene_folder(store, cdse_id) / "zarr.json", change)
    with pytest.raises(StoreError, match=cdse_id):
        da.open_scene(store, da.CDSE, cdse_id)


def test_metadata_that_are_not_json_are_an_error(store, cdse_id):
    file = _scene_folder(store, cdse_id) / "zarr.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(StoreError, match=r"zarr\.json"):
        da.open_scene(store, da.CDSE, cdse_id)


def test_a_band_whose_folder_is_gone_is_an_error_that_names_it(store, cdse_id):
    (_scene_folder(store, cdse_id) / "B04_10m" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="B04_10m"):
        da.open_scene(store, da.CDSE, cdse_id)


def test_a_band_on_another_grid_is_an_error_that_names_it(store, cdse_id):
    zarr.create_array(
        _scene_folder(store, cdse_id) / "B04_10m", shape=(5, 6), chunks=(5, 6), dtype="uint16", overwrite=True
    )
    with pytest.raises(GridMismatchError, match=rf"(?s){cdse_id}.*B04_10m.*5 × 6.*37 × 53"):
        da.open_scene(store, da.CDSE, cdse_id)


def test_a_missing_band_is_an_error_that_names_what_there_is(store, cdse_id):
    with pytest.raises(MissingBandError, match=r"B11_20m.*it has B02_10m"):
        da.open_scene(store, da.CDSE, cdse_id).require("B11_20m")


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".hidden", "a\0b", "a\nb", "x" * 151, "é" * 100, "a\\b", "C:", None, 5]
)
def test_a_name_that_is_no_plain_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="scene id"):
        da.scene_path(tmp_path, da.CDSE, name)


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_whatever_name_passes_stays_in_the_store(name):
    try:
        path = da.scene_path("store", da.CDSE, name)
    except (ConfigError, UnicodeEncodeError):
        return
    assert os.path.normpath(path) == str(path)
    assert path.parent.name == "store"
    assert len(os.fsencode(path.name)) <= 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"sun_azimuth": 361.0},
        {"sun_azimuth": float("nan")},
        {"sun_azimuth": "180"},
        {"sun_elevation": -91},
        {"scale": 1e-4},
        {"scale": float("inf"), "offset": 0.0},
        {"scale": {"B02_10m": 1e-4}, "offset": 0.0},
        {"datetime": "2024"},
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_written(tmp_path, cdse_id, scene_dn, wrong):
    with pytest.raises((ConfigError, MissingBandError)):
        da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn, **({"datetime": None} | wrong))
    assert list(tmp_path.iterdir()) == []


def test_bands_that_are_no_digital_numbers_or_have_no_crs_are_refused(tmp_path, cdse_id, scene_dn):
    with pytest.raises(ConfigError, match=r"B02_10m.*float32"):
        da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn.astype("float32"), datetime=None)
    with pytest.raises(ConfigError, match="CRS"):
        da.write_scene(tmp_path, da.CDSE, cdse_id, scene_dn.drop_vars(["spatial_ref", "y", "x"]), datetime=None)


def _ones(info):
    return [(slice(0, info.geobox.shape.y), np.ones(info.geobox.shape.yx, "uint16"))]


def test_an_update_makes_an_absent_scene_and_adds_to_one_that_is_there(tmp_path, cdse_id, geobox):
    info = da.SceneInfo(scene_id=cdse_id, geobox=geobox)
    for band in ("B02_10m", "B03_10m"):
        with raw_store.updating_scene(tmp_path, da.CDSE, cdse_id) as update:
            assert update.missing(["B02_10m", "B03_10m"])[-1] == "B03_10m"
            with update.writing(info) as writer:
                writer.add_band(band, _ones(info))
    assert da.open_scene(tmp_path, da.CDSE, cdse_id).bands == ("B02_10m", "B03_10m")
    with raw_store.updating_scene(tmp_path, da.CDSE, cdse_id) as update:
        assert update.missing(["B02_10m", "B03_10m"]) == ()


def test_an_error_while_bands_are_added_leaves_the_scene_as_it_was(store, cdse_id):
    with (  # noqa: PT012 (the error comes after a band was written)
        pytest.raises(RuntimeError, match="broke"),
        raw_store.updating_scene(store, da.CDSE, cdse_id) as update,
        update.writing(update.scene.info) as writer,
    ):
        writer.add_band("B11_20m", _ones(update.scene.info))
        raise RuntimeError("the source broke")
    assert da.open_scene(store, da.CDSE, cdse_id).bands == ("B02_10m", "B03_10m", "B04_10m", "B08_10m", "SCL_20m")


def test_a_scratch_folder_goes_with_its_block_and_that_of_a_killed_process_with_the_next_update(store, cdse_id):
    killed = store / f".cdse-s2-sr-scene-{cdse_id}.zarr.scratch"
    killed.mkdir()
    (killed / "0.jp2").write_bytes(b"half a file")
    with raw_store.updating_scene(store, da.CDSE, cdse_id) as update:
        assert not killed.exists()
        with update.scratch() as folder:
            assert list(folder.iterdir()) == []
            (folder / "0.jp2").write_bytes(b"some")
            assert da.list_scenes(store, da.CDSE) == [cdse_id]
    assert [entry.name for entry in store.iterdir()] == [f"cdse-s2-sr-scene-{cdse_id}.zarr"]


def test_strips_that_leave_rows_out_are_a_mistake(tmp_path, cdse_id, geobox):
    info = da.SceneInfo(scene_id=cdse_id, geobox=geobox)
    with pytest.raises(AssertionError), da.new_scene(tmp_path, da.CDSE, info) as writer:
        writer.add_band("B02_10m", [(slice(0, 10), np.ones((10, 53), "uint16"))])
    assert list(tmp_path.iterdir()) == []


def test_a_band_that_the_scene_has_is_not_replaced(store, cdse_id, scene_dn):
    before = _read(da.open_scene(store, da.CDSE, cdse_id), "B02_10m")
    more = (scene_dn[["B02_10m"]] + 1).assign(B11_20m=scene_dn["B02_10m"])
    with pytest.raises(ConfigError, match=rf"{cdse_id}.*B02_10m.*overwrite"):
        da.add_bands(store, da.CDSE, cdse_id, more, scale=1e-4, offset=0.0)
    scene = da.open_scene(store, da.CDSE, cdse_id)
    np.testing.assert_array_equal(_read(scene, "B02_10m"), before)
    assert scene.scaling("B02_10m") == (1e-4, -0.1)
    assert not (scene.path / "B11_20m").exists()


def test_a_writer_refuses_a_band_that_the_scene_has(store, cdse_id):
    with (
        raw_store.updating_scene(store, da.CDSE, cdse_id) as update,
        pytest.raises(ConfigError, match=rf"{cdse_id}.*B02_10m"),
        update.writing(update.scene.info) as writer,
    ):
        writer.add_band("B02_10m", _ones(update.scene.info))


@pytest.mark.parametrize("wrong", [{"dtype": "int32"}, {"name": "a/b"}, {"scale": {"B11_20m": 1e-4}}])
def test_all_bands_are_checked_before_one_is_added(store, cdse_id, scene_dn, wrong):
    second = scene_dn["B02_10m"].astype(wrong.get("dtype", "uint16"))
    more = scene_dn[["B02_10m"]].rename(B02_10m="B11_20m").assign({wrong.get("name", "B12_20m"): second})
    with pytest.raises((ConfigError, MissingBandError)):
        da.add_bands(store, da.CDSE, cdse_id, more, scale=wrong.get("scale", 1e-4), offset=0.0)
    assert not (da.open_scene(store, da.CDSE, cdse_id).path / "B11_20m").exists()
