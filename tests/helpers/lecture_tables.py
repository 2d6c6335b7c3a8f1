"""Worked tables of the five lectures, and conversions between tables and image batches.

The tables hold the numbers of the lectures. Numbers that were lost or damaged in print are restored by computation, and
the test of the row names the erratum. Integers up to 2²⁴ are exact in float32, so tables are compared exactly.
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
    """Convert a plane ``(H, W)`` or an image ``(H, W, C)`` to a batch ``(1, H, W, C)``."""
    pixels = np.asarray(pixels, np.float32)
    return pixels[None, ..., None] if pixels.ndim == 2 else pixels[None]


def kernel(values):
    """Convert a table ``(kh, kw)`` to a kernel of one filter on one channel."""
    return np.asarray(values, np.float32)[:, :, None, None]


def plane(y):
    """Return the single channel of a single image."""
    assert y.shape[0] == y.shape[-1] == 1
    return np.asarray(y)[0, ..., 0]


def integers(rng, *shape):
    """Draw random integers as float32, whose sums of products are exact in any order."""
    return rng.integers(-9, 10, shape).astype(np.float32)


def compiled(op, *arrays, **options):
    """Call ``op(*arrays, **options)`` under jit, so that unrolled windows compile once."""
    return jax.jit(functools.partial(op, **options))(*arrays)


def parameters(rng, model, input_shape):
    """Draw random parameters of a model; compiling its init would take longer than these tests."""
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))
    return jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(p.dtype), params)


def as_integers(y, impl="lax"):
    """Check that y holds integers, up to rounding for the fft lowering, and return them."""
    np.testing.assert_allclose(y, np.round(y), rtol=0, atol=0.02 if impl == "fft" else 0)
    return np.round(y)
