"""Bound the rounding error of a function's outputs by Monte Carlo arithmetic (Parker, 1997).

Every operation rounds its result by at most u, half a unit in the last place: 2⁻²⁴ for float32, 2⁻⁵³ for float64, 2⁻⁸
for bfloat16. A sum of K terms rounds K times with random signs, so its error grows like √K·u (Higham & Mary, 2019,
https://doi.org/10.1137/18M1226312). The effect on the output depends on all later operations and on cancellation.
So the function runs in float64 with an error of that size and random sign in every operation; the largest shift of
an output over several runs, times a safety factor, is the bound. Errors do not change the outcome of comparisons: a
tie stays a tie, so that gradients take the same path.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import _compat as core

# Operations without rounding: they move or select values.
EXACT = frozenset(
    "abs argmax argmin broadcast_in_dim ceil clamp concatenate convert_element_type copy dynamic_slice "
    "dynamic_update_slice "
    "expand_dims floor gather iota max min neg pad real imag complex conj reduce_max reduce_min reshape rev "
    "round select_n sign "
    "slice sort split squeeze stop_gradient transpose".split()
)
# Operations computed by polynomials, exact to a few units in the last place only.
APPROXIMATE = frozenset("cbrt cos erf erf_inv exp exp2 expm1 log log1p logistic pow rsqrt sin sqrt tan tanh".split())
CALLS = frozenset("checkpoint closed_call custom_jvp_call custom_vjp_call jit pjit remat2".split())
DRAWS = 4
SHIFTS, STRIDE = 4093, 1223  # both prime, so that every offset is used once before any is repeated
SAFETY = 4  # the largest shift of a few runs underestimates the maximum


def unit_roundoff(dtype: Any) -> float:
    """Return the largest relative error of one rounding: half the distance from 1 to the next number.

    >>> unit_roundoff(jnp.float32) == 2**-24
    True
    """
    return float(jnp.finfo(dtype).eps) / 2


def rounding_error_bound(f: Callable[..., Any], *args: Any, dtype: Any, seed: int = 0) -> Any:
    """Return a bound on the rounding error of each output of f, if f is computed in the given dtype.

    Args:
        f: a function that jax can trace, of floating arrays.
        args: pytrees of float64 arrays; call this within ``jax.enable_x64(True)``.
        dtype: dtype of the computation. Sums in half precision are assumed to accumulate in float32.
        seed: seed of the signs of the errors.

    Returns:
        The pytree of f's outputs, with a float for each array: the largest error of an entry.

    >>> with jax.enable_x64(True):
    ...     x = jnp.linspace(0.0, 1.0, 100)
    ...     error = rounding_error_bound(lambda x: (x * x).sum(), x, dtype=jnp.float32)
    >>> 1e-7 < error / 33.5 < 1e-5
    True
    """
    jaxpr, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    leaves = jax.tree.leaves(args)

    @jax.jit
    def max_shifts(leaves: list[jax.Array], signs: jax.Array, same_sign: jax.Array | bool) -> list[jax.Array]:
        pairs = _eval_jaxpr(jaxpr, [(leaf, leaf) for leaf in leaves], _Errors(signs, dtype, same_sign))
        # Infinities and NaNs have no rounding error.
        finite = [jnp.isfinite(exact) & jnp.isfinite(noisy) for exact, noisy in pairs]
        shifts = [jnp.where(mask, jnp.abs(a - b), 0) for mask, (a, b) in zip(finite, pairs, strict=True)]
        return [jnp.max(shift, initial=0) for shift in shifts]

    rng, size = np.random.default_rng(seed), _max_entries(jaxpr.jaxpr) + SHIFTS
    draws = [(rng.choice([-1.0, 1.0], size), same_sign) for _ in range(DRAWS) for same_sign in (False, True)]
    bounds = np.max([max_shifts(leaves, signs, same_sign) for signs, same_sign in draws], axis=0) * SAFETY
    return jax.tree.unflatten(jax.tree.structure(shapes), bounds.tolist())


class _Errors:
    """Random relative errors of a given size, up or down, for every entry of an array.

    In half of the runs all entries of an array have the same sign: in a sum of terms of one sign such errors do not
    cancel. Each array takes its signs at another offset of one long vector, which compiles much faster than drawing
    them.
    """

    def __init__(self, signs: jax.Array, dtype: Any, same_sign: jax.Array | bool) -> None:
        self.signs, self.same_sign = signs, same_sign
        self.unit = unit_roundoff(dtype)
        self.accumulation_unit = min(self.unit, unit_roundoff(jnp.float32))
        self.offsets: Iterator[int] = (i * STRIDE % SHIFTS for i in range(1_000_000))

    def __call__(self, x: jax.Array, size: float) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        offset = next(self.offsets)
        # Both signs are in the compiled function and one is selected, so that it is compiled once.
        shared, per_entry = self.signs[offset], self.signs[offset : offset + x.size].reshape(x.shape)
        return x * (1 + size * jnp.where(self.same_sign, shared, per_entry)).astype(x.dtype)


Pair = tuple[Any, Any]  # a value without errors, and the value with errors


def _eval_jaxpr(closed: core.ClosedJaxpr, args: list[Pair], errors: _Errors) -> list[Pair]:
    """Evaluate a jaxpr operation by operation, without and with errors."""
    values: dict[Any, Pair] = {var: (c, c) for var, c in zip(closed.jaxpr.constvars, closed.consts, strict=True)}
    values.update(zip(closed.jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Pair:
        return (atom.val, atom.val) if isinstance(atom, core.Literal) else values[atom]

    for eqn in closed.jaxpr.eqns:
        invals = [read(atom) for atom in eqn.invars]
        inner = [jaxpr for jaxpr in map(core.closed_jaxpr, eqn.params.values()) if jaxpr is not None]
        if eqn.primitive.name in CALLS and inner:
            outvals = _eval_jaxpr(inner[0], invals, errors)
        else:
            exact = _eval_operation(closed.jaxpr, eqn, [pair[0] for pair in invals])
            noisy = _eval_with_errors(closed.jaxpr, eqn, [pair[1] for pair in invals], errors)
            outvals = [(a, b if jnp.issubdtype(a.dtype, jnp.inexact) else a) for a, b in zip(exact, noisy, strict=True)]
        values.update(zip(eqn.outvars, outvals, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _max_entries(jaxpr: core.Jaxpr) -> int:
    """Return the number of entries of the largest array in a jaxpr."""
    atoms = (atom for eqn in jaxpr.eqns for atom in (*eqn.invars, *eqn.outvars))
    closed = (core.closed_jaxpr(value) for eqn in jaxpr.eqns for value in eqn.params.values())
    inner = (_max_entries(sub_jaxpr.jaxpr) for sub_jaxpr in closed if sub_jaxpr is not None)
    return max((*(math.prod(getattr(atom.aval, "shape", ())) for atom in atoms), *inner), default=1)


def _eval_operation(jaxpr: core.Jaxpr, eqn: Any, invals: list[Any]) -> list[Any]:
    """Evaluate one operation as a jaxpr of its own, which is the supported way."""
    args = {atom: x for atom, x in zip(eqn.invars, invals, strict=True) if not isinstance(atom, core.Literal)}
    single = jaxpr.replace(constvars=[], invars=list(args), outvars=eqn.outvars, eqns=[eqn])
    return core.jaxpr_as_fun(core.ClosedJaxpr(single, ()))(*args.values())


def _eval_with_errors(jaxpr: core.Jaxpr, eqn: Any, invals: list[Any], errors: _Errors) -> list[Any]:
    """Evaluate one operation with random errors in the terms of its sums and in its outputs."""
    name, terms = eqn.primitive.name, _num_terms(eqn)
    if terms > 1:
        # The errors are relative to the terms, not to the sum, which may cancel.
        invals = [errors(jnp.asarray(x), math.sqrt(terms) * errors.accumulation_unit) for x in invals]
    outvals = _eval_operation(jaxpr, eqn, invals)
    if name in EXACT:
        return outvals
    return [errors(y, errors.unit * (SAFETY if name in APPROXIMATE else 1)) for y in outvals]


def _num_terms(eqn: Any) -> int:
    """Return the number of terms of each sum of an operation."""
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
        case "cond":  # platform-dependent branches of jaxconv.ops
            return max((_num_terms(inner) for branch in eqn.params["branches"] for inner in branch.eqns), default=1)
        case "reduce_sum" | "reduce_window_sum" | "cumsum":
            return math.prod(shapes[0]) // max(1, math.prod(eqn.outvars[0].aval.shape))
        case "fft":
            return math.ceil(math.log2(math.prod(eqn.params["fft_lengths"]) + 1))
        case "scatter-add" | "scatter_add":
            return math.prod(shapes[2])
    return 1
