"""How far apart may two right answers be? As far as rounding explains, and no farther: derived, not guessed.

Every operation rounds its result by at most u, half a unit in the last place: 2⁻²⁴ for float32, 2⁻⁵³ for float64, 2⁻⁹
for bfloat16. A sum of K terms rounds K times, up and down; what is left of it grows like √K·u (Higham & Mary, 2019,
https://doi.org/10.1137/18M1226312). What that does to the end result depends on all that follows, and on how much
cancels. So it is tried: the function runs in float64, where every operation is given an error of that size and of
random sign, and the farthest that a result moves is what rounding can do to it (Monte Carlo arithmetic: Parker, 1997).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# These move numbers about, or choose among them, and round nothing.
EXACT = frozenset(
    "abs argmax argmin broadcast_in_dim clamp concatenate convert_element_type copy dynamic_slice dynamic_update_slice "
    "expand_dims gather iota max min neg pad real imag complex conj reduce_max reduce_min reshape rev select_n sign "
    "slice sort split squeeze stop_gradient transpose".split()
)
# Made of polynomials, and known to a few units in the last place only.
APPROXIMATE = frozenset("cbrt cos erf erf_inv exp exp2 expm1 log log1p logistic pow rsqrt sin sqrt tan tanh".split())
CALLS = frozenset("checkpoint closed_call custom_jvp_call custom_vjp_call jit pjit remat2".split())
DRAWS = 4
SAFETY = 4  # the farthest of a few tries is not the farthest there is


def unit(dtype: Any) -> float:
    """The largest relative error of rounding once: half the distance from 1 to the next number.

    >>> unit(jnp.float32) == 2**-24
    True
    """
    return float(jnp.finfo(dtype).eps) / 2


def rounding(f: Callable[..., Any], *args: Any, dtype: Any, seed: int = 0) -> Any:
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
    ...     error = rounding(lambda x: (x * x).sum(), x, dtype=jnp.float32)
    >>> 1e-7 < error / 33.5 < 1e-5
    True
    """
    program, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    leaves = jax.tree.leaves(args)

    @jax.jit
    def moved(key: jax.Array) -> list[jax.Array]:
        right = core.jaxpr_as_fun(program)(*leaves)
        noisy = _run(program, leaves, _Errors(key, dtype))
        return [jnp.max(jnp.abs(a - b), initial=0) for a, b in zip(right, noisy, strict=True)]

    keys = jax.random.split(jax.random.key(seed, impl="rbg"), DRAWS)
    worst = np.max([moved(key) for key in keys], axis=0) * SAFETY
    return jax.tree.unflatten(jax.tree.structure(shapes), worst.tolist())


class _Errors:
    """Random errors: each array comes back with every entry off by the relative size asked for, up or down."""

    def __init__(self, key: jax.Array, dtype: Any) -> None:
        self.once = unit(dtype)
        self.adding = min(self.once, unit(jnp.float32))
        self.keys: Iterator[jax.Array] = (jax.random.fold_in(key, i) for i in range(1_000_000))

    def __call__(self, x: jax.Array, size: float) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        signs = jax.random.rademacher(next(self.keys), x.shape, jnp.float64)
        return x * (1 + size * signs).astype(x.dtype)


def _run(program: core.ClosedJaxpr, args: list[jax.Array], errors: _Errors) -> list[jax.Array]:
    """Run a traced program, one operation after another, each with its error."""
    known: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    known.update(zip(program.jaxpr.invars, args, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in program.jaxpr.eqns:
        came = [value(atom) for atom in eqn.invars]
        inner = [part for part in map(_closed, eqn.params.values()) if part is not None]
        if eqn.primitive.name in CALLS and inner:
            went = _run(inner[0], came, errors)
        else:
            went = _operation(program.jaxpr, eqn, came, errors)
        known.update(zip(eqn.outvars, went, strict=True))
    return [value(atom) for atom in program.jaxpr.outvars]


def _closed(value: Any) -> core.ClosedJaxpr | None:
    if isinstance(value, core.Jaxpr):
        return core.ClosedJaxpr(value, ())
    return value if isinstance(value, core.ClosedJaxpr) else None


def _operation(program: core.Jaxpr, eqn: Any, came: list[Any], errors: _Errors) -> list[Any]:
    name, terms = eqn.primitive.name, _terms(eqn)
    if terms > 1:
        # Not the sum but what is added: where it cancels, its error is as large as ever.
        came = [errors(jnp.asarray(x), math.sqrt(terms) * errors.adding) for x in came]
    # Each operation as a program of its own, which is the one way to run it that jax promises.
    given = {atom: x for atom, x in zip(eqn.invars, came, strict=True) if not isinstance(atom, core.Literal)}
    alone = program.replace(constvars=[], invars=list(given), outvars=eqn.outvars, eqns=[eqn])
    went = core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*given.values())
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
        case "reduce_sum" | "reduce_window_sum" | "cumsum":
            return math.prod(shapes[0]) // max(1, math.prod(eqn.outvars[0].aval.shape))
        case "fft":
            return math.ceil(math.log2(math.prod(eqn.params["fft_lengths"]) + 1))
        case "scatter-add" | "scatter_add":
            return math.prod(shapes[2])
    return 1
