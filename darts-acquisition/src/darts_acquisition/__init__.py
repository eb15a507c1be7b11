"""Where the data of darts comes from: optical scenes, elevation, Landsat trends."""

from darts_acquisition.arcticdem import (
    arcticdem_geobox,
    create_arcticdem_cube,
    download_arcticdem,
    load_arcticdem,
    missing_arcticdem,
)
from darts_acquisition.arcticdem_source import PGC, ArcticDemSource
from darts_acquisition.areas import read_areas
from darts_acquisition.cdse import CDSE_BANDS, download_cdse_s2_sr_scene, load_cdse_s2_sr_scene, search_cdse_s2_sr
from darts_acquisition.cube import Cube
from darts_acquisition.earth_engine import GEE_SOURCE, EarthEngineSource, init_ee
from darts_acquisition.gee import download_gee_s2_sr_scene, gee_download_size, load_gee_s2_sr_scene
from darts_acquisition.gee_items import GeeItem, get_gee_item
from darts_acquisition.gee_search import search_gee_s2_sr
from darts_acquisition.import_geotiff import import_scene
from darts_acquisition.mgrs_tiles import parse_mgrs_tile, tile_geobox
from darts_acquisition.planet import load_planet_masks, load_planet_scene, planet_geobox, planet_year
from darts_acquisition.planet_folders import (
    PlanetFolder,
    PlanetName,
    PlanetScan,
    find_planet_orthotiles,
    find_planet_scenes,
    parse_planet_name,
    scan_planet_orthotiles,
    scan_planet_scenes,
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
from darts_acquisition.safe_import import find_safe_products, import_safe
from darts_acquisition.scene_choice import item_time
from darts_acquisition.scene_ids import SceneId, parse_cdse_id, parse_gee_id, scene_year
from darts_acquisition.sentinel2 import GEE_BANDS, load_imported_scene
from darts_acquisition.stac_items import item_grid
from darts_acquisition.stac_scenes import download_scene, download_size
from darts_acquisition.stac_search import get_items, search_s2_sr
from darts_acquisition.stac_sources import CDSE_SOURCE, EARTH_SEARCH_SOURCE, STAC_SOURCES, StacSource
from darts_acquisition.tcvis import (
    create_tcvis_cube,
    download_tcvis,
    load_tcvis,
    missing_tcvis,
    tcvis_cube_year,
    tcvis_geobox,
)
from darts_acquisition.transfer_report import TransferReport

__all__ = [
    "CDSE",
    "CDSE_BANDS",
    "CDSE_SOURCE",
    "EARTH_SEARCH_SOURCE",
    "GEE",
    "GEE_BANDS",
    "GEE_SOURCE",
    "IMPORT",
    "PGC",
    "STAC_SOURCES",
    "ArcticDemSource",
    "Cube",
    "EarthEngineSource",
    "GeeItem",
    "PlanetFolder",
    "PlanetName",
    "PlanetScan",
    "RawScene",
    "SceneId",
    "SceneInfo",
    "StacSource",
    "TransferReport",
    "add_bands",
    "arcticdem_geobox",
    "create_arcticdem_cube",
    "create_tcvis_cube",
    "download_arcticdem",
    "download_cdse_s2_sr_scene",
    "download_gee_s2_sr_scene",
    "download_scene",
    "download_size",
    "download_tcvis",
    "find_planet_orthotiles",
    "find_planet_scenes",
    "find_safe_products",
    "gee_download_size",
    "get_gee_item",
    "get_items",
    "import_safe",
    "import_scene",
    "init_ee",
    "item_grid",
    "item_time",
    "list_scenes",
    "load_arcticdem",
    "load_cdse_s2_sr_scene",
    "load_gee_s2_sr_scene",
    "load_imported_scene",
    "load_planet_masks",
    "load_planet_scene",
    "load_tcvis",
    "missing_arcticdem",
    "missing_bands",
    "missing_tcvis",
    "new_scene",
    "open_scene",
    "parse_cdse_id",
    "parse_gee_id",
    "parse_mgrs_tile",
    "parse_planet_name",
    "planet_geobox",
    "planet_year",
    "read_areas",
    "scan_planet_orthotiles",
    "scan_planet_scenes",
    "scene_exists",
    "scene_path",
    "scene_year",
    "search_cdse_s2_sr",
    "search_gee_s2_sr",
    "search_s2_sr",
    "tcvis_cube_year",
    "tcvis_geobox",
    "tile_geobox",
    "write_scene",
]
