"""Writing the bands of a scene into its folder of the raw data store."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from darts_acquisition.raw_scene import SceneInfo
from darts_utils.errors import ConfigError
from darts_utils.names import plain_name
from darts_utils.store import remove_leftovers, replacing

CHUNK_PX = 2048
DTYPES = ("uint8", "uint16")


@dataclass
class SceneWriter:
    """Writes the bands of a scene into its folder."""

    folder: Path
    info: SceneInfo
    listed: tuple[str, ...] | None = None
    """Bands of the scene where the folder is that of one which is there: each new band is put in place whole, and its
    name listed later."""

    def __post_init__(self) -> None:
        self.bands: list[str] = []

    def add_band(
        self,
        name: str,
        strips: Iterable[tuple[slice, np.ndarray]],
        *,
        dtype: str = "uint16",
        scale: float | None = None,
        offset: float | None = None,
    ) -> None:
        """Write one band from strips of rows (rows, array of `dtype`), so that the whole never need be in memory.

        Strips that begin on multiples of `CHUNK_PX` are written once.

        Raises:
            ConfigError: as `check_band`.
        """
        self.check_band(name, dtype=dtype, scale=scale, offset=offset)
        scaling: dict[str, Any] = (
            {} if scale is None or offset is None else {"scale": float(scale), "offset": float(offset)}
        )
        with self._place(name) as folder:
            array = zarr.create_array(
                folder,
                shape=self.info.geobox.shape.yx,
                chunks=tuple(min(CHUNK_PX, side) for side in self.info.geobox.shape.yx),
                dtype=dtype,
                fill_value=0,
                # The checksum makes a damaged chunk an error instead of wrong numbers.
                compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
                attributes=scaling,
                dimension_names=("y", "x"),
                # A chunk of zeros is written too: then a chunk file that is missing is damage, not nodata.
                config={"write_empty_chunks": True},
                zarr_format=3,
            )
            rows_written = 0
            for rows, values in strips:
                array[rows] = values
                rows_written += len(values)
        assert rows_written == self.info.geobox.shape.y, (name, rows_written)
        self.bands.append(name)

    def check_band(self, name: str, *, dtype: str, scale: float | None, offset: float | None) -> None:
        """Check that a band can be added.

        Raises:
            ConfigError: its name, type or numbers cannot work, or the scene has it already.
        """
        if plain_name(name, "band name") in self.bands:
            raise ConfigError(f"scene {self.info.scene_id}: band {name} is given twice")
        if self.listed is not None and name in self.listed:
            raise ConfigError(
                f"scene {self.info.scene_id} has band {name} already; leave it out, or write the whole scene anew with "
                "overwrite"
            )
        if dtype not in DTYPES:
            raise ConfigError(
                f"scene {self.info.scene_id}, band {name}: digital numbers must be uint16 (classes uint8), got {dtype}"
            )
        if (scale is None) != (offset is None):
            raise ConfigError(f"scene {self.info.scene_id}, band {name}: give scale and offset, or neither")
        for value in (scale, offset):
            if value is not None and not np.isfinite(value):
                raise ConfigError(f"scale and offset must be finite numbers, got {value!r}")

    @contextmanager
    def _place(self, name: str) -> Iterator[Path]:
        if self.listed is None:
            yield self.folder / name
            return
        remove_leftovers(self.folder / name)
        with replacing(self.folder / name) as temporary:
            yield temporary
