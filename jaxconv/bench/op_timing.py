"""Time single ops: each pass of a convolution by each lowering, and max pools.

Each is compiled alone; all are timed in one process. The gradient of a convolution is timed as its linear transpose,
without the forward pass; that of a pool as its derivative at x, which computes the argmax again.
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

# Without toeplitz, whose matrix has an entry per position and kernel offset, and fft, whose rounding error is relative
# to the largest pixel: auto never selects them.
CONV_IMPLS = ("auto", "lax", "im2col", "explicit")
MIN_ROUND_SECONDS = 0.02  # of one op, so that the resolution of the clock does not matter
TIE_RATIO = 1.05  # within this ratio of the fastest counts as fastest


class Row(NamedTuple):
    """Times of one pass of one op by one implementation: median and extremes over rounds."""

    op: str
    direction: str  # "pass" in JSON, which is a keyword of Python
    impl: str
    batch: int
    shape: str
    median_ms: float
    min_ms: float
    max_ms: float
    gflops: float | None  # per second; None for a pool, which does not multiply

    def to_dict(self) -> dict[str, Any]:
        return {"pass" if name == "direction" else name: value for name, value in self._asdict().items()}


def measure(case: Case, *, rounds: int, progress: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Time the implementations of one pass in interleaved rounds, and return one row for each.

    Args:
        case: a case of :func:`jaxconv.bench.op_cases.cases`.
        rounds: number of rounds.
        progress: called with a description of each step.
    """
    rng = np.random.default_rng(0)
    functions = implementations(case)
    args = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in _argument_shapes(case)]
    options = runtime.compiler_options()
    calls = {impl: partial(jax.jit(function, compiler_options=options), *args) for impl, function in functions.items()}
    return rows(case, in_turns(calls, repeats=rounds, least=MIN_ROUND_SECONDS, progress=progress))


def rows(case: Case, timings: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return one row per implementation from its seconds over rounds."""
    table_rows = []
    for impl, seconds in timings.items():
        median = statistics.median(seconds)
        gflops = case.flops / median / 1e9 if isinstance(case, Conv) else None
        times = (median * 1e3, min(seconds) * 1e3, max(seconds) * 1e3, gflops)
        table_rows.append(Row(case.op, case.direction, impl, case.x[0], case.shape, *times))
    return table_rows


def implementations(case: Case) -> dict[str, Callable[..., jax.Array]]:
    """Return the functions to time by name; they take the arrays of :func:`_argument_shapes`."""
    if isinstance(case, Conv):
        return {impl: _conv(case, impl) for impl in CONV_IMPLS}
    pools: dict[str, Callable[..., jax.Array]] = {
        impl: partial(pool, window=case.window) for impl, pool in POOL_IMPLS.items()
    }
    return (
        pools if case.direction == "forward" else {impl: partial(_pool_gradient, pool) for impl, pool in pools.items()}
    )


def _conv(case: Conv, impl: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return one pass of the convolution: forward, or the transpose with respect to x or kernel."""
    window, output = case.window, PASS_OUTPUT[case.direction]
    options: dict[str, Any] = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    conv: Callable[..., jax.Array] = partial(ops.conv, **options, groups=case.form.groups, impl=impl)
    if output == "y":
        return conv

    def transpose(other: jax.Array, dy: jax.Array) -> jax.Array:
        of_x = output == "x"
        linear = partial(conv, kernel=other) if of_x else partial(conv, other)
        target = jax.ShapeDtypeStruct(case.x if of_x else case.kernel, dy.dtype)
        (gradient,) = jax.linear_transpose(linear, target)(dy)
        return gradient

    return transpose


def _max_pool(x: jax.Array, window: ResolvedWindow) -> jax.Array:
    size, stride, padding, dilation, _ = window
    return ops.max_pool(x, size, stride=stride, padding=padding, dilation=dilation)


def _reduce_window(x: jax.Array, window: ResolvedWindow) -> jax.Array:
    """Max pooling written directly with ``lax.reduce_window``."""
    size, stride, dilation = ((1, *values, 1) for values in (window.size, window.stride, window.dilation))
    padding = ((0, 0), *window.padding, (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, padding, window_dilation=dilation)


POOL_IMPLS = {"jaxconv": _max_pool, "reduce_window": _reduce_window}


def _pool_gradient(pool: Callable[[jax.Array], jax.Array], x: jax.Array, dy: jax.Array) -> jax.Array:
    return jax.vjp(pool, x)[1](dy)[0]


def _argument_shapes(case: Case) -> list[tuple[int, ...]]:
    """Return the shapes of the arguments of the timed functions."""
    y = (case.x[0], *case.window.out_size, case.features)
    if isinstance(case, Pool):
        return [case.x] if case.direction == "forward" else [case.x, y]
    shapes = {"x": case.x, "kernel": case.kernel, "y": y}
    return [shapes[name] for name in primitives.other_operands(PASS_OUTPUT[case.direction])]


def summary_lines(measured: Sequence[Sequence[Row]]) -> list[str]:
    """Return a line for each pass in which jaxconv's default is slower, and a line with the number of ties and wins.

    Args:
        measured: rows of each pass, jaxconv's default first.

    >>> pool = "4×4×1 → 2×2×1, 2×2, stride 2"
    >>> rows = [Row("max_pool", "dx", impl, 8, pool, ms, ms, ms, None) for impl, ms in
    ...         {"jaxconv": 3.0, "reduce_window": 2.0}.items()]
    >>> print(*summary_lines([rows, rows[:1]]), sep="\\n")
    max_pool dx, batch 8, 4×4×1 → 2×2×1, 2×2, stride 2: jaxconv is 1.50x slower than reduce_window
    jaxconv is fastest or within 5% of the fastest in 1 of 2 passes
    """
    lines, num_fastest = [], 0
    for default, *rest in measured:
        best = min(rest, key=lambda row: row.median_ms, default=default)
        ratio = default.median_ms / best.median_ms
        num_fastest += ratio <= TIE_RATIO
        if ratio > TIE_RATIO:
            label = f"{default.op} {default.direction}, batch {default.batch}, {default.shape}"
            lines.append(f"{label}: {default.impl} is {ratio:.2f}x slower than {best.impl}")
    within = f"within {TIE_RATIO - 1:.0%} of the fastest"
    return [*lines, f"jaxconv is fastest or {within} in {num_fastest} of {len(measured)} passes"]


def table(title: str, measured: Sequence[Sequence[Row]], peak_gflops: float | None = None) -> str:
    """Format one line per pass, with median, minimum and maximum milliseconds of each implementation.

    Args:
        title: title of the table.
        measured: rows of each pass, with the same implementations.
        peak_gflops: peak GFLOP/s of the machine; adds the first implementation's GFLOP/s and its fraction of the peak.
    """
    headings = [f"{row.impl} ms" for row in measured[0]]
    headings += [f"{measured[0][0].impl} GFLOP/s"] if peak_gflops else []
    output = new_table(title, "shape", "pass", numbers=headings)
    previous = None
    for rows_of_pass in measured:
        first = rows_of_pass[0]
        if previous not in (None, first.shape):
            output.add_section()
        cells = [
            f"{_format_ms(row.median_ms)} ({_format_ms(row.min_ms)}–{_format_ms(row.max_ms)})" for row in rows_of_pass
        ]
        if peak_gflops and (gflops := first.gflops):
            cells.append(f"{gflops:.1f} ({gflops / peak_gflops:.0%})")
        output.add_row(first.shape if first.shape != previous else "", first.direction, *cells)
        previous = first.shape
    return as_text(output)


def _format_ms(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
