"""Commands that are part of the design, and that this version says it does not have."""

from typing import Annotated

from cyclopts import Parameter

from darts_utils.errors import NotBuiltError

Anything = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]


def train(*tokens: Anything) -> None:
    """Train models (not built yet)."""
    raise NotBuiltError("train is not built yet in this version")
