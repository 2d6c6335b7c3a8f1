"""Check gradients against finite differences in float64.

Along a line, the central difference ``(F(t) − F(−t)) / 2t`` has a truncation error of about t² and a rounding error of
the rounding of F divided by t. Several steps t are evaluated. The change from one step to the next estimates the
truncation error, and the step with the smallest sum of both errors is used.

At a kink (relu at 0, tied pixels of max pooling) the left and right slopes differ, and every number between them is a
valid gradient. Such entries are detected by their one-sided slopes and counted separately; a gradient outside the
interval is wrong there too.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.testing.arguments import argument_names, floating_leaves, of_leaves
from jaxconv.testing.rounding_error import rounding_error_bound
from jaxconv.utils.tables import as_text, new_table

STEPS = 0.5 ** np.arange(1, 31, 2)  # from 1/2 to 2·10⁻⁹, relative to the root mean square of the argument


class SlopeEstimate(NamedTuple):
    """Slope at the middle of a line, estimated from values along it.

    Attributes:
        value: central slope; NaN if the function is not defined on both sides.
        error: error bound of ``value``.
        low, high: one-sided slopes in increasing order; a gradient between them is valid at a kink.
        side_error: error bound of ``low`` and ``high``.
    """

    value: float
    error: float
    low: float
    high: float
    side_error: float

    @property
    def kink(self) -> bool:
        """True if the one-sided slopes differ by more than their errors."""
        return self.high - self.low > 8 * self.side_error + 1e-6 * (abs(self.low) + abs(self.high))

    def allows(self, gradient: float, rounding: float) -> bool:
        """Return True if there is a kink and the gradient is valid at it."""
        margin = rounding + self.side_error
        return self.kink and self.low - margin <= gradient <= self.high + margin


class GradientCheckRow(NamedTuple):
    """Entry (or direction) of one argument with the largest excess over the error bound.

    Attributes:
        name: name of the argument.
        where: index of the entry, or "direction" and its number.
        gradient: gradient by automatic differentiation.
        slope: slope by finite differences.
        error: bound on their difference: the error of the finite differences plus the rounding of the gradient.
        checked: number of entries and directions that were checked.
        failed: number of them beyond the bound, without kinks.
        kinks: number of them at a kink with a valid gradient.
    """

    name: str
    where: str
    gradient: float
    slope: float
    error: float
    checked: int
    failed: int
    kinks: int


class GradientCheck(NamedTuple):
    """Result of :func:`check_grads`: ``print`` shows a table, ``.ok`` is the verdict."""

    rows: tuple[GradientCheckRow, ...]

    @property
    def ok(self) -> bool:
        """True if all checked gradients equal the slopes within their bounds, or are valid at a kink."""
        return not any(row.failed for row in self.rows)

    def __str__(self) -> str:
        return gradient_table(self)


@named_errors
def check_grads(
    f: Callable[..., jax.Array],
    *args: Any,
    names: Sequence[str] | None = None,
    num_directions: int = 2,
    num_entries: int = 64,
    seed: int = 0,
) -> GradientCheck:
    """Check reverse-mode gradients of f against finite differences, one argument at a time, in float64.

    The differentiated number is ``Σ dy · f(*args)`` with a random dy. Each array is varied along random directions,
    which involve all of its entries, and at random single entries.

    Args:
        f: a function of arrays (or pytrees of arrays) that returns one array and keeps the dtype of its arguments.
        args: arguments at which to check. Floating arrays (and Python floats) are converted to float64; other leaves,
            such as labels or the size of a window, are passed on unchanged.
        names: names of the arguments in the table; by default the parameter names of f.
        num_directions: number of directions per array.
        num_entries: maximum number of entries per array.
        seed: seed of dy, the directions and the entries.

    Returns:
        The worst entry of each array; ``print`` shows a table, ``.ok`` is the verdict.

    Raises:
        InputError: if there is no floating argument, nothing to check, or f does not return one floating array.

    >>> print(check_grads(lambda x: x**3, jnp.array([1.0, 2.0])).ok)
    True
    >>> wrong = jax.custom_vjp(lambda x: x**3)
    >>> wrong.defvjp(lambda x: (x**3, x), lambda x, dy: (3.03 * x**2 * dy,))               # off by 1 %
    >>> [row] = check_grads(wrong, jnp.array([1.0, 2.0])).rows
    >>> row.failed == row.checked, round(row.gradient / row.slope, 6)
    (True, 1.01)
    """
    checks.at_least(0, num_directions=num_directions, num_entries=num_entries, seed=seed)
    if not num_directions + num_entries:
        raise InputError("num_directions=0 and num_entries=0 leave nothing to check")
    with jax.enable_x64(True):
        paths, leaves, rebuild = floating_leaves(args, names or argument_names(f))
        leaves = [leaf.astype(jnp.float64) for leaf in leaves]
        forward, y = of_leaves("f", f, leaves, rebuild)
        rng = np.random.default_rng(seed)
        dy = jnp.asarray(rng.normal(size=y.shape))

        def upcast(leaves: Sequence[jax.Array]) -> jax.Array:
            return forward(leaves).astype(dy.dtype)

        gradient = jax.grad(lambda leaves: (dy * upcast(leaves)).sum())
        finite_differences = FiniteDifferences(upcast, dy, leaves)
        gradients, errors = jax.jit(gradient)(leaves), rounding_error_bound(gradient, leaves, dtype=jnp.float64)
        rows = []
        for i, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
            if not leaf.size:
                continue
            entries = rng.permutation(leaf.size)[:num_entries]
            directions = rng.normal(size=(num_directions, *leaf.shape))
            derivatives = [np.vdot(gradients[i], direction) for direction in directions]
            derivatives += list(np.ravel(gradients[i])[entries])
            # Along a direction the rounding errors of all entries add up.
            bounds = [errors[i] * np.linalg.norm(direction) for direction in directions]
            bounds += [errors[i]] * len(entries)
            labels = [f"direction {k + 1}" for k in range(num_directions)]
            labels += [f"[{', '.join(map(str, np.unravel_index(entry, leaf.shape)))}]" for entry in entries]
            slopes = finite_differences.directions(i, directions) + finite_differences.entries(i, entries)
            rows.append(_worst_row(path, labels, np.array(derivatives), slopes, np.array(bounds)))
    return GradientCheck(tuple(rows))


def _worst_row(
    name: str, labels: list[str], gradients: np.ndarray, slopes: list[SlopeEstimate], rounding: np.ndarray
) -> GradientCheckRow:
    """Return the row of the entry or direction with the largest excess over its bound."""
    values = np.array([slope.value for slope in slopes])
    bounds = rounding + np.array([slope.error for slope in slopes])
    excess = np.abs(gradients - values) - bounds
    excess[np.isnan(excess)] = np.inf
    valid_at_kink = [slope.allows(g, bound) for slope, g, bound in zip(slopes, gradients, bounds, strict=True)]
    kink = (excess > 0) & np.array(valid_at_kink)
    excess[kink] = -np.inf
    worst = int(np.argmax(excess))
    return GradientCheckRow(
        name,
        labels[worst],
        float(gradients[worst]),
        float(values[worst]),
        float(bounds[worst]),
        checked=len(labels),
        failed=int((excess > 0).sum()),
        kinks=int(kink.sum()),
    )


class FiniteDifferences:
    """Slopes of ``(dy · f(leaves)).sum()`` at one point, by finite differences."""

    def __init__(
        self, f: Callable[[Sequence[jax.Array]], jax.Array], dy: jax.Array, leaves: Sequence[jax.Array]
    ) -> None:
        self.f, self.leaves = f, leaves
        # Split by the sign of dy, so that kinks of opposite sign cannot cancel.
        self.signed_parts = jnp.maximum(dy, 0), jnp.minimum(dy, 0)
        self.noise = rounding_error_bound(lambda leaves: (dy * f(leaves)).sum(), leaves, dtype=jnp.float64)

    def directions(self, i: int, directions: np.ndarray) -> list[SlopeEstimate]:
        """Return the slope of leaf i along each direction."""
        return self._slopes(i, jnp.asarray(directions), lambda leaf, direction, step: leaf + step * direction)

    def entries(self, i: int, entries: np.ndarray) -> list[SlopeEstimate]:
        """Return the slope by each entry of leaf i, given by flat indices."""

        def shifted(leaf: jax.Array, entry: jax.Array, step: jax.Array) -> jax.Array:
            return leaf.ravel().at[entry].add(step).reshape(leaf.shape)

        return self._slopes(i, jnp.asarray(entries), shifted)

    def _slopes(self, i: int, lines: jax.Array, shift: Callable[..., jax.Array]) -> list[SlopeEstimate]:
        """Evaluate all steps along all lines in one compiled function, and return the slope of each line."""
        scale = float(jnp.sqrt(jnp.mean(jnp.square(self.leaves[i])))) or 1.0
        steps = jnp.asarray(np.concatenate([[0.0], STEPS, -STEPS]) * scale)

        def evaluate(line: jax.Array, step: jax.Array) -> jax.Array:
            y = self.f([shift(leaf, line, step) if k == i else leaf for k, leaf in enumerate(self.leaves)])
            return jnp.stack([(part * y).sum() for part in self.signed_parts])

        evaluate_lines = jax.jit(
            lambda lines: jax.lax.map(lambda line: jax.lax.map(lambda step: evaluate(line, step), steps), lines)
        )
        return [_slope(values, scale, self.noise) for values in np.asarray(evaluate_lines(lines))]


def _slope(values: np.ndarray, scale: float, noise: float) -> SlopeEstimate:
    """Estimate the slope from values along a line: ``(1 + 2·len(STEPS), signed parts of dy)``."""
    steps = STEPS[:, None] * scale
    with np.errstate(invalid="ignore"):
        middle, (up, down) = values[0], values[1:].reshape(2, len(STEPS), -1)
        right, left = (up - middle) / steps, (middle - down) / steps
        central = (right + left).sum(axis=1) / 2
        # Each step is a quarter of the previous one, so the t² error falls to a sixteenth. The factor 2 covers t⁴ etc.
        errors = 2 * np.abs(np.diff(central)) / 15 + noise / steps[1:, 0]
        # One-sided differences have an error of order t. Extrapolation removes it and leaves order t².
        sides = np.stack([(4 * side[1:] - side[:-1]) / 3 for side in (left, right)])
        side_errors = np.abs(np.diff(sides, axis=1)).sum(axis=(0, 2)) + 4 * noise / steps[2:, 0]
    best, best_side = _argmin(errors), _argmin(side_errors)
    low, high = (float(extreme(sides[:, 1 + best_side], axis=0).sum()) for extreme in (np.min, np.max))
    return SlopeEstimate(float(central[1 + best]), float(errors[best]), low, high, float(side_errors[best_side]))


def _argmin(errors: np.ndarray) -> int:
    """Return the index of the smallest error that is not NaN, or 0 if all are NaN."""
    return 0 if np.isnan(errors).all() else int(np.nanargmin(errors))


def gradient_table(check: GradientCheck) -> str:
    """Format the worst entry of each argument: gradient, finite difference and their bound."""
    headings = ("gradient", "finite difference", "error", "tolerance", "checked", "kinks", "")
    table = new_table("gradients against finite differences, float64", "argument", "worst at", numbers=headings)
    for row in check.rows:
        values = (f"{row.gradient:.9g}", f"{row.slope:.9g}", f"{abs(row.gradient - row.slope):.1e}")
        verdict = f"{row.failed} WRONG" if row.failed else "ok"
        counts = (str(row.checked), str(row.kinks or ""), verdict)
        table.add_row(row.name, row.where, *values, f"{row.error:.1e}", *counts)
    return as_text(table)
