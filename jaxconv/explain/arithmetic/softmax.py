"""Softmax and the loss: a row of numbers measured against each other, with their numbers put in."""

import math

import numpy as np

from jaxconv.errors import InputError
from jaxconv.explain.step_by_step.terms import (
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
