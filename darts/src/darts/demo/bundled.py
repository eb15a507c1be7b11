"""The checkpoints that come with darts."""

from importlib.resources import files
from pathlib import Path

from darts_utils.errors import MissingDataError

BUNDLED = ("demo-full", "demo-optical")


def bundled_models() -> dict[str, Path]:
    """Return name → file of the bundled checkpoints, trained on synthetic landscapes alone.

    Raises:
        MissingDataError: the installation lacks them.
    """
    folder = Path(str(files("darts.demo"))) / "models"
    found = {name: folder / f"{name}.pt" for name in BUNDLED}
    missing = [str(file) for file in found.values() if not file.is_file()]
    if missing:
        raise MissingDataError(f"bundled models are missing: {', '.join(missing)}; install darts-permafrost again")
    return found
