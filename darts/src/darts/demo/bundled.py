"""The checkpoints that come with darts."""

from importlib.resources import files
from pathlib import Path

from darts_utils.errors import MissingDataError

BUNDLED = ("demo-full", "demo-optical")


def bundled_models() -> dict[str, Path]:
    """Return name → file of the checkpoints of the demo, trained on synthetic landscapes alone.

    Raises:
        MissingDataError: the installation lacks them.
    """
    return {name: _file_of(name) for name in BUNDLED}


def peel_model() -> Path:
    """Return the file of the checkpoint that was trained on one real clip, outlined by experts; see docs/real-clips.md.

    Raises:
        MissingDataError: the installation lacks it.
    """
    return _file_of("peel-optical")


def _file_of(name: str) -> Path:
    file = Path(str(files("darts.demo"))) / "models" / f"{name}.pt"
    if not file.is_file():
        raise MissingDataError(f"the bundled model {file} is missing; install darts-permafrost again")
    return file
