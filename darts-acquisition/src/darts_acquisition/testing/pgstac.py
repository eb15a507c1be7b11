"""A STAC API on 127.0.0.1 that knows all of CQL2: pgSTAC on PostgreSQL and PostGIS, behind stac-fastapi."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from darts_acquisition.testing.processes import check_items, ending_with_us, free_port, running
from darts_utils.errors import MissingDataError, RemoteError

_DATABASE = "stac"


@contextlib.contextmanager
def pgstac_server(collection: dict[str, Any], items: list[dict[str, Any]]) -> Iterator[str]:
    """Serve items from a database of its own until the block ends; gives the base address with a trailing slash.

    Takes some 10 s to start; an item with all assets of the Copernicus Data Space takes 38 ms to come out, so use few.
    Needs Debian's `postgresql` and `postgresql-15-postgis-3`, and the dependency group `servers`.

    Raises:
        ConfigError: an item is of another collection.
        MissingDataError: a program that is needed is not installed; names it.
        RemoteError: something did not start; holds what it printed.
    """
    check_items(collection, items)
    pypgstac, uvicorn = _python_program("pypgstac"), _python_program("uvicorn")
    with _postgres() as environment, tempfile.TemporaryDirectory(prefix="pgstac-") as folder:
        _run([pypgstac, "migrate"], environment)
        for table, rows in (("collections", [collection]), ("items", items)):
            path = Path(folder, f"{table}.ndjson")
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            if rows:
                _run([pypgstac, "load", table, str(path), "--method", "upsert"], environment)
        app = [uvicorn, "stac_fastapi.pgstac.app:create_app", "--factory", "--host", "127.0.0.1", "--port"]
        with running(lambda port: [*app, str(port)], "/_mgmt/ping", environment=environment) as port:
            yield f"http://127.0.0.1:{port}/"


@contextlib.contextmanager
def _postgres() -> Iterator[dict[str, str]]:
    """Run an empty database; gives an environment whose PG* variables lead to it."""
    initdb, postgres, psql = (_postgres_program(name) for name in ("initdb", "postgres", "psql"))
    user = _unprivileged_user()
    port = free_port()
    with _folder_of(user) as folder, tempfile.TemporaryFile() as output:
        data = str(folder / "data")
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        _run([initdb, "-D", data, *options], None, user)
        settings = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=32MB"]
        process = subprocess.Popen(
            [postgres, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder),
             *(word for setting in settings for word in ("-c", setting))],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True,
            **_as_user(user),
        )  # fmt: skip
        try:
            with ending_with_us(process.pid):
                environment = {
                    **os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres",
                    "PGPASSWORD": "none", "PGDATABASE": "postgres", "USE_API_HYDRATE": "TRUE",
                }  # fmt: skip
                _wait_until_ready(process, psql, environment, output)
                _run([psql, "-c", f"CREATE DATABASE {_DATABASE}"], environment)
                environment["PGDATABASE"] = _DATABASE
                _run([psql, "-c", "CREATE EXTENSION postgis; CREATE EXTENSION btree_gist"], environment)
                yield environment
        finally:
            process.send_signal(signal.SIGINT)  # ends connections too; SIGTERM would wait for them
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", psql: str, environment: dict[str, str], output: IO[bytes]
) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if subprocess.run([psql, "-c", "SELECT 1"], env=environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    output.seek(0)
    raise RemoteError(f"PostgreSQL did not start; it printed: {output.read().decode(errors='replace')[-4000:]!r}")


def _run(command: list[str], environment: dict[str, str] | None, user: str | None = None) -> None:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False, cwd="/", **_as_user(user),
    )  # fmt: skip
    if done.returncode:
        printed = done.stdout.decode(errors="replace")[-4000:]
        raise RemoteError(f"{' '.join(command)} failed with {done.returncode}; it printed: {printed!r}")


def _as_user(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    import pwd  # not on every system

    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


@contextlib.contextmanager
def _folder_of(user: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # its socket's path must be short
        if user is not None:
            shutil.chown(folder, user)
        yield Path(folder)


def _unprivileged_user() -> str | None:
    """Return whom PostgreSQL runs as: it refuses to be root; None: as ourselves."""
    return "postgres" if os.geteuid() == 0 else None


def _postgres_program(name: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise MissingDataError(
            f"the test server pgSTAC needs PostgreSQL's {name}: `apt-get install --no-install-recommends postgresql-15 "
            "postgresql-15-postgis-3`"
        )
    return found


def _python_program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise MissingDataError(f"the test server pgSTAC needs {name}: `uv sync --group servers`")
    return found
