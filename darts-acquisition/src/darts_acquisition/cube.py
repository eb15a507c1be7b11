"""A cube: rasters of one source grid, sparse on disk, filled chunk by chunk in transactions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterio import Affine

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

FILLED = "filled"
CHUNK_PX = 3600
FETCH_COMMAND = "darts prepare-data sentinel2 --aux"


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
    ) -> "Cube":
        """Make an empty cube and return it; it appears whole or not at all.

        Args:
            path: its folder, such as `arcticdem_10m.icechunk`.
            geobox: the whole source grid, north-up with a CRS.
            variables: name → (dtype, nodata value).
            chunk: side of a chunk in pixels.

        Raises:
            ConfigError: the cube exists, or a parameter cannot work.
            StoreError: the folder cannot be written.
        """
        import zarr

        path = Path(path)
        a, b, _, d, e, _ = geobox.affine[:6]
        if geobox.crs is None or b or d or a <= 0 or e >= 0:
            raise ConfigError(f"the grid of cube {path} needs a CRS and must be north-up, got {geobox!r}")
        if chunk < 1 or not variables or FILLED in variables:
            raise ConfigError(f"cube {path} needs a chunk of at least 1 pixel and variables other than {FILLED!r}")
        with locked(path):
            remove_leftovers(path)
            if path.exists():
                raise ConfigError(f"cube {path} exists already; open it with Cube.open")
            with replacing(path) as temporary:
                session = _repository(temporary, create=True).writable_session("main")
                attrs = {
                    "crs": geobox.crs.to_wkt(),
                    "transform": list(geobox.affine[:6]),
                    "shape": list(geobox.shape.yx),
                    "chunk": chunk,
                }
                group = zarr.create_group(session.store, attributes=attrs)
                for name, (dtype, nodata) in variables.items():
                    _create_array(group, name, geobox.shape.yx, chunk, dtype, nodata)
                cells = tuple(-(-side // chunk) for side in geobox.shape.yx)
                group.create_array(
                    FILLED, shape=cells, chunks=tuple(min(256, n) for n in cells), dtype="uint8", fill_value=0
                )
                session.commit("Lay out the grid")
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
            group = _group(path)
            attrs = dict(group.attrs)
            geobox = GeoBox(tuple(attrs["shape"]), Affine(*attrs["transform"]), attrs["crs"])
            arrays = {name: array for name, array in group.arrays() if name != FILLED}
            nodata = {name: array.fill_value.item() for name, array in arrays.items()}
            dtypes = {name: array.dtype for name, array in arrays.items()}
            shapes = {array.shape for array in arrays.values()}
            if shapes != {geobox.shape.yx} or FILLED not in group:
                raise ValueError(f"its arrays have the shapes {sorted(shapes)}")
            return cls(path, geobox, int(attrs["chunk"]), nodata, dtypes)
        except Exception as error:
            # Icechunk, zarr, CRS and number parsing each raise types of their own; all mean the same here.
            raise StoreError(f"cube {path} is damaged or no cube of darts ({_first_line(error)})") from error

    def read(self, target: GeoBox, buffer_px: int = 0, *, fetch_command: str = FETCH_COMMAND) -> xr.Dataset:
        """Return the pixels that cover `target` and `buffer_px` more on each side, in the cube's CRS and dtypes.

        Only chunks that the window touches are read. Beyond the source grid values are nodata. Across the antimeridian
        longitudes run on (179.5 … 180.5).

        Args:
            target: any grid in any CRS.
            buffer_px: pixels of the cube.
            fetch_command: what the error advises to run.

        Raises:
            MissingDataError: a chunk was never filled; names the area and `fetch_command`.
            StoreError: a chunk is damaged.
        """
        window = window_of(target, self.geobox, buffer_px)
        group = _group(self.path)
        parts = list(parts_on_grid(window, self.geobox))
        self._require_filled(group[FILLED], parts, fetch_command)
        values = {name: self._read_parts(group[name], window, parts) for name in self.nodata}
        geobox = geobox_of(window, self.geobox)
        return xr.Dataset(
            {name: (("y", "x"), data, {"nodata": self.nodata[name]}) for name, data in values.items()},
            coords=xr_coords(geobox, dims=("y", "x")),
        )

    def missing(self, target: GeoBox, buffer_px: int = 0) -> list[GeoBox]:
        """Return the chunks that reading `target` needs and that were never filled."""
        parts = list(parts_on_grid(window_of(target, self.geobox, buffer_px), self.geobox))
        return [geobox_of(chunk, self.geobox) for chunk, _ in self._unfilled(_group(self.path)[FILLED], parts)]

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

    def write(self, dataset: xr.Dataset, *, pad: bool = False, message: str = "Fill chunks") -> None:
        """Write a block of pixels and mark its chunks as filled; visible to others when this returns, all or nothing.

        Args:
            dataset: all variables of the cube, dims (y, x), on pixels of the cube, covering whole chunks (see
                `aligned`; at the end of the grid, what there is of them).
            pad: allow partly covered chunks; their other pixels stay as they are, nodata at first.
            message: kept in the history.

        Raises:
            GridMismatchError: the block is not on the cube's pixels, or covers a chunk in part.
            MissingBandError, ConfigError: a variable is missing, or has a dtype that loses values.
        """
        window = self._window_on_grid(dataset)
        if not pad and self.aligned(dataset.odc.geobox) != geobox_of(window, self.geobox):
            raise GridMismatchError(
                f"the block covers chunks of cube {self.path} in part; write the area of cube.aligned(…), or pass "
                "pad=True to leave the rest nodata"
            )
        blocks = {name: self._block(dataset, name) for name in self.nodata}
        first_row, first_column = window.rows[0] // self.chunk_px, window.columns[0] // self.chunk_px
        end_row, end_column = -(-window.rows[1] // self.chunk_px), -(-window.columns[1] // self.chunk_px)
        # Icechunk on a local file system is not safe for concurrent commits.
        with locked(self.path):
            try:
                session = _repository(self.path).writable_session("main")
                group = _group(self.path, session)
                for name, block in blocks.items():
                    group[name][slice(*window.rows), slice(*window.columns)] = block
                group[FILLED][first_row:end_row, first_column:end_column] = 1
                session.commit(message)
            except DartsError:
                raise
            except Exception as error:
                raise StoreError(
                    f"cannot write cube {self.path} ({_first_line(error)}); nothing was changed"
                ) from error

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

    def _read_parts(self, array: Any, window: PixelWindow, parts: list[tuple[PixelWindow, int]]) -> np.ndarray:
        try:
            if len(parts) == 1 and parts[0][0].shape == window.shape:
                part = parts[0][0]
                return np.asarray(array[slice(*part.rows), slice(*part.columns)])
            values = np.full(window.shape, array.fill_value, array.dtype)
            for part, column in parts:
                row = part.rows[0] - window.rows[0]
                height, width = part.shape
                values[row : row + height, column : column + width] = array[slice(*part.rows), slice(*part.columns)]
            return values
        except Exception as error:
            # Icechunk, zarr and codecs each have errors of their own.
            raise self._damaged(array.basename, [part for part, _ in parts], error) from error

    def _damaged(self, name: str, parts: list[PixelWindow], error: Exception) -> StoreError:
        return StoreError(
            f"cube {self.path}, {name}: a chunk in {describe_area(parts, self.geobox)} is damaged "
            f"({_first_line(error)}). Remove the cube and fetch it again."
        )

    def _unfilled(self, filled: Any, parts: list[tuple[PixelWindow, int]]) -> Iterator[tuple[PixelWindow, PixelWindow]]:
        """Yield each chunk that was never filled, with the pixels of it that are needed."""
        chunk = self.chunk_px
        for part, _ in parts:
            rows = range(part.rows[0] // chunk, -(-part.rows[1] // chunk))
            columns = range(part.columns[0] // chunk, -(-part.columns[1] // chunk))
            try:
                flags = filled[rows.start : rows.stop, columns.start : columns.stop]
            except Exception as error:
                raise self._damaged(FILLED, [part], error) from error
            for i, j in np.argwhere(flags == 0):
                top, left = (rows.start + int(i)) * chunk, (columns.start + int(j)) * chunk
                bottom, right = min(top + chunk, self.geobox.shape.y), min(left + chunk, self.geobox.shape.x)
                whole = PixelWindow((top, bottom), (left, right))
                yield whole, whole.clipped(part.rows, part.columns)

    def _require_filled(self, filled: Any, parts: list[tuple[PixelWindow, int]], fetch_command: str) -> None:
        needed = [pixels for _, pixels in self._unfilled(filled, parts)]
        if needed:
            chunks = "1 chunk" if len(needed) == 1 else f"{len(needed)} chunks"
            raise MissingDataError(
                f"cube {self.path} lacks {describe_area(needed, self.geobox)} ({chunks} never filled); "
                f"fetch it on a machine with internet with `{fetch_command}`"
            )


def _create_array(group: Any, name: str, shape: tuple[int, int], chunk: int, dtype: str, nodata: float) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    group.create_array(
        name,
        shape=shape,
        chunks=(chunk, chunk),
        dtype=dtype,
        fill_value=nodata,
        # The checksum makes a damaged chunk an error instead of wrong numbers.
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
        dimension_names=("y", "x"),
    )


def _repository(path: Path, *, create: bool = False) -> Any:
    import icechunk

    # Icechunk warns at each opening that local commits are not safe to run at once; ours hold a lock.
    icechunk.set_logs_filter("error")
    storage = icechunk.local_filesystem_storage(str(path))
    return icechunk.Repository.create(storage) if create else icechunk.Repository.open(storage)


def _group(path: Path, session: Any = None) -> Any:
    import zarr

    if session is not None:
        return zarr.open_group(session.store, mode="r+")
    return zarr.open_group(_repository(path).readonly_session("main").store, mode="r")


def _first_line(error: Exception) -> str:
    lines = [line.strip(" x|") for line in str(error).strip().splitlines()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
