"""An Earth Engine on 127.0.0.1 that the unmodified `earthengine-api` client talks to."""

import contextlib
import importlib.util
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio import Affine
from rasterio.warp import transform as transform_points
from shapely.geometry.base import BaseGeometry

from darts_acquisition.testing.ee_expressions import evaluate
from darts_acquisition.testing.ee_images import encode_pixels, stored_band
from darts_acquisition.testing.ee_values import EarthEngineError, Element, Grid, as_json
from darts_acquisition.testing.loopback import LoopbackHandler, LoopbackServer, serving
from darts_utils.errors import ConfigError, MissingDataError

_PROJECTS = re.compile(r"^projects/earthengine-(?:public|legacy)/assets/")


@dataclass(frozen=True)
class EarthEngineImage:
    """An image that the server has."""

    bands: Mapping[str, np.ndarray]
    """Values by name, each (y, x). Coarser bands have fewer pixels over the same area."""
    transform: tuple[float, ...] | Affine
    """From pixel to map of the first band, six numbers as in `Affine(a, b, c, d, e, f)`."""
    crs: str
    """As `EPSG:32608`."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """`system:time_start` in milliseconds, and whatever filters ask for."""
    valid: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Where bands are not masked; bands that are not named are valid everywhere."""

    def __post_init__(self) -> None:
        if not self.bands or any(np.ndim(values) != 2 for values in self.bands.values()):
            raise ConfigError("an Earth Engine image needs bands, each with dimensions (y, x)")

    def grid(self, name: str) -> Grid:
        """Return the grid of a band."""
        first, shape = np.shape(next(iter(self.bands.values()))), np.shape(self.bands[name])
        x_step, y_step = round(first[1] / shape[1]) or 1, round(first[0] / shape[0]) or 1
        a, b, c, d, e, f = tuple(self.transform)[:6]
        return Grid((shape[0], shape[1]), Affine(a * x_step, b * y_step, c, d * x_step, e * y_step, f), self.crs)

    def element(self, asset_id: str) -> Element:
        """Return it as the server's functions know it."""
        bands = tuple(
            stored_band(name, np.asarray(values), self.valid.get(name), self.grid(name))
            for name, values in self.bands.items()
        )
        properties = {"system:index": asset_id.rpartition("/")[2]} | dict(self.properties)
        footprint = cache(lambda: _footprint(self.grid(bands[0].name)))
        return Element(properties, footprint, asset_id, bands)


class EarthEngine:
    """A running server."""

    def __init__(self, server: "_Server") -> None:
        self._server = server
        self.url = server.url
        """Base address for `ee.Initialize(url=…)`, without a trailing slash."""

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path (without query) of all requests seen."""
        with self._server.lock:
            return [(method, path) for method, path, _ in self._server.seen]

    @property
    def pixel_requests(self) -> list[dict[str, Any]]:
        """Bodies of the requests for pixels seen."""
        with self._server.lock:
            return [body for _, path, body in self._server.seen if path.endswith((":computePixels", ":getPixels"))]

    @property
    def value_requests(self) -> list[dict[str, Any]]:
        """Bodies of the requests for values seen."""
        with self._server.lock:
            return [body for _, path, body in self._server.seen if path.endswith("value:compute")]

    def clear(self) -> None:
        """Forget the requests seen."""
        with self._server.lock:
            self._server.seen.clear()


@contextlib.contextmanager
def earth_engine_server(images: Mapping[str, EarthEngineImage]) -> Iterator[EarthEngine]:
    """Serve images until the block ends; an asset id with a slash puts an image into the collection before it.

    `value:compute` evaluates searches of collections and properties; `image:computePixels` and `getPixels` give
    pixels, nearest at pixel centres and 0 where masked, up to Earth Engine's limits; assets are shown and listed.
    A function that the server lacks is an error that names it.

    Raises:
        MissingDataError: `earthengine-api` is not installed, or came without its description of the service.
    """
    server = _Server({asset_id: image.element(asset_id) for asset_id, image in images.items()})
    with serving(server):
        yield EarthEngine(server)


class _Server(LoopbackServer):
    def __init__(self, assets: Mapping[str, Element]) -> None:
        self.description = _Description()
        self.assets = dict(assets)
        self.seen: list[tuple[str, str, Any]] = []
        super().__init__(_Handler)


class _Handler(LoopbackHandler):
    server: _Server

    def answer(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        query = dict(urllib.parse.parse_qsl(address.query))
        raw = self.read_body()
        body = json.loads(raw) if raw else None
        with self.server.lock:
            self.server.seen.append((self.command, path, body))
        try:
            self._route(path, query, body)
        except EarthEngineError as error:
            self.reply_json(error.code, {"error": {"code": error.code, "message": str(error), "status": error.status}})

    def _route(self, path: str, query: dict[str, str], body: Any) -> None:
        if path == "/$discovery/rest":
            self.reply(200, self.server.description.service(self.server.url), "application/json")
            return
        name = re.sub(r"^/v1(alpha|beta)?/", "", path)
        if re.fullmatch(r"projects/[^/]+/algorithms", name):
            self.reply(200, self.server.description.algorithms, "application/json")
        elif name.endswith("/value:compute"):
            self.reply_json(200, {"result": as_json(evaluate(body["expression"], self.server.assets))})
        elif name.endswith("/image:computePixels"):
            image = evaluate(body["expression"], self.server.assets)
            if not isinstance(image, Element):
                raise EarthEngineError("Expected an Image.")
            self._reply_pixels(image, body)
        elif name.endswith(":getPixels"):
            self._reply_pixels(self._asset(name.removesuffix(":getPixels")), body)
        elif name.endswith((":listAssets", ":listImages")):
            self._reply_list(name.rpartition(":")[0], query)
        elif "/assets/" in name:
            self.reply_json(200, self._collection(name) or _described(self._asset(name)))
        else:
            raise EarthEngineError(f"the test server does not know {path}", 404, "NOT_FOUND")

    def _collection(self, name: str) -> dict[str, Any] | None:
        asset_id = _PROJECTS.sub("", name)
        if asset_id in self.server.assets or not any(key.startswith(f"{asset_id}/") for key in self.server.assets):
            return None
        return {"type": "IMAGE_COLLECTION", "name": name, "id": asset_id}

    def _asset(self, name: str) -> Element:
        asset_id = _PROJECTS.sub("", name)
        if asset_id not in self.server.assets:
            raise EarthEngineError(f"Asset '{name}' does not exist or doesn't allow this operation.", 404, "NOT_FOUND")
        return self.server.assets[asset_id]

    def _reply_pixels(self, image: Element, body: dict[str, Any]) -> None:
        pixels = encode_pixels(image, body.get("fileFormat", ""), _requested_grid(body), body.get("bandIds"))
        self.reply(200, pixels, "application/octet-stream")

    def _reply_list(self, name: str, query: dict[str, str]) -> None:
        folder = _PROJECTS.sub("", name)
        assets = [element for key, element in self.server.assets.items() if key.startswith(folder + "/")]
        for term in filter(None, re.split(r"\s+AND\s+", query.get("filter", ""))):
            assets = [element for element in assets if _fits(element, term)]
        first, size = int(query.get("pageToken", 0)), int(query.get("pageSize", 1000))
        page: dict[str, Any] = {"assets": [_described(element) for element in assets[first : first + size]]}
        if first + size < len(assets):
            page["nextPageToken"] = str(first + size)
        self.reply_json(200, page)


class _Description:
    """What the service can do, as the client's own tests have it."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("ee")
        if spec is None or spec.origin is None:
            raise MissingDataError("the Earth Engine test server needs `uv pip install earthengine-api`")
        folder = Path(spec.origin).parent / "tests"
        try:
            self._service = json.loads((folder / "cloud_api_discovery_document.json").read_bytes())
            self.algorithms = (folder / "algorithms.json").read_bytes()
        except FileNotFoundError as error:
            raise MissingDataError(
                f"the installed earthengine-api lacks {error.filename}; try another version"
            ) from error
        # The client passes these to listAssets, which the document lacks.
        parameters = self._service["resources"]["projects"]["resources"]["assets"]["methods"]["listAssets"][
            "parameters"
        ]
        for name in ("filter", "view"):
            parameters.setdefault(name, {"location": "query", "type": "string"})

    def service(self, url: str) -> bytes:
        """Return the discovery document of a service at an address."""
        return json.dumps(self._service | {"rootUrl": f"{url}/", "baseUrl": f"{url}/"}).encode()


def _requested_grid(body: dict[str, Any]) -> Grid:
    try:
        grid = body["grid"]
        affine = grid["affineTransform"]
        numbers = [affine.get(name, 0) for name in ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")]
        width, height = int(grid["dimensions"]["width"]), int(grid["dimensions"]["height"])
        crs = grid["crsCode"]
    except (KeyError, TypeError) as error:
        raise EarthEngineError(f"the test server needs a grid with {error}") from error
    if width < 1 or height < 1 or not numbers[0] or not numbers[4]:
        raise EarthEngineError("Pixel grid dimensions and scales must not be 0.")
    return Grid((height, width), Affine(*numbers), crs)


def _described(image: Element) -> dict[str, Any]:
    asset_id = image.id or ""
    name = asset_id if asset_id.startswith("projects/") else f"projects/earthengine-public/assets/{asset_id}"
    described: dict[str, Any] = {
        "type": "IMAGE", "name": name, "id": asset_id, "properties": as_json(dict(image.properties)),
        "bands": [_described_band(band.name, band.grid) for band in image.image_bands()],
        "geometry": as_json(image.geometry()),
    }  # fmt: skip
    if (start := image.get("system:time_start")) is not None:
        described["startTime"] = datetime.fromtimestamp(start / 1000, UTC).isoformat().replace("+00:00", "Z")
    return described


def _described_band(name: str, grid: Grid | None) -> dict[str, Any]:
    assert grid is not None
    affine = dict(zip(("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY"), grid.affine, strict=False))
    dimensions = {"width": grid.shape[1], "height": grid.shape[0]}
    return {"id": name, "grid": {"crsCode": grid.crs, "dimensions": dimensions, "affineTransform": affine}}


def _fits(element: Element, term: str) -> bool:
    """Whether a listed asset fits one term of a filter."""
    match = re.fullmatch(r'\s*(?:properties\.)?([\w:]+)\s*(<=|>=|!=|=|<|>)\s*"?([^"]*)"?\s*', term)
    if match is None:
        raise EarthEngineError(f"the test server does not know the filter '{term}'")
    name, operator, text = match.groups()
    value: Any = element.get(name)
    wanted: Any = text
    if name in ("startTime", "endTime"):
        value, wanted = element.get("system:time_start"), datetime.fromisoformat(text).timestamp() * 1000
    elif isinstance(value, int | float):
        wanted = float(text)
    if value is None:
        return False
    return {
        "<": value < wanted, "<=": value <= wanted, "=": value == wanted,
        ">": value > wanted, ">=": value >= wanted, "!=": value != wanted,
    }[operator]  # fmt: skip


def _footprint(grid: Grid) -> BaseGeometry:
    """Return the outline of a grid in longitude and latitude; longitudes go on past 180 where it crosses there."""
    height, width = grid.shape
    outline = shapely.segmentize(shapely.box(0, 0, width, height), max(width, height) / 8)
    column, row = np.array(outline.exterior.coords).T
    a, b, c, d, e, f = tuple(grid.affine)[:6]
    lon, lat = transform_points(grid.crs, "EPSG:4326", a * column + b * row + c, d * column + e * row + f)
    if max(lon) - min(lon) > 180:
        lon = [value + 360 if value < 0 else value for value in lon]
    return shapely.Polygon(zip(lon, lat, strict=True))
