"""`darts run sentinel2` and `darts run planet`."""

from darts.pipelines import PlanetPipeline, Sentinel2Pipeline

sentinel2 = Sentinel2Pipeline.cli
planet = PlanetPipeline.cli
