"""Compare implementations of a function on the same arguments: differences, rounding bounds and times."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks, runtime
from jaxconv.errors import DtypeError, InputError, named_errors
from jaxconv.testing.arguments import argument_names, floating_leaves, of_leaves
from jaxconv.testing.gradient_check import FiniteDifferences
from jaxconv.testing.rounding_error import rounding_error_bound, unit_roundoff
from jaxconv.utils.tables import as_text, new_table
from jaxconv.utils.timing import medians

MAX_KINK_CANDIDATES = 4096  # entries with the largest differences; each costs 1 + 2·len(STEPS) = 31 evaluations


class ComparisonRow(NamedTuple):
    """Differences of one array (the value, or one gradient) of one implementation from the reference.

    Attributes:
        quantity: ``"value"``, ``"d kernel"``, …
        implementation: name of the implementation.
        max_abs_error: largest absolute difference of an entry, without entries at kinks.
        max_rel_error: ``max_abs_error / max_abs_value``.
        ulps: ``max_abs_error`` in units in the last place of ``max_abs_value``.
        tolerance: bound on the absolute difference from rounding (:func:`jaxconv.testing.rounding_error_bound`).
        max_abs_value: largest absolute entry of the reference.
        kinks: number of entries that differ because the function has a kink there.
    """

    quantity: str
    implementation: str
    max_abs_error: float
    max_rel_error: float
    ulps: float
    tolerance: float
    max_abs_value: float
    kinks: int

    @property
    def ok(self) -> bool:
        return self.max_abs_error <= self.tolerance


class Timing(NamedTuple):
    """Median seconds of compiled calls: the value alone, and the value with all gradients."""

    forward: float
    forward_backward: float


class Comparison(NamedTuple):
    """Result of :func:`compare`: ``print`` shows tables, ``.ok`` the verdict, ``.as_dict()`` the content for JSON."""

    reference: str
    dtype: str
    device: str
    rows: tuple[ComparisonRow, ...]
    seconds: dict[str, Timing]

    @property
    def ok(self) -> bool:
        """True if rounding explains every difference outside kinks."""
        return all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        # An error is infinite where a NaN differs from a number; JSON has no infinity.
        rows = [
            {name: value if value != math.inf else None for name, value in row._asdict().items()} | {"ok": row.ok}
            for row in self.rows
        ]
        seconds = {name: timing._asdict() for name, timing in self.seconds.items()}
        return self._asdict() | {"ok": self.ok, "rows": rows, "seconds": seconds}

    def __str__(self) -> str:
        return comparison_table(self)


def compare(f: Callable[..., Any], g: Callable[..., Any], *args: Any, repeats: int = 0) -> Comparison:
    """Compare the values of two implementations, and their gradients by every floating argument.

    Args:
        f: the reference.
        g: the other implementation.
        args: arrays, or pytrees of arrays, for both. Gradients are by the floating arrays (and Python floats); all
            other leaves are passed on unchanged. In float32 and half precision the reference is f in float64; in
            float64 it is f itself. Arrays of several dtypes are first rounded to the least precise one.
        repeats: number of timings of each function; 0 skips timing.

    Raises:
        InputError: as :func:`compare_all`.

    >>> x = jnp.array([1.0, -2.0, 0.0])
    >>> comparison = compare(jax.nn.relu, lambda x: jnp.maximum(x, 0), x)
    >>> [(row.quantity, row.ok, row.kinks) for row in comparison.rows if row.implementation == "<lambda>"]
    [('value', True, 0), ('d x', True, 1)]
    """
    names = [getattr(function, "__name__", f"function {i}") for i, function in enumerate((f, g), start=1)]
    if names[0] == names[1]:
        names = ["f", "g"]
    return compare_all(dict(zip(names, (f, g), strict=True)), *args, num_repeats=repeats)


@named_errors(name="compare")
def compare_all(
    implementations: Mapping[str, Callable[..., Any]],
    *args: Any,
    names: Sequence[str] | None = None,
    num_repeats: int = 0,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare any number of implementations with the first one, the reference.

    Gradients are those of ``Σ dy · f(*args)`` with one random dy for all implementations.

    Args:
        implementations: functions by name; each takes the args and returns one array.
        args: as in :func:`compare`.
        names: names of the arguments in the table; by default the parameter names of the reference.
        num_repeats: number of timings of each function, in interleaved rounds; 0 skips timing.
        seed: seed of dy.
        progress: called with a description of each step.

    Raises:
        InputError: if there is no function or no floating argument, or a function does not return one floating array
            of the shape of the reference's.

    >>> a, b = jnp.ones((2, 3)), jnp.ones((3, 2))
    >>> comparison = compare_all({"matmul": jnp.matmul, "einsum": lambda a, b: jnp.einsum("ij,jk->ik", a, b)}, a, b)
    >>> comparison.ok, [row.quantity for row in comparison.rows if row.implementation == "einsum"]
    (True, ['value', 'd a', 'd b'])
    """
    if not implementations:
        raise InputError("implementations is empty: give at least one function")
    checks.at_least(0, num_repeats=num_repeats, seed=seed)
    reference, reference_fn = next(iter(implementations.items()))
    with jax.enable_x64(True):
        paths, leaves, rebuild = floating_leaves(args, names or argument_names(reference_fn))
        dtype = max((leaf.dtype for leaf in leaves), key=unit_roundoff)
        leaves = [_round_to(leaf, dtype) for leaf in leaves]
        forward, shape = _functions_of_leaves(implementations, leaves, rebuild)
        dy = jnp.asarray(np.random.default_rng([seed, 1]).normal(size=shape), dtype)
        value_and_grads = {name: _value_and_grads(function) for name, function in forward.items()}

        progress(f"{reference} in float64")
        upcast, upcast_dy = [leaf.astype(jnp.float64) for leaf in leaves], dy.astype(jnp.float64)
        try:
            expected = jax.device_get(jax.jit(value_and_grads[reference])(upcast, upcast_dy))
        except DtypeError as error:
            raise InputError(
                f"{reference} failed in float64, in which it is the reference ({error}): "
                "pass every array that it uses as an argument, so that it is converted too"
            ) from None
        # In float64 the reference is rounded as well, so two results may differ by twice the bound.
        bounds = rounding_error_bound(value_and_grads[reference], upcast, upcast_dy, dtype=dtype)
        tolerances = [bound * (2 if dtype == jnp.float64 else 1) for bound in bounds]

        rows = []
        # Compiled only if a gradient differs.
        finite_differences = cache(lambda: FiniteDifferences(forward[reference], upcast_dy, upcast))
        quantities = ["value", *(f"d {path}" for path in paths)]
        options = runtime.compiler_options()
        compiled = {name: jax.jit(function, compiler_options=options) for name, function in value_and_grads.items()}
        for name, function in compiled.items():
            if name == reference and dtype == jnp.float64:
                continue
            progress(name)
            actual = jax.device_get(function(leaves, dy))
            for k, quantity in enumerate(quantities):
                row, exceeding = _compare_arrays(quantity, name, actual[k], expected[k], tolerances[k], dtype)
                if k and len(exceeding):
                    gradients = np.ravel(actual[k]).astype(float), np.ravel(expected[k]).astype(float)
                    kinks = _entries_at_kinks(finite_differences(), k - 1, exceeding, gradients, tolerances[k])
                    row, _ = _compare_arrays(
                        quantity, name, actual[k], expected[k], tolerances[k], dtype, excluded=kinks
                    )
                rows.append(row)
        rows.sort(key=lambda row: quantities.index(row.quantity))
        seconds = _time(forward, compiled, leaves, dy, num_repeats, progress)
    return Comparison(reference, str(dtype), jax.devices()[0].device_kind, tuple(rows), seconds)


def _functions_of_leaves(
    functions: Mapping[str, Callable[..., Any]],
    leaves: Sequence[jax.Array],
    rebuild: Callable[..., tuple[Any, ...]],
) -> tuple[dict[str, Callable[[Sequence[jax.Array]], jax.Array]], tuple[int, ...]]:
    """Return the functions of the floating arguments alone, and the shape that all of them return."""
    by_name = {name: of_leaves(name, function, leaves, rebuild) for name, function in functions.items()}
    (reference, (_, expected)), *rest = by_name.items()
    for name, (_, actual) in rest:
        if actual.shape != expected.shape:
            raise InputError(f"{name} must return the shape of {reference}, {expected}, got {actual}")
    return {name: function for name, (function, _) in by_name.items()}, expected.shape


def _round_to(leaf: jax.Array, dtype: Any) -> jax.Array:
    """Round leaf to the precision of another dtype and keep its own dtype, so that a cast is exact."""
    if leaf.dtype == dtype:
        return leaf
    return jax.lax.reduce_precision(leaf, jnp.finfo(leaf.dtype).nexp, jnp.finfo(dtype).nmant)


def _value_and_grads(forward: Callable[..., jax.Array]) -> Callable[..., list[jax.Array]]:
    """Return a function of the floating arguments and dy that computes the value and all gradients."""

    def value_and_grads(leaves: Sequence[jax.Array], dy: jax.Array) -> list[jax.Array]:
        y, vjp = jax.vjp(forward, leaves)
        (gradients,) = vjp(dy.astype(y.dtype))
        return [y, *gradients]

    return value_and_grads


def _compare_arrays(
    quantity: str,
    name: str,
    actual: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
    dtype: Any,
    excluded: np.ndarray | None = None,
) -> tuple[ComparisonRow, np.ndarray]:
    """Return the row, and the flat indices of entries beyond the tolerance, largest difference first."""
    actual, expected = np.asarray(actual, np.float64).ravel(), np.asarray(expected, np.float64).ravel()
    with np.errstate(invalid="ignore"):
        difference = np.abs(actual - expected)
    difference[(actual == expected) | (np.isnan(actual) & np.isnan(expected))] = 0  # equal infinities and NaNs
    difference[np.isnan(difference)] = np.inf
    kinks = 0
    if excluded is not None:
        kinks = len(excluded)
        difference[excluded] = 0
    absolute = float(difference.max(initial=0))
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0))
    relative = ulps = 0.0
    if absolute:
        relative = absolute / largest if largest else math.inf
        ulps = absolute / (2 * unit_roundoff(dtype) * 2.0 ** np.floor(np.log2(largest))) if largest else math.inf
    row = ComparisonRow(quantity, name, absolute, relative, float(ulps), tolerance, largest, kinks)
    exceeding = np.flatnonzero(difference > tolerance)
    return row, exceeding[np.argsort(-difference[exceeding], kind="stable")]


def _entries_at_kinks(
    finite_differences: FiniteDifferences,
    i: int,
    entries: np.ndarray,
    gradients: Sequence[np.ndarray],
    tolerance: float,
) -> np.ndarray:
    """Return the entries of argument i at a kink at which all gradients are valid."""
    entries = entries[:MAX_KINK_CANDIDATES]
    slopes = finite_differences.entries(i, entries)
    valid = [
        all(slope.allows(gradient[entry], tolerance) for gradient in gradients)
        for entry, slope in zip(entries, slopes, strict=True)
    ]
    return entries[np.array(valid, bool)]


def _time(
    forward: Mapping[str, Callable[..., Any]],
    value_and_grads: Mapping[str, Callable[..., Any]],
    leaves: Sequence[jax.Array],
    dy: jax.Array,
    repeats: int,
    progress: Callable[[str], None],
) -> dict[str, Timing]:
    """Return the median times of each implementation; empty if ``repeats`` is 0."""
    if not repeats:
        return {}
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name in forward:
        compiled = jax.jit(forward[name], compiler_options=runtime.compiler_options())
        calls[name, "forward"] = partial(compiled, leaves)
        calls[name, "forward and backward"] = partial(value_and_grads[name], leaves, dy)
    seconds = medians(calls, repeats=repeats, progress=progress)
    return {name: Timing(seconds[name, "forward"], seconds[name, "forward and backward"]) for name in forward}


def comparison_table(comparison: Comparison) -> str:
    """Format the differences of each quantity, and the times if there are any."""
    reference = comparison.reference if comparison.dtype == "float64" else f"{comparison.reference} in float64"
    headings = ("max error", "relative", "ulps", "tolerance", "kinks", "")
    title = f"{comparison.dtype} on {comparison.device}, against {reference}"
    table = new_table(title, "quantity", "implementation", numbers=headings)
    previous = None
    for row in comparison.rows:
        if previous not in (None, row.quantity):
            table.add_section()
        cells = (f"{row.max_abs_error:.1e}", f"{row.max_rel_error:.1e}", f"{row.ulps:.1f}", f"{row.tolerance:.1e}")
        quantity = row.quantity if row.quantity != previous else ""
        table.add_row(quantity, row.implementation, *cells, str(row.kinks or ""), "ok" if row.ok else "DIFFERS")
        previous = row.quantity
    if not comparison.seconds:
        return as_text(table)
    times = new_table("medians of compiled calls", "implementation", numbers=["forward", "forward and backward"])
    for name, timing in comparison.seconds.items():
        times.add_row(name, f"{timing.forward * 1e3:.3f} ms", f"{timing.forward_backward * 1e3:.3f} ms")
    return as_text(table) + "\n" + as_text(times)
