"""The pipelines of this version: one tile after the other."""

from darts.pipelines.base import _BasePipeline as _BasePipeline  # what a new source subclasses
from darts.pipelines.planet import PlanetPipeline
from darts.pipelines.sentinel2 import Sentinel2Pipeline
from darts.pipelines.summary import RunSummary

__all__ = ["PlanetPipeline", "RunSummary", "Sentinel2Pipeline"]
