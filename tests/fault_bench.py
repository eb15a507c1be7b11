"""A bench for faults: runs commands on a few small tiles, and knows how undisturbed ones end."""

import hashlib
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch

from darts.records.ledger import Outcome, RunStart, made, read_ledgers
from darts_segmentation import save_checkpoint
from tests.conftest import OPTICAL, TINY, Sample, write_small_scene
from tests.fork_server import ForkServer, Job, Process

TILES = ("t0", "t1", "t4")  # the last is the one of the second share of two
FILES = 4
TERRAIN = ("ndvi", "slope", "aspect", "relative_elevation", "hillshade", "curvature")
TRENDS = ("tc_brightness", "tc_greenness", "tc_wetness")

Hashes = dict[str, str]


@dataclass
class Bench:
    """Runs commands on the tiles, and knows how undisturbed ones end."""

    server: ForkServer
    sample: Sample
    folder: Path
    expected: Hashes = field(default_factory=dict)
    """Hashes of all files of all tiles, made one after the other."""
    operations: int = 0
    """How often Python does something to a file of the output folder during a run."""
    seconds: float = 0.0
    """How long a run lasts."""
    _seconds: dict[str, float] = field(default_factory=dict)
    """About how long runs last, by what tells them apart."""
    _started: int = 0

    @property
    def optical_model(self) -> Path:
        return self.folder / "models" / "optical.pt"

    @property
    def full_model(self) -> Path:
        return self.folder / "models" / "full.pt"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def made(self) -> Path:
        """An output folder with all tiles."""
        return self.folder / "undisturbed"

    def line(self, output: Path, *options: object) -> list[str]:
        words = [
            "run", "sentinel2", "--scene-ids", *TILES, "--darts-dir", self.sample.folder, "--offline",
            "--output-data-dir", output, "--export-bands", "probabilities", "polygonized", *options,
        ]  # fmt: skip
        for option, value in (("--raw-data-store", self.store), ("--model-files", self.optical_model)):
            words += [] if option in options else [option, value]
        return [str(word) for word in words]

    def start(self, *lines: list[str], **how: Any) -> Process:
        self._started += 1
        log = self.folder / f"{self._started}.log"
        return self.server.start(Job(lines=list(lines), log=str(log), **how))

    def wait_for_a_moment(self, process: Process, draw: random.Random, kind: str) -> bool:
        """Wait for a moment of a run, each as likely as the other; return whether it is still at work then."""
        seconds = self._seconds.get(kind, self.seconds)
        time.sleep(seconds * draw.random())
        ended = process.ended
        # Nobody knows how long a run lasts, which changes with what else the machine does: some shall end before.
        self._seconds[kind] = seconds * (0.85 if ended else 1.05)
        return not ended

    def check_ends_well(self, output: Path, *options: object, like: Hashes | None = None) -> str:
        """Check that a plain restart ends with the bytes of an undisturbed run, and that all is clean then."""
        restart = self.start(self.line(output, *options), ["verify", str(output)])
        assert restart.wait() == 0, restart.text
        assert "0 findings" in restart.text
        assert hashes(output) == (self.expected if like is None else like)
        assert not list(output.glob(".t*.tmp")), restart.text
        assert set(made(read_ledgers(output))) == set(TILES)
        return restart.text


def prepared_bench(folder: Path, sample: Sample, server: ForkServer) -> Bench:
    """Return a bench with scenes, models, and an output folder that was made undisturbed."""
    bench = Bench(server, sample, folder)
    for n, name in enumerate(TILES):
        window = slice(30 * n, 30 * n + 96), slice(20 * n, 20 * n + 80)
        write_small_scene(bench.store, name, sample.landscape, *window)
    save_model(bench.optical_model, (*OPTICAL, "ndvi"), seed=1)
    save_model(bench.full_model, (*OPTICAL, *TERRAIN, *TRENDS), seed=2)
    began = time.perf_counter()
    undisturbed = bench.start(bench.line(bench.made, "--executor", "sequential"), folder=str(bench.made))
    assert undisturbed.wait() == 0, undisturbed.text
    bench.seconds = time.perf_counter() - began
    bench.operations = int(Path(f"{undisturbed.log}.operations").read_text())
    bench.expected = hashes(bench.made)
    assert len(bench.expected) == FILES * len(TILES)
    return bench


def save_model(path: Path, bands: Sequence[str], *, seed: int) -> None:
    """Save a network that is as quick to load as to run."""
    model = {**TINY, "encoder_name": "timm-mobilenetv3_small_minimal_100", "in_channels": len(bands)}
    torch.manual_seed(seed)
    network = smp.create_model(**model, encoder_weights=None)
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, model=model, bands=list(bands), state_dict=network.state_dict(), patch_size=256)


def hashes(output: Path) -> Hashes:
    files = sorted(output.glob("t*/*"))
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def sizes(output: Path) -> dict[str, int]:
    return {str(file.relative_to(output)): file.stat().st_size for file in sorted(output.glob("t*/*"))}


def outcomes(output: Path) -> list[Outcome]:
    return [record for record in read_ledgers(output) if isinstance(record, Outcome)]


def starts(output: Path) -> list[RunStart]:
    return [record for record in read_ledgers(output) if isinstance(record, RunStart)]


def check_failures(output: Path, run: Process, code: int) -> None:
    """Check that a run which could not write said so, and that what is there is right."""
    assert code in (0, 1, 2), run.text
    assert "Traceback" not in run.text
    failed = [outcome for outcome in outcomes(output) if outcome.status == "failed"]
    assert all(outcome.cause == "StoreError" for outcome in failed), failed
    assert all(str(output) in outcome.error for outcome in failed), failed
    if code == 1:
        assert failed
    if code == 2:
        assert re.search(r"error: cannot (write|create) .*", run.text), run.text


def check_damage(output: Path, run: Process, code: int, tiles: set[str], store: Path, expected: Hashes) -> None:
    """Check that damaged input failed its tiles with an error that names it, and shaped no result."""
    assert "Traceback" not in run.text
    failed = {outcome.tile_id: outcome for outcome in outcomes(output) if outcome.status == "failed"}
    assert code == (1 if failed else 0), run.text
    assert failed.keys() <= tiles
    for outcome in failed.values():
        assert str(store) in outcome.error
        assert outcome.cause in (
            "StoreError",
            "MissingDataError",
            "MissingBandError",
            "GridMismatchError",
            "ConfigError",
        )
    assert hashes(output) == {name: digest for name, digest in expected.items() if name.split("/")[0] not in failed}
