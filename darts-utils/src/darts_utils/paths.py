"""Where darts keeps things unless told otherwise (a value, no global state), and what lies in folders of others."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from darts_utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DefaultPaths:
    """Root folders of darts; a field left None is taken from the environment by `resolve`."""

    darts_dir: Path | None = None
    """Root of all other folders; else DARTS_DATA_DIR, else the working directory."""
    fast_dir: Path | None = None
    """Fast storage for models and training data; else DARTS_FAST_DATA_DIR, else --darts-dir."""
    large_dir: Path | None = None
    """Large storage for inputs, auxiliary cubes and outputs; else DARTS_LARGE_DATA_DIR, else --darts-dir."""

    def resolve(self, environment: Mapping[str, str] | None = None) -> "DefaultPaths":
        """Return the same paths with every empty field filled from the environment."""
        env = os.environ if environment is None else environment
        root = self.darts_dir or Path(env.get("DARTS_DATA_DIR") or Path.cwd())
        return DefaultPaths(
            darts_dir=root,
            fast_dir=self.fast_dir or Path(env.get("DARTS_FAST_DATA_DIR") or root),
            large_dir=self.large_dir or Path(env.get("DARTS_LARGE_DATA_DIR") or root),
        )

    @property
    def models(self) -> Path:
        """Folder of the checkpoints."""
        return self._fast / "models"

    @property
    def planet_orthotiles(self) -> Path:
        """Folder of Planet orthotiles, `<tile id>/<scene id>/`."""
        return self._large / "input" / "planet" / "tiles"

    @property
    def planet_scenes(self) -> Path:
        """Folder of Planet scenes, `<scene id>/`."""
        return self._large / "input" / "planet" / "scenes"

    def sentinel2_scenes(self, source: str) -> Path:
        """Raw data store of Sentinel-2 scenes from `source` (cdse, gee, import)."""
        return self._large / "input" / "sentinel2" / f"{source}-scenes"

    def arcticdem(self, resolution: int) -> Path:
        """Cube of ArcticDEM at `resolution` metres."""
        return self._large / "aux" / f"arcticdem_{resolution}m.icechunk"

    @property
    def tcvis(self) -> Path:
        """Folder of the TCVIS cubes."""
        return self._large / "aux"

    def output(self, pipeline: str) -> Path:
        """Output folder of a pipeline such as `planet` or `sentinel2-cdse`."""
        return self._large / "output" / pipeline

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self._large / "logs"

    @property
    def _fast(self) -> Path:
        return self._resolved(self.fast_dir)

    @property
    def _large(self) -> Path:
        return self._resolved(self.large_dir)

    @staticmethod
    def _resolved(path: Path | None) -> Path:
        if path is None:
            raise ConfigError("DefaultPaths has empty fields; call resolve() first, or give darts_dir")
        return path


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder, or a link to one; a link that leads round in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False
