"""A tile that would take more memory than it may is worked on in strips, with the same results."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from darts.memory import _of_group, free_memory, memory_budget
from darts.strips import FeatureRows, bytes_as_a_whole
from darts_ensemble import EnsembleV1
from darts_preprocessing import preprocess_v2
from darts_utils.errors import ConfigError
from darts_utils.testing import optical_tile, rough_dem, trend_tile, utm_geobox
from tests.conftest import OPTICAL, Sample, save_tiny_model


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_in_strips_writes_the_same_bytes(darts: Callable, sample: Sample, tmp_path: Path) -> None:
    written = {}
    for budget in ("100GB", "1MB"):
        output = tmp_path / budget
        done = darts(
            "run", "sentinel2", "--scene-ids", sample.scene_id, "--offline", "--output-data-dir", output,
            "--model-files", sample.full_model, "--model-files", sample.optical_model, "--write-model-outputs",
            "--patch-size", 96, "--overlap", 16, "--memory-budget", budget, "-v",
            "--export-bands", "probabilities", "--export-bands", "polygonized", "--export-bands", "dem",
            "--export-bands", "thumbnail", "--export-bands", "ndvi",
        )  # fmt: skip
        assert done.code == 0, done.text
        assert ("in strips" in done.flat) == (budget == "1MB")
        (tile,) = (path for path in output.iterdir() if path.is_dir() and not path.name.startswith("."))
        written[budget] = contents(tile)
    assert "probabilities.tif" in written["1MB"]
    assert "dem.tif" in written["1MB"]
    assert written["1MB"] == written["100GB"]


def test_an_ensemble_on_rows_gives_what_it_gives_on_the_tile(tmp_path: Path) -> None:
    geobox = utm_geobox((230, 90))
    optical = optical_tile(geobox, nodata_share=0.3)
    dem = rough_dem(geobox.pad(40), nodata_share=0.001)
    trends = trend_tile(geobox.pad(10).to_crs("EPSG:4326", resolution=0.0002695))
    bands = (*OPTICAL, "slope", "aspect", "relative_elevation", "tc_wetness")
    models = {
        "many": save_tiny_model(tmp_path / "many.pt", bands, seed=1),
        "few": save_tiny_model(tmp_path / "few.pt", OPTICAL, seed=2),
    }
    ensemble = EnsembleV1(models, "cpu")
    asked = []

    class Noted(FeatureRows):
        def rows(self, names, first, stop):
            asked.append((first, stop))
            return super().rows(names, first, stop)

    patches = {"patch_size": 64, "overlap": 20, "keep_inputs": True}
    whole = ensemble.segment_tile(preprocess_v2(optical, dem, trends), **patches)
    layers = ensemble.segment_rows(Noted(optical, dem, trends), **patches, batch_size=1)
    assert len(asked) == 5
    assert all(stop - first == 64 for first, stop in asked)
    assert set(layers) == {"probabilities", "probability_std", "probabilities-many", "probabilities-few"}
    for name, layer in layers.items():
        xr.testing.assert_allclose(layer, whole[name].drop_vars(whole[name].coords), rtol=0, atol=1e-5)
    assert np.isfinite(layers["probabilities"]).mean() > 0.5


def test_what_a_tile_takes_counts_its_inputs_and_features() -> None:
    tile = optical_tile(utm_geobox((10, 20)))
    assert bytes_as_a_whole([tile, None], (10, 20), []) == tile.nbytes + 200 * 24
    more = bytes_as_a_whole([tile, None], (10, 20), ["slope", "arcticdem_data_mask"])
    assert more == tile.nbytes + 200 * (24 + 4 + 1)


@pytest.mark.parametrize(
    ("asked", "size"),
    [("8GB", 8e9), ("1.5 GiB", 1.5 * 2**30), (1000, 1000), ("2mb", 2e6), ("12345", 12345), ("8G", 8e9)],
)
def test_sizes_are_read(asked: str | int, size: float) -> None:
    assert memory_budget(asked) == int(size)


def test_shares_are_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darts.memory.free_memory", lambda: 1000)
    assert memory_budget("50%") == 500
    assert memory_budget(None) == 600
    monkeypatch.setattr("darts.memory.free_memory", lambda: None)
    assert memory_budget(None) is None
    with pytest.raises(ConfigError, match="not known"):
        memory_budget("50%")


@pytest.mark.parametrize("asked", ["much", "-1GB", "8 apples", "0", "0%", "200%", "", "GB"])
def test_what_is_no_size_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match="memory_budget must be"):
        memory_budget(asked)


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("0::/job\n", {"job/memory.max": "5000\n", "job/memory.current": "1200\n"}, 3800),
        ("0::/job/step\n", {"job/memory.max": "5000\n", "job/memory.current": "1200\n"}, 3800),
        ("0::/a\n", {"a/memory.max": "9000", "a/memory.current": "0", "memory.max": "700", "memory.current": "1"}, 699),
        ("0::/job\n", {"job/memory.max": "max\n", "job/memory.current": "1200\n"}, None),
        ("0::/elsewhere\n", {"memory.max": "5000", "memory.current": "4000", "memory.stat": "inactive_file 500"}, 1500),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "700", "memory/job/memory.usage_in_bytes": "800"}, 0),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "5"},
         None),
        ("3:cpu:/job\n", {"job/memory.max": "5000", "job/memory.current": "1200"}, None),
        (None, {}, None),
    ],
)  # fmt: skip
def test_the_limit_of_a_batch_job_counts(
    tmp_path: Path, groups: str | None, files: dict[str, str], left: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    if groups is not None:
        (tmp_path / "cgroup").write_text(groups)
    assert _of_group(tmp_path / "fs", tmp_path / "cgroup") == left


def test_this_machine_has_some_free_memory() -> None:
    free = free_memory()
    assert free is None or free > 2**20
