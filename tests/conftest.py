"""Strict arithmetic for the whole suite: no silent promotion of ranks or dtypes."""

import os
import signal
from pathlib import Path

# The suite compiles thousands of small programs, many of them twice, and all of them again in the next run, so they are
# kept until pytest --cache-clear. Each worker keeps its own: two writers would meet in one file.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".pytest_cache/d/xla" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import numpy as np
import pytest

from jaxconv import xla_options

# What makes programs fast costs the suite more than it gives, since it computes little. (Without LLVM's optimisations
# and XLA's newer emitters of fused loops it takes half as long. Several parts of what the older emitters write, side by
# side, are wrong now and then if they are not optimised, so there is one part.) A jaxlib that refuses one of these runs
# without it.
xla_options.add_flags(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)

# A script that starts the suite in its background makes it deaf to Ctrl-C, and so all that the tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def strict():
    """What a broadcast or a mixed dtype would hide is an error. (optax needs less: see ``promoting``.)"""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module", autouse=True)
def forget():
    """What a file compiled is of no use to the next, and keeping it all takes gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def promoting(strict):
    """For tests that train: some of optax multiplies floats by ints."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def x64():
    """Float64 while a test runs: differences between two correct computations shrink to 1e-12."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def jaxconv(tmp_path, monkeypatch, capsys):
    """Run a command line, or its words, in an empty folder: (exit code, what it printed, what it said to stderr)."""
    from jaxconv import cli

    monkeypatch.chdir(tmp_path)

    def run(*words):
        try:
            code = cli.main(words[0].split() if len(words) == 1 else [str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def no_pictures():
    """Runs draw none: that takes longer than a small training, and has tests of its own."""
    from matplotlib.figure import Figure

    from jaxconv import plot

    with pytest.MonkeyPatch.context() as patch:
        for name in ("training_curves", "misclassified", "confusion_matrix"):
            patch.setattr(plot, name, lambda *given, **options: Figure())
        yield
