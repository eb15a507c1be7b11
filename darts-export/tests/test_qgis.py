"""Every file opens in QGIS, coloured; with Debian's QGIS and its Python."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from darts_export import DEFAULT_BANDS, export_tile
from darts_export.dataset import merge_outputs

pytestmark = pytest.mark.servers

PYTHON = Path("/usr/bin/python3")

SCRIPT = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
QgsApplication.setPrefixPath("/usr", True)
application = QgsApplication([], False)
application.initQgis()
found = {}
for path in sys.argv[1:]:
    vector = path.endswith(".gpkg")
    layer = QgsVectorLayer(path, "layer", "ogr") if vector else QgsRasterLayer(path, "layer")
    row = {"valid": layer.isValid(), "crs": layer.crs().authid()}
    if vector:
        renderer = layer.renderer()
        row |= {"renderer": renderer.type(), "rows": layer.featureCount()}
        if renderer.type() == "singleSymbol":
            symbols = [renderer.symbol()]
        else:
            row["by"] = renderer.classAttribute()
            classes = renderer.ranges() if renderer.type() == "graduatedSymbol" else renderer.categories()
            symbols = [one.symbol() for one in classes]
        row["colours"] = [symbol.color().getRgb()[:3] for symbol in symbols]
    found[path.rsplit("/", 1)[-1]] = row
print(json.dumps(found))
"""


def looked_at(files):
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    for name in ("PYTHONPATH", "PYTHONHOME", "GDAL_DATA", "PROJ_DATA", "PROJ_LIB"):
        environment.pop(name, None)
    command = [str(PYTHON), "-c", SCRIPT, *map(str, files)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "partially supported" not in run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def _qgis_is_there():
    has = (
        PYTHON.exists() and subprocess.run([str(PYTHON), "-c", "import qgis.core"], capture_output=True).returncode == 0
    )
    if not has:
        pytest.skip("QGIS is not installed: apt-get install --no-install-recommends qgis")


def test_qgis_opens_every_file_with_the_colours_of_the_thumbnail(tile, tmp_path):
    bands = [*DEFAULT_BANDS, "optical", "dem", "tcvis"]
    folder = export_tile(tile, tmp_path / "tile", bands, ["small"])
    found = looked_at(sorted([*folder.glob("*.gpkg"), *folder.glob("*.tif")]))
    assert len(found) == 10
    assert all(row["valid"] and row["crs"] == "EPSG:32608" for row in found.values())
    for name in ("prediction_segments.gpkg", "prediction_segments-small.gpkg"):
        assert (found[name]["renderer"], found[name]["by"]) == ("graduatedSymbol", "mean")
    assert found["prediction_segments.gpkg"]["rows"] == 2
    colours = found["prediction_segments.gpkg"]["colours"]
    assert colours[0] == [255, 225, 60]
    assert len(colours) == 6
    assert found["prediction_extent.gpkg"]["renderer"] == "categorizedSymbol"
    assert found["prediction_extent.gpkg"]["rows"] == 2


def test_qgis_opens_the_dataset_with_its_styles(tile, tmp_path):
    export_tile(tile, tmp_path / "run" / "tile", ["polygonized", "extent"])
    merge_outputs([tmp_path / "run"], tmp_path / "dataset")
    found = looked_at(sorted((tmp_path / "dataset").glob("*.gpkg")))
    assert all(row["valid"] and row["crs"] == "EPSG:4326" for row in found.values())
    assert {name: (row["renderer"], row.get("by")) for name, row in found.items()} == {
        "level1.gpkg": ("graduatedSymbol", "pval_mean"),
        "level2.gpkg": ("graduatedSymbol", "pval_mean"),
        "slumps.gpkg": ("singleSymbol", None),
        "coverage.gpkg": ("categorizedSymbol", "kind"),
    }
    assert found["slumps.gpkg"]["rows"] == 2
    assert found["slumps.gpkg"]["colours"] == [[235, 0, 90]]


def test_qgis_opens_files_without_objects_too(tile, tmp_path):
    empty = tile.assign(binarized_segmentation=tile.binarized_segmentation & False, extent=tile.extent & False)
    folder = export_tile(empty, tmp_path / "tile")
    found = looked_at(sorted([*folder.glob("*.gpkg"), *folder.glob("*.tif")]))
    assert all(row["valid"] for row in found.values())
    assert found["prediction_segments.gpkg"]["renderer"] == "graduatedSymbol"


def test_the_processing_tool_reads_the_segments(tile, tmp_path):
    program = shutil.which("qgis_process.bin")
    if program is None:
        pytest.skip("qgis_process.bin is not installed")
    folder = export_tile(tile, tmp_path / "tile", ["polygonized"])
    command = [
        program, "run", "native:centroids", f"--INPUT={folder / 'prediction_segments.gpkg'}",
        f"--OUTPUT={tmp_path / 'centroids.gpkg'}",
    ]  # fmt: skip
    subprocess.run(command, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"}, check=True, capture_output=True)
    assert (tmp_path / "centroids.gpkg").exists()
