"""What is shown of a run in tests: outcomes of tiles, a clock that is set by hand, and text made to break a display."""

from typing import Any

from darts.records.ledger import Outcome

HOSTILE = "[bold red]a[/bold red] [link=x]\x1b[2J\n{b} %s <i> \udc80"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def outcome(tile_id: str = "a", status: str = "success", **fields: Any) -> Outcome:
    return Outcome(tile_id=tile_id, output_path=f"out/{tile_id}", status=status, **fields)  # type: ignore[arg-type]


def failed(tile_id: str = "a", error: str = "MissingDataError: no DEM", **fields: Any) -> Outcome:
    return outcome(tile_id, "failed", error=error, cause=error.partition(":")[0], **fields)
