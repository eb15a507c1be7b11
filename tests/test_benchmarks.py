"""Benchmarks run at a small size, so that they cannot rot; what they measure is not judged here."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_benchmark_of_downloads_compares_both_ways() -> None:
    command = [sys.executable, "benchmarks/download.py", "--scenes", "1", "--side", "64", "--repeats", "1"]
    run = subprocess.run([*command, "--latency-ms", "20"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in run.stderr, run.stderr
    for what in ("transfer alone", "whole download"):
        assert re.search(rf"{what}: darts +[\d.]+ s, one at a time +[\d.]+ s, ratio +[\d.]+", run.stdout), run.stdout
