"""Who takes part: which library, in which mode, in which file, and what has to be installed."""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.networks import NETS
from jaxconv import checks
from jaxconv.bench.step_timing import JAXCONV, display_name
from jaxconv.errors import error_context

EXTRA = 'pip install -e ".[benchmarks]"'


class Target(NamedTuple):
    """One way to train a network.

    Attributes:
        framework: the library, and which way of using it.
        mode: ``step``, a call a step; ``epoch``, many steps a call.
        module: dotted name of the module whose ``build`` makes it.
        package: library that the module imports.
        options: of ``build``.
    """

    framework: str
    mode: str
    module: str
    package: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return display_name(self.framework, self.mode)


TARGETS = (
    Target(JAXCONV, "step", "jaxconv.bench.step_timing", "jaxconv", {"mode": "step"}),
    Target(JAXCONV, "epoch", "jaxconv.bench.step_timing", "jaxconv", {"mode": "epoch"}),
    Target("lax", "step", "benchmarks.networks.plain_lax", "jax", {}),
    Target("torch", "step", "benchmarks.networks.pytorch", "torch", {}),
    Target("torch_channels_last", "step", "benchmarks.networks.pytorch", "torch", {"channels_last": True}),
    Target("nnx", "step", "benchmarks.networks.flax_nnx", "flax", {}),
    Target("equinox", "step", "benchmarks.networks.equinox_nn", "equinox", {}),
    Target("keras", "step", "benchmarks.networks.keras_jax", "keras", {}),
)
FRAMEWORKS = tuple(dict.fromkeys(contestant.framework for contestant in TARGETS if contestant.framework != JAXCONV))


def select_targets(frameworks: Sequence[str]) -> list[Target]:
    """jaxconv, in both modes, and these frameworks; ``all`` is all of them.

    Raises:
        InputError: a framework that is not known.

    >>> [contestant.name for contestant in select_targets(["lax"])]
    ['jaxconv step', 'jaxconv epoch', 'lax']
    """
    for framework in frameworks:
        with error_context("compare_frameworks"):
            checks.one_of("framework", framework, [*FRAMEWORKS, "all"])
    chosen = FRAMEWORKS if "all" in frameworks else frameworks
    return [target for target in TARGETS if target.framework in (JAXCONV, *chosen)]


def missing(contestant: Target) -> str | None:
    """Why a contestant cannot start at all; None if it can."""
    if importlib.util.find_spec(contestant.package) is None:
        return f"{contestant.package} is not installed: {EXTRA}"
    return None


def has_net(contestant: Target, model: str) -> bool:
    """Whether a contestant has a network of this name: jaxconv has all of its models."""
    return contestant.framework == JAXCONV or model in NETS
