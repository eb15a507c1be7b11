"""Which Sentinel-2 scenes a run works on: ids from the user, or those that a search found and wrote down."""

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from darts_utils.errors import ConfigError
from darts_utils.json_text import parse_json
from darts_utils.names import plain_name
from darts_utils.store import replacing


@dataclass(frozen=True, kw_only=True)
class SceneQuery:
    """What scenes are searched for."""

    tile_ids: tuple[str, ...] | None
    aoi_file: Path | None
    start_date: str | None
    end_date: str | None
    max_cloud_cover: float | None
    max_snow_cover: float | None
    months: tuple[int, ...] | None
    years: tuple[int, ...] | None

    def parameters(self) -> dict[str, Any]:
        """Return the arguments of the search functions of darts_acquisition."""
        values = asdict(self)
        values["intersects"] = values.pop("aoi_file")
        tiles = values.pop("tile_ids")
        return {**values, "tiles": None if tiles is None else list(tiles)}

    def digest(self, archive: Mapping[str, Any]) -> str:
        """Return a short name of this search in an archive: the same question gives the same name.

        Raises:
            ConfigError: the area's file cannot be read.
        """
        from darts_acquisition import parse_mgrs_tile

        question: dict[str, Any] = {**asdict(self), **archive}
        if self.tile_ids is not None:
            question["tile_ids"] = sorted({parse_mgrs_tile(tile) for tile in self.tile_ids})
        for name in ("months", "years"):
            if (numbers := getattr(self, name)) is not None:
                question[name] = sorted(set(numbers))
        for name in ("max_cloud_cover", "max_snow_cover"):
            percent = getattr(self, name)
            question[name] = 100.0 if percent is None else min(float(percent), 100.0)
        if self.aoi_file is not None:
            # The content counts: on another machine the file may lie elsewhere.
            question["aoi_file"] = _digest_of(self.aoi_file)
        return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:12]


def read_scene_ids(file: Path, parameter: str) -> list[str]:
    """Return the ids in a JSON list.

    Raises:
        ConfigError: no such file, no JSON list of texts, or an id that cannot be the name of a folder.
    """
    try:
        ids = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{parameter} {file} does not exist") from error
    except OSError as error:
        raise ConfigError(f"{parameter} {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{parameter} {file} cannot be read as JSON: {error}") from error
    if not isinstance(ids, list) or not all(isinstance(scene_id, str) for scene_id in ids):
        raise ConfigError(f"{parameter} {file} must hold a JSON list of scene ids")
    return [checked_id(scene_id, f"{parameter} {file}") for scene_id in ids]


def write_scene_ids(file: Path, ids: Sequence[str]) -> None:
    """Write ids as a JSON list; the file is whole at any moment."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(sorted(ids), indent=1) + "\n", encoding="utf-8")


def checked_id(scene_id: str, where: str) -> str:
    """Return an id without `.SAFE`, which can be the name of a folder: results must not land anywhere else.

    Raises:
        ConfigError: it cannot.
    """
    return plain_name(scene_id.removesuffix(".SAFE"), f"{where}: scene id")


def _digest_of(area: Path) -> str:
    """Return a hash of a vector file with those that belong to it (.shp, .prj, …), or of a folder (.gdb)."""
    found = [area]
    if area.is_dir():
        found = sorted(area.rglob("*"))
    elif area.suffix.lower() == ".shp":
        found = sorted(area.parent.glob(f"{glob.escape(area.stem)}.*"))
    digest = hashlib.sha256()
    try:
        for file in [file for file in found if file.is_file()] or [area]:
            digest.update(file.suffix.encode() + file.read_bytes())
    except OSError as error:
        raise ConfigError(f"aoi_file {area} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
