"""The configuration file: TOML, table `[darts]`, a sub-table per command path.

Options that belong together are a table of their own (`[darts.stac]`), on the command line `--stac.endpoint` and so on.

A key in a command's own sub-table (`[darts.run.sentinel2]`) must be one of its parameters. A key in `[darts]` or in a
table on the way is shared by the commands below it: one that the command at hand does not know is passed over when
another command knows it, and named in a warning when none does.
"""

import logging
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.argument import update_argument_collection

from darts_utils.errors import ConfigError
from darts_utils.quoting import likely, listed, shown

logger = logging.getLogger("darts.config")

DEFAULT_CONFIG = Path("config.toml")
MOST = (1 << 63) - 1
"""The largest whole number of TOML."""


class ConfigFile:
    """A configuration source for cyclopts; what the command line gives stays, what nobody gives keeps its default.

    Args:
        path: the file, as messages name it.
        table: its table `[darts]`.
        elsewhere: gives the options of the other commands; asked only where the command at hand does not know a key.
        typed_only: gives the options that no file can give.
    """

    def __init__(
        self,
        path: Path,
        table: Mapping[str, Any],
        elsewhere: Callable[[], Iterable[str]] = tuple,
        typed_only: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.path = path
        self.table = table
        self.elsewhere = elsewhere
        self.typed_only = typed_only

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Fill the arguments of the command at hand, the most specific table first."""
        names = {name.removeprefix("--") for argument in arguments for name in argument.names if name.startswith("--")}
        for depth in range(len(commands), -1, -1):
            path = commands[:depth]
            values = self._values(path, names)
            where = ".".join(("darts", *path))
            if unknown := sorted(set(values) - names):
                if depth == len(commands):
                    raise ConfigError(
                        f"{self.path}: unknown key {unknown[0]!r} in [{where}]{_nearest(unknown[0], names)}"
                    )
                self._warn(unknown, names, where)
            chosen = {key: value for key, value in values.items() if key in names}
            update_argument_collection(
                chosen, f"{self.path} [{where}]", arguments, app.app_stack.stack[-1], root_keys=(), allow_unknown=False
            )

    def _values(self, path: tuple[str, ...], names: set[str]) -> dict[str, Any]:
        """Return the keys of a table, without the tables of commands below it.

        A table that groups options of the command (`stac`, with `stac.endpoint` …) is given as a whole.
        """
        table: Any = self.table
        for key in path:
            table = table.get(key, {})
            if not isinstance(table, Mapping):
                raise ConfigError(f"{self.path}: [darts.{'.'.join(path)}] must be a table, got {table!r}")
        values: dict[str, Any] = {}
        for key, value in table.items():
            is_group = any(name.startswith(f"{key}.") for name in names)
            if is_group:
                self._check_group(key, value, names, ".".join(("darts", *path)))
            if is_group or not isinstance(value, Mapping):
                values[key] = value
        return values

    def _check_group(self, group: str, table: Any, names: set[str], where: str) -> None:
        members = {name.removeprefix(f"{group}.") for name in names if name.startswith(f"{group}.")}
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"{self.path}: {group} in [{where}] must be a table [{where}.{group}] of {listed(sorted(members), 3)}; "
                f"got {shown(table)}"
            )
        for key in table:
            if key not in members:
                raise ConfigError(f"{self.path}: unknown key {key!r} in [{where}.{group}]{_nearest(key, members)}")

    def _warn(self, unknown: list[str], names: set[str], where: str) -> None:
        left, known = set(unknown), set(names)
        for name in self.elsewhere():  # each command may take a while to load
            known.add(name)
            left.discard(name)
            if not left:
                return
        typed_only = frozenset(self.typed_only())
        for key in sorted(left):
            if key in typed_only:
                logger.warning(
                    "%s: the key %r in [%s] does nothing; give --%s with the command", self.path, key, where, key
                )
            else:
                hint = _nearest(key, known)
                logger.warning("%s: no command knows the key %r in [%s]%s", self.path, key, where, hint)


def read_config(path: Path | None) -> tuple[Path, dict[str, Any]] | None:
    """Return the path and `[darts]` table of a configuration file; None where no file was named and none is there.

    Raises:
        ConfigError: the named file is missing, or a file is not valid TOML, has no `[darts]` table, or a value in it
            that nothing takes.
    """
    chosen = DEFAULT_CONFIG if path is None else path
    if not chosen.is_file():
        if path is None:
            return None
        raise ConfigError(f"the configuration file {path} does not exist; check --config-file")
    try:
        content = _without_dates(tomllib.loads(chosen.read_text(encoding="utf-8")))
    # Besides errors of its own, the parser fails at numbers of thousands of digits, and at lists nested as deeply.
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{chosen} is not valid TOML: {error}; correct it, or name another --config-file") from error
    except OSError as error:
        raise ConfigError(f"the configuration file {chosen} cannot be read: {error.strerror or error}") from error
    table = content.get("darts")
    if not isinstance(table, dict):
        if path is None:
            return None  # some other program's config.toml in the working directory
        raise ConfigError(f"{chosen} has no table [darts]; put the keys below a line [darts]")
    for key, value in table.items():
        if flaw := _flaw(value):
            raise ConfigError(f"{chosen}: the value of {shown(key)} in [darts] {flaw}; give another one")
    return chosen, table


def _flaw(value: Any) -> str | None:
    """Return why no option takes a value of TOML, where that is so."""
    if isinstance(value, Mapping | list):
        inner = value.values() if isinstance(value, Mapping) else value
        return next(filter(None, map(_flaw, inner)), None)
    if isinstance(value, str) and "\0" in value:
        return "holds a NUL"
    if isinstance(value, int) and not -MOST <= value <= MOST:  # Python refuses to write those of thousands of digits
        return "is a whole number of more than 64 bits"
    return None


def _without_dates(value: Any) -> Any:
    """Return a value of TOML with dates and times as texts, as the command line gives them."""
    if isinstance(value, dict):
        return {key: _without_dates(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_dates(inner) for inner in value]
    return value.isoformat() if isinstance(value, date | time) else value


def _nearest(key: str, names: Iterable[str]) -> str:
    return likely(key, sorted(names), cutoff=0.5)
