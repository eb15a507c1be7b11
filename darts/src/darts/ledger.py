"""The ledger: an append-only record of what happened to every tile, in the output folder."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

LEDGER_NAME = "darts-ledger.jsonl"

State = Literal["success", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one tile in one run."""

    tile_id: str
    output_path: str
    status: State
    error: str = ""
    """Class and message of the error of a failed tile."""
    run: str = ""
    """Start time of the run, the stem of its records."""
    finished: str = ""
    """Time of the outcome, ISO 8601 UTC."""
    options: str = ""
    """Hash of the options and model checksums that shape results."""
    version: str = ""
    """Version of darts."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by step."""


class Ledger:
    """Appends outcomes to a file, each on disk before the next tile starts, and reads them back."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER_NAME

    def append(self, outcome: Outcome) -> None:
        """Add one outcome; it is on disk when this returns."""
        line = json.dumps(asdict(outcome), ensure_ascii=False).encode()
        with self.path.open("ab+") as file:
            # A writer that was killed may have left half a line: end it, so that this one stands alone.
            if file.tell() and not self._ends_with_newline(file.fileno(), file.tell()):
                line = b"\n" + line
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def outcomes(self) -> Iterator[Outcome]:
        """Yield all outcomes, oldest first; lines that were torn by a kill are passed over."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().splitlines():
            try:
                yield Outcome(**json.loads(line))
            except (ValueError, TypeError):
                continue

    def last_options(self) -> dict[str, str]:
        """Return for each tile id the options hash of its last success."""
        return {outcome.tile_id: outcome.options for outcome in self.outcomes() if outcome.status == "success"}

    @staticmethod
    def _ends_with_newline(descriptor: int, size: int) -> bool:
        return os.pread(descriptor, 1, size - 1) == b"\n"
