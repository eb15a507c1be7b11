"""Commands that are part of the design, and that this version says it does not have."""

from typing import Annotated

from cyclopts import Parameter

from darts_utils.errors import NotBuiltError

Anything = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]


def status(*tokens: Anything) -> None:
    """Read an output folder's ledger (not built yet)."""
    raise NotBuiltError("status is not built yet in this version; see *.results.parquet in the output folder")


def verify(*tokens: Anything) -> None:
    """Check an output folder's files (not built yet)."""
    raise NotBuiltError("verify is not built yet in this version; running again makes incomplete tiles anew")


def train(*tokens: Anything) -> None:
    """Train models (not built yet)."""
    raise NotBuiltError("train is not built yet in this version")
