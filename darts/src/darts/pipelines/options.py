"""Parameters that all pipelines share, and what they may be; read without torch."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from darts.memory import memory_budget
from darts.records.sharding import parse_shard
from darts_utils.arrays import resolve_device
from darts_utils.errors import ConfigError
from darts_utils.layers import threshold_suffix
from darts_utils.paths import DefaultPaths
from darts_utils.quality import quality_number
from darts_utils.quoting import shown


@dataclass(kw_only=True)
class SharedOptions:
    """How tiles become results."""

    model_files: list[Path] | Path | None = None
    """Checkpoints; default: all models in the models folder. With one model, --write-model-outputs does nothing."""
    model_weights: dict[str, float] | None = None
    """How much each model counts in the mean and in the spread, each named: --model-weights.NAME 2; default: all the \
same."""
    default_dirs: Annotated[DefaultPaths, Parameter(name="*")] = field(default_factory=DefaultPaths)
    """Root folders; what is left out is taken from the environment."""
    output_data_dir: Path | None = None
    """Folder of the results; default: output/<pipeline> under the large folder."""
    arcticdem_dir: Path | None = None
    """ArcticDEM cube; default: aux/arcticdem_<resolution>m.icechunk under the large folder."""
    tcvis_dir: Path | None = None
    """Folder of the TCVIS cubes; default: aux under the large folder."""
    device: Literal["cuda", "cpu", "auto"] | int | None = None
    """cuda, cpu, auto (a free GPU, else the CPU), or the number of a GPU; default: auto."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Numbers that the networks compute with; default: bf16 on a GPU that has it, else fp32."""
    runtime: Literal["torch", "compile", "openvino"] = "torch"
    """What computes the networks: torch, torch.compile, or OpenVINO (CPU only, the extra openvino)."""
    ee_project: str | None = None
    """Earth Engine project."""
    ee_use_highvolume: bool = True
    """Use Earth Engine's high-volume endpoint."""
    tpi_outer_radius: int = 100
    """Outer radius of the relative elevation, in metres."""
    tpi_inner_radius: int = 0
    """Inner radius of the relative elevation, in metres; more than 0 makes it an annulus."""
    patch_size: int = 1024
    """Side of an inference patch, in pixels."""
    overlap: int = 256
    """Margin that neighbouring patches share, in pixels."""
    batch_size: int = 8
    """Patches per forward pass."""
    reflection: int = 0
    """Extra reflected padding around the tile, in pixels."""
    augment: bool = False
    """Show each patch in its eight flips and quarter turns: eight times the time, and their spread counts too."""
    binarization_threshold: float = 0.5
    """A pixel with a probability above this belongs to an object."""
    more_thresholds: list[float] = field(default_factory=list)
    """Further thresholds, whole percents, each with layers and files of its own (0.4: -t40)."""
    grow_threshold: float | None = None
    """Objects grow from pixels above the threshold to all around that are above this, which is lower; default: not."""
    mask_erosion_size: int = 10
    """Radius by which the valid mask is eroded, in pixels."""
    edge_erosion_size: int | None = None
    """Frame that is cut from the tile's edge, in pixels; default: as --mask-erosion-size."""
    min_object_size: int = 32
    """Smaller objects are removed, in pixels."""
    min_object_area: float | None = None
    """Smaller objects are removed too, in m²; default: only --min-object-size counts."""
    max_water_share: float | None = None
    """Objects with a larger share of water (s2_scl) are removed, in 0 … 1; default: none."""
    quality_level: Literal[0, 1, 2, "none", "low_quality", "high_quality"] = 1
    """Pixels below this quality are invalid; 0 (none) also turns erosion and edge cutting off."""
    export_bands: list[str] = field(
        default_factory=lambda: ["probabilities", "binarized", "polygonized", "extent", "thumbnail"]
    )
    """What is written for each tile: product names, or names of variables."""
    write_model_outputs: bool = False
    """Also write each model's own layers."""
    overwrite: bool = False
    """Make tiles again that are complete."""
    offline: bool = False
    """Never touch the network; data that is not on disk is an error."""
    debug_data: bool = False
    """Also write the whole tile as NetCDF."""
    memory_budget: str | None = None
    """Memory that tiles in flight may take (8GB, 50%; on Ray: of each node); a tile that is larger alone is worked on \
in strips; default: 60% of what is free."""
    executor: Literal["auto", "overlapped", "sequential", "ray"] = "auto"
    """overlapped: load ahead and export behind; sequential: one tile after the other; ray: a cluster; default: by \
number of tiles."""
    devices: list[str] | None = None
    """Work on several devices at once, one process each: numbers of GPUs, or cpu for a share of the cores."""
    shard: str | None = None
    """Work on a share of the tiles only, such as 3/16, the third of sixteen; for batch systems."""
    skip_failed: bool = False
    """Leave out tiles that failed in an earlier run."""
    max_failures: int | None = None
    """Give up when more tiles than this have failed; default: never."""
    fail_fast: bool = False
    """Give up at the first tile that fails."""
    ray_address: str | None = None
    """Address of a Ray cluster; default: the one around, else a new one on this machine."""
    ray_workers: int | None = None
    """Workers on the cluster; default: one for each of its GPUs, else as many as its cores allow."""
    ray_cpus: int | None = None
    """Cores of each worker on the cluster; default: the cores divided among the GPUs, else 1."""
    dry_run: Annotated[bool, Parameter(negative="")] = False
    """Only tell what would be done: tiles, what is on disk, what would be fetched, what the models need."""
    arcticdem_endpoint: str | None = None
    """Address of the STAC API of ArcticDEM; default: that of the Polar Geospatial Center."""
    ee_endpoint: str | None = None
    """Address of Earth Engine; default: Google's."""

    def _check(self) -> None:
        """Check what can be checked before anything is loaded; texts that name folders become paths.

        Raises:
            ConfigError: a parameter cannot work.
            DeviceError: a GPU was asked for by name and is not there.
        """
        for field_ in dataclasses.fields(self):
            value = getattr(self, field_.name)
            if isinstance(value, str) and "Path" in str(field_.type) and "list" not in str(field_.type):
                setattr(self, field_.name, Path(value))
        for name, value in (vars(self) | vars(self.default_dirs)).items():
            paths = value if isinstance(value, list) else [value]
            if any(isinstance(path, Path) and "\0" in str(path) for path in paths):
                raise ConfigError(f"{name} must be a path, and no path holds NUL, got {shown(value)}")
        for name in ("patch_size", "batch_size", "tpi_outer_radius"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("overlap", "reflection", "mask_erosion_size", "min_object_size"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        for name in ("edge_erosion_size", "min_object_area"):
            self._require(getattr(self, name) is None or 0 <= getattr(self, name) < math.inf, name, "0 or more")
        self._require(self.overlap < self.patch_size, "overlap", f"less than patch_size ({self.patch_size})")
        inner, outer = self.tpi_inner_radius, self.tpi_outer_radius
        self._require(0 <= inner < outer, "tpi_inner_radius", f"in 0 … tpi_outer_radius ({outer})")
        self._check_thresholds()
        most = self.max_failures
        self._require(most is None or (most >= 0 and most is not True), "max_failures", "a number, 0 or more")
        for name in ("ray_workers", "ray_cpus"):
            self._require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")
        self._check_devices()
        share = self.max_water_share
        self._require(share is None or 0 <= share <= 1, "max_water_share", "in 0 … 1")
        quality_number(self.quality_level)
        from darts_export import validate_export_bands

        validate_export_bands(self.export_bands)
        if self.executor != "ray":  # whose nodes have other devices than this one
            resolve_device(self.first_device)
        memory_budget(self.memory_budget)

    def _check_devices(self) -> None:
        if self.shard is not None:
            parse_shard(self.shard)
        if self.devices is None:
            return
        self._require(len(self.devices) > 0, "devices", "a list of GPUs, such as 0 1, or of cpu cpu")
        self.devices = [int(device) if str(device).isdecimal() else device for device in self.devices]  # type: ignore[misc]
        self._require(self.device is None, "device", "left out where devices are given")
        self._require(self.executor in ("auto", "overlapped"), "executor", "auto or overlapped where devices are given")
        for device in self.devices:
            self._require(device != "auto", "devices", "numbers of GPUs, or cpu")
            resolve_device(device)

    @property
    def first_device(self) -> str | int | None:
        """What this process computes with, where it computes."""
        return self.device if self.device is not None or not self.devices else self.devices[0]

    @property
    def lowest_quality(self) -> int:
        """`quality_level` as a number."""
        return quality_number(self.quality_level)

    def _check_thresholds(self) -> None:
        self._require(0 <= self.binarization_threshold < 1, "binarization_threshold", "in 0 … 1")
        thresholds = [self.binarization_threshold, *self.more_thresholds]
        for threshold in self.more_thresholds:
            threshold_suffix(threshold)
        different = len(set(thresholds)) == len(thresholds)
        self._require(
            different, "more_thresholds", f"different, and none of them binarization_threshold ({thresholds[0]})"
        )
        grow, lowest = self.grow_threshold, min(thresholds)
        self._require(grow is None or 0 <= grow <= lowest, "grow_threshold", f"in 0 … {lowest}, the lowest threshold")

    def _require(self, condition: bool, name: str, expectation: str) -> None:
        if not condition:
            raise ConfigError(f"{name} must be {expectation}, got {shown(getattr(self, name))}")
