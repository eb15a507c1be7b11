"""Planet's folders: what their names say, which files lie in them, what is incomplete."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from darts_utils.errors import ConfigError, MissingDataError, StoreError

_SCENE = re.compile(r"(?P<day>\d{8})_(?P<time>\d{6})(?:_\d{2})?_[0-9A-Za-z]{4}")
_ORTHOTILE = re.compile(r"\d+_(?P<tile>\d+)_(?P<day>\d{4}-\d{2}-\d{2})_[0-9A-Za-z]{4}")
_SR = re.compile(r".*_SR(?P<eight>_8b)?(?:_harmonized)?(?P<clip>_clip)?\.tiff?", re.IGNORECASE)
_UDM2 = re.compile(r".*_udm2(?P<clip>_clip)?\.tiff?", re.IGNORECASE)
_METADATA = re.compile(r".*_metadata\.json", re.IGNORECASE)

_NAMES = (
    "YYYYMMDD_HHMMSS_NN_XXXX or YYYYMMDD_HHMMSS_XXXX (scene), "
    "or N_N_YYYY-MM-DD_XXXX (orthotile)"
)  # fmt: skip


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
    error: str | None = None
    """Why it cannot be loaded; None if it can."""
    incomplete: tuple[str, ...] = ()
    """What is missing but can be done without."""


def parse_planet_name(name: str) -> PlanetName:
    """Return what the name of a scene's or orthotile's folder says.

    Raises:
        ConfigError: it has none of the known forms.
    """
    try:
        if match := _SCENE.fullmatch(name):
            time = datetime.strptime(match["day"] + match["time"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            return PlanetName(kind="scene", day=time.date(), time=time, tile_id=None)
        if match := _ORTHOTILE.fullmatch(name):
            return PlanetName(kind="orthotile", day=date.fromisoformat(match["day"]), time=None, tile_id=match["tile"])
    except ValueError as error:
        raise ConfigError(f"Planet folder {name!r} holds no date and time ({error}); expected {_NAMES}") from error
    raise ConfigError(f"Planet folder {name!r} has an unknown name; expected {_NAMES}")


def find_planet_scenes(scenes_dir: Path | str) -> list[PlanetFolder]:
    """Return the scenes in `scenes_dir/<scene_id>/`, sorted by id, with what is wrong or incomplete.

    Raises:
        MissingDataError: there is no such folder.
    """
    return [_scan(folder, "scene", None) for folder in _folders(Path(scenes_dir)) if _is_planet(folder)]


def find_planet_orthotiles(orthotiles_dir: Path | str) -> list[PlanetFolder]:
    """Return the orthotiles in `orthotiles_dir/<tile_id>/<scene_id>/`, sorted, with what is wrong or incomplete.

    Raises:
        MissingDataError: there is no such folder.
    """
    return [
        _scan(folder, "orthotile", tile.name)
        for tile in _folders(Path(orthotiles_dir))
        for folder in _folders(tile)
        if _is_planet(folder)
    ]


def planet_files(folder: Path) -> PlanetFiles:
    """Return the files of a scene's or orthotile's folder.

    Raises:
        MissingDataError: no folder, or no surface reflectance in it.
        StoreError: more than one file where one is expected; names both.
    """
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir())
    reflectance = [match for name in names if (match := _SR.fullmatch(name))]
    if not reflectance:
        raise MissingDataError(
            f"{folder} has no surface reflectance (*_SR.tif, with _8b, _harmonized or _clip); "
            "order the asset ortho_analytic_4b_sr or ortho_analytic_8b_sr"
        )
    chosen = _only(reflectance, folder, "surface reflectance")
    # A clip and its mask share a grid, so where both masks are there the one that is clipped alike belongs to it.
    masks = [match for name in names if (match := _UDM2.fullmatch(name))]
    alike = [match for match in masks if bool(match["clip"]) == bool(chosen["clip"])]
    udm2 = _only(alike or masks, folder, "UDM2") if masks else None
    return PlanetFiles(
        reflectance=folder / chosen[0],
        has_eight_bands=bool(chosen["eight"]),
        udm2=None if udm2 is None else folder / udm2[0],
        metadata=tuple(folder / name for name in names if _METADATA.fullmatch(name)),
    )


def _only(matches: list[re.Match[str]], folder: Path, what: str) -> re.Match[str]:
    if len(matches) > 1:
        raise StoreError(
            f"{folder} has two files of {what}, {matches[0][0]} and {matches[1][0]}; keep one of them in the folder"
        )
    return matches[0]


def _folders(root: Path) -> Iterable[Path]:
    if not root.is_dir():
        raise MissingDataError(f"there is no folder {root}; pass the folder that holds the Planet images")
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_planet(folder: Path) -> bool:
    """Whether a folder is meant: by its name, or because surface reflectance lies in it under a wrong name."""
    if _SCENE.fullmatch(folder.name) or _ORTHOTILE.fullmatch(folder.name):
        return True
    return any(_SR.fullmatch(entry.name) for entry in folder.iterdir())


def _scan(folder: Path, kind: str, tile_id: str | None) -> PlanetFolder:
    error, incomplete = None, []
    try:
        name = parse_planet_name(folder.name)
        if name.kind != kind:
            error = f"{folder} has the name of a {name.kind} and lies among the {kind}s"
        files = planet_files(folder)
        if files.udm2 is None:
            incomplete.append("no UDM2: quality comes from valid pixels alone")
        if not files.metadata:
            incomplete.append("no metadata: sun angles are computed from place and time")
    except (ConfigError, MissingDataError, StoreError) as problem:
        error = str(problem)
    return PlanetFolder(
        path=folder, scene_id=folder.name, tile_id=tile_id, error=error, incomplete=tuple(incomplete)
    )  # fmt: skip
