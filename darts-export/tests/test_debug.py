import numpy as np
import xarray as xr

from darts_export.debug import write_debug


def test_the_whole_tile_comes_back_with_the_values_it_had_in_memory(tile, tmp_path):
    before = tile.copy(deep=True)
    write_debug(tmp_path / "d.nc", tile)
    xr.testing.assert_identical(tile, before)
    with xr.open_dataset(tmp_path / "d.nc", engine="h5netcdf", decode_coords="all") as read:
        for name, values in tile.data_vars.items():
            np.testing.assert_array_equal(read[name], values)
            assert read[name].dtype == values.dtype
        assert read.odc.geobox == tile.odc.geobox
        assert read.attrs["tile_id"] == "a-tile"
        assert "elevation" not in read.attrs
        assert np.abs(read.curvature).max() > 1  # not clipped as on disk


def test_the_same_tile_gives_the_same_bytes(tile, tmp_path):
    for name in ("one.nc", "two.nc"):
        write_debug(tmp_path / name, tile[["red", "extent"]])
    assert (tmp_path / "one.nc").read_bytes() == (tmp_path / "two.nc").read_bytes()


def test_attributes_netcdf_cannot_hold_become_text(tile, tmp_path):
    tile.attrs |= {"flag": True, "models": {"a": 1}, "nothing": None}
    write_debug(tmp_path / "d.nc", tile[["red"]])
    with xr.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as read:
        assert read.attrs["flag"] == "True"
        assert read.attrs["models"] == "{'a': 1}"
        assert "nothing" not in read.attrs
