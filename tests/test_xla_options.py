"""XLA options are tested before use, so that an unknown name aborts neither a process nor a compilation."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxconv import runtime, xla_options
from jaxconv._compat import jaxlib_version

KNOWN, UNKNOWN = "xla_backend_optimization_level", "xla_cpu_no_such_option"


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    """Set an empty compilation cache folder and clear the results of this process."""
    previous = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    monkeypatch.setattr(xla_options, "_support", {})
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", previous)


@pytest.fixture
def tested(monkeypatch):
    """Record the options and flags that are tested, in order."""
    calls = []
    for name in ("_compiles", "_starts"):
        probe = getattr(xla_options, name)
        monkeypatch.setattr(xla_options, name, lambda argument, probe=probe: calls.append(argument) or probe(argument))
    return calls


def test_supported_options_drop_unknown(cache_dir):
    with pytest.raises(jax.errors.JaxRuntimeError, match=UNKNOWN):  # the reason why it is dropped
        jax.jit(lambda x: x + 1).lower(1.0).compile({UNKNOWN: 1})
    assert xla_options.supported_options({UNKNOWN: 1, KNOWN: 1}) == {KNOWN: 1}
    assert xla_options.supported_options({KNOWN: "much"}) == {}  # an invalid value is dropped too


def test_supported_flags_drop_unknown(cache_dir):
    completed = subprocess.run(
        [sys.executable, "-c", xla_options.PROBE], env=os.environ | {"XLA_FLAGS": f"--{UNKNOWN}=1"}, capture_output=True
    )
    assert completed.returncode != 0  # the reason why it is dropped
    assert xla_options.supported_flags([f"--{UNKNOWN}=1", f"--{KNOWN}=1"]) == [f"--{KNOWN}=1"]


def test_training_works_with_only_unknown_options(monkeypatch):
    """Training and prediction work with a jaxlib that supports none of the options."""
    import numpy as np
    import optax

    from jaxconv import Dense, flatten, serial, train

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(runtime, "CPU_OPTIONS", {UNKNOWN: 1})
    monkeypatch.setattr(runtime, "FAST_COMPILE_OPTIONS", {f"{UNKNOWN}_too": 1})
    images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.zeros(8, np.int32)
    data, model = (images, labels), serial(flatten, Dense(2))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        fitted = train.fit(model, data, data, optimizer=optax.sgd(0.1), epochs=1, batch_size=4)
        assert train.predict(model, fitted.params, fitted.state, images).shape == (8, 2)


def test_options_are_tested_once(cache_dir, tested):
    for _ in range(3):
        assert xla_options.supported_options({KNOWN: 1, UNKNOWN: 1}) == {KNOWN: 1}
    assert tested == [{KNOWN: 1}, {UNKNOWN: 1}]
    xla_options._support.clear()  # as in a new process
    assert xla_options.supported_options({KNOWN: 1, UNKNOWN: 1}) == {KNOWN: 1} and len(tested) == 2
    assert [file.name for file in cache_dir.iterdir()] == [xla_options.FILE_NAME]


def test_options_are_tested_again_for_other_jaxlib(cache_dir, tested, monkeypatch):
    xla_options.supported_options({KNOWN: 1})
    xla_options._support.clear()
    monkeypatch.setattr(xla_options, "jaxlib_version", lambda: "99.0")
    xla_options.supported_options({KNOWN: 1})
    assert len(tested) == 2
    stored = json.loads((cache_dir / xla_options.FILE_NAME).read_text())
    assert stored == {version: {f"{KNOWN}=1": True} for version in (jaxlib_version(), "99.0")}


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"', "null", '{"VERSION": 3}', '{"VERSION": {"KNOWN=1": "yes"}}'])
def test_damaged_cache_file_is_rewritten(cache_dir, tested, content):
    file = cache_dir / xla_options.FILE_NAME
    file.write_text(content.replace("VERSION", jaxlib_version()).replace("KNOWN", KNOWN))
    assert xla_options.supported_options({KNOWN: 1}) == {KNOWN: 1} and tested == [{KNOWN: 1}]
    assert json.loads(file.read_text())[jaxlib_version()] == {f"{KNOWN}=1": True}


@pytest.mark.parametrize("directory", ["gs://bucket/programs", "/dev/null/programs", None])
def test_results_are_cached_in_process_without_folder(cache_dir, tested, directory):
    jax.config.update("jax_compilation_cache_dir", directory)
    for _ in range(2):
        assert xla_options.supported_options({KNOWN: 1}) == {KNOWN: 1}
    assert tested == [{KNOWN: 1}] and not list(cache_dir.iterdir())


def test_unrelated_failure_is_not_cached(cache_dir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        assert xla_options.supported_flags([f"--{KNOWN}=1"]) == []
    assert xla_options.supported_flags([f"--{KNOWN}=1"]) == [f"--{KNOWN}=1"]


def test_add_flags_tests_together_and_keeps_user_flags(cache_dir, tested, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{KNOWN}=3 --xla_dump_to=x")
    flags = [f"--{KNOWN}=1", "--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_multi_thread_eigen=true"]
    assert xla_options.add_flags(flags) == flags[1:] and tested == [flags[1:]]
    assert os.environ["XLA_FLAGS"] == " ".join([f"--{KNOWN}=3 --xla_dump_to=x", *flags[1:]])
    assert xla_options.add_flags(flags) == []


def test_jit_applies_options_at_outermost_level_only():
    """jax accepts compiler options for the outermost program only."""
    option_calls = []

    def options():
        option_calls.append("once")
        return {"xla_cpu_experimental_ynn_fusion_type": ""}

    product = xla_options.jit(lambda x: x @ x + 1, options)
    x = jnp.ones((300, 300))
    assert not option_calls and float(product(x)[0, 0]) == float(jax.jit(lambda x: product(x))(x)[0, 0]) == 301
    assert float(jax.grad(lambda x: product(x).sum())(x)[0, 0]) == 600
    assert jax.vmap(product)(x[None]).shape == (1, 300, 300)
    assert float(jax.lax.scan(lambda c, _: (product(c) / 301, None), x, None, length=2)[0][0, 0]) == 1
    assert option_calls == ["once"]
    assert "ynn" not in product.lower(x).compile().as_text()
