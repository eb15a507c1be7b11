"""Training from options to checkpoints: `fit` begins, or goes on where a killed training was."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from darts_segmentation.training.fit_options import FitOptions
from darts_segmentation.training.fit_plan import FitPlan, plan_fit
from darts_segmentation.training.fit_results import Results
from darts_segmentation.training.network_task import SegmentationTask, StoppedError
from darts_segmentation.training.run_folder import FitState, RunFolder
from darts_segmentation.training.trainers import epoch_loggers, log_epoch, make_trainer, quiet, settled
from darts_utils.errors import ConfigError
from darts_utils.stopping import stopping_on_signals
from darts_utils.store import held

__all__ = ["FitOptions", "fit"]

logger = logging.getLogger("darts.training")

STOPPING = "stopping after this step; once more stops now"

AfterEpoch = Callable[[int, Mapping[str, float]], None]
"""Told the number of an epoch, counted from 1, and its scores; what it raises ends the training."""


def fit(
    options: FitOptions,
    run_dir: Path,
    *,
    splits: Mapping[str, Sequence[int]] | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Path:
    """Return the best checkpoint of a training, in `run_dir`; called again, it goes on where it was, or is done.

    The folder gets `fit.toml`, `splits.json`, `state.ckpt`, `metrics.csv`, `tensorboard/`, `best.pt` and, in the end,
    `last.pt`. Both checkpoints hold averaged weights. On one CPU, with as many threads, the same options and data give
    the same weights to the last bit, however often the training was killed and taken up.

    An interrupt (SIGINT or SIGTERM) ends it after the step; the state of the last whole epoch stays.

    Args:
        options: what to train, and how.
        run_dir: folder of the training.
        splits: the patches of "train" and "val" (by their place in the datasets, one after the other), in place of
            those that the options make.
        after_epoch: told of each epoch.

    Raises:
        ConfigError: an option cannot work, does not fit the data, or is not what the training here began with; or the
            loss is no longer a number.
        MissingDataError, StoreError, CheckpointError: data or weights are not there, or are damaged.
        KeyboardInterrupt: it was interrupted.
    """
    run = RunFolder.of(Path(run_dir))
    with held(run.folder) as alone:
        if not alone:
            raise ConfigError(f"{run.folder} is being trained in by another process; wait for it, or choose another")
        return _fit(options, run, splits, after_epoch)


def _fit(
    options: FitOptions, run: RunFolder, splits: Mapping[str, Sequence[int]] | None, after_epoch: AfterEpoch | None
) -> Path:
    plan = plan_fit(options, splits)
    run.begin(plan.table(), plan.samples_by_split())
    results = Results(
        run, plan.design, plan.card(), patch_size=plan.crop_size or plan.patches.form.patch_size,
        has_metrics="csv" in options.loggers,
    )  # fmt: skip
    state = run.read_state()
    if state is not None:
        results.restore(state)
        if state.is_done:
            logger.info("%s is done: %d epochs, the best was %d", run.folder, state.epoch, state.best_epoch)
            return run.best
        logger.info("%s goes on after epoch %d", run.folder, state.epoch)
    with settled(plan.device, options.threads), quiet(), stopping_on_signals(STOPPING) as stop:
        task = SegmentationTask(
            plan.network, plan.loss, total_steps=options.epochs * plan.sampler.steps,
            learning_rate=options.learning_rate, weight_decay=options.weight_decay, schedule=options.schedule,
            warmup=options.warmup, ema=options.ema, seed=options.seed, is_stopped=lambda: stop.asked,
        )  # fmt: skip
        keeper = _Keeper(plan, results, state or FitState(), after_epoch)
        loggers = epoch_loggers(options.loggers, run.folder, keeper.state.history)
        trainer = make_trainer(
            plan.device, plan.precision, epochs=options.epochs, clip=options.clip, callbacks=[keeper], loggers=loggers,
            folder=run.folder, epochs_done=keeper.state.epoch,
        )  # fmt: skip
        keeper.restore_weights(task)
        try:
            trainer.fit(task, *plan.loaders(first_epoch=keeper.state.epoch))
        except (StoppedError, SystemExit, KeyboardInterrupt, RuntimeError) as error:
            # Lightning turns interrupts into ways to leave the program; a batch system's SIGTERM ends loaders too.
            if isinstance(error, StoppedError | KeyboardInterrupt) or stop.asked:
                logger.warning("stopped; %s goes on after epoch %d when asked again", run.folder, keeper.state.epoch)
                raise KeyboardInterrupt from None
            raise
    return run.best


class _Keeper(Callback):
    """Scores each epoch, keeps state and results, and ends the training when it is time."""

    def __init__(self, plan: FitPlan, results: Results, state: FitState, after_epoch: AfterEpoch | None) -> None:
        self.plan, self.results, self.state, self.after_epoch = plan, results, state, after_epoch
        self._began = time.monotonic()

    def restore_weights(self, task: SegmentationTask) -> None:
        """Give the task the weights of the last whole epoch."""
        if self.state.epoch:
            task.network.load_state_dict(self.state.network)
            task.averaged.load_state_dict(self.state.averaged)
            task.step = self.state.step

    def on_train_start(self, trainer: Trainer, task: Any) -> None:
        """Give the optimiser its state back."""
        if self.state.epoch:
            trainer.optimizers[0].load_state_dict(self.state.optimizer)
            trainer.strategy.precision_plugin.load_state_dict(self.state.precision)

    def on_train_epoch_start(self, trainer: Trainer, task: Any) -> None:
        """Note the time."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, task: Any) -> None:
        """Score the epoch and keep the state.

        Raises:
            ConfigError: the loss is no longer a number.
        """
        options, state = self.plan.options, self.state
        scores = task.epoch_scores(options.binarization_threshold)
        epoch = state.epoch + 1
        if not math.isfinite(scores["train_loss"]):
            raise ConfigError(
                f"the loss of epoch {epoch} is {scores['train_loss']}: the training fell apart. Choose a lower "
                f"learning_rate (now {options.learning_rate}), clip, or precision 'fp32' (now {self.plan.precision!r})"
            )
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {"epoch": epoch, "step": task.step, "learning_rate": rate,
               "seconds": round(time.monotonic() - self._began, 3), **scores}  # fmt: skip
        averaged = task.averaged.state_dict()
        if _is_better(row, state, options.monitor):
            # A copy, since averages go on changing.
            state.best_epoch, state.best = epoch, {name: value.cpu().clone() for name, value in averaged.items()}
        waited = epoch - state.best_epoch
        state.epoch, state.step, state.history = epoch, task.step, [*state.history, row]
        state.network, state.averaged = task.network.state_dict(), averaged
        state.optimizer = trainer.optimizers[0].state_dict()
        state.precision = trainer.strategy.precision_plugin.state_dict()
        state.is_done = epoch >= options.epochs or (options.patience is not None and waited >= options.patience)
        self.results.keep(state)
        log_epoch(trainer.loggers, row)
        logger.info("epoch %d of %d: %s", epoch, options.epochs, _listed(scores))
        if state.is_done:
            trainer.should_stop = True
        if self.after_epoch is not None:
            self.after_epoch(epoch, row)


def _is_better(row: Mapping[str, float], state: FitState, monitor: str) -> bool:
    """Return whether an epoch is the best so far; where scores have no answer, the latest is."""
    now = row.get(monitor, math.nan)
    best = state.scores(state.best_epoch).get(monitor, math.nan) if state.best_epoch else math.nan
    if math.isnan(best):
        return True
    return now < best if monitor == "val_loss" else now > best


def _listed(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
