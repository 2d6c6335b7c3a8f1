"""Activations, dropout, softmax and the loss: formulas with their numbers inserted.

The gradient of an activation is its slope times dy. A discontinuous slope is written with Iverson brackets, which are 1
if the condition holds and 0 otherwise: ``[3 > 0]``. Dropout scales the retained values, and their gradients, alike.
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
    exact_sum,
    fmt,
    fmt_factor,
    join_signed,
    product,
    read,
    sum_terms,
)


def relu(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    return _elementwise(query, max(a, 0.0), f"max({fmt(a)}, 0)", float(a > 0), f"[{fmt(a)} > 0]")


def relu6(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    value, slope = min(max(a, 0.0), 6.0), float(0 < a < 6)
    return _elementwise(query, value, f"min(max({fmt(a)}, 0), 6)", slope, f"[0 < {fmt(a)} < 6]")


def leaky_relu(query: Query, x: np.ndarray, negative_slope: float = 0.01) -> Arithmetic:
    a, negative_text = float(x[query.indices]), fmt(negative_slope)
    slope, text = (1.0, fmt(a)) if a >= 0 else (negative_slope, f"{negative_text}·{fmt_factor(a)}")
    slope_text = f"([{fmt(a)} ≥ 0] + {negative_text}·[{fmt(a)} < 0])"
    return _elementwise(query, slope * a, text, slope, slope_text)


def elu(query: Query, x: np.ndarray, alpha: float = 1.0) -> Arithmetic:
    a = float(x[query.indices])
    if a > 0:
        return _elementwise(query, a, fmt(a), 1.0, "1")
    exp = f"{fmt_factor(alpha)}·exp({fmt(a)})"
    return _elementwise(query, alpha * math.expm1(a), f"{exp} - {fmt_factor(alpha)}", alpha * math.exp(a), exp)


def celu(query: Query, x: np.ndarray, alpha: float = 1.0) -> Arithmetic:
    a = float(x[query.indices])
    if a > 0:
        return _elementwise(query, a, fmt(a), 1.0, "1")
    exp = f"exp({fmt(a)} / {fmt_factor(alpha)})"
    value = alpha * math.expm1(a / alpha)
    return _elementwise(query, value, f"{fmt_factor(alpha)}·{exp} - {fmt_factor(alpha)}", math.exp(a / alpha), exp)


def selu(query: Query, x: np.ndarray) -> Arithmetic:
    """:func:`elu` with the alpha and scale that preserve mean 0 and variance 1."""
    a, alpha, scale = float(x[query.indices]), 1.6732632423543772, 1.0507009873554805
    if a > 0:
        return _elementwise(query, scale * a, f"{fmt(scale)}·{fmt(a)}", scale, fmt(scale))
    exp = f"{fmt(alpha)}·exp({fmt(a)})"
    value, slope = scale * alpha * math.expm1(a), scale * alpha * math.exp(a)
    return _elementwise(query, value, f"{fmt(scale)}·({exp} - {fmt(alpha)})", slope, f"{fmt(scale)}·{exp}")


def hard_tanh(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    value, slope = min(max(a, -1.0), 1.0), float(-1 <= a <= 1)
    return _elementwise(query, value, f"min(max({fmt(a)}, -1), 1)", slope, f"[-1 ≤ {fmt(a)} ≤ 1]")


def hard_sigmoid(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    value, slope = _hard_sigmoid(a)
    return _elementwise(query, value, _hard_sigmoid_text(a), slope, f"([-3 < {fmt(a)} < 3] / 6)")


def hard_silu(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    gate, gate_slope = _hard_sigmoid(a)
    slope = gate + (a * gate_slope if gate_slope else 0.0)
    slope_text = f"({fmt(gate)} + {fmt_factor(a)}·[-3 < {fmt(a)} < 3] / 6)"
    return _elementwise(query, a * gate, f"{fmt_factor(a)}·{_hard_sigmoid_text(a)}", slope, slope_text)


def soft_sign(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    size, text = abs(a) + 1, f"(|{fmt(a)}| + 1)"
    return _elementwise(query, a / size, f"{fmt(a)} / {text}", 1 / size / size, f"(1 / {text}²)")


def sigmoid(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    y = _sigmoid(a)
    return _elementwise(query, y, _sigmoid_text(a), y * _sigmoid(-a), f"{fmt(y)}·(1 - {fmt(y)})")


def log_sigmoid(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    value = -_softplus(-a)
    return _elementwise(query, value, f"-log(1 + exp({fmt(-a)}))", _sigmoid(-a), f"({_sigmoid_text(-a)})")


def tanh(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    y = math.tanh(a)
    return _elementwise(query, y, f"tanh({fmt(a)})", (1 - y) * (1 + y), f"(1 - {fmt_factor(y)}²)")


def softplus(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    return _elementwise(query, _softplus(a), f"log(1 + exp({fmt(a)}))", _sigmoid(a), f"({_sigmoid_text(a)})")


def squareplus(query: Query, x: np.ndarray, b: float = 4) -> Arithmetic:
    a = float(x[query.indices])
    root, root_text = math.hypot(a, math.sqrt(b)), f"√({fmt_factor(a)}² + {fmt(b)})"
    # Below 0, a + root cancels; use (root + a)·(root − a) = b.
    value = (a + root) / 2 if a >= 0 else b / 2 / (root - a)
    slope, slope_text = value / root if root else math.nan, f"((1 + {fmt_factor(a)} / {root_text}) / 2)"
    return _elementwise(query, value, f"({fmt(a)} + {root_text}) / 2", slope, slope_text)


def silu(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    gate = _sigmoid(a)
    slope_text = f"({fmt(gate)} + {fmt_factor(a)}·{fmt(gate)}·(1 - {fmt(gate)}))"
    return _elementwise(
        query, a * gate, f"{fmt_factor(a)}·{_sigmoid_text(a)}", gate + a * gate * _sigmoid(-a), slope_text
    )


def mish(query: Query, x: np.ndarray) -> Arithmetic:
    a = float(x[query.indices])
    t, s = math.tanh(_softplus(a)), _sigmoid(a)
    slope_text = f"({fmt(t)} + {fmt_factor(a)}·(1 - {fmt(t)}²)·{fmt(s)})"
    text = f"{fmt_factor(a)}·tanh(log(1 + exp({fmt(a)})))"
    return _elementwise(query, a * t, text, t + a * (1 - t) * (1 + t) * s, slope_text)


def gelu(query: Query, x: np.ndarray, approximate: bool = True) -> Arithmetic:
    """``x · Φ(x)``, or the approximation ``x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))``."""
    a = float(x[query.indices])
    if not approximate:
        cdf, density = math.erfc(-a / math.sqrt(2)) / 2, math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        slope_text = f"({fmt(cdf)} + {fmt_factor(a)}·exp(-{fmt_factor(a)}² / 2) / √(2π))"
        return _elementwise(
            query, a * cdf, f"{fmt_factor(a)} / 2·(1 + erf({fmt(a)} / √2))", cdf + a * density, slope_text
        )
    scale = math.sqrt(2 / math.pi)
    z, dz = scale * (a + 0.044715 * a * a * a), scale * (1 + 3 * 0.044715 * a * a)
    # (1 + tanh(z)) / 2 = sigmoid(2z), which keeps its precision where tanh(z) is nearly −1.
    t, s = math.tanh(z), _sigmoid(2 * z)
    slope_text = f"((1 + {fmt_factor(t)}) / 2 + {fmt_factor(a)} / 2·(1 - {fmt_factor(t)}²)·{fmt(dz)})"
    text = f"{fmt_factor(a)} / 2·(1 + tanh(√(2/π)·({fmt(a)} + 0.044715·{fmt_factor(a)}³)))"
    return _elementwise(query, a * s, text, s + 2 * a * s * _sigmoid(-2 * z) * dz, slope_text)


def glu(query: Query, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y = x_a · sigmoid(x_b)``, with x_a the first half of the axis and x_b the second half."""
    axis %= x.ndim
    half = x.shape[axis] // 2
    k, before, after = query.indices[axis], query.indices[:axis], query.indices[axis + 1 :]
    output_index = (*before, k % half, *after)
    a, b = read("x", x, output_index), read("x", x, (*before, k % half + half, *after))
    gate = _sigmoid(b.value)
    if query.wrt == "value":
        term = Term((a, b), a.value * gate, f"{fmt_factor(a.value)}·{_sigmoid_text(b.value)}")
        return query.from_groups([sum_terms("", [term])])
    dy = read("dy", query.dy, output_index)
    if k < half:
        term = Term((b, dy), gate * dy.value, f"({_sigmoid_text(b.value)})·{fmt_factor(dy.value)}")
    else:
        text = f"{fmt_factor(a.value)}·{fmt(gate)}·(1 - {fmt(gate)})·{fmt_factor(dy.value)}"
        term = Term((a, b, dy), a.value * gate * _sigmoid(-b.value) * dy.value, text)
    return query.from_groups([sum_terms("", [term])])


def _elementwise(query: Query, value: float, text: str, slope: float, slope_text: str) -> Arithmetic:
    if query.wrt == "value":
        return query.from_formula(text, value)
    dy = float(query.dy[query.indices])
    return query.from_formula(f"{slope_text}·{fmt_factor(dy)}", slope * dy)


def _softplus(a: float) -> float:
    return max(a, 0.0) + math.log1p(math.exp(-abs(a)))


def _sigmoid(a: float) -> float:
    return math.exp(-_softplus(-a))


def _sigmoid_text(a: float) -> str:
    return f"1 / (1 + exp({fmt(-a)}))"


def _hard_sigmoid(a: float) -> tuple[float, float]:
    """Return the hard sigmoid, which rises from 0 at −3 to 1 at 3, and its slope."""
    return min(max(a + 3, 0.0), 6.0) / 6, float(0 < a + 3 < 6) / 6


def _hard_sigmoid_text(a: float) -> str:
    return f"min(max({fmt(a)} + 3, 0), 6) / 6"


def dropout(query: Query, x: np.ndarray, key: Any, rate: float) -> Arithmetic:
    """``y = x · mask / (1 − rate)``; the mask of the key is obtained by calling the op on ones."""
    if not getattr(ops, query.op)(jnp.ones(x.shape), key, rate)[query.indices]:
        return query.from_groups([Group("dropped", (), 0.0, "dropped: 0")])
    number = read("x", x, query.indices) if query.wrt == "value" else read("dy", query.dy, query.indices)
    term = Term((number,), number.value / (1 - rate), f"{fmt(number.value)} / (1 - {fmt(rate)})")
    return query.from_groups([sum_terms("kept", [term])])


def softmax(query: Query, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y_k = exp(x_k) / Σ_j exp(x_j)``, and ``dx_k = y_k·(dy_k − Σ_j y_j·dy_j)``."""
    k, row, dy = _read_row(query, x, axis)
    if query.wrt == "value":
        return query.from_formula(_softmax_text(row, k), _softmax(row)[k].value)
    y = _softmax(row)
    weighted_sum = sum_terms("y·dy", [product(*pair) for pair in zip(y, dy, strict=True)])
    text = f"{fmt(y[k].value)}·({fmt(dy[k].value)} - {fmt_factor(weighted_sum.subtotal)})"
    return query.from_formula(text, y[k].value * (dy[k].value - weighted_sum.subtotal), [weighted_sum])


def log_softmax(query: Query, x: np.ndarray, axis: int = -1) -> Arithmetic:
    """``y_k = x_k − log Σ_j exp(x_j)``, and ``dx_k = dy_k − softmax_k·Σ_j dy_j``."""
    k, row, dy = _read_row(query, x, axis)
    if query.wrt == "value":
        return query.from_formula(f"{fmt(row[k])} - log({_sum_exp_text(row)})", -_neg_log_softmax(row, k))
    dy_sum = sum_terms("dy", [product(d) for d in dy])
    p = _softmax_line(row, k)
    text = f"{fmt(dy[k].value)} - {fmt(p.subtotal)}·{fmt_factor(dy_sum.subtotal)}"
    return query.from_formula(text, dy[k].value - p.subtotal * dy_sum.subtotal, [dy_sum, p])


def softmax_cross_entropy(query: Query, logits: np.ndarray, labels: np.ndarray) -> Arithmetic:
    """``y = log Σ_j exp(x_j) − x_label``, and ``dx_k = (softmax_k − target_k)·dy``, with a one-hot target."""
    n = query.indices[: logits.ndim - 1]
    row = logits[n]
    target = np.eye(len(row))[int(labels[n])] if labels.ndim < logits.ndim else labels[n]
    if query.wrt == "value":
        log_sum = _neg_log_softmax(row, 0) + row[0]
        group = Group("log-sum", (), log_sum, f"log-sum: log({_sum_exp_text(row)}) = {fmt(log_sum)}")
        losses = [f"{fmt(log_sum)} - {fmt_factor(logit)}" for logit in row]
        weighted = zip(target, losses, strict=True)
        text = join_signed([loss if p == 1 else f"{fmt_factor(p)}·({loss})" for p, loss in weighted if p])
        total = exact_sum(p * _neg_log_softmax(row, k) for k, p in enumerate(target) if p)
        return query.from_formula(text, total, [group])
    k = query.indices[-1]
    predicted, dy, target_sum = _softmax_line(row, k), float(query.dy[n]), exact_sum(target)
    scale_text = "" if target_sum == 1 else f"·{fmt_factor(target_sum)}"
    text = f"({fmt(predicted.subtotal)}{scale_text} - {fmt_factor(target[k])})·{fmt_factor(dy)}"
    return query.from_formula(text, (predicted.subtotal * target_sum - target[k]) * dy, [predicted])


def _read_row(query: Query, x: np.ndarray, axis: int) -> tuple[int, np.ndarray, list[Number]]:
    """Return the index of the number along the axis, and the rows of x and dy along it."""
    if not isinstance(axis, int):
        raise InputError(f"arithmetic supports one axis, an int, got {axis}")
    k, axis = query.indices[axis], axis % x.ndim
    indices = [(*query.indices[:axis], j, *query.indices[axis + 1 :]) for j in range(x.shape[axis])]
    row = np.array([x[index] for index in indices])
    return k, row, [] if query.wrt == "value" else [read("dy", query.dy, index) for index in indices]


def _neg_log_softmax(row: np.ndarray, k: int) -> float:
    """Return ``log Σ_j exp(x_j) − x_k``."""
    return float(np.logaddexp.reduce(row - row[k]))


def _softmax(row: np.ndarray) -> list[Number]:
    return [Number(math.exp(-_neg_log_softmax(row, k)), "y", (k,)) for k in range(len(row))]


def _softmax_line(row: np.ndarray, k: int) -> Group:
    p = math.exp(-_neg_log_softmax(row, k))
    return Group("softmax", (), p, f"softmax: {_softmax_text(row, k)} = {fmt(p)}")


def _softmax_text(row: np.ndarray, k: int) -> str:
    return f"exp({fmt(row[k])}) / ({_sum_exp_text(row)})"


def _sum_exp_text(row: np.ndarray) -> str:
    return " + ".join(f"exp({fmt(a)})" for a in row)
