"""The folder of the dataset: one merge at a time, and nothing of others is replaced."""

import errno
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError

from darts_export.dataset.columns import TABLES
from darts_utils.errors import ConfigError, DartsError, StoreError
from darts_utils.quoting import shown
from darts_utils.store import held, remove_leftovers, replacing

OWN_FILES = frozenset(f"{table}.{suffix}" for table in TABLES for suffix in ("parquet", "gpkg")) | {
    "summary.parquet", "summary.csv", "map.png", "collection.json",
}  # fmt: skip

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP)
_WRITE_ERRORS = (OSError, pa.ArrowException, DataSourceError, DataLayerError, FeatureError, sqlite3.Error)
"""What comes of a full disk, by what was being written."""


def check_target(target: Path, outputs: Sequence[Path]) -> None:
    """Check, before anything is read, that a dataset may take the place of `target`, a path without links.

    Raises:
        ConfigError: it is a file, or holds what is no part of a dataset; or no output folder was named.
    """
    if not outputs:
        raise ConfigError("no output folder was named: name at least one of `darts run`")
    if target.is_symlink():
        raise ConfigError(f"{target} is a link that leads round in a circle; name another folder for the dataset")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; name a folder for the dataset")
    others = sorted({path.name for path in target.iterdir()} - OWN_FILES) if target.is_dir() else []
    if others:
        raise ConfigError(
            f"{target} holds what is no part of a dataset, such as {shown(others[0])}, and would be replaced; name "
            "another folder, or move it"
        )


@contextmanager
def new_dataset(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when the block ends well; what a killed merge left is removed.

    Raises:
        ConfigError: another merge writes this dataset.
        StoreError: it cannot be written.
    """
    try:
        with held(target) as alone:
            if not alone:
                raise ConfigError(f"another merge writes {target} now; wait for it, or name another folder")
            remove_leftovers(target)
            with replacing(target) as temporary:
                temporary.mkdir()
                yield temporary
    except DartsError:
        raise
    except BrokenProcessPool as error:
        raise StoreError(
            f"cannot write {target}: a worker process was killed, as happens when memory runs out. Use fewer processes."
        ) from error
    except _WRITE_ERRORS as error:
        raise StoreError(f"cannot write {target}: {' '.join(str(error).split())}. {_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    denied = isinstance(error, OSError) and error.errno in _DENIED
    return "Choose a folder you may write." if denied else "Is the disk full?"
