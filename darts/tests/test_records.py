import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from darts.pipelines import Sentinel2Pipeline
from darts.records.ledger import Outcome
from darts.records.run_records import RunRecords
from darts.timings import STEPS, TileClock, Timings
from darts_utils.paths import DefaultPaths

STARTED = datetime(2026, 7, 1, 12, 30, 0, tzinfo=UTC)


def test_a_run_again_searches_what_the_run_searched(tmp_path: Path) -> None:
    """Where any cover is fine, the configuration must say so: its default is 10 %."""
    model = tmp_path / "a.pt"
    free = Sentinel2Pipeline(model_files=[model], tile_ids=["08WMA"], max_cloud_cover=None, max_snow_cover=5)
    options = free._resolved_options(tmp_path, DefaultPaths(darts_dir=tmp_path).resolve())
    written = RunRecords(tmp_path).write_config(free.command, options)
    table = tomllib.loads(written.read_text())["darts"]["run"]["sentinel2"]
    assert (table["max-cloud-cover"], table["max-snow-cover"]) == (100, 5)


def test_the_resolved_configuration_is_a_table_of_its_command(tmp_path: Path) -> None:
    path = RunRecords(tmp_path, started=STARTED).write_config(
        ("run", "planet"), {"model_files": [Path("/m/a.pt")], "patch_size": 512, "aoi_file": None, "overwrite": False}
    )
    assert path.name == "2026-07-01T12-30-00Z.config.toml"
    table = tomllib.loads(path.read_text())["darts"]["run"]["planet"]
    assert table == {"model-files": ["/m/a.pt"], "patch-size": 512, "overwrite": False}


def test_two_runs_in_one_second_have_different_names(tmp_path: Path) -> None:
    first = RunRecords(tmp_path, started=STARTED)
    first.write_config((), {})
    second = RunRecords(tmp_path, started=STARTED)
    assert (first.stem, second.stem) == ("2026-07-01T12-30-00Z", "2026-07-01T12-30-00Z-2")


def test_results_and_timers_hold_a_row_a_tile(tmp_path: Path) -> None:
    timings = Timings()
    clock = TileClock()
    clock.run("Segmenting", sorted, [2, 1])
    timings.add("a", clock.seconds, clock.calls)
    outcomes = [
        Outcome(tile_id="a", output_path="out/a", status="success"),
        Outcome(tile_id="b", output_path="out/b", status="failed", error="MissingDataError: no DEM"),
    ]
    records = RunRecords(tmp_path, started=STARTED)
    records.write_results(outcomes, timings)
    results = pd.read_parquet(tmp_path / f"{records.stem}.results.parquet")
    assert list(results.columns) == ["tile_id", "output_path", "status", "error"]
    assert results.status.tolist() == ["success", "failed"]
    assert results.error[1] == "MissingDataError: no DEM"
    timer = pd.read_parquet(tmp_path / f"{records.stem}.timer.parquet")
    assert list(timer.columns) == ["tile_id", *STEPS]
    assert timer.Segmenting[0] > 0
    assert timer.Exporting.isna().all()
    stopwatch = pd.read_parquet(tmp_path / f"{records.stem}.stopwatch.parquet")
    assert stopwatch.function.tolist() == ["sorted"]
    assert stopwatch.calls.tolist() == [1]


def test_results_of_a_run_without_tiles_have_the_same_columns(tmp_path: Path) -> None:
    records = RunRecords(tmp_path, started=STARTED)
    records.write_results([], Timings())
    assert len(pd.read_parquet(tmp_path / f"{records.stem}.results.parquet").columns) == 4
    assert len(pd.read_parquet(tmp_path / f"{records.stem}.timer.parquet").columns) == 1 + len(STEPS)


def test_options_that_belong_together_are_a_table(tmp_path: Path) -> None:
    from darts.pipelines.stac_options import StacOptions

    stac = StacOptions(page_size=7, assets={"s2_scl": "SCL"})
    path = RunRecords(tmp_path, started=STARTED).write_config(("run",), {"stac": stac, "other": StacOptions()})
    table = tomllib.loads(path.read_text())["darts"]["run"]
    assert table == {"stac": {"page-size": 7, "assets": {"s2_scl": "SCL"}}}
