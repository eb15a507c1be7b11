"""What users install: wheels with all that the packages need and nothing else, of one version, and containers."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = sorted(file.parent.name for file in ROOT.glob("darts*/pyproject.toml"))
WITH_SIBLINGS = [member for member in MEMBERS if member != "darts-utils"]
CONTAINERS = sorted((ROOT / "containers").glob("*.Dockerfile"))


@dataclass(frozen=True)
class Wheel:
    """What a wheel holds."""

    files: dict[str, bytes]

    @classmethod
    def read(cls, path: Path) -> "Wheel":
        with ZipFile(path) as wheel:
            return cls({name: wheel.read(name) for name in wheel.namelist()})

    @property
    def metadata(self) -> Message:
        (content,) = (content for name, content in self.files.items() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(content.decode())

    @property
    def requirements(self) -> list[Requirement]:
        return [Requirement(line) for line in self.metadata.get_all("Requires-Dist", [])]

    def in_package(self) -> set[str]:
        return {name for name in self.files if ".dist-info/" not in name}


def build(builder: type[WheelBuilder | SdistBuilder], member: Path, folder: Path) -> Path:
    (artifact,) = builder(str(member)).build(directory=str(folder), versions=["standard"])
    return Path(artifact)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wheel]:
    folder = tmp_path_factory.mktemp("wheels")
    return {member: Wheel.read(build(WheelBuilder, ROOT / member, folder)) for member in MEMBERS}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_wheel_holds_every_file_of_its_package_and_no_other(wheels: dict[str, Wheel], member: str) -> None:
    source = ROOT / member / "src"
    files = {file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()}
    assert wheels[member].in_package() == {name for name in files if "/__pycache__/" not in name}
    assert f"{member.replace('-', '_')}/py.typed" in files


def test_models_styles_and_templates_are_inside(wheels: dict[str, Wheel]) -> None:
    for file in ("models/demo-full.pt", "models/demo-optical.pt", "models.toml"):
        assert f"darts/demo/{file}" in wheels["darts"].files
    for member, pattern in (("darts", r"darts/.*\.html"), ("darts-export", r"darts_export/.*\.html")):
        pages = [name for name in wheels[member].files if re.fullmatch(pattern, name)]
        assert pages
        for page in pages:
            assert {page.replace(".html", end) for end in (".css", ".js")} <= wheels[member].files.keys()


@pytest.mark.parametrize("member", MEMBERS)
def test_a_wheel_tells_who_may_use_it_and_what_it_is(wheels: dict[str, Wheel], member: str) -> None:
    metadata = wheels[member].metadata
    assert metadata["License-Expression"] == "MIT"
    (licence,) = (content for name, content in wheels[member].files.items() if name.endswith("/licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert metadata.get_payload() == (ROOT / member / "README.md").read_text(encoding="utf-8")
    assert any(line.startswith("Topic :: Scientific/Engineering") for line in metadata.get_all("Classifier"))


def test_all_wheels_have_one_version_and_ask_for_each_other_at_it(wheels: dict[str, Wheel]) -> None:
    (version,) = {wheel.metadata["Version"] for wheel in wheels.values()}
    for wheel in wheels.values():
        siblings = [r for r in wheel.requirements if r.name.startswith("darts-")]
        assert {r.name for r in siblings} == {r.name for r in siblings if str(r.specifier) == f"=={version}"}
    assert len({r.name for r in wheels["darts"].requirements if r.name.startswith("darts-")}) == len(MEMBERS) - 1 == 7


def test_extras_lead_to_extras_that_exist(wheels: dict[str, Wheel]) -> None:
    offered = {wheel.metadata["Name"]: set(wheel.metadata.get_all("Provides-Extra", [])) for wheel in wheels.values()}
    assert offered["darts-permafrost"] == {"cuda", "cuda12", "openvino", "ray", "training"}
    asked = [(r.name, extra) for wheel in wheels.values() for r in wheel.requirements for extra in r.extras]
    own = [(name, extra) for name, extra in asked if name in offered]
    assert len(own) >= 6
    assert all(extra in offered[name] for name, extra in own)


@pytest.mark.parametrize("member", MEMBERS)
def test_a_source_archive_gives_the_same_wheel(wheels: dict[str, Wheel], member: str, tmp_path: Path) -> None:
    with tarfile.open(build(SdistBuilder, ROOT / member, tmp_path)) as archive:
        assert not [name for name in archive.getnames() if "__pycache__" in name]
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (folder for folder in tmp_path.iterdir() if folder.is_dir())
    assert Wheel.read(build(WheelBuilder, unpacked, tmp_path)).files == wheels[member].files


def test_files_that_each_package_carries_are_the_same_everywhere() -> None:
    for name, members in (("LICENSE", MEMBERS), ("hatch_build.py", WITH_SIBLINGS)):
        assert len({(ROOT / member / name).read_bytes() for member in members}) == 1, name


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_containers_pass_the_linter(file: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_containers_run_darts_as_somebody_who_is_not_root(file: Path) -> None:
    last = file.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["1000"]
    assert last.rstrip().endswith('ENTRYPOINT ["darts"]\nCMD ["--help"]')
    folders = re.findall(r"\bDARTS_\w+_DIR=(\S+)", last)
    assert folders
    assert re.findall(r'^VOLUME \["(.*)"\]$', last, re.MULTILINE) == folders
    assert "GDAL_DATA=" not in last  # the wheels know where theirs is


@pytest.mark.parametrize("file", CONTAINERS, ids=lambda file: file.name)
def test_extras_of_containers_exist_and_their_versions_are_those_of_the_lock(
    wheels: dict[str, Wheel], file: Path
) -> None:
    text = file.read_text(encoding="utf-8")
    (installed,) = re.findall(r'"darts-permafrost\[(.*)\]"', text)
    assert set(installed.split(",")) <= set(wheels["darts"].metadata.get_all("Provides-Extra"))
    assert re.findall(r"--extra (\w+)", text) == installed.split(",")


def test_only_what_is_built_goes_into_a_container() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[0] == "*"  # nothing goes along but what is named
    assert {line[1:] for line in lines if line.startswith("!")} == {"pyproject.toml", "uv.lock", *MEMBERS}
    assert "**/tests" in lines


@pytest.mark.slow  # fetches and unpacks all dependencies, some 7 GB
def test_wheels_in_an_empty_environment_run_the_demo_outside_the_repository(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    assert uv is not None
    home = tmp_path / "home"
    home.mkdir()
    python = tmp_path / "env" / "bin" / "python"
    for words in (
        ["build", "--all-packages", "--out-dir", tmp_path / "dist"],
        ["venv", "--python", "3.11", tmp_path / "env"],
        ["pip", "install", "--python", python, "--find-links", tmp_path / "dist", "darts-permafrost"],
    ):
        subprocess.run([uv, *words], cwd=ROOT, check=True, capture_output=True)
    installed = subprocess.run([uv, "pip", "list", "--python", python], check=True, capture_output=True, text=True)
    versions = dict(re.findall(r"^(darts-\S+) +(\S+)$", installed.stdout, re.MULTILINE))
    assert len(versions) == len(MEMBERS)
    assert len(set(versions.values())) == 1

    def darts(*words: str) -> str:
        environment = {"HOME": str(home), "PATH": os.defpath}
        command = [str(python.with_name("darts")), *words]
        done = subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert versions["darts-permafrost"] in darts("--version")
    assert "Planted slumps found" in darts("demo", "--size", "512", "--log-plain")
    assert list(home.glob("darts-demo/output/*/prediction_segments.parquet"))
    assert list(home.glob("darts-demo/output/*.report.html"))
