"""Is a gradient the slope that the function's own values show? Finite differences, in float64.

Along a line the central difference ``(F(t) − F(−t)) / 2t`` misses the slope by about t² (the curve bends), and by the
rounding of F divided by t. Several steps t are tried; how much the difference changes from one step to the next tells
the first error, and the step whose two errors together are least is believed, as far as they go and no farther.

At a kink (relu at 0, two pixels that tie under a pooling) the slopes to the left and to the right differ, and any
number between them is a gradient. Such entries are recognised by that, and counted apart; a gradient that is not
between the two is wrong there too.
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

STEPS = 0.5 ** np.arange(1, 31, 2)  # from 1/2 to 2·10⁻⁹, as a share of the argument's size


class SlopeEstimate(NamedTuple):
    """What values along a line say of the slope at its middle.

    Attributes:
        value: the slope, if there is one; NaN where the function has no values beside the middle.
        error: how far off it may be.
        low, high: between these a gradient is right; apart only at a kink.
        side_error: how far off each of these may be.
    """

    value: float
    error: float
    low: float
    high: float
    side_error: float

    @property
    def kink(self) -> bool:
        """Whether the slopes to both sides differ by more than their errors."""
        return self.high - self.low > 8 * self.side_error + 1e-6 * (abs(self.low) + abs(self.high))

    def allows(self, gradient: float, rounding: float) -> bool:
        """Whether a gradient is one of those that a kink has."""
        slack = rounding + self.side_error
        return self.kink and self.low - slack <= gradient <= self.high + slack


class GradientCheckRow(NamedTuple):
    """One argument: the entry (or the direction) where gradient and differences disagree most.

    Attributes:
        name: of the argument.
        where: index of the entry, or "direction" and its number.
        gradient: what differentiation says.
        slope: what finite differences say.
        error: how far apart the two may be: the differences' own error and the gradient's rounding.
        checked: how many entries and directions were.
        failed: at how many the two are farther apart than that; kinks are not counted.
        kinks: at how many the slopes to both sides differ, and the gradient lies between them.
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
    rows: tuple[GradientCheckRow, ...]

    @property
    def ok(self) -> bool:
        """Whether the gradient is the slope everywhere that was looked at, kinks apart."""
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

    The number differentiated is ``Σ dy · f(*args)`` with a random dy. Each argument is moved alone: along random
    num_directions, which every entry takes part in, and entry by entry (a random choice of them where there are more).

    Args:
        f: a function of arrays (or trees of them) that returns one array. It must keep its arguments' dtype.
        args: where to check. Floating arrays (and Python's floats) are converted to float64; all else, labels or the
            size of a window, is left as it is.
        names: of the arguments, for the table; by default f's own.
        num_directions, num_entries: how many of each to check in every array.
        seed: of dy and of what is chosen.

    Returns:
        The worst entry of each array with both numbers; ``print`` it, or ask ``.ok``.

    Raises:
        InputError: nothing to differentiate by, nothing to check, or an f that does not return one floating array.

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
        raise InputError("directions=0 and entries=0 leave nothing to check")
    with jax.enable_x64(True):
        paths, leaves, rebuild = floating_leaves(args, names or argument_names(f))
        leaves = [leaf.astype(jnp.float64) for leaf in leaves]
        forward, y = of_leaves("f", f, leaves, rebuild)
        rng = np.random.default_rng(seed)
        dy = jnp.asarray(rng.normal(size=y.shape))

        def wide(leaves: Sequence[jax.Array]) -> jax.Array:
            return forward(leaves).astype(dy.dtype)

        gradient = jax.grad(lambda leaves: (dy * wide(leaves)).sum())
        probe = FiniteDifferences(wide, dy, leaves)
        gradients, errors = jax.jit(gradient)(leaves), rounding_error_bound(gradient, leaves, dtype=jnp.float64)
        rows = []
        for i, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
            if not leaf.size:
                continue
            some = rng.permutation(leaf.size)[:num_entries]
            moves = rng.normal(size=(num_directions, *leaf.shape))
            said = [np.vdot(gradients[i], move) for move in moves] + list(np.ravel(gradients[i])[some])
            # Along a direction the errors of all entries come together.
            allowed = [errors[i] * np.linalg.norm(move) for move in moves] + [errors[i]] * len(some)
            where = [f"direction {k + 1}" for k in range(num_directions)]
            where += [f"[{', '.join(map(str, np.unravel_index(entry, leaf.shape)))}]" for entry in some]
            slopes = probe.directions(i, moves) + probe.entries(i, some)
            rows.append(_judge(path, where, np.array(said), slopes, np.array(allowed)))
    return GradientCheck(tuple(rows))


def _judge(
    name: str, where: list[str], said: np.ndarray, slopes: list[SlopeEstimate], allowed: np.ndarray
) -> GradientCheckRow:
    differences = np.array([slope.value for slope in slopes])
    allowed = allowed + np.array([slope.error for slope in slopes])
    excess = np.abs(said - differences) - allowed
    excess[np.isnan(excess)] = np.inf
    subgradients = [slope.allows(g, a) for slope, g, a in zip(slopes, said, allowed, strict=True)]
    kink = (excess > 0) & np.array(subgradients)
    excess[kink] = -np.inf
    worst = int(np.argmax(excess))
    return GradientCheckRow(
        name,
        where[worst],
        float(said[worst]),
        float(differences[worst]),
        float(allowed[worst]),
        checked=len(where),
        failed=int((excess > 0).sum()),
        kinks=int(kink.sum()),
    )


class FiniteDifferences:
    """The slopes of ``(dy · f(leaves)).sum()`` at one point, as its values show them."""

    def __init__(
        self, f: Callable[[Sequence[jax.Array]], jax.Array], dy: jax.Array, leaves: Sequence[jax.Array]
    ) -> None:
        self.f, self.leaves = f, leaves
        # Where dy is positive, and where it is negative: the kinks of the one bend up, those of the other down.
        self.halves = jnp.maximum(dy, 0), jnp.minimum(dy, 0)
        self.noise = rounding_error_bound(lambda leaves: (dy * f(leaves)).sum(), leaves, dtype=jnp.float64)

    def directions(self, i: int, moves: np.ndarray) -> list[SlopeEstimate]:
        """Along each of some directions of leaf i."""
        return self._slopes(i, jnp.asarray(moves), lambda leaf, move, step: leaf + step * move)

    def entries(self, i: int, entries: np.ndarray) -> list[SlopeEstimate]:
        """By each of some entries of leaf i, which are flat indices."""

        def moved(leaf: jax.Array, entry: jax.Array, step: jax.Array) -> jax.Array:
            return leaf.ravel().at[entry].add(step).reshape(leaf.shape)

        return self._slopes(i, jnp.asarray(entries), moved)

    def _slopes(self, i: int, lines: jax.Array, move: Callable[..., jax.Array]) -> list[SlopeEstimate]:
        """One compiled program walks all lines, and all steps along each."""
        size = float(jnp.sqrt(jnp.mean(jnp.square(self.leaves[i])))) or 1.0
        steps = jnp.asarray(np.concatenate([[0.0], STEPS, -STEPS]) * size)

        def at(line: jax.Array, step: jax.Array) -> jax.Array:
            y = self.f([move(leaf, line, step) if k == i else leaf for k, leaf in enumerate(self.leaves)])
            return jnp.stack([(half * y).sum() for half in self.halves])

        walk = jax.jit(lambda lines: jax.lax.map(lambda line: jax.lax.map(lambda step: at(line, step), steps), lines))
        return [_slope(row, size, self.noise) for row in np.asarray(walk(lines))]


def _slope(values: np.ndarray, size: float, noise: float) -> SlopeEstimate:
    """From the values ``(middle and steps up and down, halves)`` along a line."""
    steps = STEPS[:, None] * size
    with np.errstate(invalid="ignore"):
        middle, (up, down) = values[0], values[1:].reshape(2, len(STEPS), -1)
        right, left = (up - middle) / steps, (middle - down) / steps
        central = (right + left).sum(axis=1) / 2
        # From one step to the next, a quarter of it, the t² error falls to a sixteenth; twice, for t⁴ and so on.
        errors = 2 * np.abs(np.diff(central)) / 15 + noise / steps[1:, 0]
        # One-sided, the error goes with t: taken out by extrapolation, and what is left goes with t².
        sides = np.stack([(4 * side[1:] - side[:-1]) / 3 for side in (left, right)])
        bends = np.abs(np.diff(sides, axis=1)).sum(axis=(0, 2)) + 4 * noise / steps[2:, 0]
    best, chosen = _least(errors), _least(bends)
    low, high = (float(choose(sides[:, 1 + chosen], axis=0).sum()) for choose in (np.min, np.max))
    return SlopeEstimate(float(central[1 + best]), float(errors[best]), low, high, float(bends[chosen]))


def _least(errors: np.ndarray) -> int:
    return 0 if np.isnan(errors).all() else int(np.nanargmin(errors))


def gradient_table(check: GradientCheck) -> str:
    """For each argument its worst entry: what the gradient says, and what the differences say."""
    headings = ("gradient", "differences", "apart", "allowed", "checked", "kinks", "")
    table = new_table("gradients against finite differences, float64", "argument", "worst at", numbers=headings)
    for row in check.rows:
        numbers = (f"{row.gradient:.9g}", f"{row.slope:.9g}", f"{abs(row.gradient - row.slope):.1e}")
        verdict = f"{row.failed} WRONG" if row.failed else "ok"
        counts = (str(row.checked), str(row.kinks or ""), verdict)
        table.add_row(row.name, row.where, *numbers, f"{row.error:.1e}", *counts)
    return as_text(table)
