import pytest

from darts.needs import Needs
from darts.pipelines.dry_run import TilePreview, print_dry_run

NEEDS = Needs({"full": ("red", "slope", "tc_wetness"), "optical": ("red",)}, ("slope", "tc_wetness"))


def test_each_tile_has_a_line_and_the_sums_stand_below(capsys: pytest.CaptureFixture[str]) -> None:
    tiles = [
        TilePreview(tile_id="a", results="none"),
        TilePreview(tile_id="longer", results="all", missing=("B02", "SCL"), n_bytes=2_500_000, chunks={"DEM": 3}),
        TilePreview(tile_id="c", results="some", problem="is not on disk"),
    ]
    print_dry_run(tiles, NEEDS, {"DEM": 4}, [("folder/x", "no metadata")])
    assert capsys.readouterr().out.splitlines() == [
        "model full needs ArcticDEM and TCVIS",
        "model optical needs no auxiliary data",
        "a       results done; optical on disk",
        "longer  results to make; optical B02, SCL to fetch (2.5 MB); DEM 3 chunks to fetch",
        "c       results to complete; would fail: is not on disk",
        "incomplete: folder/x: no metadata",
        "3 tiles: 1 done, 2 to make; 1 would fail; optical data of 1 to fetch (2.5 MB); DEM 4 chunks to fetch",
    ]


def test_a_preparation_speaks_of_no_results(capsys: pytest.CaptureFixture[str]) -> None:
    print_dry_run([TilePreview(tile_id="a", optical=False, chunks={"DEM": 1})], NEEDS, {"DEM": 1}, [])
    assert capsys.readouterr().out.splitlines()[-2:] == ["a  DEM 1 chunk to fetch", "1 tile; DEM 1 chunk to fetch"]


def test_unknown_sizes_are_said_to_be_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    known = TilePreview(tile_id="a", results="all", missing=("B02",), n_bytes=1000)
    unknown = TilePreview(tile_id="b", results="all", missing=("B02",))
    print_dry_run([unknown], NEEDS, {}, [])
    assert "to fetch (unknown size)" in capsys.readouterr().out
    print_dry_run([known, unknown], NEEDS, {"DEM": 0}, [])
    assert "to fetch (at least 1.0 kB); DEM on disk" in capsys.readouterr().out
