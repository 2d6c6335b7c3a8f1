"""What the computation runs on, and how to make the most of it. Nothing here happens on import."""

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
from jaxconv._compat import cached_programs_raise_false_alarms
from jaxconv._compat import compilation_cache_dir as compilation_cache_dir
from jaxconv.errors import InputError, named_errors

# XLA's options for a program on a CPU, where its compiler takes them. By default it prefers YNN, a library made for
# inference, to Eigen, whose convolutions are faster here: jaxconv bench, with and without --no-cpu-tuning, shows by how
# much.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# Those for a program that runs once: few of LLVM's optimisations.
HASTY_OPTIONS = {"xla_backend_optimization_level": 1}
# The flags for a process that computes little. Beside that option, not XLA's newer emitters of fused loops, which take
# longer. (With no optimisation, lax's gradients of a convolution run ten times as long. Several parts of what the older
# emitters write, side by side, are wrong now and then where nothing is optimised, so there is one part.)
FAST_COMPILE_FLAGS = (
    "--xla_backend_optimization_level=1",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
INSTRUCTION_SETS = {"avx512": "avx512f", "avx2": "avx2"}  # what Linux calls them, the widest first
IMPORTED = time.perf_counter()
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


class CpuTuning(NamedTuple):
    """What :func:`tune_cpu` did, in words for people: one line each."""

    allocator: str
    calls: str
    threads: str


_tuned: CpuTuning | None = None


@named_errors
def tune_cpu(*, threads: int | None = None) -> CpuTuning:
    """Set this process up for training on a CPU. Call it before the first array, with which XLA starts its threads.

    - The allocator keeps the memory of large temporaries. By default glibc gives it back after every step and gets it
      anew for the next, page by page, each of which the kernel clears.
    - A program runs in the thread that calls it. By default jax gives it to another, whose large temporaries glibc maps
      anew all the same: only the main thread's are kept.
    - As many threads as a container is allowed to use, where that is fewer than the machine has.

    Each is left alone where it means nothing: on macOS and Windows, with musl. None of them changes what is computed,
    but for rounding, and none matters to a GPU or TPU. ``XLA_FLAGS`` stays as it is: XLA's options are those of single
    programs, :func:`compiler_options`.

    Args:
        threads: of XLA's pool; by default as many as this process may use.

    Raises:
        InputError: threads below 1.
    """
    global _tuned
    if threads is not None and threads < 1:
        raise InputError(f"threads={threads!r} should be at least 1")
    _tuned = CpuTuning(_keep_memory(), _call_directly(), _limit_threads(threads))
    return _tuned


def configure(*, cpu_tuning: bool) -> None:
    """Call :func:`tune_cpu`; without ``cpu_tuning`` leave out the options of :func:`compiler_options` too."""
    if cpu_tuning:
        tune_cpu()
    else:
        os.environ["JAXCONV_CPU_TUNING"] = "0"


def cpu_tuning() -> CpuTuning | None:
    """What :func:`tune_cpu` did in this process, or None if nobody called it."""
    return _tuned


def _keep_memory() -> str:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return "left alone: no glibc"
    glibc = ctypes.CDLL(None)
    done = glibc.mallopt(M_MMAP_MAX, 0) and glibc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return "keeps the memory of temporaries" if done else "left alone: glibc refused"


def _call_directly() -> str:
    if "JAX_CPU_ENABLE_ASYNC_DISPATCH" in os.environ:
        return "left alone: JAX_CPU_ENABLE_ASYNC_DISPATCH is set"
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return "a program runs in the thread that calls it"


def compiler_options() -> dict[str, Any]:
    """XLA's options for one program, as ``jax.jit(f, compiler_options=…)`` takes them; ``train.fit`` uses them.

    They are :data:`CPU_OPTIONS`, on a CPU: those that the installed XLA takes and ``XLA_FLAGS`` does not have. With
    ``JAXCONV_CPU_TUNING=0`` there are none.
    """
    return xla_options.taken(_unset(CPU_OPTIONS)) if _left_alone() is None else {}


def fast_compile_options() -> dict[str, Any]:
    """XLA's options for a program that runs once, and had better be compiled soon than well; none but on a CPU.

    A network's first parameters are such a program: random numbers are long chains of integer operations, of which
    LLVM's optimiser makes much ado.
    """
    return xla_options.taken(HASTY_OPTIONS) if jax.default_backend() == "cpu" else {}


def enable_fast_compile() -> None:
    """Have all programs of this process compiled soon rather than well, for one that computes little.

    Call it before the first array is made. It adds to ``XLA_FLAGS`` the flags of :data:`FAST_COMPILE_FLAGS` that XLA
    takes.
    """
    xla_options.add_flags(FAST_COMPILE_FLAGS)


def compiler_report() -> dict[str, str]:
    """Describe the options that XLA takes on this device, and those that it refuses, in words for people."""
    if why := _left_alone():
        return {"compiler": f"left alone: {why}"}
    ours = CPU_OPTIONS | HASTY_OPTIONS
    options, flags = xla_options.taken(ours), xla_options.taken_flags(FAST_COMPILE_FLAGS)
    refused = [name for name in ours if name not in options] + [
        flag for flag in FAST_COMPILE_FLAGS if flag not in flags
    ]
    used = ", ".join(f"{name}={value!r}" for name, value in compiler_options().items())
    return {"compiler": used or "no options", "refused": ", ".join(refused) or "none"}


def _left_alone() -> str | None:
    """The reason why programs have none of our options, or None if they have them."""
    if os.environ.get("JAXCONV_CPU_TUNING") == "0":
        return "JAXCONV_CPU_TUNING=0"
    backend = jax.default_backend()
    return None if backend == "cpu" else f"jax runs on a {backend}"


def _unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the user has not set in ``XLA_FLAGS``, which come first."""
    names = xla_options.flags_set()
    return {name: value for name, value in options.items() if f"--{name}" not in names}


def _limit_threads(threads: int | None) -> str:
    if threads is None and "NPROC" not in os.environ:
        allowed = _quota()
        threads = allowed if allowed is not None and allowed < cpu_count() else None
    if threads is not None:
        os.environ["NPROC"] = str(threads)  # what XLA asks for the size of its pool
    return f"{os.environ.get('NPROC', cpu_count())} of {os.cpu_count()} cores"


def cpu_count() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """The cores' worth of time that a container may use, or None if that is not limited."""
    try:
        quota, period = file.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroups, or "max": no limit
        return None


def enable_compilation_cache(cache_dir: Path) -> Path | None:
    """Keep compiled programs in a folder, so that the same one need not be compiled again in another process.

    Programs of another kind of processor are kept apart. ``JAX_COMPILATION_CACHE_DIR``, where it is set, comes first.

    Returns:
        Where they are kept; None with a jaxlib before 0.10.2, which would warn of crashes at each.
    """
    if chosen := compilation_cache_dir():
        return Path(chosen)
    if cached_programs_raise_false_alarms():
        return None
    cache_dir = cache_dir / f"programs-{_processor()}"
    jax.config.update("jax_compilation_cache_dir", str(cache_dir))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return cache_dir


def _processor() -> str:
    """A short name for the instructions that this processor has."""
    return f"{platform.machine()}-{hashlib.sha256(_instructions().encode()).hexdigest()[:8]}"


def _instructions(file: Path = Path("/proc/cpuinfo")) -> str:
    """The line in which Linux lists the instructions of this processor; elsewhere the processor's name."""
    try:
        return next(line for line in file.read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def instruction_set() -> str:
    """The vector instructions that XLA uses: ``"avx512"``, ``"avx2"`` or ``"other"``, as wherever Linux is not.

    They are the processor's, or fewer if ``XLA_FLAGS`` has ``--xla_cpu_max_isa``.
    """
    most, ours = xla_options.flags_set().get("--xla_cpu_max_isa", "AMX").lower(), _processor_instruction_set()
    if most in ("sse4_2", "avx"):
        return "other"
    return "avx2" if most == "avx2" and ours == "avx512" else ours


def instruction_set_is_emulated() -> bool:
    """Return whether XLA is held to fewer vector instructions than the processor has."""
    return instruction_set() != _processor_instruction_set()


def _processor_instruction_set() -> str:
    instructions = _instructions().split()
    return next((name for name, flag in INSTRUCTION_SETS.items() if flag in instructions), "other")


def process_uptime() -> float:
    """Seconds since this process began: loading Python and jax is part of what a person waits for.

    Where the system does not tell (it is Linux that does), since this module was imported.

    >>> process_uptime() > 0
    True
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.perf_counter() - IMPORTED


def device_name() -> str:
    """The device that jax will use, in words: ``"cpu (Linux x86_64, 2 cores)"``, ``"gpu (NVIDIA H200)"``.

    Raises:
        InputError: jax was asked for a device that is not there.
    """
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        asked = os.environ.get("JAX_PLATFORMS")
        raise InputError(f"jax finds no device (JAX_PLATFORMS={asked!r}): {str(error).splitlines()[0]}") from None
    if device.platform == "cpu":
        return f"cpu ({platform.system()} {platform.machine()}, {os.cpu_count()} cores)"
    count = f"{jax.device_count()} × " if jax.device_count() > 1 else ""
    return f"{device.platform} ({count}{device.device_kind})"


def versions() -> dict[str, str]:
    """The versions that a result depends on.

    >>> sorted(versions())
    ['jax', 'jaxconv', 'jaxlib', 'numpy', 'optax', 'python']
    """
    packages = ("jaxconv", "jax", "jaxlib", "numpy", "optax")
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}
