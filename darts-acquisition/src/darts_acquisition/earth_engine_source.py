"""Where Earth Engine is and how it is asked: all of it is data."""

from dataclasses import dataclass
from typing import Any

from darts_utils.errors import ConfigError

HIGH_VOLUME_URL = "https://earthengine-highvolume.googleapis.com"


@dataclass(frozen=True, kw_only=True)
class EarthEngineSource:
    """Where Earth Engine is, who asks, and how hard; the default is Google's own."""

    name: str = "gee"
    """Names the source in messages."""
    collection: str = "COPERNICUS/S2_SR_HARMONIZED"
    """Sentinel-2 Level-2A: the harmonised collection, or the superseded `COPERNICUS/S2_SR`."""
    project: str | None = None
    """The Google Cloud project that requests are counted on; None: that of `init_ee`, else of the credentials."""
    use_highvolume: bool = True
    """Use the endpoint for many small requests."""
    endpoint: str | None = None
    """Address of another service; a loopback address without credentials is asked anonymously."""
    credentials: Any = None
    """google.auth credentials; None: those of `earthengine authenticate`, else Google's application default."""
    requests_per_second: float | None = 20
    """Own limit on the rate of requests; None: none."""
    connections: int = 8
    """Requests in flight at once, of this process."""
    timeout_s: float = 180
    """How long the service may be silent; it computes before it answers."""
    retries: int = 5
    """How often a request that failed for a passing reason is sent again."""
    retry_wait_s: float = 1
    """Wait before the first of these; doubles each time, up to a minute. A longer `Retry-After` is obeyed."""

    def __post_init__(self) -> None:
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError(f"Earth Engine source {self.name}: endpoint needs http(s)://, got {self.endpoint!r}")
        if not self.collection or not isinstance(self.collection, str):
            raise ConfigError(f"Earth Engine source {self.name}: collection must be given")
        for name in ("connections", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Earth Engine source {self.name}: {name} must be more than 0")
        if self.requests_per_second is not None and not self.requests_per_second > 0:
            raise ConfigError(f"Earth Engine source {self.name}: requests_per_second must be more than 0")
        if self.retries < 0 or self.retry_wait_s < 0:
            raise ConfigError(f"Earth Engine source {self.name}: retries and retry_wait_s must be 0 or more")

    @property
    def address(self) -> str | None:
        """Address for the client; None: its default."""
        return (self.endpoint or "").rstrip("/") or (HIGH_VOLUME_URL if self.use_highvolume else None)


GEE_SOURCE = EarthEngineSource()
"""Google's Earth Engine, with the project that `init_ee` was given."""
