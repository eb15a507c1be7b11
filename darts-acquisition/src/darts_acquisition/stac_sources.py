"""STAC APIs that serve Sentinel-2 Level-2A: where they are, and what they call things. All of it is data."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from darts_utils.bands import band
from darts_utils.errors import ConfigError

SCL = "s2_scl"


@dataclass(frozen=True, kw_only=True)
class StacSource:
    """A STAC API with Sentinel-2 Level-2A scenes; start from a preset and `dataclasses.replace` what differs."""

    name: str
    """Names the source in messages and in the raw data store."""
    endpoint: str
    """Address of the API, such as `https://stac.dataspace.copernicus.eu/v1/`."""
    collection: str
    assets: Mapping[str, str]
    """Common name of a band, and `s2_scl` → name of the asset."""
    s3_endpoint: str | None = None
    """Address of the S3 service that `s3://` assets lie on; None: that of the AWS profile, else Amazon's."""
    s3_region: str | None = None
    s3_unsigned: bool = False
    """Ask without keys, for public buckets."""
    tile_property: str = "grid:code"
    """Property of an item with the MGRS tile, as `MGRS-08WMA`."""
    cloud_property: str = "eo:cloud_cover"
    """Percent."""
    snow_property: str = "eo:snow_cover"
    """Percent."""
    baseline_property: str = "processing:version"
    """Processing baseline, such as `05.11`."""
    offset_applied_property: str | None = None
    """Property that is true where digital numbers had the offset taken off already, whatever the assets say."""
    filters: bool = True
    """Send cloud, snow and tile filters as CQL2; they are checked again on what comes back in any case."""
    page_size: int = 100
    """Items asked for at a time."""
    max_vertices: int = 500
    """Areas of interest with more vertices are simplified outwards before they are sent."""
    requests_per_second: float | None = 4
    """Own limit on the rate of requests; None: none."""
    connections: int = 6
    """Assets in flight at once."""
    timeout_s: float = 60
    """How long a server may be silent."""
    retries: int = 5
    """How often a request that failed for a passing reason is sent again."""

    def __post_init__(self) -> None:
        if not self.name or not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"a STAC source needs a name and an endpoint with http(s)://, got {self.endpoint!r}")
        if self.s3_endpoint is not None and not self.s3_endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"STAC source {self.name}: s3_endpoint needs http(s)://, got {self.s3_endpoint!r}")
        if not self.collection:
            raise ConfigError(f"STAC source {self.name}: collection must be given")
        if SCL not in self.assets:
            raise ConfigError(f"STAC source {self.name}: assets must name the scene classification as {SCL}")
        for common_name in self.assets:
            if common_name != SCL and band(common_name).disk != "uint16":
                raise ConfigError(f"STAC source {self.name}: assets names {common_name!r}, which is no optical band")
        for name in ("page_size", "max_vertices", "connections", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"STAC source {self.name}: {name} must be more than 0, got {getattr(self, name)!r}")
        if self.requests_per_second is not None and not self.requests_per_second > 0:
            raise ConfigError(f"STAC source {self.name}: requests_per_second must be more than 0")
        if self.retries < 0:
            raise ConfigError(f"STAC source {self.name}: retries must be 0 or more, got {self.retries!r}")

    @property
    def prefix(self) -> str:
        """Prefix of its scenes in the raw data store."""
        return f"{self.name}-s2-sr-scene"

    def bands(self, *common_names: str) -> dict[str, str]:
        """Return asset name → common name of some optical bands.

        Raises:
            ConfigError: the source has no such band.
        """
        if unknown := [name for name in common_names if name not in self.assets]:
            raise ConfigError(
                f"STAC source {self.name} has no asset for {', '.join(unknown)}; it has {', '.join(self.assets)}"
            )
        return {self.assets[name]: name for name in common_names}


def _frozen(assets: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(assets))


CDSE_SOURCE = StacSource(
    name="cdse",
    endpoint="https://stac.dataspace.copernicus.eu/v1/",
    collection="sentinel-2-l2a",
    assets=_frozen(
        {
            "blue": "B02_10m",
            "green": "B03_10m",
            "red": "B04_10m",
            "nir": "B08_10m",
            "coastal": "B01_20m",
            "rededge071": "B05_20m",
            "rededge075": "B06_20m",
            "rededge078": "B07_20m",
            "nir08": "B8A_20m",
            "nir09": "B09_60m",
            "swir16": "B11_20m",
            "swir22": "B12_20m",
            SCL: "SCL_20m",
        }
    ),
    s3_endpoint="https://eodata.dataspace.copernicus.eu",
    s3_region="default",
)
"""The Copernicus Data Space Ecosystem: JPEG 2000 on S3, with keys of one's own."""

EARTH_SEARCH_SOURCE = StacSource(
    name="earth-search",
    endpoint="https://earth-search.aws.element84.com/v1/",
    collection="sentinel-2-c1-l2a",
    assets=_frozen(
        {
            "blue": "blue",
            "green": "green",
            "red": "red",
            "nir": "nir",
            "coastal": "coastal",
            "rededge071": "rededge1",
            "rededge075": "rededge2",
            "rededge078": "rededge3",
            "nir08": "nir08",
            "nir09": "nir09",
            "swir16": "swir16",
            "swir22": "swir22",
            SCL: "scl",
        }
    ),
    s3_region="us-west-2",
    s3_unsigned=True,
    snow_property="s2:snow_ice_percentage",
    baseline_property="s2:processing_baseline",
    offset_applied_property="earthsearch:boa_offset_applied",
)
"""The public archive of Cloud-Optimized GeoTIFFs on AWS, no keys needed. Collection 1: in the older collection
`sentinel-2-l2a` items are known whose metadata says wrongly whether the offset was taken off."""

STAC_SOURCES: Mapping[str, StacSource] = MappingProxyType(
    {source.name: source for source in (CDSE_SOURCE, EARTH_SEARCH_SOURCE)}
)
"""The presets by name."""
