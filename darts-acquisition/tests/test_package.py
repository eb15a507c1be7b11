import subprocess
import sys

import darts_acquisition


def test_all_names_are_there_and_sorted_by_kind():
    assert all(hasattr(darts_acquisition, name) for name in darts_acquisition.__all__)
    assert len(set(darts_acquisition.__all__)) == len(darts_acquisition.__all__)


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, darts_acquisition; "
        "heavy = {'icechunk', 'cupy', 'torch', 'ee', 'googleapiclient'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
