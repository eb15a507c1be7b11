"""The report of a run: one self-contained page with a map of its tiles, times, failures and pictures."""

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from darts.display.transfers import size_text
from darts.records.ledger import Outcome, Record
from darts.report.report_pictures import Picture, collect_pictures, relative_link
from darts.report.run_charts import rate_chart, span_text, steps_table, workers_table
from darts.report.run_story import STATES, RunStory, tell_story
from darts.report.tile_map import WIDTH, TileMap, draw_map
from darts_utils.pages import fill_template, render_page
from darts_utils.store import replacing

MOST_FAILURES = 3000
"""So many failures are told one by one; the others are counted."""
LONGEST_ERROR = 400
"""Characters of an error that are shown."""

_TABLES = {
    "config.toml": "options, as a configuration file",
    "results.parquet": "results by tile",
    "timer.parquet": "seconds by tile and step",
    "stopwatch.parquet": "seconds by function",
    "log": "log",
}


def write_run_report(path: Path, records: Sequence[Record], *, stem: str, options: Mapping[str, Any]) -> None:
    """Write the page of the run named `stem`; it works without a network, from a file.

    The same records and files give the same bytes.

    Args:
        path: the page; links to tables and tiles are relative to its folder.
        records: those of the whole folder, oldest first: earlier runs tell what this one found done.
        stem: the run's name.
        options: its resolved settings.

    Raises:
        StoreError: the file cannot be written.
    """
    page = render_run_report(records, stem=stem, options=options, folder=path.parent)
    with replacing(path) as temporary:
        # Halves of surrogate pairs, as in names of files that are not UTF-8, are spelled out.
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))


def render_run_report(records: Sequence[Record], *, stem: str, options: Mapping[str, Any], folder: Path) -> str:
    """Return the page that `write_run_report` writes."""
    story = tell_story(records, stem)
    places = [(state, story.corners.get(tile_id, ())) for tile_id, state in story.states.items()]
    tile_map = draw_map(places, tuple(STATES))
    ids = list(story.states)
    shown = () if tile_map is None else tile_map.shown
    complete = [story.known[i] for i, state in story.states.items() if state in ("done", "before") and i in story.known]
    body = fill_template(
        _template("run_report.html").rstrip("\n"),
        {
            "map": _map(tile_map, story),
            "run": _list(_run_facts(story)),
            "rate": _section("Tiles over time", rate_chart(story)),
            "steps": _section("Time by step", steps_table(story)),
            "workers": _section("Workers", workers_table(story)),
            "failures": _failures(story.failures),
            "pictures": _pictures(collect_pictures(complete, folder), len(complete)),
            "models": _models(story),
            "options": _list(_flat(options)),
            "links": _links(folder, stem),
        },
    )
    return render_page(
        title=f"Run {stem}",
        facts=" · ".join(_facts(story)),
        style=_template("run_report.css"),
        body=body,
        data=[[ids[number], places[number][0]] for number in shown],
        script=_template("run_report.js"),
    )


def _template(name: str) -> str:
    return (files("darts") / "templates" / name).read_text(encoding="utf-8")


def _facts(story: RunStory) -> list[str]:
    tiles = len(story.states)
    counts = [f"{number} {STATES[state]}" for state, number in story.counts.items() if number]
    return [f"{tiles} tile{'' if tiles == 1 else 's'}", *counts, story.reason]


def _run_facts(story: RunStory) -> list[tuple[str, str]]:
    """Return names and values of what the run was."""
    start = story.start
    facts = [
        ("outcome", story.reason),
        ("started", "" if story.began is None else f"{story.began:%Y-%m-%d %H:%M:%S} UTC"),
        ("ended", "" if story.ended is None else f"{story.ended:%Y-%m-%d %H:%M:%S} UTC"),
        ("took", "" if story.seconds is None else span_text(story.seconds)),
    ]
    if start is not None:
        facts += [
            ("command", " ".join(("darts", *start.command)) if start.command else ""),
            ("shard", start.shard),
            ("host", start.host),
            ("workers", ", ".join(start.workers)),
            *start.versions.items(),
        ]
    facts.append(("written", _bytes_text(sum(o.bytes_written for o in story.attempts if o.status == "success"))))
    return [(name, value) for name, value in facts if value]


def _map(tile_map: TileMap | None, story: RunStory) -> str:
    unknown = len(story.states) - (0 if tile_map is None else len(tile_map.shown))
    legend = "".join(
        f'<li><i class="{state}"></i>{number} {STATES[state]}</li>' for state, number in story.counts.items() if number
    )
    remark = f"<li>{unknown} of unknown place, not on the map</li>" if unknown else ""
    picture = "<p>No tile's place is known.</p>"
    if tile_map is not None:
        told = ", ".join(f"{number} {STATES[state]}" for state, number in story.counts.items() if number)
        picture = (
            f'<svg id="view" viewBox="0 0 {WIDTH} {tile_map.height}" tabindex="0" role="application" '
            f'aria-roledescription="map" aria-label="Map of the tiles: {told}" aria-describedby="keys">\n'
            f"{tile_map.content}\n</svg>\n"
            '<div id="buttons" role="group" aria-label="Zoom" hidden>'
            '<button type="button" id="zoom-in" aria-label="Zoom in" title="Zoom in (+)">+</button>'
            '<button type="button" id="zoom-out" aria-label="Zoom out" title="Zoom out (−)">−</button>'
            '<button type="button" id="fit" aria-label="All tiles" title="All tiles (0)">⤢</button></div>\n'
            '<p id="keys">Drag to move, Ctrl and wheel to zoom. Keys: arrows move, + and − zoom, 0 shows all.</p>\n'
            '<div id="under" aria-live="off"></div>'
        )
    return f'<div id="map">{picture}</div><ul class="legend">{legend}{remark}</ul>'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _failures(failures: Sequence[Outcome]) -> str:
    by_cause: dict[str, list[Outcome]] = {}
    for outcome in failures:
        by_cause.setdefault(outcome.cause or outcome.error.partition(":")[0] or "unknown", []).append(outcome)
    left, parts = MOST_FAILURES, []
    for cause, group in sorted(by_cause.items(), key=lambda item: (-len(item[1]), item[0])):
        rows = "".join(
            f"<dt>{html.escape(outcome.tile_id)}</dt><dd>{html.escape(_shortened(outcome.error))}"
            f"{f' (attempt {outcome.attempt})' if outcome.attempt > 1 else ''}</dd>"
            for outcome in group[:left]
        )
        more = len(group) - left
        left = max(left - len(group), 0)
        rest = f"<p>{more} more are in the table of results.</p>" if more > 0 else ""
        is_open = " open" if len(by_cause) == 1 and len(group) <= 10 else ""
        parts.append(
            f"<details{is_open}><summary>{html.escape(cause)}: {len(group)} tile{'' if len(group) == 1 else 's'}"
            f'</summary><dl class="errors">{rows}</dl>{rest}</details>'
        )
    return _section("Failures by cause", "".join(parts))


def _shortened(error: str) -> str:
    return error if len(error) <= LONGEST_ERROR else f"{error[: LONGEST_ERROR - 1]}…"


def _pictures(pictures: Sequence[Picture], complete: int) -> str:
    figures = "".join(
        f'<a href="{html.escape(picture.link)}"><img src="{picture.source}" alt="" loading="lazy" decoding="async">'
        f"<span>{html.escape(picture.tile_id)}</span></a>"
        for picture in pictures
    )
    title = "Pictures" if len(pictures) == complete else f"Pictures of {len(pictures)} of {complete} tiles"
    return _section(title, f'<div class="pictures">{figures}</div>' if figures else "")


def _models(story: RunStory) -> str:
    models = [
        (name, f"{checksum} ({number} tile{'' if number == 1 else 's'})") for name, checksum, number in story.models()
    ]
    return _section("Models", _list(models) if models else "")


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield names and values of settings, those of groups with dots; what is not set is left out."""
    for key, value in options.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value is not None:
            yield name, _value(value)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        items = [_value(item) for item in value]
        return ", ".join(sorted(items) if isinstance(value, set | frozenset) else items)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _list(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts)
    return f"<dl>{rows}</dl>" if rows else ""


def _links(folder: Path, stem: str) -> str:
    links = "".join(
        f'<li><a href="{html.escape(relative_link(file, folder))}">{html.escape(file.name)}</a> {what}</li>'
        for suffix, what in _TABLES.items()
        if (file := folder / f"{stem}.{suffix}").is_file()
    )
    return _section("Tables of this run", f"<ul>{links}</ul>" if links else "")


def _bytes_text(n_bytes: int) -> str:
    return size_text(n_bytes) if n_bytes else ""
