import numpy as np
import pytest
import rasterio
import xarray as xr
from rio_cogeo.cogeo import cog_validate

from darts_export.rasters import MASK_NODATA, write_raster
from darts_utils.bands import BANDS, decode, encode
from darts_utils.errors import ConfigError

NAN = np.float32(np.nan)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 53), (300, 512), (513, 700), (1100, 90)])
def test_rasters_of_any_size_are_cloud_optimized(make_tile, tmp_path, shape):
    values = np.random.default_rng(0).random(shape, dtype="float32")
    tile = make_tile({"probabilities": values})
    write_raster(tmp_path / "p.tif", tile, ["probabilities"], {"DARTS_a": "b"})
    assert cog_validate(tmp_path / "p.tif", strict=True, quiet=True) == (True, [], [])
    with rasterio.open(tmp_path / "p.tif") as source:
        assert source.overviews(1) or shape == (1, 1)
        assert source.crs == "EPSG:32608"
        assert source.transform == tile.odc.geobox.affine
        np.testing.assert_array_equal(source.read(1), np.rint(values.astype("float64") * 100))


@pytest.mark.parametrize("crs", ["EPSG:32708", "EPSG:3413", "EPSG:32601"])
def test_grid_and_crs_come_back_as_they_were(make_tile, tmp_path, crs):
    tile = make_tile({"slope": np.ones((20, 30), "float32")}, crs=crs, corner=(399960.25, 2.5e6), resolution=3.125)
    write_raster(tmp_path / "slope.tif", tile, ["slope"], {})
    with rasterio.open(tmp_path / "slope.tif") as source:
        assert source.crs == crs
        assert source.transform == tile.odc.geobox.affine


def test_probabilities_are_rounded_percent_with_nodata(make_tile, tmp_path):  # E6
    values = np.array([[0, 0.004, 0.0051, 0.504, 0.506, 0.994, 0.996, 1, NAN]], "float32")
    write_raster(tmp_path / "p.tif", make_tile({"probabilities": values}), ["probabilities"], {})
    with rasterio.open(tmp_path / "p.tif") as source:
        assert source.dtypes == ("uint8",)
        assert source.read(1).tolist() == [[0, 0, 1, 50, 51, 99, 100, 100, 255]]
        assert source.nodata == 255
        assert source.scales == (0.01,)
        assert source.descriptions == ("probabilities",)


def test_every_band_of_the_table_reads_back_as_it_was_encoded(make_tile, tmp_path):
    rng = np.random.default_rng(1)
    for name, row in BANDS.items():
        low, high = row.valid
        values = rng.uniform(low, high, (20, 30)).astype(row.memory)
        if row.memory == "float32":
            values[3, 4:9] = NAN
        write_raster(tmp_path / f"{name}.tif", make_tile({name: values}), [name], {})
        assert cog_validate(tmp_path / f"{name}.tif", strict=True, quiet=True)[0]
        with rasterio.open(tmp_path / f"{name}.tif") as source:
            np.testing.assert_array_equal(source.read(1), encode(values, name))
            if row.memory == "float32":
                # What any GIS does with nodata, scale and offset must give what darts itself reads.
                stored = source.read(1, masked=True)
                seen = (stored * source.scales[0] + source.offsets[0]).filled(np.nan)
                np.testing.assert_allclose(seen, decode(encode(values, name), name), atol=1e-3, rtol=1e-5)
                assert source.units[0] == row.units


def test_masks_declare_nodata_and_carry_tags(make_tile, tmp_path):  # E10
    found = np.random.default_rng(2).random((30, 30)) > 0.5
    tile = make_tile({"binarized_segmentation": found})
    write_raster(tmp_path / "b.tif", tile, ["binarized_segmentation"], {"DARTS_tile_id": "t"})
    with rasterio.open(tmp_path / "b.tif") as source:
        np.testing.assert_array_equal(source.read(1), found)
        assert source.nodata == MASK_NODATA
        assert source.tags()["DARTS_tile_id"] == "t"
        assert not any("DATE" in key.upper() for key in source.tags())


def test_the_predictor_suits_the_values(make_tile, tmp_path):
    rng = np.random.default_rng(3)
    bands = {
        "slope": rng.random((20, 20), dtype="float32"),
        "s2_scl": np.ones((20, 20), "uint8"),
        "mine": rng.random((20, 20), dtype="float32"),
    }
    tile = make_tile(bands)
    predictors = {}
    for name in bands:
        write_raster(tmp_path / "x.tif", tile, [name], {})
        with rasterio.open(tmp_path / "x.tif") as source:
            predictors[name] = source.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR", "1")
    assert predictors == {"slope": "2", "s2_scl": "1", "mine": "3"}


@pytest.mark.parametrize(
    ("values", "nodata"),
    [
        (np.linspace(-5, 5, 300).reshape(15, 20), np.nan),
        (np.linspace(-5, 5, 300, dtype="float32").reshape(15, 20), np.nan),
        (np.arange(300, dtype="int32").reshape(15, 20), None),
        (np.arange(300).reshape(15, 20) % 2 == 0, 255),
    ],
)
def test_a_variable_of_the_users_own_keeps_its_values(make_tile, tmp_path, values, nodata):
    write_raster(tmp_path / "own.tif", make_tile({"own": values}), ["own"], {})
    with rasterio.open(tmp_path / "own.tif") as source:
        np.testing.assert_array_equal(source.read(1), values)
        np.testing.assert_equal(source.nodata, nodata)


def test_overviews_of_aspect_never_average_across_north(make_tile, tmp_path):
    values = np.where(np.arange(40) % 2, 10, 350) * np.ones((40, 1), "float32")
    write_raster(tmp_path / "a.tif", make_tile({"aspect": values.astype("float32")}), ["aspect"], {})
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as source:
        assert set(np.unique(source.read(1))) <= {100, 3500}


def test_the_same_tile_gives_the_same_bytes_and_stays_as_it_is(tile, tmp_path):  # E2, E13
    before = tile.copy(deep=True)
    for name in ("one.tif", "two.tif"):
        write_raster(tmp_path / name, tile, ["red", "green", "blue", "nir"], {"DARTS_x": "1"})
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
    xr.testing.assert_identical(tile, before)


def test_the_lowest_reflectance_is_not_taken_for_nodata(make_tile, tmp_path):  # E13
    write_raster(tmp_path / "r.tif", make_tile({"red": np.array([[-0.1, 0.2, NAN]], "float32")}), ["red"], {})
    with rasterio.open(tmp_path / "r.tif") as source:
        assert source.read_masks(1).tolist() == [[255, 255, 0]]


def test_what_cannot_be_a_raster_is_refused(tile, tmp_path):
    with pytest.raises(ConfigError, match="not \\(y, x\\)"):
        write_raster(tmp_path / "x.tif", tile.assign(series=("t", [1.0, 2.0])), ["series"], {})
    with pytest.raises(ConfigError, match="type"):
        write_raster(tmp_path / "x.tif", tile.assign(words=(("y", "x"), np.full((70, 90), "a"))), ["words"], {})


def test_a_tile_without_a_crs_is_refused(tmp_path):
    tile = xr.Dataset({"slope": (("y", "x"), np.ones((4, 4), "float32"))})
    with pytest.raises(ConfigError, match="no geobox with a CRS"):
        write_raster(tmp_path / "x.tif", tile, ["slope"], {})
