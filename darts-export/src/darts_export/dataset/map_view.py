"""Which part of a hemisphere the map shows, and how it is turned."""

from dataclasses import dataclass

import numpy as np

from darts_export.dataset.planes import NORTH, project_points

SIDE_PX = 1400
LEAST_WIDTH_M = 20_000.0
MARGIN = 1.15


@dataclass(frozen=True)
class View:
    """A square of the plane on the picture, turned so that north is up in its middle."""

    plane: str
    turn: tuple[float, float]
    """Cosine and sine of the angle by which the plane is turned; (1, 0) where the places lie around the pole."""
    left: float
    top: float
    metres_a_px: float

    @classmethod
    def around(cls, plane: str, corners: np.ndarray, longitude: np.ndarray, latitude: np.ndarray) -> "View":
        """Return the view of all places: corners (n, 2) of what was seen, and slumps."""
        x, y = project_points(
            np.append(corners[:, 0], longitude), np.append(corners[:, 1], latitude), "EPSG:4326", plane
        )
        flat = np.stack([x, y], axis=1)
        low, high = (flat.min(axis=0), flat.max(axis=0)) if len(flat) else (np.zeros(2), np.zeros(2))
        holds_pole = ((low <= 0) & (high >= 0)).all()
        middle = (low + high) / 2
        distance = float(np.hypot(*middle))
        turn = (1.0, 0.0)
        if not holds_pole and distance > 0:
            # The pole goes straight above the middle, that of the south straight below.
            up = 1 if plane == NORTH else -1
            turn = (float(-up * middle[1] / distance), float(-up * middle[0] / distance))
            flat = _turned(flat, turn)
            low, high = flat.min(axis=0), flat.max(axis=0)
            middle = (low + high) / 2
        width = max(MARGIN * float((high - low).max()), LEAST_WIDTH_M)
        return cls(plane, turn, float(middle[0] - width / 2), float(middle[1] + width / 2), width / SIDE_PX)

    @property
    def width_m(self) -> float:
        """Side of the square."""
        return self.metres_a_px * SIDE_PX

    def pixels(self, longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return columns and rows of places."""
        flat = _turned(np.stack(project_points(longitude, latitude, "EPSG:4326", self.plane), axis=-1), self.turn)
        return (flat[..., 0] - self.left) / self.metres_a_px, (self.top - flat[..., 1]) / self.metres_a_px

    def places(self, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return longitude and latitude of pixels."""
        flat = np.stack([columns * self.metres_a_px + self.left, self.top - rows * self.metres_a_px], axis=-1)
        x, y = np.moveaxis(_turned(flat, (self.turn[0], -self.turn[1])), -1, 0)
        return project_points(x, y, self.plane, "EPSG:4326")


def _turned(points: np.ndarray, turn: tuple[float, float]) -> np.ndarray:
    cosine, sine = turn
    x, y = points[..., 0], points[..., 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
