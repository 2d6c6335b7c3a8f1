"""Functions that are compiled once per run."""

import time
from collections.abc import Callable
from typing import Any

import jax

from jaxconv import runtime
from jaxconv._compat import type_text
from jaxconv.errors import InputError


class CompiledFunction:
    """Function compiled for the shapes of its first call; other shapes raise InputError instead of recompiling.

    Attributes:
        num_compilations: number of compilations so far: 0 or 1.
        compile_seconds: time of the compilation.
        ready_at: end of the compilation, by ``time.perf_counter``; None before it.

    >>> double = CompiledFunction("double", lambda x: 2 * x)
    >>> double(jax.numpy.ones(3)), double.num_compilations
    (Array([2., 2., 2.], dtype=float32), 1)
    >>> double(jax.numpy.ones(4))
    Traceback (most recent call last):
    jaxconv.errors.InputError: double was compiled for float32[3] and now got float32[4]: a run compiles it once
    """

    def __init__(self, name: str, function: Callable[..., Any], **options: Any) -> None:
        """Take the name for error messages, the function, and the options of ``jax.jit``."""
        self.name, self.num_compilations, self.compile_seconds = name, 0, 0.0
        self.ready_at: float | None = None
        self._jitted = jax.jit(function, **options)
        self._compiled: jax.stages.Compiled | None = None
        self._arg_types: list[str] = []

    def compile(self, *args: Any) -> None:
        """Compile for the shapes and dtypes of these arguments without running; do nothing if already compiled."""
        if self._compiled is None:
            start_time = time.perf_counter()
            self._compiled = self._jitted.lower(*args).compile(runtime.compiler_options())
            self.ready_at = time.perf_counter()
            self.compile_seconds = self.ready_at - start_time
            self.num_compilations += 1
            self._arg_types = _types(args)

    def __call__(self, *args: Any) -> Any:
        self.compile(*args)
        assert self._compiled is not None
        try:
            return self._compiled(*args)
        except (TypeError, ValueError) as error:
            actual_types = _types(args)
            differences = [
                (compiled, actual)
                for compiled, actual in zip(self._arg_types, actual_types, strict=False)
                if compiled != actual
            ]
            if not differences and len(actual_types) == len(self._arg_types):
                raise
            compiled, actual = (
                differences[0] if differences else (f"{len(self._arg_types)} arrays", f"{len(actual_types)}")
            )
            raise InputError(
                f"{self.name} was compiled for {compiled} and now got {actual}: a run compiles it once"
            ) from error


def _types(args: Any) -> list[str]:
    return [type_text(leaf) for leaf in jax.tree.leaves(args)]
