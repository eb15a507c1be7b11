"""Lightning as it is needed here: a trainer without checkpoints of its own, its loggers, and its silence."""

import logging
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.environments import LightningEnvironment

from darts_utils.errors import ConfigError
from darts_utils.store import replacing

PRECISION_NAMES = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""What Lightning calls them; weights stay in single precision."""

CHATTER = (
    r".*does not have many workers.*",  # one loader is enough for a CPU, as the benchmark tells
    r".*number of training batches .* is smaller than the logging interval.*",  # nothing is logged by steps
    r".*module\(s\) in eval mode at the start of training.*",  # the averaged network
    r".*defined a `validation_step` but have no `val_dataloader`.*",  # told in our own words
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning's own business
)
"""Warnings of Lightning about what is meant as it is."""


def make_trainer(
    device: str,
    precision: str,
    *,
    epochs: int,
    epochs_done: int = 0,
    clip: float = 0.0,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    folder: Path | None = None,
) -> Trainer:
    """Return a trainer on one device, with `epochs_done` of its `epochs` behind it."""
    on_gpu = device != "cpu"
    trainer = Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[torch.device(device).index or 0] if on_gpu else 1,
        precision=PRECISION_NAMES[precision],  # type: ignore[arg-type]
        max_epochs=epochs,
        gradient_clip_val=clip or None,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_autolog_hparams=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # In a batch job Lightning would count tasks, and requeue the job by itself.
        plugins=[LightningEnvironment()],
    )
    done: Any = trainer.fit_loop.epoch_progress.current
    done.processed = done.completed = epochs_done
    return trainer


def epoch_loggers(
    names: Sequence[str], folder: Path, history: Sequence[Mapping[str, float]] = ()
) -> list[Logger]:  # fmt: skip
    """Return Lightning's loggers of these names, which know of the epochs in `history` and of none after those.

    Raises:
        ConfigError: one is not installed.
    """
    loggers: list[Logger] = []
    if "tensorboard" in names:
        # What it was told before does not count any more: a kill may have come between the state and its files.
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version="", purge_step=0))
        for row in history:
            log_epoch(loggers, row)
    if "wandb" in names:
        if find_spec("wandb") is None:
            raise ConfigError("loggers: 'wandb' is not installed; run `uv pip install wandb`, or leave it out")
        loggers.append(WandbLogger(name=folder.name, save_dir=folder, id=_wandb_id(folder), resume="allow"))
    return loggers


def log_epoch(loggers: Sequence[Logger], row: Mapping[str, float]) -> None:
    """Give loggers the scores of an epoch, for them to write down at once."""
    scores = {name: value for name, value in row.items() if name != "step"}
    for each in loggers:
        each.log_metrics(scores, step=int(row["step"]))
        each.save()


@contextmanager
def settled(device: str, threads: int | None) -> Iterator[None]:
    """Compute with so many threads and, on a CPU, with what gives the same bits each time; then as before.

    Random numbers of the program around are left as they are.
    """
    on_gpu = device != "cpu"
    threads_before = torch.get_num_threads()
    exact_before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled_before = memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[torch.device(device)] if on_gpu else []):
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            if not on_gpu:
                torch.use_deterministic_algorithms(True, warn_only=True)
                memory.fill_uninitialized_memory = False  # costs time, and finds others' mistakes
            yield
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(exact_before[0], warn_only=exact_before[1])
            memory.fill_uninitialized_memory = filled_before


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what Lightning says about itself; other warnings come through."""
    talkers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for message in CHATTER:
            warnings.filterwarnings("ignore", message)
        try:
            for talker in talkers:
                talker.setLevel(logging.WARNING)
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)


def _wandb_id(folder: Path) -> str:
    """Return the name of the training at W&B, the same one each time."""
    file = folder / "wandb-id.txt"
    if not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
