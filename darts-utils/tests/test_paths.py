from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from darts_utils.errors import ConfigError
from darts_utils.paths import DefaultPaths


def test_a_field_that_is_given_beats_the_environment():
    env = {"DARTS_DATA_DIR": "/e", "DARTS_FAST_DATA_DIR": "/ef", "DARTS_LARGE_DATA_DIR": "/el"}
    given = DefaultPaths(darts_dir=Path("/g"), fast_dir=Path("/gf"), large_dir=Path("/gl"))
    assert given.resolve(env) == given


def test_the_environment_fills_what_is_empty():
    env = {"DARTS_DATA_DIR": "/e", "DARTS_FAST_DATA_DIR": "/ef", "DARTS_LARGE_DATA_DIR": "/el"}
    assert DefaultPaths().resolve(env) == DefaultPaths(
        darts_dir=Path("/e"), fast_dir=Path("/ef"), large_dir=Path("/el")
    )


def test_fast_and_large_fall_back_to_the_root():
    assert DefaultPaths().resolve({"DARTS_DATA_DIR": "/e"}) == DefaultPaths(
        darts_dir=Path("/e"), fast_dir=Path("/e"), large_dir=Path("/e")
    )
    assert DefaultPaths(darts_dir=Path("/g")).resolve({}).large_dir == Path("/g")


def test_a_variable_for_one_root_leaves_the_others_alone():
    paths = DefaultPaths(darts_dir=Path("/g")).resolve({"DARTS_LARGE_DATA_DIR": "/el"})
    assert (paths.fast_dir, paths.large_dir) == (Path("/g"), Path("/el"))


@pytest.mark.parametrize("env", [{}, {"DARTS_DATA_DIR": ""}])
def test_without_field_and_environment_the_working_directory_is_the_root(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DefaultPaths().resolve(env).darts_dir == tmp_path


def test_the_real_environment_is_read_at_resolve_and_not_before(monkeypatch):
    paths = DefaultPaths()
    monkeypatch.setenv("DARTS_DATA_DIR", "/later")
    assert paths.resolve().darts_dir == Path("/later")
    assert paths.darts_dir is None


def test_folders_lie_where_the_contract_puts_them():
    paths = DefaultPaths(darts_dir=Path("/d"), fast_dir=Path("/f"), large_dir=Path("/l"))
    assert paths.models == Path("/f/models")
    assert paths.planet_orthotiles == Path("/l/input/planet/tiles")
    assert paths.planet_scenes == Path("/l/input/planet/scenes")
    assert [paths.sentinel2_scenes(s) for s in ("cdse", "gee", "import")] == [
        Path("/l/input/sentinel2/cdse-scenes"),
        Path("/l/input/sentinel2/gee-scenes"),
        Path("/l/input/sentinel2/import-scenes"),
    ]
    assert [paths.arcticdem(r).name for r in (2, 10, 32)] == [
        "arcticdem_2m.icechunk", "arcticdem_10m.icechunk", "arcticdem_32m.icechunk",
    ]  # fmt: skip
    assert paths.arcticdem(10).parent == paths.tcvis == Path("/l/aux")
    assert paths.output("sentinel2-cdse") == Path("/l/output/sentinel2-cdse")
    assert paths.logs == Path("/l/logs")


def test_unresolved_paths_say_what_to_do_instead_of_using_some_folder():
    with pytest.raises(ConfigError, match="resolve"):
        DefaultPaths().models
    with pytest.raises(ConfigError, match="resolve"):
        DefaultPaths(darts_dir=Path("/d")).logs


def test_paths_are_a_value():
    with pytest.raises(FrozenInstanceError):
        DefaultPaths().darts_dir = Path("/x")
    assert hash(DefaultPaths()) == hash(DefaultPaths())
