"""SAFE products that are damaged, incomplete or of another kind: refused by name, and nothing is left."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import darts_acquisition as da
from darts_acquisition.safe_import import import_safe
from darts_acquisition.testing.safe_products import PRODUCT, tile_xml, write_image, write_manifest, write_safe
from darts_utils.errors import (
    ConfigError,
    DartsError,
    GridMismatchError,
    MissingBandError,
    MissingDataError,
    StoreError,
)

from .safe_imports import LOOK, nothing_in, product, read_band, spoilt, store, stored_band

__all__ = ["product", "spoilt", "store"]


@pytest.mark.parametrize(
    ("bands", "match"), [("blue", "list"), (["blue", "B08"], "'B08'"), ([], "at least one"), (["red", "red"], "once")]
)
def test_bands_that_cannot_be_are_refused(product, store, bands, match):
    with pytest.raises(ConfigError, match=match):
        import_safe(product, store, bands=bands)
    assert nothing_in(store)


def test_level_1c_is_refused_with_the_reason(tmp_path, store):
    name = PRODUCT.replace("MSIL2A", "MSIL1C")
    product = write_safe(tmp_path, replace(LOOK, name=name, level="1C", bands={}))
    with pytest.raises(ConfigError, match=r"Level-1C product .*needs surface reflectance"):
        import_safe(product, store)
    archive = shutil.make_archive(tmp_path / name, "zip", tmp_path, product.name)
    with pytest.raises(ConfigError, match=r"Level-1C product .*needs surface reflectance"):
        import_safe(Path(archive), store)
    assert nothing_in(store)


def test_the_layout_before_december_2016_is_refused(tmp_path, store):
    old = tmp_path / "S2A_USER_PRD_MSIL2A_PDMC_20160905T104813_R002_V20160905T005712_20160905T010424.SAFE"
    old.mkdir()
    (old / "S2A_USER_MTD_SAFL2A_PDMC_20160905T104813.xml").write_text("<a/>")
    with pytest.raises(ConfigError, match="before December 2016"):
        import_safe(old, store)
    assert nothing_in(store)


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
    assert nothing_in(store)


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
    assert nothing_in(store)


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
    assert nothing_in(store)


def test_an_image_of_another_size_or_type_is_refused(spoilt, store):
    write_image(spoilt / IMAGE, np.ones((240, 252), "uint16"), 10, LOOK)
    (spoilt / "manifest.safe").unlink()
    with pytest.raises(GridMismatchError, match="_B04_10m"):
        import_safe(spoilt, store)
    write_image(spoilt / IMAGE, np.ones((252, 252), "uint8"), 10, LOOK)
    with pytest.raises(StoreError, match=r"_B04_10m.*uint8"):
        import_safe(spoilt, store)
    assert nothing_in(store)


def test_two_tiles_in_one_product_are_refused(spoilt, store):
    second = spoilt / LOOK.granule.replace("T08WMA", "T08WMB")
    second.mkdir()
    (second / "MTD_TL.xml").write_text(tile_xml(LOOK))
    with pytest.raises(ConfigError, match="2 tiles"):
        import_safe(spoilt, store)
    assert nothing_in(store)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, 0.999])
def test_a_cut_image_without_manifest_never_becomes_zeros(spoilt, store, share):
    whole = read_band(spoilt, "B04", 10)
    (spoilt / "manifest.safe").unlink()
    _cut(IMAGE, share)(spoilt)
    said = ""
    try:
        import_safe(spoilt, store)
    except StoreError as error:
        said = str(error)
    if said:
        assert "_B04_10m.jp2" in said
        assert nothing_in(store)
    else:
        np.testing.assert_array_equal(stored_band(store, "red"), whole)


def test_damage_to_a_scene_that_grows_leaves_what_was_there(product, spoilt, store):
    import_safe(product, store)
    _flip(LOOK.image("B11", 20))(spoilt)
    with pytest.raises(StoreError, match="_B11_20m"):
        import_safe(spoilt, store, bands=("red", "swir16"))
    assert "swir16" not in da.open_scene(store, da.IMPORT, PRODUCT).bands
    np.testing.assert_array_equal(stored_band(store, "red"), read_band(product, "B04", 10))


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
    assert nothing_in(store)


def test_errors_inside_a_zip_file_name_the_zip_file(spoilt, tmp_path, store):
    (spoilt / IMAGE).unlink()
    archive = Path(shutil.make_archive(tmp_path / PRODUCT, "zip", spoilt.parent, spoilt.name))
    with pytest.raises(MissingBandError, match=rf"{PRODUCT}\.zip/{PRODUCT}\.SAFE lacks band B04") as caught:
        import_safe(archive, store)
    assert "scratch" not in str(caught.value)
    assert nothing_in(store)


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
    assert nothing_in(store)


def test_a_product_that_is_not_there_is_named(tmp_path, store):
    with pytest.raises(MissingDataError, match=r"none\.SAFE"):
        import_safe(tmp_path / "none.SAFE", store)
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingDataError, match=r"folder has no MTD_MSIL2A\.xml"):
        import_safe(tmp_path / "folder", store)
    assert nothing_in(store)
