"""OpenVINO: it gives what torch gives, and its conversions are kept beside their checkpoints."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from darts_segmentation import SMPSegmenter
from darts_segmentation.network import Network
from darts_utils.errors import ConfigError

from .runtime_samples import MakeTile, WriteTiny, drawn, model, needs_openvino

__all__ = ["model"]


@pytest.fixture(scope="module")
def converted(model: Path) -> SMPSegmenter:
    needs_openvino()
    return SMPSegmenter(model, "cpu", runtime="openvino")


def test_openvino_gives_what_torch_gives(converted: SMPSegmenter, model: Path, make_tile: MakeTile) -> None:
    torch_alone = SMPSegmenter(model, "cpu")
    assert (converted.device, converted.precision, converted.runtime) == ("cpu", "fp32", "openvino")
    for shape in ((1, 1), (37, 53), (120, 88)):
        tile = make_tile(*shape)
        wanted = torch_alone.segment_tile(tile, patch_size=64, overlap=16).probabilities
        found = converted.segment_tile(tile, patch_size=64, overlap=16).probabilities
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_openvino_in_bf16_changes_probabilities_a_little(
    converted: SMPSegmenter, model: Path, make_tile: MakeTile
) -> None:
    tile = make_tile(96, 80)
    halved = SMPSegmenter(model, "cpu", precision="bf16", runtime="openvino")
    difference = np.abs(halved.segment_tile(tile).probabilities - converted.segment_tile(tile).probabilities)
    assert 0 < float(difference.mean()) <= 0.005


def test_openvino_bands_may_be_a_selection(converted: SMPSegmenter) -> None:
    patches = drawn(2, 16, 24, 5)
    chosen = patches[..., [4, 0, 2]]
    network = converted._network
    np.testing.assert_array_equal(
        network.predictor()(chosen), network.predictor()(np.ascontiguousarray(chosen))
    )  # fmt: skip


def test_a_folder_known_as_dot_is_converted_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_openvino()
    from darts_segmentation.openvino_runtime import conversion_folder

    (tmp_path / "rts").mkdir()
    monkeypatch.chdir(tmp_path / "rts")
    assert conversion_folder(Path(), "abc").parent == tmp_path / "rts.openvino"
    assert conversion_folder(tmp_path / "rts", "abc") == conversion_folder(Path(), "abc")


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    needs_openvino()
    program = (
        "import sys; from darts_segmentation.openvino_runtime import import_openvino; import_openvino().Core(); "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert not (tmp_path / "intel").exists()


def conversions(caplog: pytest.LogCaptureFixture) -> int:
    return sum("for OpenVINO, once" in record.getMessage() for record in caplog.records)


def test_a_conversion_is_kept_beside_its_checkpoint_and_used_while_it_fits(
    write_tiny: WriteTiny, make_tile: MakeTile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs_openvino()
    caplog.set_level(logging.INFO, "darts.segmentation")
    path = write_tiny(tmp_path / "tiny.pt")
    tile = make_tile(16, 24)
    first = SMPSegmenter(path, "cpu", runtime="openvino").segment_tile(tile).probabilities
    (folder,) = (tmp_path / "tiny.pt.openvino").iterdir()
    assert sorted(file.name for file in folder.iterdir()) == ["network.bin", "network.xml", "note.json"]
    again = SMPSegmenter(path, "cpu", precision="bf16", runtime="openvino")
    assert again.precision == "bf16"
    again = SMPSegmenter(path, "cpu", runtime="openvino")
    xr.testing.assert_identical(again.segment_tile(tile).probabilities, first)
    assert conversions(caplog) == 1
    # Weights that changed by a bit, a file cut short: neither is used.
    weights = folder / "network.bin"
    content = weights.read_bytes()
    for damaged in (content[:-8], bytes([content[0] ^ 1]) + content[1:]):
        weights.unlink()  # the older one is still mapped into memory
        weights.write_bytes(damaged)
        caplog.clear()
        mended = SMPSegmenter(path, "cpu", runtime="openvino")
        xr.testing.assert_identical(mended.segment_tile(tile).probabilities, first)
        assert conversions(caplog) == 1
        assert weights.read_bytes() == content
    # Another model under the same name.
    caplog.clear()
    write_tiny(path, seed=1)
    other = SMPSegmenter(path, "cpu", runtime="openvino").segment_tile(tile).probabilities
    np.testing.assert_allclose(other, SMPSegmenter(path, "cpu").segment_tile(tile).probabilities, atol=1e-4)
    assert conversions(caplog) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_conversion_of_another_version_is_not_used(
    write_tiny: WriteTiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_openvino()
    from darts_segmentation import openvino_runtime

    caplog.set_level(logging.INFO, "darts.segmentation")
    path = write_tiny(tmp_path / "tiny.pt")
    SMPSegmenter(path, "cpu", runtime="openvino")
    monkeypatch.setattr(openvino_runtime, "version", lambda package: "99.0")
    SMPSegmenter(path, "cpu", runtime="openvino")
    assert conversions(caplog) == 2


def test_where_nothing_can_be_written_the_conversion_stays_in_memory(
    write_tiny: WriteTiny, make_tile: MakeTile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs_openvino()
    caplog.set_level(logging.INFO, "darts.segmentation")
    path = write_tiny(tmp_path / "tiny.pt")
    # Stands in for a read-only folder, which would not stop a test that runs as root.
    (tmp_path / "tiny.pt.openvino").write_text("in the way")
    tile = make_tile(20, 12)
    found = SMPSegmenter(path, "cpu", runtime="openvino").segment_tile(tile).probabilities
    np.testing.assert_allclose(found, SMPSegmenter(path, "cpu").segment_tile(tile).probabilities, atol=1e-4)
    assert "kept in memory only" in caplog.text


def test_a_network_that_cannot_be_converted_is_refused() -> None:
    needs_openvino()

    class Stubborn(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(patches[:, :1])

    class OfOneSize(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return patches[:, :1] * float(patches.shape[-1])

    for network in (Stubborn(), OfOneSize()):
        with pytest.raises(ConfigError, match=r"OpenVINO .* choose runtime 'torch'"):
            Network(network, "cpu", runtime="openvino", bands=1)
