"""Activations, softmax and the loss: formulas, with their numbers put in.

The gradient of an activation is its slope times dy. A slope that jumps is written with brackets that are 1 where what
they say is so, and 0 where it is not: ``[3 > 0]``.
"""

import math

import numpy as np

from jaxconv.errors import InputError
from jaxconv.explain.arithmetic.terms import (
    Arithmetic,
    Asked,
    Group,
    Number,
    add,
    factor,
    plain,
    product,
    read,
    signed,
    summed,
)


def relu(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    return _curve(asked, max(a, 0.0), f"max({plain(a)}, 0)", float(a > 0), f"[{plain(a)} > 0]")


def relu6(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    value, slope = min(max(a, 0.0), 6.0), float(0 < a < 6)
    return _curve(asked, value, f"min(max({plain(a)}, 0), 6)", slope, f"[0 < {plain(a)} < 6]")


def leaky_relu(asked: Asked, x: np.ndarray, negative_slope: float = 0.01) -> Arithmetic:
    a, small = float(x[asked.at]), plain(negative_slope)
    written = plain(a) if a >= 0 else f"{small}·{factor(a)}"
    slope = f"([{plain(a)} ≥ 0] + {small}·[{plain(a)} < 0])"
    return _curve(asked, a if a >= 0 else negative_slope * a, written, 1.0 if a >= 0 else negative_slope, slope)


def elu(asked: Asked, x: np.ndarray, alpha: float = 1.0) -> Arithmetic:
    a = float(x[asked.at])
    if a > 0:
        return _curve(asked, a, plain(a), 1.0, "1")
    exp = f"{factor(alpha)}·exp({plain(a)})"
    return _curve(asked, alpha * math.expm1(a), f"{exp} - {factor(alpha)}", alpha * math.exp(a), exp)


def hard_tanh(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    value, slope = min(max(a, -1.0), 1.0), float(-1 <= a <= 1)
    return _curve(asked, value, f"min(max({plain(a)}, -1), 1)", slope, f"[-1 ≤ {plain(a)} ≤ 1]")


def sigmoid(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    y = _sigmoid(a)
    return _curve(asked, y, _sigmoid_text(a), y * _sigmoid(-a), f"{plain(y)}·(1 - {plain(y)})")


def tanh(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    y = math.tanh(a)
    return _curve(asked, y, f"tanh({plain(a)})", (1 - y) * (1 + y), f"(1 - {factor(y)}²)")


def softplus(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    return _curve(asked, float(np.logaddexp(0, a)), f"log(1 + exp({plain(a)}))", _sigmoid(a), f"({_sigmoid_text(a)})")


def silu(asked: Asked, x: np.ndarray) -> Arithmetic:
    a = float(x[asked.at])
    s = _sigmoid(a)
    slope = f"({plain(s)} + {factor(a)}·{plain(s)}·(1 - {plain(s)}))"
    return _curve(asked, a * s, f"{factor(a)}·{_sigmoid_text(a)}", s + a * s * _sigmoid(-a), slope)


def gelu(asked: Asked, x: np.ndarray) -> Arithmetic:
    """``x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))``."""
    a, root = float(x[asked.at]), math.sqrt(2 / math.pi)
    t = math.tanh(root * (a + 0.044715 * a**3))
    inner = root * (1 + 3 * 0.044715 * a**2)
    tanh = f"tanh(√(2/π)·({plain(a)} + 0.044715·{factor(a)}³))"
    slope = f"((1 + {factor(t)}) / 2 + {factor(a)} / 2·(1 - {factor(t)}²)·{plain(inner)})"
    return _curve(
        asked, a / 2 * (1 + t), f"{factor(a)} / 2·(1 + {tanh})", (1 + t) / 2 + a / 2 * (1 - t**2) * inner, slope
    )


def _curve(asked: Asked, value: float, written: str, slope: float, slope_written: str) -> Arithmetic:
    if asked.of == "value":
        return asked.formula(written, value)
    dy = float(asked.dy[asked.at])
    return asked.formula(f"{slope_written}·{factor(dy)}", slope * dy)


def _sigmoid(a: float) -> float:
    return math.exp(-np.logaddexp(0, -a))


def _sigmoid_text(a: float) -> str:
    return f"1 / (1 + exp({plain(-a)}))"


def softmax(asked: Asked, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y_k = exp(x_k) / Σ_j exp(x_j)``, and ``dx_k = y_k·(dy_k − Σ_j y_j·dy_j)``."""
    k, row, dy = _row(asked, x, axis)
    if asked.of == "value":
        return asked.formula(_softmax_text(row, k), _softmax(row)[k].value)
    y = _softmax(row)
    mean = summed("y·dy", [product(*pair) for pair in zip(y, dy, strict=True)])
    text = f"{plain(y[k].value)}·({plain(dy[k].value)} - {factor(mean.subtotal)})"
    return asked.formula(text, y[k].value * (dy[k].value - mean.subtotal), [mean])


def log_softmax(asked: Asked, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y_k = x_k − log Σ_j exp(x_j)``, and ``dx_k = dy_k − softmax_k·Σ_j dy_j``."""
    k, row, dy = _row(asked, x, axis)
    if asked.of == "value":
        return asked.formula(f"{plain(row[k])} - log({_exps(row)})", -_surprise(row, k))
    every = summed("dy", [product(d) for d in dy])
    p = _softmax_line(row, k)
    text = f"{plain(dy[k].value)} - {plain(p.subtotal)}·{factor(every.subtotal)}"
    return asked.formula(text, dy[k].value - p.subtotal * every.subtotal, [every, p])


def softmax_cross_entropy(asked: Asked, logits: np.ndarray, label: np.ndarray) -> Arithmetic:
    """The log-sum less the logit of the true class; backwards, what was said less what is true, times dy."""
    n, *rest = asked.at
    row = logits[n]
    if label.ndim == 1 and int(label[n]) not in range(len(row)):
        raise InputError(f"softmax_cross_entropy: label {int(label[n])} is none of the {len(row)} classes of logits")
    true = np.eye(len(row))[int(label[n])] if label.ndim == 1 else label[n]
    if asked.of == "value":
        every = _surprise(row, 0) + row[0]
        log_sum = Group("log-sum", (), every, f"log-sum: log({_exps(row)}) = {plain(every)}")
        each = [f"{plain(every)} - {factor(logit)}" for logit in row]
        text = signed([gap if p == 1 else f"{factor(p)}·({gap})" for p, gap in zip(true, each, strict=True) if p])
        return asked.formula(text, add(p * _surprise(row, k) for k, p in enumerate(true) if p), [log_sum])
    (k,) = rest
    said, dy, mass = _softmax_line(row, k), float(asked.dy[n]), add(true)
    text = f"({plain(said.subtotal)}{'' if mass == 1 else f'·{factor(mass)}'} - {factor(true[k])})·{factor(dy)}"
    return asked.formula(text, (said.subtotal * mass - true[k]) * dy, [said])


def _row(asked: Asked, x: np.ndarray, axis: int) -> tuple[int, np.ndarray, list[Number]]:
    """Where in its row the number stands, the row of x along the axis, and dy's."""
    if not isinstance(axis, int):
        raise InputError(f"{asked.op}: arithmetic is for one axis, not {axis}")
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
