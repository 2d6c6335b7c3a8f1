"""The ground floor: pure functions of arrays. Arrays come first, every option is keyword-only, channels are last."""

from jaxconv.ops.activation import (
    elu,
    gelu,
    hard_tanh,
    leaky_relu,
    log_softmax,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from jaxconv.ops.conv import LOWERINGS, conv
from jaxconv.ops.dense import dense, dropout, flatten
from jaxconv.ops.loss import correct, softmax_cross_entropy
from jaxconv.ops.norm import batch_norm, batch_statistics
from jaxconv.ops.pool import avg_pool, global_avg_pool, global_max_pool, max_pool

__all__ = [
    "LOWERINGS",
    "avg_pool",
    "batch_norm",
    "batch_statistics",
    "conv",
    "correct",
    "dense",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "hard_tanh",
    "leaky_relu",
    "log_softmax",
    "max_pool",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "tanh",
]
