"""Where the data of darts comes from: optical scenes, elevation, Landsat trends."""

from darts_acquisition.arcticdem import arcticdem_geobox, create_arcticdem_cube, download_arcticdem, load_arcticdem
from darts_acquisition.cube import Cube
from darts_acquisition.import_geotiff import import_scene
from darts_acquisition.planet import load_planet_masks, load_planet_scene
from darts_acquisition.planet_folders import (
    PlanetFolder,
    PlanetName,
    find_planet_orthotiles,
    find_planet_scenes,
    parse_planet_name,
)
from darts_acquisition.raw_scene import RawScene, SceneInfo
from darts_acquisition.raw_store import (
    CDSE,
    GEE,
    IMPORT,
    add_bands,
    list_scenes,
    missing_bands,
    new_scene,
    open_scene,
    scene_exists,
    scene_path,
    write_scene,
)
from darts_acquisition.scene_ids import SceneId, parse_cdse_id, parse_gee_id, scene_year
from darts_acquisition.sentinel2 import (
    CDSE_BANDS,
    GEE_BANDS,
    download_cdse_s2_sr_scene,
    download_gee_s2_sr_scene,
    load_cdse_s2_sr_scene,
    load_gee_s2_sr_scene,
    load_imported_scene,
    search_cdse_s2_sr,
    search_gee_s2_sr,
)
from darts_acquisition.tcvis import create_tcvis_cube, download_tcvis, load_tcvis, tcvis_cube_year, tcvis_geobox

__all__ = [
    "CDSE",
    "CDSE_BANDS",
    "GEE",
    "GEE_BANDS",
    "IMPORT",
    "Cube",
    "PlanetFolder",
    "PlanetName",
    "RawScene",
    "SceneId",
    "SceneInfo",
    "add_bands",
    "arcticdem_geobox",
    "create_arcticdem_cube",
    "create_tcvis_cube",
    "download_arcticdem",
    "download_cdse_s2_sr_scene",
    "download_gee_s2_sr_scene",
    "download_tcvis",
    "find_planet_orthotiles",
    "find_planet_scenes",
    "import_scene",
    "list_scenes",
    "load_arcticdem",
    "load_cdse_s2_sr_scene",
    "load_gee_s2_sr_scene",
    "load_imported_scene",
    "load_planet_masks",
    "load_planet_scene",
    "load_tcvis",
    "missing_bands",
    "new_scene",
    "open_scene",
    "parse_cdse_id",
    "parse_gee_id",
    "parse_planet_name",
    "scene_exists",
    "scene_path",
    "scene_year",
    "search_cdse_s2_sr",
    "search_gee_s2_sr",
    "tcvis_cube_year",
    "tcvis_geobox",
    "write_scene",
]
