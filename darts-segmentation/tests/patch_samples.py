"""Small samples for tests of patch datasets, each the same whenever it is made; as a program, a writer to be killed."""

import importlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from darts_segmentation.training.patch_dataset import DatasetForm, Patch, PatchDataset, PatchWriter, Sample

FORM = DatasetForm(bands=("red", "nir", "slope"), patch_size=16, overlap=4, sensor="Sentinel-2", options={"buffer": 2})

EVENTS = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"})


def sample_of(number: int) -> Sample:
    """A sample; every fifth fails."""
    west = -130 + number * 0.1
    return Sample(
        sample_id=f"sample-{number:03d}", region=("Peel Plateau", "Banks Island")[number % 2],
        image_id=f"image-{number}", scene_id=f"scene-{number}", label_time="2022-08-01T00:00:00Z",
        acquisition_time="2022-08-03T20:00:00Z", days=2.0 + number, cover=0.5, score=None if number % 3 else 0.25,
        footprint=shapely.box(west, 70, west + 0.05, 70.02), state="failed" if number % 5 == 4 else "patches",
        reason="no scene" if number % 5 == 4 else "",
    )  # fmt: skip


def patches_of(number: int, form: DatasetForm = FORM) -> Iterator[Patch]:
    """None to four patches of random numbers with gaps."""
    rng = np.random.default_rng(number)
    west = -130 + number * 0.1
    for place in range(number % 5 if number else 4):
        x = rng.normal(0.1, 0.2, (len(form.bands), form.patch_size, form.patch_size)).astype("float32")
        y = rng.integers(0, 3, x.shape[1:]).astype("uint8")
        gap = rng.random(y.shape) < 0.1
        x[:, gap], y[gap] = np.nan, 2
        outline = shapely.box(west + 0.01 * place, 70, west + 0.01 * (place + 1), 70.01)
        yield Patch(x=x, y=y, row=0, col=12 * place, geometry=outline)


def write_samples(folder: Path, count: int) -> None:
    """Add the samples that are not there yet."""
    with PatchWriter(folder, FORM) as writer:
        for number in range(count):
            sample = sample_of(number)
            if writer.has(sample.sample_id):
                continue
            if sample.state == "failed":
                writer.note(sample)
            else:
                writer.add(sample, patches_of(number))


def check_samples(folder: Path, count: int) -> int:
    """Check that what is there is the beginning of what is to be there; return how many samples."""
    if not (folder / "samples.parquet").is_file():
        return 0
    dataset = PatchDataset.open(folder)
    number = len(dataset.samples)
    samples = [sample_of(place) for place in range(count)]
    assert dataset.samples["sample_id"].tolist() == [sample.sample_id for sample in samples[:number]]
    expected = [patch for place in range(number) if samples[place].state == "patches" for patch in patches_of(place)]
    assert len(dataset) == len(expected)
    for place, patch in enumerate(expected):
        x, y = dataset.read(place)
        np.testing.assert_array_equal(x, patch.x)
        np.testing.assert_array_equal(y, patch.y)
    return number


def die_at_event(number: int, folder: Path) -> None:
    """Let this process be killed when it is about to touch the folder for the `number`-th time."""
    left = number

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event in EVENTS or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(folder) in str(args[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def forked(act: Callable[[], Any]) -> int:
    """Start `act` in a copy of this process, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def signal_of(pid: int) -> int:
    """Wait for a process and return the signal that killed it, 0 if none did; it must not fail."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "a process failed"
    return 0


def kill_at_each_event(root: Path, count: int, stride: int) -> int:
    """Kill a writer before each (`stride`-th) touch of its folder, check, finish; return how many were killed."""
    kills = 0
    while True:
        folder = root / f"event-{kills * stride}"

        def write(folder: Path = folder, number: int = kills * stride) -> None:
            die_at_event(number, folder)
            write_samples(folder, count)

        if not signal_of(forked(write)):
            return kills
        signal_of(forked(lambda folder=folder: check_samples(folder, count)))
        signal_of(forked(lambda folder=folder: write_samples(folder, count)))
        kills += 1


def kill_at_random(folder: Path, count: int, seed: int) -> int:
    """Kill writers at random moments until one comes to the end; return how many were killed."""
    rng = random.Random(seed)
    kills = 0
    while True:
        pid = forked(lambda: write_samples(folder, count))
        # More and more time, so that the end is reached on a slow machine too.
        time.sleep(rng.uniform(0.02, 0.3 * 1.1**kills))
        os.kill(pid, signal.SIGKILL)
        if not signal_of(pid):
            return kills
        kills += 1
        signal_of(forked(lambda: check_samples(folder, count)))


if __name__ == "__main__":
    # Loaded once, not in each copy of this process; what starts threads is not used before it is copied.
    for module in ("geopandas", "pyarrow.parquet", "zarr.codecs", "geopandas.io.arrow"):
        importlib.import_module(module)
    how, place, samples, number = sys.argv[1:]
    print(globals()[how](Path(place), int(samples), int(number)))
