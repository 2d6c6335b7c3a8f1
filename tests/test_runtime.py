"""Runtime configuration, tested in subprocesses: allocator, XLA options, threads, compilation cache."""

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


def run_program(program, **environment):
    """Run a program in a process without the variables of the test suite; return its last line, parsed as JSON."""
    suite_variables = ("XLA_FLAGS", "NPROC", "JAX_COMPILATION_CACHE_DIR")
    variables = {name: value for name, value in os.environ.items() if name not in suite_variables} | environment
    completed = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


TUNE_PROGRAM = "import json, os; from jaxconv import runtime; tuned = runtime.tune_cpu(); "


def test_tune_cpu_reports_settings_and_import_has_no_effect():
    program = (
        "import json, os; before = dict(os.environ); import jaxconv; from jaxconv import runtime; "
        "assert dict(os.environ) == before and runtime.cpu_tuning() is None; "
        "tuned = runtime.tune_cpu(); assert runtime.cpu_tuning() == tuned == runtime.tune_cpu(); "
        "import jax.numpy as jnp; assert float(jnp.ones(3).sum()) == 3; "
        "print(json.dumps([tuned, os.environ.get('XLA_FLAGS')]))"
    )
    (allocator, calls, threads), flags = run_program(program)
    assert flags is None  # XLA aborts the process for an unknown flag
    assert calls == "programs run in the calling thread"
    assert allocator == "retains the memory of temporaries" and threads.endswith("cores")


def test_tune_cpu_keeps_user_xla_flags():
    program = TUNE_PROGRAM + "import jax; jax.devices(); print(json.dumps(os.environ['XLA_FLAGS']))"
    user_flags = "--xla_cpu_experimental_ynn_fusion_type=dot --xla_cpu_multi_thread_eigen=true"
    assert run_program(program, XLA_FLAGS=user_flags) == user_flags


def test_fast_compile_adds_known_flags():
    program = (
        "import json, os; from jaxconv import runtime; runtime.FAST_COMPILE_FLAGS += ('--xla_cpu_no_such_flag=1',); "
        "runtime.enable_fast_compile(); import jax.numpy as jnp; x = jnp.ones(3); assert float(x @ x) == 3; "
        "print(json.dumps(os.environ['XLA_FLAGS']))"
    )
    flags = run_program(program).split()
    assert set(flags) <= set(runtime.FAST_COMPILE_FLAGS) and "--xla_backend_optimization_level=1" in flags


def test_compiler_options_disable_ynn_fusion():
    """YNN compiles a matrix product into its own fusion if it is enabled."""
    program = (
        "import json; import jax, jax.numpy as jnp; from jaxconv import runtime; x = jnp.ones((300, 300)); "
        "program = jax.jit(lambda x: x @ x + 1, compiler_options={}); "
        "print(json.dumps('ynn' in program.lower(x).compile().as_text()))"
    )
    ynn_enabled = {next(iter(runtime.CPU_OPTIONS)): "LIBRARY_FUSION_TYPE_DOT"}
    assert run_program(program.replace("{}", str(ynn_enabled))) is True
    assert run_program(program.replace("{}", "runtime.compiler_options()")) is False


def test_tune_cpu_retains_memory():
    """Count the page faults of repeated allocations: by default every page is new each time.

    32 MB are 8,192 pages, or 16 huge pages.
    """
    program = (
        "import json, resource, sys; import numpy as np; from jaxconv import runtime; {}; "
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt; counts = []\n"
        "for _ in range(5):\n"
        "    before = faults(); a = np.ones(2**22); del a; counts.append(faults() - before)\n"
        "print(json.dumps(counts))"
    )
    assert min(run_program(program.replace("{}", "pass"))) >= 16
    assert max(run_program(program.replace("{}", "runtime.tune_cpu()"))[1:]) < 16


def test_tune_cpu_disables_async_dispatch():
    """The result of a synchronous call is ready when the call returns."""
    program = (
        "import json; from jaxconv import runtime; {}; import jax, jax.numpy as jnp; "
        "f = jax.jit(lambda x: x @ x @ x @ x); x = jnp.ones((2048, 2048)); f(x).block_until_ready(); "
        "print(json.dumps(f(x).is_ready()))"
    )
    assert run_program(program.replace("{}", "pass")) is False
    assert run_program(program.replace("{}", "runtime.tune_cpu()")) is True
    assert run_program(program.replace("{}", "runtime.tune_cpu()"), JAX_CPU_ENABLE_ASYNC_DISPATCH="1") is False


def test_tune_cpu_skips_inapplicable_settings(monkeypatch):
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("", ""))
    assert runtime._retain_memory() == "unchanged: no glibc"
    monkeypatch.setattr(runtime.sys, "platform", "darwin")
    assert runtime._retain_memory() == "unchanged: no glibc"
    monkeypatch.setenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", "1")
    assert runtime._disable_async_dispatch() == "unchanged: JAX_CPU_ENABLE_ASYNC_DISPATCH is set"


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("150000 100000", 2), ("20000 100000", 1), ("400000 100000", 4)]
)
def test_cpu_quota_of_container(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert runtime._cpu_quota(tmp_path / "cpu.max") == cores
    assert runtime._cpu_quota(tmp_path / "missing") is None


def test_limit_threads(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_count", lambda: 8)
    monkeypatch.setattr(runtime, "_cpu_quota", lambda: 2)
    for name, value in (("NPROC", "5"), ("NPROC", None)):  # monkeypatch restores the variable
        monkeypatch.setenv(name, "0")
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
        assert runtime._limit_threads(None).startswith("5 of" if value else "2 of")
    assert runtime._limit_threads(3).startswith("3 of") and os.environ["NPROC"] == "3"
    with pytest.raises(InputError, match="tune_cpu: threads=0 should be at least 1"):
        runtime.tune_cpu(threads=0)


def test_tune_cpu_sets_xla_thread_count():
    program = (
        "import json, os; from jaxconv import runtime; runtime.tune_cpu(threads=3); import jax.numpy as jnp; "
        "jnp.ones((9, 9)).block_until_ready(); tasks = os.listdir('/proc/self/task'); "
        "names = [open(f'/proc/self/task/{task}/comm').read() for task in tasks]; "
        "print(json.dumps(sum('XLAEigen' in name for name in names)))"
    )
    assert run_program(program) == 3


def test_compilation_cache_is_reused(tmp_path):
    program = (
        "import json, sys; from pathlib import Path; import jax, jax.numpy as jnp; from jaxconv import runtime; "
        "runtime.compilation_cache_warns_spuriously = lambda: False; "
        f"folder = runtime.enable_compilation_cache(Path({str(tmp_path)!r})); "
        "assert runtime.compilation_cache_dir() == str(folder); "
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0); "
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((4, 4))).block_until_ready(); "
        "kept = sorted(file.name for file in folder.iterdir() if file.name.endswith('-cache')); "
        "print(json.dumps([folder.name, kept]))"
    )
    first_run, second_run = run_program(program), run_program(program)
    assert first_run == second_run and first_run[1] and first_run[0].startswith("programs-")
    program_with_user_dir = program.split("jax.config.update")[0] + "print(json.dumps(str(folder)))"
    assert run_program(program_with_user_dir, JAX_COMPILATION_CACHE_DIR="x") == "x"
    program_with_warning = program_with_user_dir.replace("False", "True").split("assert")[0]
    program_with_warning += "print(json.dumps([folder, runtime.compilation_cache_dir()]))"
    assert run_program(program_with_warning) == [None, None]


@pytest.mark.parametrize(
    ("jaxlib", "warns"),
    [("0.9.0", True), ("0.10.1", True), ("0.10.2", False), ("0.10.2.dev1", False), ("0.12.0.1", False), ("1.0", False)],
)
def test_compilation_cache_warning_by_jaxlib_version(monkeypatch, jaxlib, warns):
    monkeypatch.setattr(_compat, "jaxlib_version", lambda: jaxlib)
    assert _compat.compilation_cache_warns_spuriously() is warns


def test_doctor_prints_setup(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (
        "device     cpu",
        "versions   jaxconv",
        "tuning     none",
        "conv       matches the explicit sum: one channel",
    ):
        assert word in text


def test_doctor_reports_wrong_convolution(capsys, monkeypatch):
    from jaxconv import ops

    original = ops.conv

    def scaled(x, kernel, *, impl, groups=1, **options):
        scale = 1.001 if impl == "auto" and groups > 1 else 1
        return scale * original(x, kernel, impl=impl, groups=groups, **options)

    monkeypatch.setattr(ops, "conv", scaled)
    assert main(["doctor"]) == 1
    assert "conv       DIFFERS: depthwise, two groups" in capsys.readouterr().out


def test_process_uptime_counts_from_process_start():
    start_time = time.perf_counter()
    completed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import time; time.sleep(0.3); from jaxconv import runtime; print(runtime.process_uptime())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    elapsed = time.perf_counter() - start_time
    assert 0.3 < float(completed.stdout) < elapsed + 0.02  # the system clock ticks in hundredths of a second


def test_cli_tunes_cpu_by_default():
    lines = {}
    for arguments in (["doctor"], ["doctor", "--no-cpu-tuning"]):
        completed = subprocess.run([sys.executable, "-m", "jaxconv.cli", *arguments], capture_output=True, text=True)
        assert completed.returncode == 0, completed.stderr
        lines[arguments[-1]] = completed.stdout
    assert "allocator  retains" in lines["doctor"] and "tuning     none (--no-cpu-tuning)" in lines["--no-cpu-tuning"]
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
def test_compiled_function_uses_compiler_options(environment, options):
    """The options apply without tune_cpu; settings of the user take precedence."""
    program = (
        "import json; import jax, jax.numpy as jnp; from jaxconv import runtime; "
        "from jaxconv.train import CompiledFunction; "
        "f, x = lambda x: x @ x + 1, jnp.ones((300, 300)); product = CompiledFunction('product', f); product(x); "
        "texts = product._compiled.as_text(), jax.jit(f).lower(x).compile().as_text(); "
        "print(json.dumps([runtime.compiler_options(), ['ynn' in text for text in texts]]))"
    )
    options_in_use, (compiled_has_ynn, jit_has_ynn) = run_program(program, **environment)
    assert options_in_use == options and compiled_has_ynn == (jit_has_ynn and not options)


def test_compiler_options_are_empty_on_gpu(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert runtime.compiler_options() and runtime.fast_compile_options()
    monkeypatch.setattr(runtime.jax, "default_backend", lambda: "gpu")
    assert runtime.compiler_options() == runtime.fast_compile_options() == {}
    assert runtime.compiler_report() == {"compiler": "default options: jax runs on a gpu"}


def test_doctor_lists_supported_and_refused_options(capsys, monkeypatch):
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
    ("flags", "xla_flags", "expected"),
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
def test_instruction_set_respects_xla_flags(monkeypatch, flags, xla_flags, expected):
    monkeypatch.setattr(runtime, "_instructions", lambda: flags)
    monkeypatch.setenv("XLA_FLAGS", xla_flags)
    assert runtime.instruction_set() == expected
