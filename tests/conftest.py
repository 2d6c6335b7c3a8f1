"""Shared fixtures and settings: no silent promotion of ranks or dtypes, and fast compilation."""

import os
import signal
from pathlib import Path

# The suite compiles thousands of small programs, in every run, so they are cached until pytest --cache-clear. Every
# worker has its own cache, as two processes could write the same file.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parents[1] / ".pytest_cache/d/xla" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import numpy as np
import pytest

from jaxconv import xla_options

# The suite computes little, so fast compilation matters more than fast programs: without LLVM optimization and the
# newer fusion emitters it takes half as long. Code of the older emitters that is split for parallel code generation is
# occasionally wrong without optimization, so the split count is 1. Flags that jaxlib does not support are left out.
xla_options.add_flags(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
)

# A shell ignores SIGINT in background jobs and their child processes; restore the default, as tests send SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def strict():
    """Raise errors for implicit broadcasting and mixed dtypes; tests of optax use ``promoting`` instead."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="module", autouse=True)
def clear_jax_caches():
    """Clear the caches of jax after each file; keeping all compiled programs would take gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture
def promoting(strict):
    """Allow dtype promotion in tests that train, since optax multiplies floats by ints."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def x64():
    """Enable float64, so that differences between two correct computations shrink to 1e-12."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def jaxconv(tmp_path, monkeypatch, capsys):
    """Run a command line, as one string or as arguments, in an empty folder; return (exit code, stdout, stderr)."""
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
def no_figures():
    """Replace the figures of runs by empty ones; plotting is slow and is tested separately."""
    from matplotlib.figure import Figure

    from jaxconv import plot

    with pytest.MonkeyPatch.context() as patch:
        for name in ("training_curves", "misclassified", "confusion_matrix"):
            patch.setattr(plot, name, lambda *args, **options: Figure())
        yield
