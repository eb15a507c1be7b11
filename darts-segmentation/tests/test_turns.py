"""Eight turns of patches: directions turn with them, and a turned network sees the turned terrain."""

import numpy as np
import pytest

from darts_segmentation.inference import Reader, predict_planes
from darts_segmentation.patches import PatchOptions
from darts_segmentation.turns import AS_IS, EIGHT_TURNS, Turn, turns_for
from darts_utils.errors import ConfigError

from .patchwise import ArrayRows
from .test_inference import put_back, turned_by_hand


def aspect_of(dem: np.ndarray) -> np.ndarray:
    """Direction of the steepest descent on a north-up grid without convergence (Horn 1981), NaN on flat ground."""
    z = np.pad(dem, 1, mode="edge")
    weights = np.array([1, 2, 1])
    shape = dem.shape
    east = sum(
        w * (z[i : i + shape[0], 2:] - z[i : i + shape[0], :-2]) for i, w in enumerate(weights)
    )  # fmt: skip
    south = sum(w * (z[2:, i : i + shape[1]] - z[:-2, i : i + shape[1]]) for i, w in enumerate(weights))
    aspect = np.degrees(np.arctan2(-east, south)) % 360
    return np.where((east == 0) & (south == 0), np.nan, aspect).astype(np.float32)


def faces_up(patches: np.ndarray) -> np.ndarray:
    """How much a slope faces up the image, and a little of where it is in the patch."""
    facing = (np.cos(patches[..., 0] * np.float32(2 * np.pi)) + 1) / 2
    down = np.linspace(0, 1, patches.shape[1], dtype=np.float32)[:, None]
    right = np.linspace(0, 1, patches.shape[2], dtype=np.float32)
    return facing * np.float32(0.8) + down * np.float32(0.1) + right * np.float32(0.05)


def dems() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:28, :40]
    # Whole numbers: what is flat is flat in every order of summing.
    return {
        "north": y, "east": -x, "south": -y, "west": x, "southeast": -x - y, "steep": 3 * x - 2 * y,
        "flat": 0 * x, "rough": np.random.default_rng(0).integers(0, 50, x.shape), "terrace": np.maximum(x + y - 30, 0),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(dems()))
@pytest.mark.parametrize("turn", EIGHT_TURNS)
@pytest.mark.parametrize("options", [PatchOptions(), PatchOptions(patch_size=16, overlap=4, batch_size=3)])
def test_a_turned_network_sees_the_aspect_of_the_turned_terrain(name: str, turn: Turn, options: PatchOptions) -> None:
    dem = dems()[name]
    reader = Reader(bands=("aspect",), asked=("height",), predict=faces_up)

    def scene(heights: np.ndarray) -> ArrayRows:
        return ArrayRows({"aspect": aspect_of(heights), "height": heights})

    ((turned_network,),) = predict_planes([scene(dem)], [reader], options, turns=[turn])
    ((turned_scene,),) = predict_planes([scene(turned_by_hand(dem, turn))], [reader], options)
    np.testing.assert_allclose(turned_network, put_back(turned_scene, turn, dem.shape), rtol=0, atol=2e-6)


def test_directions_of_the_compass_are_turned() -> None:
    north_east_south_west = np.array([0, 90, 180, 270, 45, np.nan], np.float32)
    nan = np.nan
    for turn, wanted in {
        AS_IS: [0, 90, 180, 270, 45, nan],
        Turn(1): [270, 0, 90, 180, 315, nan],
        Turn(2): [180, 270, 0, 90, 225, nan],
        Turn(0, mirrored=True): [0, 270, 180, 90, 315, nan],
        Turn(2, mirrored=True): [180, 90, 0, 270, 135, nan],
    }.items():
        np.testing.assert_array_equal(turn.of_directions(north_east_south_west), np.float32(wanted))
    whole = np.array([[1, 200]], np.uint16)
    np.testing.assert_array_equal(Turn(1, mirrored=True).of_directions(whole), [[269, 70]])


@pytest.mark.parametrize("turn", EIGHT_TURNS)
def test_turns_are_undone_without_a_copy(turn: Turn) -> None:
    images = np.random.default_rng(0).random((2, 5, 3, 4))
    turned = turn.of(images)
    np.testing.assert_array_equal(turned[1, :, :, 2], turned_by_hand(images[1, :, :, 2], turn))
    np.testing.assert_array_equal(turn.undone(turned), images)
    assert np.shares_memory(turn.undone(turned), images)


def test_eight_turns_are_eight() -> None:
    corner = np.arange(4).reshape(1, 2, 2)
    assert len({turn.of(corner).tobytes() for turn in EIGHT_TURNS}) == 8
    assert EIGHT_TURNS[0] == AS_IS
    assert turns_for(False, ("aspect",), "legacy") == (AS_IS,)
    assert turns_for(True, ("red",), "legacy") == turns_for(True, ("aspect",), "true-north") == EIGHT_TURNS
    with pytest.raises(ConfigError, match="augment cannot turn aspect of terrain convention 'legacy'"):
        turns_for(True, ("red", "aspect"), "legacy")
