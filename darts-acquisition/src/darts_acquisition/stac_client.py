"""A STAC API as a search sees it: retried, within our rate, page by page."""

import json
import logging
import re
import time
import urllib.parse
import warnings
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import pystac.errors
import requests
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import NoConformsTo

from darts_acquisition.rate_limit import RateLimit, shared_limit
from darts_acquisition.retries import PASSING_STATUS, backoff_s, retry_after_s
from darts_acquisition.stac_sources import StacSource
from darts_utils.errors import RemoteError
from darts_utils.json_text import parse_json

logger = logging.getLogger("darts.acquisition")

BACKOFF_S = 0.5
"""Wait before the second try; doubled with each further one."""
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
"""A server may ask for so much patience at most."""
MOST_EMPTY_PAGES = 100
MOST_ITEMS = 1 << 40
"""No server has so many, whatever it says."""
MOST_REDIRECTS = 5

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s'\"<>]*=[^\s'\"<>]*")
_PASSING_FAILURES = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)

NO_STAC = (
    pystac.errors.STACError, pystac.errors.STACTypeError, KeyError, TypeError, ValueError, AttributeError,
)  # fmt: skip
"""What pystac raises of JSON that is not as it should be."""

Page = list[dict[str, Any]]


class RequestRefusedError(RemoteError):
    """A server answered a request with a status that trying again does not change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["RequestRefusedError"], tuple[str, int]]:
        return type(self), (str(self), self.status)  # it travels between processes


class StacApi:
    """A STAC API, opened."""

    def __init__(self, source: StacSource) -> None:
        """Read the landing page.

        Raises:
            RemoteError: the server cannot be reached, or is no STAC API.
        """
        self.source = source
        self._io = _RetryingIO(source)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoConformsTo)
                client = Client.open(source.endpoint, stac_io=self._io, timeout=source.timeout_s)
            link = client.get_search_link()
            address = "search" if link is None else str(link.get_href(transform_href=False))
            self._search = urllib.parse.urljoin(source.endpoint.rstrip("/") + "/", address)
            languages = [uri for uri in client.get_conforms_to() if "cql2-" in uri]
            self.can_filter = client.conforms_to(ConformanceClasses.FILTER) and (
                not languages or any(uri.endswith("cql2-json") for uri in languages)
            )
            """Whether it says that it takes filters in CQL2 JSON."""
        except (*NO_STAC, ClientTypeError) as error:
            # The text of the error holds the address, with user and query; so would the chain in a traceback.
            raise RemoteError(
                f"{source.name}: {shown_address(source.endpoint)} is not the landing page of a STAC API "
                f"({type(error).__name__}); check the endpoint"
            ) from None

    def pages(self, query: Mapping[str, Any]) -> Iterator[Page]:
        """Yield the items of each page of a search, the pages of all that fits; an item may come twice.

        Raises:
            RequestRefusedError: the server does not take this query.
            RemoteError: it failed, sent something else, fewer items than it says there are, or pages again and again.
        """
        found: set[str] = set()
        # Once more, as items may have been added or moved to another page in between.
        for _ in range(2):
            matched = yield from self._pages(query, found)
            if matched is None or len(found) >= matched:
                return
        raise RemoteError(
            f"{self.source.name}: {shown_address(self._search)} says that {matched} items match, but sent "
            f"{len(found)}. Search again later, or narrow the search (area, dates); if it stays, tell the operator."
        )

    def _pages(self, query: Mapping[str, Any], found: set[str]) -> Generator[Page, None, int | None]:
        """Yield pages and add to the ids found; return how many items the server says there are, if it does."""
        href, method, body = self._search, "POST", dict(query)
        asked: set[str] = set()
        seen: set[str] = set()
        repeated = empty = 0
        matched = None
        while True:
            asked.add(_fingerprint(href, method, body))
            reply = self._io.ask(href, method, body)
            page = self._features(reply, href)
            new = {str(feature.get("id")) for feature in page} - seen
            seen |= new
            found |= new
            matched = _matched(reply, matched)
            repeated += bool(page) and not new
            empty = 0 if page else empty + 1
            yield page
            following = self._next(reply, href, body)
            if following is None:
                return matched
            href, method, body = following
            if _fingerprint(href, method, body) in asked or repeated > 1 or empty > MOST_EMPTY_PAGES:
                raise RemoteError(
                    f"{self.source.name}: {shown_address(href)} sends the same pages again and again; "
                    f"{len(seen)} items came before. Narrow the search, or tell the operator."
                )

    def _features(self, reply: Any, href: str) -> Page:
        features = reply.get("features") if isinstance(reply, dict) else None
        if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
            raise RemoteError(f"{self.source.name}: {shown_address(href)} sent something else than a list of items")
        return features

    def _next(self, reply: dict[str, Any], href: str, body: dict[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
        links = reply.get("links") or ()
        try:
            for link in links:
                if isinstance(link, dict) and link.get("rel") == "next" and link.get("href"):
                    method = str(link.get("method", "GET")).upper()
                    address = urllib.parse.urljoin(href, link["href"])
                    if method != "POST":
                        return address, "GET", {}
                    changes = dict(link.get("body") or {})
                    return address, "POST", {**body, **changes} if link.get("merge") or not changes else changes
        except (TypeError, ValueError, AttributeError) as error:  # no list, no address, no table
            raise RemoteError(
                f"{self.source.name}: {shown_address(href)} sent a link to the next page that cannot be read "
                f"({type(error).__name__}). Narrow the search so that one page holds all, or tell the operator."
            ) from None
        return None


class _RetryingIO(StacApiIO):
    """Requests of pystac-client, each within our rate and tried again after a failure that may pass."""

    def __init__(self, source: StacSource) -> None:
        super().__init__(timeout=source.timeout_s, max_retries=None)
        self._source = source
        self._limit: RateLimit = shared_limit(source.endpoint, source.requests_per_second)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Return the body of a reply, which is JSON."""
        return json.dumps(self.ask(href, method or "GET", parameters or {}))

    def ask(self, href: str, method: str, body: Mapping[str, Any]) -> Any:
        """Return a reply's JSON.

        Raises:
            RequestRefusedError: refused for good.
            RemoteError: failed in every try.
        """
        tries = self._source.retries + 1
        for n in range(tries):
            self._limit.wait()
            wait_s = None
            try:
                response = self._send(href, method, body)
                if response.status_code in PASSING_STATUS:
                    cause = _status(response)
                    wait_s = retry_after_s(response.headers.get("Retry-After"))
                elif not response.ok:
                    raise RequestRefusedError(
                        self._failure(href, method, _status(response), n + 1), response.status_code
                    )
                else:
                    return parse_json(response.content)
            except _PASSING_FAILURES as error:
                cause = f"{_reason(error)}; check the network, and the address"
            except requests.exceptions.RequestException as error:
                raise RemoteError(self._failure(href, method, _reason(error), n + 1)) from None  # may hold the address
            except ValueError as error:
                cause = f"it did not send JSON but {without_secrets(response.text[:200])[:60]!r}"
                if "html" in response.headers.get("Content-Type", ""):
                    raise RemoteError(self._failure(href, method, cause, n + 1)) from error
            if n + 1 < tries:
                if wait_s is None:
                    wait_s = backoff_s(n + 1, BACKOFF_S, LONGEST_BACKOFF_S)
                wait_s = min(wait_s, LONGEST_RETRY_AFTER_S)
                logger.info("%s: %s; trying again in %.1f s", self._source.name, cause, wait_s)
                time.sleep(wait_s)
        raise RemoteError(self._failure(href, method, cause, tries), transient=True)

    def _send(self, href: str, method: str, body: Mapping[str, Any]) -> requests.Response:
        for _ in range(MOST_REDIRECTS):
            request = requests.Request(method, href, json=body if method == "POST" else None)
            prepared = self.session.prepare_request(request)
            settings = self.session.merge_environment_settings(prepared.url, {}, None, None, None)
            response = self.session.send(prepared, timeout=self.timeout, allow_redirects=False, **settings)
            # Left to itself, requests turns a moved POST into a GET, which would ask for everything.
            if not response.is_redirect:
                return response
            try:
                href = urllib.parse.urljoin(href, response.headers["Location"])
            except ValueError as error:
                raise requests.exceptions.InvalidURL("the server points to what is no address") from error
        raise requests.exceptions.TooManyRedirects(f"more than {MOST_REDIRECTS} redirects")

    def _failure(self, href: str, method: str, cause: str, tries: int) -> str:
        times = "" if tries == 1 else f" after {tries} tries"
        return f"{self._source.name}: {method} {shown_address(href)} failed{times}: {cause}"


def shown_address(href: str) -> str:
    """Return an address without what may be secret in it: user, password and query."""
    try:
        parts = urllib.parse.urlsplit(href)
    except ValueError:
        return "an address that cannot be read"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_secrets(text: str) -> str:
    """Return a text of somebody else's with its addresses as they may be shown."""
    return _QUERY.sub("?…", _URL.sub(lambda match: shown_address(match[0]), text))


def _matched(reply: Mapping[str, Any], before: int | None) -> int | None:
    """Return how many items a page says there are in all, under its present or its former name."""
    context = reply.get("context")
    for value in (reply.get("numberMatched"), context.get("matched") if isinstance(context, dict) else None):
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_ITEMS:
            return value
    return before


def _status(response: requests.Response) -> str:
    text = without_secrets(" ".join(response.text.split()))[:200]
    return f"HTTP {response.status_code} {response.reason or ''}".rstrip() + (f" ({text})" if text else "")


def _reason(error: Exception) -> str:
    root: BaseException = error
    while root.__context__ is not None:
        root = root.__context__
    if isinstance(error, requests.exceptions.Timeout) or isinstance(root, TimeoutError):
        return "it was silent for longer than the timeout"
    return without_secrets(str(root)) or type(root).__name__


def _fingerprint(href: str, method: str, body: Mapping[str, Any]) -> str:
    return json.dumps([href, method, body], sort_keys=True)
