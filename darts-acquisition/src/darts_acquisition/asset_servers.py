"""Where assets are opened: S3, HTTP and local files, their many errors told apart as passing or final."""

import contextlib
import functools
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import botocore.loaders
import botocore.session
import requests
import requests.adapters
from botocore import UNSIGNED
from botocore.config import Config

from darts_acquisition.retries import PASSING_STATUS, retry_after_s
from darts_acquisition.stac_sources import StacSource
from darts_utils.errors import ConfigError

CHUNK_BYTES = 1 << 18
_PASSING_CODES = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"})
_KEY_CODES = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "RequestTimeTooSkewed"}
)


@dataclass(frozen=True)
class Body:
    """Bytes on their way."""

    start: int
    """Position in the file of the first one."""
    version: str | None
    """ETag of the file, where the server gives one."""
    chunks: Iterator[bytes]
    size: int | None = None
    """Bytes of the whole file, where the server says it."""


class PassingError(Exception):
    """What went wrong may go right the next time."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, restart: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        """How long the server asks to wait."""
        self.restart = restart
        """The bytes received so far cannot be continued."""


class RefusedError(Exception):
    """What went wrong will not get better by asking again."""


class AssetServers:
    """Opens the assets of a source; connections and keys are shared by all threads that use it."""

    def __init__(self, source: StacSource, profile: str = "default") -> None:
        self.source = source
        self.profile = profile
        self._lock = threading.Lock()
        self._s3: Any = None
        self._http: requests.Session | None = None

    @contextlib.contextmanager
    def opened(self, href: str, start: int = 0, version: str | None = None) -> Iterator[Body]:
        """Give the bytes of an asset from `start` on, or from 0 on where the server cannot continue.

        Args:
            href: `s3://`, `http(s)://`, `file://` or a path.
            start: bytes that are there already.
            version: ETag of the file that they are of.

        Raises:
            PassingError: worth another try; also while reading the chunks.
            RefusedError: not worth one.
            ConfigError: the AWS profile does not exist.
        """
        scheme = urllib.parse.urlsplit(href).scheme.lower()
        open_ = {"s3": self._open_s3, "http": self._open_http, "https": self._open_http}.get(scheme, self._open_file)
        with open_(href, start, version) as body:
            yield body

    @contextlib.contextmanager
    def _open_file(self, href: str, start: int, version: str | None) -> Iterator[Body]:
        parts = urllib.parse.urlsplit(href)
        if parts.scheme not in ("", "file"):
            raise RefusedError(f"addresses with {parts.scheme}:// are not supported")
        path = Path(urllib.parse.unquote(parts.path) if parts.scheme == "file" else href)
        if path.exists() and not path.is_file():
            raise RefusedError("is no file")  # a device could be read without end
        try:
            with path.open("rb") as file:
                yield Body(0, None, iter(lambda: file.read(CHUNK_BYTES), b""))
        except ValueError as error:  # a name that no file can have
            raise RefusedError(f"cannot be read ({error})") from error
        except OSError as error:
            if error.filename != str(path):
                raise
            raise RefusedError(f"cannot be read ({error.strerror})") from error

    @contextlib.contextmanager
    def _open_http(self, href: str, start: int, version: str | None) -> Iterator[Body]:
        # Compressed on the way, sizes and ranges would mean other bytes.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if version is not None and not version.startswith("W/"):
                headers["If-Range"] = version
        try:
            with self._session().get(href, headers=headers, stream=True, timeout=self.source.timeout_s) as response:
                _check_status(response)
                etag = response.headers.get("ETag")
                place, length = response.headers.get("Content-Range", ""), response.headers.get("Content-Length")
                at = _range_start(place) if response.status_code == 206 else 0
                # Compressed all the same, its numbers are those of other bytes.
                packed = response.headers.get("Content-Encoding", "identity") != "identity"
                if at not in (0, start) or (at and (version != etag or packed)):
                    raise PassingError("continued at another place or in another file", restart=True)
                if response.status_code == 206 and not place:
                    raise PassingError("the server did not say which range it sent", restart=True)
                size = None if packed else _whole_size(place if response.status_code == 206 else None, length)
                yield Body(at, etag, response.iter_content(CHUNK_BYTES), size)
        except requests.Timeout as error:
            raise self._silence() from error
        except requests.ConnectionError as error:
            # Silence within the body comes in this class too.
            raise self._silence() if "timed out" in str(error) else _broken(error) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise _broken(error) from error
        except requests.RequestException as error:
            raise RefusedError(f"cannot be asked for ({type(error).__name__})") from error

    @contextlib.contextmanager
    def _open_s3(self, href: str, start: int, version: str | None) -> Iterator[Body]:
        parts = urllib.parse.urlsplit(href, allow_fragments=False)
        request = {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}
        if start:
            request |= {"Range": f"bytes={start}-"} | ({"IfMatch": version} if version else {})
        try:
            answer = self._client().get_object(**request)
            place = answer.get("ContentRange") if start else None
            at = _range_start(place)
            with contextlib.closing(answer["Body"]) as body:
                if at not in (0, start):
                    raise PassingError("continued at another place", restart=True)
                size = _whole_size(place, answer.get("ContentLength"))
                yield Body(at, answer.get("ETag"), body.iter_chunks(CHUNK_BYTES), size)
        except botocore.exceptions.ClientError as error:
            raise self._s3_fault(error.response) from error
        except (botocore.exceptions.ReadTimeoutError, botocore.exceptions.ConnectTimeoutError) as error:
            raise self._silence() from error
        except (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
            botocore.exceptions.CredentialRetrievalError,
        ) as error:
            raise RefusedError(f"there are no keys to ask with ({error}). {self._how_to_set_keys()}") from error
        except (
            botocore.exceptions.HTTPClientError,
            botocore.exceptions.IncompleteReadError,
            botocore.exceptions.ConnectionError,
        ) as error:
            raise _broken(error) from error
        except botocore.exceptions.BotoCoreError as error:
            raise RefusedError(f"cannot be asked for ({type(error).__name__}: {error})") from error

    def _s3_fault(self, response: Mapping[str, Any]) -> Exception:
        code = str(response.get("Error", {}).get("Code", ""))
        about = response.get("ResponseMetadata", {})
        status = int(about.get("HTTPStatusCode", 0))
        answered = f"the server answered {status} {code if code != str(status) else ''}".rstrip()
        if status in (412, 416):
            return PassingError(f"{answered} (the file has changed)", restart=True)
        if code in _KEY_CODES or status == 401 or (status == 403 and not self.source.s3_unsigned):
            return RefusedError(f"{answered}: it does not accept the keys. {self._how_to_set_keys()}")
        if status in PASSING_STATUS or code in _PASSING_CODES:
            return PassingError(answered, retry_after_s=retry_after_s(about.get("HTTPHeaders", {}).get("retry-after")))
        advice = ". Check the address of the S3 service; a scene may also have been processed anew, under another id"
        return RefusedError(answered + (advice if status == 404 else ""))

    def _how_to_set_keys(self) -> str:
        where = f"Asked with the AWS profile {self.profile!r}"
        to_get = " (Copernicus: https://eodata-s3keysmanager.dataspace.copernicus.eu)" if self._is_copernicus() else ""
        return (
            f"{where}: put valid keys{to_get} under [{self.profile}] in ~/.aws/credentials"
            + (", or into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if self.profile == "default" else "")
            + "."
        )

    def _is_copernicus(self) -> bool:
        return "dataspace.copernicus.eu" in (self.source.s3_endpoint or "")

    def _is_amazon(self) -> bool:
        return self.source.s3_endpoint is None or "amazonaws.com" in self.source.s3_endpoint

    def _silence(self) -> PassingError:
        return PassingError(f"the server was silent for {self.source.timeout_s:g} s")

    def _session(self) -> requests.Session:
        with self._lock:
            if self._http is None:
                self._http = requests.Session()
                adapter = requests.adapters.HTTPAdapter(pool_maxsize=self.source.connections, max_retries=0)
                self._http.mount("http://", adapter)
                self._http.mount("https://", adapter)
            return self._http

    def _client(self) -> Any:
        with self._lock:
            if self._s3 is None:
                self._s3 = self._new_client()
            return self._s3

    def _new_client(self) -> Any:
        source = self.source
        try:
            # A profile that is named beats keys in the environment; "default" leaves the choice to boto3.
            core = botocore.session.Session(profile=None if self.profile == "default" else self.profile)
            core.register_component("data_loader", _descriptions(core.get_config_variable("data_path")))
            if source.s3_unsigned or not self._is_amazon():
                # Keys of a machine at Amazon are no use elsewhere, and off it looking for them takes seconds a scene.
                core.get_component("credential_provider").remove("iam-role")
            session = boto3.Session(botocore_session=core)
        except botocore.exceptions.ProfileNotFound as error:
            raise ConfigError(
                f"there is no AWS profile {self.profile!r}; put keys under [{self.profile}] in ~/.aws/credentials, "
                "or name another profile"
            ) from error

        def client(addressing: str) -> Any:
            config = Config(
                signature_version=UNSIGNED if source.s3_unsigned else None,
                connect_timeout=source.timeout_s,
                read_timeout=source.timeout_s,
                max_pool_connections=source.connections,
                # `transfers` tries again, so that it knows of each failure.
                retries={"total_max_attempts": 1, "mode": "standard"},
                s3={"addressing_style": addressing},
                response_checksum_validation="when_required",
            )
            return session.client("s3", endpoint_url=source.s3_endpoint, region_name=source.s3_region, config=config)

        if not self._is_amazon():
            return client("path")
        made = client("auto")
        # The environment or the profile may have named another service.
        return made if "amazonaws.com" in made.meta.endpoint_url else client("path")


@functools.cache
def _descriptions(folders: str | None) -> Any:
    """Return what reads the descriptions of services, which are large: once a process, not once a client."""
    return botocore.loaders.create_loader(folders)


def shown(href: str) -> str:
    """Return an address as it may stand in a message: without user, password and query, which can hold secrets."""
    parts = urllib.parse.urlsplit(href)
    if parts.scheme not in ("http", "https"):
        return href
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    answered = f"the server answered {status} {response.reason or ''}".rstrip()
    if status in (412, 416):
        raise PassingError(f"{answered} (the file has changed)", restart=True)
    if status in PASSING_STATUS:
        raise PassingError(answered, retry_after_s=retry_after_s(response.headers.get("Retry-After")))
    if status not in (200, 206):
        raise RefusedError(f"{answered}: it wants permission that we have not" if status in (401, 403) else answered)


def _broken(error: Exception) -> PassingError:
    return PassingError(f"the connection broke ({innermost(error)[1]})")


def innermost(error: Exception) -> tuple[BaseException, str]:
    """Return the error that a failed request goes back to, and its name for a message.

    The text of the outer error holds the whole address with its query.
    """
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return cause, getattr(cause, "strerror", None) or type(cause).__name__


def _range_start(content_range: str | None) -> int:
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match[1]) if match else 0


def _whole_size(content_range: str | None, content_length: Any) -> int | None:
    """Return the bytes of the whole file, by the range that the reply is, else by its length."""
    if content_range is not None:
        match = re.search(r"/(\d+)$", content_range.strip())
        return int(match[1]) if match else None
    return int(content_length) if str(content_length).isdecimal() else None
