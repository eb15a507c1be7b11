import numpy as np
import pytest

from darts_utils.coarse import sample_coarsely


def bent(bend):
    return lambda cols, rows: np.stack([bend * cols**2 + rows, cols * rows * 0.1, np.hypot(cols, rows + 50)])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (257, 1), (74, 74), (256, 513), (700, 300)])
@pytest.mark.parametrize("bend", [0, 1e-6, 1e-3])
def test_the_error_stays_within_the_tolerance_everywhere(shape, bend):
    field = sample_coarsely(bent(bend), shape, tolerance=0.01)
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    exact = bent(bend)(*(part.astype(float) for part in np.meshgrid(cols, rows)))
    assert field.at(rows, cols).shape == (3, *shape)
    assert np.abs(field.at(rows, cols) - exact).max() < 0.01


def test_smooth_functions_need_few_nodes_and_bent_ones_more():
    few = sample_coarsely(lambda c, r: np.stack([c + r]), (2000, 2000), tolerance=0.01)
    more = sample_coarsely(lambda c, r: np.stack([1e-3 * c**2 + r]), (2000, 2000), tolerance=0.01)
    assert few.cell_rows > 100
    assert 1 < more.cell_cols < 16


def test_a_jump_is_met_exactly_at_every_pixel():
    jump = lambda c, r: np.stack([np.where(c + r > 60.5, 180.0, -180.0)])  # noqa: E731
    field = sample_coarsely(jump, (50, 70), tolerance=0.01)
    rows, cols = np.arange(50), np.arange(70)
    assert (field.cell_rows, field.cell_cols) == (1, 1)
    assert np.array_equal(field.at(rows, cols), jump(*np.meshgrid(cols, rows)))
