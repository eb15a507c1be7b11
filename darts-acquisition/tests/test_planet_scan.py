"""The scan of Planet's folders: what can be loaded, what is incomplete and why, what is none of Planet's."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

import darts_acquisition as da
from darts_acquisition.planet_folders import planet_files, scan_planet_orthotiles, scan_planet_scenes
from darts_utils.errors import ConfigError, MissingDataError

SCENE = "20220125_075650_17_1061"
OTHER = "20170831_172754_101c"
ORTHOTILE = "4372514_5937412_2021-07-19_2414"


def _write(folder: Path, *names: str, content: bytes = b"any") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content)
    return folder


def _whole(folder: Path, sr: str = "x_SR.tif", udm2: str = "x_udm2.tif") -> Path:
    return _write(folder, sr, udm2, "x_metadata.json")


def test_names_tell_kind_time_and_tile():
    scene, orthotile = da.parse_planet_name(SCENE), da.parse_planet_name(ORTHOTILE)
    assert (scene.kind, scene.time.isoformat(), scene.tile_id) == ("scene", "2022-01-25T07:56:50+00:00", None)
    assert (orthotile.kind, orthotile.day.isoformat(), orthotile.time) == ("orthotile", "2021-07-19", None)
    assert orthotile.tile_id == "5937412"
    assert da.parse_planet_name(OTHER).time.hour == 17


@pytest.mark.parametrize("name", ["", "scene", "20221325_075650_1061", "1_2_2021-02-30_abcd", "2021-07-19_2414"])
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="Planet folder"):
        da.parse_planet_name(name)


def test_a_scan_of_scenes_tells_complete_incomplete_and_ignored_apart(tmp_path):
    _whole(tmp_path / SCENE)
    _write(tmp_path / OTHER, "x_SR_8b_harmonized_clip.tif")
    _whole(tmp_path / "not-a-planet-name")
    _write(tmp_path / "20180831_172754_101c", "x_3B_AnalyticMS.tif", "x_udm2.tif", "x_metadata.json")
    _write(tmp_path / "notes", "text.txt")
    _whole(tmp_path / ".hidden")
    (tmp_path / "a-file").write_text("")
    scan = scan_planet_scenes(tmp_path)
    assert [folder.scene_id for folder in scan.complete] == [OTHER, SCENE]
    assert [folder.remarks for folder in scan.complete][1] == ()
    assert [remark.split(":")[0] for remark in scan.complete[0].remarks] == ["no UDM2", "no metadata"]
    assert [folder.scene_id for folder in scan.incomplete] == ["20180831_172754_101c", "not-a-planet-name"]
    assert "no surface reflectance" in scan.incomplete[0].reasons[0]
    assert "unknown name" in scan.incomplete[1].reasons[0]
    assert scan.ignored == (tmp_path / "notes",)
    assert [folder.path for folder in scan.found] == sorted(
        folder.path for folder in (*scan.complete, *scan.incomplete)
    )


@pytest.mark.parametrize(
    ("names", "empty", "reasons"),
    [
        ((), (), ["no surface reflectance"]),
        (("x_SR.tif", "x_SR_8b.tif"), (), ["two files of surface reflectance, x_SR.tif and x_SR_8b.tif"]),
        (("x_SR.tif", "x_SR_clip.tif"), (), ["two files of surface reflectance"]),
        (("x_SR.tif", "x_udm2.tif", "y_udm2.tif"), (), ["two files of UDM2, x_udm2.tif and y_udm2.tif"]),
        ((), ("x_SR.tif",), ["x_SR.tif is empty (0 bytes)"]),
        (("x_SR.tif",), ("x_udm2.tif", "x_metadata.json"), ["x_udm2.tif is empty", "x_metadata.json is empty"]),
        (("x_SR.tif.part", "x_SR.tif.aux.xml"), (), ["no surface reflectance"]),
    ],
)
def test_each_reason_names_the_files(tmp_path, names, empty, reasons):
    _write(tmp_path / SCENE, *names)
    _write(tmp_path / SCENE, *empty, content=b"")
    (folder,) = scan_planet_scenes(tmp_path).incomplete
    assert len(folder.reasons) == len(reasons)
    assert all(expected in reason for expected, reason in zip(reasons, folder.reasons, strict=True))
    assert folder.error.startswith(f"{tmp_path / SCENE}: ")


def test_a_link_that_leads_nowhere_is_a_reason(tmp_path):
    _whole(tmp_path / SCENE, sr="other.tif")
    (tmp_path / SCENE / "x_SR.tif").symlink_to(tmp_path / "gone.tif")
    (folder,) = scan_planet_scenes(tmp_path).incomplete
    assert folder.reasons == ("x_SR.tif cannot be read (No such file or directory)",)


def test_a_link_that_leads_round_in_a_circle_is_a_reason_and_stops_no_other(tmp_path):
    _whole(tmp_path / OTHER)
    _whole(tmp_path / SCENE, sr="other.tif")
    (tmp_path / SCENE / "x_SR.tif").symlink_to("x_SR.tif")
    (tmp_path / "round").symlink_to("round")
    scan = scan_planet_scenes(tmp_path)
    assert [folder.scene_id for folder in scan.complete] == [OTHER]
    assert scan.incomplete[0].reasons == ("x_SR.tif cannot be read (Too many levels of symbolic links)",)


def test_a_folder_that_may_not_be_read_is_incomplete_and_stops_no_other(tmp_path, monkeypatch):
    _whole(tmp_path / OTHER)
    for name in (SCENE, "lost+found"):
        _whole(tmp_path / name)

    def scandir(folder):
        if Path(folder).name in (SCENE, "lost+found"):  # permissions do not stop root
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return real(folder)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    scan = scan_planet_scenes(tmp_path)
    assert [folder.scene_id for folder in scan.complete] == [OTHER]
    assert [folder.reasons for folder in scan.incomplete] == [
        (f"cannot read folder {tmp_path / SCENE}: Permission denied",)
    ]
    assert scan.ignored == (tmp_path / "lost+found",)


def test_links_to_folders_are_followed(tmp_path):
    _whole(tmp_path / "elsewhere" / SCENE)
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / SCENE).symlink_to(tmp_path / "elsewhere" / SCENE)
    assert [folder.scene_id for folder in scan_planet_scenes(tmp_path / "scenes").complete] == [SCENE]


def test_the_mask_that_is_clipped_alike_is_the_one(tmp_path):
    _whole(tmp_path / SCENE, sr="x_SR_clip.tif", udm2="x_udm2_clip.tif")
    _write(tmp_path / SCENE, "x_udm2.tif")
    assert len(scan_planet_scenes(tmp_path).complete) == 1
    assert planet_files(tmp_path / SCENE).udm2 == tmp_path / SCENE / "x_udm2_clip.tif"


def test_a_scan_of_orthotiles_goes_one_level_deeper(tmp_path):
    folder = _whole(tmp_path / "5937412" / ORTHOTILE)
    _whole(tmp_path / "5937412" / SCENE)
    _write(tmp_path / "5937413" / ORTHOTILE, "x_SR.tif")
    scan = scan_planet_orthotiles(tmp_path)
    assert [(found.path, found.scene_id, found.tile_id) for found in scan.complete] == [
        (folder, ORTHOTILE, "5937412"),
        (tmp_path / "5937413" / ORTHOTILE, ORTHOTILE, "5937413"),
    ]
    assert "no time of day" in scan.complete[1].remarks[1]
    assert "name of a scene" in scan.incomplete[0].reasons[0]


def test_the_lists_hold_what_the_scan_found(tmp_path):
    _whole(tmp_path / SCENE)
    (tmp_path / OTHER).mkdir()
    first, second = da.find_planet_scenes(tmp_path)
    assert (first.scene_id, second.scene_id, second.error) == (OTHER, SCENE, None)
    assert "surface reflectance" in first.error
    _whole(tmp_path / "tiles" / "5937412" / ORTHOTILE)
    assert [found.scene_id for found in da.find_planet_orthotiles(tmp_path / "tiles")] == [ORTHOTILE]


@pytest.mark.parametrize("scan", [scan_planet_scenes, scan_planet_orthotiles])
def test_a_scan_of_no_folder_is_an_error(tmp_path, scan):
    with pytest.raises(MissingDataError, match="nowhere"):
        scan(tmp_path / "nowhere")


def test_a_scan_opens_no_raster(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a raster was opened")

    _whole(tmp_path / SCENE)
    monkeypatch.setattr(rasterio, "open", refuse)
    assert len(scan_planet_scenes(tmp_path).complete) == 1


BITS = st.booleans()


@given(eight=BITS, harmonized=BITS, clip=BITS, udm2=BITS, metadata=BITS, orthotile=BITS)
def test_what_the_scan_calls_complete_loads(tmp_path_factory, eight, harmonized, clip, udm2, metadata, orthotile):
    root = tmp_path_factory.mktemp("scan")
    folder = root / (f"5937412/{ORTHOTILE}" if orthotile else SCENE)
    folder.mkdir(parents=True)
    clipped = "_clip" if clip else ""
    name = f"x_SR{'_8b' if eight else ''}{'_harmonized' if harmonized else ''}{clipped}.tif"
    profile = {"driver": "GTiff", "height": 4, "width": 4, "crs": "EPSG:32608"}
    profile["transform"] = rasterio.Affine(3, 0, 500_000, 0, -3, 7_700_000)
    with rasterio.open(folder / name, "w", count=8 if eight else 4, dtype="uint16", **profile) as file:
        file.write(np.ones((8 if eight else 4, 4, 4), "uint16"))
    if udm2:
        with rasterio.open(folder / f"x_udm2{clipped}.tif", "w", count=8, dtype="uint8", **profile) as file:
            file.write(np.zeros((8, 4, 4), "uint8"))
    if metadata:
        (folder / "x_metadata.json").write_text(json.dumps({"properties": {"sun_azimuth": 1.0, "sun_elevation": 2.0}}))
    (found,) = (scan_planet_orthotiles if orthotile else scan_planet_scenes)(root).complete
    assert [remark.split(":")[0] for remark in found.remarks] == [
        *([] if udm2 else ["no UDM2"]),
        *([] if metadata else ["no metadata"]),
    ]
    tile = da.load_planet_scene(found.path)
    assert bool((da.load_planet_masks(found.path).quality_data_mask == 2).all())
    assert ("azimuth" in tile.attrs) == metadata
