"""A cube: rasters of one source grid, sparse on disk, filled chunk by chunk in transactions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from darts_acquisition.chunk_selection import ChunkIndex, Target, chunk_geobox, chunk_window, chunks_of
from darts_acquisition.cube_layout import FILLED, create_layout, open_group, read_layout, reason, repository
from darts_acquisition.footprints import PixelWindow, describe_area, geobox_of, parts_on_grid, window_of
from darts_acquisition.locks import locked
from darts_utils.errors import (
    ConfigError,
    DartsError,
    GridMismatchError,
    MissingBandError,
    MissingDataError,
    StoreError,
)
from darts_utils.store import remove_leftovers, replacing

CHUNK_PX = 3600
FETCH = "`darts prepare-data sentinel2 --aux`"
READERS = 4
"""Chunks decoded at once; each takes its size in memory beside the result."""


@dataclass(frozen=True)
class Cube:
    """A cube on disk; `Cube.create` makes one, `Cube.open` opens it. A value: it holds no file open."""

    path: Path
    geobox: GeoBox
    """The whole source grid."""
    chunk_px: int
    nodata: Mapping[str, float]
    """Variable → value of pixels that have none."""
    dtypes: Mapping[str, np.dtype]
    """Variable → dtype."""

    @classmethod
    def create(
        cls,
        path: Path | str,
        geobox: GeoBox,
        variables: Mapping[str, tuple[str, float]],
        chunk: int = CHUNK_PX,
        *,
        exist_ok: bool = False,
    ) -> "Cube":
        """Make an empty cube and return it; it appears whole or not at all.

        Args:
            path: its folder, such as `arcticdem_10m.icechunk`.
            geobox: the whole source grid, north-up with a CRS.
            variables: name → (dtype, nodata value).
            chunk: side of a chunk in pixels.
            exist_ok: return the one that is there, whatever made it, instead of an error.

        Raises:
            ConfigError: the cube exists, or a parameter cannot work.
            StoreError: the folder cannot be written.
        """
        path = Path(path)
        a, b, _, d, e, _ = geobox.affine[:6]
        if geobox.crs is None or b or d or a <= 0 or e >= 0:
            raise ConfigError(f"the grid of cube {path} needs a CRS and must be north-up, got {geobox!r}")
        if chunk < 1 or not variables or FILLED in variables:
            raise ConfigError(f"cube {path} needs a chunk of at least 1 pixel and variables other than {FILLED!r}")
        with locked(path):
            if exist_ok and path.exists():
                return cls.open(path)
            remove_leftovers(path)
            if path.exists():
                raise ConfigError(f"cube {path} exists already; open it with Cube.open")
            with replacing(path) as temporary:
                try:
                    create_layout(temporary, geobox, variables, chunk)
                except Exception as error:
                    raise StoreError(f"cannot make cube {path} ({reason(error)}); nothing was left behind") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> "Cube":
        """Open a cube.

        Raises:
            MissingDataError: there is none at `path`.
            StoreError: it is damaged, or no cube of darts.
        """
        path = Path(path)
        if not (path / "refs").is_dir():
            raise MissingDataError(f"there is no cube at {path}")
        try:
            return cls(path, *read_layout(path))
        except Exception as error:
            # Icechunk, zarr, CRS and number parsing each raise types of their own; all mean the same here.
            raise StoreError(f"cube {path} is damaged or no cube of darts ({reason(error)})") from error

    def read(self, target: GeoBox, buffer_px: int = 0, *, fetch: str = FETCH) -> xr.Dataset:
        """Return the rectangle that covers `target` and `buffer_px` more on each side, in the cube's CRS and dtypes.

        Only chunks that the footprint and the buffer around it touch are read, and must be filled (`missing`). Pixels
        of the rectangle in other chunks, as at the corners where the target is turned against the cube, are nodata
        whatever the cube holds there: so the result depends on the target alone. Beyond the source grid values are
        nodata too. Across the antimeridian longitudes run on (179.5 … 180.5).

        Args:
            target: any grid in any CRS.
            buffer_px: pixels of the cube.
            fetch: what the error advises to fetch it with.

        Raises:
            MissingDataError: a chunk was never filled; names the area and `fetch`.
            StoreError: a chunk is damaged.
        """
        window = window_of(target, self.geobox, buffer_px)
        group = open_group(self.path)
        chunks = self._chunks(target, buffer_px)
        parts = list(parts_on_grid(window, self.geobox))
        if missing := self._unfilled(group[FILLED], chunks):
            raise self._missing_error(missing, [part for part, _ in parts], fetch)
        values = {name: np.full(window.shape, self.nodata[name], self.dtypes[name]) for name in self.nodata}
        pieces = [piece for part, column in parts for piece in self._pieces(chunks, part, window, column)]
        arrays = {name: group[name] for name in self.nodata}

        def copy(piece: tuple[str, tuple[PixelWindow, PixelWindow]]) -> None:
            name, (source, place) = piece
            values[name][_slices(place)] = self._read_piece(arrays[name], source)

        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(copy, [(name, piece) for name in self.nodata for piece in pieces]))
        return xr.Dataset(
            {name: (("y", "x"), data, {"nodata": self.nodata[name]}) for name, data in values.items()},
            coords=xr_coords(geobox_of(window, self.geobox), dims=("y", "x")),
        )

    def chunks_touching(self, target: Target, buffer_px: int = 0) -> list[GeoBox]:
        """Return the chunks with a pixel in or within `buffer_px` pixels of a target, row by row.

        Args:
            target: a geobox, a list of them, or areas as `areas.read_areas` takes them.
            buffer_px: pixels of the cube.
        """
        return [chunk_geobox(chunk, self.geobox, self.chunk_px) for chunk in self._chunks(target, buffer_px)]

    def missing(self, target: Target, buffer_px: int = 0) -> list[GeoBox]:
        """Return those of `chunks_touching` that were never filled: for a geobox, what `read` would miss."""
        missing = self._unfilled(open_group(self.path)[FILLED], self._chunks(target, buffer_px))
        return [chunk_geobox(chunk, self.geobox, self.chunk_px) for chunk in missing]

    def is_filled(self, block: GeoBox) -> bool:
        """Return whether all chunks of a block of pixels of the cube were filled."""
        return not self._unfilled(open_group(self.path)[FILLED], self._chunks(block, 0))

    def aligned(self, target: GeoBox, buffer_px: int = 0) -> GeoBox:
        """Return the smallest block of whole chunks that covers `target` and `buffer_px` pixels more; write such."""
        height, width = self.geobox.shape.yx
        window = window_of(target, self.geobox, buffer_px).clipped((0, height), (0, width))
        if window.is_empty:
            raise ConfigError(f"{target!r} lies outside the grid of cube {self.path}")
        chunk = self.chunk_px
        rows = (window.rows[0] // chunk * chunk, min(-(-window.rows[1] // chunk) * chunk, height))
        columns = (window.columns[0] // chunk * chunk, min(-(-window.columns[1] // chunk) * chunk, width))
        return geobox_of(PixelWindow(rows, columns), self.geobox)

    def write(
        self, dataset: xr.Dataset, *, pad: bool = False, only_missing: bool = False, message: str = "Fill chunks"
    ) -> bool:
        """Write a block of pixels and mark its chunks as filled; visible to others when this returns, all or nothing.

        Args:
            dataset: all variables of the cube, dims (y, x), on pixels of the cube, covering whole chunks (see
                `aligned`; at the end of the grid, what there is of them).
            pad: allow partly covered chunks; their other pixels stay as they are, nodata at first.
            only_missing: write nothing if all chunks of the block were filled meanwhile.
            message: kept in the history.

        Returns:
            Whether it was written.

        Raises:
            GridMismatchError: the block is not on the cube's pixels, or covers a chunk in part.
            MissingBandError, ConfigError: a variable is missing, or has a dtype that loses values.
            StoreError: the disk is full, or the cube cannot be written; it is as it was.
        """
        window = self._window_on_grid(dataset)
        if not pad and self.aligned(dataset.odc.geobox) != geobox_of(window, self.geobox):
            raise GridMismatchError(
                f"the block covers chunks of cube {self.path} in part; write the area of cube.aligned(…), or pass "
                "pad=True to leave the rest nodata"
            )
        blocks = {name: self._block(dataset, name) for name in self.nodata}
        cells = tuple(
            slice(start // self.chunk_px, -(-end // self.chunk_px)) for start, end in (window.rows, window.columns)
        )
        # Icechunk on a local file system is not safe for concurrent commits.
        with locked(self.path):
            try:
                session = repository(self.path).writable_session("main")
                group = open_group(self.path, session)
                if only_missing and np.all(group[FILLED][cells]):
                    return False
                for name, block in blocks.items():
                    group[name][_slices(window)] = block
                group[FILLED][cells] = 1
                session.commit(message)
                return True
            except DartsError:
                raise
            except Exception as error:
                raise StoreError(f"cannot write cube {self.path} ({reason(error)}); nothing was changed") from error

    def _chunks(self, target: Target, buffer_px: int) -> list[ChunkIndex]:
        return chunks_of(target, self.geobox, self.chunk_px, buffer_px)

    def _window_on_grid(self, dataset: xr.Dataset) -> PixelWindow:
        block = dataset.odc.geobox
        if block is None or block.crs != self.geobox.crs:
            raise GridMismatchError(f"the block has not the CRS of cube {self.path}: {block!r}")
        column, row = ~self.geobox.affine * (block.affine.c, block.affine.f)
        same_size = np.allclose(block.affine[:6:4], self.geobox.affine[:6:4], rtol=1e-6, atol=0)
        if not same_size or max(abs(column - round(column)), abs(row - round(row))) > 1e-3:
            raise GridMismatchError(f"the block is not on the pixels of cube {self.path}: {block!r}")
        window = PixelWindow(
            (round(row), round(row) + block.shape.y), (round(column), round(column) + block.shape.x)
        )  # fmt: skip
        if window.clipped((0, self.geobox.shape.y), (0, self.geobox.shape.x)) != window:
            raise GridMismatchError(f"the block reaches beyond the grid of cube {self.path}: {block!r}")
        return window

    def _block(self, dataset: xr.Dataset, name: str) -> np.ndarray:
        if name not in dataset:
            raise MissingBandError(f"the block lacks {name} of cube {self.path}; it has {', '.join(map(str, dataset))}")
        values = np.asarray(dataset[name].transpose(*dataset.odc.spatial_dims).data)
        if not np.can_cast(values.dtype, self.dtypes[name], "same_kind"):
            raise ConfigError(f"{name} of the block is {values.dtype}; cube {self.path} holds {self.dtypes[name]}")
        return values

    def _pieces(
        self, chunks: Iterable[ChunkIndex], part: PixelWindow, window: PixelWindow, column: int
    ) -> Iterator[tuple[PixelWindow, PixelWindow]]:
        """Yield what chunks share with a part of a window: pixels on the grid, and their place in the window."""
        down, right = window.rows[0], part.columns[0] - column
        for chunk in chunks:
            source = chunk_window(chunk, self.geobox, self.chunk_px).clipped(part.rows, part.columns)
            if not source.is_empty:
                (top, bottom), (left, end) = source.rows, source.columns
                yield source, PixelWindow((top - down, bottom - down), (left - right, end - right))

    def _read_piece(self, array: Any, source: PixelWindow) -> np.ndarray:
        try:
            return np.asarray(array[_slices(source)])
        except Exception as error:
            # Icechunk, zarr and codecs each have errors of their own.
            raise self._damaged(array.basename, [source], error) from error

    def _damaged(self, name: str, windows: Sequence[PixelWindow], error: Exception) -> StoreError:
        return StoreError(
            f"cube {self.path}, {name}: a chunk in {describe_area(windows, self.geobox)} is damaged "
            f"({reason(error)}). Remove the cube and fetch it again."
        )

    def _unfilled(self, filled: Any, chunks: list[ChunkIndex]) -> list[ChunkIndex]:
        """Return those chunks that were never filled."""
        if not chunks:
            return []
        low, high = np.min(chunks, axis=0), np.max(chunks, axis=0) + 1
        try:
            flags = filled[low[0] : high[0], low[1] : high[1]]
        except Exception as error:
            windows = [chunk_window(chunk, self.geobox, self.chunk_px) for chunk in chunks]
            raise self._damaged(FILLED, windows, error) from error
        return [(i, j) for i, j in chunks if not flags[i - low[0], j - low[1]]]

    def _missing_error(self, chunks: list[ChunkIndex], parts: list[PixelWindow], fetch: str) -> MissingDataError:
        windows = [chunk_window(chunk, self.geobox, self.chunk_px) for chunk in chunks]
        needed = [piece for w in windows for p in parts if not (piece := w.clipped(p.rows, p.columns)).is_empty]
        number = "1 chunk" if len(chunks) == 1 else f"{len(chunks)} chunks"
        return MissingDataError(
            f"cube {self.path} lacks {describe_area(needed, self.geobox)} ({number} never filled); "
            f"fetch it on a machine with internet with {fetch}"
        )


def _slices(window: PixelWindow) -> tuple[slice, slice]:
    return slice(*window.rows), slice(*window.columns)
