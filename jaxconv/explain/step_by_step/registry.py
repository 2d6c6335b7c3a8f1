"""The sum that gives one number of an op's output or gradient, written out term by term.

Each module explains one kind of op from its formula, without calling it: ``linear`` (convolution, dense, flatten),
``pooling``, ``normalization`` and ``activations`` (also softmax, the loss and dropout). To add an op, write a function
that returns its :class:`Arithmetic` and register it in ``EXPLAINERS``.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxconv import checks, ops
from jaxconv.errors import InputError, named_errors, unknown_name_error
from jaxconv.explain.step_by_step import activations, linear, normalization, pooling
from jaxconv.explain.step_by_step.terms import Arithmetic, Group, Number, Query, Term

__all__ = ["EXPLAINERS", "Arithmetic", "Group", "Number", "Term", "arithmetic"]

# By op: the explainer, and the arrays with respect to which it explains gradients.
EXPLAINERS: dict[str, tuple[Callable[..., Arithmetic], tuple[str, ...]]] = {
    "conv": (linear.conv, ("x", "kernel", "bias")),
    "conv_transpose": (linear.conv_transpose, ("x", "kernel", "bias")),
    "dense": (linear.dense, ("x", "kernel", "bias")),
    "flatten": (linear.flatten, ("x",)),
    "max_pool": (pooling.max_pool, ("x",)),
    "avg_pool": (pooling.avg_pool, ("x",)),
    "lp_pool": (pooling.lp_pool, ("x",)),
    "global_max_pool": (pooling.global_max_pool, ("x",)),
    "global_avg_pool": (pooling.global_avg_pool, ("x",)),
    "adaptive_max_pool": (pooling.adaptive_max_pool, ("x",)),
    "adaptive_avg_pool": (pooling.adaptive_avg_pool, ("x",)),
    "batch_norm": (normalization.batch_norm, ("x", "scale", "bias")),
    "layer_norm": (normalization.layer_norm, ("x", "scale", "bias")),
    "group_norm": (normalization.group_norm, ("x", "scale", "bias")),
    "instance_norm": (normalization.instance_norm, ("x", "scale", "bias")),
    "rms_norm": (normalization.rms_norm, ("x", "scale")),
    "local_response_norm": (normalization.local_response_norm, ("x",)),
    "relu": (activations.relu, ("x",)),
    "relu6": (activations.relu6, ("x",)),
    "leaky_relu": (activations.leaky_relu, ("x",)),
    "elu": (activations.elu, ("x",)),
    "celu": (activations.celu, ("x",)),
    "selu": (activations.selu, ("x",)),
    "hard_tanh": (activations.hard_tanh, ("x",)),
    "hard_sigmoid": (activations.hard_sigmoid, ("x",)),
    "hard_silu": (activations.hard_silu, ("x",)),
    "hard_swish": (activations.hard_silu, ("x",)),
    "soft_sign": (activations.soft_sign, ("x",)),
    "sigmoid": (activations.sigmoid, ("x",)),
    "log_sigmoid": (activations.log_sigmoid, ("x",)),
    "tanh": (activations.tanh, ("x",)),
    "softplus": (activations.softplus, ("x",)),
    "squareplus": (activations.squareplus, ("x",)),
    "silu": (activations.silu, ("x",)),
    "swish": (activations.silu, ("x",)),
    "mish": (activations.mish, ("x",)),
    "gelu": (activations.gelu, ("x",)),
    "glu": (activations.glu, ("x",)),
    "softmax": (activations.softmax, ("x",)),
    "log_softmax": (activations.log_softmax, ("x",)),
    "softmax_cross_entropy": (activations.softmax_cross_entropy, ("logits",)),
    "dropout": (activations.dropout, ("x",)),
    "spatial_dropout": (activations.dropout, ("x",)),
}
ARRAYS = ("x", "kernel", "bias", "scale", "mean", "var", "logits", "labels")
COMPUTE_OPTIONS = ("impl", "precision")  # options of the implementation, which do not change the sum


def arithmetic(
    op: str | Callable[..., Any],
    *arrays: Any,
    index: int | Sequence[int],
    wrt: str = "value",
    dy: Any = None,
    **options: Any,
) -> Arithmetic:
    """Write out the sum that gives one element of an op's output or of one of its gradients.

    Args:
        op: an op of :mod:`jaxconv.ops`, or its name.
        arrays, options: arguments of the op.
        index: index of the element, in the output or in the array of ``wrt``.
        wrt: ``"value"`` for the output, or the argument with respect to which the gradient is taken: ``"x"``,
            ``"kernel"``, ``"bias"``, …
        dy: gradient of the loss with respect to the output, of its shape; required unless ``wrt="value"``.

    Returns:
        An :class:`Arithmetic` with ``groups`` of ``terms`` and the ``total``; ``print`` shows it as text. Sums are
        computed in float64, so the total may differ from the op's result by rounding in the op's dtype.

    Raises:
        InputError: if the op or ``wrt`` is not supported, ``index`` is out of range, ``dy`` has another shape, or the
            op rejects its arguments.

    Lecture rows 001-05, 001-20 to 001-25, 002-07, 002-13, 004-06.

    >>> image = np.array([[1., 2., 3.], [4., 5., 6.], [7., 8., 9.]])[None, :, :, None]
    >>> kernel = np.array([[1., 0.], [0., -1.]])[:, :, None, None]
    >>> print(arithmetic("conv", image, kernel, np.array([10.]), index=(0, 0, 0, 0)))
    conv: y[0, 0, 0, 0]
      channel 0: 1·1 + 2·0 + 4·0 + 5·(-1) = -4
      total: -4 + 10 (bias) = 6
    >>> dy = np.array([[1., 0.], [0., 3.]])[None, :, :, None]
    >>> print(arithmetic("conv", image, kernel, wrt="kernel", index=(0, 1, 0, 0), dy=dy))
    conv: d_kernel[0, 1, 0, 0]
      example 0: 2·1 + 3·0 + 5·0 + 6·3 = 20
    >>> print(arithmetic("max_pool", image, 2, stride=1, wrt="x", index=(0, 2, 2, 0), dy=dy))
    max_pool: dx[0, 2, 2, 0]
      max(5, 6, 8, 9): dy[0,1,1,0] = 3 goes to x[0,2,2,0], the largest
      total: 3
    """
    name = _op_name(op)
    return named_errors(_explain, name=name)(name, arrays, index, wrt, dy, options)


def _explain(
    name: str, arrays: tuple[Any, ...], index: int | Sequence[int], wrt: str, dy: Any, options: dict[str, Any]
) -> Arithmetic:
    explain, gradients = EXPLAINERS[name]
    if wrt not in ("value", *gradients):
        raise unknown_name_error("wrt", wrt, ("value", *gradients))
    y = jax.eval_shape(functools.partial(getattr(ops, name), *arrays, **options))
    try:
        bound = inspect.signature(explain).bind(
            None, *arrays, **{key: value for key, value in options.items() if key not in COMPUTE_OPTIONS}
        )
    except TypeError as error:
        raise InputError(f"arithmetic does not support one of the arguments: {error}") from None
    for key, value in bound.arguments.items():
        if key in ARRAYS and value is not None:
            bound.arguments[key] = np.asarray(value, np.float64)
    array = y if wrt == "value" else bound.arguments.get(wrt)
    if array is None:
        raise InputError(f"wrt={wrt!r} requires the argument {wrt}, which is not given")
    bound.arguments["query"] = Query(name, wrt, _check_index(wrt, index, array.shape), _check_dy(wrt, dy, y.shape))
    return explain(*bound.args, **bound.kwargs)


def _op_name(op: str | Callable[..., Any]) -> str:
    name = op if isinstance(op, str) else next((name for name in EXPLAINERS if getattr(ops, name) is op), repr(op))
    checks.one_of("op", name, EXPLAINERS)
    return name


def _check_index(wrt: str, index: int | Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    indices = tuple(np.atleast_1d(np.asarray(index)).tolist())
    if len(indices) != len(shape) or not all(i in range(n) for i, n in zip(indices, shape, strict=True)):
        location = "the output" if wrt == "value" else wrt
        raise InputError(f"index must be an index of {location} of shape {shape}, got {index}")
    return tuple(map(int, indices))


def _check_dy(wrt: str, dy: Any, shape: tuple[int, ...]) -> np.ndarray:
    if wrt == "value":
        if dy is not None:
            raise InputError("dy requires a gradient: set wrt, such as wrt='x'")
        return np.zeros(0)
    if dy is None:
        raise InputError(f"wrt={wrt!r} requires dy, the gradient of the output, of shape {shape}")
    if np.shape(dy) != shape:
        raise InputError(f"dy must have the shape of the output, {shape}, got {np.shape(dy)}")
    return np.asarray(dy, np.float64)
