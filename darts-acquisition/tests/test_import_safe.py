"""SAFE products into the raw data store, against what rasterio reads from the same files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject

import darts_acquisition as da
from darts_acquisition.safe_import import find_safe_products, import_safe, is_safe, safe_scene_id
from darts_acquisition.safe_metadata import SAFE_BANDS
from darts_acquisition.testing.safe_products import BANDS, PRODUCT, product_xml, write_safe
from darts_utils.errors import ConfigError, MissingDataError, StoreError

from .safe_imports import LOOK, OPTICAL, SLIM, product, read_band, spoilt, store, stored_band

__all__ = ["product", "spoilt", "store"]


def test_reflectance_is_that_of_the_files_with_the_offset_of_the_metadata(product, store):
    path = import_safe(product, store)
    assert path == da.scene_path(store, da.IMPORT, PRODUCT)
    tile = da.load_imported_scene(PRODUCT, store, device="cpu")
    for name, band in OPTICAL.items():
        dn = read_band(product, band, 10)
        assert (dn == 0).any()
        assert (dn > 0).any()
        expected = np.where(dn == 0, np.nan, (dn.astype(float) - 1000) / 10000)
        np.testing.assert_allclose(tile[name], expected, atol=1e-6)


def test_grid_time_sun_and_baseline_are_those_of_the_product(product, store):
    import_safe(product, store)
    tile = da.load_imported_scene(PRODUCT, store, device="cpu")
    with rasterio.open(product / LOOK.image("B02", 10)) as file:
        assert tile.odc.geobox.affine == file.transform
        assert tile.odc.geobox.shape == file.shape
        assert tile.odc.geobox.crs.epsg == file.crs.to_epsg() == 32608
    assert tile.attrs["elevation"] == pytest.approx(90 - 49.7123456789, abs=1e-12)
    assert tile.attrs["azimuth"] == 177.987654321
    assert tile.attrs["acquisition_time"] == "2024-07-19T20:40:19.024Z"
    assert tile.attrs["sensor"] == "Sentinel-2"
    assert tile.attrs["quality_source"] == "SCL"
    assert da.open_scene(store, da.IMPORT, PRODUCT).info.processing_baseline == "05.11"


def test_quality_follows_the_scene_classification_pixel_by_pixel(product, store):
    import_safe(product, store)
    tile = da.load_imported_scene(PRODUCT, store, device="cpu")
    scl = read_band(product, "SCL", 20)
    missing = np.any([read_band(product, band, 10) == 0 for band in OPTICAL.values()], axis=0)
    for y, x in np.ndindex(40, 60):
        kind = scl[y // 2, x // 2]
        expected = 0 if kind in (0, 1) or missing[y, x] else 2 if kind in (2, 4, 5, 6, 7, 10) else 1
        assert tile.s2_scl.values[y, x] == kind
        assert tile.quality_data_mask.values[y, x] == expected


@pytest.mark.parametrize("name", ["rededge071", "rededge078", "nir08", "swir16", "swir22", "coastal", "nir09"])
def test_coarser_bands_are_interpolated_to_ten_metres(product, store, name):
    band = SAFE_BANDS[name]
    resolution = band.resolutions[0]
    import_safe(product, store, bands=[name])
    with rasterio.open(product / LOOK.image(band.name, resolution)) as file:
        coarse, transform = file.read(1), file.transform
    stored = stored_band(store, name)
    expected = np.zeros(stored.shape, "float32")
    with rasterio.open(product / LOOK.image("B02", 10)) as file:
        reproject(
            coarse.astype("float32"), expected, src_transform=transform, dst_transform=file.transform, src_nodata=0,
            dst_nodata=0, src_crs=file.crs, dst_crs=file.crs, resampling=Resampling.bilinear,
        )  # fmt: skip
    nearest = np.kron(coarse, np.ones((resolution // 10, resolution // 10), "uint16"))
    np.testing.assert_array_equal(stored == 0, nearest == 0)
    assert np.abs(stored.astype(float) - expected)[nearest > 0].max() <= 0.51


def test_the_best_resolution_of_a_band_is_taken(tmp_path, store):
    older = replace(LOOK, bands={10: BANDS[10], 60: ("B01", "B02")})
    product = write_safe(tmp_path, older)
    import_safe(product, store, bands=["coastal", "blue"])
    np.testing.assert_array_equal(stored_band(store, "blue"), read_band(product, "B02", 10))
    coastal, coarse = stored_band(store, "coastal"), read_band(product, "B01", 60)
    np.testing.assert_array_equal(coastal == 0, np.kron(coarse, np.ones((6, 6))) == 0)


def test_each_band_has_its_own_offset_and_the_quantification_counts(tmp_path, store):
    offsets = {number: -1000 - number for number in range(13)}
    look = replace(LOOK, offsets=offsets, quantification=20000)
    product = write_safe(tmp_path, look)
    import_safe(product, store, bands=["blue", "nir", "nir08", "nir09", "swir16", "swir22"])
    scene = da.open_scene(store, da.IMPORT, PRODUCT)
    expected = {"blue": 1, "nir": 7, "nir08": 8, "nir09": 9, "swir16": 11, "swir22": 12}
    for name, number in expected.items():
        assert scene.scaling(name) == (1 / 20000, (-1000 - number) / 20000)
    assert scene.scaling("scl") is None


@pytest.mark.parametrize("baseline", ["02.05", "03.01", "99.99"])
def test_a_product_without_offsets_has_none(tmp_path, store, baseline):
    look = replace(LOOK, offsets=None, baseline=baseline, older_names=baseline < "02.07", bands=SLIM, checksum="MD5")
    import_safe(write_safe(tmp_path, look), store)
    assert da.open_scene(store, da.IMPORT, PRODUCT).scaling("blue") == (1e-4, 0.0)


def test_the_offset_of_a_users_own_processing_is_taken_too(tmp_path, store):
    import_safe(write_safe(tmp_path, replace(LOOK, baseline="99.99", bands=SLIM)), store)
    assert da.open_scene(store, da.IMPORT, PRODUCT).scaling("red") == (1e-4, -0.1)


@pytest.mark.parametrize("sun", [None, ("NaN", "NaN")])
def test_sun_angles_that_are_not_there_are_unknown(tmp_path, store, sun):
    import_safe(write_safe(tmp_path, replace(LOOK, sun=sun, bands=SLIM)), store)
    assert not {"azimuth", "elevation"} & set(da.load_imported_scene(PRODUCT, store, device="cpu").attrs)


@pytest.mark.parametrize("kind", ["MD5", "SHA3-256", ""])
def test_products_with_either_checksum_or_none_are_read(tmp_path, store, kind, caplog):
    import_safe(write_safe(tmp_path, replace(LOOK, checksum=kind, bands=SLIM)), store)
    assert da.scene_exists(store, da.IMPORT, PRODUCT)
    assert ("manifest.safe" in caplog.text) == (kind == "")


def test_a_zip_file_gives_the_same_as_the_folder(product, tmp_path, store):
    archive = shutil.make_archive(tmp_path / PRODUCT, "zip", product.parent, product.name)
    bands = ("blue", "nir", "coastal")
    import_safe(Path(archive), store, bands=bands)
    import_safe(product, tmp_path / "other", bands=bands)
    for band in (*bands, "scl"):
        np.testing.assert_array_equal(stored_band(store, band), stored_band(tmp_path / "other", band))
    assert [path.name for path in store.iterdir()] == [f"import-s2-scene-{PRODUCT}.zarr"]


def test_bands_that_are_missing_are_added_alone(product, spoilt, store):
    import_safe(product, store)
    for band in OPTICAL.values():
        (spoilt / LOOK.image(band, 10)).unlink()
    import_safe(spoilt, store, bands=("blue", "green", "red", "nir", "swir16"))
    assert set(da.open_scene(store, da.IMPORT, PRODUCT).bands) == {*OPTICAL, "scl", "swir16"}
    np.testing.assert_array_equal(stored_band(store, "blue"), read_band(product, "B02", 10))


def test_a_scene_that_is_there_is_replaced_only_when_asked(product, tmp_path, store):
    import_safe(product, store)
    other = write_safe(tmp_path, replace(LOOK, bands=SLIM), seed=5)
    import_safe(other, store)
    np.testing.assert_array_equal(stored_band(store, "red"), read_band(product, "B04", 10))
    import_safe(other, store, overwrite=True, bands=["red"])
    np.testing.assert_array_equal(stored_band(store, "red"), read_band(other, "B04", 10))
    assert da.open_scene(store, da.IMPORT, PRODUCT).bands == ("red", "scl")


@pytest.mark.parametrize("changes", [{"start": "2024-07-22T20:40:19.024Z"}, {"baseline": "05.10"}])
@pytest.mark.parametrize("bands", [["blue", "red"], ["blue"]])
@pytest.mark.parametrize("zipped", [False, True])
def test_bands_of_two_products_are_not_mixed_in_one_scene(product, tmp_path, store, changes, bands, zipped):
    import_safe(product, store, "x", bands=["blue"])
    other = write_safe(tmp_path, replace(LOOK, bands=SLIM, **changes), seed=5)
    if zipped:
        other = Path(shutil.make_archive(tmp_path / PRODUCT, "zip", tmp_path, other.name))
    both = r"2024-07-19T20:40:19\.024Z, processing baseline 05\.11.*2024-07-\d\dT20:40:19\.024Z, processing baseline"
    with pytest.raises(ConfigError, match=both) as caught:
        import_safe(other, store, "x", bands=bands)
    assert str(other) in str(caught.value)
    assert da.open_scene(store, da.IMPORT, "x").bands == ("blue", "scl")
    import_safe(other, store, "x", bands=bands, overwrite=True)
    assert da.open_scene(store, da.IMPORT, "x").bands == (*bands, "scl")


@pytest.mark.parametrize("file", ["zarr.json", "red/zarr.json"])
def test_a_damaged_scene_can_be_overwritten(product, store, file):
    path = import_safe(product, store, bands=["red"])
    (path / file).write_text("{")
    with pytest.raises(StoreError, match="Remove the folder"):
        import_safe(product, store, bands=["red"])
    import_safe(product, store, bands=["red"], overwrite=True)
    np.testing.assert_array_equal(stored_band(store, "red"), read_band(product, "B04", 10))


def test_a_scene_can_have_another_name(product, store):
    path = import_safe(product, store, "peel", bands=["red"])
    assert path.name == "import-s2-scene-peel.zarr"
    with pytest.raises(ConfigError, match="scene id"):
        import_safe(product, store, "../peel")


def test_products_are_found_in_a_folder_and_one_level_below(tmp_path):
    for place in (f"{PRODUCT}.SAFE", f"2024/{PRODUCT}.SAFE", f"2024/deep/{PRODUCT}.SAFE", "other", f".{PRODUCT}.SAFE"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "renamed").mkdir()
    (tmp_path / "renamed" / "MTD_MSIL2A.xml").write_text(product_xml(LOOK))
    (tmp_path / "2024" / f"{PRODUCT}.zip").write_bytes(b"")
    (tmp_path / "2024" / "notes.zip").write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_safe_products(tmp_path)]
    assert found == [f"2024/{PRODUCT}.SAFE", f"2024/{PRODUCT}.zip", f"{PRODUCT}.SAFE", "renamed"]
    assert not is_safe(tmp_path / "other")
    with pytest.raises(MissingDataError, match="nowhere"):
        find_safe_products(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [PRODUCT, f"{PRODUCT}.SAFE", f"{PRODUCT}.zip", f"{PRODUCT}.SAFE.zip"])
def test_the_scene_is_named_like_the_product(name):
    assert safe_scene_id(Path("some") / name) == PRODUCT
