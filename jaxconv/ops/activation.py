"""Activations: jax.nn's own, re-exported, with what each does at its kinks.

=============  ===============================  ==============================================================
function       value                            derivative at the kink
=============  ===============================  ==============================================================
relu           max(x, 0)                        0 at 0 (``jnp.maximum(x, 0)`` would give ½)
relu6          min(max(x, 0), 6)                0 at 0 and at 6
leaky_relu     x if x ≥ 0 else 0.01·x           1 at 0
elu            x if x > 0 else exp(x) − 1       1 at 0 (no kink)
hard_tanh      min(max(x, −1), 1)               1 at −1 and at 1
sigmoid        1 / (1 + exp(−x))                smooth: σ·(1 − σ), at most ¼
tanh           tanh(x)                          smooth: 1 − tanh²
softplus       log(1 + exp(x))                  smooth
silu           x · sigmoid(x)                   smooth
gelu           x · Φ(x), tanh approximation     smooth
softmax        exp(xᵢ) / Σⱼ exp(xⱼ)             smooth
log_softmax    xᵢ − log Σⱼ exp(xⱼ)              smooth
=============  ===============================  ==============================================================

Lecture rows 000-13, 004-09.

>>> import jax
>>> [float(jax.grad(f)(0.0)) for f in (relu, leaky_relu, sigmoid, tanh)]
[0.0, 1.0, 0.25, 1.0]
"""

from jax.nn import elu, gelu, hard_tanh, leaky_relu, log_softmax, relu, relu6, sigmoid, silu, softmax, softplus, tanh

__all__ = [
    "elu",
    "gelu",
    "hard_tanh",
    "leaky_relu",
    "log_softmax",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
