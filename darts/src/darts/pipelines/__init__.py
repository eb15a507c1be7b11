"""Pipelines: everything a run needs, as one dataclass a source."""

from darts.pipelines.sequential_v2 import PlanetPipeline, Sentinel2Pipeline

__all__ = ["PlanetPipeline", "Sentinel2Pipeline"]
