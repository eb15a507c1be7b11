"""Segmentation checkpoints and patch inference over whole tiles."""

from darts_segmentation.checkpoint import Checkpoint, build_model, load_checkpoint, read_checkpoint, save_checkpoint
from darts_segmentation.patches import PatchOptions
from darts_segmentation.segmenter import SMPSegmenter

__all__ = [
    "Checkpoint",
    "PatchOptions",
    "SMPSegmenter",
    "build_model",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]
