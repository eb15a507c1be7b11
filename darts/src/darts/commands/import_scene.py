"""`darts import-scene`: one's own GeoTIFFs and SAFE products into the raw data store."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from darts_utils.errors import ConfigError, DartsError, MissingDataError
from darts_utils.paths import DefaultPaths
from darts_utils.quoting import shown

logger = logging.getLogger("darts.import")

BASIC_BANDS = ("blue", "green", "red", "nir")
DIGITS = 5
"""Of the number of a band at most."""
SENTINEL2_ID = re.compile(
    r"(?P<gee>\d{8}T\d{6}_\d{8}T\d{6}_T\d{2}[A-Z]{3})"
    r"|(?P<cdse>S2[A-Z]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d{2}[A-Z]{3}_\d{8}T\d{6})"
)


def import_scene(
    files: list[Path],
    /,
    *,
    acquisition_time: str | None = None,
    scene_id: str | None = None,
    bands: list[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | Literal["none"] | None = None,
    scl: str | None = None,
    sun_azimuth: float | None = None,
    sun_elevation: float | None = None,
    sensor: str | None = None,
    raw_data_store: Annotated[Path | None, Parameter(name=("--raw-data-store", "--store"))] = None,
    overwrite: bool = False,
    default_dirs: Annotated[DefaultPaths | None, Parameter(name="*")] = None,
) -> int:
    """Put one's own GeoTIFF, Sentinel-2 products (SAFE), or a folder of either into the raw data store.

    Run it afterwards with `darts run sentinel2 --raw-data-source import --scene-ids <id> --offline`.
    Of several scenes, those that fail are named in a table and the others go on (exit code 1); those that are in the
    store already are skipped.

    Parameters
    ----------
    files
        One GeoTIFF with all bands, or one a band, all on one grid in a projected CRS in metres, best a UTM zone; or
        Level-2A products (S2….SAFE folders, or their zip files); or folders that hold products, or GeoTIFFs of one
        scene each.
    acquisition_time
        Time of acquisition, such as 2021-08-21T21:00:19Z. Products bring their own; so do GeoTIFFs whose name holds
        the id of a Sentinel-2 scene.
    scene_id
        Name of the scene; default: the name of the file or product.
    bands
        GeoTIFF: which band is which, the names of all in their order (blue green red nir), or names with numbers
        counted from 1 over all files (blue=1 green=2 red=3 nir=7). Product: names of the bands to take. Default: blue
        green red nir.
    scale
        GeoTIFF: reflectance = value × scale + offset; default: 0.0001 for integers, 1 for floats.
    offset
        GeoTIFF: see scale; default 0; -0.1 for Level-2A of processing baseline 04.00 (2022) and later.
    nodata
        GeoTIFF: value that means missing; default 0; none: only what the files declare.
    scl
        GeoTIFF: Sentinel-2 scene classification, a file or the number of a band. Without it, quality is high where all
        bands are valid.
    sun_azimuth
        GeoTIFF: sun azimuth in degrees; default: computed from place and time.
    sun_elevation
        GeoTIFF: sun elevation in degrees; default: computed from place and time.
    sensor
        GeoTIFF: name of the sensor; default: Sentinel-2.
    raw_data_store
        Raw data store; default: input/sentinel2/import-scenes under the large folder.
    overwrite
        Replace a scene of the same name.
    """
    geotiff_options = {
        "acquisition_time": acquisition_time,
        "scale": scale,
        "offset": offset,
        "nodata": nodata,
        "scl": scl,
        "sun_azimuth": sun_azimuth,
        "sun_elevation": sun_elevation,
        "sensor": sensor,
    }
    store = raw_data_store or (default_dirs or DefaultPaths()).resolve().sentinel2_scenes("import")
    given = {name: value for name, value in geotiff_options.items() if value is not None}
    scenes = list(_scenes(files, _Asked(store, scene_id, bands or BASIC_BANDS, given, overwrite)))
    if [scene.source for scene in scenes] == files[:1]:  # one scene that was named itself: its error is the command's
        there = scenes[0].is_product and not overwrite and scenes[0].is_there()
        logger.info("%s %s", "in the store already:" if there else "imported into", scenes[0].put())
        return 0
    return _import_all(scenes, overwrite)


@dataclass(frozen=True)
class _Asked:
    """What was asked for of all scenes."""

    store: Path
    scene_id: str | None
    bands: Sequence[str]
    options: dict[str, Any]
    """Those for GeoTIFFs that were given."""
    overwrite: bool


@dataclass(frozen=True)
class _Scene:
    """One scene to import."""

    source: Path
    is_product: bool
    is_there: Callable[[], bool]
    """Whether the store has all of it."""
    put: Callable[[], Path]
    """Import it and return its folder in the store."""


def _scenes(files: Sequence[Path], asked: _Asked) -> Iterator[_Scene]:
    """Yield the scenes that the arguments name, or that lie in the folders which they name."""
    from darts_acquisition.safe_import import find_safe_products, is_safe

    for file in files:
        if not file.exists():
            raise MissingDataError(f"there is no file or folder {file}; check the path")
    products = [file for file in files if is_safe(file)]
    folders = [file for file in files if file.is_dir() and file not in products]
    rasters = [file for file in files if file not in products and file not in folders]
    if rasters:
        if products or folders:
            other = (products + folders)[0]
            raise ConfigError(f"{rasters[0]} and {other}: import files, and products or folders, one after the other")
        yield _geotiff(rasters, asked)
        return
    singles = []
    for folder in folders:
        found = find_safe_products(folder)
        products += found
        tifs = [] if found else [path for path in sorted(folder.iterdir()) if _is_geotiff(path)]
        singles += tifs
        if not found and not tifs:
            raise MissingDataError(f"{folder} holds neither Sentinel-2 products (S2….SAFE, .zip) nor GeoTIFFs")
    count, scl = len(products) + len(singles), str(asked.options.get("scl", "0"))
    if asked.scene_id is not None and count > 1:
        raise ConfigError(f"scene_id {asked.scene_id!r} cannot name {count} scenes; leave it out")
    if len(singles) > 1 and not scl.isdecimal():
        raise ConfigError(f"scl {scl} is one file for {len(singles)} scenes; give the number of a band")
    for product in dict.fromkeys(products):
        yield _product(product, asked)
    for path in singles:
        yield _geotiff([path], asked)


def _is_geotiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff") and not path.name.startswith(".") and path.is_file()


def _product(product: Path, asked: _Asked) -> _Scene:
    from darts_acquisition import IMPORT, missing_bands
    from darts_acquisition.safe_import import SCL, import_safe, safe_scene_id

    if asked.options:
        raise ConfigError(
            f"{', '.join(asked.options)} cannot be given for {product.name}: a product brings time, sun, scaling and "
            "classification with it"
        )
    names = _bands(asked.bands)
    if isinstance(names, dict):
        raise ConfigError(f"bands: for products give names alone, such as blue green red nir; got {_told(asked.bands)}")
    name = asked.scene_id or safe_scene_id(product)

    return _Scene(
        product,
        is_product=True,
        is_there=lambda: not missing_bands(asked.store, IMPORT, name, (*names, SCL)),
        put=lambda: import_safe(product, asked.store, name, bands=names, overwrite=asked.overwrite),
    )


def _geotiff(files: Sequence[Path], asked: _Asked) -> _Scene:
    import darts_acquisition

    numbers = _bands(asked.bands)
    options = {name: value for name, value in asked.options.items() if name != "acquisition_time"}
    if "scl" in options and options["scl"].isdecimal() and len(options["scl"]) <= DIGITS:
        options["scl"] = int(options["scl"])
    if options.get("nodata") == "none":
        options["nodata"] = None

    def put() -> Path:
        time = asked.options.get("acquisition_time") or _time_in_name(files[0])
        return darts_acquisition.import_scene(
            files,
            asked.store,
            asked.scene_id,
            bands=numbers,
            acquisition_time=time,
            overwrite=asked.overwrite,
            **options,
        )

    name = asked.scene_id or files[0].stem
    return _Scene(
        files[0],
        is_product=False,
        is_there=lambda: darts_acquisition.scene_exists(asked.store, darts_acquisition.IMPORT, name),
        put=put,
    )


def _time_in_name(file: Path) -> str:
    """Return the time that a Sentinel-2 id in a file's name gives."""
    from darts_acquisition import parse_cdse_id, parse_gee_id

    match = SENTINEL2_ID.search(file.stem)
    if match is None:
        raise ConfigError(
            f"{file}: give the time of acquisition, such as --acquisition-time 2021-08-21T21:00:19Z; "
            "its name holds no Sentinel-2 id that would tell it"
        )
    found = parse_gee_id(match["gee"]) if match["gee"] else parse_cdse_id(match["cdse"])
    logger.info("%s: acquired %s, by its name", file.name, found.acquired.isoformat())
    return found.acquired.isoformat()


def _import_all(scenes: Sequence[_Scene], overwrite: bool) -> int:
    """Import scenes one after the other and return the exit code; what fails is told at the end."""
    outcomes: list[tuple[Path, str, str]] = []
    for number, scene in enumerate(scenes, 1):
        try:
            if not overwrite and scene.is_there():
                outcomes.append((scene.source, "skipped", "in the store already"))
                continue
            logger.info("%d of %d: %s", number, len(scenes), scene.source.name)
            outcomes.append((scene.source, "imported", str(scene.put())))
        except DartsError as error:
            logger.error("%s: %s", scene.source.name, error)
            outcomes.append((scene.source, "failed", str(error)))
    _print_outcomes(outcomes)
    return 1 if any(status == "failed" for _, status, _ in outcomes) else 0


def _print_outcomes(outcomes: Sequence[tuple[Path, str, str]]) -> None:
    from darts.display.console import Failure, print_failures, say

    count = {state: sum(status == state for _, status, _ in outcomes) for state in ("imported", "skipped", "failed")}
    told = ", ".join(f"{n} {state}" for state, n in count.items())
    say(f"{len(outcomes)} scene{'s' * (len(outcomes) != 1)}: {told}")
    if count["failed"]:
        failures = [Failure(source.name, error) for source, status, error in outcomes if status == "failed"]
        print_failures("Failed scenes", "scene", failures)


def _bands(words: Sequence[str]) -> dict[str, int] | list[str]:
    """Read `blue=1 green=2` as numbers by name, and `blue green` as names in order."""
    if not any("=" in word for word in words):
        return list(words)
    numbers: dict[str, int] = {}
    for word in words:
        name, _, number = word.partition("=")
        if not name or not number.isdecimal() or len(number) > DIGITS or name in numbers:
            raise ConfigError(
                f"bands: {_told(words)} is not of the form blue=1 green=2 red=3 nir=4; look at {shown(word)}"
            )
        numbers[name] = int(number)
    return numbers


def _told(bands: Sequence[str]) -> str:
    return shown(" ".join(bands))
