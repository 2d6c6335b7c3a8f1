"""How a process is set up, in processes of their own: allocator, XLA's options, threads, kept programs."""

import json
import os
import subprocess
import sys
import time

import jax
import pytest

from jaxconv import _compat, runtime
from jaxconv.cli import main
from jaxconv.errors import InputError


def elsewhere(program, **environment):
    """What a program prints that runs in a process without the suite's own options."""
    ours = ("XLA_FLAGS", "NPROC", "JAX_COMPILATION_CACHE_DIR")
    clean = {name: value for name, value in os.environ.items() if name not in ours} | environment
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


TUNE = "import json, os; from jaxconv import runtime; tuned = runtime.tune_cpu(); "


def test_importing_changes_nothing_and_tune_says_what_it_did():
    program = (
        "import json, os; before = dict(os.environ); import jaxconv; from jaxconv import runtime; "
        "assert dict(os.environ) == before and runtime.cpu_tuning() is None; "
        "tuned = runtime.tune_cpu(); assert runtime.cpu_tuning() == tuned == runtime.tune_cpu(); "
        "import jax.numpy as jnp; assert float(jnp.ones(3).sum()) == 3; "
        "print(json.dumps([tuned, os.environ.get('XLA_FLAGS')]))"
    )
    (allocator, calls, threads), flags = elsewhere(program)
    assert flags is None  # which XLA would end the process for, if it did not know one
    assert calls == "a program runs in the thread that calls it"
    assert allocator == "keeps the memory of temporaries" and threads.endswith("cores")


def test_what_the_user_chose_stays():
    program = TUNE + "import jax; jax.devices(); print(json.dumps(os.environ['XLA_FLAGS']))"
    chosen = "--xla_cpu_experimental_ynn_fusion_type=dot --xla_cpu_multi_thread_eigen=true"
    assert elsewhere(program, XLA_FLAGS=chosen) == chosen


def test_a_hurried_process_adds_flags_that_the_compiler_knows():
    program = (
        "import json, os; from jaxconv import runtime; runtime.FAST_COMPILE_FLAGS += ('--xla_cpu_no_such_flag=1',); "
        "runtime.enable_fast_compile(); import jax.numpy as jnp; x = jnp.ones(3); assert float(x @ x) == 3; "
        "print(json.dumps(os.environ['XLA_FLAGS']))"
    )
    flags = elsewhere(program).split()
    assert set(flags) <= set(runtime.FAST_COMPILE_FLAGS) and "--xla_backend_optimization_level=1" in flags


def test_the_compiler_takes_the_options():
    """Of a product of matrices YNN makes a fusion of its own where it may."""
    program = (
        "import json; import jax, jax.numpy as jnp; from jaxconv import runtime; x = jnp.ones((300, 300)); "
        "program = jax.jit(lambda x: x @ x + 1, compiler_options={}); "
        "print(json.dumps('ynn' in program.lower(x).compile().as_text()))"
    )
    may = {next(iter(runtime.CPU_OPTIONS)): "LIBRARY_FUSION_TYPE_DOT"}
    assert elsewhere(program.replace("{}", str(may))) is True
    assert elsewhere(program.replace("{}", "runtime.compiler_options()")) is False


def test_memory_is_kept():
    """Of an array that comes and goes, every page is new each time, or only the first time.

    32 MB are 8,192 pages, or 16 where Linux or numpy makes them large.
    """
    program = (
        "import json, resource, sys; import numpy as np; from jaxconv import runtime; {}; "
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt; counts = []\n"
        "for _ in range(5):\n"
        "    before = faults(); a = np.ones(2**22); del a; counts.append(faults() - before)\n"
        "print(json.dumps(counts))"
    )
    assert min(elsewhere(program.replace("{}", "pass"))) >= 16
    assert max(elsewhere(program.replace("{}", "runtime.tune_cpu()"))[1:]) < 16


def test_a_program_runs_in_the_thread_that_calls_it():
    """So its result is there when the call returns."""
    program = (
        "import json; from jaxconv import runtime; {}; import jax, jax.numpy as jnp; "
        "f = jax.jit(lambda x: x @ x @ x @ x); x = jnp.ones((2048, 2048)); f(x).block_until_ready(); "
        "print(json.dumps(f(x).is_ready()))"
    )
    assert elsewhere(program.replace("{}", "pass")) is False
    assert elsewhere(program.replace("{}", "runtime.tune_cpu()")) is True
    assert elsewhere(program.replace("{}", "runtime.tune_cpu()"), JAX_CPU_ENABLE_ASYNC_DISPATCH="1") is False


def test_where_it_means_nothing_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("", ""))
    assert runtime._keep_memory() == "left alone: no glibc"
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    assert runtime._keep_memory() == "left alone: no glibc"
    monkeypatch.setenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", "1")
    assert runtime._call_directly() == "left alone: JAX_CPU_ENABLE_ASYNC_DISPATCH is set"


@pytest.mark.parametrize(
    ("said", "cores"), [("max 100000", None), ("150000 100000", 2), ("20000 100000", 1), ("400000 100000", 4)]
)
def test_a_containers_share_of_the_cores(tmp_path, said, cores):
    (tmp_path / "cpu.max").write_text(said + "\n")
    assert runtime._quota(tmp_path / "cpu.max") == cores
    assert runtime._quota(tmp_path / "missing") is None


def test_threads(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_count", lambda: 8)
    monkeypatch.setattr(runtime, "_quota", lambda: 2)
    for name, value in (("NPROC", "5"), ("NPROC", None)):  # monkeypatch puts back what was there
        monkeypatch.setenv(name, "0")
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
        assert runtime._limit_threads(None).startswith("5 of" if value else "2 of")
    assert runtime._limit_threads(3).startswith("3 of") and os.environ["NPROC"] == "3"
    with pytest.raises(InputError, match="tune_cpu: threads=0 should be at least 1"):
        runtime.tune_cpu(threads=0)


def test_xla_has_so_many_threads():
    program = (
        "import json, os; from jaxconv import runtime; runtime.tune_cpu(threads=3); import jax.numpy as jnp; "
        "jnp.ones((9, 9)).block_until_ready(); tasks = os.listdir('/proc/self/task'); "
        "names = [open(f'/proc/self/task/{each}/comm').read() for each in tasks]; "
        "print(json.dumps(sum('XLAEigen' in name for name in names)))"
    )
    assert elsewhere(program) == 3


def test_programs_are_kept_and_found_again(tmp_path):
    program = (
        "import json, sys; from pathlib import Path; import jax, jax.numpy as jnp; from jaxconv import runtime; "
        "runtime.cached_programs_raise_false_alarms = lambda: False; "
        f"folder = runtime.enable_compilation_cache(Path({str(tmp_path)!r})); "
        "assert runtime.compilation_cache_dir() == str(folder); "
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0); "
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))).block_until_ready(); "
        "kept = sorted(file.name for file in folder.iterdir() if file.name.endswith('-cache')); "
        "print(json.dumps([folder.name, kept]))"
    )
    first, second = elsewhere(program), elsewhere(program)
    assert first == second and first[1] and first[0].startswith("programs-")
    asked = program.split("jax.config.update")[0] + "print(json.dumps(str(folder)))"
    assert elsewhere(asked, JAX_COMPILATION_CACHE_DIR="x") == "x"
    alarmed = asked.replace("False", "True").split("assert")[0]
    assert elsewhere(alarmed + "print(json.dumps([folder, runtime.compilation_cache_dir()]))") == [None, None]


@pytest.mark.parametrize(
    ("jaxlib", "alarm"),
    [("0.9.0", True), ("0.10.1", True), ("0.10.2", False), ("0.10.2.dev1", False), ("0.12.0.1", False), ("1.0", False)],
)
def test_which_jaxlib_raises_false_alarms(monkeypatch, jaxlib, alarm):
    monkeypatch.setattr(_compat, "jaxlib_version", lambda: jaxlib)
    assert _compat.cached_programs_raise_false_alarms() is alarm


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in (
        "device     cpu",
        "versions   jaxconv",
        "tuning     none",
        "conv       matches the explicit sum: one channel",
    ):
        assert word in said


def test_doctor_sees_what_is_wrong(capsys, monkeypatch):
    from jaxconv import ops

    right = ops.conv

    def wrong(x, kernel, *, impl, groups=1, **options):
        return right(x, kernel, impl=impl, groups=groups, **options) * (1.001 if impl == "auto" and groups > 1 else 1)

    monkeypatch.setattr(ops, "conv", wrong)
    assert main(["doctor"]) == 1
    assert "conv       DIFFERS: depthwise, two groups" in capsys.readouterr().out


def test_age_is_the_time_since_the_process_began():
    began = time.perf_counter()
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import time; time.sleep(0.3); from jaxconv import runtime; print(runtime.process_uptime())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    waited = time.perf_counter() - began
    assert 0.3 < float(said.stdout) < waited + 0.02  # the system counts in hundredths


def test_the_program_sets_itself_up_unless_told_not_to():
    lines = {}
    for arguments in (["doctor"], ["doctor", "--no-cpu-tuning"]):
        done = subprocess.run([sys.executable, "-m", "jaxconv.cli", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines[arguments[-1]] = done.stdout
    assert "allocator  keeps" in lines["doctor"] and "tuning     none (--no-cpu-tuning)" in lines["--no-cpu-tuning"]
    assert jax.config.jax_compilation_cache_dir in lines["doctor"]


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, {"xla_cpu_experimental_ynn_fusion_type": ""}),
        ({"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=dot"}, {}),
        ({"JAXCONV_CPU_TUNING": "0"}, {}),
    ],
    ids=str,
)
def test_training_is_compiled_with_the_options(environment, options):
    """Without tune, too; what was chosen otherwise stays."""
    program = (
        "import json; import jax, jax.numpy as jnp; from jaxconv import runtime; "
        "from jaxconv.train import CompiledFunction; "
        "f, x = lambda x: x @ x + 1, jnp.ones((300, 300)); product = CompiledFunction('product', f); product(x); "
        "texts = product._compiled.as_text(), jax.jit(f).lower(x).compile().as_text(); "
        "print(json.dumps([runtime.compiler_options(), ['ynn' in text for text in texts]]))"
    )
    found, (ours, jaxs) = elsewhere(program, **environment)
    assert found == options and ours == (jaxs and not options)


def test_no_options_for_another_device(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert runtime.compiler_options() and runtime.fast_compile_options()
    monkeypatch.setattr(runtime.jax, "default_backend", lambda: "gpu")
    assert runtime.compiler_options() == runtime.fast_compile_options() == {}
    assert runtime.compiler_report() == {"compiler": "left alone: jax runs on a gpu"}


def test_doctor_names_the_options_that_are_taken_and_those_that_are_refused(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setitem(runtime.CPU_OPTIONS, "xla_cpu_no_such_option", True)
    monkeypatch.setattr(
        runtime, "FAST_COMPILE_FLAGS", ("--xla_backend_optimization_level=1", "--xla_cpu_no_such_flag=1")
    )
    assert main(["doctor"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line.strip())
    assert lines["compiler"] == "xla_cpu_experimental_ynn_fusion_type=''"
    assert lines["refused"] == "xla_cpu_no_such_option, --xla_cpu_no_such_flag=1"


@pytest.mark.parametrize(
    ("flags", "most", "used"),
    [
        ("flags : fpu avx avx2 avx512f", "", "avx512"),
        ("flags : fpu avx avx2 avx512f", "--xla_cpu_max_isa=AVX2 --xla_dump_to=x", "avx2"),
        ("flags : fpu avx avx2 avx512f", "--xla_cpu_max_isa=SSE4_2", "other"),
        ("flags : fpu avx avx2 avx512f", "--xla_cpu_max_isa=AVX512", "avx512"),
        ("flags : fpu avx avx2", "--xla_cpu_max_isa=AVX512", "avx2"),
        ("flags : fpu sse2", "", "other"),
        ("Features : fp asimd evtstrm", "--xla_cpu_max_isa=AVX2", "other"),
        ("arm", "", "other"),
    ],
)
def test_the_instruction_set_is_the_processors_or_what_xla_is_allowed(monkeypatch, flags, most, used):
    monkeypatch.setattr(runtime, "_instructions", lambda: flags)
    monkeypatch.setenv("XLA_FLAGS", most)
    assert runtime.instruction_set() == used
