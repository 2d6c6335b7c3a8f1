"""A function that is compiled once a run."""

import time
from collections.abc import Callable
from typing import Any

import jax

from jaxconv import runtime
from jaxconv._compat import type_text
from jaxconv.errors import InputError


class CompiledFunction:
    """A function compiled for the shapes of its first call. Another shape is an error, not a silent recompilation.

    Attributes:
        num_compilations: how often it was compiled: 0 or 1.
        compile_seconds: how long that took.
        ready_at: when that was done, by ``time.perf_counter``; None before.

    >>> double = CompiledFunction("double", lambda x: 2 * x)
    >>> double(jax.numpy.ones(3)), double.num_compilations
    (Array([2., 2., 2.], dtype=float32), 1)
    >>> double(jax.numpy.ones(4))
    Traceback (most recent call last):
    jaxconv.errors.InputError: double was compiled for float32[3] and now got float32[4]: a run compiles it once
    """

    def __init__(self, name: str, function: Callable[..., Any], **options: Any) -> None:
        """``options`` are those of ``jax.jit``."""
        self.name, self.num_compilations, self.compile_seconds = name, 0, 0.0
        self.ready_at: float | None = None
        self._jitted = jax.jit(function, **options)
        self._compiled: jax.stages.Compiled | None = None
        self._seen: list[str] = []

    def compile(self, *args: Any) -> None:
        """Compile for arguments like these, without running; nothing if it is compiled."""
        if self._compiled is None:
            started = time.perf_counter()
            self._compiled = self._jitted.lower(*args).compile(runtime.compiler_options())
            self.ready_at = time.perf_counter()
            self.compile_seconds = self.ready_at - started
            self.num_compilations += 1
            self._seen = _shapes(args)

    def __call__(self, *args: Any) -> Any:
        self.compile(*args)
        assert self._compiled is not None
        try:
            return self._compiled(*args)
        except (TypeError, ValueError) as error:
            now = _shapes(args)
            differing = [pair for pair in zip(self._seen, now, strict=False) if pair[0] != pair[1]]
            if not differing and len(now) == len(self._seen):
                raise
            before, after = differing[0] if differing else (f"{len(self._seen)} arrays", f"{len(now)}")
            raise InputError(
                f"{self.name} was compiled for {before} and now got {after}: a run compiles it once"
            ) from error


def _shapes(args: Any) -> list[str]:
    return [type_text(leaf) for leaf in jax.tree.leaves(args)]
