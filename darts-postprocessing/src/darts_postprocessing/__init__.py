"""From probabilities to objects."""

from darts_postprocessing.masks import erode_mask
from darts_postprocessing.objects import Objects, binarize, find_objects
from darts_postprocessing.prepare import prepare_export

__all__ = ["Objects", "binarize", "erode_mask", "find_objects", "prepare_export"]
