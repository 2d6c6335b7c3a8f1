"""How long single ops take: each pass of a convolution by each of its lowerings, and max pools, alone.

All are functions of one program each, in one process. A gradient is timed as the linear map that it is, without the
forward pass: of a convolution its transpose; of a pool its derivative at x, which has to find the winners again.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconv import ops, runtime
from jaxconv.bench.op_cases import PASS_OUTPUT, Case, Conv, Pool
from jaxconv.ops.convolution import primitives
from jaxconv.shapes import ResolvedWindow
from jaxconv.utils.tables import as_text, new_table
from jaxconv.utils.timing import in_turns

# Neither toeplitz, which is for seeing, with a matrix that has an entry for each place and tap, nor fft, whose rounding
# is relative to the largest pixel: auto is none of them wherever it is.
CONV_IMPLS = ("auto", "lax", "im2col", "explicit")
TURN = 0.02  # seconds at least, so that the clock does not matter to a small op
NEAR = 1.05  # nearer to the fastest is as fast


class Row(NamedTuple):
    """One op, one pass of it, one way to compute it; times are medians and extremes over rounds."""

    op: str
    direction: str  # "pass" in JSON, which Python has as a word of its own
    impl: str
    batch: int
    shape: str
    median_ms: float
    min_ms: float
    max_ms: float
    gflops: float | None  # a second; a pool multiplies nothing

    def to_dict(self) -> dict[str, Any]:
        return {"pass" if name == "direction" else name: value for name, value in self._asdict().items()}


def measure(case: Case, *, rounds: int, progress: Callable[[str], None] = lambda what: None) -> list[Row]:
    """The rows of one pass: its ways of computing take turns.

    Args:
        case: of :func:`jaxconv.bench.op_cases.cases`.
        rounds: how many turns each has.
        progress: told what is going on.
    """
    rng = np.random.default_rng(0)
    functions = implementations(case)
    given = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in _given(case)]
    options = runtime.compiler_options()
    runs = {impl: partial(jax.jit(each, compiler_options=options), *given) for impl, each in functions.items()}
    return rows(case, in_turns(runs, repeats=rounds, least=TURN, progress=progress))


def rows(case: Case, measured: Mapping[str, Sequence[float]]) -> list[Row]:
    """What was measured, seconds by implementation, as rows."""
    made = []
    for impl, seconds in measured.items():
        median = statistics.median(seconds)
        gflops = case.flops / median / 1e9 if isinstance(case, Conv) else None
        numbers = (median * 1e3, min(seconds) * 1e3, max(seconds) * 1e3, gflops)
        made.append(Row(case.op, case.direction, impl, case.x[0], case.shape, *numbers))
    return made


def implementations(case: Case) -> dict[str, Callable[..., jax.Array]]:
    """What is timed, by implementation: functions of two factors of a convolution, of x for a pool, or of x and dy."""
    if isinstance(case, Conv):
        return {impl: _conv(case, impl) for impl in CONV_IMPLS}
    pools: dict[str, Callable[..., jax.Array]] = {
        impl: partial(pool, window=case.window) for impl, pool in POOL_IMPLS.items()
    }
    return pools if case.direction == "forward" else {impl: partial(_back, pool) for impl, pool in pools.items()}


def _conv(case: Conv, impl: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    window, wanted = case.window, PASS_OUTPUT[case.direction]
    options: dict[str, Any] = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    conv: Callable[..., jax.Array] = partial(ops.conv, **options, groups=case.form.groups, impl=impl)
    if wanted == "y":
        return conv

    def gradient(other: jax.Array, dy: jax.Array) -> jax.Array:
        by_x = wanted == "x"
        linear = partial(conv, kernel=other) if by_x else partial(conv, other)
        like = jax.ShapeDtypeStruct(case.x if by_x else case.kernel, dy.dtype)
        (found,) = jax.linear_transpose(linear, like)(dy)
        return found

    return gradient


def _max_pool(x: jax.Array, window: ResolvedWindow) -> jax.Array:
    size, stride, padding, dilation, _ = window
    return ops.max_pool(x, size, stride=stride, padding=padding, dilation=dilation)


def _reduce_window(x: jax.Array, window: ResolvedWindow) -> jax.Array:
    """The same, as one who has lax alone would write it."""
    size, stride, dilation = ((1, *each, 1) for each in (window.size, window.stride, window.dilation))
    padding = ((0, 0), *window.padding, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, padding, window_dilation=dilation)


POOL_IMPLS = {"jaxconv": _max_pool, "reduce_window": _reduce_window}


def _back(pool: Callable[[jax.Array], jax.Array], x: jax.Array, dy: jax.Array) -> jax.Array:
    return jax.vjp(pool, x)[1](dy)[0]


def _given(case: Case) -> list[tuple[int, ...]]:
    """The shapes of what the functions take."""
    y = (case.x[0], *case.window.out_size, case.features)
    if isinstance(case, Pool):
        return [case.x] if case.direction == "forward" else [case.x, y]
    shapes = {"x": case.x, "kernel": case.kernel, "y": y}
    return [shapes[name] for name in primitives.other_operands(PASS_OUTPUT[case.direction])]


def summary_lines(measured: Sequence[Sequence[Row]]) -> list[str]:
    """In sentences, where jaxconv's own choice is not the fastest, and how often it is.

    Args:
        measured: the rows of each pass, jaxconv's own first.

    >>> pool = "4×4×1 → 2×2×1, 2×2, stride 2"
    >>> rows = [Row("max_pool", "dx", impl, 8, pool, ms, ms, ms, None) for impl, ms in
    ...         {"jaxconv": 3.0, "reduce_window": 2.0}.items()]
    >>> print(*summary_lines([rows, rows[:1]]), sep="\\n")
    max_pool dx, batch 8, 4×4×1 → 2×2×1, 2×2, stride 2: slower, jaxconv takes 1.50 times as long as reduce_window
    jaxconv is the fastest, or within 5 % of it, in 1 of 2 passes
    """
    said, near = [], 0
    for ours, *others in measured:
        best = min(others, key=lambda row: row.median_ms, default=ours)
        ratio = ours.median_ms / best.median_ms
        near += ratio <= NEAR
        if ratio > NEAR:
            which = f"{ours.op} {ours.direction}, batch {ours.batch}, {ours.shape}"
            said.append(f"{which}: slower, {ours.impl} takes {ratio:.2f} times as long as {best.impl}")
    within = f"within {NEAR - 1:.0%} of it".replace("%", " %")
    return [*said, f"jaxconv is the fastest, or {within}, in {near} of {len(measured)} passes"]


def table(title: str, measured: Sequence[Sequence[Row]], ceiling: float | None = None) -> str:
    """A line for each pass, with the median, least and most milliseconds of each implementation.

    Args:
        title: above it.
        measured: the rows of each pass, all of the same implementations.
        ceiling: GFLOP/s of the machine, of which those of the first implementation are a share.
    """
    headings = [f"{row.impl} ms" for row in measured[0]]
    headings += [f"{measured[0][0].impl} GFLOP/s"] if ceiling else []
    made = new_table(title, "shape", "pass", numbers=headings)
    last = None
    for each in measured:
        if last not in (None, each[0].shape):
            made.add_section()
        cells = [f"{_short(row.median_ms)} ({_short(row.min_ms)}–{_short(row.max_ms)})" for row in each]
        if ceiling and (gflops := each[0].gflops):
            cells.append(f"{gflops:.1f} ({gflops / ceiling:.0%})")
        made.add_row(each[0].shape if each[0].shape != last else "", each[0].direction, *cells)
        last = each[0].shape
    return as_text(made)


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
