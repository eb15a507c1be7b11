"""What the bundled models say of a small landscape, as remembered; a change of code must not change it unnoticed.

    uv run python -m tests.golden

remakes `tests/golden.json`, after the models themselves have changed.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from darts.demo import bundled_models, generate_landscape, load_demo_tile, write_demo_data
from darts_segmentation import SMPSegmenter

FILE = Path(__file__).with_name("golden.json")
BLOCK_PX = 16


def small_tile(folder: Path) -> xr.Dataset:
    """Return a landscape that no model was trained on, with all bands."""
    return load_demo_tile(write_demo_data(generate_landscape(9001, 256), folder))


def means_of_blocks(probabilities: xr.DataArray) -> np.ndarray:
    """Return the mean probability of each block of 16 × 16 pixels, NaN where none is valid."""
    values = probabilities.values.astype("float64")
    rows, columns = (size // BLOCK_PX for size in values.shape)
    blocks = values.reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    valid = np.isfinite(blocks).sum(axis=(1, 3))
    return np.where(valid, np.nansum(blocks, axis=(1, 3)) / np.maximum(valid, 1), np.nan)


def remembered() -> dict[str, np.ndarray]:
    """Return the means of blocks by model."""
    return {name: np.array(values, "float64") for name, values in json.loads(FILE.read_text(encoding="utf-8")).items()}


def remake() -> None:
    """Write the file anew."""
    with tempfile.TemporaryDirectory() as folder:
        tile = small_tile(Path(folder))
        found = {
            name: np.round(means_of_blocks(SMPSegmenter(path, "cpu").segment_tile(tile).probabilities), 4).tolist()
            for name, path in sorted(bundled_models().items())
        }
    rows = {name: "[\n" + ",\n".join(json.dumps(row) for row in values) + "\n]" for name, values in found.items()}
    rows = {name: text.replace("NaN", "null") for name, text in rows.items()}
    FILE.write_text("{\n" + ",\n".join(f'"{name}": {text}' for name, text in rows.items()) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    remake()
