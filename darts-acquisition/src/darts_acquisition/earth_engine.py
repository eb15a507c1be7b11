"""Earth Engine through its own client: connecting, and asking for values and assets."""

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from darts_acquisition.earth_engine_requests import BadReplyError, ask
from darts_acquisition.earth_engine_source import GEE_SOURCE, EarthEngineSource
from darts_acquisition.rate_limit import RateLimit
from darts_utils.errors import ConfigError

__all__ = ["GEE_SOURCE", "EarthEngineSource", "compute_value", "connect", "get_asset", "init_ee"]


def init_ee(
    project: str | None, use_highvolume: bool = True, *, endpoint: str | None = None, credentials: Any = None
) -> None:
    """Connect to Earth Engine, once a process and project; what needs it later does so itself otherwise.

    Args:
        project: the Google Cloud project that requests are counted on; None: that of the credentials.
        use_highvolume: use the endpoint for many small requests.
        endpoint: address of another service.
        credentials: google.auth credentials; None: those of `earthengine authenticate`, else Google's application
            default (a service account's key file).

    Raises:
        ConfigError: there are no credentials, or no project.
        RemoteError: the service cannot be reached, or refuses.
    """
    connect(
        EarthEngineSource(project=project, use_highvolume=use_highvolume, endpoint=endpoint, credentials=credentials)
    )


def connect(source: EarthEngineSource = GEE_SOURCE) -> None:
    """Connect to Earth Engine as `source` says, unless that is so already; see `init_ee`.

    The client is one for the whole process: connecting to another project or address replaces the connection.
    """
    global _connected
    import ee

    with _connecting:
        if ee.data.is_initialized():
            if _connected is not None and _serves(_connected, source):
                return
            if _connected is None and source.project is None and source.endpoint is None:
                _adopt(source)
                return
        _connected = None
        # Looked up first: no credentials is an error that no network is needed for.
        credentials = _credentials(source)
        ask(source, "connecting to it", lambda: _initialize(source, credentials))
        _connected = source


def compute_value(source: EarthEngineSource, what: str, expression: Any) -> Any:
    """Return the value of an `ee` object; `what` says in errors what was asked for.

    Raises:
        RemoteError: the service cannot be reached, refuses, or sends something wrong, however often asked.
    """
    import ee

    return ask(source, what, lambda: ee.data.computeValue(expression))


def get_asset(source: EarthEngineSource, asset_id: str) -> dict[str, Any]:
    """Return what Earth Engine knows of an asset; see `compute_value`."""
    import ee

    return ask(source, f"asset {asset_id}", lambda: ee.data.getAsset(asset_id))


_connecting = threading.Lock()
_connected: EarthEngineSource | None = None
"""What the client, which is one for the process, is connected to."""


def _serves(connected: EarthEngineSource, source: EarthEngineSource) -> bool:
    """Whether the present connection is what `source` asks for; without a project and address, any is."""
    if source.project is None and source.endpoint is None:
        return True
    return (
        connected.project,
        connected.address,
        connected.credentials,
        connected.connections,
        connected.timeout_s,
    ) == (
        source.project,
        source.address,
        source.credentials,
        source.connections,
        source.timeout_s,
    )


def _adopt(source: EarthEngineSource) -> None:
    """Go on with a connection that the user made with `ee.Initialize`."""
    import ee

    ee.data.setMaxRetries(0)
    ask(source, "connecting to it", lambda: ee.data.setDeadline(1000 * source.timeout_s))


def _credentials(source: EarthEngineSource) -> Any:
    import ee

    if source.credentials is not None:
        return source.credentials
    if source.endpoint is not None and urlsplit(source.endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials()
    try:
        return ee.data.get_persistent_credentials()
    except ee.EEException as error:
        raise ConfigError(
            "Earth Engine: there are no credentials on this machine; run `earthengine authenticate`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"
        ) from error


def _initialize(source: EarthEngineSource, credentials: Any) -> None:
    import ee

    ee.Reset()
    # The loop in `ask` sends again; the client's own retries would multiply with it.
    ee.data.setMaxRetries(0)
    try:
        with _no_catalogue_fetch():
            ee.Initialize(
                credentials=credentials,
                project=source.project,
                url=source.address,
                http_transport=_Transport(source),
            )
    except BaseException as error:
        # A client that is half connected would fail later with errors that say nothing.
        ee.Reset()
        if isinstance(error, ee.EEException) and "no project found" in str(error):
            raise ConfigError("Earth Engine needs a Google Cloud project: give ee_project") from error
        raise


@contextlib.contextmanager
def _no_catalogue_fetch() -> Iterator[None]:
    """Keep `ee.Initialize` from reading a list of deprecated data sets from elsewhere, without a limit of time."""
    from ee import deprecation

    fetch = getattr(deprecation, "_FetchDataCatalogStac", None)
    if fetch is None:
        yield
        return
    deprecation._FetchDataCatalogStac = lambda: {}
    try:
        yield
    finally:
        deprecation._FetchDataCatalogStac = fetch


class _Transport:
    """What the client sends its requests through: a limit on time, rate and number in flight, from the start on."""

    def __init__(self, source: EarthEngineSource) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._timeout_s = source.timeout_s
        self._limit = RateLimit(source.requests_per_second)
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_connections=2, pool_maxsize=source.connections, pool_block=True)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any
    ) -> tuple[Any, bytes]:
        """Send one request, as `httplib2.Http` would."""
        import httplib2

        self._limit.wait()
        response = self._session.request(method, uri, data=body, headers=headers, timeout=self._timeout_s)
        if response.ok and "json" in response.headers.get("Content-Type", ""):
            _check_json(response.content, needs_result=urlsplit(uri).path.endswith("value:compute"))
        answer = httplib2.Response(dict(response.headers) | {"status": response.status_code})
        answer.reason = response.reason
        return answer, response.content


def _check_json(content: bytes, *, needs_result: bool) -> None:
    """Raise BadReplyError where the client would stumble over a body that was cut short."""
    try:
        value = json.loads(content)
    except ValueError as error:
        raise BadReplyError(f"an answer that cannot be read ({error})") from error
    if not isinstance(value, dict) or (needs_result and "result" not in value):
        raise BadReplyError("an answer without what was asked for")
