"""Scenes of a STAC source into the raw data store: assets fetched side by side, verified, decoded strip by strip."""

import threading
import urllib.parse
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pystac
from odc.geo.geobox import GeoBox

from darts_acquisition import raw_store
from darts_acquisition.asset_servers import AssetServers, shown
from darts_acquisition.decode import band_grid, decode_classes, decode_digital_numbers
from darts_acquisition.rasters import grid_difference
from darts_acquisition.raw_store import SceneUpdate
from darts_acquisition.scene_writer import SceneWriter
from darts_acquisition.stac_items import ItemAsset, finest, is_utm, item_assets, item_grid, scene_info, stored_id
from darts_acquisition.stac_sources import SCL, StacSource
from darts_acquisition.transfer_report import SILENT, TransferReport
from darts_acquisition.transfers import fetch
from darts_utils.errors import ConfigError, GridMismatchError, MissingDataError, RemoteError, StoreError


def download_scene(
    item: pystac.Item,
    store: Path | str,
    source: StacSource,
    bands: Mapping[str, str],
    aws_profile_name: str = "default",
    report: TransferReport = SILENT,
) -> tuple[str, ...]:
    """Bring the bands of a scene that the store lacks into it and return their asset names.

    The scene classification always belongs to what is needed. A scene that is absent appears with all bands or not at
    all; bands of one that is there are listed together at the end. Another process that fetches the same scene is
    waited for, and what it fetched is not fetched again. Nothing goes over the network if nothing is missing.

    Args:
        item: the scene.
        store: folder of the raw data store.
        source: where it comes from; also gives the prefix in the store.
        bands: asset name → common name.
        aws_profile_name: AWS profile with the keys.
        report: hears of the bytes as they come.

    Raises:
        MissingBandError: the item lacks an asset.
        RemoteError: an asset cannot be had or is damaged; the store is as it was.
        GridMismatchError: an asset is on another grid than its item says, or than the scene in the store.
        StoreError: the store cannot be written; it is as it was.
        ConfigError: the AWS profile does not exist, or the id of the scene can be no file name.
    """
    needed = needed_assets(source, bands)
    scene_id = stored_id(item.id)
    if not raw_store.missing_bands(store, source.prefix, scene_id, needed):
        return ()
    with raw_store.updating_scene(store, source.prefix, scene_id) as update:
        assets = item_assets(item, source, update.missing(needed))
        if assets:
            _Download(item, source, update, assets, AssetServers(source, aws_profile_name), report).run()
    return tuple(assets)


def download_size(item: pystac.Item, store: Path | str, source: StacSource, bands: Mapping[str, str]) -> int | None:
    """Return the bytes that `download_scene` would fetch, None where the item does not say.

    Raises:
        MissingBandError, RemoteError, StoreError: as `download_scene`.
    """
    missing = raw_store.missing_bands(store, source.prefix, stored_id(item.id), needed_assets(source, bands))
    sizes = [asset.size for asset in item_assets(item, source, missing).values()]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def needed_assets(source: StacSource, bands: Iterable[str]) -> list[str]:
    """Return asset names, that of the scene classification among them."""
    return list(dict.fromkeys([*bands, source.assets[SCL]]))


@dataclass
class _Download:
    """One scene on its way into the store."""

    item: pystac.Item
    source: StacSource
    update: SceneUpdate
    assets: Mapping[str, ItemAsset]
    servers: AssetServers
    report: TransferReport

    def run(self) -> None:
        with self.update.scratch() as folder, self._fetching(folder) as arrivals:
            grid = self._known_grid()
            if grid is None:
                arrived = list(arrivals)
                grid = finest(self._checked_grid(asset, file) for asset, file in arrived)
                arrivals = iter(arrived)
            assert grid is not None  # there is at least one asset
            with self.update.writing(scene_info(self.item, self.source, grid)) as writer:
                for asset, file in arrivals:
                    self._decode(asset, file, writer)
                    file.unlink()
                # The order of arrival is chance.
                writer.bands.sort(key=list(self.assets).index)

    @contextmanager
    def _fetching(self, folder: Path) -> Iterator[Iterator[tuple[ItemAsset, Path]]]:
        """Fetch the assets in threads; gives them with their files as they arrive. Leaving the block stops the rest."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(len(self.assets), self.source.connections), "darts-fetch")

        def start(number: int, asset: ItemAsset) -> Future[tuple[ItemAsset, Path]]:
            # The suffix of the address, if it is one; drivers of GDAL look at it.
            suffix = PurePosixPath(urllib.parse.urlsplit(asset.href).path).suffix
            file = folder / f"{number}{suffix if suffix[1:].isalnum() and len(suffix) < 10 else ''}"
            return pool.submit(self._fetch, asset, file, stop)

        try:
            transfers = [start(number, asset) for number, asset in enumerate(self.assets.values())]
            yield (transfer.result() for transfer in as_completed(transfers))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def _fetch(self, asset: ItemAsset, file: Path, stop: threading.Event) -> tuple[ItemAsset, Path]:
        fetch(
            asset.href, file, source=self.source, what=self._what(asset), size=asset.size, checksum=asset.checksum,
            servers=self.servers, report=self.report, stop=stop,
        )  # fmt: skip
        return asset, file

    def _known_grid(self) -> GeoBox | None:
        """Return the grid of the scene in the store, else the one its item describes."""
        if self.update.scene is not None:
            return self.update.scene.info.geobox
        return item_grid(self.item, self.source)

    def _checked_grid(self, asset: ItemAsset, file: Path) -> GeoBox:
        """Return the grid of a file that arrived, which must be in UTM and as the item says."""
        with self._naming(asset):
            grid = band_grid(file)
        if grid.crs is None or not is_utm(f"EPSG:{grid.crs.epsg}"):
            raise RemoteError(
                f"{self._what(asset)}, {shown(asset.href)}: not in UTM but in {str(grid.crs)[:60]}. Leave it out."
            )
        if asset.grid is not None and grid != asset.grid:
            raise GridMismatchError(
                f"{self._what(asset)}: {shown(asset.href)} is on another grid than its item says "
                f"({grid_difference(grid, asset.grid)}). Search for the scene again, or leave it out."
            )
        return grid

    def _decode(self, asset: ItemAsset, file: Path, writer: SceneWriter) -> None:
        self._checked_grid(asset, file)
        decode = decode_classes if asset.scaling is None else decode_digital_numbers
        scale, offset = asset.scaling or (None, None)
        dtype = "uint8" if asset.scaling is None else "uint16"
        # Closed at once when writing fails: a file that is open still takes its place on the disk.
        with closing(self._named(asset, decode(file, writer.info.geobox))) as strips:
            writer.add_band(asset.name, strips, dtype=dtype, scale=scale, offset=offset)

    def _named(
        self, asset: ItemAsset, strips: Iterator[tuple[slice, np.ndarray]]
    ) -> Generator[tuple[slice, np.ndarray], None, None]:
        with self._naming(asset):
            yield from strips

    @contextmanager
    def _naming(self, asset: ItemAsset) -> Iterator[None]:
        """Turn what is wrong with a file that arrived into an error that names scene, asset and address."""
        try:
            yield
        except GridMismatchError as error:
            raise GridMismatchError(f"{self._what(asset)}, {shown(asset.href)}: {error}") from error
        except (StoreError, ConfigError, MissingDataError) as error:
            raise RemoteError(
                f"{self._what(asset)}, {shown(asset.href)}: what arrived is damaged or no band of Sentinel-2 ({error})"
            ) from error

    def _what(self, asset: ItemAsset) -> str:
        return f"scene {self.item.id}, asset {asset.name}"
