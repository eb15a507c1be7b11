"""Requests to Earth Engine: sent again where that helps, one clear error where it does not."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from darts_acquisition.earth_engine_source import EarthEngineSource
from darts_acquisition.retries import MAX_RETRY_AFTER_S, backoff_s, retry_after_s
from darts_utils.errors import DartsError, RemoteError

LONGEST_WAIT_S = 60.0
"""Unless the service asks for a longer one."""

T = TypeVar("T")
logger = logging.getLogger("darts.acquisition")


class BadReplyError(Exception):
    """What the service sent is not what was asked for; asking again may help."""


def ask(source: EarthEngineSource, what: str, send: Callable[[], T], *, stop: threading.Event | None = None) -> T:
    """Return what `send` returns; it is called again, after a growing wait, while it fails for a passing reason.

    Args:
        source: how often, and how long to wait.
        what: what was asked for, such as `scene …, band B2`.
        send: sends one request.
        stop: once set, nothing is sent any more, and waiting ends; the last error is then raised.

    Raises:
        RemoteError: names `what`, the cause and what to do.
    """
    stop = stop or threading.Event()
    if stop.is_set():
        raise RemoteError(f"Earth Engine, {what}: not asked for, as the download was stopped. Start it again.")
    for attempt in range(source.retries + 1):
        try:
            return send()
        except Exception as error:
            failure = _failure_of(error, source)
            if failure is None:
                raise
            if failure.passing and attempt < source.retries and not stop.is_set():
                wait_s = max(backoff_s(attempt + 1, source.retry_wait_s, LONGEST_WAIT_S), failure.retry_after_s)
                logger.info("Earth Engine, %s: %s; trying again in %.1f s", what, failure.cause, wait_s)
                if not stop.wait(wait_s):
                    continue
            tries = "" if attempt == 0 else f" ({attempt + 1} tries)"
            raise RemoteError(
                f"Earth Engine, {what}: {failure.cause}{tries}. {failure.remedy}", transient=failure.passing
            ) from error
    raise AssertionError("the loop returns or raises")


@dataclass(frozen=True)
class _Failure:
    """Why a request failed."""

    cause: str
    passing: bool
    remedy: str = "Try again later."
    retry_after_s: float = 0


_LOGIN = "Run `earthengine authenticate` again, or renew the key of the service account."


def _failure_of(error: Exception, source: EarthEngineSource) -> _Failure | None:
    """Return what a failed request means; None: it is no failure of a request."""
    import ee
    import requests
    from google.auth.exceptions import GoogleAuthError, TransportError
    from googleapiclient.errors import Error, HttpError

    if isinstance(error, DartsError):
        return None
    # The client turns HttpError into an exception of its own, which knows only the message.
    answer = error if isinstance(error, HttpError) else error.__context__
    if isinstance(error, ee.EEException | HttpError) and isinstance(answer, HttpError):
        return _failure_of_status(answer, str(error) if isinstance(error, ee.EEException) else answer.reason)
    if isinstance(error, ee.EEException):
        return _Failure(str(error), passing=False, remedy="Check what was asked for.")
    if isinstance(error, BadReplyError | Error):
        return _Failure(f"the service sent something wrong: {error}", passing=True)
    if isinstance(error, TransportError):
        return _Failure("the login service cannot be reached", passing=True)
    if isinstance(error, GoogleAuthError):
        return _Failure("the credentials are not, or no longer, accepted", passing=False, remedy=_LOGIN)
    if isinstance(error, requests.RequestException | ConnectionError | TimeoutError):
        # A stall within the body comes as a ConnectionError.
        if isinstance(error, requests.Timeout | TimeoutError) or "timed out" in str(error).lower():
            return _Failure(f"no answer within {source.timeout_s:g} s", passing=True)
        return _Failure(f"the connection failed or broke off ({_innermost(error)})", passing=True)
    return None


def _failure_of_status(error: Any, message: str) -> _Failure:
    status = int(error.resp.status)
    cause = f"{message.strip().rstrip('.')} (HTTP {status})"
    if status in (408, 429) or status >= 500:
        wait_s = retry_after_s(error.resp.get("retry-after")) or 0
        if wait_s > MAX_RETRY_AFTER_S:
            return _Failure(f"{cause}, asks to wait for {wait_s:.0f} s", passing=False, remedy="Try again then.")
        return _Failure(cause, passing=True, retry_after_s=wait_s)
    remedies = {
        401: _LOGIN,
        403: "Check that the project may use Earth Engine and that your account may read the asset.",
        404: "Check the id; or your account may not see it.",
    }
    return _Failure(cause, passing=False, remedy=remedies.get(status, "Check what was asked for."))


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
