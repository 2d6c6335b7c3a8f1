"""What to compare, ready made: for each op its implementations, and arguments of the shape asked for."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconv import ops
from jaxconv.errors import InputError, known
from jaxconv.ops import backward, checks
from jaxconv.ops.pool import counts
from jaxconv.ops.transpose import TRANSPOSE_LOWERINGS
from jaxconv.shapes import Padding, Sizes, Window, is_int, per_dimension, resolve

SPATIAL = frozenset({"conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool"})


class Contest(NamedTuple):
    """Implementations of one function, the reference first, and arguments for all of them."""

    functions: Mapping[str, Callable[..., jax.Array]]
    args: tuple[Any, ...]
    names: tuple[str, ...]


class Asked(NamedTuple):
    """What a contest is asked for; each op takes from it what it needs."""

    shape: tuple[int, ...]
    features: int
    kernel: Sizes
    stride: Sizes | None
    padding: Padding
    dilation: Sizes
    groups: int
    kinks: bool
    dtype: Any
    seed: int


def contest(
    op: str,
    shape: Sequence[int] = (8, 28, 28, 3),
    *,
    features: int = 16,
    kernel: Sizes = 3,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    groups: int = 1,
    kinks: bool = False,
    dtype: Any = jnp.float64,
    seed: int = 0,
) -> Contest:
    """The implementations of an op that this library knows, with random arguments, for ``compare_all(*contest(…))``.

    Args:
        op: a name in :data:`CONTESTS`.
        shape: of x, ``(N, *spatial, C)``; ``(N, values)`` for dense layers and losses.
        features: filters of a convolution, outputs of a dense layer.
        kernel: taps of the kernel, or of the pooling window.
        stride: by default 1 for convolutions, and the window for pooling.
        padding, dilation, groups: as the op takes them.
        kinks: round x to whole numbers, so that relu meets zeros and pools meet ties.
        dtype: of all arguments; float64 needs ``jax.enable_x64``.
        seed: of the arguments.

    Raises:
        InputError: an op that is not known, or a shape that it cannot take.

    >>> sorted(contest("relu", (2, 3), dtype=jnp.float32).functions)
    ['by hand', 'jax.nn', 'maximum', 'where']
    """
    known("op", op, CONTESTS)
    least, wanted = (3, "(N, *spatial, C)") if op in SPATIAL else (2, "(N, values)")
    if len(shape) < least or not all(is_int(n) and n >= 1 for n in shape):
        raise InputError(f"{op}: shape {tuple(shape)} should be {wanted}, every size at least 1")
    if seed < 0:
        raise InputError(f"{op}: seed {seed}: give at least 0")
    if features < 1:
        raise InputError(f"{op}: features {features}: give at least 1")
    asked = Asked(tuple(shape), features, kernel, stride, padding, dilation, groups, kinks, dtype, seed)
    return CONTESTS[op](asked)


def with_gradient(forward: Callable[..., jax.Array], gradient: Callable[..., Any]) -> Callable[..., jax.Array]:
    """A function whose gradient is the one given: ``gradient(*args, dy) -> (d_arg1, d_arg2, …)``.

    >>> doubled = with_gradient(lambda x: x * x, lambda x, dy: (4 * x * dy,))                 # twice too large
    >>> jax.grad(doubled)(3.0)
    Array(12., dtype=float32, weak_type=True)
    """
    function = jax.custom_vjp(forward)
    function.defvjp(lambda *args: (forward(*args), args), lambda args, dy: tuple(gradient(*args, dy)))
    return function


def _x(asked: Asked) -> jax.Array:
    x = np.random.default_rng(asked.seed).normal(size=asked.shape)
    return jnp.asarray(np.round(2 * x) if asked.kinks else x, asked.dtype)


def _kernel_and_bias(asked: Asked, shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(asked.seed + 1)
    return jnp.asarray(rng.normal(size=shape), asked.dtype), jnp.asarray(rng.normal(size=shape[-1]), asked.dtype)


def _convolution(
    asked: Asked,
    op: Callable[..., jax.Array],
    lowerings: Sequence[str],
    gradient: Callable[..., Any],
) -> Contest:
    channels = checks.per_group("compare", asked.shape, asked.groups)
    window = per_dimension(asked.kernel, len(asked.shape) - 2, "kernel")
    args = (_x(asked), *_kernel_and_bias(asked, (*window, channels, asked.features)))
    options = {
        "stride": 1 if asked.stride is None else asked.stride,
        "padding": asked.padding,
        "dilation": asked.dilation,
        "groups": asked.groups,
    }
    functions: dict[str, Callable[..., jax.Array]] = {
        impl: partial(op, impl=impl, precision="highest", **options) for impl in lowerings
    }

    def by_hand(x: jax.Array, kernel: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
        return gradient(x, kernel, dy, **options)

    functions["by hand"] = with_gradient(functions["explicit"], by_hand)
    return Contest(functions, args, ("x", "kernel", "bias"))


def _pooling(asked: Asked, op: str, ways: Mapping[str, Mapping[str, Any]], by_lax: Callable[..., jax.Array]) -> Contest:
    """The op in its ways, the same through ``lax.reduce_window``, and its gradient by hand."""
    options: dict[str, Any] = {"stride": asked.stride, "padding": asked.padding, "dilation": asked.dilation}
    pool = partial(getattr(ops, op), window=asked.kernel, **options)
    gradient = partial(getattr(backward, op), window=asked.kernel, **options)
    functions: dict[str, Callable[..., jax.Array]] = {name: partial(pool, **more) for name, more in ways.items()}
    if per_dimension(asked.dilation, len(asked.shape) - 2, "dilation") == (1,) * (len(asked.shape) - 2):
        # (jax 0.10 has no derivative of reduce_window with dilation.)
        functions["reduce_window"] = lambda x: by_lax(x, *_slide(asked))
    functions["by hand"] = with_gradient(pool, lambda x, dy: (gradient(x, dy),))
    return Contest(functions, (_x(asked),), ("x",))


def _slide(asked: Asked) -> tuple[partial[jax.Array], np.ndarray]:
    """What slides the pooling window in lax, and how many real pixels each window sees."""
    size = asked.shape[1:-1]
    window = resolve(Window.of_a_pool(asked.kernel, asked.stride, asked.padding, asked.dilation), size)
    slide = partial(
        lax.reduce_window,
        window_dimensions=(1, *window.size, 1),
        window_strides=(1, *window.stride, 1),
        padding=((0, 0), *window.padding, (0, 0)),
    )
    return slide, counts(window, size, include_pad=False)[None, ..., None]


def _lax_max_pool(x: jax.Array, slide: Callable[..., jax.Array], count: np.ndarray) -> jax.Array:
    return slide(x, np.array(-np.inf, x.dtype), lax.max)


def _lax_avg_pool(x: jax.Array, slide: Callable[..., jax.Array], count: np.ndarray) -> jax.Array:
    return slide(x, np.array(0, x.dtype), lax.add) / jnp.asarray(count, x.dtype)


def _lax_lp_pool(x: jax.Array, slide: Callable[..., jax.Array], count: np.ndarray) -> jax.Array:
    square = slide(x * x, np.array(0, x.dtype), lax.add)
    return jnp.where(square == 0, square, jnp.sqrt(jnp.where(square == 0, jnp.ones((), x.dtype), square)))


def _elementwise(
    asked: Asked, functions: Mapping[str, Callable[..., jax.Array]], gradient: Callable[..., Any]
) -> Contest:
    first = next(iter(functions.values()))
    by_hand = with_gradient(first, lambda x, dy: (gradient(x, dy),))
    return Contest({**functions, "by hand": by_hand}, (_x(asked),), ("x",))


def _dense(asked: Asked) -> Contest:
    kernel, bias = _kernel_and_bias(asked, (asked.shape[1], asked.features))
    functions: dict[str, Callable[..., jax.Array]] = {
        "matmul": partial(ops.dense, precision="highest"),
        "sum": lambda x, kernel, bias: (x[:, :, None] * kernel[None]).sum(axis=1) + bias[None],
        "by hand": with_gradient(
            partial(ops.dense, precision="highest"), lambda x, kernel, bias, dy: backward.dense(x, kernel, dy)
        ),
    }
    return Contest(functions, (_x(asked), kernel, bias), ("x", "kernel", "bias"))


def _loss(asked: Asked) -> Contest:
    label = jnp.asarray(np.random.default_rng(asked.seed + 1).integers(0, asked.shape[1], asked.shape[0]), jnp.int32)
    true = jax.nn.one_hot(label, asked.shape[1], dtype=asked.dtype)
    by_hand = with_gradient(
        lambda logits: ops.softmax_cross_entropy(logits, label),
        lambda logits, dy: (backward.softmax_cross_entropy(logits, label, dy),),
    )
    functions: dict[str, Callable[..., jax.Array]] = {
        "optax": lambda logits: ops.softmax_cross_entropy(logits, label),
        "-log softmax": lambda logits: -(true * jnp.log(jax.nn.softmax(logits))).sum(axis=1),
        "by hand": by_hand,
    }
    return Contest(functions, (_x(asked),), ("logits",))


CONTESTS: dict[str, Callable[[Asked], Contest]] = {
    "conv": lambda asked: _convolution(asked, ops.conv, list(ops.LOWERINGS), backward.conv),
    "conv_transpose": lambda asked: _convolution(
        asked, ops.conv_transpose, list(TRANSPOSE_LOWERINGS), backward.conv_transpose
    ),
    "max_pool": lambda asked: _pooling(asked, "max_pool", {"first": {}, "split": {"ties": "split"}}, _lax_max_pool),
    "avg_pool": lambda asked: _pooling(asked, "avg_pool", {"taps": {}}, _lax_avg_pool),
    "lp_pool": lambda asked: _pooling(asked, "lp_pool", {"taps": {}}, _lax_lp_pool),
    "relu": lambda asked: _elementwise(
        asked,
        {
            "jax.nn": ops.relu,
            "maximum": lambda x: jnp.maximum(x, jnp.zeros((), x.dtype)),
            "where": lambda x: jnp.where(x > 0, x, jnp.zeros((), x.dtype)),
        },
        backward.relu,
    ),
    "tanh": lambda asked: _elementwise(
        asked, {"jax.nn": ops.tanh, "exp": lambda x: 1 - 2 / (jnp.exp(2 * x) + 1)}, backward.tanh
    ),
    "sigmoid": lambda asked: _elementwise(
        asked, {"jax.nn": ops.sigmoid, "exp": lambda x: 1 / (1 + jnp.exp(-x))}, backward.sigmoid
    ),
    "dense": _dense,
    "softmax_cross_entropy": _loss,
}
