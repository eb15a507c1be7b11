"""`darts demo`: a synthetic Arctic sample, and the very same pipeline a user would run on it."""

import logging
import shutil
from pathlib import Path
from typing import Literal

import tomli_w

from darts.display.console import say
from darts.display.logs import log_flags
from darts_utils.errors import ConfigError

logger = logging.getLogger("darts.demo")

DEMO_FOLDER = Path("darts-demo")
MIN_SIZE, MAX_SIZE = 256, 4096


def demo(
    folder: Path = DEMO_FOLDER,
    *,
    seed: int = 7,
    size: int = 1024,
    device: Literal["cuda", "cpu", "auto"] | int | None = None,
) -> int:
    """Make a synthetic Arctic landscape with thaw slumps, run darts on it, and tell how many were found.

    Parameters
    ----------
    folder
        Where data, models, configuration and results go.
    seed
        Number of the landscape; the same number gives the same landscape.
    size
        Side of the scene in pixels of 10 m.
    device
        As in `darts run sentinel2`.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ConfigError(f"size must be in {MIN_SIZE} … {MAX_SIZE} pixels, got {size}")
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be in 0 … {2**32 - 1}, got {seed}")

    # All that follows loads numpy and more, and is only needed when the demo runs.
    from darts.cli import run_command_line
    from darts.demo import bundled_models, generate_landscape, peel_model, write_demo_data

    folder = folder.absolute()
    logger.info("making a synthetic landscape (seed %d, %d × %d pixels) in %s", seed, size, size, folder)
    landscape = generate_landscape(seed, size=size)
    write_demo_data(landscape, folder)
    models = folder / "models"
    models.mkdir(exist_ok=True)
    for file in bundled_models().values():
        shutil.copyfile(file, models / file.name)
    others = folder / "other-models"  # for real scenes; not part of the demo's ensemble
    others.mkdir(exist_ok=True)
    shutil.copyfile(peel_model(), others / peel_model().name)
    config = _write_config(folder, landscape.scene_id, device)

    exit_code = run_command_line([*log_flags(), "run", "sentinel2", "--config-file", str(config), "--overwrite"])
    if exit_code == 0:
        _print_scores(folder, landscape.scene_id, config)
    return exit_code


def _write_config(folder: Path, scene_id: str, device: str | int | None) -> Path:
    settings = {
        "darts-dir": str(folder),
        "fast-dir": str(folder),
        "large-dir": str(folder),
        "scene-ids": [scene_id],
        "offline": True,
        "output-data-dir": str(folder / "output"),
        "write-model-outputs": True,
        "export-bands": ["probabilities", "binarized", "polygonized", "extent", "thumbnail", "optical", "metadata"],
    }
    if device is not None:
        settings["device"] = device
    path = folder / "config.toml"
    heading = (
        "# The configuration of this demo. Change what you like and run it again:\n"
        f"#   darts run sentinel2 --config-file {path} --overwrite\n\n"
    )
    path.write_text(heading + tomli_w.dumps({"darts": {"run": {"sentinel2": settings}}}), encoding="utf-8")
    return path


def _print_scores(folder: Path, scene_id: str, config: Path) -> None:
    from darts.demo import score_demo

    results = folder / "output" / scene_id
    score = score_demo(results, folder / "truth.gpkg")
    say(
        f"\nPlanted slumps found: {score.objects.tp} of {score.objects.there} that count "
        "(IoU ≥ 0.3; not those mostly under cloud, cut by the edge, or too small)"
    )
    say(
        f"  by object: precision {score.objects.precision:.2f}, recall {score.objects.recall:.2f}, "
        f"F1 {score.objects.f1:.2f}"
    )
    say(
        f"  by pixel:  precision {score.pixels.precision:.2f}, recall {score.pixels.recall:.2f}, "
        f"F1 {score.pixels.f1:.2f}"
    )
    say(f"  a plain rule on NDVI and slope, for comparison: F1 {score.rule.f1:.2f} by object")
    say(
        "The landscape is synthetic, and the models were trained on such landscapes: "
        "these figures say nothing about real scenes."
    )
    say(f"\nResults:       {results}\nPicture:       {results / 'thumbnail.jpg'}")
    say(f"Truth:         {folder / 'truth.gpkg'}\nConfiguration: {config}")
