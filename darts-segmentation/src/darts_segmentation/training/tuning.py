"""The search for good hyperparameters: trials that are kept, and survive a kill."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from darts_segmentation.training.fit_options import FitOptions
from darts_segmentation.training.hyperparameters import Distribution, read_hyperparameters, with_values
from darts_utils.errors import ConfigError, DartsError
from darts_utils.numbers import whole_number
from darts_utils.store import replacing

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger("darts.training")

STORAGE, PLAN, BEST = "trials.db", "tune.json", "best.json"
Sampler = Literal["tpe", "random", "grid"]
Pruner = Literal["median", "none"]
FOLDER = "folder"
"""Attribute of a trial: its folder, where another trial began with the same values and was killed."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How hyperparameters are searched for."""

    hyperparameters: Path
    """TOML file with the table [hyperparameters]: options of fit, and what their values are drawn from."""
    trials: int = 100
    """Trials in all, those of earlier calls included; a grid ends when all of it is tried."""
    sampler: Sampler = "tpe"
    """What chooses values: tpe learns from earlier trials; random; grid, of choices only."""
    pruner: Pruner = "median"
    """Whether a trial that is worse than the median of the others at the same epoch is given up."""

    def __post_init__(self) -> None:
        whole_number("trials", self.trials, 1)
        for name, known in (("sampler", get_args(Sampler)), ("pruner", get_args(Pruner))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial that is over."""

    number: int
    values: dict[str, Any]
    """What was drawn, by option."""
    score: float | None
    """Best score of its validation; None if it failed."""
    state: str
    """complete, pruned or failed."""
    folder: Path


def tune(folder: Path, options: FitOptions, search: TuneOptions) -> list[Trial]:
    """Return all trials, the best first; each is a training in a folder of its own.

    Calling again goes on: finished trials count, and a trial that was killed goes on from its last epoch. `best.json`
    holds the best values.

    Args:
        folder: of the search.
        options: of all trainings, but for what is tuned.
        search: what is tried, and how.

    Raises:
        ConfigError: an option cannot be, or the folder holds another search.
        DartsError: no trial could be made.
    """
    import optuna

    distributions = read_hyperparameters(search.hyperparameters)
    if search.sampler == "grid" and any(each.kind not in ("choice", "constant") for each in distributions.values()):
        raise ConfigError("sampler grid takes choices only; give lists of values, or take sampler tpe or random")
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, options, search, distributions)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STORAGE}",
        study_name="darts",
        load_if_exists=True,
        direction="minimize" if options.monitor.endswith("loss") else "maximize",
        sampler=_sampler(search.sampler, distributions, options.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3)
        if search.pruner == "median"
        else optuna.pruners.NopPruner(),
    )
    _take_up(study)
    errors: list[str] = []

    def objective(trial: optuna.Trial) -> float:
        values = {name: each.suggest(trial, name) for name, each in distributions.items()}
        place = folder / trial.user_attrs.get(FOLDER, f"trial-{trial.number:04d}")
        logger.info("trial %d: %s", trial.number, ", ".join(f"{name} {value}" for name, value in values.items()))
        try:
            return _score(with_values(options, values), place, trial)
        except DartsError as error:  # such values cannot be trained with: the search goes on without them
            logger.warning("trial %d failed: %s", trial.number, error)
            errors.append(str(error))
            raise

    wanted = search.trials
    if search.sampler == "grid":
        wanted = min(wanted, math.prod(len(each.choices) for each in distributions.values()))
    while (left := wanted - len(_over(study))) > 0:
        logger.info("trials left: %d", left)
        study.optimize(objective, n_trials=1, catch=(DartsError,))
    trials = _told(study, folder, distributions)
    if not any(trial.score is not None for trial in trials):
        raise DartsError(f"no trial could be made: {errors[-1] if errors else 'none was tried'}")
    _write(folder / BEST, {"score": trials[0].score, "values": trials[0].values, "folder": trials[0].folder.name})
    return trials


def _score(options: FitOptions, place: Path, trial: "optuna.Trial") -> float:
    import optuna

    from darts_segmentation.training.fitting import fit
    from darts_segmentation.training.run_folder import RunFolder

    def hear(epoch: int, scores: Mapping[str, float]) -> None:
        trial.report(scores[options.monitor], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    fit(options, place, after_epoch=hear)
    state = RunFolder(place).read_state()  # also of epochs before a kill
    assert state is not None
    return state.scores(state.best_epoch)[options.monitor]


def _sampler(name: Sampler, distributions: dict[str, Distribution], seed: int) -> "optuna.samplers.BaseSampler":
    import optuna

    if name == "grid":
        grid = {
            key: list(range(len(each.choices))) for key, each in distributions.items() if each.kind == "choice"
        }  # fmt: skip
        return optuna.samplers.GridSampler(grid, seed=seed)
    return optuna.samplers.RandomSampler(seed) if name == "random" else optuna.samplers.TPESampler(seed=seed)


def _take_up(study: "optuna.Study") -> None:
    """Let trials that were killed be made again with the same values, in the same folders."""
    import optuna

    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            place = trial.user_attrs.get(FOLDER, f"trial-{trial.number:04d}")
            study.enqueue_trial(trial.params, user_attrs={FOLDER: place})


def _over(study: "optuna.Study") -> list[Any]:
    """Return trials that came to an end of their own: not those that were killed and made again."""
    import optuna

    states = optuna.trial.TrialState
    again = {trial.user_attrs.get(FOLDER) for trial in study.trials}
    return [
        trial
        for trial in study.trials
        if trial.state in (states.COMPLETE, states.PRUNED)
        or (trial.state == states.FAIL and trial.params and f"trial-{trial.number:04d}" not in again)
    ]


def _told(study: "optuna.Study", folder: Path, distributions: dict[str, Distribution]) -> list[Trial]:
    import optuna

    found = []
    for trial in _over(study):
        values = {
            name: each.suggest(optuna.trial.FixedTrial(trial.params), name) for name, each in distributions.items()
        }
        found.append(
            Trial(
                number=trial.number,
                values=values,
                score=trial.value,
                state={"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
                folder=folder / trial.user_attrs.get(FOLDER, f"trial-{trial.number:04d}"),
            )
        )
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    rank = {"complete": 0, "pruned": 1, "failed": 2}
    return sorted(found, key=lambda each: (rank[each.state], sign * (each.score or 0), each.number))


def _check_same(
    folder: Path, options: FitOptions, search: TuneOptions, distributions: dict[str, Distribution]
) -> None:  # fmt: skip
    """Check that a folder holds no other search.

    Raises:
        ConfigError: it does.
    """
    from darts_segmentation.training.fit_options import differences

    plan = {
        "options": options.as_table(),
        "sampler": search.sampler,
        "hyperparameters": {name: vars(each) for name, each in distributions.items()},
    }
    plan = json.loads(json.dumps(plan, default=str))
    file = folder / PLAN
    if not file.exists():
        _write(file, plan)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    if other := [*differences(before.pop("options"), plan.pop("options")), *differences(before, plan)]:
        raise ConfigError(f"{folder} holds another search: {'; '.join(other)}. Choose another folder")


def _write(file: Path, content: Any) -> None:
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
