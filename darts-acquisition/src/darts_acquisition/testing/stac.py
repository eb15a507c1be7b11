"""A STAC API on 127.0.0.1: rustac's server."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darts_acquisition.testing.processes import check_items, program, running


@contextlib.contextmanager
def stac_server(collection: dict[str, Any], items: list[dict[str, Any]]) -> Iterator[str]:
    """Serve items from memory until the block ends; gives the base address with a trailing slash.

    Ids, collections, datetime, bbox, intersects and limit are right, in pages of 10 unless asked otherwise.
    GET searches that name collections fail with 500 where a page follows; POST does not. A `filter` finds nothing; for
    that there are `cql2_stac_server` and `pgstac_server`.

    Raises:
        ConfigError: an item is of another collection.
        MissingDataError: rustac is not installed.
        RemoteError: the server did not start.
    """
    check_items(collection, items)
    rustac = str(program("rustac", "rustac"))
    with tempfile.TemporaryDirectory(prefix="stac-") as folder:
        files = []
        for name, content in (
            ("collection.json", collection),
            ("items.json", {"type": "FeatureCollection", "features": items}),
        ):
            path = Path(folder, name)
            path.write_text(json.dumps(content))
            files.append(str(path))
        with running(lambda port: [rustac, "serve", "-a", f"127.0.0.1:{port}", *files], "/") as port:
            yield f"http://127.0.0.1:{port}/"
