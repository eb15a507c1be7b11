import subprocess
import sys

import pytest

HEAVY = ("torch", "segmentation_models_pytorch", "geopandas", "rasterio", "xarray", "numba")


@pytest.mark.parametrize(
    ("tokens", "heavy"),
    [(["run", "--help"], HEAVY), (["run", "sentinel2", "--help"], HEAVY[:2])],
)
def test_help_loads_no_torch(tokens: list[str], heavy: tuple[str, ...]) -> None:
    script = (
        "import sys\n"
        "from darts.cli import run_command_line\n"
        f"code = run_command_line({tokens!r})\n"
        f"sys.exit(code or ' '.join(name for name in {heavy!r} if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: darts" in done.stdout


def test_the_command_is_installed_and_tells_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "darts", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()[0].isdigit()
