"""When a request that failed is sent again: which failures may pass, and how long to wait."""

import email.utils
import math
import random
from datetime import UTC, datetime

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status codes of failures that may pass."""
MAX_RETRY_AFTER_S = 600.0
"""A server that asks for a longer wait is taken at its word that now is no time to ask."""


def backoff_s(failures: int, first_s: float, longest_s: float) -> float:
    """Return how long to wait after so many failures: doubled each time, and up to half of it less, by chance.

    Clients that failed together do not ask again together.
    """
    return min(first_s * 2.0 ** min(failures - 1, 100), longest_s) * random.uniform(0.5, 1)


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds that a header `Retry-After` asks for, given as such or as a date; None where it is no time."""
    text = (header or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
