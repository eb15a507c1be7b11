"""What executors ask of a pipeline, so that they need not know pipelines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from darts.plan import Plan


class Work(Protocol):
    """Settings that say who works, and the plan, which is built where it is worked on."""

    @property
    def executor(self) -> str:
        """One of auto, overlapped, sequential and ray."""

    @property
    def device(self) -> str | int | None:
        """The one device, if one was named."""

    @property
    def devices(self) -> Sequence[str | int] | None:
        """Several devices, a process each."""

    @property
    def memory_budget(self) -> str | None:
        """Bytes, or a text such as 8GB, that tiles in flight may take together."""

    @property
    def ray_address(self) -> str | None:
        """The cluster to join; None: one on this machine."""

    @property
    def ray_workers(self) -> int | None:
        """How many actors; None: as many as fit."""

    @property
    def ray_cpus(self) -> int | None:
        """Cores of an actor; None: decided by its node."""

    def plan(self) -> "Plan":
        """Return what turns tiles into files, with the models loaded."""

    def for_worker(self, device: str | int, memory: str | None) -> Self:
        """Return a copy for a worker elsewhere, with its device and its share of the memory."""
