"""What a Sentinel-2 SAFE product says of itself: level, time, sun, grid, scaling, checksums; where its bands lie."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.scene_ids import baseline_has_offset
from darts_acquisition.times import parse_utc
from darts_utils.errors import ConfigError, MissingBandError, MissingDataError, StoreError

PRODUCT_METADATA = "MTD_MSIL2A.xml"
MANIFEST = "manifest.safe"
USER_BASELINE = "99.99"
"""What a user's own run of the processor writes, whatever its version; the input decides whether there is an offset."""


@dataclass(frozen=True)
class SafeBand:
    """One band as SAFE products name it."""

    name: str
    """In the names of files."""
    number: int
    """In the metadata (`band_id`), which count B8A between B08 and B09."""
    resolutions: tuple[int, ...]
    """Where its pixels are not resampled, in metres, best first."""


SAFE_BANDS: Mapping[str, SafeBand] = MappingProxyType(
    {
        "blue": SafeBand("B02", 1, (10,)),
        "green": SafeBand("B03", 2, (10,)),
        "red": SafeBand("B04", 3, (10,)),
        "nir": SafeBand("B08", 7, (10,)),
        "coastal": SafeBand("B01", 0, (20, 60)),  # older products have it at 60 m only
        "rededge071": SafeBand("B05", 4, (20,)),
        "rededge075": SafeBand("B06", 5, (20,)),
        "rededge078": SafeBand("B07", 6, (20,)),
        "nir08": SafeBand("B8A", 8, (20,)),
        "nir09": SafeBand("B09", 9, (60,)),
        "swir16": SafeBand("B11", 11, (20,)),
        "swir22": SafeBand("B12", 12, (20,)),
    }
)
"""By common name."""
SAFE_SCL = SafeBand("SCL", -1, (20,))
"""The scene classification."""


@dataclass(frozen=True, kw_only=True)
class SafeMetadata:
    """What the metadata of a Level-2A product say."""

    folder: Path
    granule: Path
    """The folder of its one tile."""
    acquired: datetime
    """UTC."""
    processing_baseline: str
    geobox: GeoBox
    """At 10 m."""
    sun_azimuth: float | None
    """Degrees clockwise from north."""
    sun_elevation: float | None
    """Degrees above the horizon."""
    quantification: float
    """Digital numbers of reflectance 1."""
    offsets: Mapping[int, float]
    """Band number → what is added to its digital numbers; empty before processing baseline 04.00."""

    def scaling(self, band: SafeBand) -> tuple[float, float]:
        """Return scale and offset: reflectance = digital number × scale + offset.

        Raises:
            StoreError: the metadata give offsets, but none of this band.
        """
        if self.offsets and band.number not in self.offsets:
            raise StoreError(
                f"{self.folder / PRODUCT_METADATA} gives no BOA_ADD_OFFSET of band {band.name} "
                f"(band_id {band.number}). {_REMEDY}"
            )
        return 1 / self.quantification, self.offsets.get(band.number, 0.0) / self.quantification

    def image(self, band: SafeBand) -> Path:
        """Return the file of a band at its best resolution.

        Raises:
            MissingBandError: there is none.
            StoreError: there are two.
        """
        for resolution in band.resolutions:
            folder = self.granule / "IMG_DATA" / f"R{resolution}m"
            ending = f"_{band.name}_{resolution}m.jp2"
            found = [file for file in sorted(folder.glob(f"*{ending}")) if not file.name.startswith(".")]
            if len(found) > 1:
                raise StoreError(f"{folder} has two files of band {band.name}, {found[0].name} and {found[1].name}")
            if found:
                return found[0]
        places = " or ".join(f"R{resolution}m" for resolution in band.resolutions)
        raise MissingBandError(
            f"{self.folder} lacks band {band.name}: no *_{band.name}_*m.jp2 in {self.granule / 'IMG_DATA'}, {places}. "
            f"{_REMEDY}"
        )


def read_safe(folder: Path) -> SafeMetadata:
    """Return what a Level-2A product in the layout since December 2016 says of itself; no image is opened.

    Raises:
        ConfigError: it is of another level or layout.
        MissingDataError, StoreError: metadata are missing or damaged.
    """
    _require_level_2a(folder)
    file = folder / PRODUCT_METADATA
    product = _parse(file)
    level = _text(product, file, "PROCESSING_LEVEL")
    if not level.startswith("Level-2A"):
        raise ConfigError(f"{folder} is of {level}; darts needs surface reflectance, Level-2A")
    granule = _granule(folder)
    tile_file = granule / "MTD_TL.xml"
    tile = _parse(tile_file)
    baseline = _text(product, file, "PROCESSING_BASELINE")
    try:
        zenith = _optional(tile, tile_file, "ZENITH_ANGLE", "Mean_Sun_Angle", 0, 180)
        return SafeMetadata(
            folder=folder,
            granule=granule,
            acquired=parse_utc(_text(product, file, "PRODUCT_START_TIME"), "PRODUCT_START_TIME"),
            processing_baseline=baseline,
            geobox=_geobox(tile, tile_file),
            sun_azimuth=_optional(tile, tile_file, "AZIMUTH_ANGLE", "Mean_Sun_Angle", 0, 360),
            sun_elevation=None if zenith is None else 90 - zenith,
            quantification=_quantification(product, file),
            offsets=_offsets(product, file, baseline),
        )
    except ConfigError as error:
        raise StoreError(f"{file}: {error}. {_REMEDY}") from error


def verify_files(folder: Path, files: list[Path]) -> bool:
    """Check files of a product against size and checksum in its `manifest.safe`; False if it has no manifest.

    Raises:
        StoreError: a file is not what the manifest says, or the manifest is damaged.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return False
    entries = {}
    for entry in _parse(manifest).iter("byteStream"):
        place = entry.find("fileLocation")
        if place is not None:
            entries[place.get("href", "").removeprefix("./")] = entry
    for file in files:
        name = file.relative_to(folder).as_posix()
        if name in entries:
            _verify(file, entries[name], manifest)
    return True


_REMEDY = "Fetch or unpack the product again."
_DIGESTS: Mapping[str, Callable[..., Any]] = MappingProxyType({"MD5": hashlib.md5, "SHA3-256": hashlib.sha3_256})
"""Older products have the first, those since processing baseline 04.00 the second."""


def _require_level_2a(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}")
    if (folder / PRODUCT_METADATA).is_file():
        return
    if (folder / "MTD_MSIL1C.xml").is_file() or "_MSIL1C_" in folder.name:
        raise ConfigError(
            f"{folder} is a Level-1C product (top of atmosphere); darts needs surface reflectance: "
            "get the Level-2A product of the same scene, or make it with Sen2Cor"
        )
    if any(folder.glob("S2?_*_MTD_*.xml")):
        raise ConfigError(
            f"{folder} has the layout from before December 2016, which darts does not read; "
            "get the reprocessed product (Collection 1) of the same scene"
        )
    raise MissingDataError(f"{folder} has no {PRODUCT_METADATA}: no Level-2A product, or not all of it. {_REMEDY}")


def _granule(folder: Path) -> Path:
    tiles = sorted(path.parent for path in (folder / "GRANULE").glob("*/MTD_TL.xml"))
    if not tiles:
        raise MissingDataError(f"{folder} has no GRANULE/*/MTD_TL.xml. {_REMEDY}")
    if len(tiles) > 1:
        raise ConfigError(
            f"{folder} holds {len(tiles)} tiles ({tiles[0].name}, {tiles[1].name}…); "
            "darts reads products of one tile, as all are since December 2016"
        )
    return tiles[0]


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise StoreError(f"{file} is damaged: {error}. {_REMEDY}") from error
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}. {_REMEDY}") from error


def _text(root: ElementTree.Element, file: Path, *names: str) -> str:
    """Return the text of the first element that has one of these names, which stand outside any namespace."""
    for name in names:
        element = root.find(f".//{name}")
        if element is not None and element.text and element.text.strip():
            return element.text.strip()
    raise StoreError(f"{file} gives no {names[0]}. {_REMEDY}")


def _number(text: str | None, name: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} is {text!r}, no number")
    return number


def _optional(
    root: ElementTree.Element, file: Path, name: str, parent: str, low: float, high: float
) -> float | None:  # fmt: skip
    text = (root.findtext(f".//{parent}/{name}") or "").strip()
    if text.lower() in ("", "nan"):
        return None
    number = _number(text, f"{parent} {name}")
    if not low <= number <= high:
        raise StoreError(f"{file} gives {parent} {name} {number:g}, outside {low:g} to {high:g}. {_REMEDY}")
    return number


def _quantification(product: ElementTree.Element, file: Path) -> float:
    # Products of processing baselines 02.04 to 02.06 carry the longer name.
    name = "BOA_QUANTIFICATION_VALUE"
    value = _number(_text(product, file, name, f"L2A_{name}"), name)
    if value <= 0:
        raise ConfigError(f"{name} is {value:g}, which must be more than 0")
    return value


def _offsets(product: ElementTree.Element, file: Path, baseline: str) -> dict[int, float]:
    name = "BOA_ADD_OFFSET"
    offsets = {}
    for element in product.iter(name):
        number = element.get("band_id", "")
        if not re.fullmatch(r"\d+", number) or int(number) in offsets:
            raise ConfigError(f"{name} of band_id {number!r} is unknown or given twice")
        offsets[int(number)] = _number(element.text, name)
    if not offsets and baseline != USER_BASELINE and baseline_has_offset(baseline):
        # To take none for 0 would make the scene 0.1 too bright without a word.
        raise StoreError(
            f"{file} is of processing baseline {baseline}, whose digital numbers carry an offset, "
            f"but gives no {name}. {_REMEDY}"
        )
    return offsets


def _geobox(tile: ElementTree.Element, file: Path) -> GeoBox:
    code = _text(tile, file, "HORIZONTAL_CS_CODE")
    if not re.fullmatch(r"(?i)EPSG:\d+", code):
        raise ConfigError(f"HORIZONTAL_CS_CODE is {code!r}; expected one such as EPSG:32608")
    values = {}
    for parent, name in (("Size", "NROWS"), ("Size", "NCOLS"), ("Geoposition", "ULX"), ("Geoposition", "ULY")):
        values[name] = _number(tile.findtext(f".//{parent}[@resolution='10']/{name}"), f"{parent} of 10 m: {name}")
    shape = int(values["NROWS"]), int(values["NCOLS"])
    if min(shape) < 1:
        raise ConfigError(f"Size of 10 m is {shape[0]} × {shape[1]}")
    return GeoBox(shape, Affine(10, 0, values["ULX"], 0, -10, values["ULY"]), code.upper())


def _verify(file: Path, entry: ElementTree.Element, manifest: Path) -> None:
    size = file.stat().st_size
    expected = entry.get("size", "")
    if expected.isdigit() and int(expected) != size:
        raise StoreError(f"{file} has {size} bytes, but {manifest} says {expected}. {_REMEDY}")
    checksum = entry.find("checksum")
    if checksum is None or not (checksum.text or "").strip():
        return
    method = checksum.get("checksumName", "").upper()
    if method not in _DIGESTS:
        raise StoreError(f"{manifest} gives a checksum {method!r}; known are {', '.join(_DIGESTS)}")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, lambda: _DIGESTS[method](usedforsecurity=False)).hexdigest()
    if found.lower() != (checksum.text or "").strip().lower():
        raise StoreError(f"{file} is damaged: its {method} is not the one in {manifest}. {_REMEDY}")
