"""What the five lectures' tests share: their worked tables, and the way from a table to an image and back.

The tables are the lectures' own numbers, with what was lost or damaged in print restored by computation; every row's
test names the mistake it corrects. Integers up to 2²⁴ are exact in float32, so tables are compared exactly.
"""

import functools
import json
from pathlib import Path

import jax
import numpy as np

TABLES = json.loads((Path(__file__).parents[1] / "lectures" / "worked_tables.json").read_text())


def table(name):
    return np.array(TABLES[name])


def image(pixels):
    """A plane ``(H, W)``, or an image ``(H, W, C)``, as the batch ``(1, H, W, C)`` that ops take."""
    pixels = np.asarray(pixels, np.float32)
    return pixels[None, ..., None] if pixels.ndim == 2 else pixels[None]


def kernel(taps):
    """Taps ``(kh, kw)`` as the kernel of one filter on one channel."""
    return np.asarray(taps, np.float32)[:, :, None, None]


def plane(y):
    """The only channel of the only image."""
    assert y.shape[0] == y.shape[-1] == 1
    return np.asarray(y)[0, ..., 0]


def integers(rng, *shape):
    """Random whole numbers as float32: sums of their products are exact in any order."""
    return rng.integers(-9, 10, shape).astype(np.float32)


def compiled(op, *arrays, **options):
    """``op(*arrays, **options)`` as one program: what unrolls its window is compiled once and not slice by slice."""
    return jax.jit(functools.partial(op, **options))(*arrays)


def parameters(rng, model, input_shape):
    """Random parameters of a model; its own init takes longer to compile than these tests do."""
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))
    return jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(p.dtype), params)


def whole(y, impl="lax"):
    """The whole numbers that y consists of: exactly, but for the lowering that goes by way of complex numbers."""
    np.testing.assert_allclose(y, np.round(y), rtol=0, atol=0.02 if impl == "fft" else 0)
    return np.round(y)
