"""The sum behind any one number of a network, as a lecture writes it on the board.

Every file explains one kind of op, from its formula and not by calling it: ``sums`` (convolution, dense), ``pools``,
``norms``, ``activations``, ``softmax`` (and the loss) and ``dropout``. To explain another op, write the function that
says where its numbers come from and add a line to ``EXPLAINED``.
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

# Each op: who explains it, and besides its value which arrays' gradients.
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
ARRAYS = ("x", "kernel", "bias", "scale", "mean", "var", "logits", "label")
HOW = ("impl", "precision")  # options that say how to compute a sum, and do not change it


def arithmetic(
    op: str | Callable[..., Any],
    *arrays: Any,
    index: int | Sequence[int],
    wrt: str = "value",
    dy: Any = None,
    **options: Any,
) -> Arithmetic:
    """The sum behind one number of an op's output, or of one of its gradients. Print it.

    Args:
        op: an op, or its name.
        arrays, options: exactly as the op takes them.
        index: the index of the one number: in the output, or in the array whose gradient is asked for.
        wrt: ``"value"``, or the argument whose gradient it is: ``"x"``, ``"kernel"``, ``"bias"``, …
        dy: for a gradient, how much the loss changes with each number of the output; of the output's shape.

    Returns:
        An :class:`Arithmetic`: its ``groups`` of ``terms``, its ``total``, and all of it in writing. Everything is
        added up in float64, so the total may differ from the op's in the last digits of the op's dtype.

    Raises:
        InputError: an op or an ``wrt`` without explanation, an ``index`` outside its array, a dy of another shape, and
            whatever the op itself would refuse.

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
    name = _name(op)
    return named_errors(_explained, name=name)(name, arrays, index, wrt, dy, options)


def _explained(
    name: str, arrays: tuple[Any, ...], at: int | Sequence[int], of: str, dy: Any, options: dict[str, Any]
) -> Arithmetic:
    explain, gradients = EXPLAINERS[name]
    if of not in ("value", *gradients):
        raise unknown_name_error("of", of, ("value", *gradients))
    y = jax.eval_shape(functools.partial(getattr(ops, name), *arrays, **options))
    try:
        given = inspect.signature(explain).bind(
            None, *arrays, **{key: value for key, value in options.items() if key not in HOW}
        )
    except TypeError as error:
        raise InputError(f"arithmetic has no words for one of its arguments, {error}; leave it out") from None
    for key, value in given.arguments.items():
        if key in ARRAYS and value is not None:
            given.arguments[key] = np.asarray(value, np.float64)
    array = y if of == "value" else given.arguments.get(of)
    if array is None:
        raise InputError(f"there is no {of} to take the gradient of; give one")
    given.arguments["asked"] = Query(name, of, _index(of, at, array.shape), _gradient(of, dy, y.shape))
    return explain(*given.args, **given.kwargs)


def _name(op: str | Callable[..., Any]) -> str:
    name = op if isinstance(op, str) else next((name for name in EXPLAINERS if getattr(ops, name) is op), repr(op))
    checks.one_of("op", name, EXPLAINERS)
    return name


def _index(of: str, at: int | Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    index = tuple(np.atleast_1d(np.asarray(at)).tolist())
    if len(index) != len(shape) or not all(i in range(n) for i, n in zip(index, shape, strict=True)):
        where = "the output" if of == "value" else of
        raise InputError(f"at={at} is no index of {where}, whose shape is {shape}")
    return tuple(map(int, index))


def _gradient(of: str, dy: Any, shape: tuple[int, ...]) -> np.ndarray:
    if of == "value":
        if dy is not None:
            raise InputError("dy is for a gradient; say which, of='x'")
        return np.zeros(0)
    if dy is None:
        raise InputError(f"of={of!r} needs dy, the gradient of the output, of shape {shape}")
    if np.shape(dy) != shape:
        raise InputError(f"dy {np.shape(dy)} should be {shape}, the shape of the op's output")
    return np.asarray(dy, np.float64)
