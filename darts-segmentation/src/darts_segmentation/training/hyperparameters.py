"""Which hyperparameters are tried: a table of distributions, and options made from what was drawn."""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from darts_segmentation.training.fit_options import FitOptions
from darts_utils.errors import ConfigError

if TYPE_CHECKING:
    import optuna

Kind = Literal["uniform", "loguniform", "reversed_loguniform", "intuniform", "choice", "constant"]

TABLE = "hyperparameters"
FIXED = ("datasets", "start_from", "loggers", "device", "card")
"""Options that are the same in all trials."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What one hyperparameter is drawn from."""

    kind: Kind
    low: float = 0.0
    high: float = 0.0
    """Limits of the uniform ones, both included. reversed_loguniform draws 1 - x loguniformly, for shares near 1."""
    choices: tuple[Any, ...] = ()
    """Values of a choice, or the one of a constant."""

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Any:
        """Return a value for a trial."""
        if self.kind == "constant":
            return self.choices[0]
        if self.kind == "choice":
            # Lists and tables are no values of Optuna's: it chooses among their numbers.
            return self.choices[trial.suggest_categorical(name, list(range(len(self.choices))))]
        if self.kind == "intuniform":
            return trial.suggest_int(name, int(self.low), int(self.high))
        if self.kind == "reversed_loguniform":
            return 1 - trial.suggest_float(name, 1 - self.high, 1 - self.low, log=True)
        return trial.suggest_float(name, self.low, self.high, log=self.kind == "loguniform")


def read_hyperparameters(file: Path) -> dict[str, Distribution]:
    """Return the distributions in the table `hyperparameters` of a TOML file, by option.

    An entry is a table with `distribution` (uniform, loguniform, reversed_loguniform, intuniform, choice, constant)
    and its `low` and `high`, `choices` or `value`; or, for short, a list (choice), `low` and `high` alone (uniform, of
    whole numbers intuniform), or a value (constant). Options within options are named by tables: `losses.focal`.

    Raises:
        ConfigError: the file cannot be read, an option is unknown or may not change, or an entry cannot be.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"hyperparameters {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"hyperparameters {file} is no TOML: {error}") from error
    table = content.get(TABLE)
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(f"{file} has no table [{TABLE}], or an empty one; name options and what to draw them from")
    known = {each.name for each in dataclasses.fields(FitOptions)} - set(FIXED)
    found: dict[str, Distribution] = {}
    for key, value in table.items():
        option = key.replace("-", "_")
        if option not in known:
            near = difflib.get_close_matches(option, sorted(known), n=1)
            raise ConfigError(
                f"{file}: {key} is no option that can be tuned{f'; did you mean {near[0]}?' if near else '.'} "
                f"`darts train fit --help` lists them, and {', '.join(FIXED)} stay the same"
            )
        for name, entry in _entries(option, value):
            found[name] = _distribution(entry, f"{file}: {name}")
    return found


def with_values(options: FitOptions, values: Mapping[str, Any]) -> FitOptions:
    """Return options with some of them replaced; a name with dots is an entry of a table.

    Raises:
        ConfigError: a value cannot be.
    """
    changed: dict[str, Any] = {}
    for name, value in values.items():
        option, *path = name.split(".")
        if not path:
            changed[option] = value
            continue
        place = changed[option] = _copied(changed.get(option, getattr(options, option)))
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return dataclasses.replace(options, **changed)


def _copied(table: Any) -> Any:
    return {key: _copied(value) for key, value in table.items()} if isinstance(table, Mapping) else table


def _entries(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield entries by name; a table that is no distribution holds further ones."""
    if isinstance(value, Mapping) and not {"distribution", "low", "high"} & value.keys():
        for key, inner in value.items():
            yield from _entries(f"{name}.{key}", inner)
    else:
        yield name, value


def _distribution(entry: Any, where: str) -> Distribution:
    if isinstance(entry, list):
        entry = {"distribution": "choice", "choices": entry}
    if not isinstance(entry, Mapping):
        return Distribution(kind="constant", choices=(entry,))
    limits: list[Any] = [entry.get(name) for name in ("low", "high")]
    whole = all(isinstance(limit, int) and not isinstance(limit, bool) for limit in limits)
    kind = entry.get("distribution", "intuniform" if whole else "uniform")
    if kind not in get_args(Kind):
        raise ConfigError(f"{where}: distribution must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if kind in ("choice", "constant"):
        choices = entry.get("choices") if kind == "choice" else [entry.get("value")]
        if not isinstance(choices, list) or not choices or choices == [None]:
            raise ConfigError(f"{where}: {kind} needs {'choices, a list' if kind == 'choice' else 'a value'}")
        return Distribution(kind=kind, choices=tuple(choices))
    low, high = limits
    numbers = all(
        isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit) for limit in limits
    )
    if not numbers or not low < high:
        raise ConfigError(f"{where}: {kind} needs the numbers low and high, low < high, got {low!r} and {high!r}")
    if (kind == "loguniform" and low <= 0) or (kind == "reversed_loguniform" and high >= 1):
        raise ConfigError(f"{where}: {kind} needs {'low above 0' if kind == 'loguniform' else 'high below 1'}")
    if kind == "intuniform" and not whole:
        raise ConfigError(f"{where}: intuniform needs whole numbers, got {low!r} and {high!r}")
    return Distribution(kind=kind, low=low, high=high)
