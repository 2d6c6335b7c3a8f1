"""The gradients, derived by hand as the lectures derive them; no automatic differentiation anywhere in this folder.

Each function has the name of the op whose gradient it is. It takes what went into the op, and ``dy``: how much the
loss changes with each number that came out. It returns how much the loss changes with each array that went in.

    y = conv(x, kernel, bias)        dx, d_kernel, d_bias = backward.conv(x, kernel, dy)

===========================  ================================================================================
convolution, the kernel      correlation of the input with dy
convolution, the input       full convolution of dy with the kernel (its transpose: rotated by 180°)
bias                         sum of dy over examples and places
max pooling                  dy goes to the pixel that won
average pooling              dy is spread evenly over the window
L^p pooling                  dy is shared by how much each pixel had of the norm
dense                        xᵀ·dy, dy·kernelᵀ
relu, tanh, sigmoid          dy times the slope
softmax and cross-entropy    what was said minus what was true
===========================  ================================================================================

They are there to be read and to be compared with, so products have the highest precision on every device.

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
