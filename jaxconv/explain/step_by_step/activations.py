"""Activations, dropout, softmax and the loss: formulas, with their numbers put in.

The gradient of an activation is its slope times dy. A slope that jumps is written with brackets that are 1 where their
condition holds, and 0 where it does not: ``[3 > 0]``. Dropout scales kept values up and passes the gradient the same
way.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxconv import ops
from jaxconv.errors import InputError
from jaxconv.explain.step_by_step.terms import (
    Arithmetic,
    Group,
    Number,
    Query,
    Term,
    add,
    factor,
    plain,
    product,
    read,
    signed,
    summed,
)


def relu(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    return _curve(asked, max(a, 0.0), f"max({plain(a)}, 0)", float(a > 0), f"[{plain(a)} > 0]")


def relu6(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    value, slope = min(max(a, 0.0), 6.0), float(0 < a < 6)
    return _curve(asked, value, f"min(max({plain(a)}, 0), 6)", slope, f"[0 < {plain(a)} < 6]")


def leaky_relu(asked: Query, x: np.ndarray, negative_slope: float = 0.01) -> Arithmetic:
    a, small = float(x[asked.at]), plain(negative_slope)
    written = plain(a) if a >= 0 else f"{small}·{factor(a)}"
    slope = f"([{plain(a)} ≥ 0] + {small}·[{plain(a)} < 0])"
    return _curve(asked, a if a >= 0 else negative_slope * a, written, 1.0 if a >= 0 else negative_slope, slope)


def elu(asked: Query, x: np.ndarray, alpha: float = 1.0) -> Arithmetic:
    a = float(x[asked.at])
    if a > 0:
        return _curve(asked, a, plain(a), 1.0, "1")
    exp = f"{factor(alpha)}·exp({plain(a)})"
    return _curve(asked, alpha * math.expm1(a), f"{exp} - {factor(alpha)}", alpha * math.exp(a), exp)


def celu(asked: Query, x: np.ndarray, alpha: float = 1.0) -> Arithmetic:
    a = float(x[asked.at])
    if a > 0:
        return _curve(asked, a, plain(a), 1.0, "1")
    exp = f"exp({plain(a)} / {factor(alpha)})"
    value = alpha * math.expm1(a / alpha)
    return _curve(asked, value, f"{factor(alpha)}·{exp} - {factor(alpha)}", math.exp(a / alpha), exp)


def selu(asked: Query, x: np.ndarray) -> Arithmetic:
    """:func:`elu` with the alpha and the scale that keep a mean of 0 and a variance of 1."""
    a, alpha, scale = float(x[asked.at]), 1.6732632423543772, 1.0507009873554805
    if a > 0:
        return _curve(asked, scale * a, f"{plain(scale)}·{plain(a)}", scale, plain(scale))
    exp = f"{plain(alpha)}·exp({plain(a)})"
    value, slope = scale * alpha * math.expm1(a), scale * alpha * math.exp(a)
    return _curve(asked, value, f"{plain(scale)}·({exp} - {plain(alpha)})", slope, f"{plain(scale)}·{exp}")


def hard_tanh(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    value, slope = min(max(a, -1.0), 1.0), float(-1 <= a <= 1)
    return _curve(asked, value, f"min(max({plain(a)}, -1), 1)", slope, f"[-1 ≤ {plain(a)} ≤ 1]")


def hard_sigmoid(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    value, slope = _ramp(a)
    return _curve(asked, value, _ramp_text(a), slope, f"([-3 < {plain(a)} < 3] / 6)")


def hard_silu(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    s, rise = _ramp(a)
    slope = f"({plain(s)} + {factor(a)}·[-3 < {plain(a)} < 3] / 6)"
    return _curve(asked, a * s, f"{factor(a)}·{_ramp_text(a)}", s + (a * rise if rise else 0.0), slope)


def soft_sign(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    size, written = abs(a) + 1, f"(|{plain(a)}| + 1)"
    return _curve(asked, a / size, f"{plain(a)} / {written}", 1 / size / size, f"(1 / {written}²)")


def sigmoid(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    y = _sigmoid(a)
    return _curve(asked, y, _sigmoid_text(a), y * _sigmoid(-a), f"{plain(y)}·(1 - {plain(y)})")


def log_sigmoid(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    value = -_softplus(-a)
    return _curve(asked, value, f"-log(1 + exp({plain(-a)}))", _sigmoid(-a), f"({_sigmoid_text(-a)})")


def tanh(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    y = math.tanh(a)
    return _curve(asked, y, f"tanh({plain(a)})", (1 - y) * (1 + y), f"(1 - {factor(y)}²)")


def softplus(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    return _curve(asked, _softplus(a), f"log(1 + exp({plain(a)}))", _sigmoid(a), f"({_sigmoid_text(a)})")


def squareplus(asked: Query, x: np.ndarray, b: float = 4) -> Arithmetic:
    a = float(x[asked.at])
    root, root_text = math.hypot(a, math.sqrt(b)), f"√({factor(a)}² + {plain(b)})"
    # Below 0 the two nearly cancel, but (root + x)·(root − x) = b.
    value = (a + root) / 2 if a >= 0 else b / 2 / (root - a)
    slope = value / root if root else math.nan
    return _curve(asked, value, f"({plain(a)} + {root_text}) / 2", slope, f"((1 + {factor(a)} / {root_text}) / 2)")


def silu(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    s = _sigmoid(a)
    slope = f"({plain(s)} + {factor(a)}·{plain(s)}·(1 - {plain(s)}))"
    return _curve(asked, a * s, f"{factor(a)}·{_sigmoid_text(a)}", s + a * s * _sigmoid(-a), slope)


def mish(asked: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    t, s = math.tanh(_softplus(a)), _sigmoid(a)
    slope = f"({plain(t)} + {factor(a)}·(1 - {plain(t)}²)·{plain(s)})"
    written = f"{factor(a)}·tanh(log(1 + exp({plain(a)})))"
    return _curve(asked, a * t, written, t + a * (1 - t) * (1 + t) * s, slope)


def gelu(asked: Query, x: np.ndarray, approximate: bool = True) -> Arithmetic:
    """``x · Φ(x)``, or nearly: ``x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))``."""
    a = float(x[asked.at])
    if not approximate:
        below, density = math.erfc(-a / math.sqrt(2)) / 2, math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        slope = f"({plain(below)} + {factor(a)}·exp(-{factor(a)}² / 2) / √(2π))"
        return _curve(asked, a * below, f"{factor(a)} / 2·(1 + erf({plain(a)} / √2))", below + a * density, slope)
    root = math.sqrt(2 / math.pi)
    inside, inner = root * (a + 0.044715 * a * a * a), root * (1 + 3 * 0.044715 * a * a)
    # (1 + tanh(z)) / 2 is sigmoid(2z), which has digits left where tanh is nearly −1.
    t, s = math.tanh(inside), _sigmoid(2 * inside)
    slope = f"((1 + {factor(t)}) / 2 + {factor(a)} / 2·(1 - {factor(t)}²)·{plain(inner)})"
    written = f"{factor(a)} / 2·(1 + tanh(√(2/π)·({plain(a)} + 0.044715·{factor(a)}³)))"
    return _curve(asked, a * s, written, s + 2 * a * s * _sigmoid(-2 * inside) * inner, slope)


def glu(asked: Query, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y = x_a · sigmoid(x_b)``, where x_b stands half the axis further on than x_a."""
    axis %= x.ndim
    half = x.shape[axis] // 2
    k, before, after = asked.at[axis], asked.at[:axis], asked.at[axis + 1 :]
    place = (*before, k % half, *after)
    a, b = read("x", x, place), read("x", x, (*before, k % half + half, *after))
    gate = _sigmoid(b.value)
    if asked.of == "value":
        term = Term((a, b), a.value * gate, f"{factor(a.value)}·{_sigmoid_text(b.value)}")
        return asked.answer([summed("", [term])])
    dy = read("dy", asked.dy, place)
    if k < half:
        term = Term((b, dy), gate * dy.value, f"({_sigmoid_text(b.value)})·{factor(dy.value)}")
    else:
        text = f"{factor(a.value)}·{plain(gate)}·(1 - {plain(gate)})·{factor(dy.value)}"
        term = Term((a, b, dy), a.value * gate * _sigmoid(-b.value) * dy.value, text)
    return asked.answer([summed("", [term])])


def _curve(asked: Query, value: float, written: str, slope: float, slope_written: str) -> Arithmetic:
    if asked.of == "value":
        return asked.formula(written, value)
    dy = float(asked.dy[asked.at])
    return asked.formula(f"{slope_written}·{factor(dy)}", slope * dy)


def _softplus(a: float) -> float:
    return max(a, 0.0) + math.log1p(math.exp(-abs(a)))


def _sigmoid(a: float) -> float:
    return math.exp(-_softplus(-a))


def _sigmoid_text(a: float) -> str:
    return f"1 / (1 + exp({plain(-a)}))"


def _ramp(a: float) -> tuple[float, float]:
    """The hard sigmoid, from 0 at −3 to 1 at 3, and its slope."""
    return min(max(a + 3, 0.0), 6.0) / 6, float(0 < a + 3 < 6) / 6


def _ramp_text(a: float) -> str:
    return f"min(max({plain(a)} + 3, 0), 6) / 6"


def dropout(asked: Query, x: np.ndarray, key: Any, rate: float) -> Arithmetic:
    """``y = x · keep / (1 − rate)``. No formula says what a key keeps: the op is asked, with ones for x."""
    if not getattr(ops, asked.op)(jnp.ones(x.shape), key, rate)[asked.at]:
        return asked.answer([Group("dropped", (), 0.0, "dropped: 0")])
    number = read("x", x, asked.at) if asked.of == "value" else read("dy", asked.dy, asked.at)
    term = Term((number,), number.value / (1 - rate), f"{plain(number.value)} / (1 - {plain(rate)})")
    return asked.answer([summed("kept", [term])])


def softmax(asked: Query, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y_k = exp(x_k) / Σ_j exp(x_j)``, and ``dx_k = y_k·(dy_k − Σ_j y_j·dy_j)``."""
    k, row, dy = _row(asked, x, axis)
    if asked.of == "value":
        return asked.formula(_softmax_text(row, k), _softmax(row)[k].value)
    y = _softmax(row)
    mean = summed("y·dy", [product(*pair) for pair in zip(y, dy, strict=True)])
    text = f"{plain(y[k].value)}·({plain(dy[k].value)} - {factor(mean.subtotal)})"
    return asked.formula(text, y[k].value * (dy[k].value - mean.subtotal), [mean])


def log_softmax(asked: Query, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y_k = x_k − log Σ_j exp(x_j)``, and ``dx_k = dy_k − softmax_k·Σ_j dy_j``."""
    k, row, dy = _row(asked, x, axis)
    if asked.of == "value":
        return asked.formula(f"{plain(row[k])} - log({_exps(row)})", -_surprise(row, k))
    every = summed("dy", [product(d) for d in dy])
    p = _softmax_line(row, k)
    text = f"{plain(dy[k].value)} - {plain(p.subtotal)}·{factor(every.subtotal)}"
    return asked.formula(text, dy[k].value - p.subtotal * every.subtotal, [every, p])


def softmax_cross_entropy(asked: Query, logits: np.ndarray, label: np.ndarray) -> Arithmetic:
    """The log-sum less the logit of the true class; backwards, what was said less what is true, times dy."""
    n = asked.at[: logits.ndim - 1]
    row = logits[n]
    true = np.eye(len(row))[int(label[n])] if label.ndim < logits.ndim else label[n]
    if asked.of == "value":
        every = _surprise(row, 0) + row[0]
        log_sum = Group("log-sum", (), every, f"log-sum: log({_exps(row)}) = {plain(every)}")
        each = [f"{plain(every)} - {factor(logit)}" for logit in row]
        text = signed([gap if p == 1 else f"{factor(p)}·({gap})" for p, gap in zip(true, each, strict=True) if p])
        return asked.formula(text, add(p * _surprise(row, k) for k, p in enumerate(true) if p), [log_sum])
    k = asked.at[-1]
    said, dy, mass = _softmax_line(row, k), float(asked.dy[n]), add(true)
    text = f"({plain(said.subtotal)}{'' if mass == 1 else f'·{factor(mass)}'} - {factor(true[k])})·{factor(dy)}"
    return asked.formula(text, (said.subtotal * mass - true[k]) * dy, [said])


def _row(asked: Query, x: np.ndarray, axis: int) -> tuple[int, np.ndarray, list[Number]]:
    """Where in its row the number stands, the row of x along the axis, and dy's."""
    if not isinstance(axis, int):
        raise InputError(f"arithmetic is for one axis, not {axis}")
    k, axis = asked.at[axis], axis % x.ndim
    indices = [(*asked.at[:axis], j, *asked.at[axis + 1 :]) for j in range(x.shape[axis])]
    row = np.array([x[index] for index in indices])
    return k, row, [] if asked.of == "value" else [read("dy", asked.dy, index) for index in indices]


def _surprise(row: np.ndarray, k: int) -> float:
    """``log Σ_j exp(x_j) − x_k``."""
    return float(np.logaddexp.reduce(row - row[k]))


def _softmax(row: np.ndarray) -> list[Number]:
    return [Number(math.exp(-_surprise(row, k)), "y", (k,)) for k in range(len(row))]


def _softmax_line(row: np.ndarray, k: int) -> Group:
    p = math.exp(-_surprise(row, k))
    return Group("softmax", (), p, f"softmax: {_softmax_text(row, k)} = {plain(p)}")


def _softmax_text(row: np.ndarray, k: int) -> str:
    return f"exp({plain(row[k])}) / ({_exps(row)})"


def _exps(row: np.ndarray) -> str:
    return " + ".join(f"exp({plain(a)})" for a in row)
