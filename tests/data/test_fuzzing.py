"""A small part of what ``fuzz.py`` tries: damaged and hostile files, each of which is read or is an ``InputError``."""

import subprocess
import sys
from pathlib import Path

import pytest

from attack import fuzz_files


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of its workers as Linux does")
def test_nothing_escapes_from_a_damaged_file():
    counts = {"pictures": 110, "npz": 60, "idx": 40, "archives": 60, "pickles": 30}
    arguments = [word for kind, count in counts.items() for word in (f"--{kind}", str(count))]
    command = [sys.executable, Path(fuzz_files.__file__).with_name("fuzz.py"), "--quick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("\n0 escapes\n"), done.stdout + done.stderr
    for kind, count in counts.items():
        assert f"{kind:9} {count:6} files" in done.stdout
