"""How QGIS draws polygons: slumps by probability or by their outlines, extents by what was seen and seen clear."""

from collections.abc import Sequence
from itertools import pairwise
from xml.sax.saxutils import quoteattr

from darts_export.preview import colour_of

STOPS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Limits of the classes of mean probability; only objects of a low threshold lie below 0.5."""

SEEN = (150, 150, 150)
CLEAR = (70, 130, 180)

Colour = tuple[int, int, int]


def probability_style(column: str) -> str:
    """Return the QML style of slumps with their mean probability in a column: classes in the thumbnail's colours."""
    classes, colours = [], []
    for number, (low, high) in enumerate(pairwise(STOPS)):
        label = f"{low:.0%} – {high:.0%}" if low else f"below {high:.0%}"
        classes.append(
            f'<range lower="{low}" upper="{high}" symbol="{number}" label={quoteattr(label)} render="true"/>'
        )
        colours.append(colour_of((max(low, STOPS[1]) + high) / 2))
    head = f'type="graduatedSymbol" attr="{column}" graduatedMethod="GraduatedColor"'
    return _qml(head, f"<ranges>{''.join(classes)}</ranges>", [_fill(colour, 90) for colour in colours])


def outline_style() -> str:
    """Return the QML style of slumps that have no one probability: their outlines."""
    return _qml('type="singleSymbol"', "", [_fill(colour_of(1.0), 0)])


def extent_style() -> str:
    """Return the QML style of the extent: one category for each `kind`."""
    kinds = {"seen": "seen", "clear": "seen clear"}
    categories = [
        f'<category value="{kind}" symbol="{number}" label="{label}" type="string" render="true"/>'
        for number, (kind, label) in enumerate(kinds.items())
    ]
    head = 'type="categorizedSymbol" attr="kind"'
    return _qml(head, f"<categories>{''.join(categories)}</categories>", [_fill(SEEN, 60), _fill(CLEAR, 60)])


def _qml(head: str, classes: str, layers: Sequence[str]) -> str:
    symbols = "".join(
        f'<symbol type="fill" name="{number}" alpha="1" clip_to_extent="1" force_rhr="0">{layer}</symbol>'
        for number, layer in enumerate(layers)
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22.0" styleCategories="Symbology">'
        f'<renderer-v2 {head} symbollevels="0" enableorderby="0" forceraster="0">'
        f"{classes}<symbols>{symbols}</symbols></renderer-v2></qgis>\n"
    )


def _fill(colour: Colour, opacity: int) -> str:
    inside = ",".join(map(str, (*colour, opacity)))
    outline = ",".join(map(str, (*colour, 255)))
    values = {
        "color": inside, "style": "solid", "outline_color": outline, "outline_style": "solid", "outline_width": "0.5",
        "outline_width_unit": "MM", "joinstyle": "miter",
    }  # fmt: skip
    options = "".join(f'<Option type="QString" name="{name}" value="{value}"/>' for name, value in values.items())
    # QGIS before 3.20 reads <prop>, later versions <Option>.
    props = "".join(f'<prop k="{name}" v="{value}"/>' for name, value in values.items())
    inner = f'<Option type="Map">{options}</Option>{props}'
    return f'<layer class="SimpleFill" enabled="1" pass="0" locked="0">{inner}</layer>'
