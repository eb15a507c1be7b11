"""The records of a run, in its output folder, named by start time."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from darts.records.ledger import Outcome
from darts.timings import Timings
from darts_utils.errors import StoreError
from darts_utils.store import replacing

RESULT_COLUMNS = ["tile_id", "output_path", "status", "error"]


class RunRecords:
    """Writes the resolved configuration, results and timings of one run; each file is whole at any moment."""

    def __init__(self, folder: Path, *, started: datetime | None = None, label: str = "") -> None:
        self.folder = folder
        self.stem = self._free_stem(started or datetime.now(UTC), label)

    def write_config(self, command: tuple[str, ...], options: Mapping[str, Any]) -> Path:
        """Write the resolved options as a configuration file that the same command can read again.

        Raises:
            StoreError: it cannot be written.
        """
        table = _table(options)
        for key in reversed(("darts", *command)):
            table = {key: table}
        with self._replacing("config.toml") as temporary:
            temporary.write_text(tomli_w.dumps(table, multiline_strings=False))
        return self._target("config.toml")

    def write_results(self, outcomes: Iterable[Outcome], timings: Timings) -> None:
        """Write what became of the tiles so far, and the seconds it took.

        Raises:
            StoreError: a table cannot be written.
        """
        rows = [dataclasses.asdict(outcome) for outcome in outcomes]
        self._write("results", pd.DataFrame(rows, columns=RESULT_COLUMNS).astype("string"))
        self._write("timer", timings.by_step())
        self._write("stopwatch", timings.by_function())

    def _write(self, name: str, table: pd.DataFrame) -> None:
        with self._replacing(f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)

    @contextmanager
    def _replacing(self, suffix: str) -> Iterator[Path]:
        target = self._target(suffix)
        try:
            with replacing(target) as temporary:
                yield temporary
        except StoreError:
            raise
        except OSError as error:
            raise StoreError(
                f"cannot write {target}: {error.strerror or error}. Tiles that are complete stay so; make room or "
                "choose another folder, and run again"
            ) from error

    def _target(self, suffix: str) -> Path:
        return self.folder / f"{self.stem}.{suffix}"

    def _free_stem(self, started: datetime, label: str) -> str:
        stem = started.strftime("%Y-%m-%dT%H-%M-%SZ") + (f"-{label}" if label else "")
        number = 2
        free = stem
        while any(self.folder.glob(f"{free}.*")):
            free, number = f"{stem}-{number}", number + 1
        return free


def _plain(value: Any) -> Any:
    """Return a value as TOML can hold it; None where it is not set."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _table({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}) or None
    return value


def _table(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): plain for key, value in options.items() if (plain := _plain(value)) is not None}
