"""What all pipelines share: checks, and the course of a run."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from darts.pipelines.hooks import Hooks
from darts.pipelines.summary import RunSummary
from darts.records.sharding import parse_shard
from darts.tiles import Tile
from darts_utils.errors import ConfigError
from darts_utils.quoting import listed, shown

if TYPE_CHECKING:
    from darts.pipelines.preparation import Preparation

logger = logging.getLogger("darts.pipelines")


@dataclass(kw_only=True)
class _BasePipeline(Hooks):
    """Finds tiles, and loads, preprocesses, segments, postprocesses and exports each of them."""

    def run(self) -> RunSummary:
        """Process all tiles and write the run's records into the output folder.

        Complete tiles are skipped, partial ones made again; a tile that fails is recorded and the run goes on. An
        interrupt (Ctrl-C) lets tiles that are being computed get their files; a second one stops at once.

        Raises:
            DartsError: nothing could start: a parameter, a model or a folder is wrong.
            KeyboardInterrupt: interrupted twice.
        """
        from darts.pipelines.running import run_tiles

        dirs = self.default_dirs.resolve()
        self._check()
        tiles = self._tiles()
        if self.dry_run:
            from darts.pipelines.preparing import print_plans

            print_plans(self, tiles, dirs, optical=True, aux=True, results=True)
            return RunSummary(())
        return run_tiles(self, tiles, None if self.shard is None else parse_shard(self.shard), dirs)

    def prepare_data(self, optical: bool = False, aux: bool = False) -> "Preparation":
        """Download everything a later offline run needs, and return what became of it.

        What is there is not fetched again, so that an interrupted preparation is taken up by calling it again. Without
        models on this machine, the auxiliary data of all features is fetched.

        Args:
            optical: fetch the optical bands.
            aux: fetch the auxiliary data of the tiles' areas.

        Raises:
            DartsError: nothing could start.
        """
        if not (optical or aux):
            raise ConfigError("nothing to prepare: ask for the optical data, the auxiliary data, or both")
        if self.offline:
            raise ConfigError(
                "prepare_data goes over the network, which offline forbids; leave offline out (in a configuration "
                "file, put it into the table of the run, such as [darts.run.sentinel2])"
            )
        dirs = self.default_dirs.resolve()
        self._check()
        from darts.pipelines.preparation import Preparation
        from darts.pipelines.preparing import prepare, print_plans

        self._preparing = True  # type: ignore[misc]  # an instance's own, over the class default
        try:
            if not self.dry_run:
                return prepare(self, self._tiles(), dirs, optical=optical, aux=aux)
            print_plans(self, self._tiles(), dirs, optical=optical, aux=aux, results=False)
            return Preparation()
        finally:
            self._preparing = False  # type: ignore[misc]

    def _tiles(self) -> list[Tile]:
        """Return the tiles of this share, in the order of their folders."""
        tiles: dict[Path, Tile] = {}
        for key, output in self._tileinfos():
            tiles.setdefault(output, Tile(self._get_tile_id(key), key, output))  # named twice, worked on once
        if not tiles:
            raise ConfigError("no tiles were found; check the selection of scenes and the input folders")
        if len({tile.tile_id for tile in tiles.values()}) < len(tiles):
            names = [tile.tile_id for tile in tiles.values()]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"tiles need names of their own; these stand for several folders: {listed(twice)}")
        for tile in tiles.values():
            if not tile.tile_id.isprintable():  # tables, pages and rasters could not be written
                raise ConfigError(f"tile {shown(tile.tile_id)} has signs in its name that no text holds; rename it")
        found = sorted(tiles.values(), key=lambda tile: str(tile.output))
        if self.shard is not None:
            shard, total = parse_shard(self.shard), len(found)
            found = [tile for tile in found if shard.holds(tile.tile_id)]
            logger.info("shard %s: %s of %d tiles", shard, len(found) or "none", total)
        self._tiles_found = found  # type: ignore[misc]  # an instance's own, over the class default
        return found
