"""Tags of results speak of options that there are, by the names of the published dataset."""

import dataclasses

from darts.pipelines.options import SharedOptions
from darts_utils.option_tags import TAGS, option_of

# As the older implementation writes them into its results.
PUBLISHED = {
    "tpi_outer_radius": "tpiouter", "tpi_inner_radius": "tpiinner", "patch_size": "patchsize", "overlap": "overlap",
    "reflection": "reflection", "binarization_threshold": "binarizethreshold", "mask_erosion_size": "maskerosion",
    "min_object_size": "mmu", "quality_level": "qualitymask",
}  # fmt: skip


def test_every_tag_tells_an_option_of_the_pipelines() -> None:
    assert {field.name for field in dataclasses.fields(SharedOptions)} >= TAGS.keys()
    assert [option_of(tag) for tag in TAGS.values()] == list(TAGS)


def test_tags_are_those_of_the_published_dataset() -> None:
    assert TAGS.items() >= PUBLISHED.items()


def test_another_tag_keeps_its_name() -> None:
    assert option_of("terrainconvention") == "terrainconvention"
