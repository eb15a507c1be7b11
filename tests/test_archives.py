"""Another archive of Sentinel-2 is a table of the configuration file, no code."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darts_acquisition.testing import cql2_stac_server, file_server, make_collection, make_earth_search_scene
from tests.conftest import Sample
from tests.loopback import GRID

SCENE = "S2A_T08WMA_20230719T204021_L2A"


def test_a_mirror_is_set_up_by_a_table_of_the_configuration(darts: Callable, sample: Sample, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    with file_server(served) as files_url:
        item, files = make_earth_search_scene(SCENE, GRID, base_url=files_url)
        item["assets"] = {f"x-{name}": asset for name, asset in item["assets"].items()}  # names of its own
        item["collection"] = "s2"
        for path, data in files.items():
            (served / path).parent.mkdir(parents=True, exist_ok=True)
            (served / path).write_bytes(data)
        with cql2_stac_server(make_collection("s2"), [item]) as stac:
            config = tmp_path / "mirror.toml"
            config.write_text(
                f'[darts]\nraw-data-source = "earth-search"\nlarge-dir = "{tmp_path}"\nscene-ids = ["{SCENE}"]\n'
                f'model-files = ["{sample.optical_model}"]\n'
                f'[darts.stac]\nendpoint = "{stac.url}"\ncollection = "s2"\n[darts.stac.assets]\n'
                'blue = "x-blue"\ngreen = "x-green"\nred = "x-red"\nnir = "x-nir"\ns2_scl = "x-scl"\n'
            )
            prepared = darts("prepare-data", "sentinel2", "--config-file", config, "--optical")
            assert prepared.code == 0, prepared.text
    run = darts("run", "sentinel2", "--config-file", config, "--offline")  # the servers are gone
    assert run.code == 0, run.text
    assert (tmp_path / "output" / "sentinel2-earth-search" / SCENE / "probabilities.tif").is_file()


@pytest.mark.parametrize("source", ["cdse", "earth-search"])
def test_each_preset_has_all_bands(source: str) -> None:
    from darts_acquisition import CDSE_SOURCE, STAC_SOURCES

    assert set(STAC_SOURCES[source].assets) == set(CDSE_SOURCE.assets)
