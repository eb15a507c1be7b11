"""Joining a Ray cluster, or starting one on this machine, and what workers may take of it."""

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts.executors.work import Work
from darts_utils.errors import ConfigError, DeviceError
from darts_utils.threads import available_cores

logger = logging.getLogger("darts.executors.ray_cluster")

ANSWER_S = 5.0
"""How long a cluster may take to answer."""

_STORE_BYTES = 80 << 20
"""Of Ray's object store; its least, since tiles never travel."""

_LONGEST_FOLDER = 40
"""Characters of Ray's folder: the paths of its sockets lie below, and systems take some 100 in all."""

_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""What a client of HTTP/2 says first (RFC 9113, 3.4): the preface and a frame of settings, which has type 4."""


class Cluster:
    """The cluster that this process is connected to."""

    def __init__(self, *, ours: bool, folder: Path | None = None) -> None:
        self._ours = ours
        """Whether the connection is ours to end."""
        self._folder = folder

    def nodes(self) -> dict[str, Mapping[str, float]]:
        """Return what each node has (CPU, GPU), by Ray's id of the node."""
        import ray

        return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    def leave(self) -> None:
        """End the connection, and the cluster if it was started here."""
        import ray

        if self._ours:
            ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class Share:
    """What one worker takes of a node."""

    cpus: int
    gpus: int

    def fits(self, node: Mapping[str, float]) -> int:
        """Return how many workers a node has room for."""
        return int(min(node.get(name, 0) // asked for name, asked in (("CPU", self.cpus), ("GPU", self.gpus)) if asked))

    def __str__(self) -> str:
        return f"{_count(self.cpus, 'core')}" + (f" and {_count(self.gpus, 'GPU')}" if self.gpus else "")


def join_cluster(address: str | None, *, gpus: bool) -> Cluster:
    """Connect to a cluster: at an address, the one that Ray finds around, or a new one on this machine.

    Args:
        address: host:port, "auto" for one that must be there, "local" for a new one; None: as Ray finds it.
        gpus: whether a new cluster has the GPUs of this machine.

    Raises:
        ConfigError: Ray is not installed, or the cluster does not answer or refuses.
    """
    # Ray reads it when it is imported: messages about dead workers, which darts tells itself, go to stdout otherwise.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "(?s).*")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require_ray()
    if ray.is_initialized() and address in (None, "auto"):
        return Cluster(ours=False)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _sigterm_kept():
        found = _find(address)
        if ray.is_initialized():
            if found == (here := ray.get_runtime_context().gcs_address):
                return Cluster(ours=False)
            raise ConfigError(f"ray_address {address}: this process is connected to the Ray cluster at {here} already")
        if found is None:
            return _start_here(quiet, gpus=gpus)
        try:
            # Ray looks for the token of a cluster only if it finds the cluster itself.
            ray.init(address=found if address not in (None, "auto") else "auto", **quiet)
        except Exception as error:
            raise ConfigError(f"the Ray cluster at {found} cannot be joined: {error}") from error
        logger.info("joined the Ray cluster at %s", found)
        return Cluster(ours=True)


def require_ray() -> Any:
    """Return the package ray.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"the executor ray needs the package ray ({error}); install the extra: pip install 'darts-permafrost[ray]'"
        ) from error
    return ray


def share_of(work: Work, nodes: Sequence[Mapping[str, float]]) -> Share:
    """Return what a worker takes: a GPU where there are some, and cores.

    Raises:
        DeviceError: GPUs are asked for, and no node has one.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if work.device == "cuda" and not with_gpus:
        raise DeviceError(f"device cuda: no node of the cluster has a GPU ({describe(nodes)}); use auto or cpu")
    if isinstance(work.device, int):
        raise ConfigError(f"device {work.device}: Ray chooses among the GPUs of a cluster; use cuda, cpu or auto")
    gpus = int(bool(with_gpus) and work.device != "cpu")
    default = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpus) if gpus else 1
    return Share(work.ray_cpus or max(default, 1), gpus)


def describe(nodes: Sequence[Mapping[str, float]]) -> str:
    """Return what a cluster has, in words."""
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"{_count(len(nodes), 'node')} with {_count(int(cpus), 'core')} and {_count(int(gpus), 'GPU')}"


def _find(address: str | None) -> str | None:
    """Return the address of the cluster to join, one that answers; None: start one here."""
    from ray._private.services import canonicalize_bootstrap_address

    asked = address if address not in (None, "auto") else os.environ.get("RAY_ADDRESS") or address
    if asked is not None and "://" in asked:
        _expect_answer(asked, asked.split("://", 1)[1].split("/")[0])
        return asked
    try:
        found: str | None = canonicalize_bootstrap_address(asked)  # type: ignore[arg-type]  # None is fine
    except ConnectionError as error:
        raise ConfigError(
            f"ray_address {asked}: no Ray cluster is running here; start one, or leave the address out"
        ) from error
    except Exception as error:
        raise ConfigError(f"ray_address must be host:port, auto or local, got {asked!r}: {error}") from error
    if found is not None:
        _expect_answer(asked or found, found)
    return found


def _expect_answer(named: str, address: str) -> None:
    """Check that something like Ray answers; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ConfigError(f"ray_address must be host:port, got {named!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("1", "true"):
                return
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {named}: {error}. Is it running, and reachable here?") from error
    if len(answer) < 9 or answer[3] != 4:
        raise ConfigError(f"what answers at {named} is no Ray cluster; name the address that ray start printed")


def _start_here(quiet: dict[str, Any], *, gpus: bool) -> Cluster:
    import ray

    # A token of its own keeps other users of this machine out; without one Ray puts a file into the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_worker_niceness", "0")  # as every other run; Ray gives way to all else by default
    folder = _short_folder()
    try:
        ray.init(
            address="local",
            num_cpus=available_cores(),
            num_gpus=None if gpus else 0,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=str(folder),
            **quiet,
        )
    except BaseException as error:
        Cluster(ours=True, folder=folder).leave()
        if isinstance(error, Exception):
            raise ConfigError(f"Ray cannot start on this machine: {error}") from error
        raise
    logger.info("started Ray on this machine, with %s", _count(available_cores(), "core"))
    return Cluster(ours=True, folder=folder)


def _short_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="darts-ray-"))
    if len(str(folder)) <= _LONGEST_FOLDER:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="darts-ray-", dir="/tmp"))


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put the handler of SIGTERM back, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(TypeError):  # it was set outside Python
            signal.signal(signal.SIGTERM, former)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
