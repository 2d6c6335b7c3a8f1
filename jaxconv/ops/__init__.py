"""The ground floor: pure functions of arrays. Arrays come first, every option is keyword-only, channels are last."""

from jaxconv.ops import backward
from jaxconv.ops.activations import (
    celu,
    elu,
    gelu,
    glu,
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
from jaxconv.ops.batch_norm import batch_norm, batch_statistics
from jaxconv.ops.convolution.api import LOWERINGS, conv, conv_matrix
from jaxconv.ops.convolution.conversions import from_keras_transpose, from_lax_transpose
from jaxconv.ops.convolution.transposed import conv_transpose
from jaxconv.ops.global_pool import adaptive_avg_pool, adaptive_max_pool, global_avg_pool, global_max_pool
from jaxconv.ops.linear import dense, flatten
from jaxconv.ops.losses import correct, softmax_cross_entropy
from jaxconv.ops.normalization import group_norm, instance_norm, layer_norm, rms_norm
from jaxconv.ops.pooling import avg_pool, lp_pool, max_pool
from jaxconv.ops.response_norm import local_response_norm
from jaxconv.ops.stochastic import dropout, spatial_dropout

__all__ = [
    "LOWERINGS",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "backward",
    "batch_norm",
    "batch_statistics",
    "celu",
    "conv",
    "conv_matrix",
    "conv_transpose",
    "correct",
    "dense",
    "dropout",
    "elu",
    "flatten",
    "from_keras_transpose",
    "from_lax_transpose",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "glu",
    "group_norm",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "local_response_norm",
    "log_sigmoid",
    "log_softmax",
    "lp_pool",
    "max_pool",
    "mish",
    "relu",
    "relu6",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "soft_sign",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "spatial_dropout",
    "squareplus",
    "swish",
    "tanh",
]
