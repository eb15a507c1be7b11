"""`darts verify`: whether the files of an output folder are those that were written."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from darts.display.logs import live_console
from darts.display.plain_text import one_line

if TYPE_CHECKING:
    from darts.records.verify import Finding, Verification

Flag = Annotated[bool, Parameter(negative="")]


def verify(output: Path, /, *, quick: Flag = False) -> int:
    """Check every tile's files against the sizes and checksums that the ledger tells, and open them.

    Only looks, and changes nothing. The folder may have been moved or copied, and runs may be at work on it. Remarks
    name what is worth knowing and not wrong. The exit code is 1 if something is wrong.

    Parameters
    ----------
    output
        Output folder of darts run.
    quick
        Compare sizes alone.
    """
    from darts.records.verify import verify_output  # it loads rasterio and more, which --help can do without

    columns = (TextColumn("checking tiles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = live_console()
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        task = progress.add_task("", total=None)
        result = verify_output(
            output, quick=quick, on_tile=lambda done, total: progress.update(task, completed=done, total=total)
        )
    Console().print("\n".join(_lines(result)), markup=False, highlight=False, soft_wrap=True, emoji=False)
    return 1 if result.findings else 0


def _lines(result: "Verification") -> Iterator[str]:
    yield from _table(result.findings)
    if result.remarks:
        yield "remarks"
        yield from _table(result.remarks)
    wrong = len({finding.tile_id for finding in result.findings})
    yield (
        f"{_count(result.tiles, 'tile')}, {_count(result.files, 'file')} and {result.n_bytes / 1e9:.3f} GB checked: "
        f"{_count(len(result.findings), 'finding')}" + (f" in {_count(wrong, 'tile')}" if wrong else "")
    )
    if wrong:
        yield "Remove the folders of these tiles, and run again to make them anew."


def _table(findings: Sequence["Finding"]) -> Iterator[str]:
    rows = [[one_line(text) for text in (f.what, f.tile_id, f.file, f.detail)] for f in findings]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = [f"{text:<{width}}" for text, width in zip(row, widths, strict=False)]
        yield "  ".join(["", *cells, row[-1]]).rstrip()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
