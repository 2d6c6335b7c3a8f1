"""From a run folder to its page and pictures."""

from typing import NamedTuple

import jax
import numpy as np

from jaxconv.experiment import Run

MOST_EXAMPLES = 10  # images that are looked at one by one


class Examples(NamedTuple):
    """The images that are looked at one by one."""

    images: np.ndarray  # (N, H, W, C) uint8
    names: list[str]
    labels: np.ndarray  # (N,): the true class; of a file, the likeliest
    said: list[str]  # what the network says


def one_network(run: Run) -> tuple[Run, list[str]]:
    """The run with one network in it: of several seeds the first, and a note that says so."""
    seeds = run.config.get("seeds", 1)
    if seeds == 1:
        return run, []
    params, state = jax.tree.map(lambda leaf: leaf[0], (run.params, run.state))
    note = f"This run trained {seeds} networks; the page looks at the first, of seed {run.config.get('seed', 0)}."
    return run._replace(params=params, state=state, config=run.config | {"seeds": 1}), [note]
