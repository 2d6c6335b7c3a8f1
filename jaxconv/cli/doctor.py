"""``jaxconv doctor``: what this machine computes with, how it was set up, and whether it computes correctly."""

import dataclasses
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import ops, runtime
from jaxconv.ops.convolution.cpu import autotune
from jaxconv.utils.terminal import tell

# One for each way that convolutions are compiled: x, kernel, options.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one channel": ((4, 12, 12, 1), (3, 3, 1, 8), {}),
    "many": ((4, 12, 12, 16), (3, 3, 16, 32), {"padding": "SAME"}),
    "stride 2": ((4, 12, 12, 8), (3, 3, 8, 16), {"padding": 1, "stride": 2}),
    "dilation 2": ((4, 12, 12, 8), (3, 3, 8, 8), {"dilation": 2}),
    "depthwise": ((4, 12, 12, 16), (3, 3, 1, 16), {"padding": "SAME", "groups": 16}),
    "two groups": ((4, 12, 12, 16), (3, 3, 8, 16), {"groups": 2}),
}

CLOSE = 1e-5  # as a share of the largest number


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Tell what jaxconv runs on and how it was set up, and check its convolutions on this device."""


def examine(options: Doctor) -> int:
    """Print it all; the exit code is 1 where a convolution differs by more than rounding."""
    tuned = runtime.tuned()
    lines = {"device": runtime.device_name(), "versions": ", ".join(map(" ".join, runtime.versions().items()))}
    lines |= tuned._asdict() if tuned else {"set up": "no (--no-tune)"}
    lines |= runtime.compiler_report()
    emulated = " (emulated: --xla_cpu_max_isa)" if runtime.instruction_set_is_emulated() else ""
    lines |= {"vectors": f"{runtime.instruction_set()}{emulated}, table {autotune.file_in_use().stem}"}
    lines |= {"XLA_FLAGS": os.environ.get("XLA_FLAGS", ""), "programs": runtime.programs() or "not kept"}
    for name, value in lines.items():
        tell(f"{name:<10} {value}")
    bad = [name for name in SHAPES if not _correct(name)]
    tell(f"{'conv':<10} {'DIFFERS: ' + ', '.join(bad) if bad else 'is the sum over taps: ' + ', '.join(SHAPES)}")
    return int(bool(bad))


def _correct(name: str) -> bool:
    """Whether value and gradients of one shape are those of the sum over taps, but for rounding."""
    size, kernel_size, given = SHAPES[name]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=each), jnp.float32) for each in (size, kernel_size))

    def three(impl: str) -> list[jax.Array]:
        conv = partial(ops.conv, impl=impl, precision="highest", **given)
        y, vjp = jax.vjp(conv, x, kernel)
        return [y, *vjp(jnp.cos(y))]

    pairs = zip(jax.jit(three, static_argnums=0)("auto"), jax.jit(three, static_argnums=0)("explicit"), strict=True)
    return all(float(jnp.abs(got - want).max()) <= CLOSE * float(jnp.abs(want).max()) for got, want in pairs)
