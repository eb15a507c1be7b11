"""Configuration files of any content, through the commands that read them."""

import datetime
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from darts.pipelines import PlanetPipeline, Sentinel2Pipeline
from tests.fuzzing import NASTY_NAMES, Sandbox, fuzzed, sandbox

__all__ = ["sandbox"]

OPTIONS = sorted(
    {name.replace("_", "-") for cls in (PlanetPipeline, Sentinel2Pipeline) for name in cls.__dataclass_fields__}
)
STAC = ["endpoint", "assets", "page-size", "retries", "timeout-s", "s3-unsigned", "no-such-thing"]
TABLES = [
    "darts", "darts.run", "darts.run.sentinel2", "darts.run.planet", "darts.prepare-data.sentinel2", "darts.stac",
    "darts.run.sentinel2.stac", "darts.merge", "darts.status", "darts.model.info", "darts.train.fit", "other", "",
]  # fmt: skip
COMMANDS = [
    ("run", "sentinel2", "--dry-run", "--offline", "--scene-ids", "x"),
    ("run", "planet", "--dry-run", "--offline"),
    ("prepare-data", "planet", "--dry-run", "--aux"),
    ("status", "nowhere"),
    ("verify", "nowhere"),
    ("merge", "nowhere", "--out", "nowhere-else"),
    ("model", "info", "none.pt"),
    ("import-scene", "none.tif"),
    ("train", "fit", "run"),
    ("train", "validate-dataset", "set"),
]


def quoted(text: str) -> str:
    """Return a text as TOML writes it; JSON's escapes are TOML's too."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value.encode("utf-8", "replace").decode())
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(name)} = {toml(item)}" for name, item in value.items()) + "}"
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


texts = st.text(st.characters(codec="utf-8"), max_size=30)
plain = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 12),
    st.just(10**400),
    st.floats(),
    texts,
    st.sampled_from([name for name in NASTY_NAMES if name != "\ud800"]),
    st.sampled_from(["cpu", "auto", "torch", "cdse", "gee", "import", "overlapped", "1/2", "8 GB", "config.toml", "."]),
    st.dates(),
    st.times(),
    st.datetimes(),
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
keys = st.one_of(
    st.sampled_from(OPTIONS),
    st.sampled_from(OPTIONS).map(lambda name: name.replace("-", "_")),
    st.sampled_from(STAC),
    st.sampled_from(["run", "sentinel2", "stac", "darts", "default-dirs", "pipeline", "*", "", "stac.endpoint"]),
    texts,
)
tables = st.tuples(st.sampled_from(TABLES), st.dictionaries(keys, values, max_size=4))


def written(parts: list[tuple[str, dict[str, Any]]]) -> bytes:
    lines = []
    for name, table in parts:
        lines += [f"[{name}]"] if name else []
        lines += [f"{quoted(key)} = {toml(value)}" for key, value in table.items()]
    return "\n".join(lines).encode()


def one_bad_byte(content: bytes, place: int, byte: int) -> bytes:
    place %= len(content) + 1
    return content[:place] + bytes([byte]) + content[place + 1 :]


whole = st.lists(tables, max_size=3, unique_by=lambda part: part[0]).map(written)
files = st.one_of(
    whole, whole, whole,
    st.builds(one_bad_byte, whole, st.integers(0, 500), st.integers(0, 255)),
    st.binary(max_size=200),
    texts.map(str.encode),
)  # fmt: skip


@fuzzed(short=12, share=0.18)
@given(content=files, command=st.sampled_from(COMMANDS))
@example(b"[darts]\na = " + b"[" * 5_000 + b"]" * 5_000, COMMANDS[0])
@example(b"[darts]\na = " + b"9" * 5_000, COMMANDS[0])
@example(b"[darts" + b".a" * 5_000 + b"]\n", COMMANDS[0])
@example(b"\xff\xfe[darts]", COMMANDS[0])
@example(b"\xef\xbb\xbf[darts]\n", COMMANDS[0])
@example(b"[darts]\nbatch-size = 0x" + b"f" * 400, COMMANDS[0])
@example(b"[darts]\nbatch-size = 0x" + b"f" * 5_000, COMMANDS[0])
def test_a_configuration_file(sandbox: Sandbox, content: bytes, command: tuple[str, ...]) -> None:
    (sandbox.home / "fuzz.toml").write_bytes(content)
    sandbox.run(*command, "--config-file", sandbox.home / "fuzz.toml")


@fuzzed(short=8, share=0.04)
@given(name=st.sampled_from(OPTIONS), value=values, command=st.sampled_from(COMMANDS[:2]))
@example("export-bands", [False], COMMANDS[0])
@example("export-bands", ["nope"] * 50, COMMANDS[0])
@example("export-bands", 10**400, COMMANDS[0])
@example("aoi-file", [10**400, [False, False, False, 10**400]], COMMANDS[0])
@example("stac", [False, False], COMMANDS[0])
@example("model-files", [[datetime.date(2000, 1, 1)]], COMMANDS[0])
@example("shard", 10**400, COMMANDS[0])
@example("memory-budget", 10**400, COMMANDS[0])
def test_an_option_of_another_kind(sandbox: Sandbox, name: str, value: Any, command: tuple[str, ...]) -> None:
    (sandbox.home / "fuzz.toml").write_bytes(written([("darts", {name: value})]))
    sandbox.run(*command, "--config-file", sandbox.home / "fuzz.toml")
