"""Model files of any content, through the commands that read them; none of them may run code."""

import copy
import io
import json
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import OPTICAL, save_tiny_model
from tests.fuzzing import NASTY_NAMES, Sandbox, fuzzed, odd_values, sandbox
from tests.test_fuzz_stac import GONE, places, put

__all__ = ["sandbox"]


class Payload:
    """What a poisoned pickle runs when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "good.pt", (*OPTICAL, "ndvi"))


@pytest.fixture(scope="module")
def content(good: Path) -> dict[str, Any]:
    return torch.load(good, weights_only=True)


def look_at(box: Sandbox, model: Path, *, convert: bool = False) -> None:
    """Run the commands that read a model."""
    assert box.run("model", "info", model).code in (-1, 0, 2)
    if convert:
        box.run("model", "convert", model, box.out / "new.pt", "--overwrite")


tensors = st.sampled_from([
    lambda: torch.full((3,), float("nan")),
    lambda: torch.full((16, 5, 3, 3), float("inf")),
    lambda: torch.zeros(1).expand(1_000_000, 1_000_000),
    lambda: torch.zeros(1).expand(2**40),
    lambda: torch.empty(0),
    lambda: torch.zeros(3, dtype=torch.complex64),
    lambda: torch.eye(3).to_sparse(),
    lambda: torch.zeros(3, device="meta"),
    lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
    lambda: torch.zeros(64, 5, 7, 7, dtype=torch.float16),
    lambda: torch.zeros((), dtype=torch.bool),
    lambda: {"a": torch.zeros(1)},
    lambda: OrderedDict(),
])  # fmt: skip
CONFIG = (
    "model_framework", "model", "input_combination", "bands", "patch_size", "normalization", "terrain_convention",
    "norm_factors", "name", "hyper_parameters",
)  # fmt: skip
ARGUMENTS = (
    "arch", "encoder_name", "encoder_depth", "decoder_channels", "classes", "in_channels", "activation", "aux_params",
    "checkpoint_path", "encoder_weights", "decoder_attention_type", "img_size", "pretrained", "decoder_use_batchnorm",
)  # fmt: skip
arguments = st.one_of(
    odd_values(),
    st.sampled_from([
        "unet", "fpn", "manet", "dpt", "upernet", "nope", "resnet18", "resnet34", "tu-test_resnet", "mit_b0", "../x",
        "tu-hf-hub:x/y", "se_resnet50", "vgg11", [10**9, 10**9, 10**9], [16, 8], 10**6, 0, 5, -1, "imagenet", "sigmoid",
        "scse", "tu-efficientvit_b0", "timm-efficientnet-b0",
    ]),
)  # fmt: skip
edits = st.lists(
    st.one_of(
        st.tuples(st.tuples(st.just("config"), st.sampled_from(CONFIG)), odd_values() | st.just(GONE)),
        st.tuples(st.tuples(st.just("config"), st.just("model"), st.sampled_from(ARGUMENTS)), arguments),
        st.tuples(
            st.tuples(st.just("config"), st.sampled_from(["input_combination", "bands"])),
            st.lists(st.sampled_from([*OPTICAL, "ndvi", "slope", "nope", *NASTY_NAMES]), max_size=6),
        ),
        st.tuples(
            st.tuples(st.just("config"), st.just("normalization")),
            st.dictionaries(st.sampled_from([*OPTICAL, "ndvi", "x"]), odd_values() | st.lists(st.floats(), max_size=3)),
        ),
        st.tuples(st.tuples(st.sampled_from(["card", "config", "statedict", "state_dict", "extra"])), odd_values()),
        st.tuples(st.tuples(st.just("card"), st.text(max_size=5)), odd_values()),
        st.tuples(st.tuples(st.just("statedict"), st.integers(0, 40)), tensors),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@fuzzed(short=5, share=0.05)
@given(given=edits, convert=st.booleans())
@example([(("config", "model", "decoder_channels"), [10**9, 10**9, 10**9])], False)
@example([(("config", "model", "encoder_depth"), 10**6)], False)
@example([(("card", "x"), 10**5000)], True)
def test_a_checkpoint_that_says_something_else(
    sandbox: Sandbox, content: dict[str, Any], given: list[tuple[tuple[Any, ...], Any]], convert: bool
) -> None:
    told = copy.copy(content)
    told["config"], told["statedict"] = copy.deepcopy(content["config"]), dict(content["statedict"])
    told.setdefault("card", {})
    for path, value in given:
        if path[0] == "statedict" and len(path) > 1:
            names = list(content["statedict"])
            path, value = ("statedict", names[path[1] % len(names)]), value()
        put(told, path, value)
    model = sandbox.home / "model.pt"
    torch.save(told, model)
    look_at(sandbox, model, convert=convert)


@fuzzed(short=4, share=0.03)
@given(
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    at_the_end=st.booleans(),
)
def test_a_damaged_checkpoint(
    sandbox: Sandbox, good: Path, cut: float | None, flips: list[tuple[float, int]], at_the_end: bool
) -> None:
    data = bytearray(good.read_bytes())
    for place, byte in flips:
        # The table of a zip file stands at its end, the pickle at its beginning.
        span = min(4_000, len(data))
        start = len(data) - span if at_the_end else 0
        data[start + int(place * (span - 1))] = byte
    model = sandbox.home / "model.pt"
    model.write_bytes(data if cut is None else data[: int(cut * len(data))])
    look_at(sandbox, model)


@fuzzed(short=6, share=0.02)
@given(data=st.binary(max_size=200) | odd_values().map(lambda value: pickle.dumps(value)))
@example(b"\x80\x02cos\nsystem\n(U\x04true\ntR.")
@example(b"\x80\x04\x95" + b"\xff" * 8)
@example(b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".")
@example(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".")
@example(b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".")
@example(b"\x80\x02B\xff\xff\xff\x7f")
def test_bytes_in_place_of_a_checkpoint(sandbox: Sandbox, data: bytes) -> None:
    model = sandbox.home / "model.pt"
    model.write_bytes(data)
    look_at(sandbox, model)


@pytest.mark.parametrize("place", ["config", "card", "statedict", "whole"])
@pytest.mark.parametrize("old_format", [True, False])
def test_a_checkpoint_that_wants_to_run_code(
    sandbox: Sandbox, content: dict[str, Any], place: str, old_format: bool
) -> None:
    poison = Payload(sandbox.home / "ran")
    told = poison if place == "whole" else {**content, place: poison}
    model = sandbox.home / "model.pt"
    torch.save(told, model, _use_new_zipfile_serialization=not old_format)
    assert sandbox.run("model", "info", model).code == 2
    assert not (sandbox.home / "ran").exists()


@pytest.mark.parametrize("size", [10**7, 2**33])
def test_a_zip_file_that_grows_when_it_is_unpacked(sandbox: Sandbox, size: int) -> None:
    """Made by hand: a few bytes that say to be as many as a disk holds."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\0" * min(size, 10**7))
        archive.writestr("model/version", "3\n")
    data = packed.getvalue()
    if size > 2**32:
        data = data.replace((10**7).to_bytes(4, "little"), b"\xff\xff\xff\x7f")
    model = sandbox.home / "model.pt"
    model.write_bytes(data)
    assert sandbox.run("model", "info", model).code == 2


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("hub") / "rts"
    folder.mkdir()
    arguments = {name: value for name, value in content["config"]["model"].items() if name != "arch"}
    (folder / "config.json").write_text(json.dumps({"_model_class": "Unet", **arguments}))
    (folder / "darts.json").write_text(json.dumps({"input_combination": [*OPTICAL, "ndvi"], "card": {"scores": [1]}}))
    save_file(dict(content["statedict"]), folder / "model.safetensors")
    return folder


HUB_FILES = ("config.json", "darts.json", "model.safetensors")


@fuzzed(short=4, share=0.03)
@given(file=st.sampled_from(HUB_FILES), data=st.data())
def test_a_folder_of_the_hub(sandbox: Sandbox, hub: Path, file: str, data: st.DataObject) -> None:
    folder = sandbox.home / "rts"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(hub, folder)
    whole = (folder / file).read_bytes()
    if file == "model.safetensors":
        # Eight bytes with the length of the header, the header in JSON, the numbers.
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + length])
        path = data.draw(st.sampled_from(places(header)[:40]))
        put(
            header,
            path,
            data.draw(st.just(GONE) | odd_values() | st.sampled_from([[0, 2**62], [10**9, 10**9], "F8_E5M2"])),
        )
        text = json.dumps(header).encode("utf-8", "backslashreplace")
        told = data.draw(st.sampled_from([len(text), 0, 2**63, 2**31, 5]))
        whole = told.to_bytes(8, "little") + text + whole[8 + length :]
    else:
        value = json.loads(whole)
        for path, new in data.draw(
            st.lists(st.tuples(st.sampled_from(places(value)), st.just(GONE) | arguments), min_size=1, max_size=2)
        ):
            put(value, path, new)
        whole = data.draw(st.sampled_from([json.dumps(value).encode(), b"[" * 100_000, b"{", b"\xff", b"9" * 5_000]))
    (folder / file).write_bytes(whole)
    look_at(sandbox, folder)
