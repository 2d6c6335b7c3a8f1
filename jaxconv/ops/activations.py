"""Activations: the functions of jax.nn, re-exported, with their derivatives at the kinks.

=============  ===============================  ==============================================================
function       value                            derivative at the kink
=============  ===============================  ==============================================================
relu           max(x, 0)                        0 at 0 (``jnp.maximum(x, 0)`` would give ½)
relu6          min(max(x, 0), 6)                0 at 0 and at 6
leaky_relu     x if x ≥ 0 else 0.01·x           1 at 0
elu            x if x > 0 else exp(x) − 1       1 at 0 (no kink; with an alpha it is alpha)
celu           α·elu(x / α), α = 1              1 at 0 (no kink, for any α)
selu           1.0507·elu(x, alpha=1.6733)      1.7581 at 0, the slope to the left; to the right it is 1.0507
hard_tanh      min(max(x, −1), 1)               1 at −1 and at 1
hard_sigmoid   relu6(x + 3) / 6                 0 at −3 and at 3
hard_silu      x · hard_sigmoid(x)              0 at −3 and 1 at 3, as beyond them; ``hard_swish`` is an alias
soft_sign      x / (|x| + 1)                    1 at 0 (no kink)
sigmoid        1 / (1 + exp(−x))                smooth: σ·(1 − σ), at most ¼
log_sigmoid    −log(1 + exp(−x))                smooth: σ(−x), ½ at 0
tanh           tanh(x)                          smooth: 1 − tanh²
softplus       log(1 + exp(x))                  smooth: σ(x), ½ at 0
squareplus     (x + √(x² + b)) / 2, b = 4       smooth: ½ at 0, but NaN if b = 0
silu           x · sigmoid(x)                   smooth: ½ at 0; ``swish`` is an alias
mish           x · tanh(softplus(x))            smooth: 0.6 at 0
gelu           x · Φ(x), tanh approximation     smooth: ½ at 0
glu            x_a · sigmoid(x_b)               smooth; x_a and x_b are the two halves of the channels
softmax        exp(xᵢ) / Σⱼ exp(xⱼ)             smooth
log_softmax    xᵢ − log Σⱼ exp(xⱼ)              smooth
=============  ===============================  ==============================================================

Lecture rows 000-13, 004-09.

>>> [float(jax.grad(f)(0.0)) for f in (relu, leaky_relu, sigmoid, tanh)]
[0.0, 1.0, 0.25, 1.0]
>>> [float(jax.grad(hard_silu)(x)) for x in (-3.0, 3.0)], round(float(jax.grad(selu)(0.0)), 4)
([0.0, 1.0], 1.7581)
"""

import jax
from jax.nn import (
    celu,
    elu,
    gelu,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    squareplus,
    swish,
    tanh,
)
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_sign",
    "softmax",
    "softplus",
    "squareplus",
    "swish",
    "tanh",
]


@named_errors
def glu(x: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*half"]:
    """Gated linear unit (``jax.nn.glu``): ``y = x_a · sigmoid(x_b)`` for the two halves x_a, x_b of an axis.

    Raises:
        InputError: if the axis does not exist or its size is odd.

    >>> glu(jax.numpy.array([3., 0.]))
    Array([1.5], dtype=float32)
    """
    x = checks.as_array(x=x)
    if axis not in range(-x.ndim, x.ndim) or x.shape[axis] % 2:
        raise InputError(f"x {x.shape} must have an even size along axis {axis}")
    return jax.nn.glu(x, axis)
