"""Layer facts: properties that other packages rely on, declared where the layer is defined.

``Layer.kind`` names a layer in paths and tables; no other package compares it.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

from jaxconv import checks, ops
from jaxconv.errors import ArgumentError

Pools = Literal["max", "mean", "lp"]
KernelUse = Literal["slide", "scatter", "dense"]
Merges = Literal["sum", "concat"]


class Facts(NamedTuple):
    """Properties of a layer that other packages rely on. By default only ``keeps_positions`` is assumed.

    They hold for inference. The facts of a composite layer describe the way it combines the outputs of its children;
    the children have their own facts.

    Attributes:
        keeps_channels: channel c of y is channel c of x, transformed or pooled: relu, norms, pools, dropout.
        keeps_positions: y at position p depends on x only within ``window`` at p, or only at p if there is no window.
            False where positions are mixed or removed: conv_transpose, group_norm, instance_norm, flatten, global
            pools.
        identity_at_inference: the values pass unchanged: dropout, flatten.
        rectifies: output and gradient are 0 for a negative input: relu, relu6.
        saturates_at: limits of the range, near which the slope vanishes: tanh (−1, 1), sigmoid (0, 1) and their hard
            variants.
        pools: reduction of a pooling layer, over its window or over all positions.
        kernel_use: application of ``params["kernel"]``: ``"slide"``, once at every output position (conv);
            ``"scatter"``, once at every input position (conv_transpose); ``"dense"``, once.
        merges: join of children that take the same x.
        has_state: ``init`` returns state, such as running statistics.

    >>> from jaxconv import ops
    >>> from jaxconv.layers import as_layer
    >>> as_layer(ops.tanh).facts.saturates_at
    (-1, 1)
    """

    keeps_channels: bool = False
    keeps_positions: bool = True
    identity_at_inference: bool = False
    rectifies: bool = False
    saturates_at: tuple[float, float] | None = None
    pools: Pools | None = None
    kernel_use: KernelUse | None = None
    merges: Merges | None = None
    has_state: bool = False


DEFAULTS = Facts()
POINTWISE = Facts(keeps_channels=True)
MIXES_POSITIONS = Facts(keeps_positions=False)
POOL = Facts(keeps_channels=True, keeps_positions=False)  # a plain function has no window that maps positions to x
FUNCTION_FACTS: dict[Callable[..., Any], Facts] = {  # plain functions can be layers; jax.nn.relu is ops.relu
    **dict.fromkeys((ops.relu, ops.relu6), POINTWISE._replace(rectifies=True)),
    **dict.fromkeys((ops.tanh, ops.hard_tanh), POINTWISE._replace(saturates_at=(-1, 1))),
    **dict.fromkeys((ops.sigmoid, ops.hard_sigmoid), POINTWISE._replace(saturates_at=(0, 1))),
    **dict.fromkeys((ops.celu, ops.elu, ops.gelu, ops.hard_silu, ops.leaky_relu, ops.log_sigmoid, ops.mish), POINTWISE),
    **dict.fromkeys((ops.selu, ops.silu, ops.soft_sign, ops.softplus, ops.squareplus), POINTWISE),
    **dict.fromkeys((ops.batch_norm, ops.layer_norm, ops.rms_norm, ops.local_response_norm), POINTWISE),
    **dict.fromkeys((ops.group_norm, ops.instance_norm), POINTWISE._replace(keeps_positions=False)),
    **dict.fromkeys((ops.dropout, ops.spatial_dropout), POINTWISE),  # the plain functions drop at inference too
    **dict.fromkeys((ops.max_pool, ops.global_max_pool), POOL._replace(pools="max")),
    **dict.fromkeys((ops.avg_pool, ops.global_avg_pool), POOL._replace(pools="mean")),
    **dict.fromkeys((ops.adaptive_avg_pool, ops.adaptive_max_pool), POOL),  # their windows differ in size
    ops.lp_pool: POOL._replace(pools="lp"),
    ops.conv: MIXES_POSITIONS,
    ops.conv_transpose: MIXES_POSITIONS,
    ops.flatten: Facts(keeps_positions=False, identity_at_inference=True),
}


def function_facts(function: Callable[..., Any]) -> Facts:
    """Return the facts of a plain function; the defaults for a function that is not in ``FUNCTION_FACTS``."""
    # Compare identities, as a callable object may be unhashable.
    return next((facts for key, facts in FUNCTION_FACTS.items() if key is function), DEFAULTS)


CHOICES = {"pools": get_args(Pools), "kernel_use": get_args(KernelUse), "merges": get_args(Merges)}


def check_facts(caller: str, facts: Any) -> None:
    """Raise ArgumentError unless ``facts`` is a Facts with valid values."""
    if not isinstance(facts, Facts):
        raise ArgumentError(f"{caller}: facts must be a Facts, such as Facts(keeps_channels=True), got {facts!r}")
    for name, value in facts._asdict().items():
        default = Facts._field_defaults[name]
        if isinstance(default, bool):
            valid, expected = isinstance(value, bool), "True or False"
        elif name in CHOICES:
            valid, expected = value is None or value in CHOICES[name], f"None or one of {', '.join(CHOICES[name])}"
        else:
            valid, expected = value is None or _is_range(value), "None or a pair (low, high)"
        if not valid:
            raise ArgumentError(f"{caller}: {name} must be {expected}, got {value!r}")


def _is_range(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(checks.is_number, value)) and value[0] < value[1]
