"""Segmentation checkpoints and patch inference over whole tiles."""
