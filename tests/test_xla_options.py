"""XLA's options are tried before they are used: no name that XLA does not know ends a process or a compilation."""

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
def folder(tmp_path, monkeypatch):
    """An empty folder for compiled programs, and a process that knows no answer yet."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    monkeypatch.setattr(xla_options, "_answers", {})
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def trials(monkeypatch):
    """The options and flags that are tried, in order."""
    tried = []
    for name in ("_compiles", "_starts"):
        trial = getattr(xla_options, name)
        monkeypatch.setattr(xla_options, name, lambda what, trial=trial: tried.append(what) or trial(what))
    return tried


def test_an_unknown_option_is_left_out(folder):
    with pytest.raises(jax.errors.JaxRuntimeError, match=UNKNOWN):  # which is what it is left out for
        jax.jit(lambda x: x + 1).lower(1.0).compile({UNKNOWN: 1})
    assert xla_options.taken({UNKNOWN: 1, KNOWN: 1}) == {KNOWN: 1}
    assert xla_options.taken({KNOWN: "much"}) == {}  # nor one whose value XLA does not understand


def test_an_unknown_flag_ends_no_process(folder):
    ends = subprocess.run(
        [sys.executable, "-c", xla_options.TRIAL], env=os.environ | {"XLA_FLAGS": f"--{UNKNOWN}=1"}, capture_output=True
    )
    assert ends.returncode != 0  # which is what it is left out for
    assert xla_options.taken_flags([f"--{UNKNOWN}=1", f"--{KNOWN}=1"]) == [f"--{KNOWN}=1"]


def test_training_goes_on_where_every_option_is_unknown(monkeypatch):
    """A network is trained and used by a jaxlib that knows none of the options of ours."""
    import numpy as np
    import optax

    from jaxconv import Dense, flatten, serial, train

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(runtime, "CPU_OPTIONS", {UNKNOWN: 1})
    monkeypatch.setattr(runtime, "HASTY_OPTIONS", {f"{UNKNOWN}_too": 1})
    images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.zeros(8, np.int32)
    data, model = (images, labels), serial(flatten, Dense(2))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        fitted = train.fit(model, data, data, optimizer=optax.sgd(0.1), epochs=1, batch_size=4)
        assert train.predict(model, fitted.params, fitted.state, images).shape == (8, 2)


def test_an_answer_is_asked_for_once(folder, trials):
    for _ in range(3):
        assert xla_options.taken({KNOWN: 1, UNKNOWN: 1}) == {KNOWN: 1}
    assert trials == [{KNOWN: 1}, {UNKNOWN: 1}]
    xla_options._answers.clear()  # as in the next process
    assert xla_options.taken({KNOWN: 1, UNKNOWN: 1}) == {KNOWN: 1} and len(trials) == 2
    assert [file.name for file in folder.iterdir()] == [xla_options.FILE_NAME]


def test_another_jaxlib_is_asked_anew(folder, trials, monkeypatch):
    xla_options.taken({KNOWN: 1})
    xla_options._answers.clear()
    monkeypatch.setattr(xla_options, "jaxlib_version", lambda: "99.0")
    xla_options.taken({KNOWN: 1})
    assert len(trials) == 2
    stored = json.loads((folder / xla_options.FILE_NAME).read_text())
    assert stored == {version: {f"{KNOWN}=1": True} for version in (jaxlib_version(), "99.0")}


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"', "null", '{"VERSION": 3}', '{"VERSION": {"KNOWN=1": "yes"}}'])
def test_a_damaged_file_is_written_anew(folder, trials, content):
    file = folder / xla_options.FILE_NAME
    file.write_text(content.replace("VERSION", jaxlib_version()).replace("KNOWN", KNOWN))
    assert xla_options.taken({KNOWN: 1}) == {KNOWN: 1} and trials == [{KNOWN: 1}]
    assert json.loads(file.read_text())[jaxlib_version()] == {f"{KNOWN}=1": True}


@pytest.mark.parametrize("place", ["gs://bucket/programs", "/dev/null/programs", None])
def test_without_a_folder_the_process_remembers(folder, trials, place):
    jax.config.update("jax_compilation_cache_dir", place)
    for _ in range(2):
        assert xla_options.taken({KNOWN: 1}) == {KNOWN: 1}
    assert trials == [{KNOWN: 1}] and not list(folder.iterdir())


def test_a_failure_that_says_nothing_of_the_option_is_not_remembered(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        assert xla_options.taken_flags([f"--{KNOWN}=1"]) == []
    assert xla_options.taken_flags([f"--{KNOWN}=1"]) == [f"--{KNOWN}=1"]


def test_all_flags_are_tried_at_once_and_the_users_come_first(folder, trials, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{KNOWN}=3 --xla_dump_to=x")
    flags = [f"--{KNOWN}=1", "--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_multi_thread_eigen=true"]
    assert xla_options.add_flags(flags) == flags[1:] and trials == [flags[1:]]
    assert os.environ["XLA_FLAGS"] == " ".join([f"--{KNOWN}=3 --xla_dump_to=x", *flags[1:]])
    assert xla_options.add_flags(flags) == []


def test_a_jitted_function_has_the_options_alone_and_none_inside_another_program():
    """jax allows options to the outermost program only."""
    asked = []

    def options():
        asked.append("once")
        return {"xla_cpu_experimental_ynn_fusion_type": ""}

    product = xla_options.jit(lambda x: x @ x + 1, options)
    x = jnp.ones((300, 300))
    assert not asked and float(product(x)[0, 0]) == float(jax.jit(lambda x: product(x))(x)[0, 0]) == 301
    assert float(jax.grad(lambda x: product(x).sum())(x)[0, 0]) == 600
    assert jax.vmap(product)(x[None]).shape == (1, 300, 300)
    assert float(jax.lax.scan(lambda c, _: (product(c) / 301, None), x, None, length=2)[0][0, 0]) == 1
    assert asked == ["once"]
    assert "ynn" not in product.lower(x).compile().as_text()
