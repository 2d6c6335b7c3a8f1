"""Who takes part: which library, in which mode, in which file, and what has to be installed."""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.networks import NETS
from jaxconv import checks
from jaxconv.bench.step_timing import JAXCONV, display_name
from jaxconv.errors import error_context

EXTRA = 'pip install -e ".[benchmarks]"'


class Contestant(NamedTuple):
    """One way to train a network.

    Attributes:
        peer: the library, and which way of using it.
        mode: ``step``, a call a step; ``epoch``, many steps a call.
        module: dotted name of the module whose ``build`` makes it.
        package: library that the module imports.
        options: of ``build``.
    """

    peer: str
    mode: str
    module: str
    package: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return display_name(self.peer, self.mode)


CONTESTANTS = (
    Contestant(JAXCONV, "step", "jaxconv.bench.step_timing", "jaxconv", {"mode": "step"}),
    Contestant(JAXCONV, "epoch", "jaxconv.bench.step_timing", "jaxconv", {"mode": "epoch"}),
    Contestant("lax", "step", "benchmarks.networks.plain_lax", "jax", {}),
    Contestant("torch", "step", "benchmarks.networks.pytorch", "torch", {}),
    Contestant("torch_channels_last", "step", "benchmarks.networks.pytorch", "torch", {"channels_last": True}),
    Contestant("nnx", "step", "benchmarks.networks.flax_nnx", "flax", {}),
    Contestant("equinox", "step", "benchmarks.networks.equinox_nn", "equinox", {}),
    Contestant("keras", "step", "benchmarks.networks.keras_jax", "keras", {}),
)
PEERS = tuple(dict.fromkeys(contestant.peer for contestant in CONTESTANTS if contestant.peer != JAXCONV))


def chosen(peers: Sequence[str]) -> list[Contestant]:
    """jaxconv, in both modes, and these peers; ``all`` is all of them.

    Raises:
        InputError: a peer that is not known.

    >>> [contestant.name for contestant in chosen(["lax"])]
    ['jaxconv step', 'jaxconv epoch', 'lax']
    """
    for peer in peers:
        with error_context("compare_frameworks"):
            checks.one_of("peer", peer, [*PEERS, "all"])
    return [each for each in CONTESTANTS if each.peer == JAXCONV or each.peer in peers or "all" in peers]


def missing(contestant: Contestant) -> str | None:
    """Why a contestant cannot start at all; None if it can."""
    if importlib.util.find_spec(contestant.package) is None:
        return f"{contestant.package} is not installed: {EXTRA}"
    return None


def has_net(contestant: Contestant, model: str) -> bool:
    """Whether a contestant has a network of this name: jaxconv has all of its models."""
    return contestant.peer == JAXCONV or model in NETS
