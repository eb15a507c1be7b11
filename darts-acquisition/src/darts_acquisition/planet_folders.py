"""Planet's folders: what their names say, which files lie in them, what is incomplete."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from darts_utils.errors import ConfigError, MissingDataError, StoreError
from darts_utils.paths import is_folder
from darts_utils.quoting import shown

_SCENE = re.compile(r"(?P<day>\d{8})_(?P<time>\d{6})(?:_\d{2})?_[0-9A-Za-z]{4}", re.ASCII)
_ORTHOTILE = re.compile(r"\d+_(?P<tile>\d+)_(?P<day>\d{4}-\d{2}-\d{2})_[0-9A-Za-z]{4}", re.ASCII)
_SR = re.compile(r".*_SR(?P<eight>_8b)?(?:_harmonized)?(?P<clip>_clip)?\.tiff?", re.IGNORECASE)
_UDM2 = re.compile(r".*_udm2(?P<clip>_clip)?\.tiff?", re.IGNORECASE)
_METADATA = re.compile(r".*_metadata\.json", re.IGNORECASE)

_NAMES = (
    "YYYYMMDD_HHMMSS_NN_XXXX or YYYYMMDD_HHMMSS_XXXX (scene), "
    "or N_N_YYYY-MM-DD_XXXX (orthotile)"
)  # fmt: skip

YEARS = range(2000, 2200)
"""Years that names may tell."""


@dataclass(frozen=True, kw_only=True)
class PlanetName:
    """What the name of a Planet folder says."""

    kind: Literal["scene", "orthotile"]
    day: date
    time: datetime | None
    """UTC; names of orthotiles give the day alone."""
    tile_id: str | None
    """The orthotile's cell in Planet's grid; None for a scene."""


@dataclass(frozen=True, kw_only=True)
class PlanetFiles:
    """The files of one folder that darts reads."""

    reflectance: Path
    has_eight_bands: bool
    """By its name."""
    udm2: Path | None
    metadata: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class PlanetFolder:
    """One scene or orthotile that a scan found."""

    path: Path
    scene_id: str
    tile_id: str | None
    """The folder above an orthotile; None for a scene."""
    reasons: tuple[str, ...] = ()
    """Why it cannot be loaded; empty if it can, as far as names and sizes of files tell."""
    remarks: tuple[str, ...] = ()
    """What is missing but can be done without."""

    @property
    def error(self) -> str | None:
        """Why it cannot be loaded, in one line that names the folder; None if it can."""
        return f"{self.path}: {'; '.join(self.reasons)}" if self.reasons else None


@dataclass(frozen=True, kw_only=True)
class PlanetScan:
    """What a scan found in a folder, each list sorted by path."""

    complete: tuple[PlanetFolder, ...]
    """Can be loaded, as far as names and sizes of files tell."""
    incomplete: tuple[PlanetFolder, ...]
    """Cannot be loaded; `reasons` says why."""
    ignored: tuple[Path, ...]
    """Folders that neither have a name of Planet's nor hold surface reflectance."""

    @property
    def found(self) -> tuple[PlanetFolder, ...]:
        """The complete and the incomplete, sorted by path."""
        return tuple(sorted((*self.complete, *self.incomplete), key=lambda folder: folder.path))


def parse_planet_name(name: str) -> PlanetName:
    """Return what the name of a scene's or orthotile's folder says.

    Raises:
        ConfigError: it has none of the known forms.
    """
    try:
        if match := _SCENE.fullmatch(name):
            time = datetime.strptime(match["day"] + match["time"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            return PlanetName(kind="scene", day=_flown(time.date()), time=time, tile_id=None)
        if match := _ORTHOTILE.fullmatch(name):
            day = _flown(date.fromisoformat(match["day"]))
            return PlanetName(kind="orthotile", day=day, time=None, tile_id=match["tile"])
    except ValueError as error:
        raise ConfigError(f"Planet folder {shown(name)} holds no date and time ({error}); expected {_NAMES}") from error
    raise ConfigError(f"Planet folder {shown(name)} has an unknown name; expected {_NAMES}")


def _flown(day: date) -> date:
    """Return a day on which satellites may have flown, which also fits into nanoseconds as tables hold times."""
    if day.year not in YEARS:
        raise ValueError(f"there are no images of the year {day.year}")
    return day


def scan_planet_scenes(scenes_dir: Path | str) -> PlanetScan:
    """Return the scenes in `scenes_dir/<scene_id>/`, told by names and sizes of files alone; no raster is opened.

    Raises:
        MissingDataError: there is no such folder.
        StoreError: a folder cannot be read.
    """
    return _scan("scene", ((None, path) for path in _folders(Path(scenes_dir))))


def scan_planet_orthotiles(orthotiles_dir: Path | str) -> PlanetScan:
    """Return the orthotiles in `orthotiles_dir/<tile_id>/<scene_id>/`; see `scan_planet_scenes`.

    Raises:
        MissingDataError: there is no such folder.
        StoreError: a folder cannot be read.
    """
    tiles = _folders(Path(orthotiles_dir))
    return _scan("orthotile", ((tile.name, path) for tile in tiles for path in _folders(tile)))


def find_planet_scenes(scenes_dir: Path | str) -> list[PlanetFolder]:
    """Return the scenes in `scenes_dir/<scene_id>/`, sorted by id, with what is wrong or incomplete.

    Raises:
        MissingDataError, StoreError: as for `scan_planet_scenes`.
    """
    return list(scan_planet_scenes(scenes_dir).found)


def find_planet_orthotiles(orthotiles_dir: Path | str) -> list[PlanetFolder]:
    """Return the orthotiles in `orthotiles_dir/<tile_id>/<scene_id>/`, sorted, with what is wrong or incomplete.

    Raises:
        MissingDataError, StoreError: as for `scan_planet_scenes`.
    """
    return list(scan_planet_orthotiles(orthotiles_dir).found)


def planet_files(folder: Path) -> PlanetFiles:
    """Return the files of a scene's or orthotile's folder.

    Raises:
        MissingDataError: no folder, or no surface reflectance in it.
        StoreError: more than one file where one is expected; names both.
    """
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}")
    files = _choose(_files(folder))
    if not files.reflectance:
        raise MissingDataError(f"{folder} has {_NO_REFLECTANCE}")
    for names, what in ((files.reflectance, "surface reflectance"), (files.udm2, "UDM2")):
        if len(names) > 1:
            raise StoreError(f"{folder} has {_two(names, what)}")
    return PlanetFiles(
        reflectance=folder / files.reflectance[0],
        has_eight_bands=files.has_eight_bands,
        udm2=folder / files.udm2[0] if files.udm2 else None,
        metadata=tuple(folder / name for name in files.metadata),
    )


_NO_REFLECTANCE = (
    "no surface reflectance (*_SR.tif, with _8b, _harmonized or _clip); "
    "order the asset ortho_analytic_4b_sr or ortho_analytic_8b_sr"
)


@dataclass(frozen=True, kw_only=True)
class _Names:
    """The names of files in one folder that darts would read; one of reflectance and of UDM2 is right."""

    reflectance: tuple[str, ...]
    udm2: tuple[str, ...]
    metadata: tuple[str, ...]

    @property
    def has_eight_bands(self) -> bool:
        match = _SR.fullmatch(self.reflectance[0])
        return match is not None and bool(match["eight"])


def _choose(names: Iterable[str]) -> _Names:
    names = sorted(names)
    reflectance = [match for name in names if (match := _SR.fullmatch(name))]
    # A clip and its mask share a grid, so where both masks are there the one that is clipped alike belongs to it.
    masks = [match for name in names if (match := _UDM2.fullmatch(name))]
    alike = [match for match in masks if reflectance and bool(match["clip"]) == bool(reflectance[0]["clip"])]
    return _Names(
        reflectance=tuple(match[0] for match in reflectance),
        udm2=tuple(match[0] for match in alike or masks),
        metadata=tuple(name for name in names if _METADATA.fullmatch(name)),
    )


def _two(names: tuple[str, ...], what: str) -> str:
    return f"two files of {what}, {names[0]} and {names[1]}; keep one of them in the folder"


def _folders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted."""
    if not root.is_dir():
        raise MissingDataError(f"there is no folder {root}; pass the folder that holds the Planet images")
    return sorted(root / entry.name for entry in _entries(root) if is_folder(entry))


def _files(folder: Path) -> Mapping[str, os.DirEntry[str]]:
    return {entry.name: entry for entry in _entries(folder) if not is_folder(entry)}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            # Hidden ones are none of Planet's: `._name.tif` is what macOS puts beside each file on foreign disks.
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise StoreError(f"cannot read folder {folder}: {error.strerror or error}") from error


def _scan(kind: Literal["scene", "orthotile"], folders: Iterable[tuple[str | None, Path]]) -> PlanetScan:
    complete: list[PlanetFolder] = []
    incomplete: list[PlanetFolder] = []
    ignored: list[Path] = []
    for tile_id, path in folders:
        files: Mapping[str, os.DirEntry[str]] = {}
        unread: tuple[str, ...] = ()
        try:
            files = _files(path)
        except StoreError as error:
            unread = (str(error),)
        chosen = _choose(files)
        has_name = _SCENE.fullmatch(path.name) or _ORTHOTILE.fullmatch(path.name)
        if not has_name and not chosen.reflectance:
            ignored.append(path)
            continue
        reasons = unread or tuple(_reasons(kind, path.name, files, chosen))
        found = PlanetFolder(
            path=path, scene_id=path.name, tile_id=tile_id, reasons=reasons, remarks=tuple(_remarks(kind, chosen))
        )
        (incomplete if reasons else complete).append(found)
    return PlanetScan(complete=tuple(complete), incomplete=tuple(incomplete), ignored=tuple(ignored))


def _reasons(kind: str, name: str, files: Mapping[str, os.DirEntry[str]], chosen: _Names) -> Iterator[str]:
    try:
        if (named := parse_planet_name(name).kind) != kind:
            yield f"it has the name of a {named} and lies among the {kind}s"
    except ConfigError as error:
        yield str(error)
    if not chosen.reflectance:
        yield _NO_REFLECTANCE
    for names, what in ((chosen.reflectance, "surface reflectance"), (chosen.udm2, "UDM2")):
        if len(names) > 1:
            yield _two(names, what)
    for file in (*chosen.reflectance, *chosen.udm2, *chosen.metadata):
        try:
            size = files[file].stat().st_size
        except OSError as error:
            yield f"{file} cannot be read ({error.strerror or error})"
        else:
            if not size:
                yield f"{file} is empty (0 bytes); fetch it again"


def _remarks(kind: str, chosen: _Names) -> Iterator[str]:
    if not chosen.udm2:
        yield "no UDM2: quality comes from valid pixels alone"
    if not chosen.metadata:
        time = "" if kind == "scene" else ", and its name gives no time of day: models that use hillshade need it"
        yield f"no metadata: sun angles are computed from place and time{time}"
