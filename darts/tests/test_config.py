import logging
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclopts import App, Parameter

from darts.config import ConfigFile, read_config
from darts_utils.errors import ConfigError

app = App(name="x", result_action="return_value", exit_on_error=False, print_error=False)
run = App(name="run")
app.command(run)


@run.command(name="sentinel2")
def command(*, overlap: int = 256, scene_ids: list[str] | None = None, offline: bool = False) -> tuple:
    return overlap, scene_ids, offline


def call(tmp_path: Path, text: str, *tokens: str) -> tuple:
    file = tmp_path / "config.toml"
    file.write_text(text)
    app.config = (ConfigFile(*read_config(file), elsewhere=lambda: ["orthotiles-dir"], typed_only=lambda: ["log-dir"]),)
    app.default_parameter = Parameter(consume_multiple=True)
    return app(["run", "sentinel2", *tokens])


def test_the_file_beats_the_default_and_the_command_line_beats_the_file(tmp_path: Path) -> None:
    text = "[darts]\noverlap = 10\n"
    assert call(tmp_path, text)[0] == 10
    assert call(tmp_path, text, "--overlap", "20")[0] == 20
    assert call(tmp_path, "[darts]\n")[0] == 256


def test_the_table_of_the_command_beats_the_shared_tables(tmp_path: Path) -> None:
    text = "[darts]\noverlap = 1\noffline = true\n[darts.run]\noverlap = 2\n[darts.run.sentinel2]\noverlap = 3\n"
    assert call(tmp_path, text) == (3, None, True)
    assert call(tmp_path, text.replace("[darts.run.sentinel2]\noverlap = 3\n", "")) == (2, None, True)


def test_the_table_of_another_command_is_not_read(tmp_path: Path) -> None:
    assert call(tmp_path, "[darts.run.planet]\noverlap = 5\nnonsense = 1\n")[0] == 256


def test_lists_are_read(tmp_path: Path) -> None:
    assert call(tmp_path, '[darts]\nscene-ids = ["a", "b c"]\n')[1] == ["a", "b c"]


def test_dates_need_no_quotes(tmp_path: Path) -> None:
    assert call(tmp_path, "[darts]\nscene-ids = [2021-07-01, 12:30:00, 2021-07-01T12:30:00Z]\n")[1] == [
        "2021-07-01", "12:30:00", "2021-07-01T12:30:00+00:00",
    ]  # fmt: skip


def test_an_unknown_key_in_the_own_table_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'overlapp' in \[darts.run.sentinel2\]; did you mean 'overlap'"):
        call(tmp_path, "[darts.run.sentinel2]\noverlapp = 3\n")


def test_an_unknown_shared_key_is_a_warning_unless_another_command_knows_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("darts").propagate = True
    with caplog.at_level(logging.WARNING, "darts"):
        call(tmp_path, '[darts]\northotiles-dir = "x"\n')
        assert caplog.text == ""
        call(tmp_path, "[darts]\nofline = true\n")
        call(tmp_path, '[darts]\nlog-dir = "logs"\n')
    assert "no command knows the key 'ofline'" in caplog.text
    assert "did you mean 'offline'?" in caplog.text
    assert "the key 'log-dir' in [darts] does nothing; give --log-dir" in caplog.text


def test_a_named_file_must_exist_and_hold_the_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "other.toml").write_text("[tool]\nx = 1\n")
    with pytest.raises(ConfigError, match="has no table"):
        read_config(tmp_path / "other.toml")
    (tmp_path / "broken.toml").write_text("[darts\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(tmp_path / "broken.toml")


@pytest.mark.parametrize("line", ["out = {}", 'out = ["b", {}]', "run.out = {}", "run.stac.assets.scl = {}"])
@pytest.mark.parametrize(
    ("good", "bad", "flaw"),
    [
        ('"u0000"', '"a\\u0000b"', "holds a NUL"),
        ("0x7fffffffffffffff", "0x8000000000000000", "of more than 64 bits"),
        ("-1", f"0x{'f' * 5000}", "of more than 64 bits"),
    ],
)
def test_a_value_that_nothing_takes_is_refused_by_its_key(
    tmp_path: Path, line: str, good: str, bad: str, flaw: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[darts]\n{line.format(good)}\n")
    assert read_config(file)
    file.write_text(f"[darts]\n{line.format(bad)}\n")
    with pytest.raises(ConfigError, match=rf"value of '{line[:3]}' in \[darts\] .*{flaw}"):
        read_config(file)


def test_the_default_file_is_optional_and_may_belong_to_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config(None) is None
    (tmp_path / "config.toml").write_text("[hugo]\nx = 1\n")
    assert read_config(None) is None
    (tmp_path / "config.toml").write_text("[darts]\noverlap = 1\n")
    assert read_config(None) == (Path("config.toml"), {"overlap": 1})


@dataclass(frozen=True, kw_only=True)
class Server:
    endpoint: str = "default"
    assets: dict[str, str] | None = None
    page_size: int = 10


@run.command(name="grouped")
def grouped(*, server: Server = Server(), overlap: int = 1) -> Server:
    return server


def call_grouped(tmp_path: Path, text: str, *tokens: str) -> Server:
    file = tmp_path / "config.toml"
    file.write_text(text)
    app.config = (ConfigFile(*read_config(file)),)
    return app(["run", "grouped", *tokens])


def test_options_that_belong_together_are_a_table_of_their_own(tmp_path: Path) -> None:
    text = '[darts.server]\nendpoint = "shared"\npage-size = 20\n[darts.server.assets]\nblue = "B02"\n'
    assert call_grouped(tmp_path, text) == Server(endpoint="shared", assets={"blue": "B02"}, page_size=20)
    own = '[darts.run.grouped.server]\nendpoint = "own"\n'
    assert call_grouped(tmp_path, text + own) == Server(endpoint="own", assets={"blue": "B02"}, page_size=20)
    assert call_grouped(tmp_path, text + own, "--server.endpoint", "line").endpoint == "line"


def test_an_unknown_key_in_a_group_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'endpont' in \[darts.server\]; did you mean 'endpoint'"):
        call_grouped(tmp_path, '[darts.server]\nendpont = "x"\n')


def test_the_groups_of_another_command_are_passed_over(tmp_path: Path) -> None:
    assert call(tmp_path, '[darts.server]\nendpoint = "x"\n')[0] == 256
