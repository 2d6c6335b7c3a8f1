"""Gradients derived by hand, as in the lectures; this package uses no automatic differentiation.

Each function has the name of its op. It takes the inputs of the op and ``dy``, the gradient of the loss with respect to
the output, and returns the gradients of the loss with respect to the inputs (a vector-Jacobian product).

    y = conv(x, kernel, bias)        dx, d_kernel, d_bias = backward.conv(x, kernel, dy)

===========================  ================================================================================
convolution, the kernel      correlation of the input with dy
convolution, the input       full convolution of dy with the kernel (its transpose: rotated by 180°)
bias                         sum of dy over examples and positions
max pooling                  dy goes to the maximum of the window
average pooling              dy is distributed evenly over the window
L^p pooling                  dy times the derivative of the norm, sign(x)·(|x| / y)^(p − 1)
dense                        xᵀ·dy, dy·kernelᵀ
relu, tanh, sigmoid          dy times the slope
softmax and cross-entropy    predicted minus true probabilities
===========================  ================================================================================

The functions are a readable reference, so matrix products use the highest precision on every device.

Lecture rows 001-20 to 001-25.
"""

from jaxconv.ops.backward.convolution import bias, conv, conv_transpose
from jaxconv.ops.backward.linear import dense, flatten, relu, sigmoid, softmax_cross_entropy, tanh
from jaxconv.ops.backward.pooling import avg_pool, global_avg_pool, lp_pool, max_pool

__all__ = [
    "avg_pool",
    "bias",
    "conv",
    "conv_transpose",
    "dense",
    "flatten",
    "global_avg_pool",
    "lp_pool",
    "max_pool",
    "relu",
    "sigmoid",
    "softmax_cross_entropy",
    "tanh",
]
