"""Pages of one file that need no network: one frame for all of them, and templates that are filled."""

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def render_page(*, title: str, facts: str, style: str, body: str, data: Any, script: str) -> str:
    """Return a page with a heading, a switch between light and dark (which `script` brings to life), and `body`.

    Args:
        title: plain text, of the window and of the heading.
        facts: plain text beside the heading.
        style: CSS.
        body: HTML below the heading.
        data: what `script` finds as JSON in the element `data`; numbers are finite.
        script: JavaScript.
    """
    frame = (files("darts_utils") / "templates" / "page.html").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(title),
        "facts": html.escape(facts),
        "style": style,
        "body": body,
        # No end of a script and no comment can stand in it.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
    }
    return fill_template(frame, parts)


def fill_template(template: str, parts: Mapping[str, str]) -> str:
    """Return a template with its `{{parts}}`; in one pass, so that no part is taken for the name of another."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)
