"""Two or more implementations of one function, side by side: values, gradients, rounding, time.

    from jaxconv.testing import compare
    print(compare(jnp.dot, my_dot, a, b))

:func:`compare` asks both functions for their value and the gradient by every argument, and tells how far apart they
are, beside how far apart rounding alone may put them. :func:`check_grads` asks one function whether its gradient
is the slope that its own values show. Where a function has a kink, two right answers may differ; such entries are
found and counted apart.
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
