"""Comparison of implementations of one function: values, gradients, rounding errors and times.

    from jaxconv.testing import compare
    print(compare(jnp.dot, my_dot, a, b))

:func:`compare` reports the differences between the values and gradients of two functions, with a bound on the
differences that rounding explains. :func:`check_grads` compares the gradient of one function with finite differences
of its values. At a kink, several gradients are valid; such entries are detected and counted separately.
"""

from jaxconv.testing.cases.base import OpCase, with_custom_gradient
from jaxconv.testing.cases.registry import OP_CASES, make_op_case
from jaxconv.testing.comparison import Comparison, compare, compare_all
from jaxconv.testing.gradient_check import GradientCheck, check_grads
from jaxconv.testing.rounding_error import rounding_error_bound

__all__ = [
    "OP_CASES",
    "Comparison",
    "GradientCheck",
    "OpCase",
    "check_grads",
    "compare",
    "compare_all",
    "make_op_case",
    "rounding_error_bound",
    "with_custom_gradient",
]
