"""`darts merge`: the results of many tiles as one dataset."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from darts_utils.quoting import counted
from darts_utils.threads import available_cores


def merge(
    outputs: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    out: Path,
    model: str | None = None,
    threshold: float | None = None,
    min_object_size: int | None = None,
    regions: Path | None = None,
    region_column: str | None = None,
    drift: float = 10.0,
    min_share: float = 0.3,
    processes: int | None = None,
) -> int:
    """Combine the tiles of output folders into the DARTS dataset: footprints by day, by year, slumps across years.

    A damaged tile is left out and named, and the exit code is 1. A dataset that is there already is replaced. Tiles of
    different models or settings are merged, and told.

    Parameters
    ----------
    outputs
        Output folders of darts run.
    out
        Folder of the dataset; it appears when it is complete.
    model
        Take the objects of this model; default: those of the mean of all models.
    threshold
        Take the objects of this further threshold of the run, such as 0.4; default: those of the main one.
    min_object_size
        Smallest object, in pixels, among those with parts cut by tile edges; default: as in the run.
    regions
        Vector file of polygons by which the summary counts too.
    region_column
        Column with the names of the regions; default: the first one with text.
    drift
        By how many metres images may be shifted against each other when slumps are followed across years.
    min_share
        Footprints of two years are one slump if they share at least this part of the smaller one's area.
    processes
        How many work at once; default: one a core.
    """
    # They load geopandas and more, which --help can do without.
    from darts_export.dataset import Matching, merge_outputs

    summary = merge_outputs(
        outputs,
        out,
        model=model,
        threshold=threshold,
        min_object_size=min_object_size,
        regions=regions,
        region_column=region_column,
        matching=Matching(drift_m=drift, min_share=min_share),
        processes=available_cores() if processes is None else processes,
    )
    rows = summary.rows
    Console().print("\n".join([
        f"{summary.folder} is written from {counted(summary.tiles, 'tile')}"
        + (f"; {summary.duplicates} were there twice" if summary.duplicates else ""),
        f"  polygons of tiles    {summary.whole} whole, {summary.cut} cut",
        f"  cut and not kept     {summary.dropped.unseen} not seen whole, {summary.dropped.small} too small",
        f"  Level 1              {rows['level1']} footprints by day",
        f"  Level 2              {rows['level2']} footprints by year",
        f"  slumps               {rows['slumps']}",
        *(f"tiles differ in {setting}" for setting in summary.mixed),
        *(f"left out: {reason}" for reason in summary.damaged),
    ]), markup=False, highlight=False, soft_wrap=True, emoji=False)  # fmt: skip
    return 1 if summary.damaged else 0
