"""How a cube lies on disk: an Icechunk repository with a sparse Zarr array a variable, and a flag for each chunk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox
from rasterio import Affine

FILLED = "filled"
"""Array with 1 for each chunk that was written."""
MANIFEST_CHUNKS = 16
"""Side of the block of chunks whose addresses share a file, in cubes of up to 256 × 256 chunks; larger ones have no
more files than that. Each commit writes the files of the blocks it touched anew: with one file for all, 1600 commits
took 950 MB, and that grows with the square of their number. With many files commits are slow (0.6 s for 5,000)."""


def create_layout(path: Path, geobox: GeoBox, variables: Mapping[str, tuple[str, float]], chunk: int) -> None:
    """Make the repository of an empty cube.

    Args:
        path: its folder, which must not exist.
        geobox: the whole source grid.
        variables: name → (dtype, nodata value).
        chunk: side of a chunk in pixels.
    """
    import zarr

    cells = tuple(-(-side // chunk) for side in geobox.shape.yx)
    session = repository(path, create=max(MANIFEST_CHUNKS, -(-max(cells) // 16))).writable_session("main")
    attrs = {
        "crs": str(geobox.crs.to_wkt()) if geobox.crs else None,
        "transform": list(geobox.affine[:6]),
        "shape": list(geobox.shape.yx),
        "chunk": chunk,
    }
    group = zarr.create_group(session.store, attributes=attrs)
    for name, (dtype, nodata) in variables.items():
        _create_array(group, name, geobox.shape.yx, chunk, dtype, nodata)
    group.create_array(FILLED, shape=cells, chunks=tuple(min(256, n) for n in cells), dtype="uint8", fill_value=0)
    session.commit("Lay out the grid")


def read_layout(path: Path) -> tuple[GeoBox, int, dict[str, float], dict[str, Any]]:
    """Return grid, side of a chunk, and nodata value and dtype of each variable of a cube.

    Raises:
        ValueError: it is laid out otherwise. What else is wrong raises errors of icechunk, zarr and their kin.
    """
    group = open_group(path)
    attrs = dict(group.attrs)
    if FILLED not in group:
        by_other = "loaded_patches" in attrs or "loaded_tiles" in attrs
        raise ValueError(
            "it is one of smart-geocubes, which notes source tiles in place of chunks; move it away and fetch again"
            if by_other
            else f"it has no array {FILLED!r}"
        )
    geobox = GeoBox(tuple(attrs["shape"]), Affine(*attrs["transform"]), attrs["crs"])
    # Zarr lists arrays in any order.
    arrays = {name: array for name, array in sorted(group.arrays(), key=lambda pair: pair[0]) if name != FILLED}
    shapes = {array.shape for array in arrays.values()}
    if shapes != {geobox.shape.yx}:
        raise ValueError(f"its arrays have the shapes {sorted(shapes)}")
    nodata = {name: array.fill_value.item() for name, array in arrays.items()}
    return geobox, int(attrs["chunk"]), nodata, {name: array.dtype for name, array in arrays.items()}


def repository(path: Path, *, create: int = 0) -> Any:
    """Open the repository of a cube, or make one; `create` is the side of the block of chunks that share a file."""
    import icechunk

    # Icechunk warns at each opening that local commits are not safe to run at once; ours hold a lock.
    icechunk.set_logs_filter("error")
    storage = icechunk.local_filesystem_storage(str(path))
    if not create:
        return icechunk.Repository.open(storage)
    config = icechunk.RepositoryConfig.default()
    splitting = icechunk.ManifestSplittingConfig.from_dict(
        {icechunk.ManifestSplitCondition.AnyArray(): {icechunk.ManifestSplitDimCondition.Any(): create}}
    )
    config.manifest = icechunk.ManifestConfig(splitting=splitting)
    return icechunk.Repository.create(storage, config=config)


def open_group(path: Path, session: Any = None) -> Any:
    """Return the Zarr group of the last commit, to read; of an open session, to write."""
    import zarr

    if session is not None:
        return zarr.open_group(session.store, mode="r+")
    return zarr.open_group(repository(path).readonly_session("main").store, mode="r")


def reason(error: BaseException) -> str:
    """Return what an error of icechunk or zarr, which span many lines, says first."""
    lines = [line.strip(" x|") for line in str(error).strip().splitlines()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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
