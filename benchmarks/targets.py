"""Registry of benchmark targets: library, mode, module and required package."""

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
        framework: library, with a suffix for variants.
        mode: ``step``, one step per call, or ``epoch``, many steps per call.
        module: dotted name of the module that defines ``build``.
        package: library that the module imports.
        options: keyword arguments of ``build``.
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
FRAMEWORKS = tuple(dict.fromkeys(target.framework for target in TARGETS if target.framework != JAXCONV))


def select_targets(frameworks: Sequence[str]) -> list[Target]:
    """Return the targets of jaxconv, in both modes, and of these frameworks; ``all`` selects every framework.

    Raises:
        InputError: if a framework is unknown.

    >>> [target.name for target in select_targets(["lax"])]
    ['jaxconv step', 'jaxconv epoch', 'lax']
    """
    for framework in frameworks:
        with error_context("compare_frameworks"):
            checks.one_of("framework", framework, [*FRAMEWORKS, "all"])
    chosen = FRAMEWORKS if "all" in frameworks else frameworks
    return [target for target in TARGETS if target.framework in (JAXCONV, *chosen)]


def missing_package(target: Target) -> str | None:
    """Return the reason if the package of a target is not installed, and None if it is."""
    if importlib.util.find_spec(target.package) is None:
        return f"{target.package} is not installed: {EXTRA}"
    return None


def has_network(target: Target, model: str) -> bool:
    """Return True if a target implements this network; jaxconv implements all of its models."""
    return target.framework == JAXCONV or model in NETS
