"""Test servers on 127.0.0.1 that speak the real protocols, a proxy that puts faults in, and makers of their data."""

from darts_acquisition.testing.arcticdem import make_pgc_collection, make_pgc_item, make_pgc_tile
from darts_acquisition.testing.cql2 import Cql2StacServer, Misbehaviour, cql2_stac_server
from darts_acquisition.testing.earth_engine import EarthEngine, EarthEngineImage, earth_engine_server
from darts_acquisition.testing.faults import Fault, FaultProxy, ProxiedRequest, fault_proxy
from darts_acquisition.testing.files import file_server
from darts_acquisition.testing.pgstac import pgstac_server
from darts_acquisition.testing.s3 import S3Server, s3_server
from darts_acquisition.testing.sentinel2 import (
    make_cdse_item,
    make_cdse_scene,
    make_collection,
    make_earth_search_item,
    make_earth_search_scene,
)
from darts_acquisition.testing.stac import stac_server

__all__ = [
    "Cql2StacServer",
    "EarthEngine",
    "EarthEngineImage",
    "Fault",
    "FaultProxy",
    "Misbehaviour",
    "ProxiedRequest",
    "S3Server",
    "cql2_stac_server",
    "earth_engine_server",
    "fault_proxy",
    "file_server",
    "make_cdse_item",
    "make_cdse_scene",
    "make_collection",
    "make_earth_search_item",
    "make_earth_search_scene",
    "make_pgc_collection",
    "make_pgc_item",
    "make_pgc_tile",
    "pgstac_server",
    "s3_server",
    "stac_server",
]
