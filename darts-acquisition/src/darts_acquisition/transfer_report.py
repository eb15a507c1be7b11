"""Who hears how far a download is."""

from typing import Protocol


class TransferReport(Protocol):
    """Hears of a download as it goes; called from any thread."""

    def received(self, n_bytes: int) -> None:
        """So many bytes more came over the network (negative: they are fetched again after a failure)."""


class NoReport:
    """Hears nothing."""

    def received(self, n_bytes: int) -> None:
        """Do nothing."""


SILENT = NoReport()
