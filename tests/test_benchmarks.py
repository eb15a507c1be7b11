"""Benchmarks run at a small size, so that they cannot rot; what they measure is not judged here."""

import importlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_benchmark_of_downloads_compares_both_ways() -> None:
    command = [sys.executable, "benchmarks/download.py", "--scenes", "1", "--side", "64", "--repeats", "1"]
    run = subprocess.run([*command, "--latency-ms", "20"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stderr, run.stderr
    for what in ("transfer alone", "whole download"):
        assert re.search(rf"{what}: darts +[\d.]+ s, one at a time +[\d.]+ s, ratio +[\d.]+", run.stdout), run.stdout


@pytest.fixture(scope="module")
def preprocess() -> Iterator[ModuleType]:
    """Return `benchmarks/preprocess.py` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("preprocess")


@pytest.fixture(scope="module")
def small_run(preprocess: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return the figures of all features at a small size, and the printed text."""
    file = tmp_path_factory.mktemp("preprocess") / "figures.json"
    with redirect_stdout(io.StringIO()) as printed:
        preprocess.main(["--size", "96", "--one-process", "--json", str(file)])
    return json.loads(file.read_text()), printed.getvalue()


@pytest.mark.slow  # of the reference, which is compiled anew
def test_the_benchmark_of_features_tells_time_memory_and_goals(small_run: tuple[dict[str, Any], str]) -> None:
    figures, printed = small_run
    features = {row["name"] for row in figures["features"]}
    for row in figures["features"]:
        assert min(row["seconds"], row["copy_s"], row["reference_s"], row["ratio"]) > 0, row
        assert re.search(rf"^\| {re.escape(row['name'])} \|( ≈?[^|]+\|){{6}}$", printed, re.MULTILINE), printed
    assert {"NDVI", "TPI, 100 m", "TPI, 1000 m", "hillshade", "DEM alignment and all four"} <= features
    for part in ("ours", "reference"):
        # 10 float32 bands and the mask are new.
        assert figures[part]["outputs_gib"] == pytest.approx(96 * 96 * (10 * 4 + 1) / 2**30)
        assert figures[part]["above_gib"] >= 0
    for goal in ("all features, beside the plain reference | 6 ×", "above inputs and outputs | at most 1.5 GiB"):
        assert goal in printed


@pytest.mark.slow
def test_features_agree_with_the_plain_reference_where_it_is_right(small_run: tuple[dict[str, Any], str]) -> None:
    figures, _ = small_run
    bands = {(row["name"], band): by for row in figures["features"] for band, by in row["differences"].items()}
    for feature, band, most in (
        ("NDVI", "ndvi", 1e-6), ("TPI, 100 m", "tpi", 1e-3), ("TPI, 1000 m", "tpi", 1e-3), ("slope", "slope", 1e-4),
        ("curvature", "curvature", 1e-2),
    ):  # fmt: skip
        by = bands[feature, band]
        assert by["most"] <= most, (feature, by)
        # The reference spoils what lies around holes and the frame; ours misses nothing that it has.
        assert by["only_reference"] == 0, (feature, by)
        assert by["only_ours"] < 0.99, (feature, by)
    # Both count clockwise, ours from true north: 2.8° apart here.
    assert 2.5 < bands["aspect", "aspect"]["mean"] < 3.1
    # GDAL's approximation moves samples a little; the rough bands vary by 5 (trends) and 0.1 m (DEM) between pixels.
    assert bands["DEM alignment, with mask", "arcticdem_data_mask"]["mean"] < 1e-3
    assert bands["DEM alignment, with mask", "dem"]["mean"] < 0.02
    for band in ("tc_brightness", "tc_greenness", "tc_wetness"):
        assert bands["TCVIS alignment, 3 bands", band]["mean"] < 0.5


@pytest.mark.slow
def test_the_benchmark_of_features_runs_without_the_reference(
    preprocess: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    preprocess.main(["--case", "planet", "--size", "64", "--one-process", "--skip-reference", "--json", str(file)])
    figures, printed = json.loads(file.read_text()), capsys.readouterr().out
    assert "reference" not in figures
    assert "differs from the reference" not in printed
    assert all(row["seconds"] > 0 for row in figures["features"])


@pytest.mark.slow
def test_memory_of_all_features_is_measured_in_a_process_of_its_own(preprocess: ModuleType) -> None:
    figures = preprocess.in_own_process(preprocess.__file__, "ours", ["--size", "64"])
    assert figures["peak_gib"] >= figures["inputs_gib"] > 0
    assert figures["seconds"] > 0


def test_the_peak_of_memory_counts_what_is_freed_within(preprocess: ModuleType) -> None:
    with preprocess.peak_memory() as memory:
        held = np.ones(2**24, "uint8")
        np.ones(2**26, "uint8")
    assert held[-1] == 1
    assert 70 * 2**20 < memory["peak"] - memory["before"] < 100 * 2**20


def test_the_tile_of_the_benchmark_of_features_is_covered(preprocess: ModuleType) -> None:
    inputs = preprocess.make_inputs("sentinel2", 128)
    assert np.isnan(inputs.tile.nir).mean() == pytest.approx(0.08, abs=0.01)
    assert 0 < np.isnan(inputs.arcticdem.dem).mean() < 0.01
    for name in inputs.tcvis.data_vars:
        assert inputs.tcvis[name].dtype == "float32"
        assert set(np.unique(inputs.tcvis[name])) <= set(range(1, 256))
    around = inputs.tile.odc.geobox.pad(100)
    for source, grid in ((inputs.arcticdem, around), (inputs.tcvis, inputs.tile.odc.geobox)):
        assert source.odc.geobox.extent.contains(grid.footprint(source.odc.geobox.crs))


@pytest.mark.slow
def test_the_benchmark_of_segmentation_tells_time_memory_and_goals(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    segment = importlib.import_module("segment")
    file = tmp_path / "figures.json"
    small = ["--size", "200", "--patch-size", "64", "--encoder", "tu-test_resnet", "--one-process", "--ways", "fp32"]
    segment.main([*small, "--json", str(file)])
    figures, printed = json.loads(file.read_text()), capsys.readouterr().out
    ours, gaps = figures["ours/fp32"], figures["gaps/fp32"]
    assert (ours["predicted"], ours["share"]) == (2 * 4 * 4, 1)  # two networks
    assert (gaps["predicted"], gaps["share"]) == (2 * 4 * 3, 3 / 4)
    assert min(figures[part]["seconds"] for part in ("ours/fp32", "gaps/fp32", "plain/fp32")) > 0
    for goal in ("fp32: time beside the bare networks | at most 1.050", "fp32: faster than the plain way | 1.4 ×"):
        assert goal in printed
    # The tile has no gaps, so the plain way gives the same.
    assert figures["plain/fp32"]["differs_by"] < 1e-5


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


def test_the_benchmark_of_a_gpu_says_in_one_line_that_there_is_none(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        gpu.main([])
    assert left.value.code == "benchmarks/gpu.py needs a CUDA device, and torch finds none here"


@pytest.mark.slow
def test_operations_of_a_network_are_counted_without_computing(gpu: ModuleType, tmp_path: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from darts_segmentation import build_model, load_checkpoint

    file = gpu.write_model(tmp_path / "ten.pt", "resnet18")
    counted = {side: gpu.flops_of(file, side) for side in (64, 128)}
    assert counted[128] == 4 * counted[64]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        build_model(load_checkpoint(file))(torch.zeros(1, 10, 64, 64))
    assert counted[64] == counter.get_total_flops()
    # The first convolution: 64 kernels of 7 x 7 over 10 bands at half the side, an addition and a multiplication each.
    assert counted[64] > 2 * 64 * 49 * 10 * 32**2
    assert gpu.patches_of(4096, 1024) == 25


def test_time_in_which_kernels_overlap_counts_once(gpu: ModuleType) -> None:
    assert gpu.covered([]) == 0
    assert gpu.covered([(5, 7), (0, 2), (1, 3), (1, 2), (7, 8)]) == 6
    random = np.random.default_rng(0)
    starts = random.integers(0, 100, 30)
    spans = [(int(start), int(start + length)) for start, length in zip(starts, random.integers(0, 9, 30), strict=True)]
    assert gpu.covered(spans) == len({place for start, end in spans for place in range(start, end)})


def test_the_table_of_a_gpu_has_a_line_for_each_way(gpu: ModuleType) -> None:
    row = {"seconds": 2.0, "megapixels_per_second": 8.4, "share_of_matmul": 0.5, "busy": 0.81}
    rows = [gpu.Figures(way="bf16", tile=tile, ahead=ahead, **row)
            for tile, ahead in (("host", True), ("host", False), ("GPU", False))]  # fmt: skip
    text = gpu.table(rows, {"bf16": 7.9e14})
    assert "| bf16 | host | yes | 2.00 | 8 | 50% | 81% |" in text
    assert [line.split("|")[3].strip() for line in text.splitlines()[2:5]] == ["yes", "no", "–"]
    assert text.endswith("matmul: bf16 790 TFLOP/s")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["postprocess", "export"])
def test_benchmarks_of_objects_and_files_tell_time_and_memory_beside_a_plain_way(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module(name)
    benchmark.main(["--size", "300", "--one-process", "--json", str(tmp_path / "figures.json")])
    figures, printed = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    assert {"ours", "reference"} <= set(figures)
    assert re.search(r"^\|( [^|]+\|){2,}( \d[\d.,]*[^|]*\|)+$", printed, re.MULTILINE), printed


@pytest.mark.slow
def test_the_benchmark_of_merging_simulates_reads_and_merges(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    merge = importlib.import_module("merge")
    monkeypatch.setattr(merge, "DAYS_A_YEAR", 2)
    small = ["--tiles", "8", "--plain", "0", "--processes", "1"]
    merge.main([*small, "--folder", str(tmp_path), "--json", str(tmp_path / "f.json")])
    assert json.loads((tmp_path / "f.json").read_text())
    assert "GiB" in capsys.readouterr().out


def test_the_benchmark_of_training_tells_what_loading_and_the_trainer_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    training = importlib.import_module("training")
    small = "--size 64 --patches 8 --batch-size 2 --steps 4 --encoder tu-test_resnet"
    training.main([*small.split(), "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(figures[name] > 0 for name in ("loading_share", "waiting_share", "over_bare"))
