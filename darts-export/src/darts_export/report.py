"""The report: one self-contained page of a tile, with layers, polygons and metadata; it fetches nothing."""

import html
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Geod, Transformer

from darts_export.export import Export
from darts_export.metadata import PREFIX
from darts_export.preview import RAMP
from darts_export.rasters import tile_geobox
from darts_export.report_layers import Layer, draw_layers, picture_size
from darts_utils.pages import fill_template, render_page
from darts_utils.store import replacing

GRID_NODES = 17
"""Places per side whose longitude and latitude the page knows; between them it interpolates directions in space, which
knows neither antimeridian nor pole and errs by 1 m on a tile of 110 km."""

SIGNIFICANT_DIGITS = 6

_SHOWN = ("Region_ID", "mean", "area_m2")
"""Columns of the table also where they are the same for all."""


def write_report(path: Path, export: Export) -> None:
    """Write a tile's page: pictures to switch on and off, its segments as outlines and in a table, its tags.

    It works without a network, from a file; the same tile gives the same bytes.

    Raises:
        ConfigError: the tile has no geobox.
        StoreError: the file cannot be written.
    """
    page = render_report(export)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render_report(export: Export) -> str:
    """Return the page that `write_report` writes."""
    geobox = tile_geobox(export.tile)
    found = {"binarized_segmentation", "probabilities"} <= set(export.tile.data_vars)
    segments = export.segments if found else None
    layers = draw_layers(export.tile)
    data = {
        "shape": [int(side) for side in geobox.shape],
        "place": _place(geobox),
        "ramp": [[stop, *colour] for stop, colour in RAMP],
        "objects": _objects(segments, geobox) if segments is not None else None,
    }
    tile_id, tags = str(export.ids["tile_id"]), export.tags
    facts = (
        _date(export.ids.get("acquisition_time")),
        str(tags.get(f"{PREFIX}sensor") or ""),
        "" if segments is None else f"{len(segments)} object{'' if len(segments) == 1 else 's'}",
    )
    body = fill_template(
        _template("report.html").rstrip("\n"),
        {
            "images": "\n".join(_image(layer, geobox.shape) for layer in layers),
            "controls": "\n".join(_control(layer) for layer in reversed(layers)),
            "tags": "\n".join(_tag(name, value) for name, value in tags.items()),
        },
    )
    return render_page(
        title=tile_id,
        facts=" · ".join(fact for fact in facts if fact),
        style=_template("report.css"),
        body=body,
        data=data,
        script=_template("report.js"),
    )


def _template(name: str) -> str:
    return (files("darts_export") / "templates" / name).read_text(encoding="utf-8")


def _image(layer: Layer, shape: tuple[int, int]) -> str:
    hidden = "" if layer.visible else ' style="display:none"'
    return (
        f'<image class="layer" id="layer-{layer.key}" width="{shape[1]}" height="{shape[0]}" '
        f'preserveAspectRatio="none" opacity="{layer.opacity:g}"{hidden} href="{layer.href}"/>'
    )


def _control(layer: Layer) -> str:
    swatches = "".join(
        f'<span><i style="background:rgb{colour}"></i>{html.escape(meaning)}</span>' for colour, meaning in layer.legend
    )
    if layer.ramp:
        colours = ",".join(f"rgb{colour}" for colour, _ in layer.legend)
        ends = "".join(f"<b>{html.escape(meaning)}</b>" for _, meaning in layer.legend)
        swatches = f'<span class="ramp" style="background:linear-gradient(90deg,{colours})"></span>{ends}'
    kind = "ramp-legend" if layer.ramp else "legend"
    return (
        f'<li><label><input type="checkbox" data-layer="{layer.key}"{" checked" if layer.visible else ""}> '
        f"{html.escape(layer.title)}</label>"
        f'<input type="range" min="0" max="100" value="{layer.opacity * 100:.0f}" data-opacity="{layer.key}" '
        f'aria-label="Opacity of {html.escape(layer.title.lower())}">'
        + (f'<div class="{kind}">{swatches}</div>' if swatches else "")
        + "</li>"
    )


def _tag(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"<dt>{html.escape(name.removeprefix(PREFIX))}</dt><dd>{html.escape(text)}</dd>"


def _date(acquired: Any) -> str:
    return "" if pd.isna(acquired) else f"{acquired:%Y-%m-%d %H:%M} UTC"


def _place(geobox: Any) -> dict[str, Any]:
    """Return what turns pixels into coordinates: affine, directions of a grid of places, scale, true north."""
    rows, columns = geobox.shape
    affine, crs = geobox.affine, geobox.crs
    to_geographic = Transformer.from_crs(str(crs), "EPSG:4326", always_xy=True)
    row, column = np.meshgrid(np.linspace(0, rows, GRID_NODES), np.linspace(0, columns, GRID_NODES), indexing="ij")
    longitude, latitude = np.radians(to_geographic.transform(*_on_map(affine, column.ravel(), row.ravel())))
    directions = [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    code = crs.to_epsg()
    return {
        "affine": [affine.a, affine.b, affine.c, affine.d, affine.e, affine.f],
        "crs": f"EPSG:{code}" if code else str(crs.proj.name),
        "decimals": (0 if abs(geobox.resolution.x) >= 1 else 2) if crs.projected else 5,
        "nodes": GRID_NODES,
        "directions": None
        if not np.isfinite(directions).all()
        else [round(float(number), 8) for number in np.stack(directions, axis=-1).ravel()],
        **_scale_and_north(geobox, to_geographic),
    }


def _scale_and_north(geobox: Any, to_geographic: Any) -> dict[str, float | None]:
    """Return the metres of a pixel, along a row, and the direction of true north in degrees clockwise, mid-tile."""
    rows, columns = geobox.shape
    middle = np.array([columns / 2, rows / 2])
    ends = middle[:, None] + [[0, -0.5, 0.5], [0, 0, 0]]
    longitude, latitude = to_geographic.transform(*_on_map(geobox.affine, *ends))
    geod = Geod(ellps="WGS84")
    _, _, metres = geod.inv(longitude[1], latitude[1], longitude[2], latitude[2])
    if not math.isfinite(metres) or metres <= 0:
        return {"metres": None, "north": None}
    farther = geod.fwd(longitude[0], latitude[0], 0, metres)
    x, y = to_geographic.transform(farther[0], farther[1], direction="INVERSE")
    if not (math.isfinite(x) and math.isfinite(y)) or abs(latitude[0]) > 89.999:
        return {"metres": metres, "north": None}
    column, row = _on_map(~geobox.affine, x, y)
    north = math.degrees(math.atan2(column - middle[0], middle[1] - row))
    return {"metres": float(f"{metres:.6g}"), "north": round(north, 2)}


def _on_map(affine: Any, column: Any, row: Any) -> tuple[Any, Any]:
    return affine.a * column + affine.b * row + affine.c, affine.d * column + affine.e * row + affine.f


def _objects(segments: gpd.GeoDataFrame, geobox: Any) -> dict[str, Any]:
    """Return outlines as SVG paths in pixels, and the attributes: those that differ as rows, the others once."""
    frame = segments.drop(columns="geometry")
    same = [name for name in frame if name not in _SHOWN and (frame[name].isna().all() or _alike(frame[name]))]
    rows = frame.drop(columns=same)
    return {
        "paths": _paths(segments.geometry.to_numpy(), geobox),
        "columns": list(rows.columns),
        "rows": [[_plain(value) for value in row] for row in rows.itertuples(index=False, name=None)],
        "same": {name: _plain(frame[name].iloc[0]) for name in same if len(frame)},
    }


def _alike(column: pd.Series) -> bool:
    return len(column) > 1 and column.nunique(dropna=False) == 1


def _paths(outlines: np.ndarray, geobox: Any) -> list[str]:
    """Return each outline as an SVG path of whole pixels, simplified by less than half a pixel of the picture."""
    inverse = ~geobox.affine
    matrix = np.array([[inverse.a, inverse.d], [inverse.b, inverse.e]])
    pixels = shapely.transform(outlines, lambda points: np.rint(points @ matrix + [inverse.c, inverse.f]))
    coarse = max(geobox.shape) / max(picture_size(geobox.shape))
    if coarse > 1:
        pixels = shapely.simplify(pixels, 0.49 * coarse, preserve_topology=True)
    return ["".join(_ring(ring) for ring in shapely.get_rings(shapely.get_parts(outline))) for outline in pixels]


def _ring(ring: Any) -> str:
    points = shapely.get_coordinates(ring)[:-1].astype(int)
    steps = " ".join(f"{x} {y}" for x, y in np.diff(points, axis=0))
    return f"M{points[0, 0]} {points[0, 1]}l{steps}z".replace(" -", "-")


def _plain(value: Any) -> Any:
    if value is None or value is pd.NaT or pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float | np.floating):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
