"""XLA's options: which ones the installed jaxlib takes, asked of XLA itself and not read off a version number.

XLA has two ways to set an option, and they do not take the same names:

- for one program, ``jax.jit(f, compiler_options=…)``, where an unknown name raises an error that can be caught;
- for all programs of a process, the environment variable ``XLA_FLAGS``, where an unknown name ends the process.

So an option is tried on a program of one addition, and a flag in a process of its own. The answers are kept beside the
compiled programs, if these are kept (:func:`jaxconv.runtime.enable_compilation_cache`), for each jaxlib.
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
TRIAL = "import jax; jax.config.update('jax_platforms', 'cpu'); jax.devices()"  # XLA reads its flags with the devices

_answers: dict[str, bool] = {}  # of this process, by what was tried


def taken(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a program that the installed XLA takes; the rest would be an error of ``jax.jit``.

    Args:
        options: values by name, for ``jax.jit(f, compiler_options=…)``. The names have no leading dashes.

    >>> taken({"xla_backend_optimization_level": 1, "xla_cpu_no_such_option": True})
    {'xla_backend_optimization_level': 1}
    """
    return {name: value for name, value in options.items() if _ask(_compiles, {name: value}, f"{name}={value}")}


def taken_flags(flags: Iterable[str]) -> list[str]:
    """The flags that may be put into ``XLA_FLAGS``; any other would end the process.

    The first time this starts a Python that loads jax, which takes about a second, and one a flag if XLA refuses any.

    Args:
        flags: as ``XLA_FLAGS`` has them: ``"--name=value"``.
    """
    unknown = [flag for flag in flags if _lookup(flag) is None]
    if len(unknown) > 1 and _starts(unknown):
        _remember(dict.fromkeys(unknown, True))
    return [flag for flag in flags if _ask(_starts, [flag], flag)]


def flags_set() -> dict[str, str]:
    """The flags that ``XLA_FLAGS`` has, by name with its dashes."""
    words = os.environ.get("XLA_FLAGS", "").split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def add_flags(flags: Iterable[str]) -> list[str]:
    """Put flags into ``XLA_FLAGS``: those that XLA knows and that are not set there. Call it before the first array.

    Returns:
        The flags that were added.
    """
    present, names = os.environ.get("XLA_FLAGS", ""), flags_set()
    added = taken_flags([flag for flag in flags if flag.partition("=")[0] not in names])
    if added:
        os.environ["XLA_FLAGS"] = " ".join([present, *added]).strip()
    return added


def jit(function: Callable[..., Any], options: Callable[[], Mapping[str, Any]], **arguments: Any) -> Callable[..., Any]:
    """``jax.jit`` with XLA's options, which jax allows to the outermost program alone: inside another it has none.

    Args:
        function: what to compile, of positional arguments.
        options: returns the options; called with the first call, when the device is known.
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

    # As jax.jit has them, to look inside.
    call.lower = lambda *args: outer().lower(*args)  # type: ignore[attr-defined]
    call._cache_size = lambda: outer()._cache_size()  # type: ignore[attr-defined]
    return call


def _ask(trial: Callable[[Any], bool | None], argument: Any, what: str) -> bool:
    answer = _lookup(what)
    if answer is None and (answer := trial(argument)) is not None:
        _remember({what: answer})
    return bool(answer)


def _compiles(option: dict[str, Any]) -> bool | None:
    """Whether a program compiles with an option; None if it does not, for another reason."""
    try:
        jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((), "float32")).compile(option)
    except jax.errors.JaxRuntimeError as error:
        return False if any(name in str(error) for name in option) else None
    return True


def _starts(flags: list[str]) -> bool | None:
    """Whether jax starts with flags; None if it does not, for another reason."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    done = subprocess.run([sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return True
    return False if any(flag in done.stderr for flag in flags) else None


def _lookup(what: str) -> bool | None:
    """The answer to an earlier trial, in this process or before."""
    if what not in _answers:
        _answers.update(_read() | _answers)
    return _answers.get(what)


def _remember(answers: Mapping[str, bool]) -> None:
    _answers.update(answers)
    if (file := _file()) is None:
        return
    with contextlib.suppress(InputError):  # of two that write at once, one asks again next time
        make_folder(file.parent)
        write_json(file, _stored() | {jaxlib_version(): _read() | _answers})


def _read() -> dict[str, bool]:
    """The answers on file that are the installed jaxlib's."""
    return _stored().get(jaxlib_version(), {})


def _stored() -> dict[str, dict[str, bool]]:
    """All of the file, the answers of each jaxlib; nothing if it does not exist or is damaged."""
    try:
        return read_json(file, dict[str, dict[str, bool]]) if (file := _file()) else {}
    except (FileNotFoundError, InputError):
        return {}


def _file() -> Path | None:
    folder = compilation_cache_dir()
    return Path(folder) / FILE_NAME if folder and "://" not in folder else None
