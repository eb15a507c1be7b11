"""Several segmentation models as one."""

from darts_ensemble.ensemble import EnsembleV1, Segmenter

__all__ = ["EnsembleV1", "Segmenter"]
