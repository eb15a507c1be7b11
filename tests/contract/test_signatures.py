"""SPEC 10: the signatures that user scripts rely on: what may be passed by position, in this order, and its default."""

import importlib
import inspect

import pytest

FIVE = ("probabilities", "binarized", "polygonized", "extent", "thumbnail")
ANY = object()
"""A default that the specification names without giving it."""
NEEDED = inspect.Parameter.empty

search = {
    "intersects": None, "tiles": None, "start_date": None, "end_date": None, "max_cloud_cover": 10,
    "max_snow_cover": 10, "months": None, "years": None,
}  # fmt: skip
patches = {"patch_size": 1024, "overlap": 256, "batch_size": 8, "reflection": 0}

SIGNATURES = {
    "darts_acquisition.load_planet_scene": {"fpath": NEEDED},
    "darts_acquisition.load_planet_masks": {"fpath": NEEDED},
    "darts_acquisition.load_cdse_s2_sr_scene": {
        "s2item": NEEDED, "bands_mapping": ANY, "store": None, "aws_profile_name": "default", "offline": False,
        "device": ANY,
    },
    "darts_acquisition.download_cdse_s2_sr_scene": {
        "s2item": NEEDED, "store": NEEDED, "bands_mapping": ANY, "aws_profile_name": "default",
    },
    "darts_acquisition.load_gee_s2_sr_scene": {
        "s2item": NEEDED, "bands_mapping": ANY, "store": None, "offline": False, "device": ANY,
    },
    "darts_acquisition.download_gee_s2_sr_scene": {"s2item": NEEDED, "store": NEEDED, "bands_mapping": ANY},
    "darts_acquisition.search_cdse_s2_sr": search,
    "darts_acquisition.search_gee_s2_sr": search,
    "darts_acquisition.load_arcticdem": {
        "geobox": NEEDED, "data_dir": NEEDED, "resolution": NEEDED, "buffer": 0, "offline": False,
    },
    "darts_acquisition.download_arcticdem": {"aoi": NEEDED, "data_dir": NEEDED, "resolution": NEEDED},
    "darts_acquisition.load_tcvis": {
        "geobox": NEEDED, "data_dir": NEEDED, "year": None, "buffer": 0, "offline": False,
    },
    "darts_acquisition.download_tcvis": {"aoi": NEEDED, "data_dir": NEEDED, "year": None},
    "darts_preprocessing.preprocess_v2": {
        "ds_optical": NEEDED, "ds_arcticdem": NEEDED, "ds_tcvis": NEEDED, "tpi_outer_radius": 100,
        "tpi_inner_radius": 0, "device": ANY,
    },
    "darts_preprocessing.calculate_ndvi": {"ds": NEEDED},
    "darts_preprocessing.calculate_slope": {"ds": NEEDED},
    "darts_preprocessing.calculate_aspect": {"ds": NEEDED},
    "darts_preprocessing.calculate_curvature": {"ds": NEEDED},
    "darts_preprocessing.calculate_hillshade": {"ds": NEEDED, "azimuth": NEEDED, "angle_altitude": NEEDED},
    "darts_preprocessing.calculate_topographic_position_index": {
        "ds": NEEDED, "outer_radius": NEEDED, "inner_radius": NEEDED,
    },
    "darts_segmentation.SMPSegmenter": {"model_checkpoint": NEEDED, "device": ANY},
    "darts_segmentation.SMPSegmenter.segment_tile": {"self": NEEDED, "tile": NEEDED, **patches},
    "darts_ensemble.EnsembleV1": {"model_dict": NEEDED, "device": ANY},
    "darts_ensemble.EnsembleV1.segment_tile": {"self": NEEDED, "tile": NEEDED, **patches, "keep_inputs": False},
    "darts_segmentation.SMPSegmenter.segment_tile_batched": {"self": NEEDED, "tiles": NEEDED, **patches},
    "darts_ensemble.EnsembleV1.segment_tile_batched": {
        "self": NEEDED, "tiles": NEEDED, **patches, "keep_inputs": False,
    },
    "darts_postprocessing.erode_mask": {"mask": NEEDED, "size": NEEDED, "device": ANY, "edge_size": None},
    "darts_postprocessing.binarize": {
        "probs": NEEDED, "threshold": NEEDED, "min_object_size": NEEDED, "mask": NEEDED, "device": ANY,
    },
    "darts_postprocessing.prepare_export": {
        "tile": NEEDED, "bin_threshold": 0.5, "mask_erosion_size": 10, "min_object_size": 32, "quality_level": 1,
        "ensemble_subsets": (), "device": ANY, "edge_erosion_size": None,
    },
    "darts_export.export_tile": {
        "tile": NEEDED, "out_dir": NEEDED, "bands": FIVE, "ensemble_subsets": (), "metadata": None, "debug": False,
    },
    "darts_export.missing_outputs": {"out_dir": NEEDED, "bands": FIVE, "ensemble_subsets": ()},
}  # fmt: skip


@pytest.mark.parametrize("path", SIGNATURES)
def test_names_order_and_defaults_are_those_of_the_specification(path):
    package, *names = path.split(".")
    target = importlib.import_module(package)
    for name in names:
        target = getattr(target, name)
    parameters = [
        parameter
        for parameter in inspect.signature(target).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    expected = SIGNATURES[path]
    assert [parameter.name for parameter in parameters][: len(expected)] == list(expected)
    for parameter in parameters[: len(expected)]:
        default = expected[parameter.name]
        if default is ANY:
            continue
        if default is NEEDED and parameter.default is not NEEDED:
            continue  # an option where the specification asks for none takes nothing away
        given = tuple(parameter.default) if isinstance(parameter.default, (list, tuple)) else parameter.default
        assert given == default, parameter.name
    assert all(parameter.default is not NEEDED for parameter in parameters[len(expected) :])


@pytest.mark.parametrize("package", sorted({path.partition(".")[0] for path in SIGNATURES}))
def test_public_names_are_in_all(package):
    public = {path.split(".")[1] for path in SIGNATURES if path.startswith(package + ".")}
    assert public <= set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("archive", ["cdse", "gee"])
@pytest.mark.parametrize("verb", ["load", "download"])
def test_scenes_come_with_four_bands_unless_others_are_asked_for(verb, archive):
    function = getattr(importlib.import_module("darts_acquisition"), f"{verb}_{archive}_s2_sr_scene")
    mapping = inspect.signature(function).parameters["bands_mapping"].default
    assert sorted(mapping.values()) == ["blue", "green", "nir", "red"]


@pytest.mark.parametrize(
    ("package", "name", "properties"),
    [("darts_segmentation", "SMPSegmenter", ["required_bands"]),
     ("darts_ensemble", "EnsembleV1", ["model_names", "required_bands"])],
)  # fmt: skip
def test_models_say_what_they_are(package, name, properties):
    cls = getattr(importlib.import_module(package), name)
    assert [each for each in properties if not isinstance(getattr(cls, each, None), property)] == []


def functions():
    return [path for path in SIGNATURES if "device" in SIGNATURES[path]]


@pytest.mark.parametrize("path", functions())
def test_nobody_needs_to_name_a_device(path):
    package, name = path.split(".")
    default = inspect.signature(getattr(importlib.import_module(package), name)).parameters["device"].default
    assert default in (None, "auto")
