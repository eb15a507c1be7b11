"""SPEC 2: the parameters of the pipelines with their defaults, their methods, and the hooks of a new pipeline."""

import dataclasses
import inspect

import pytest

from darts.pipelines import PlanetPipeline, Sentinel2Pipeline
from darts.pipelines.sequential_v2 import PlanetPipeline as PlanetOfV2
from darts.pipelines.sequential_v2 import Sentinel2Pipeline as Sentinel2OfV2
from darts.pipelines.sequential_v2 import _BasePipeline
from darts_utils.paths import DefaultPaths

SHARED = {
    "model_files": None, "default_dirs": DefaultPaths(), "output_data_dir": None, "arcticdem_dir": None,
    "tcvis_dir": None, "device": None, "ee_project": None, "ee_use_highvolume": True, "tpi_outer_radius": 100,
    "tpi_inner_radius": 0, "patch_size": 1024, "overlap": 256, "batch_size": 8, "reflection": 0,
    "binarization_threshold": 0.5, "mask_erosion_size": 10, "edge_erosion_size": None, "min_object_size": 32,
    "quality_level": 1, "export_bands": ["probabilities", "binarized", "polygonized", "extent", "thumbnail"],
    "write_model_outputs": False, "overwrite": False, "offline": False, "debug_data": False,
}  # fmt: skip
PLANET = {"orthotiles_dir": None, "scenes_dir": None, "image_ids": None}
SENTINEL2 = {
    "scene_ids": None, "scene_id_file": None, "tile_ids": None, "aoi_file": None, "start_date": None,
    "end_date": None, "max_cloud_cover": 10, "max_snow_cover": 10, "months": None, "years": None,
    "prep_data_scene_id_file": None, "sentinel2_grid_dir": None, "raw_data_store": None, "no_raw_data_store": False,
    "raw_data_source": "cdse",
}  # fmt: skip
FURTHER = {"dry_run", "executor", "devices", "shard", "memory_budget", "skip_failed", "max_failures", "fail_fast"}
HOOKS = {"_tileinfos", "_get_tile_id", "_load_tile", "_tile_aoi", "_arcticdem_resolution", "_download_tile",
         "_result_metadata"}  # fmt: skip
BOTH = pytest.mark.parametrize(
    ("pipeline", "own"), [(PlanetPipeline, PLANET), (Sentinel2Pipeline, SENTINEL2)], ids=["planet", "sentinel2"]
)


@BOTH
def test_parameters_and_defaults_are_those_of_the_specification(pipeline, own):
    made = pipeline()
    given = {name: getattr(made, name) for name in SHARED | own}
    assert given == SHARED | own
    assert {f.name for f in dataclasses.fields(pipeline) if f.init} >= FURTHER | set(SHARED) | set(own)


@BOTH
def test_methods_are_those_of_the_specification(pipeline, own):
    assert list(inspect.signature(pipeline.run).parameters) == ["self"]
    prepare = inspect.signature(pipeline.prepare_data).parameters
    assert {name: prepare[name].default for name in list(prepare)[1:]} == {"optical": False, "aux": False}
    for name in ("cli", "cli_prepare_data"):
        assert isinstance(inspect.getattr_static(pipeline, name), staticmethod)
        assert inspect.signature(getattr(pipeline, name)).parameters["pipeline"].kind is inspect.Parameter.KEYWORD_ONLY


@dataclasses.dataclass(kw_only=True)
class KitePipeline(_BasePipeline):
    def _tileinfos(self):
        return [("a", self._output(self.default_dirs.resolve()) / "a")]

    def _get_tile_id(self, tilekey):
        return tilekey

    def _load_tile(self, tilekey):
        raise NotImplementedError

    def _arcticdem_resolution(self):
        return 10


def test_a_new_pipeline_needs_the_hooks_of_the_specification_and_no_others(tmp_path):
    assert all(callable(getattr(_BasePipeline, hook, None)) for hook in HOOKS)
    assert set(_BasePipeline.__abstractmethods__) <= HOOKS
    made = KitePipeline(default_dirs=DefaultPaths(darts_dir=tmp_path))
    assert made._tileinfos() == [("a", tmp_path / "output" / "kite" / "a")]


def test_a_new_pipeline_that_can_download_is_asked_for_its_tiles(tmp_path):
    asked = []

    class Remote(KitePipeline):
        def _download_tile(self, tilekey):
            asked.append(tilekey)

    done = Remote(default_dirs=DefaultPaths(darts_dir=tmp_path)).prepare_data(optical=True)
    assert (asked, done.fetched, done.failed) == (["a"], ["a"], {})
    done = KitePipeline(default_dirs=DefaultPaths(darts_dir=tmp_path)).prepare_data(optical=True)
    assert (done.fetched, done.present) == ([], ["a"])


def test_the_pipelines_are_those_of_the_second_version():
    assert (PlanetOfV2, Sentinel2OfV2) == (PlanetPipeline, Sentinel2Pipeline)
