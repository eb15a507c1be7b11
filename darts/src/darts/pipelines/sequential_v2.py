"""The pipelines of this version: one tile after the other."""

from darts.pipelines.base import RunSummary
from darts.pipelines.planet import PlanetPipeline
from darts.pipelines.sentinel2 import Sentinel2Pipeline

__all__ = ["PlanetPipeline", "RunSummary", "Sentinel2Pipeline"]
