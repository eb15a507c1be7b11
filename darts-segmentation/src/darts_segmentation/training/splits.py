"""Which patches train, validate and test: blocks that overlap nowhere, divided by seeded balancing."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import shapely

from darts_utils.errors import ConfigError
from darts_utils.numbers import whole_number
from darts_utils.quoting import listed

if TYPE_CHECKING:
    import geopandas as gpd

logger = logging.getLogger("darts.training")

SHARES = MappingProxyType({"train": 0.7, "val": 0.15, "test": 0.15})
PLANE = "EPSG:6931"
"""Equal-area plane around the North Pole, in which overlaps are measured; it has no seam at the antimeridian."""
LEAST_OVERLAP_M2 = 1.0
"""Patches that only touch overlap by rounding."""


@dataclass
class _Block:
    """What stays together."""

    samples: list[str]
    regions: set[str]
    patches: int
    positives: int
    """Patches with slumps."""

    def __str__(self) -> str:
        named = ", ".join(sorted(region for region in self.regions if region))
        return f"sample {self.samples[0]!r} with {len(self.samples) - 1} others{f' in {named}' if named else ''}"


def group_samples(table: "gpd.GeoDataFrame") -> dict[str, int]:
    """Return the group of each sample; samples whose footprints overlap, directly or by others, are of one group.

    `table` has columns `sample_id` and geometry: the metadata, a row a patch, or the samples. Groups are counted in
    the order of their first sample by name, whatever the order of rows.
    """
    if table.empty:
        return {}
    names, codes = np.unique(table["sample_id"].to_numpy(dtype=str), return_inverse=True)
    labels = _connected(len(names), _overlaps(_footprints(table, codes, len(names))))
    first: dict[int, int] = {}
    return {str(name): first.setdefault(int(label), len(first)) for name, label in zip(names, labels, strict=True)}


def split_samples(
    metadata: "gpd.GeoDataFrame",
    *,
    by: Literal["region", "sample"] = "sample",
    shares: Mapping[str, float] = SHARES,
    named: Mapping[str, Sequence[str]] | None = None,
    seed: int = 42,
) -> dict[str, np.ndarray]:
    """Return the patches of each split, sorted; every patch is in one, and overlapping samples are in the same.

    Blocks go one by one to the split that lacks most, in patches and in patches with slumps; first those with slumps,
    large ones before small ones, at random among alike. The result depends on the seed, not on the order of rows.

    Args:
        metadata: of a dataset, or some rows of it.
        by: "region" never divides a region either; a sample without a region is one of its own.
        shares: of the patches, by split; they sum to 1. A split with share 0 gets only what `named` gives it.
        named: regions and samples, by name, that belong to a split, with all that is in their blocks.
        seed: of the random order.

    Raises:
        ConfigError: shares or names cannot work, or there are fewer blocks than splits.
    """
    _check_shares(shares)
    blocks = _blocks(metadata, by)
    fixed = _fixed(blocks, named or {}, shares)
    places = _assigned(blocks, shares, fixed, seed, by)
    for name, share in shares.items():
        chosen = [block for block, place in zip(blocks, places, strict=True) if place == name]
        if share > 0 and not any(block.positives for block in chosen):
            logger.warning("split %s has no patch with slumps: too few blocks have any", name)
    split_of = {sample: place for block, place in zip(blocks, places, strict=True) for sample in block.samples}
    return _patches(metadata, split_of, list(shares))


def fold_samples(
    metadata: "gpd.GeoDataFrame", n_folds: int, *, by: Literal["region", "sample"] = "sample", seed: int = 42
) -> list[dict[str, np.ndarray]]:
    """Return folds for cross-validation, each with patches to "train" and "val"; each patch validates in one fold.

    Raises:
        ConfigError: `n_folds` is less than 2, or there are fewer blocks.
    """
    n_folds = whole_number("n_folds", n_folds, 2)
    names = [f"fold {number}" for number in range(1, n_folds + 1)]
    parts = split_samples(metadata, by=by, shares=dict.fromkeys(names, 1 / n_folds), seed=seed)
    return [
        {"train": np.sort(np.concatenate([parts[other] for other in names if other != name])), "val": parts[name]}
        for name in names
    ]


def overlapping_samples(metadata: "gpd.GeoDataFrame", splits: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the leaks between splits (name: patch numbers), sorted: pairs of samples whose patches there overlap.

    A sample with patches in several splits is a pair with itself.
    """
    rows = metadata.set_index("patch", drop=False)
    pieces = [(name, rows.loc[np.asarray(patches, dtype=int)]) for name, patches in splits.items()]
    keys = sorted({(str(sample), name) for name, part in pieces for sample in part["sample_id"]})
    number = {key: place for place, key in enumerate(keys)}
    footprints = np.empty(len(keys), object)
    for name, part in pieces:
        codes = np.array([number[str(sample), name] for sample in part["sample_id"]], int)
        of_part = _footprints(part, codes, len(keys))
        footprints[np.unique(codes)] = of_part[np.unique(codes)]
    leaks = {(keys[one][0], keys[other][0]) for one, other in _overlaps(footprints) if keys[one][1] != keys[other][1]}
    leaks |= {(sample, sample) for sample, count in Counter(sample for sample, _ in keys).items() if count > 1}
    return sorted((min(pair), max(pair)) for pair in leaks)


def _footprints(table: "gpd.GeoDataFrame", codes: np.ndarray, count: int) -> np.ndarray:
    """Return the union of the geometries of each code, in the plane; None where there is nothing."""
    plane = table.geometry.to_crs(PLANE).to_numpy()
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(count + 1))
    footprints = np.full(count, None, object)
    for code in range(count):
        parts = plane[order[bounds[code] : bounds[code + 1]]]
        parts = parts[~shapely.is_missing(parts)]
        if len(parts):
            footprints[code] = shapely.union_all(shapely.make_valid(parts))
    return footprints


def _overlaps(footprints: np.ndarray) -> np.ndarray:
    """Return pairs (n, 2) of footprints that overlap, each once, the lower number first."""
    tree = shapely.STRtree(footprints)
    one, other = tree.query(footprints, predicate="intersects")
    one, other = one[one < other], other[one < other]
    area = np.zeros(len(one))
    for start in range(0, len(one), 4096):
        part = slice(start, start + 4096)
        area[part] = shapely.area(shapely.intersection(footprints[one[part]], footprints[other[part]]))
    return np.column_stack([one, other])[area > LEAST_OVERLAP_M2]


def _connected(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return for each of `count` things the number of its component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _blocks(metadata: "gpd.GeoDataFrame", by: str) -> list[_Block]:
    """Return what stays together, in the order of the first sample by name."""
    if by not in ("region", "sample"):
        raise ConfigError(f"by must be 'region' or 'sample', got {by!r}")
    if metadata.empty:
        raise ConfigError("the dataset has no patches to divide")
    groups = group_samples(metadata)
    counts = metadata.assign(positive=metadata["positive_share"] > 0).groupby("sample_id", sort=True)
    counted = counts.agg(region=("region", "first"), patches=("positive", "size"), positives=("positive", "sum"))
    samples = [str(name) for name in counted.index]
    regions = [str(name) for name in counted["region"]]
    labels = np.array([groups[name] for name in samples], int)
    if by == "region":
        together: dict[str, int] = {}
        pairs = [
            (label, together.setdefault(region, label)) for label, region in zip(labels, regions, strict=True) if region
        ]
        labels = _connected(labels.max() + 1, np.array(pairs, int).reshape(-1, 2))[labels]
    blocks: dict[int, _Block] = {}
    for name, region, label, row in zip(samples, regions, labels, counted.itertuples(), strict=True):
        block = blocks.setdefault(int(label), _Block([], set(), 0, 0))
        block.samples.append(name)
        block.regions.add(region)
        block.patches += int(row.patches)
        block.positives += int(row.positives)
    return list(blocks.values())


def _check_shares(shares: Mapping[str, float]) -> None:
    values = np.array(list(shares.values()), float)
    if not len(values) or not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > 1e-6:
        raise ConfigError(f"shares of the splits must be 0 or more and sum to 1, got {dict(shares)}")


def _fixed(blocks: Sequence[_Block], named: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> dict[int, str]:
    """Return the split of the blocks that names decide about."""
    if unknown := sorted(set(named) - set(shares)):
        raise ConfigError(f"names are given for split {', '.join(unknown)}, but the splits are {', '.join(shares)}")
    fixed: dict[int, str] = {}
    for split, names in named.items():
        for name in [names] if isinstance(names, str) else names:
            found = [n for n, block in enumerate(blocks) if name and (name in block.regions or name in block.samples)]
            if not found:
                raise ConfigError(f"split {split} asks for {name!r}, which is no {_known(blocks)}")
            for number in found:
                if fixed.setdefault(number, split) != split:
                    raise ConfigError(
                        f"{name!r} is to be in split {split}, but overlaps what is to be in split {fixed[number]}: "
                        f"{blocks[number]} stay together"
                    )
    return fixed


def _known(blocks: Sequence[_Block]) -> str:
    regions = sorted({region for block in blocks for region in block.regions if region})
    samples = sorted(sample for block in blocks for sample in block.samples)
    return f"region ({', '.join(regions) or 'there are none'}) and no sample ({listed(samples)})"


def _assigned(
    blocks: Sequence[_Block], shares: Mapping[str, float], fixed: Mapping[int, str], seed: int, by: str
) -> list[str]:
    """Return the split of each block."""
    patches = max(sum(block.patches for block in blocks), 1)
    positives = max(sum(block.positives for block in blocks), 1)
    wanted = [name for name, share in shares.items() if share > 0]
    places = dict(fixed)
    left = [number for number in _order(blocks, seed) if number not in fixed]
    # Surplus of each split: what it has beyond its share, of all patches and of those with slumps.
    surplus = {name: np.array([-share, -share], float) for name, share in shares.items()}
    weights = [np.array([block.patches / patches, block.positives / positives]) for block in blocks]
    for number, name in fixed.items():
        surplus[name] += weights[number]
    without = [name for name in wanted if name not in places.values()]
    if len(left) < len(without):
        unit = "regions" if by == "region" else "groups of overlapping samples"
        raise ConfigError(
            f"{len(blocks)} {unit} cannot fill the splits {', '.join(wanted)}: at least one each is needed"
            + (f", and {len(fixed)} are named" if fixed else "")
            + ". Ask for fewer splits, divide by sample, or add samples from elsewhere."
        )
    bare = {name for name in wanted if not any(blocks[k].positives for k, place in fixed.items() if place == name)}
    positive_left = sum(blocks[number].positives > 0 for number in left)
    for position, number in enumerate(left):
        has_slumps = blocks[number].positives > 0
        choice = wanted
        # The last blocks go where there would be none (of slumps, of patches) otherwise.
        if has_slumps and bare and positive_left <= len(bare):
            choice = [name for name in wanted if name in bare]
        if len(left) - position <= len(without):
            choice = [name for name in choice if name in without] or without
        # Of all places this one leaves the smallest sum of squared surpluses, each over its share: so all fill evenly.
        place = min(choice, key=partial(_cost, weights[number], surplus, shares))
        places[number] = place
        surplus[place] += weights[number]
        without = [name for name in without if name != place]
        if has_slumps:
            bare.discard(place)
            positive_left -= 1
    return [places[number] for number in range(len(blocks))]


def _cost(weight: np.ndarray, surplus: Mapping[str, np.ndarray], shares: Mapping[str, float], name: str) -> float:
    """Return by how much a block makes squared surpluses grow when it goes to a split."""
    return float(weight @ (2 * surplus[name] + weight)) / shares[name]


def _order(blocks: Sequence[_Block], seed: int) -> list[int]:
    """Return blocks with slumps first, large ones before small ones, at random among those within a factor of two."""
    shuffled = np.random.default_rng(seed).permutation(len(blocks))
    size = {n: (int(block.positives).bit_length(), int(block.patches).bit_length()) for n, block in enumerate(blocks)}
    return sorted((int(number) for number in shuffled), key=lambda number: size[number], reverse=True)


def _patches(metadata: "gpd.GeoDataFrame", split_of: Mapping[str, str], splits: Sequence[str]) -> dict[str, np.ndarray]:
    places = metadata["sample_id"].map(split_of).to_numpy(dtype=object)
    numbers = metadata["patch"].to_numpy(dtype=np.int64)
    return {name: np.sort(numbers[places == name]) for name in splits}
