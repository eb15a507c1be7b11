"""What options are called in the tags of results: as in the published dataset."""

TAGS = {
    "tpi_outer_radius": "tpiouter",
    "tpi_inner_radius": "tpiinner",
    "patch_size": "patchsize",
    "overlap": "overlap",
    "batch_size": "batchsize",
    "reflection": "reflection",
    "runtime": "runtime",
    "augment": "augment",
    "model_weights": "modelweights",
    "binarization_threshold": "binarizethreshold",
    "more_thresholds": "morethresholds",
    "grow_threshold": "growthreshold",
    "mask_erosion_size": "maskerosion",
    "edge_erosion_size": "edgeerosion",
    "min_object_size": "mmu",
    "min_object_area": "minarea",
    "max_water_share": "maxwatershare",
    "quality_level": "qualitymask",
}
"""The tag of each option that shapes results, without its prefix."""

_OPTIONS = {tag: option for option, tag in TAGS.items()}


def option_of(tag: str) -> str:
    """Return which option a tag tells, for people to read; the tag itself where it is none."""
    return _OPTIONS.get(tag, tag)
