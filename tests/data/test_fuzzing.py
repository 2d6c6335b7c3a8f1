"""Small run of ``fuzz.py``: each damaged or hostile file is read or raises an ``InputError``."""

import subprocess
import sys
from pathlib import Path

import pytest

from attack import fuzz_files


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory by a Linux interface")
def test_damaged_files_raise_only_input_errors():
    counts = {"pictures": 110, "npz": 60, "idx": 40, "archives": 60, "pickles": 30}
    arguments = [word for kind, count in counts.items() for word in (f"--{kind}", str(count))]
    command = [sys.executable, Path(fuzz_files.__file__).with_name("fuzz.py"), "--quick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("\n0 escapes\n"), done.stdout + done.stderr
    for kind, count in counts.items():
        assert f"{kind:9} {count:6} files" in done.stdout
