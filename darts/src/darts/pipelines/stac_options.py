"""Settings of a STAC API that differ from its preset, as options of the command line and the configuration file."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from darts_acquisition import StacSource


@dataclass(frozen=True, kw_only=True)
class StacOptions:
    """What differs from the preset of the archive; in a configuration file the table `[darts.stac]`."""

    endpoint: str | None = None
    """Address of the STAC API; default: that of the archive."""
    collection: str | None = None
    """Its collection of Sentinel-2 Level-2A scenes."""
    assets: dict[str, str] | None = None
    """Names of its assets by band (blue, green and so on, s2_scl for the scene classification), each named: \
--stac.assets.BAND ASSET."""
    s3_endpoint: str | None = None
    """Address of the S3 service that s3:// assets lie on."""
    s3_region: str | None = None
    """Region of the S3 service."""
    s3_unsigned: bool | None = None
    """Ask without keys, for public buckets."""
    tile_property: str | None = None
    """Property of an item that holds the MGRS tile."""
    cloud_property: str | None = None
    """Property of an item that holds the cloud cover in percent."""
    snow_property: str | None = None
    """Property of an item that holds the snow cover in percent."""
    baseline_property: str | None = None
    """Property of an item that holds the processing baseline."""
    offset_applied_property: str | None = None
    """Property of an item that is true where digital numbers had the offset of reflectance taken off already."""
    filters: bool | None = None
    """Send filters as CQL2; they are checked again in any case."""
    page_size: int | None = None
    """Items asked for at a time."""
    max_vertices: int | None = None
    """Areas of interest with more vertices are simplified before they are sent."""
    requests_per_second: float | None = None
    """Own limit on the rate of requests."""
    connections: int | None = None
    """Assets in flight at once."""
    timeout_s: float | None = None
    """How long a server may be silent, in seconds."""
    retries: int | None = None
    """How often a request that failed for a passing reason is sent again."""

    def applied_to(self, preset: "StacSource") -> "StacSource":
        """Return a preset with what is set here; assets are added to those of the preset.

        Raises:
            ConfigError: a setting cannot work.
        """
        changes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changes = {name: value for name, value in changes.items() if value is not None}
        if self.assets is not None:
            changes["assets"] = {**preset.assets, **self.assets}
        return dataclasses.replace(preset, **changes)
