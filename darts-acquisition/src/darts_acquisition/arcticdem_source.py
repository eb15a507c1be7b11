"""ArcticDEM mosaics from their STAC API, block by block, as ranges of Cloud-Optimized GeoTIFFs.

What the Polar Geospatial Center (PGC) serves of the mosaics v4.1, as of 2025:

- API `https://stac.pgc.umn.edu/api/v1/`; collections `arcticdem-mosaics-v4.1-2m`, `-10m`, `-32m`.
- 10 and 32 m: 2,485 items `41_16_10m_v4.1`, one a tile of 100 km (and some of 50 km); 2 m: 9,126 items
  `41_16_1_1_2m_v4.1`, quarters of these. Each reaches a rim of 100 m (96 m at 32 m) beyond its lattice.
- Assets `dem` (float32, metres above the ellipsoid, nodata −9999) and `datamask` (uint8, 1 valid, 0 not), also `count`,
  `mad`, `mindate`, `maxdate`, `hillshade`, `metadata`. Hrefs are `https://pgc-opendata-dems.s3.us-west-2.amazonaws.com/
  arcticdem/mosaics/v4.1/10m/41_16/41_16_10m_v4.1_dem.tif`, with `s3://` as `alternate`; open to all, no checksums.
- Properties `proj:code` (`EPSG:3413`), `proj:bbox`, `proj:shape`, `proj:transform` belong to `dem` and `datamask`.
- Pixels lie on multiples of the resolution; only at 32 m, by the official tile index, 85 tiles along the meridian
  x = 0 begin 12 or 20 m off. Those are interpolated.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pystac import Item
from rasterio import Affine

from darts_acquisition.footprints import crs_of, geobox_of, parts_on_grid, window_of
from darts_acquisition.http_ranges import RangeServer, range_session
from darts_acquisition.remote_rasters import DamageError, Overlap, read_overlap
from darts_acquisition.stac_client import NO_STAC, StacApi, shown_address, without_secrets
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_utils.errors import ConfigError, RemoteError
from darts_utils.quoting import first_line

SEARCH_M = 216_000
"""Items are searched for squares of about this size, which many blocks share."""
TILE_M = 110_000
"""Widens a search by more than a tile: so a corner of each tile lies within, whatever its outline became in degrees
(near the pole, or at the antimeridian, where archives hold rings that run the wrong way around the earth)."""
ELEVATION_M = (-1000.0, 9000.0)
"""Elevations beyond are damage: uncompressed or LZW-compressed pixels show no other sign of it."""
_LONLAT = GeoBox((1800, 3600), Affine(0.1, 0, -180, 0, -0.1, 90), "EPSG:4326")


@dataclass(frozen=True, kw_only=True)
class ArcticDemSource:
    """A STAC API with the mosaics; `dataclasses.replace` what another mirror has otherwise."""

    name: str = "pgc"
    """Names the source in messages."""
    endpoint: str = "https://stac.pgc.umn.edu/api/v1/"
    """Address of the API."""
    collections: Mapping[int, str] = field(
        default_factory=lambda: MappingProxyType({r: f"arcticdem-mosaics-v4.1-{r}m" for r in (2, 10, 32)})
    )
    """Resolution in metres → collection."""
    dem_asset: str = "dem"
    mask_asset: str = "datamask"
    s3_endpoint: str = "https://{bucket}.s3.us-west-2.amazonaws.com"
    """Where `s3://` assets can be had without keys."""
    connections: int = 4
    """Blocks in flight at once, each over a connection of its own."""
    requests_per_second: float | None = 4
    """Own limit on the rate of searches, not of the reading of files; None: none."""
    timeout_s: float = 60
    """How long a server may be silent."""
    retries: int = 5
    """How often a request that failed for a passing reason is sent again."""

    def __post_init__(self) -> None:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError("the ArcticDEM source needs an endpoint with http(s):// in front")
        for name in ("connections", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"ArcticDEM source: {name} must be more than 0, got {getattr(self, name)!r}")
        if self.requests_per_second is not None and not self.requests_per_second > 0:
            raise ConfigError("ArcticDEM source: requests_per_second must be more than 0")
        if self.retries < 0:
            raise ConfigError(f"ArcticDEM source: retries must be 0 or more, got {self.retries!r}")

    def collection(self, resolution: int) -> str:
        """Return the collection of a resolution.

        Raises:
            ConfigError: the source has none.
        """
        if resolution not in self.collections:
            raise ConfigError(f"ArcticDEM source {self.name} has no collection of {resolution} m")
        return self.collections[resolution]


PGC = ArcticDemSource()
"""The Polar Geospatial Center: the public archive, no keys needed."""


def arcticdem_fetcher(
    resolution: int, source: ArcticDemSource, report: TransferReport = SILENT, stop: threading.Event | None = None
) -> Callable[[GeoBox], xr.Dataset]:
    """Connect to the API and return what fetches a block of the mosaic's grid: `dem`, `datamask`, see `VARIABLES`.

    Where tiles overlap, the first in the order of their ids that has an elevation gives it, and its mask with it.
    Where there is no tile, as on the sea, elevation is NaN and the mask 0.

    Args:
        resolution: 2, 10 or 32 m.
        source: where tiles are searched.
        report: hears of the bytes as they come.
        stop: ends all fetching when set.

    Raises:
        RemoteError: the API cannot be reached or has no such tiles; the function raises the same where a block cannot
            be had, and names item, asset and cause.
    """
    server = RangeServer(range_session(source.connections), source.timeout_s, source.retries, report, stop)
    tiles = _Tiles(source, source.collection(resolution))

    def fetch(block: GeoBox) -> xr.Dataset:
        dem = np.full(block.shape.yx, np.nan, "float32")
        mask = np.zeros(block.shape.yx, "uint8")
        for item in tiles.touching(block):
            _add_tile(item, block, dem, mask, source, server)
        return xr.Dataset(
            {"dem": (("y", "x"), dem), "datamask": (("y", "x"), mask)}, coords=xr_coords(block, dims=("y", "x"))
        )

    return fetch


class _Tiles:
    """The items of a collection, searched as blocks ask for them."""

    def __init__(self, source: ArcticDemSource, collection: str) -> None:
        self._source, self._collection = source, collection
        self._api = StacApi(source)  # type: ignore[arg-type]  # has all that it uses of a StacSource
        self._lock = threading.Lock()
        self._found: dict[tuple[int, int], list[Item]] = {}
        # An unknown collection looks like a sea without tiles.
        if not any(self._search({"limit": 1}, most=1)):
            raise RemoteError(
                f"{source.name}: {shown_address(source.endpoint)} has no items in collection {collection}; "
                "check both names"
            )

    def touching(self, block: GeoBox) -> list[Item]:
        """Return the items that reach into a block, in the order of their ids.

        Raises:
            RemoteError: the search failed, or an item is in another CRS.
        """
        items = self._around(block)
        return [item for item in items if _reaches_into(item, block)]

    def _around(self, block: GeoBox) -> list[Item]:
        left, bottom, right, top = block.boundingbox
        square = int((left + right) / 2 // SEARCH_M), int((bottom + top) / 2 // SEARCH_M)
        with self._lock:
            if square not in self._found:
                # A block may reach beyond its square.
                reach = TILE_M + max(right - left, top - bottom)
                side = SEARCH_M + 2 * reach
                corner = Affine(side, 0, square[0] * SEARCH_M - reach, 0, -side, (square[1] + 1) * SEARCH_M + reach)
                around = GeoBox((1, 1), corner, block.crs)
                found = {
                    item.id: item
                    for part, _ in parts_on_grid(window_of(around, _LONLAT), _LONLAT)
                    for item in self._items({"bbox": list(geobox_of(part, _LONLAT).boundingbox), "limit": 200})
                }
                self._found[square] = [found[key] for key in sorted(found)]
            return self._found[square]

    def _items(self, query: dict[str, Any]) -> Iterator[Item]:
        for feature in self._search(query):
            try:
                item = Item.from_dict(feature)
            except NO_STAC as error:
                raise RemoteError(
                    f"{self._source.name}: {shown_address(self._source.endpoint)} sent an item that cannot be read: "
                    f"{without_secrets(first_line(error))}"
                ) from error
            yield item

    def _search(self, query: dict[str, Any], most: int | None = None) -> Iterator[dict[str, Any]]:
        n = 0
        for page in self._api.pages({"collections": [self._collection], **query}):
            for feature in page:
                yield feature
                n += 1
                if n == most:
                    return


def _reaches_into(item: Item, block: GeoBox) -> bool:
    """Return whether an item may reach into a block; one that does not say where it lies may."""
    code = item.properties.get("proj:code") or item.properties.get("proj:epsg")
    if code is not None and str(code).removeprefix("EPSG:") != str(crs_of(block).to_epsg()):
        raise RemoteError(
            f"item {item.id} of {item.collection_id} is in {code}, but the mosaic is in EPSG:{crs_of(block).to_epsg()}"
        )
    rows, columns = _place(item, block)
    return rows.start < rows.stop and columns.start < columns.stop


def _place(item: Item, block: GeoBox) -> tuple[slice, slice]:
    """Return the rows and columns of a block that an item says it reaches; all where it does not say."""
    height, width = block.shape.yx
    bounds = item.properties.get("proj:bbox")
    if not isinstance(bounds, list) or len(bounds) != 4:
        return slice(0, height), slice(0, width)
    left, bottom, right, top = bounds
    a, _, x, _, e, y = block.affine[:6]
    rows, columns = ((top - y) / e, (bottom - y) / e), ((left - x) / a, (right - x) / a)
    return tuple(  # type: ignore[return-value]
        slice(max(int(np.floor(start)), 0), min(int(np.ceil(end)), side))
        for (start, end), side in ((rows, height), (columns, width))
    )


def _add_tile(
    item: Item, block: GeoBox, dem: np.ndarray, mask: np.ndarray, source: ArcticDemSource, server: RangeServer
) -> None:
    """Fill what a block still lacks from a tile."""
    if not np.isnan(dem[_place(item, block)]).any():
        return
    elevation = _read(item, source.dem_asset, block, source, server, _elevation, "bilinear", np.nan)
    if elevation is None:
        return
    place = elevation.place
    take = np.isnan(dem[place]) & np.isfinite(elevation.values)
    if not take.any():
        return
    valid = _read(item, source.mask_asset, block, source, server, _validity, "nearest", 0)
    if valid is None or valid.place != place:
        raise RemoteError(f"item {item.id}: {source.mask_asset} has not the extent of {source.dem_asset}")
    np.copyto(dem[place], elevation.values, where=take)
    np.copyto(mask[place], valid.values, where=take)


def _read(
    item: Item,
    asset: str,
    block: GeoBox,
    source: ArcticDemSource,
    server: RangeServer,
    decode: Callable[[np.ndarray, float | None], np.ndarray],
    resampling: Literal["nearest", "bilinear"],
    nodata: float,
) -> Overlap | None:
    if asset not in item.assets:
        raise RemoteError(
            f"item {item.id} of {item.collection_id} has no asset {asset}; it has {', '.join(item.assets) or 'none'}"
        )
    href = item.assets[asset].get_absolute_href() or item.assets[asset].href
    parts = urlsplit(href)
    if parts.scheme == "s3":
        href = source.s3_endpoint.format(bucket=parts.netloc) + parts.path
    what = f"item {item.id}, asset {asset}"
    return read_overlap(href, block, what=what, server=server, decode=decode, resampling=resampling, nodata=nodata)


def _elevation(stored: np.ndarray, nodata: float | None) -> np.ndarray:
    """Return elevation in metres, NaN where there is none."""
    dem = stored.astype("float32", copy=False)
    if nodata is not None:
        dem[dem == np.float32(nodata)] = np.nan
    low, high = np.fmin.reduce(dem, axis=None), np.fmax.reduce(dem, axis=None)
    if low < ELEVATION_M[0] or high > ELEVATION_M[1]:
        raise DamageError(f"elevations from {low:g} to {high:g} m")
    return dem


def _validity(stored: np.ndarray, nodata: float | None) -> np.ndarray:
    """Return 1 where the mosaic has data, else 0."""
    if stored.max(initial=0) > 1:
        raise DamageError(f"a mask with values up to {stored.max()}")
    return stored.astype("uint8", copy=False)
