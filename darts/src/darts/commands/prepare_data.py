"""`darts prepare-data sentinel2` and `darts prepare-data planet`."""

from darts.pipelines import PlanetPipeline, Sentinel2Pipeline

sentinel2 = Sentinel2Pipeline.cli_prepare_data
planet = PlanetPipeline.cli_prepare_data
