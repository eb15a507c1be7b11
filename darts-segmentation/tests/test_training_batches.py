"""Which patches an epoch shows, and what the network gets of them."""

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_segmentation.training.augmentation import Augmentation
from darts_segmentation.training.batches import JoinedPatches, PatchBatches, WholeBatches, in_lists, make_loader
from darts_segmentation.training.patch_dataset import DatasetForm, PatchDataset
from darts_segmentation.training.sampling import MOST_STEPS, Draw, EpochSampler
from darts_utils.bands import normalize
from darts_utils.errors import ConfigError, MissingBandError

from .training_data import BANDS, write_dataset

AUGMENTED = ["turns", "gain", "haze", "noise", "blur", "dropout"]


class Memory:
    """Patches in memory: a dataset double."""

    def __init__(self, x: np.ndarray, y: np.ndarray, bands: Sequence[str] = BANDS) -> None:
        self.x, self.y = x, y
        self.form = DatasetForm(bands=tuple(bands), patch_size=max(8, x.shape[-1]))

    def read(self, index: int, bands: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        places = [self.form.bands.index(name) for name in bands or self.form.bands]
        return self.x[index][places], self.y[index]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "first", samples=4)


def sampler(patches: int = 20, positive: int = 6, **options: object) -> EpochSampler:
    return EpochSampler(np.arange(100, 100 + patches), np.arange(patches) < positive, 4, **options)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9), steps=st.integers(1, 30), epoch=st.integers(0, 5), seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.5, 0.9, 1.0]),
)  # fmt: skip
def test_each_batch_has_its_share_of_slumps(batch: int, steps: int, epoch: int, seed: int, share: float) -> None:
    patches, positive = np.arange(30), np.arange(30) < 10
    draws = EpochSampler(patches, positive, batch, steps=steps, positive_share=share, seed=seed).draws(epoch)
    assert len(draws) == steps * batch
    assert [draw.position for draw in draws] == list(range(len(draws)))
    assert all(draw.on_slump == (draw.patch < 10) and draw.epoch == epoch for draw in draws)
    assert sum(draw.on_slump for draw in draws) == int(len(draws) * share + 1e-6)
    for start in range(0, len(draws), batch):
        assert abs(sum(draw.on_slump for draw in draws[start : start + batch]) - share * batch) < 1
    for kind in (True, False):
        counts = Counter(draw.patch for draw in draws if draw.on_slump == kind)
        # No patch comes again before all have been shown.
        whole, there = sum(counts.values()), 10 if kind else 20
        assert all(whole // there <= count <= -(-whole // there) for count in counts.values())


def test_an_epoch_is_decided_by_seed_and_number_alone() -> None:
    one, other = sampler(seed=3, positive_share=0.5), sampler(seed=3, positive_share=0.5)
    for epoch in (0, 1, 2):
        one.set_epoch(epoch)
        list(one)
    other.set_epoch(2)
    assert list(one) == list(other)
    assert [len(batch) for batch in one] == [4] * len(one)
    orders = {tuple(draw.patch for draw in sampler(seed=seed).draws(epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_an_epoch_shows_each_patch_once_unless_there_are_very_many() -> None:
    assert sorted(draw.patch for draw in sampler(patches=20).draws(0)) == list(range(100, 120))
    assert len(sampler(patches=21)) == 6
    assert len(EpochSampler(np.arange(10**5), np.ones(10**5, bool), 4)) == MOST_STEPS


def test_a_share_that_nothing_can_fill_is_refused() -> None:
    with pytest.raises(ConfigError, match="patches with slumps, and there are none"):
        sampler(positive=0, positive_share=0.5)
    with pytest.raises(ConfigError, match="patches without slumps, and there are none"):
        sampler(positive=20, positive_share=0.5)
    with pytest.raises(ConfigError, match="no patch to train on"):
        EpochSampler([], [], 4)
    assert all(draw.on_slump for draw in sampler(positive=20, positive_share=1.0).draws(0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bands_are_normalised_as_in_inference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bands, limits = ("red", "aspect", "slope"), {"slope": (0.0, 40.0)}
    x = rng.normal(0.2, 30, (3, 3, 8, 8)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0, 0, 0, 0] = np.inf
    y = rng.integers(0, 3, (3, 8, 8)).astype(np.uint8)
    chosen = ("slope", "red")
    batch = PatchBatches(Memory(x, y, bands), chosen, limits=limits)[[Draw(0, 0, 2, False), Draw(0, 1, 0, False)]]
    for slot, patch in enumerate((2, 0)):
        for place, name in enumerate(chosen):
            expected = normalize(x[patch][bands.index(name)], name, limits.get(name))
            assert np.array_equal(batch["x"][slot, place].numpy(), expected)
        assert np.array_equal(batch["y"][slot].numpy(), y[patch])
    assert batch["x"].dtype == torch.float32
    assert batch["x"].is_contiguous(memory_format=torch.channels_last)
    assert 0 <= float(batch["x"].min()) <= float(batch["x"].max()) <= 1


def test_a_patch_depends_on_its_draw_and_not_on_its_batch(folder: Path) -> None:
    patches = PatchDataset.open(folder)
    batches = PatchBatches(patches, BANDS, augmentation=Augmentation(AUGMENTED, BANDS), crop_size=32, seed=5)
    draws = EpochSampler(range(len(patches)), [True] * len(patches), 4, positive_share=1.0).draws(1)
    together = batches[draws[:4]]
    for slot, draw in enumerate(draws[:4]):
        alone = batches[[draw]]
        assert torch.equal(alone["x"][0], together["x"][slot])
        assert torch.equal(alone["y"][0], together["y"][slot])
    # The same patch is shown otherwise at another place, in another epoch, with another seed.
    first = draws[0]
    for other in (first._replace(position=7), first._replace(epoch=2)):
        assert not torch.equal(batches[[other]]["x"], batches[[first]]["x"])
    more = PatchBatches(patches, BANDS, augmentation=Augmentation(AUGMENTED, BANDS), crop_size=32, seed=6)
    assert not torch.equal(more[[first]]["x"], batches[[first]]["x"])


def test_loaders_make_the_same_batches_in_order(folder: Path) -> None:
    patches = PatchDataset.open(folder)
    batches = PatchBatches(patches, BANDS, augmentation=Augmentation(AUGMENTED, BANDS), crop_size=32)
    made = []
    for loaders in (0, 2):
        order = EpochSampler(range(len(patches)), [True] * len(patches), 4)
        loader = make_loader(batches, order, loaders=loaders)
        epochs = []
        for epoch in (0, 1):
            order.set_epoch(epoch)
            epochs.append([(batch["x"].clone(), batch["y"].clone()) for batch in loader])
        made.append([pair for epoch in epochs for pair in epoch])
    assert len(made[0]) == len(made[1]) == 6
    assert all(torch.equal(one, other) for a, b in zip(*made, strict=True) for one, other in zip(a, b, strict=True))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in made[1])


def test_crops_of_draws_that_must_show_a_slump_do(folder: Path) -> None:
    patches = PatchDataset.open(folder)
    positive = patches.metadata["positive_share"].to_numpy() > 0
    assert 0 < positive.sum() < len(positive)
    order = EpochSampler(np.arange(len(patches)), positive, 6, steps=4, positive_share=0.5)
    batches = PatchBatches(patches, BANDS, augmentation=Augmentation(["turns"], BANDS), crop_size=16)
    for draws in order:
        shown = (batches[draws]["y"] == 1).any(dim=(1, 2))
        assert all(bool(shows) for shows, draw in zip(shown, draws, strict=True) if draw.on_slump)
        assert not any(bool(shows) for shows, draw in zip(shown, draws, strict=True) if not draw.on_slump)


@pytest.mark.parametrize("side", [32, 33, 40, 63])
def test_whole_patches_are_padded_to_the_stride_and_ignored_there(side: int) -> None:
    rng = np.random.default_rng(side)
    x, y = rng.random((1, 1, side, side), np.float32), rng.integers(0, 2, (1, side, side)).astype(np.uint8)
    batch = WholeBatches(Memory(x, y, ("slope",)), ("slope",), limits={"slope": (0.0, 1.0)}, stride=32)[[0]]
    size = -(-side // 32) * 32
    assert batch["x"].shape == (1, 1, size, size)
    assert np.array_equal(batch["x"][0, 0, :side, :side].numpy(), x[0, 0])
    expected = np.pad(x[0, 0], (0, size - side), mode="reflect")
    assert np.array_equal(batch["x"][0, 0].numpy(), expected)
    assert np.array_equal(batch["y"][0, :side, :side].numpy(), y[0])
    assert (batch["y"][0, side:] == 2).all()
    assert (batch["y"][0, :, side:] == 2).all()


def test_datasets_are_joined_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    second = write_dataset(tmp_path / "second", samples=1, bands=("slope", "nir", "red"), seed=9)
    joined = JoinedPatches([folder, second])
    assert len(joined) == 12 + 3
    assert joined.bands == ("red", "nir", "slope")
    assert list(joined.metadata["patch"]) == list(range(15))
    for index, (dataset, number) in {0: (folder, 0), 11: (folder, 11), 12: (second, 0), 14: (second, 2)}.items():
        x, y = joined.read(index, ("slope", "red"))
        expected_x, expected_y = PatchDataset.open(dataset).read(number, ("slope", "red"))
        assert np.array_equal(x, expected_x, equal_nan=True)
        assert np.array_equal(y, expected_y)
        assert joined.metadata["sample_id"][index].startswith("sample-0" if dataset == folder else "sample-9")
    with pytest.raises(MissingBandError):
        joined.read(13, ("aspect",))


@pytest.mark.parametrize("form", [{"size": 32}, {"pixel_m": 3.0}, {"terrain_convention": "legacy"}])
def test_datasets_that_do_not_fit_are_not_joined(folder: Path, tmp_path: Path, form: dict[str, object]) -> None:
    other = write_dataset(tmp_path / "other", samples=1, **form)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"datasets cannot be joined: .* in .*other and"):
        JoinedPatches([folder, other])


def test_lists_have_their_size_but_the_last() -> None:
    assert in_lists(range(7), 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert in_lists([], 3) == []


def test_loaders_leave_interrupts_to_their_parent(folder: Path) -> None:
    batches = PatchBatches(PatchDataset.open(folder), BANDS)
    loader = make_loader(batches, [[Draw(0, 0, 0, False)]] * 50, loaders=1)
    batches_iter = iter(loader)
    next(batches_iter)
    (worker,) = batches_iter._workers
    os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches_iter)) == 49
    assert worker.is_alive()
    with contextlib.suppress(RuntimeError):  # torch says that a worker died, if it hears of it in time
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(60)
    worker.join(60)
    assert not worker.is_alive()
