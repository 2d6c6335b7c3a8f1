"""How far apart may two right answers be? As far as rounding explains, and no farther: derived, not guessed.

Every operation rounds its result by at most u, half a unit in the last place: 2⁻²⁴ for float32, 2⁻⁵³ for float64, 2⁻⁸
for bfloat16. A sum of K terms rounds K times, up and down; what is left of it grows like √K·u (Higham & Mary, 2019,
https://doi.org/10.1137/18M1226312). What that does to the end result depends on all that follows, and on how much
cancels. So it is tried: the function runs in float64, where every operation is given an error of that size and of
random sign, and the farthest that a result moves is what rounding can do to it (Monte Carlo arithmetic: Parker, 1997).
Errors do not change which way a comparison goes: a tie stays a tie, or the gradient would go elsewhere.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import _compat as core

# These move numbers about, or choose among them, and round nothing.
EXACT = frozenset(
    "abs argmax argmin broadcast_in_dim ceil clamp concatenate convert_element_type copy dynamic_slice "
    "dynamic_update_slice "
    "expand_dims floor gather iota max min neg pad real imag complex conj reduce_max reduce_min reshape rev "
    "round select_n sign "
    "slice sort split squeeze stop_gradient transpose".split()
)
# Made of polynomials, and known to a few units in the last place only.
APPROXIMATE = frozenset("cbrt cos erf erf_inv exp exp2 expm1 log log1p logistic pow rsqrt sin sqrt tan tanh".split())
CALLS = frozenset("checkpoint closed_call custom_jvp_call custom_vjp_call jit pjit remat2".split())
DRAWS = 4
SHIFTS, STRIDE = 4093, 1223  # both prime, so that every place is taken once before any is taken again
SAFETY = 4  # the farthest of a few tries is not the farthest there is


def unit_roundoff(dtype: Any) -> float:
    """The largest relative error of rounding once: half the distance from 1 to the next number.

    >>> unit_roundoff(jnp.float32) == 2**-24
    True
    """
    return float(jnp.finfo(dtype).eps) / 2


def rounding_error_bound(f: Callable[..., Any], *args: Any, dtype: Any, seed: int = 0) -> Any:
    """How far rounding can move each array that f returns, if f is computed in some dtype.

    Args:
        f: a function that jax can trace, of floating arrays.
        args: trees of float64 arrays; call this within ``jax.enable_x64(True)``.
        dtype: what f would be computed in. Sums of half precision are taken to be added up in float32.
        seed: of the signs of the errors.

    Returns:
        In the tree that f returns, a float for each array: the largest error of any entry.

    >>> with jax.enable_x64(True):
    ...     x = jnp.linspace(0.0, 1.0, 100)
    ...     error = rounding_error_bound(lambda x: (x * x).sum(), x, dtype=jnp.float32)
    >>> 1e-7 < error / 33.5 < 1e-5
    True
    """
    program, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    leaves = jax.tree.leaves(args)

    @jax.jit
    def moved(leaves: list[jax.Array], signs: jax.Array, alike: jax.Array | bool) -> list[jax.Array]:
        pairs = _run(program, [(leaf, leaf) for leaf in leaves], _Errors(signs, dtype, alike))
        # Where there is no number, there is none to move.
        finite = [jnp.isfinite(right) & jnp.isfinite(noisy) for right, noisy in pairs]
        apart = [jnp.where(f, jnp.abs(a - b), 0) for f, (a, b) in zip(finite, pairs, strict=True)]
        return [jnp.max(a, initial=0) for a in apart]

    rng, size = np.random.default_rng(seed), _largest(program.jaxpr) + SHIFTS
    tries = [(rng.choice([-1.0, 1.0], size), alike) for _ in range(DRAWS) for alike in (False, True)]
    worst = np.max([moved(leaves, signs, alike) for signs, alike in tries], axis=0) * SAFETY
    return jax.tree.unflatten(jax.tree.structure(shapes), worst.tolist())


class _Errors:
    """Random errors: each array comes back with every entry off by the relative size asked for, up or down.

    All entries alike, in half of the tries: the errors of a sum whose terms have one sign do not cancel. Each array
    takes its signs from another place of one long row, which compiles in a fraction of the time of drawing them.
    """

    def __init__(self, signs: jax.Array, dtype: Any, alike: jax.Array | bool) -> None:
        self.once, self.alike, self.signs = unit_roundoff(dtype), alike, signs
        self.adding = min(self.once, unit_roundoff(jnp.float32))
        self.places: Iterator[int] = (i * STRIDE % SHIFTS for i in range(1_000_000))

    def __call__(self, x: jax.Array, size: float) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        place = next(self.places)
        # Both are made and one is taken, so that the program is compiled once, not twice.
        one, each = self.signs[place], self.signs[place : place + x.size].reshape(x.shape)
        return x * (1 + size * jnp.where(self.alike, one, each)).astype(x.dtype)


Pair = tuple[Any, Any]  # a value as it should be, and as it is with errors


def _run(program: core.ClosedJaxpr, args: list[Pair], errors: _Errors) -> list[Pair]:
    """Run a traced program, one operation after another, rightly and with errors side by side."""
    known: dict[Any, Pair] = {var: (c, c) for var, c in zip(program.jaxpr.constvars, program.consts, strict=True)}
    known.update(zip(program.jaxpr.invars, args, strict=True))

    def value(atom: Any) -> Pair:
        return (atom.val, atom.val) if isinstance(atom, core.Literal) else known[atom]

    for eqn in program.jaxpr.eqns:
        came = [value(atom) for atom in eqn.invars]
        inner = [part for part in map(core.closed_jaxpr, eqn.params.values()) if part is not None]
        if eqn.primitive.name in CALLS and inner:
            went = _run(inner[0], came, errors)
        else:
            right = _operation(program.jaxpr, eqn, [pair[0] for pair in came])
            noisy = _with_errors(program.jaxpr, eqn, [pair[1] for pair in came], errors)
            went = [(a, b if jnp.issubdtype(a.dtype, jnp.inexact) else a) for a, b in zip(right, noisy, strict=True)]
        known.update(zip(eqn.outvars, went, strict=True))
    return [value(atom) for atom in program.jaxpr.outvars]


def _largest(program: core.Jaxpr) -> int:
    """The number of entries of the largest array that a traced program meets."""
    atoms = (atom for eqn in program.eqns for atom in (*eqn.invars, *eqn.outvars))
    parts = (core.closed_jaxpr(value) for eqn in program.eqns for value in eqn.params.values())
    inner = (_largest(part.jaxpr) for part in parts if part is not None)
    return max((*(math.prod(getattr(atom.aval, "shape", ())) for atom in atoms), *inner), default=1)


def _operation(program: core.Jaxpr, eqn: Any, came: list[Any]) -> list[Any]:
    """One operation as a program of its own, which is the one way to run it that jax promises."""
    given = {atom: x for atom, x in zip(eqn.invars, came, strict=True) if not isinstance(atom, core.Literal)}
    alone = program.replace(constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn])
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())


def _with_errors(program: core.Jaxpr, eqn: Any, came: list[Any], errors: _Errors) -> list[Any]:
    name, terms = eqn.primitive.name, _terms(eqn)
    if terms > 1:
        # Not the sum but what is added: where it cancels, its error is as large as ever.
        came = [errors(jnp.asarray(x), math.sqrt(terms) * errors.adding) for x in came]
    went = _operation(program, eqn, came)
    if name in EXACT:
        return went
    return [errors(y, errors.once * (SAFETY if name in APPROXIMATE else 1)) for y in went]


def _terms(eqn: Any) -> int:
    """How many terms each sum of an operation has."""
    shapes = [atom.aval.shape for atom in eqn.invars]
    match eqn.primitive.name:
        case "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            return math.prod(shapes[0][axis] for axis in contracted)
        case "conv_general_dilated":
            return math.prod(shapes[1]) // shapes[1][eqn.params["dimension_numbers"].rhs_spec[0]]
        case "conv_y" | "conv_kernel":
            return math.prod(shapes[1]) // shapes[1][-1]
        case "conv_x":
            return math.prod(shapes[0]) // (shapes[0][-2] * eqn.params["spec"].groups)
        case "cond":  # a choice of platform, in jaxconv.ops.numerics
            return max((_terms(inner) for branch in eqn.params["branches"] for inner in branch.eqns), default=1)
        case "reduce_sum" | "reduce_window_sum" | "cumsum":
            return math.prod(shapes[0]) // max(1, math.prod(eqn.outvars[0].aval.shape))
        case "fft":
            return math.ceil(math.log2(math.prod(eqn.params["fft_lengths"]) + 1))
        case "scatter-add" | "scatter_add":
            return math.prod(shapes[2])
    return 1
