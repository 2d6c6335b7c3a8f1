"""Detect the XLA options that the installed jaxlib supports, by testing them instead of comparing versions.

XLA options are set in two ways, with different sets of valid names:

- for one program, ``jax.jit(f, compiler_options=…)``, where an unknown name raises an exception;
- for all programs of a process, the environment variable ``XLA_FLAGS``, where an unknown name aborts the process.

An option is therefore tested by compiling one addition, and a flag in a subprocess. Results are cached per jaxlib
version, in memory and beside the compilation cache if that is enabled
(:func:`jaxconv.runtime.enable_compilation_cache`).
"""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxconv._compat import compilation_cache_dir, jaxlib_version
from jaxconv.errors import InputError
from jaxconv.utils.files import make_folder, read_json, write_json

FILE_NAME = "xla_options.json"
PROBE = "import jax; jax.config.update('jax_platforms', 'cpu'); jax.devices()"  # XLA parses its flags at jax.devices()

_support: dict[str, bool] = {}  # results of this process, keyed by "name=value"


def supported_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the compiler options that the installed XLA supports; ``jax.jit`` would raise for the others.

    Args:
        options: values by name, for ``jax.jit(f, compiler_options=…)``. The names have no leading dashes.

    >>> supported_options({"xla_backend_optimization_level": 1, "xla_cpu_no_such_option": True})
    {'xla_backend_optimization_level': 1}
    """
    return {name: value for name, value in options.items() if _test(_compiles, {name: value}, f"{name}={value}")}


def supported_flags(flags: Iterable[str]) -> list[str]:
    """Return the flags that ``XLA_FLAGS`` may contain; any other would abort the process.

    The first call starts a Python process that loads jax, which takes about a second, and one per flag if XLA rejects
    any of them.

    Args:
        flags: flags in the form of ``XLA_FLAGS``: ``"--name=value"``.
    """
    untested = [flag for flag in flags if _lookup(flag) is None]
    if len(untested) > 1 and _starts(untested):
        _store(dict.fromkeys(untested, True))
    return [flag for flag in flags if _test(_starts, [flag], flag)]


def current_flags() -> dict[str, str]:
    """Return the flags in ``XLA_FLAGS``: values by name, with the leading dashes."""
    words = os.environ.get("XLA_FLAGS", "").split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def add_flags(flags: Iterable[str]) -> list[str]:
    """Add flags to ``XLA_FLAGS`` that XLA supports and that are not set yet. Call it before the first array.

    Returns:
        The flags that were added.
    """
    current, names = os.environ.get("XLA_FLAGS", ""), current_flags()
    added = supported_flags([flag for flag in flags if flag.partition("=")[0] not in names])
    if added:
        os.environ["XLA_FLAGS"] = " ".join([current, *added]).strip()
    return added


def jit(function: Callable[..., Any], options: Callable[[], Mapping[str, Any]], **arguments: Any) -> Callable[..., Any]:
    """Compile a function with XLA options, which apply at the outermost level only: jax rejects them in a nested jit.

    Args:
        function: function of positional arguments.
        options: function that returns the options; it runs at the first call, when the device is known.
        arguments: other arguments of ``jax.jit``.
    """
    inner = jax.jit(function, **arguments)

    @functools.cache
    def outer() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=dict(options()), **arguments)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        return inner(*args) if traced else outer()(*args)

    # Provide the inspection attributes of a function compiled by jax.jit.
    call.lower = lambda *args: outer().lower(*args)  # type: ignore[attr-defined]
    call._cache_size = lambda: outer()._cache_size()  # type: ignore[attr-defined]
    return call


def _test(probe: Callable[[Any], bool | None], argument: Any, key: str) -> bool:
    supported = _lookup(key)
    if supported is None and (supported := probe(argument)) is not None:
        _store({key: supported})
    return bool(supported)


def _compiles(option: dict[str, Any]) -> bool | None:
    """Return True if a program compiles with an option; None if it fails for another reason."""
    try:
        jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((), "float32")).compile(option)
    except jax.errors.JaxRuntimeError as error:
        return False if any(name in str(error) for name in option) else None
    return True


def _starts(flags: list[str]) -> bool | None:
    """Return True if jax starts with these flags; None if it fails for another reason."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    completed = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True)
    if completed.returncode == 0:
        return True
    return False if any(flag in completed.stderr for flag in flags) else None


def _lookup(key: str) -> bool | None:
    """Return the result of an earlier test, of this process or from the file; None if there is none."""
    if key not in _support:
        _support.update(_read_support() | _support)
    return _support.get(key)


def _store(support: Mapping[str, bool]) -> None:
    _support.update(support)
    if (file := _file()) is None:
        return
    with contextlib.suppress(InputError):  # if two processes write at once, one of them tests again later
        make_folder(file.parent)
        write_json(file, _read_file() | {jaxlib_version(): _read_support() | _support})


def _read_support() -> dict[str, bool]:
    """Return the stored results for the installed jaxlib."""
    return _read_file().get(jaxlib_version(), {})


def _read_file() -> dict[str, dict[str, bool]]:
    """Return the stored results per jaxlib version; empty if the file does not exist or is damaged."""
    try:
        return read_json(file, dict[str, dict[str, bool]]) if (file := _file()) else {}
    except (FileNotFoundError, InputError):
        return {}


def _file() -> Path | None:
    folder = compilation_cache_dir()
    return Path(folder) / FILE_NAME if folder and "://" not in folder else None
