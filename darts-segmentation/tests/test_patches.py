import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_segmentation.patches import (
    PatchOptions,
    blend_weights,
    mirrored,
    patch_starts,
    plan_spans,
)
from darts_utils.errors import ConfigError, DartsError

from .patchwise import predict_in_patches

modest = settings(max_examples=50, deadline=None)


@st.composite
def patch_options(draw: st.DrawFn) -> PatchOptions:
    patch_size = draw(st.integers(1, 40))
    return PatchOptions(
        patch_size=patch_size,
        overlap=draw(st.integers(0, patch_size - 1)),
        reflection=draw(st.one_of(st.just(0), st.integers(0, 60))),
        batch_size=draw(st.integers(1, 5)),
    )


def identity(patches: Any) -> Any:
    return patches[..., 0].copy()


def run(image: np.ndarray, predict: Callable[[Any], Any], options: PatchOptions, **network: Any) -> np.ndarray:
    """The network sees an image of 0 … 1 as it is: that is the range of hillshade."""
    valid = np.isfinite(image)
    return predict_in_patches({"hillshade": image}, valid, predict, options, **network)[0]


def blended_by_definition(
    answers: list[np.ndarray], starts: list[tuple[int, int]], shape: tuple[int, int], overlap: int
) -> np.ndarray:
    """SPEC 7 in loops: separable weights, sum of weight × answer over sum of weights, in float64."""
    total, weights = np.zeros(shape), np.zeros(shape)
    for answer, (top, left) in zip(answers, starts, strict=True):
        height, width = answer.shape
        for i in range(height):
            for j in range(width):
                weight = min(1, (i + 1) / (overlap + 1), (height - i) / (overlap + 1))
                weight *= min(1, (j + 1) / (overlap + 1), (width - j) / (overlap + 1))
                total[top + i, left + j] += weight * answer[i, j]
                weights[top + i, left + j] += weight
    return total / weights


@modest
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), options=patch_options(), stride=st.sampled_from([1, 2, 7, 32])
)
def test_an_identity_model_rebuilds_its_input(height: int, width: int, options: PatchOptions, stride: int) -> None:
    image = np.random.default_rng(height * 100 + width).random((height, width), np.float32)
    np.testing.assert_allclose(run(image, identity, options, stride=stride), image, rtol=0, atol=1e-6)


@modest
@given(height=st.integers(1, 90), width=st.integers(1, 90), options=patch_options())
def test_a_constant_model_gives_its_constant_everywhere(height: int, width: int, options: PatchOptions) -> None:
    found = run(
        np.zeros((height, width), np.float32), lambda patches: np.full(patches.shape[:3], 0.3, np.float32), options
    )
    np.testing.assert_allclose(found, 0.3, rtol=0, atol=1e-6)


def test_overlap_of_all_but_one_pixel_adds_up_no_rounding_errors() -> None:
    options = PatchOptions(patch_size=64, overlap=63)
    image = np.random.default_rng(0).random((150, 150), np.float32)
    assert np.abs(run(image, identity, options) - image).max() <= 1e-6


def test_blend_weights_are_those_of_the_formula() -> None:
    np.testing.assert_allclose(blend_weights(6, 2), [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3])
    np.testing.assert_allclose(blend_weights(4, 0), [1, 1, 1, 1])
    np.testing.assert_allclose(blend_weights(4, 3), [1 / 4, 2 / 4, 2 / 4, 1 / 4])
    np.testing.assert_allclose(blend_weights(1, 0), [1])


@modest
@given(height=st.integers(1, 30), width=st.integers(1, 30), patch_size=st.integers(1, 12), data=st.data())
def test_patches_that_disagree_are_blended_as_the_formula_says(
    height: int, width: int, patch_size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, patch_size - 1))
    options = PatchOptions(patch_size=patch_size, overlap=overlap, batch_size=3)
    random = np.random.default_rng(1)
    answers: list[np.ndarray] = []

    def predict(patches: np.ndarray) -> np.ndarray:
        answer = random.random(patches.shape[:3], np.float32)
        answers.extend(answer)
        return answer

    found = run(np.zeros((height, width), np.float32), predict, options)
    starts = [
        (top, left)
        for top in patch_starts(height, patch_size, overlap)
        for left in patch_starts(width, patch_size, overlap)
    ]
    wanted = blended_by_definition(answers, starts, (height, width), overlap)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


@modest
@given(size=st.integers(1, 5000), patch_size=st.integers(1, 300), data=st.data())
def test_starts_cover_the_axis_with_the_fewest_patches(size: int, patch_size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, patch_size - 1))
    starts = patch_starts(size, patch_size, overlap)
    assert starts[0] == 0
    assert size <= patch_size or starts[-1] + patch_size == size
    shared = [first + patch_size - second for first, second in itertools.pairwise(starts)]
    assert all(overlap <= pixels < patch_size for pixels in shared)
    # One patch fewer could not cover the axis, even with no more than the overlap shared.
    fewer = len(starts) - 1
    assert fewer == 0 or fewer * patch_size - (fewer - 1) * overlap < size


@pytest.mark.parametrize(
    ("size", "patches"), [(1, 1), (1024, 1), (1025, 2), (1792, 2), (2560, 3), (4096, 5), (10980, 14)]
)
def test_no_row_of_patches_too_many(size: int, patches: int) -> None:
    assert len(plan_spans(size, PatchOptions(), stride=32)) == patches


@modest
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    reflection=st.integers(0, 50),
    stride=st.sampled_from([1, 4, 32]),
)
def test_padding_mirrors_the_tile(height: int, width: int, reflection: int, stride: int) -> None:
    image = np.random.default_rng(0).random((height, width), np.float32)
    seen: list[np.ndarray] = []

    def predict(patches: np.ndarray) -> np.ndarray:
        seen.append(patches[0, :, :, 0].copy())
        return identity(patches)

    run(image, predict, PatchOptions(patch_size=1024, reflection=reflection), stride=stride)
    padded = np.pad(image, reflection, mode="reflect")
    more = [(0, -side % stride) for side in padded.shape]
    np.testing.assert_array_equal(seen[0], np.pad(padded, more, mode="reflect"))


@given(size=st.integers(1, 9), shift=st.integers(-30, 30))
def test_mirrored_positions_are_those_of_numpy(size: int, shift: int) -> None:
    padded = np.pad(np.arange(size), 40, mode="reflect")
    assert mirrored(np.array([shift]), size)[0] == padded[40 + shift]


def test_a_small_tile_is_padded_to_the_stride_and_no_further() -> None:
    shapes = []

    def predict(patches: np.ndarray) -> np.ndarray:
        shapes.append(patches.shape)
        return identity(patches)

    run(np.zeros((37, 53), np.float32), predict, PatchOptions(), stride=32)
    run(np.zeros((37, 53), np.float32), predict, PatchOptions(), stride=16, least=128)
    run(np.zeros((37, 53), np.float32), predict, PatchOptions(patch_size=40, overlap=8), stride=32)
    assert shapes == [(1, 64, 64, 1), (1, 128, 128, 1), (2, 64, 64, 1)]


def test_patches_without_a_valid_pixel_are_not_predicted() -> None:
    image = np.full((64, 64), np.nan, np.float32)
    image[3, 5] = 0.25
    shown = []

    def predict(patches: np.ndarray) -> np.ndarray:
        shown.extend(patches)
        return identity(patches)

    options = PatchOptions(patch_size=16, overlap=0)
    found, planned, predicted = predict_in_patches({"hillshade": image}, np.isfinite(image), predict, options)
    assert (planned, predicted, len(shown)) == (16, 1, 1)
    assert found[3, 5] == np.float32(0.25)
    assert np.isnan(found).sum() == 64 * 64 - 1


@modest
@given(height=st.integers(1, 60), width=st.integers(1, 60), options=patch_options(), share=st.floats(0, 1))
def test_gaps_leave_all_other_pixels_of_an_identity_model_alone(
    height: int, width: int, options: PatchOptions, share: float
) -> None:
    random = np.random.default_rng(height + 7 * width)
    image = random.random((height, width), np.float32)
    # Gaps of 5 × 5 blocks, so that whole patches are empty as well.
    gaps = np.kron(random.random((12, 12)) < share, np.ones((5, 5), bool))[:height, :width]
    image[gaps] = np.nan
    np.testing.assert_allclose(run(image, identity, options), image, rtol=0, atol=1e-6, equal_nan=True)


def test_a_network_sees_gaps_as_zero_and_ranges_as_the_checkpoint_says() -> None:
    bands = {"red": np.array([[0.1, np.nan]], np.float32), "tc_wetness": np.array([[51, 255]], np.uint8)}
    seen = []

    def predict(patches: np.ndarray) -> np.ndarray:
        seen.append(patches.copy())
        return identity(patches)

    predict_in_patches(bands, np.array([[True, False]]), predict, PatchOptions(), limits={"tc_wetness": (0, 102)})
    np.testing.assert_allclose(seen[0][0], [[[1 / 3, 0.5], [0, 1]]], atol=1e-6)


def test_extra_memory_stays_at_three_planes_and_two_batches() -> None:
    bands = {name: np.zeros((1200, 1200), np.float32) for name in ("red", "green", "blue", "nir", "ndvi", "slope")}
    valid = np.ones((1200, 1200), bool)
    options = PatchOptions(patch_size=256, overlap=64, batch_size=2)
    tracemalloc.start()
    predict_in_patches(bands, valid, identity, options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    plane, batch = 1200 * 1200 * 4, 2 * 256 * 256 * 6 * 4
    assert peak <= 3 * plane + 2 * batch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 0}, "patch_size"),
        ({"patch_size": 64.0}, "patch_size"),
        ({"patch_size": True}, "patch_size"),
        ({"overlap": -1}, "overlap"),
        ({"patch_size": 64, "overlap": 64}, r"overlap must be smaller than patch_size \(64\), got 64"),
        ({"batch_size": 0}, "batch_size"),
        ({"reflection": -1}, "reflection"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PatchOptions(**options)
    assert isinstance(caught.value, DartsError)
