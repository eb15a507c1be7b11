"""SAFE products into the raw data store, against what rasterio reads from the same files."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, reproject

import darts_acquisition as da
from darts_acquisition.safe_import import find_safe_products, import_safe, is_safe, safe_scene_id
from darts_acquisition.safe_metadata import SAFE_BANDS
from darts_acquisition.testing.safe_products import (
    BANDS,
    PRODUCT,
    SafeLook,
    product_xml,
    tile_xml,
    write_image,
    write_manifest,
    write_safe,
)
from darts_utils.errors import (
    ConfigError,
    DartsError,
    GridMismatchError,
    MissingBandError,
    MissingDataError,
    StoreError,
)

LOOK = SafeLook()
OPTICAL = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
SLIM = {10: ("B02", "B03", "B04", "B08")}
"""What an import takes unless asked for more."""


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    """A whole product; tests that spoil one take a copy."""
    return write_safe(tmp_path_factory.mktemp("products"))


@pytest.fixture
def spoilt(product, tmp_path) -> Path:
    return Path(shutil.copytree(product, tmp_path / "spoilt" / product.name))


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


def _read(product: Path, band: str, resolution: int) -> np.ndarray:
    with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(product / LOOK.image(band, resolution)) as file:
        return file.read(1)


def _stored(store: Path, band: str, scene_id: str = PRODUCT) -> np.ndarray:
    return np.concatenate([values for _, values in da.open_scene(store, da.IMPORT, scene_id).strips(band)])


def _nothing_in(store: Path) -> bool:
    return not store.exists() or not any(store.iterdir())


def test_reflectance_is_that_of_the_files_with_the_offset_of_the_metadata(product, store):
    path = import_safe(product, store)
    assert path == da.scene_path(store, da.IMPORT, PRODUCT)
    tile = da.load_imported_scene(PRODUCT, store, device="cpu")
    for name, band in OPTICAL.items():
        dn = _read(product, band, 10)
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
    scl = _read(product, "SCL", 20)
    missing = np.any([_read(product, band, 10) == 0 for band in OPTICAL.values()], axis=0)
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
    stored = _stored(store, name)
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
    np.testing.assert_array_equal(_stored(store, "blue"), _read(product, "B02", 10))
    coastal, coarse = _stored(store, "coastal"), _read(product, "B01", 60)
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
        np.testing.assert_array_equal(_stored(store, band), _stored(tmp_path / "other", band))
    assert [path.name for path in store.iterdir()] == [f"import-s2-scene-{PRODUCT}.zarr"]


def test_bands_that_are_missing_are_added_alone(product, spoilt, store):
    import_safe(product, store)
    for band in OPTICAL.values():
        (spoilt / LOOK.image(band, 10)).unlink()
    import_safe(spoilt, store, bands=("blue", "green", "red", "nir", "swir16"))
    assert set(da.open_scene(store, da.IMPORT, PRODUCT).bands) == {*OPTICAL, "scl", "swir16"}
    np.testing.assert_array_equal(_stored(store, "blue"), _read(product, "B02", 10))


def test_a_scene_that_is_there_is_replaced_only_when_asked(product, tmp_path, store):
    import_safe(product, store)
    other = write_safe(tmp_path, replace(LOOK, bands=SLIM), seed=5)
    import_safe(other, store)
    np.testing.assert_array_equal(_stored(store, "red"), _read(product, "B04", 10))
    import_safe(other, store, overwrite=True, bands=["red"])
    np.testing.assert_array_equal(_stored(store, "red"), _read(other, "B04", 10))
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
    np.testing.assert_array_equal(_stored(store, "red"), _read(product, "B04", 10))


def test_a_scene_can_have_another_name(product, store):
    path = import_safe(product, store, "peel", bands=["red"])
    assert path.name == "import-s2-scene-peel.zarr"
    with pytest.raises(ConfigError, match="scene id"):
        import_safe(product, store, "../peel")


@pytest.mark.parametrize(
    ("bands", "match"), [("blue", "list"), (["blue", "B08"], "'B08'"), ([], "at least one"), (["red", "red"], "once")]
)
def test_bands_that_cannot_be_are_refused(product, store, bands, match):
    with pytest.raises(ConfigError, match=match):
        import_safe(product, store, bands=bands)
    assert _nothing_in(store)


def test_level_1c_is_refused_with_the_reason(tmp_path, store):
    name = PRODUCT.replace("MSIL2A", "MSIL1C")
    product = write_safe(tmp_path, replace(LOOK, name=name, level="1C", bands={}))
    with pytest.raises(ConfigError, match=r"Level-1C product .*needs surface reflectance"):
        import_safe(product, store)
    archive = shutil.make_archive(tmp_path / name, "zip", tmp_path, product.name)
    with pytest.raises(ConfigError, match=r"Level-1C product .*needs surface reflectance"):
        import_safe(Path(archive), store)
    assert _nothing_in(store)


def test_the_layout_before_december_2016_is_refused(tmp_path, store):
    old = tmp_path / "S2A_USER_PRD_MSIL2A_PDMC_20160905T104813_R002_V20160905T005712_20160905T010424.SAFE"
    old.mkdir()
    (old / "S2A_USER_MTD_SAFL2A_PDMC_20160905T104813.xml").write_text("<a/>")
    with pytest.raises(ConfigError, match="before December 2016"):
        import_safe(old, store)
    assert _nothing_in(store)


IMAGE = LOOK.image("B04", 10)


def _change(text: str, to: str, file: str = "MTD_MSIL2A.xml") -> Callable[[Path], None]:
    def change(product: Path) -> None:
        path = product / file
        content = path.read_text(encoding="utf-8")
        assert text in content
        path.write_text(content.replace(text, to), encoding="utf-8")

    return change


def _remove(name: str) -> Callable[[Path], None]:
    return lambda product: (product / name).unlink()


def _flip(name: str) -> Callable[[Path], None]:
    def flip(product: Path) -> None:
        content = bytearray((product / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (product / name).write_bytes(content)

    return flip


def _cut(name: str, share: float) -> Callable[[Path], None]:
    def cut(product: Path) -> None:
        content = (product / name).read_bytes()
        (product / name).write_bytes(content[: int(len(content) * share)])

    return cut


def _twice(product: Path) -> None:
    shutil.copy(product / IMAGE, product / IMAGE.replace("T08WMA_2024", "T08WMA_2023"))


TILE = f"{LOOK.granule}/MTD_TL.xml"


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (_remove("MTD_MSIL2A.xml"), MissingDataError, r"no MTD_MSIL2A\.xml"),
        (_remove(TILE), MissingDataError, r"MTD_TL\.xml"),
        (_remove(IMAGE), MissingBandError, r"\.SAFE lacks band B04.*R10m"),
        (_remove(LOOK.image("SCL", 20)), MissingBandError, "lacks band SCL"),
        (_twice, StoreError, "two files of band B04"),
        (_cut("MTD_MSIL2A.xml", 0.5), StoreError, r"MTD_MSIL2A\.xml is damaged"),
        (_cut(TILE, 0.0), StoreError, r"MTD_TL\.xml is damaged"),
        (_cut("manifest.safe", 0.9), StoreError, r"manifest\.safe is damaged"),
        (_cut(IMAGE, 0.9), StoreError, r"_B04_10m\.jp2 has \d+ bytes, but .*manifest\.safe says \d+"),
        (_flip(IMAGE), StoreError, r"_B04_10m\.jp2 is damaged: its SHA3-256"),
        (_flip(LOOK.image("SCL", 20)), StoreError, r"_SCL_20m\.jp2 is damaged"),
        (_change("177.98", "177.89", TILE), StoreError, r"MTD_TL\.xml is damaged: its SHA3-256"),
        (_change('"SHA3-256"', '"CRC"', "manifest.safe"), StoreError, "checksum 'CRC'"),
    ],
)
def test_what_is_missing_or_damaged_is_named_and_nothing_is_left(spoilt, store, spoil, error, match):
    spoil(spoilt)
    with pytest.raises(error, match=match):
        import_safe(spoilt, store)
    assert _nothing_in(store)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (_change("Level-2A</PROCESSING_LEVEL>", "Level-1C</PROCESSING_LEVEL>"), "Level-1C"),
        (_change("PROCESSING_LEVEL", "PROCESSING"), "PROCESSING_LEVEL"),
        (_change("PROCESSING_BASELINE", "BASELINE"), "PROCESSING_BASELINE"),
        (_change("2024-07-19T20:40:19.024Z", "yesterday"), "PRODUCT_START_TIME 'yesterday'"),
        (_change("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION"), "BOA_QUANTIFICATION_VALUE"),
        (_change(">10000<", ">0<"), "BOA_QUANTIFICATION_VALUE is 0"),
        (_change(">10000<", ">many<"), "'many', no number"),
        (_change('<BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>', ""), "no BOA_ADD_OFFSET of band B04"),
        (_change('band_id="3"', 'band_id="2"'), "given twice"),
        (_change(">-1000<", "><"), "BOA_ADD_OFFSET is None"),
        (_change("BOA_ADD_OFFSET", "OFFSET"), "carry an offset, but gives no BOA_ADD_OFFSET"),
        (_change("49.7123456789", "200", TILE), "ZENITH_ANGLE 200, outside"),
        (_change("177.987654321", "south", TILE), "'south', no number"),
        (_change("HORIZONTAL_CS_CODE", "CS", TILE), "HORIZONTAL_CS_CODE"),
        (_change("EPSG:32608", "UTM 8", TILE), "'UTM 8'"),
        (_change("<NROWS>252<", "<NROWS>0<", TILE), "0 × 252"),
        (_change("<ULX>", "<ULZ>", TILE), "damaged"),
    ],
)
def test_metadata_that_cannot_be_are_refused_by_name(spoilt, store, spoil, match):
    (spoilt / "manifest.safe").unlink()
    spoil(spoilt)
    with pytest.raises(DartsError, match=match):
        import_safe(spoilt, store)
    assert _nothing_in(store)


@pytest.mark.parametrize(
    ("look", "match"),
    [
        (replace(LOOK, epsg=32609), "EPSG:32609.* metadata of its product say EPSG:32608"),
        (replace(LOOK, corner=(399970, 7600020)), "_B04_10m.*do not divide"),
    ],
)
def test_an_image_on_another_grid_is_refused(spoilt, store, look, match):
    write_image(spoilt / IMAGE, np.ones((252, 252), "uint16"), 10, look)
    write_manifest(spoilt, "MD5")
    with pytest.raises(GridMismatchError, match=match):
        import_safe(spoilt, store)
    assert _nothing_in(store)


def test_an_image_of_another_size_or_type_is_refused(spoilt, store):
    write_image(spoilt / IMAGE, np.ones((240, 252), "uint16"), 10, LOOK)
    (spoilt / "manifest.safe").unlink()
    with pytest.raises(GridMismatchError, match="_B04_10m"):
        import_safe(spoilt, store)
    write_image(spoilt / IMAGE, np.ones((252, 252), "uint8"), 10, LOOK)
    with pytest.raises(StoreError, match=r"_B04_10m.*uint8"):
        import_safe(spoilt, store)
    assert _nothing_in(store)


def test_two_tiles_in_one_product_are_refused(spoilt, store):
    second = spoilt / LOOK.granule.replace("T08WMA", "T08WMB")
    second.mkdir()
    (second / "MTD_TL.xml").write_text(tile_xml(LOOK))
    with pytest.raises(ConfigError, match="2 tiles"):
        import_safe(spoilt, store)
    assert _nothing_in(store)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, 0.999])
def test_a_cut_image_without_manifest_never_becomes_zeros(spoilt, store, share):
    whole = _read(spoilt, "B04", 10)
    (spoilt / "manifest.safe").unlink()
    _cut(IMAGE, share)(spoilt)
    said = ""
    try:
        import_safe(spoilt, store)
    except StoreError as error:
        said = str(error)
    if said:
        assert "_B04_10m.jp2" in said
        assert _nothing_in(store)
    else:
        np.testing.assert_array_equal(_stored(store, "red"), whole)


def test_damage_to_a_scene_that_grows_leaves_what_was_there(product, spoilt, store):
    import_safe(product, store)
    _flip(LOOK.image("B11", 20))(spoilt)
    with pytest.raises(StoreError, match="_B11_20m"):
        import_safe(spoilt, store, bands=("red", "swir16"))
    assert "swir16" not in da.open_scene(store, da.IMPORT, PRODUCT).bands
    np.testing.assert_array_equal(_stored(store, "red"), _read(product, "B04", 10))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, None])
def test_a_damaged_zip_file_is_named_and_nothing_is_left(product, tmp_path, store, share):
    archive = Path(shutil.make_archive(tmp_path / PRODUCT, "zip", product.parent, product.name))
    content = bytearray(archive.read_bytes())
    if share is None:
        with zipfile.ZipFile(archive) as entries:
            image = next(entry for entry in entries.infolist() if entry.filename.endswith(IMAGE))
        content[image.header_offset + image.compress_size // 2] ^= 0xFF
    else:
        content = content[: int(len(content) * share)]
    archive.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{PRODUCT}\.zip is damaged"):
        import_safe(archive, store)
    assert _nothing_in(store)


def test_errors_inside_a_zip_file_name_the_zip_file(spoilt, tmp_path, store):
    (spoilt / IMAGE).unlink()
    archive = Path(shutil.make_archive(tmp_path / PRODUCT, "zip", spoilt.parent, spoilt.name))
    with pytest.raises(MissingBandError, match=rf"{PRODUCT}\.zip/{PRODUCT}\.SAFE lacks band B04") as caught:
        import_safe(archive, store)
    assert "scratch" not in str(caught.value)
    assert _nothing_in(store)


def test_zip_files_of_no_or_two_products_are_refused(product, tmp_path, store):
    shutil.copytree(product, tmp_path / "two" / "a.SAFE")
    shutil.copytree(product, tmp_path / "two" / "b.SAFE")
    two = shutil.make_archive(tmp_path / "two", "zip", tmp_path / "two")
    with pytest.raises(ConfigError, match="2 products"):
        import_safe(Path(two), store)
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(ConfigError, match="0 products"):
        import_safe(tmp_path / "none.zip", store)
    assert _nothing_in(store)


def test_a_product_that_is_not_there_is_named(tmp_path, store):
    with pytest.raises(MissingDataError, match=r"none\.SAFE"):
        import_safe(tmp_path / "none.SAFE", store)
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingDataError, match=r"folder has no MTD_MSIL2A\.xml"):
        import_safe(tmp_path / "folder", store)
    assert _nothing_in(store)


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
