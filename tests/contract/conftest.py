"""Grids and tiles of the worked examples. The numbers stand in the tests themselves, written out from SPEC."""

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords


@pytest.fixture
def on_grid():
    """Make a Dataset from arrays: upper left corner, pixel size in metres and CRS as asked."""

    def make(crs="EPSG:32608", left=500_000.0, top=7_760_000.0, dx=10.0, dy=10.0, attrs=None, **bands):
        shape = np.shape(next(iter(bands.values())))
        geobox = GeoBox(shape, Affine(dx, 0, left, 0, -dy, top), crs)
        variables = {name: (("y", "x"), np.asarray(values)) for name, values in bands.items()}
        return xr.Dataset(variables, coords=xr_coords(geobox), attrs=attrs or {})

    return make


@pytest.fixture
def plane(on_grid):
    """Make a DEM that falls by `drop_east` and `drop_north` metres a metre of the grid; 500 m in its middle.

    The grid lies on the central meridian of zone 8, where grid north is true north, unless told otherwise.
    """

    def make(drop_east, drop_north, size=5, dx=10.0, dy=10.0, left=None, top=7_760_000.0, **options):
        left = 500_000 - size * dx / 2 if left is None else left
        middle = (size - 1) / 2
        east = (np.arange(size) - middle)[None, :] * dx
        north = (middle - np.arange(size))[:, None] * dy
        dem = np.float32(500 - drop_east * east - drop_north * north)
        return on_grid(dem=dem, dx=dx, dy=dy, left=left, top=top, **options)

    return make


@pytest.fixture
def sentinel2_store(tmp_path):
    """Write a scene into a raw data store by hand, as docs/decisions/0002-contract.md lays it down; give the store."""

    def write(scene_id, *, scale=1e-4, offset=-0.1, prefix="cdse-s2-sr-scene", attrs=None, **bands):
        import pyproj
        import zarr

        shape = np.shape(next(iter(bands.values())))
        group = zarr.open_group(tmp_path / "store" / f"{prefix}-{scene_id}.zarr", mode="w", zarr_format=3)
        for name, values in bands.items():
            dtype = "uint8" if name.lower().startswith("scl") else "uint16"
            array = group.create_array(
                name, shape=shape, dtype=dtype, chunks=shape, fill_value=0, dimension_names=("y", "x")
            )
            array[:] = np.asarray(values, dtype)
            if dtype == "uint16":
                array.attrs.update({"scale": scale, "offset": offset})
        group.attrs.update(
            {
                "scene_id": scene_id,
                "crs": pyproj.CRS("EPSG:32608").to_wkt(),
                "transform": [10.0, 0.0, 500_000.0, 0.0, -10.0, 7_760_000.0],
                "shape": list(shape),
                "datetime": "2023-07-01T19:59:09Z",
                "sun_azimuth": 170.5,
                "sun_elevation": 42.25,
                "processing_baseline": "05.09",
                "sensor": "Sentinel-2",
                "bands": list(bands),
                **(attrs or {}),
            }
        )
        return tmp_path / "store"

    return write


@pytest.fixture
def planet_folder(tmp_path):
    """Write a Planet scene folder by hand: surface reflectance (band, y, x), UDM2 (8, y, x) or None, metadata."""

    def write(optical, udm2=None, *, name="20230701_194909_12_2416", suffix="3B_AnalyticMS_SR", sun=(170.5, 42.25)):
        import json

        import rasterio

        folder = tmp_path / name
        folder.mkdir(parents=True)
        stem = folder.name
        optical = np.asarray(optical, "uint16")
        profile = {
            "driver": "GTiff",
            "crs": "EPSG:32608",
            "transform": Affine(3, 0, 500_000, 0, -3, 7_760_000),
            "height": optical.shape[1],
            "width": optical.shape[2],
        }
        with rasterio.open(
            folder / f"{stem}_{suffix}.tif", "w", count=len(optical), dtype="uint16", nodata=0, **profile
        ) as file:
            file.write(optical)
        if udm2 is not None:
            with rasterio.open(folder / f"{stem}_3B_udm2.tif", "w", count=8, dtype="uint8", **profile) as file:
                file.write(np.asarray(udm2, "uint8"))
        if sun is not None:
            properties = {"sun_azimuth": sun[0], "sun_elevation": sun[1], "acquired": "2023-07-01T19:49:09.123456Z"}
            metadata = {"id": stem, "type": "Feature", "properties": properties}
            (folder / f"{stem}_metadata.json").write_text(json.dumps(metadata))
        return folder

    return write
