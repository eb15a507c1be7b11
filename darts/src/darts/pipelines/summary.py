"""What a run returns."""

from dataclasses import dataclass

from darts.records.ledger import Outcome


@dataclass(frozen=True)
class RunSummary:
    """What became of the tiles of a run."""

    outcomes: tuple[Outcome, ...]
    """The last outcome of each tile that was looked at."""
    left: tuple[str, ...] = ()
    """Tiles that were not worked on because the run stopped."""
    interrupted: bool = False
    """Whether somebody stopped the run before it was through."""

    def count(self, status: str) -> int:
        """Return how many tiles ended as `status` (success, failed, skipped); those to be tried again are left."""
        return sum(outcome.status == status and not outcome.again for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0: all tiles done or skipped; 1: some failed; 130: interrupted."""
        if self.interrupted:
            return 130
        return 1 if self.count("failed") else 0
