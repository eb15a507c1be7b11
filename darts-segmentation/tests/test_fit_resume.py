"""A training that is killed, stopped or asked for again ends as one that ran through, bit by bit."""

import csv
import dataclasses
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from darts_segmentation import read_checkpoint
from darts_segmentation.training import fitting
from darts_segmentation.training.fitting import fit
from darts_segmentation.training.run_folder import RunFolder
from darts_segmentation.training.trainers import epoch_loggers, log_epoch
from darts_utils.errors import ConfigError, StoreError
from darts_utils.store import held

from .training_data import options_for, write_dataset

EPOCHS = 3
WRITTEN = ("best.pt", "last.pt")
DROPPING = {"architecture": "fpn", "model_arguments": {"decoder_pyramid_channels": 16,
            "decoder_segmentation_channels": 32, "decoder_dropout": 0.5}}  # fmt: skip
"""A network whose steps draw random numbers."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def options(dataset: Path) -> Any:
    return options_for(
        dataset, epochs=EPOCHS, steps_per_epoch=3, augmentations=["turns", "gain", "haze", "noise", "blur", "dropout"],
        **DROPPING,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(options: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(options, tmp_path_factory.mktemp("undisturbed") / "run").parent


@pytest.fixture(scope="module")
def stopped_after_one(options: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(options, run, after_epoch=stop_now)
    return run


@pytest.fixture
def stopped(stopped_after_one: Path, tmp_path: Path) -> Path:
    """Return the folder of a training that was stopped after its first epoch."""
    return shutil.copytree(stopped_after_one, tmp_path / "run")


def stop_now(epoch: int, row: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def changed(options: Any, **changes: Any) -> Any:
    return dataclasses.replace(options, **changes)


def contents(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in WRITTEN]


def scores(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def in_child(options: Any, run: Path) -> multiprocessing.Process:
    """Start a training in a process of its own, which ends with 130 where it is interrupted."""

    def work() -> None:
        os.setpgid(0, 0)
        logging.disable()
        try:
            fit(options, run)
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def wait_for(happened: Callable[[], bool], child: multiprocessing.Process) -> None:
    while child.is_alive() and not happened():
        time.sleep(0.002)


def epochs_done(run: Path) -> int:
    state = RunFolder(run).read_state()
    return state.epoch if state else 0


def written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def kill_and_resume(options: Any, run: Path, kills: int, seed: int) -> int:
    """Train with kills at random moments, and return how many hit."""
    moments = random.Random(seed)
    hits = 0
    for number in range(kills):
        child = in_child(options, run)
        if number % 2:  # during an epoch, or while its results are written
            before = written(run / "state.ckpt")
            wait_for(lambda before=before: written(run / "state.ckpt") != before, child)
        else:
            wait_for((run / "fit.toml").exists, child)
        time.sleep(moments.uniform(0, 0.3) ** 2 if number % 3 else moments.uniform(0, 0.6))
        child.kill()
        child.join()
        hits += child.exitcode == -signal.SIGKILL
    child = in_child(options, run)
    child.join()
    assert child.exitcode == 0
    return hits


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    options: Any, undisturbed: Path, tmp_path: Path
) -> None:
    torch.rand(3)  # what the program around draws plays no part
    np.random.default_rng().random()
    fit(options, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(undisturbed)
    assert scores(tmp_path / "again") == scores(undisturbed)
    fit(changed(options, seed=7), tmp_path / "other")
    weights = [read_checkpoint(run / "last.pt").state_dict for run in (undisturbed, tmp_path / "other")]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_loaders_change_nothing(options: Any, undisturbed: Path, tmp_path: Path) -> None:
    fit(changed(options, loaders=2), tmp_path / "run")
    assert contents(tmp_path / "run") == contents(undisturbed)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    options: Any, undisturbed: Path, tmp_path: Path
) -> None:  # fmt: skip
    run = tmp_path / "run"
    assert kill_and_resume(options, run, kills=4, seed=1) >= 2
    assert contents(run) == contents(undisturbed)
    assert scores(run) == scores(undisturbed)
    assert [row["epoch"] for row in scores(run)] == [str(number + 1) for number in range(EPOCHS)]
    left = [each.name for each in run.iterdir() if each.name.startswith(".")]
    assert not left, left


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_often_it_ends_with_the_same_bytes(options: Any, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    run = tmp_path / "run"
    more = changed(options, loaders=seed % 2)
    assert kill_and_resume(more, run, kills=8, seed=seed) >= 2
    assert contents(run) == contents(undisturbed)
    assert scores(run) == scores(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_after_the_step_and_it_goes_on(
    options: Any, undisturbed: Path, stopped: Path, number: signal.Signals
) -> None:
    before = written(stopped / "state.ckpt")
    child = in_child(options, stopped)
    wait_for(lambda: written(stopped / "state.ckpt") != before, child)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 130
    assert epochs_done(stopped) == 2 < EPOCHS
    assert not (stopped / "last.pt").exists()
    fit(options, stopped)
    assert contents(stopped) == contents(undisturbed)


def test_a_batch_system_ends_the_loaders_too(options: Any, undisturbed: Path, stopped: Path) -> None:
    before = written(stopped / "state.ckpt")
    child = in_child(changed(options, loaders=1), stopped)
    wait_for(lambda: written(stopped / "state.ckpt") != before, child)
    assert child.pid is not None
    os.killpg(child.pid, signal.SIGTERM)
    child.join(60)
    assert child.exitcode == 130
    fit(options, stopped)
    assert contents(stopped) == contents(undisturbed)


def test_an_interrupt_leaves_the_handlers_and_random_numbers_around_alone(options: Any, stopped: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        fit(options, stopped, after_epoch=stop_now)
    assert epochs_done(stopped) == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_is_raised_after_an_epoch_ends_it_there(options: Any, stopped: Path) -> None:
    class PrunedError(Exception):
        pass

    def prune(epoch: int, row: Any) -> None:
        assert epoch == 2
        assert row["val_iou"] >= 0
        raise PrunedError

    with pytest.raises(PrunedError):
        fit(options, stopped, after_epoch=prune)
    assert epochs_done(stopped) == 2
    assert [row["epoch"] for row in scores(stopped)] == ["1", "2"]


def test_a_finished_training_returns_at_once_and_writes_what_is_missing(
    options: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    (run / "last.pt").unlink()
    (run / "metrics.csv").unlink()
    (run / "best.pt").write_bytes(b"cut short")
    monkeypatch.setattr(fitting, "make_trainer", None)
    assert fit(options, run) == run / "best.pt"
    assert contents(run) == contents(undisturbed)
    assert scores(run) == scores(undisturbed)


def test_other_options_are_refused_by_name(options: Any, stopped: Path) -> None:
    before = (stopped / "state.ckpt").read_bytes()
    other = changed(options, learning_rate=1e-4, losses={"focal": 1.0})
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.005 and is 0\.0001") as error:
        fit(other, stopped)
    assert "losses was" in str(error.value)
    assert "epochs was" not in str(error.value)
    assert (stopped / "state.ckpt").read_bytes() == before


def test_device_loaders_threads_and_loggers_may_change(options: Any, undisturbed: Path, stopped: Path) -> None:
    other = changed(options, loaders=1, threads=1, device="auto", loggers=["csv", "tensorboard"], precision=None)
    if torch.cuda.is_available():
        other = changed(other, device="cpu")
    fit(other, stopped)
    assert contents(stopped) == contents(undisturbed)
    # TensorBoard hears of the epoch before the stop too, and of each epoch once.
    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    shown = [(event.step, f"{event.value:.4f}") for event in events.Scalars("val_loss")]
    assert shown == [(int(row["step"]), f"{float(row['val_loss']):.4f}") for row in scores(stopped)]


def test_tensorboard_forgets_what_a_kill_left_undone(tmp_path: Path) -> None:
    rows = [{"step": float(step), "epoch": step / 3, "train_loss": 1 / step} for step in (3, 6, 9)]
    for known in (rows[:2], rows[:1]):
        loggers = epoch_loggers(["tensorboard"], tmp_path, known)
    log_epoch(loggers, rows[1] | {"train_loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [
        (3, pytest.approx(1 / 3)),
        (6, 0.5),
    ]


def test_a_dataset_that_grew_is_refused(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", samples=5, patches=2)
    options = options_for(data, epochs=2, steps_per_epoch=2)
    with pytest.raises(KeyboardInterrupt):
        fit(options, tmp_path / "run", after_epoch=stop_now)
    write_dataset(tmp_path / "data", samples=2, patches=2, seed=1)
    with pytest.raises(ConfigError, match="datasets or splits have changed"):
        fit(options, tmp_path / "run")


def test_damaged_files_are_named(options: Any, stopped: Path) -> None:
    state = stopped / "state.ckpt"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"state\.ckpt cannot be read"):
        fit(options, stopped)
    state.write_bytes(whole)
    (stopped / "splits.json").unlink()
    with pytest.raises(StoreError, match="files are damaged"):
        fit(options, stopped)


def test_two_trainings_never_share_a_folder(options: Any, tmp_path: Path) -> None:
    with held(tmp_path / "run") as alone:
        assert alone
        with pytest.raises(ConfigError, match="another process"):
            fit(options, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        fit(options, tmp_path / "other")


def test_waiting_for_a_better_epoch_goes_on_across_a_stop(dataset: Path, tmp_path: Path) -> None:
    """A learning rate near 0 never gets better, so the training ends an epoch after the best."""
    options = options_for(dataset, epochs=6, steps_per_epoch=1, learning_rate=1e-12, ema=0.0, patience=1, warmup=0.0)
    fit(options, tmp_path / "through")
    through = scores(tmp_path / "through")
    best = read_checkpoint(tmp_path / "through" / "best.pt").card["epoch"]
    assert len(through) == best + 1 < 6
    for _ in range(len(through) - 1):
        with pytest.raises(KeyboardInterrupt):
            fit(options, tmp_path / "stopped", after_epoch=stop_now)
    fit(options, tmp_path / "stopped")
    assert scores(tmp_path / "stopped") == through
    assert contents(tmp_path / "stopped") == contents(tmp_path / "through")


def test_the_splits_of_the_run_are_written_down(undisturbed: Path) -> None:
    splits = json.loads((undisturbed / "splits.json").read_text())
    names = [set(split["samples"]) for split in splits.values()]
    assert splits["train"]["patches"] + splits["val"]["patches"] == 24
    assert len(set.union(*names)) == 8
    assert not set.intersection(*names)
