import contextlib

import pystac_client
import pytest
import requests
from odc.geo.geobox import GeoBox
from rasterio import Affine

from darts_acquisition.testing import cql2_stac_server, make_cdse_item, make_collection, pgstac_server, processes
from darts_utils.errors import MissingDataError

GRID = GeoBox((100, 100), Affine(10, 0, 600000, 0, -10, 7_600_020), "EPSG:32655")
TILES = ("55WFR", "08WMA", "01WCQ")
ITEMS = [
    make_cdse_item(
        f"S2C_MSIL2A_2026{n % 9 + 1:02d}27T0146{n:02d}_N0512_R017_T{TILES[n % 3]}_20260927T042005",
        geobox_10m=GRID, bands=("B04_10m",), cloud_cover=n * 2, properties={"eo:snow_cover": None if n == 5 else n},
    )
    for n in range(20)
]  # fmt: skip
CLOUD, SNOW, TILE = ({"property": name} for name in ("eo:cloud_cover", "eo:snow_cover", "grid:code"))
FILTERS = [
    {"op": "<=", "args": [CLOUD, 10]},
    {"op": "not", "args": [{"op": "<=", "args": [SNOW, 10]}]},
    {"op": "in", "args": [TILE, ["MGRS-55WFR", "MGRS-08WMA"]]},
    {"op": "between", "args": [CLOUD, 3, 9]},
    {"op": "like", "args": [TILE, "MGRS-0%"]},
    {"op": "isNull", "args": [SNOW]},
    {"op": "and", "args": [{"op": ">", "args": [CLOUD, 8]}, {"op": "=", "args": [TILE, "MGRS-01WCQ"]}]},
    {"op": "or", "args": [{"op": "<", "args": [CLOUD, 4]}, {"op": "=", "args": [TILE, "MGRS-01WCQ"]}]},
]


@pytest.fixture(scope="module")
def url():
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(pgstac_server(make_collection(), ITEMS))
        except MissingDataError as error:
            pytest.skip(str(error))


def found(url: str, **search) -> list[str]:
    return sorted(item.id for item in pystac_client.Client.open(url).search(**search).items())


@pytest.mark.servers
def test_pgstac_gives_every_item_once_over_its_pages(url):
    assert found(url, collections=["sentinel-2-l2a"], limit=3) == sorted(item["id"] for item in ITEMS)


@pytest.mark.servers
def test_our_cql2_server_and_pgstac_agree(url):
    with cql2_stac_server(make_collection(), ITEMS) as ours:
        for expression in FILTERS:
            asked = {"filter": expression, "filter_lang": "cql2-json", "collections": ["sentinel-2-l2a"], "limit": 4}
            expected = found(ours.url, **asked)
            assert 0 < len(expected) < len(ITEMS)
            assert found(url, **asked) == expected, expression
        for asked in (
            {"datetime": "2026-03-01T00:00:00Z/2026-05-27T23:59:59Z"},
            {"bbox": [149, 67, 149.1, 69]},
            {"bbox": [149.35, 68.4, 149.5, 68.5]},
            {"ids": [ITEMS[3]["id"], "none"]},
        ):
            assert found(url, **asked) == found(ours.url, **asked), asked


@pytest.mark.servers
def test_an_unknown_collection_is_404(url):
    assert requests.get(f"{url}collections/none", timeout=5).status_code == 404


def test_what_pgstac_lacks_is_named(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(MissingDataError, match=r"needs pypgstac: `uv sync --group servers`"),
        pgstac_server(make_collection(), []),
    ):
        pass
    with pytest.raises(MissingDataError, match="moto_server is not at /nowhere/moto_server"):
        processes.program("moto_server", "moto[server]")
