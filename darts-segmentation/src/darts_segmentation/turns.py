"""The eight ways in which an image can be laid (flips and quarter turns), and what they make of directions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from darts_utils.arrays import array_namespace
from darts_utils.errors import ConfigError

DIRECTIONS = frozenset({"aspect"})
"""Bands whose values are degrees clockwise from north, and so change where the image is turned."""


@dataclass(frozen=True)
class Turn:
    """A way to lay an image: mirrored left to right or not, then turned counterclockwise by quarters."""

    quarters: int = 0
    mirrored: bool = False

    def of(self, images: Any) -> Any:
        """Return images (batch, y, x, …) turned, as a view; odd quarters swap their sides."""
        straight = images[:, :, ::-1] if self.mirrored else images
        return array_namespace(images).rot90(straight, self.quarters, axes=(1, 2))

    def undone(self, images: Any) -> Any:
        """Return turned images (batch, y, x, …) as they were, as a view."""
        straight = array_namespace(images).rot90(images, -self.quarters, axes=(1, 2))
        return straight[:, :, ::-1] if self.mirrored else straight

    def of_directions(self, degrees: Any) -> Any:
        """Return what directions, degrees clockwise from north, are in the turned image: 0 to 360, NaN stays NaN.

        The values alone change, not their places. North turns with the image where it is not straight up: what comes
        out is true of a place whose meridians lean as much, and to the other side where the image is mirrored.
        """
        if self == AS_IS:
            return degrees
        clockwise = degrees.astype(np.float32)
        return ((-clockwise if self.mirrored else clockwise) - np.float32(90 * self.quarters)) % np.float32(360)


AS_IS = Turn()
"""The image as it is."""

EIGHT_TURNS = tuple(Turn(quarters, mirrored) for mirrored in (False, True) for quarters in range(4))
"""All ways to lay an image, as it is first."""


def turns_for(augment: bool, bands: Iterable[str], terrain_convention: str) -> tuple[Turn, ...]:
    """Return the eight turns to `augment` a network of these bands, else the image as it is alone.

    Raises:
        ConfigError: a direction band is of a convention in which it is no compass direction.
    """
    if not augment:
        return (AS_IS,)
    turned = DIRECTIONS.intersection(bands)
    if turned and terrain_convention != "true-north":
        raise ConfigError(
            f"augment cannot turn {', '.join(sorted(turned))} of terrain convention {terrain_convention!r}, which is "
            "no compass direction; leave augment off for this model"
        )
    return EIGHT_TURNS
