"""Figures of a run as HTML: seconds by step and by worker, and tiles over time."""

import html
import math
from collections.abc import Iterable, Sequence
from datetime import datetime

from darts.records.ledger import Outcome
from darts.report.run_story import RunStory, as_time

MOST_BINS = 60
_BIN_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200)
_DAY_S = 86_400


def steps_table(story: RunStory) -> str:
    """Return a table of the seconds of each step, with bars; empty where nothing was measured."""
    steps = [(name, len(seconds), sum(seconds)) for name, seconds in story.steps()]
    total = sum(seconds for _, _, seconds in steps)
    if total <= 0:
        return ""
    most = max(seconds for _, _, seconds in steps)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{_bar(seconds / most)}'
        f"<td>{100 * seconds / total:.1f} %</td><td>{span_text(seconds)}</td>"
        f"<td>{span_text(seconds / number)}</td></tr>"
        for name, number, seconds in steps
    )
    remark = ""
    if story.seconds:
        ratio = total / story.seconds
        remark = (
            f"<p>All steps together: {span_text(total)}, {ratio:.2f} × the {span_text(story.seconds)} of the run"
            f"{'; steps of different tiles overlap' if ratio > 1 else ''}.</p>"
        )
    return (
        '<table class="bars"><thead><tr><th scope="col">Step</th><th scope="col" class="wide"></th>'
        '<th scope="col">Share</th><th scope="col">Total</th><th scope="col">Mean a tile</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{remark}"
    )


def workers_table(story: RunStory) -> str:
    """Return a table of what each worker did; empty where there was but one."""
    workers = sorted({outcome.worker for outcome in story.attempts})
    if len(workers) < 2:
        return ""
    most = max(_tiles_of(story.attempts, worker)[0] for worker in workers) or 1
    rows = ""
    for worker in workers:
        done, failed, seconds = _tiles_of(story.attempts, worker)
        rows += (
            f'<tr><th scope="row">{html.escape(worker) or "not known"}</th>{_bar(done / most)}'
            f"<td>{done}</td><td>{failed}</td><td>{span_text(seconds)}</td></tr>"
        )
    return (
        '<table class="bars"><thead><tr><th scope="col">Worker</th><th scope="col" class="wide"></th>'
        '<th scope="col">Tiles done</th><th scope="col">Attempts failed</th><th scope="col">Seconds of steps</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def rate_chart(story: RunStory) -> str:
    """Return bars of tiles that were done and attempts that failed, over the time of the run; empty where none did."""
    began, seconds = story.began, story.seconds
    if began is None or seconds is None or not story.attempts:
        return ""
    width = bin_seconds(seconds)
    bins = max(1, math.ceil((seconds + 1e-9) / width))
    done, failed = [0] * bins, [0] * bins
    for outcome in story.attempts:
        if (time := as_time(outcome.finished)) is not None:
            number = min(max(int((time - began).total_seconds() / width), 0), bins - 1)
            (done if outcome.status == "success" else failed)[number] += 1
    most = max(d + f for d, f in zip(done, failed, strict=True))
    if not most:
        return ""
    bars = "".join(_column(i, d, f, most, began, width) for i, (d, f) in enumerate(zip(done, failed, strict=True)))
    per_hour = 3600 / width
    peak = f"{most * per_hour / 60:.3g} tiles/min" if most * per_hour >= 60 else f"{most * per_hour:.3g} tiles/h"
    return (
        f'<div class="chart"><p class="axis"><span>{peak}</span></p>'
        f'<svg viewBox="0 0 {bins} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Tiles done and attempts failed, in bins of {span_text(width)}">{bars}</svg>'
        f'<p class="axis"><span>start</span><span>bins of {span_text(width)}</span>'
        f"<span>{span_text(bins * width)}</span></p></div>"
    )


def bin_seconds(seconds: float) -> int:
    """Return the width of a bin: round, and such that there are at most 60."""
    width = next((width for width in _BIN_S if seconds <= width * MOST_BINS), None)
    return width or _DAY_S * math.ceil(seconds / _DAY_S / MOST_BINS)


def span_text(seconds: float) -> str:
    """Return a span of time as a person reads it, such as `12.3 s`, `4 min 5 s`, `2 h 30 min`, `3 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", _DAY_S, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def _bar(share: float) -> str:
    return f'<td class="wide"><i style="width:{100 * share:.1f}%"></i></td>'


def _tiles_of(outcomes: Iterable[Outcome], worker: str) -> tuple[int, int, float]:
    """Return tiles done, attempts failed, and the seconds of both."""
    own: Sequence[Outcome] = [outcome for outcome in outcomes if outcome.worker == worker]
    done = sum(outcome.status == "success" for outcome in own)
    return done, len(own) - done, sum(sum(outcome.seconds.values()) for outcome in own)


def _column(number: int, done: int, failed: int, most: int, began: datetime, width: int) -> str:
    if not done and not failed:
        return ""
    of_done, of_failed = 100 * done / most, 100 * failed / most
    when = f"{span_text(number * width)} to {span_text((number + 1) * width)}"
    title = f"<title>{when}: {done} done{f', {failed} failed' if failed else ''}</title>"
    return (
        f"<g>{title}"
        f'<rect class="done" x="{number + 0.05:g}" y="{100 - of_done:.2f}" width=".9" height="{of_done:.2f}"/>'
        f'<rect class="failed" x="{number + 0.05:g}" y="{100 - of_done - of_failed:.2f}" width=".9" '
        f'height="{of_failed:.2f}"/></g>'
    )
