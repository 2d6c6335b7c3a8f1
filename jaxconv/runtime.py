"""Runtime configuration: CPU tuning, compiler options, compilation cache, device information. No effect on import."""

import ctypes
import hashlib
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxconv import xla_options
from jaxconv._compat import compilation_cache_dir as compilation_cache_dir
from jaxconv._compat import compilation_cache_warns_spuriously
from jaxconv.errors import InputError, named_errors

# Compiler options for CPU programs, where the installed XLA supports them. By default XLA prefers YNN, a library for
# inference, to Eigen, whose convolutions are faster here; compare jaxconv bench with and without --no-cpu-tuning.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# Compiler options for programs that run once: few LLVM optimizations.
FAST_COMPILE_OPTIONS = {"xla_backend_optimization_level": 1}
# Flags for a process that computes little. The newer fusion emitters compile more slowly. Level 0 would make lax's
# gradients of a convolution ten times slower. Code of the older emitters that is split for parallel code generation is
# occasionally wrong without optimization, so the split count is 1.
FAST_COMPILE_FLAGS = (
    "--xla_backend_optimization_level=1",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
INSTRUCTION_SETS = {"avx512": "avx512f", "avx2": "avx2"}  # flags in /proc/cpuinfo, the widest first
IMPORT_TIME = time.perf_counter()
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # constants of malloc.h


class CpuTuning(NamedTuple):
    """Effects of :func:`tune_cpu`, one line of text each."""

    allocator: str
    calls: str
    threads: str


_tuned: CpuTuning | None = None


@named_errors
def tune_cpu(*, threads: int | None = None) -> CpuTuning:
    """Tune this process for training on a CPU. Call it before the first array, as XLA then starts its threads.

    - The allocator retains the memory of large temporaries. By default glibc returns it to the system after every step
      and maps it again in the next, page by page, and the kernel clears every page.
    - Programs run in the calling thread. By default jax dispatches them to another thread, for which glibc maps large
      temporaries anew in any case: it retains only those of the main thread.
    - The number of threads is limited to the CPU quota of the container, if that is smaller than the machine.

    Settings that do not apply are skipped: on macOS and Windows, and with musl. Results are equal up to rounding, and a
    GPU or TPU is not affected. ``XLA_FLAGS`` does not change; XLA options are set per program, by
    :func:`compiler_options`.

    Args:
        threads: size of XLA's thread pool; by default the number of cores available to this process.

    Raises:
        InputError: if ``threads < 1``.
    """
    global _tuned
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads!r} should be at least 1")
    _tuned = CpuTuning(_retain_memory(), _disable_async_dispatch(), _limit_threads(threads))
    return _tuned


def configure(*, cpu_tuning: bool) -> None:
    """Call :func:`tune_cpu`; with ``cpu_tuning=False`` disable the options of :func:`compiler_options` instead."""
    if cpu_tuning:
        tune_cpu()
    else:
        os.environ["JAXCONV_CPU_TUNING"] = "0"


def cpu_tuning() -> CpuTuning | None:
    """Return the effects of :func:`tune_cpu` in this process, or None if it was not called."""
    return _tuned


def _retain_memory() -> str:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return "unchanged: no glibc"
    glibc = ctypes.CDLL(None)
    succeeded = glibc.mallopt(M_MMAP_MAX, 0) and glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return "retains the memory of temporaries" if succeeded else "unchanged: mallopt failed"


def _disable_async_dispatch() -> str:
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" in os.environ:
        return "unchanged: JAX_CPU_ENABLE_ASYNC_DISPATCH is set"
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return "programs run in the calling thread"


def compiler_options() -> dict[str, Any]:
    """Return XLA options for one program, for ``jax.jit(f, compiler_options=…)``; ``train.fit`` uses them.

    On a CPU these are the :data:`CPU_OPTIONS` that the installed XLA supports and ``XLA_FLAGS`` does not set; on other
    devices, and with ``JAXCONV_CPU_TUNING=0``, there are none.
    """
    return xla_options.supported_options(_unset(CPU_OPTIONS)) if _disabled_reason() is None else {}


def fast_compile_options() -> dict[str, Any]:
    """Return XLA options for a program that runs once and should compile fast; empty on other devices than a CPU.

    Parameter initialization is such a program: random numbers are long chains of integer operations, which LLVM is
    slow to optimize.
    """
    return xla_options.supported_options(FAST_COMPILE_OPTIONS) if jax.default_backend() == "cpu" else {}


def enable_fast_compile() -> None:
    """Make all programs of this process compile fast and run slower, for a process that computes little.

    Call it before the first array is created. It adds to ``XLA_FLAGS`` the supported flags of
    :data:`FAST_COMPILE_FLAGS`.
    """
    xla_options.add_flags(FAST_COMPILE_FLAGS)


def compiler_report() -> dict[str, str]:
    """Describe the XLA options in use on this device, and those that XLA does not support, as text."""
    if reason := _disabled_reason():
        return {"compiler": f"default options: {reason}"}
    requested = CPU_OPTIONS | FAST_COMPILE_OPTIONS
    options, flags = xla_options.supported_options(requested), xla_options.supported_flags(FAST_COMPILE_FLAGS)
    refused = [name for name in requested if name not in options] + [
        flag for flag in FAST_COMPILE_FLAGS if flag not in flags
    ]
    used = ", ".join(f"{name}={value!r}" for name, value in compiler_options().items())
    return {"compiler": used or "no options", "refused": ", ".join(refused) or "none"}


def _disabled_reason() -> str | None:
    """Return the reason why programs are compiled without ``CPU_OPTIONS``, or None if the options are in use."""
    if os.environ.get("JAXCONV_CPU_TUNING") == "0":
        return "JAXCONV_CPU_TUNING=0"
    backend = jax.default_backend()
    return None if backend == "cpu" else f"jax runs on a {backend}"


def _unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the user has not set in ``XLA_FLAGS``, which takes precedence."""
    names = xla_options.current_flags()
    return {name: value for name, value in options.items() if f"--{name}" not in names}


def _limit_threads(threads: int | None) -> str:
    if threads is None and "NPROC" not in os.environ:
        quota = _cpu_quota()
        threads = quota if quota is not None and quota < cpu_count() else None
    if threads is not None:
        os.environ["NPROC"] = str(threads)  # XLA reads the size of its thread pool from NPROC
    return f"{os.environ.get('NPROC', cpu_count())} of {os.cpu_count()} cores"


def cpu_count() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return the CPU quota of the container in cores, rounded up, or None if there is no limit."""
    try:
        quota, period = file.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroups, or the quota is "max"
        return None


def enable_compilation_cache(cache_dir: Path) -> Path | None:
    """Store compiled programs in a folder, so that later processes do not compile them again.

    Each kind of processor has its own subfolder. ``JAX_COMPILATION_CACHE_DIR`` takes precedence if it is set.

    Returns:
        The folder; None with jaxlib before 0.10.2, which prints a false warning for every program that it loads.
    """
    if configured := compilation_cache_dir():
        return Path(configured)
    if compilation_cache_warns_spuriously():
        return None
    cache_dir = cache_dir / f"programs-{_processor_id()}"
    jax.config.update("jax_compilation_cache_dir", str(cache_dir))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return cache_dir


def _processor_id() -> str:
    """Return a short identifier of the instructions that this processor supports."""
    return f"{platform.machine()}-{hashlib.sha256(_instructions().encode()).hexdigest()[:8]}"


def _instructions(file: Path = Path("/proc/cpuinfo")) -> str:
    """Return the line of ``/proc/cpuinfo`` that lists the instructions; the name of the processor elsewhere."""
    try:
        return next(line for line in file.read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def instruction_set() -> str:
    """Return the vector instruction set that XLA uses: ``"avx512"``, ``"avx2"`` or ``"other"``.

    It is that of the processor, or a smaller one if ``XLA_FLAGS`` contains ``--xla_cpu_max_isa``; outside Linux it is
    always ``"other"``.
    """
    max_isa = xla_options.current_flags().get("--xla_cpu_max_isa", "AMX").lower()
    if max_isa in ("sse4_2", "avx"):
        return "other"
    processor_isa = _processor_instruction_set()
    return "avx2" if max_isa == "avx2" and processor_isa == "avx512" else processor_isa


def instruction_set_is_emulated() -> bool:
    """Return True if XLA is restricted to a smaller vector instruction set than that of the processor."""
    return instruction_set() != _processor_instruction_set()


def _processor_instruction_set() -> str:
    instructions = _instructions().split()
    return next((name for name, flag in INSTRUCTION_SETS.items() if flag in instructions), "other")


def process_uptime() -> float:
    """Return the seconds since this process started, which include loading Python and jax.

    Outside Linux, return the seconds since this module was imported.

    >>> process_uptime() > 0
    True
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.perf_counter() - IMPORT_TIME


def device_name() -> str:
    """Describe the device that jax uses: ``"cpu (Linux x86_64, 2 cores)"``, ``"gpu (NVIDIA H200)"``.

    Raises:
        InputError: if the platform in ``JAX_PLATFORMS`` is not available.
    """
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        raise InputError(f"jax finds no device (JAX_PLATFORMS={platforms!r}): {str(error).splitlines()[0]}") from None
    if device.platform == "cpu":
        return f"cpu ({platform.system()} {platform.machine()}, {os.cpu_count()} cores)"
    count = f"{jax.device_count()} × " if jax.device_count() > 1 else ""
    return f"{device.platform} ({count}{device.device_kind})"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on.

    >>> sorted(versions())
    ['jax', 'jaxconv', 'jaxlib', 'numpy', 'optax', 'python']
    """
    packages = ("jaxconv", "jax", "jaxlib", "numpy", "optax")
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}
