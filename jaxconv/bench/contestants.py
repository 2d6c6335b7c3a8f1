"""Who takes part: which library, in which mode, in which file, and what has to be installed."""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxconv.bench.peers import NETS
from jaxconv.errors import known

OURS = "jaxconv"
EXTRA = 'pip install "jaxconv[peers]"'


class Contestant(NamedTuple):
    """One way to train a network.

    Attributes:
        peer: the library, and which way of using it.
        mode: ``step``, a call a step; ``epoch``, many steps a call.
        file: in :mod:`jaxconv.bench.peers`.
        package: what it imports.
        options: of the file's ``build``.
    """

    peer: str
    mode: str
    file: str
    package: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return label(self.peer, self.mode)


def label(peer: str, mode: str) -> str:
    """What a contestant is called where there is one line for each; the peers have but one mode.

    >>> label("jaxconv", "epoch"), label("torch", "step")
    ('jaxconv epoch', 'torch')
    """
    return f"{peer} {mode}" if peer == OURS else peer


CONTESTANTS = (
    Contestant(OURS, "step", "ours", "jaxconv", {"mode": "step"}),
    Contestant(OURS, "epoch", "ours", "jaxconv", {"mode": "epoch"}),
    Contestant("lax", "step", "by_lax", "jax", {}),
    Contestant("torch", "step", "by_torch", "torch", {}),
    Contestant("torch_channels_last", "step", "by_torch", "torch", {"channels_last": True}),
    Contestant("nnx", "step", "by_nnx", "flax", {}),
    Contestant("equinox", "step", "by_equinox", "equinox", {}),
    Contestant("keras", "step", "by_keras", "keras", {}),
)
PEERS = tuple(dict.fromkeys(contestant.peer for contestant in CONTESTANTS if contestant.peer != OURS))
BATCHES = {"mnist_cnn": 256}  # examples a step; of any other model
BATCH = 128


def batch_of(model: str) -> int:
    """Examples a step of a model, where nobody says otherwise.

    >>> batch_of("mnist_cnn"), batch_of("lenet5")
    (256, 128)
    """
    return BATCHES.get(model, BATCH)


def chosen(peers: Sequence[str]) -> list[Contestant]:
    """jaxconv, in both modes, and these peers; ``all`` is all of them.

    Raises:
        InputError: a peer that is not known.

    >>> [contestant.name for contestant in chosen(["lax"])]
    ['jaxconv step', 'jaxconv epoch', 'lax']
    """
    for peer in peers:
        known("peer", peer, [*PEERS, "all"], by="bench")
    return [each for each in CONTESTANTS if each.peer == OURS or each.peer in peers or "all" in peers]


def missing(contestant: Contestant) -> str | None:
    """Why a contestant cannot start at all; None if it can."""
    if importlib.util.find_spec(contestant.package) is None:
        return f"{contestant.package} is not installed: {EXTRA}"
    return None


def has_net(contestant: Contestant, model: str) -> bool:
    """Whether a contestant has a network of this name: jaxconv has all of its models."""
    return contestant.peer == OURS or model in NETS
