"""The search goes on where it was, and gives up what is worse than others."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from darts_segmentation.training import fitting
from darts_segmentation.training.run_folder import FitState, RunFolder
from darts_segmentation.training.tuning import BEST, TuneOptions, tune
from darts_utils.errors import ConfigError, DartsError

from .training_data import options_for, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset", samples=4, patches=2)


@pytest.fixture
def search(tmp_path: Path) -> Path:
    file = tmp_path / "search.toml"
    file.write_text("[hyperparameters]\nlearning-rate = {distribution = 'loguniform', low = 1e-4, high = 1e-1}\n")
    return file


def quick(options: Any, run_dir: Path, *, splits: Any = None, after_epoch: Any = None) -> Path:
    """Stand in for a training: the score is highest at a learning rate of 0.01, and rises over three epochs."""
    run = RunFolder(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    state = FitState()
    for epoch in range(1, 4):
        score = epoch / 3 - abs(options.learning_rate - 0.01) * 10
        state.epoch = state.best_epoch = epoch
        state.history = [*state.history, {"epoch": epoch, "val_iou": score}]
        run.write_state(state)
        if after_epoch is not None:
            after_epoch(epoch, state.history[-1])
    return run.best


def test_trials_are_trainings_and_the_best_comes_first(dataset: Path, search: Path, tmp_path: Path) -> None:
    options = options_for(dataset, epochs=2, steps_per_epoch=2)
    trials = tune(tmp_path / "tuned", options, TuneOptions(hyperparameters=search, trials=2, sampler="random"))
    assert len(trials) == 2
    assert trials[0].score is not None
    assert trials[1].score is not None
    assert trials[0].score >= trials[1].score
    for trial in trials:
        state = RunFolder(trial.folder).read_state()
        assert state is not None
        assert trial.score == max(row["val_iou"] for row in state.history)
        assert f"learning_rate = {trial.values['learning_rate']!r}" in (trial.folder / "fit.toml").read_text()
    best = json.loads((tmp_path / "tuned" / BEST).read_text())
    assert best == {"score": trials[0].score, "values": trials[0].values, "folder": trials[0].folder.name}


def test_calling_again_makes_only_what_is_left(
    dataset: Path, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def counted(options: Any, run_dir: Path, **more: Any) -> Path:
        asked.append(run_dir)
        return quick(options, run_dir, **more)

    monkeypatch.setattr(fitting, "fit", counted)
    options = options_for(dataset)
    three = tune(tmp_path / "tuned", options, TuneOptions(hyperparameters=search, trials=3))
    five = tune(tmp_path / "tuned", options, TuneOptions(hyperparameters=search, trials=5))
    assert len(asked) == len(set(asked)) == 5
    assert {trial.number for trial in three} < {trial.number for trial in five}
    assert tune(tmp_path / "tuned", options, TuneOptions(hyperparameters=search, trials=5)) == five
    assert len(asked) == 5


def test_tpe_finds_a_better_rate_than_the_first_ones(
    dataset: Path, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "fit", quick)
    trials = tune(
        tmp_path / "tuned", options_for(dataset), TuneOptions(hyperparameters=search, trials=20, pruner="none")
    )
    first = [trial for trial in trials if trial.number < 8]
    assert trials[0].score is not None
    assert trials[0].score >= max(trial.score or -1 for trial in first)
    assert abs(trials[0].values["learning_rate"] - 0.01) < 0.003


def test_trials_worse_than_the_others_are_given_up(
    dataset: Path, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long(options: Any, run_dir: Path, *, after_epoch: Any = None, splits: Any = None) -> Path:
        for epoch in range(1, 9):
            after_epoch(epoch, {"val_iou": -abs(options.learning_rate - 0.01)})
        return quick(options, run_dir)

    monkeypatch.setattr(fitting, "fit", long)
    trials = tune(
        tmp_path / "tuned", options_for(dataset), TuneOptions(hyperparameters=search, trials=25, sampler="random")
    )
    assert len(trials) == 25
    assert {"complete", "pruned"} == {trial.state for trial in trials}
    assert trials[0].state == "complete"


def test_a_grid_is_tried_whole_and_no_further(
    dataset: Path, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "fit", quick)
    search.write_text('[hyperparameters]\nlearning-rate = [1e-3, 1e-2]\nschedule = ["cosine", "constant"]\n')
    trials = tune(tmp_path / "tuned", options_for(dataset), TuneOptions(hyperparameters=search, sampler="grid"))
    assert sorted((trial.values["learning_rate"], trial.values["schedule"]) for trial in trials) == [
        (1e-3, "constant"), (1e-3, "cosine"), (1e-2, "constant"), (1e-2, "cosine"),
    ]  # fmt: skip


def test_values_that_cannot_be_trained_with_fail_their_trial_alone(
    dataset: Path, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(options: Any, run_dir: Path, **more: Any) -> Path:
        if options.learning_rate < 1e-2:
            raise ConfigError("too slow")
        return quick(options, run_dir, **more)

    monkeypatch.setattr(fitting, "fit", picky)
    trials = tune(
        tmp_path / "tuned", options_for(dataset), TuneOptions(hyperparameters=search, trials=12, sampler="random")
    )
    assert {trial.state for trial in trials} == {"complete", "failed"}
    assert all((trial.values["learning_rate"] < 1e-2) == (trial.state == "failed") for trial in trials)
    monkeypatch.setattr(fitting, "fit", lambda *a, **k: (_ for _ in ()).throw(ConfigError("never")))
    with pytest.raises(DartsError, match="no trial could be made: never"):
        tune(tmp_path / "other", options_for(dataset), TuneOptions(hyperparameters=search, trials=2))


def test_another_search_in_the_folder_is_refused(
    dataset: Path, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "fit", quick)
    tune(tmp_path / "tuned", options_for(dataset), TuneOptions(hyperparameters=search, trials=1))
    with pytest.raises(ConfigError, match="another search: clip was"):
        tune(tmp_path / "tuned", options_for(dataset, clip=3.0), TuneOptions(hyperparameters=search, trials=1))
    search.write_text("[hyperparameters]\nclip = [1.0, 2.0]\n")
    with pytest.raises(ConfigError, match="another search: hyperparameters was"):
        tune(tmp_path / "tuned", options_for(dataset), TuneOptions(hyperparameters=search, trials=1))
    search.write_text("[hyperparameters]\nclip = {low = 1, high = 2}\n")
    with pytest.raises(ConfigError, match="sampler grid takes choices only"):
        tune(tmp_path / "grid", options_for(dataset), TuneOptions(hyperparameters=search, sampler="grid"))


@pytest.mark.slow  # what kills cost a training is asked in test_fit_resume
def test_a_search_that_is_killed_goes_on_with_the_same_values(dataset: Path, search: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    process = multiprocessing.get_context("fork").Process(target=_search, args=(folder, dataset, search))
    process.start()
    assert process.pid is not None
    state = folder / "trial-0000" / "state.ckpt"
    while not state.exists():
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = optuna.load_study(study_name="darts", storage=f"sqlite:///{folder / 'trials.db'}").trials
    assert before[0].state == optuna.trial.TrialState.RUNNING
    trials = tune(folder, _slow_options(dataset), TuneOptions(hyperparameters=search, trials=1))
    assert len(trials) == 1
    assert trials[0].folder == folder / "trial-0000"
    # In its folder is all of the training, that before the kill included.
    found = RunFolder(trials[0].folder).read_state()
    assert found is not None
    assert [row["epoch"] for row in found.history] == list(range(1, 13))
    assert trials[0].values == {"learning_rate": before[0].params["learning_rate"]}


def _slow_options(dataset: Path) -> Any:
    return options_for(dataset, epochs=12, steps_per_epoch=1)


def _search(folder: Path, dataset: Path, search: Path) -> None:
    tune(folder, _slow_options(dataset), TuneOptions(hyperparameters=search, trials=1))


def test_options_of_the_search_are_checked(search: Path) -> None:
    values: list[Mapping[str, Any]] = [{"trials": 0}, {"trials": 2.5}, {"sampler": "genetic"}, {"pruner": "x"}]
    for wrong in values:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TuneOptions(hyperparameters=search, **wrong)
