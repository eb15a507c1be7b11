"""A dataset of patches as it should be, a copy to be damaged, and whether two are the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from geopandas.testing import assert_geodataframe_equal

from darts_segmentation.training.patch_dataset import PatchDataset

from .patch_samples import write_samples


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of six samples: 4, 1, 2 and 3 patches, a failed one, and an empty one."""
    folder = tmp_path_factory.mktemp("good") / "patches"
    write_samples(folder, 6)
    return folder


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    """The same, to be damaged at will."""
    return Path(shutil.copytree(good, tmp_path / "copy"))


def assert_same(one: Path, other: Path) -> None:
    """Tables, arrays and names of files are the same."""
    first, second = PatchDataset.open(one), PatchDataset.open(other)
    assert first.form == second.form
    assert_geodataframe_equal(first.metadata, second.metadata)
    assert_geodataframe_equal(first.samples, second.samples)
    for index in range(len(first)):
        for mine, theirs in zip(first.read(index), second.read(index), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (one, other)]
    assert files[0] == files[1]
