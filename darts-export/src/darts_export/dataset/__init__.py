"""The DARTS dataset: the results of many tiles as one."""

from darts_export.dataset.merging import MergeSummary, merge_outputs
from darts_export.dataset.slumps import Matching

__all__ = ["Matching", "MergeSummary", "merge_outputs"]
