import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"(?<!fragment -->\n)```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_example_of_writing_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(EXAMPLES[1], names)
    assert names["tile"]["nir"].values == pytest.approx(0.08)
    assert (names["elevation"]["dem"] == 300).all()
    assert names["tile"]["quality_data_mask"].min() == 2


def test_the_example_of_importing_runs_on_a_file_of_seven_bands(tmp_path, monkeypatch):
    import numpy as np
    import rasterio

    monkeypatch.chdir(tmp_path)
    profile = {"count": 7, "height": 8, "width": 9, "dtype": "uint16", "crs": "EPSG:32608"}
    transform = rasterio.Affine(10, 0, 471_000, 0, -10, 7_545_000)
    with rasterio.open("clip.tif", "w", driver="GTiff", transform=transform, **profile) as target:
        target.write(np.arange(1, 8, dtype="uint16")[:, None, None].repeat(8, 1).repeat(9, 2) * 100)
    names: dict = {}
    exec(EXAMPLES[0], names)
    assert names["tile"]["nir"].values == pytest.approx(0.07)
