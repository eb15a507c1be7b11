"""SPEC 5: a scene takes the earliest cube not before its year + 1, else the newest."""

import pytest

from darts_acquisition import tcvis_cube_year


@pytest.mark.parametrize(
    ("scene_year", "cube"),
    [
        (1999, 2019), (2017, 2019), (2018, 2019), (2019, 2020), (2020, 2022), (2021, 2022), (2022, 2024),
        (2023, 2024), (2024, 2024), (2026, 2024), (2040, 2024),
    ],
)  # fmt: skip
def test_every_year_has_its_cube(scene_year, cube):
    assert tcvis_cube_year(scene_year) == cube
