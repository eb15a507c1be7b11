"""How files on different grids are told apart."""

from pathlib import Path

import pytest
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.rasters import require_one_grid
from darts_utils.errors import GridMismatchError

HERE = Affine(10, 0, 500_000, 0, -10, 7_700_000)


@pytest.mark.parametrize(
    ("shape", "transform", "crs", "told"),
    [
        ((7, 8), HERE, "EPSG:32608", "size: 7×9, 7×8"),
        ((7, 9), HERE * Affine.translation(0, 1), "EPSG:32608", "top: 7700000, 7699990"),
        ((7, 8), HERE * Affine.scale(2), "EPSG:32608", "pixel width: 10, 20"),
        ((7, 8), HERE * Affine.scale(2), "EPSG:32609", "CRS: EPSG:32608, EPSG:32609"),
    ],
)
def test_the_first_difference_of_two_grids_is_told(
    shape: tuple[int, int], transform: Affine, crs: str, told: str
) -> None:
    grid = GeoBox((7, 9), HERE, "EPSG:32608")
    folder = Path("/a/folder")
    require_one_grid((folder / "a.tif", grid), (folder / "b.tif", GeoBox((7, 9), HERE, "EPSG:32608")))
    other = GeoBox(shape, transform, crs)
    with pytest.raises(GridMismatchError) as caught:
        require_one_grid((folder / "a.tif", grid), (folder / "b.tif", other))
    assert str(caught.value) == f"/a/folder/a.tif and b.tif differ in {told}; warp one to the other"
    with pytest.raises(GridMismatchError, match=r"/a/folder/a\.tif and /elsewhere/a\.tif differ"):
        require_one_grid((folder / "a.tif", grid), (Path("/elsewhere/a.tif"), other))
