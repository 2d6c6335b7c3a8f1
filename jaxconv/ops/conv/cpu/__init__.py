"""The three passes on a CPU, each by the lowering that was fastest for its kind of convolution.

There are three of them, and :mod:`rule` has the table:

- :mod:`library`, forward convolutions that XLA hands to a library, Eigen;
- :mod:`taps`, multiplications, one tap for all pixels at once, which XLA makes one loop of;
- :mod:`products`, matrix products, which have a library in every dtype.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxconv.ops import checks
from jaxconv.ops.conv.cpu import full, library, products, rule, taps
from jaxconv.ops.conv.passes import FACTORS, Form, Lowering, others, shape_of


def lowerings(conv: full.Conv, kernel_gradient: Lowering) -> dict[str, Lowering]:
    """The passes by what each lowering has of its own."""

    def forward(x: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
        return conv(x, kernel, form.window, groups=form.groups, precision=form.precision)

    return {"y": forward, "kernel": kernel_gradient, "x": partial(full.input_gradient, conv)}


LOWERINGS = {
    "library": lowerings(library.conv, library.kernel_gradient),
    "taps": lowerings(taps.conv, taps.kernel_gradient),
    "products": lowerings(products.conv, products.kernel_gradient),
}


def _fastest(wanted: str, first: jax.Array, second: jax.Array, form: Form) -> jax.Array:
    first, second = checks.widened(first), checks.widened(second)
    shapes = dict(zip(others(wanted), (first.shape, second.shape), strict=True))
    *_, c, features = shapes.get("kernel") or shape_of("kernel", first.shape, second.shape, form)
    lowering = rule.choice(wanted, rule.case(c, features // form.groups, form.groups))
    if first.dtype != jnp.float32:  # of which XLA compiles convolutions as plain loops, and taps are not measured
        lowering = "products"
    return LOWERINGS[lowering][wanted](first, second, form)


PASSES: dict[str, Lowering] = {wanted: partial(_fastest, wanted) for wanted in FACTORS}
