"""Sentinel-2 Level-2A products (SAFE folders, or their zip files) into the raw data store."""

import logging
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath

from darts_acquisition import raw_store
from darts_acquisition.decode import band_grid, decode_classes, decode_digital_numbers
from darts_acquisition.raw_scene import RawScene, SceneInfo
from darts_acquisition.raw_store import SceneUpdate, SceneWriter
from darts_acquisition.safe_metadata import (
    MANIFEST,
    PRODUCT_METADATA,
    SAFE_BANDS,
    SAFE_SCL,
    SafeBand,
    SafeMetadata,
    read_safe,
    verify_files,
)
from darts_acquisition.times import iso_utc
from darts_utils.errors import ConfigError, DartsError, GridMismatchError, MissingDataError, StoreError
from darts_utils.names import plain_name

logger = logging.getLogger("darts.acquisition")

SCL = "scl"
"""Name of the scene classification in the store."""
DECODERS = 2
"""Bands that are decoded at once, each in one thread (see `open_raster`); GDAL caches some 300 MB of each."""

_PRODUCT = re.compile(r"S2[A-Z]_(MSI|OPER)\S*_\S*", re.IGNORECASE)


def import_safe(
    product: Path | str,
    store: Path | str,
    scene_id: str | None = None,
    *,
    bands: Sequence[str] = ("blue", "green", "red", "nir"),
    overwrite: bool = False,
) -> Path:
    """Put a Sentinel-2 Level-2A product into the raw data store and return the scene's folder.

    Digital numbers are stored as delivered, on the product's 10 m grid, with scale and offset from its own metadata;
    bands of 20 and 60 m are brought to 10 m bilinearly, the scene classification, which always comes along, by nearest
    neighbour. Files are checked against the checksums of the product's manifest before they are decoded. What the
    store has of the scene stays; bands that it lacks are added, from the same product alone.

    Args:
        product: the folder `S2….SAFE`, or the zip file with it.
        store: folder of the raw data store.
        scene_id: a plain name; None: the name of the product.
        bands: common names, such as `blue`, `swir16`.
        overwrite: write the scene anew, with these bands alone, also where the one that is there is damaged.

    Raises:
        ConfigError: a parameter cannot work, the product is of another level or layout, or the store has the scene
            from another product.
        MissingDataError, MissingBandError: a file is not there; names it.
        GridMismatchError: a file lies on another grid than the product's metadata say.
        StoreError: a file is damaged, or the store cannot be written.
    """
    product = Path(product)
    wanted = _wanted(bands)
    if not product.exists():
        raise MissingDataError(f"there is no product {product}")
    scene_id = plain_name(scene_id or safe_scene_id(product), "scene id")
    holding = _new_scene if overwrite else _scene
    with holding(store, scene_id) as update:
        missing = {name: wanted[name] for name in update.missing(wanted)}
        with _as_folder(product, update, list(missing.values())) as folder:
            _import(folder, update, missing)
    return update.path


def safe_scene_id(product: Path) -> str:
    """Return the name of a product without `.SAFE` and `.zip`."""
    return re.sub(r"(\.SAFE|\.zip)+$", "", product.name, flags=re.IGNORECASE)


def is_safe(path: Path) -> bool:
    """Whether a path is a SAFE product, of any level: a folder by its name or what lies in it, a zip file by name."""
    if path.suffix.lower() == ".zip":
        return path.is_file() and bool(_PRODUCT.match(path.name))
    return path.is_dir() and (
        path.suffix.upper() == ".SAFE" or any((path / name).is_file() for name in (MANIFEST, PRODUCT_METADATA))
    )


def find_safe_products(folder: Path) -> list[Path]:
    """Return the SAFE products in a folder and in the folders therein, sorted; products themselves are not entered.

    Raises:
        MissingDataError: there is no such folder.
    """
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}")
    found: list[Path] = []
    for path in _visible(folder):
        if is_safe(path):
            found.append(path)
        elif path.is_dir():
            found += [below for below in _visible(path) if is_safe(below)]
    return found


def _scene(store: Path | str, scene_id: str) -> AbstractContextManager[SceneUpdate]:
    return raw_store.updating_scene(store, raw_store.IMPORT, scene_id)


@contextmanager
def _new_scene(store: Path | str, scene_id: str) -> Iterator[SceneUpdate]:
    """Hold a scene to be replaced: what is there is not looked at, as it may be damaged."""
    with raw_store._held(raw_store.scene_path(store, raw_store.IMPORT, scene_id)) as path:
        yield SceneUpdate(path, scene_id, None)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _wanted(bands: Sequence[str]) -> dict[str, SafeBand]:
    """Return name in the store → band of the product, the scene classification last."""
    if isinstance(bands, str):
        raise ConfigError(f"bands must be a list of names, got {bands!r}")
    names = list(bands)
    if unknown := [name for name in names if name not in SAFE_BANDS]:
        raise ConfigError(
            f"bands names {', '.join(map(repr, unknown))}, which Level-2A products lack; they have "
            f"{', '.join(SAFE_BANDS)}"
        )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"bands must name at least one band, and each once, got {names}")
    return {**{name: SAFE_BANDS[name] for name in names}, SCL: SAFE_SCL}


def _import(folder: Path, update: SceneUpdate, bands: Mapping[str, SafeBand]) -> None:
    safe = read_safe(folder)
    info = SceneInfo(
        scene_id=update.scene_id,
        geobox=safe.geobox,
        acquired=safe.acquired,
        sun_azimuth=safe.sun_azimuth,
        sun_elevation=safe.sun_elevation,
        processing_baseline=safe.processing_baseline,
    )
    if update.scene is not None:
        _check_same_product(update.scene, info, folder)
    if not bands:
        return
    images = {name: safe.image(band) for name, band in bands.items()}
    # Before anything is decoded: flipped bytes decode to wrong numbers without an error.
    if not verify_files(folder, [folder / PRODUCT_METADATA, safe.granule / "MTD_TL.xml", *images.values()]):
        logger.warning("%s has no %s: damage that leaves its files readable would not be seen", folder, MANIFEST)
    with update.writing(info) as writer, ThreadPoolExecutor(DECODERS, "darts-decode") as pool:
        jobs = [pool.submit(_add_band, writer, safe, name, band, images[name]) for name, band in bands.items()]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
        writer.bands.sort(key=list(bands).index)  # the order in which they were done is chance


def _check_same_product(scene: RawScene, info: SceneInfo, product: Path) -> None:
    if (there := _origin(scene.info)) != (here := _origin(info)):
        raise ConfigError(
            f"scene {info.scene_id} is in the store already from another product: {scene.path} is {there}, but "
            f"{product} is {here}. Give another scene id, or overwrite to replace the scene."
        )


def _origin(info: SceneInfo) -> str:
    acquired = "an unknown time" if info.acquired is None else iso_utc(info.acquired)
    return f"of {acquired}, processing baseline {info.processing_baseline or 'unknown'}"


def _add_band(writer: SceneWriter, safe: SafeMetadata, name: str, band: SafeBand, image: Path) -> None:
    grid = band_grid(image)
    if grid.crs != safe.geobox.crs:
        raise GridMismatchError(
            f"{image} is in EPSG:{grid.crs and grid.crs.epsg}, but the metadata of its product say {safe.geobox.crs}"
        )
    if band is SAFE_SCL:
        writer.add_band(name, decode_classes(image, safe.geobox), dtype="uint8")
    else:
        scale, offset = safe.scaling(band)
        writer.add_band(name, decode_digital_numbers(image, safe.geobox), scale=scale, offset=offset)


@contextmanager
def _as_folder(product: Path, update: SceneUpdate, bands: Sequence[SafeBand]) -> Iterator[Path]:
    """Give the product as a folder: itself, or what is needed of a zip file, unpacked while the block runs."""
    if product.is_dir():
        yield product
        return
    with update.scratch() as scratch:
        try:
            yield _unpack(product, scratch, bands)
        except DartsError as error:
            # What is below `scratch` is gone when the user reads this.
            raise type(error)(str(error).replace(str(scratch), str(product))) from error


def _unpack(product: Path, scratch: Path, bands: Sequence[SafeBand]) -> Path:
    needed = re.compile(
        rf"manifest\.safe|[^/]*MTD_[^/]*\.xml|GRANULE/[^/]+/MTD_TL\.xml"
        rf"|GRANULE/[^/]+/IMG_DATA/R\d+m/[^/]+_({'|'.join(_endings(bands))})\.jp2"
    )
    try:
        with zipfile.ZipFile(product) as archive:
            roots = {PurePosixPath(name).parts[0] for name in archive.namelist() if "/MTD_" in name}
            if len(roots) != 1:
                raise ConfigError(f"{product} holds {len(roots)} products; expected one, as <name>.SAFE/…")
            (root,) = roots
            for name in archive.namelist():
                if needed.fullmatch(name.removeprefix(f"{root}/")):
                    archive.extract(name, scratch)  # checks the CRC, and keeps names such as ../x inside
    except DartsError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"{product} is damaged or no zip file ({error}); fetch it again, or unzip it") from error
    except OSError as error:
        raise StoreError(f"cannot unpack {product} into {scratch}: {error.strerror or error}") from error
    return scratch / root


def _endings(bands: Sequence[SafeBand]) -> list[str]:
    return [f"{band.name}_{resolution}m" for band in bands for resolution in band.resolutions]
