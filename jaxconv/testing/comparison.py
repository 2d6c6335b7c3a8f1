"""The comparison itself: run every implementation on the same arguments, and measure what differs."""

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

KINKS_LOOKED_AT = 4096  # the entries farthest apart, each of which costs 1 + 2·len(STEPS) = 31 evaluations


class ComparisonRow(NamedTuple):
    """One array (the value, or the gradient by one argument) of one implementation against the reference.

    Attributes:
        quantity: ``"value"``, ``"d kernel"``, …
        implementation: its name.
        max_abs_error: the largest difference of any entry; those at kinks are left out.
        max_rel_error: that, as a share of the reference's largest entry.
        ulps: that, in units in the last place of the reference's largest entry.
        tolerance: how far apart rounding may put them (:mod:`jaxconv.testing.rounding_error_bound`), absolute.
        max_abs_value: the reference's largest entry, in size.
        kinks: entries that differ because the function has a kink there.
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
    """Medians in seconds, of compiled functions: the value alone, and the value with every gradient."""

    forward: float
    forward_backward: float


class Comparison(NamedTuple):
    """What :func:`compare` found; ``print`` it, ask ``.ok``, or take ``.as_dict()`` as JSON."""

    reference: str
    dtype: str
    device: str
    rows: tuple[ComparisonRow, ...]
    seconds: dict[str, Timing]

    @property
    def ok(self) -> bool:
        """Whether rounding explains every difference, kinks apart."""
        return all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        # JSON has no infinity, which is how far a NaN is from a number.
        rows = [
            {name: value if value != math.inf else None for name, value in row._asdict().items()} | {"ok": row.ok}
            for row in self.rows
        ]
        seconds = {name: timing._asdict() for name, timing in self.seconds.items()}
        return self._asdict() | {"ok": self.ok, "rows": rows, "seconds": seconds}

    def __str__(self) -> str:
        return comparison_table(self)


def compare(f: Callable[..., Any], g: Callable[..., Any], *args: Any, repeats: int = 0) -> Comparison:
    """Two implementations side by side: their values, and their gradients by every floating argument.

    Args:
        f: the reference.
        g: the other.
        args: arrays, or trees of them, for both; gradients are by the floating ones (and Python's floats), and all else
            is passed on as it is. Their dtype is the one compared: float32 and less are measured against f in float64;
            float64 against f itself. Of several dtypes it is the least precise, and all are first rounded to it.
        repeats: how often to time each, if at all.

    Raises:
        InputError: as :func:`compare_all`.

    >>> x = jnp.array([1.0, -2.0, 0.0])
    >>> found = compare(jax.nn.relu, lambda x: jnp.maximum(x, 0), x)
    >>> [(row.quantity, row.ok, row.kinks) for row in found.rows if row.implementation == "<lambda>"]
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
    progress: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Any number of implementations side by side. The first is the reference.

    Gradients are those of ``Σ dy · f(*args)`` with one random dy for all.

    Args:
        implementations: implementations by name; each takes the args and returns one array.
        args: as in :func:`compare`.
        names: of the arguments, for the table; by default the reference's own.
        num_repeats: how often to time each, in turns, so that a slow moment of the machine meets all alike.
        seed: of dy.
        progress: told what is being done.

    Raises:
        InputError: no function at all, no floating argument, a function that does not return one floating array, or
            functions that return different shapes.

    >>> a, b = jnp.ones((2, 3)), jnp.ones((3, 2))
    >>> found = compare_all({"matmul": jnp.matmul, "einsum": lambda a, b: jnp.einsum("ij,jk->ik", a, b)}, a, b)
    >>> found.ok, [row.quantity for row in found.rows if row.implementation == "einsum"]
    (True, ['value', 'd a', 'd b'])
    """
    if not implementations:
        raise InputError("no function to compare")
    checks.at_least(0, num_repeats=num_repeats, seed=seed)
    reference, first = next(iter(implementations.items()))
    with jax.enable_x64(True):
        paths, leaves, rebuild = floating_leaves(args, names or argument_names(first))
        dtype = max((leaf.dtype for leaf in leaves), key=unit_roundoff)
        leaves = [_with_digits_of(leaf, dtype) for leaf in leaves]
        forward, shape = _of_leaves(implementations, leaves, rebuild)
        dy = jnp.asarray(np.random.default_rng([seed, 1]).normal(size=shape), dtype)
        both = {name: _both(function) for name, function in forward.items()}

        progress(f"{reference} in float64")
        wide, wide_dy = [leaf.astype(jnp.float64) for leaf in leaves], dy.astype(jnp.float64)
        try:
            truth = jax.device_get(jax.jit(both[reference])(wide, wide_dy))
        except DtypeError as error:
            raise InputError(
                f"{reference} also runs in float64, which failed ({error}): "
                "give every array that it uses as an argument, so that it is converted too"
            ) from None
        # In float64 the truth is itself rounded, so two results may be twice as far apart.
        errors = rounding_error_bound(both[reference], wide, wide_dy, dtype=dtype)
        allowed = [error * (2 if dtype == jnp.float64 else 1) for error in errors]

        rows = []
        probe = cache(lambda: FiniteDifferences(forward[reference], wide_dy, wide))  # only where something differs
        quantities = ["value", *(f"d {path}" for path in paths)]
        options = runtime.compiler_options()
        compiled = {name: jax.jit(function, compiler_options=options) for name, function in both.items()}
        for name, function in compiled.items():
            if name == reference and dtype == jnp.float64:
                continue
            progress(name)
            got = jax.device_get(function(leaves, dy))
            for k, quantity in enumerate(quantities):
                row, beyond = _measure(quantity, name, got[k], truth[k], allowed[k], dtype)
                if k and len(beyond):
                    both_said = np.ravel(got[k]).astype(float), np.ravel(truth[k]).astype(float)
                    at_kinks = _at_kinks(probe(), k - 1, beyond, both_said, allowed[k])
                    row, _ = _measure(quantity, name, got[k], truth[k], allowed[k], dtype, leave_out=at_kinks)
                rows.append(row)
        rows.sort(key=lambda row: quantities.index(row.quantity))
        seconds = _time(forward, compiled, leaves, dy, num_repeats, progress)
    return Comparison(reference, str(dtype), jax.devices()[0].device_kind, tuple(rows), seconds)


def _of_leaves(
    functions: Mapping[str, Callable[..., Any]],
    leaves: Sequence[jax.Array],
    rebuild: Callable[..., tuple[Any, ...]],
) -> tuple[dict[str, Callable[[Sequence[jax.Array]], jax.Array]], tuple[int, ...]]:
    """The functions, of the floating arguments alone, and the one shape that they return."""
    both = {name: of_leaves(name, function, leaves, rebuild) for name, function in functions.items()}
    (first, (_, wanted)), *others = both.items()
    for name, (_, given) in others:
        if given.shape != wanted.shape:
            raise InputError(f"{name} returns {given} but {first} returns {wanted}: not the same function")
    return {name: function for name, (function, _) in both.items()}, wanted.shape


def _with_digits_of(leaf: jax.Array, dtype: Any) -> jax.Array:
    """leaf in its own dtype, but with no more digits than another has, so that a cast to that one changes nothing."""
    if leaf.dtype == dtype:
        return leaf
    return jax.lax.reduce_precision(leaf, jnp.finfo(leaf.dtype).nexp, jnp.finfo(dtype).nmant)


def _both(forward: Callable[..., jax.Array]) -> Callable[..., list[jax.Array]]:
    """The value and all gradients, as one function of the floating arguments and dy."""

    def both(leaves: Sequence[jax.Array], dy: jax.Array) -> list[jax.Array]:
        y, vjp = jax.vjp(forward, leaves)
        (gradients,) = vjp(dy.astype(y.dtype))
        return [y, *gradients]

    return both


def _measure(
    quantity: str,
    name: str,
    got: np.ndarray,
    truth: np.ndarray,
    tolerance: float,
    dtype: Any,
    leave_out: np.ndarray | None = None,
) -> tuple[ComparisonRow, np.ndarray]:
    """The row, and the flat indices of the entries that are farther apart than rounding allows, worst first."""
    got, truth = np.asarray(got, np.float64).ravel(), np.asarray(truth, np.float64).ravel()
    with np.errstate(invalid="ignore"):
        apart = np.abs(got - truth)
    apart[(got == truth) | (np.isnan(got) & np.isnan(truth))] = 0  # infinities too
    apart[np.isnan(apart)] = np.inf
    kinks = 0
    if leave_out is not None:
        kinks = len(leave_out)
        apart[leave_out] = 0
    absolute, largest = float(apart.max(initial=0)), float(np.abs(truth[np.isfinite(truth)]).max(initial=0))
    relative = ulps = 0.0
    if absolute:
        relative = absolute / largest if largest else math.inf
        ulps = absolute / (2 * unit_roundoff(dtype) * 2.0 ** np.floor(np.log2(largest))) if largest else math.inf
    row = ComparisonRow(quantity, name, absolute, relative, float(ulps), tolerance, largest, kinks)
    beyond = np.flatnonzero(apart > tolerance)
    return row, beyond[np.argsort(-apart[beyond], kind="stable")]


def _at_kinks(
    probe: FiniteDifferences, i: int, entries: np.ndarray, gradients: Sequence[np.ndarray], allowed: float
) -> np.ndarray:
    """Which entries of argument i have two slopes, and gradients that all lie between them."""
    entries = entries[:KINKS_LOOKED_AT]
    slopes = probe.entries(i, entries)
    fine = [
        all(slope.allows(gradient[entry], allowed) for gradient in gradients)
        for entry, slope in zip(entries, slopes, strict=True)
    ]
    return entries[np.array(fine, bool)]


def _time(
    forward: Mapping[str, Callable[..., Any]],
    both: Mapping[str, Callable[..., Any]],
    leaves: Sequence[jax.Array],
    dy: jax.Array,
    repeats: int,
    progress: Callable[[str], None],
) -> dict[str, Timing]:
    if not repeats:
        return {}
    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    for name in forward:
        program = jax.jit(forward[name], compiler_options=runtime.compiler_options())
        runs[name, "forward"] = partial(program, leaves)
        runs[name, "both"] = partial(both[name], leaves, dy)
    seconds = medians(runs, repeats=repeats, progress=progress)
    return {name: Timing(seconds[name, "forward"], seconds[name, "both"]) for name in forward}


def comparison_table(found: Comparison) -> str:
    """The differences, quantity by quantity, and the times where there are any."""
    truth = found.reference if found.dtype == "float64" else f"{found.reference} in float64"
    headings = ("largest error", "relative", "ulps", "rounding allows", "kinks", "")
    title = f"{found.dtype} on {found.device}, against {truth}"
    table = new_table(title, "quantity", "implementation", numbers=headings)
    last = None
    for row in found.rows:
        if last not in (None, row.quantity):
            table.add_section()
        numbers = (f"{row.max_abs_error:.1e}", f"{row.max_rel_error:.1e}", f"{row.ulps:.1f}", f"{row.tolerance:.1e}")
        name = row.quantity if row.quantity != last else ""
        table.add_row(name, row.implementation, *numbers, str(row.kinks or ""), "ok" if row.ok else "DIFFERS")
        last = row.quantity
    if not found.seconds:
        return as_text(table)
    times = new_table("medians of compiled calls", "implementation", numbers=["forward", "forward and backward"])
    for name, timing in found.seconds.items():
        times.add_row(name, f"{timing.forward * 1e3:.3f} ms", f"{timing.forward_backward * 1e3:.3f} ms")
    return as_text(table) + "\n" + as_text(times)
