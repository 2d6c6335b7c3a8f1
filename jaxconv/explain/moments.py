"""Sums over a data set that come to something: how its parts' means and covariances make those of the whole."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SAME = 0.999  # two filters whose correlation is beyond this do the same


class Correlation(NamedTuple):
    """How much alike the channels of a layer answer.

    Attributes:
        matrix: ``(C, C)``, ρ from −1 to 1; NaN in the rows and columns of constant channels.
        mean_absolute: the mean of |ρ| off the diagonal, without those; NaN if fewer than two are left.
        duplicates: the pairs ``(i, j)``, i < j, with |ρ| > 0.999.
        constant: the channels that are the same everywhere, such as dead ones: they have no correlation.
    """

    matrix: np.ndarray
    mean_absolute: float
    duplicates: list[tuple[int, int]]
    constant: list[int]


class Moments(NamedTuple):
    """Mean and spread of some places; those of more of them are ``joined``, in float64.

    Attributes:
        places: how many.
        mean: ``(C,)``.
        spread: ``(C, C)`` or, of each channel alone, ``(C,)``: the sum of products of what is left without the mean.
    """

    places: int
    mean: np.ndarray
    spread: np.ndarray

    def joined(self, other: "Moments") -> "Moments":
        """Chan, Golub and LeVeque, 1983, https://doi.org/10.1080/00031305.1983.10483115: no large sums of squares."""
        places, step = self.places + other.places, other.mean - self.mean
        between = step * step if self.spread.ndim == 1 else np.outer(step, step)
        return Moments(
            places,
            self.mean + step * (other.places / places),
            self.spread + other.spread + between * (self.places * other.places / places),
        )

    def correlation(self) -> Correlation:
        """What channels have in common, ``ρ = spread_ij / √(spread_ii · spread_jj)``."""
        squares = np.diag(self.spread)
        # What float32 makes of one number again and again may differ in its last digits.
        rounding = (4 * np.finfo(np.float32).eps * np.abs(self.mean)) ** 2 * self.places
        varies = squares > rounding
        size = np.sqrt(np.where(varies, squares, np.nan))
        with np.errstate(invalid="ignore"):
            matrix = np.clip(self.spread / np.outer(size, size), -1, 1)
        others = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
        others = others[~np.isnan(others)]
        pairs = np.argwhere(np.triu(np.nan_to_num(np.abs(matrix)) > SAME, k=1))
        return Correlation(
            matrix,
            float(others.mean()) if len(others) else float("nan"),
            [(int(i), int(j)) for i, j in pairs],
            [int(i) for i in np.flatnonzero(~varies)],
        )


def batch_moments(y: jax.Array, mask: jax.Array, *, crossed: bool) -> dict[str, jax.Array]:
    """Mean and spread of a batch's channels ``(N, …, C)``, of the images that the mask lets count.

    The mean is taken twice: what the first one is off by in float32 is the mean of what is left without it.

    Args:
        y: a layer's output.
        mask: ``(N,)``.
        crossed: of each pair of channels, or of each alone.
    """
    rows = y.reshape(-1, y.shape[-1]).astype(jnp.promote_types(y.dtype, jnp.float32))
    counts = jnp.repeat(mask, len(rows) // len(y))[:, None]
    total = jnp.maximum(counts.sum(dtype=rows.dtype), 1)
    mean = jnp.sum(rows, axis=0, where=counts) / total
    rows = jnp.where(counts, rows - mean[None], 0)
    rest = rows.sum(axis=0) / total
    rows = jnp.where(counts, rows - rest[None], 0)
    spread = jnp.matmul(rows.T, rows, precision="highest") if crossed else (rows * rows).sum(axis=0)
    return {"mean": mean, "rest": rest, "spread": spread}


def moments_of(found: dict[str, jax.Array], places: int) -> Moments:
    """What :func:`batch_moments` found, of so many places."""
    mean, rest, spread = (np.asarray(found[name], np.float64) for name in ("mean", "rest", "spread"))
    return Moments(places, mean + rest, spread)
