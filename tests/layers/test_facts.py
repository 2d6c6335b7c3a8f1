"""Layer facts: compare the facts of every public layer and op with properties computed by perturbing inputs."""

import pickle
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Facts,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    LpPool,
    MaxPool,
    RMSNorm,
    SpatialDropout,
    as_layer,
    layers,
    ops,
    parallel,
    residual,
    serial,
    with_facts,
)
from jaxconv.errors import ArgumentError
from jaxconv.layers.facts import FUNCTION_FACTS

KEY = jax.random.key(0)
C, SIZE = 8, 6
IMAGE, ROW = (SIZE, SIZE, C), (C,)
KERNEL = jax.random.normal(KEY, (3, 3, C, C))
VECTORS = {"mean": jnp.ones(C), "var": jnp.full(C, 4.0), "scale": jnp.full(C, 3.0), "bias": jnp.full(C, -1.0)}


class Case(NamedTuple):
    """A layer and the expected window of its positions, (size, stride, padding), independent of ``Layer.window``."""

    layer: Layer
    window: tuple[int, int, int] = (1, 1, 0)
    input_shape: tuple[int, ...] = IMAGE


LAYERS = {
    "Conv": Case(Conv(C, 3, stride=2), (3, 2, 0)),
    "Conv padded": Case(Conv(C, 3, padding="SAME"), (3, 1, 1)),
    "ConvTranspose": Case(ConvTranspose(C, 3, stride=2)),
    "ConvTranspose padded": Case(ConvTranspose(C, 3, stride=2, padding="SAME")),
    "Dense": Case(Dense(C), input_shape=ROW),
    "BatchNorm": Case(BatchNorm()),
    "LayerNorm": Case(LayerNorm()),
    "GroupNorm": Case(GroupNorm(2)),
    "InstanceNorm": Case(InstanceNorm()),
    "RMSNorm": Case(RMSNorm()),
    "MaxPool": Case(MaxPool(2), (2, 2, 0)),
    "AvgPool": Case(AvgPool(2), (2, 2, 0)),
    "LpPool": Case(LpPool(2), (2, 2, 0)),
    "MaxPool padded": Case(MaxPool(3, stride=1, padding="SAME"), (3, 1, 1)),
    "Dropout": Case(Dropout(0.5)),
    "SpatialDropout": Case(SpatialDropout(0.5)),
    "serial": Case(serial(Conv(C, 1), ops.relu)),
    "residual": Case(residual(Conv(C, 1), ops.relu)),
    "parallel": Case(parallel(ops.relu, ops.tanh)),
}
FUNCTIONS = {name: getattr(ops, name) for name in ops.activations.__all__} | {
    "flatten": ops.flatten,
    "global_avg_pool": ops.global_avg_pool,
    "global_max_pool": ops.global_max_pool,
    "adaptive_avg_pool": partial(ops.adaptive_avg_pool, output_size=4),
    "adaptive_max_pool": partial(ops.adaptive_max_pool, output_size=4),
    "max_pool": partial(ops.max_pool, window_shape=3, stride=1, padding="SAME"),
    "avg_pool": partial(ops.avg_pool, window_shape=3, stride=1, padding="SAME"),
    "lp_pool": partial(ops.lp_pool, window_shape=3, stride=1, padding="SAME"),
    "conv": partial(ops.conv, kernel=KERNEL, padding="SAME"),
    "conv_transpose": partial(ops.conv_transpose, kernel=KERNEL, padding="SAME"),
    "batch_norm": partial(ops.batch_norm, **VECTORS),
    "layer_norm": ops.layer_norm,
    "rms_norm": ops.rms_norm,
    "group_norm": partial(ops.group_norm, num_groups=2),
    "instance_norm": ops.instance_norm,
    "local_response_norm": ops.local_response_norm,
    "dropout": partial(ops.dropout, key=KEY, rate=0.5),
    "spatial_dropout": partial(ops.spatial_dropout, key=KEY, rate=0.5),
}
CASES = LAYERS | {name: Case(as_layer(function)) for name, function in FUNCTIONS.items()}
CASES["dense"] = Case(as_layer(partial(ops.dense, kernel=KERNEL[0, 0])), input_shape=ROW)

# Properties that hold but are not declared as facts, with the reason.
UNDECLARED = {
    ("softmax", "keeps_channels"): "its channels depend on each other",
    ("log_softmax", "keeps_channels"): "its channels depend on each other",
    ("relu6", "saturates_at"): "it rectifies",
}


def function_of(case):
    params, state = case.layer.init(KEY, case.input_shape)
    return jax.jit(lambda x: case.layer.apply(params, state, x)[0])


def sample(case, seed=1):
    return np.random.default_rng(seed).normal(size=(1, *case.input_shape)).astype(np.float32)


def changes(f, x, index):
    """Return the largest change of each output when the inputs at an index are perturbed."""
    largest_change = np.zeros(f(x).shape)
    for seed in range(6):
        changed = x.copy()
        changed[index] += 3 * np.random.default_rng(seed).normal(size=x[index].shape)
        largest_change = np.maximum(largest_change, abs(f(changed) - f(x)))
    return largest_change


def keeps_channels(case):
    f, x = function_of(case), sample(case)
    if f(x).shape[-1] != C:
        return False
    changed = np.array([changes(f, x, (..., c)).reshape(-1, C).mean(axis=0) for c in range(C)])
    own, other_channels = changed.diagonal(), np.where(np.eye(C), 0, changed).max(axis=0)
    return bool((own >= 2 * other_channels).all())


def keeps_positions(case):
    """Perturb one position and check that only outputs whose window contains it change."""
    f, x = function_of(case), sample(case)
    if x.ndim == 2:
        return True  # a vector has no positions
    y = f(x)
    size, stride, pad = case.window
    if y.shape[1:-1] != ((SIZE + 2 * pad - size) // stride + 1,) * 2:
        return False
    for position in ((0, 0), (2, 3), (5, 1)):
        changed = changes(f, x, (0, *position)).max(axis=-1)[0] > 1e-5
        covering = [
            np.array([q - (p * stride - pad) in range(size) for p in range(n)])
            for q, n in zip(position, y.shape[1:-1], strict=True)
        ]
        if (changed & ~np.outer(*covering)).any():
            return False
    return True


def identity_at_inference(case):
    x = sample(case)
    return np.array_equal(np.ravel(function_of(case)(x)), x.ravel())


def rectifies(case):
    f, x = function_of(case), np.linspace(0.1, 9, 2 * np.prod(case.input_shape)).astype(np.float32)
    x = x[::2].reshape(1, *case.input_shape)
    slope = jax.grad(lambda x: f(x).sum())
    return not f(-x).any() and not slope(-x).any() and bool(f(x).all())


def saturates_at(case):
    f, x = function_of(case), sample(case)
    x = (np.sign(x) * np.linspace(20, 100, x.size).reshape(x.shape)).astype(np.float32)
    y = f(x)
    if y.shape != x.shape:
        return None
    low_values, high_values = y[x < 0], y[x > 0]
    flat = np.ptp(low_values) < 1e-3 and np.ptp(high_values) < 1e-3 and low_values.mean() < high_values.mean()
    return (round(float(low_values.mean()), 3), round(float(high_values.mean()), 3)) if flat else None


def pools(case):
    """Compare with NumPy reductions over 2×2 windows, 3×3 windows or all positions."""
    x = sample(case)
    if x.ndim == 2:
        return None
    y = np.asarray(function_of(case)(x))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    windows = {
        (3, 3): [x[:, i::2, j::2] for i in range(2) for j in range(2)],
        (SIZE, SIZE): [padded[:, i : i + SIZE, j : j + SIZE] for i in range(3) for j in range(3)],
        (): [x[:, i, j] for i in range(SIZE) for j in range(SIZE)],
    }.get(y.shape[1:-1])
    reductions = {"max": np.nanmax, "mean": np.nanmean, "lp": lambda w, axis: np.sqrt(np.nansum(w * w, axis))}
    for name, reduce in reductions.items() if windows else ():
        expected = reduce(np.array(windows), axis=0)
        if expected.shape == y.shape and np.allclose(y, expected, rtol=1e-5, atol=1e-5):
            return name
    return None


def kernel_use(case):
    """Count the uses of a kernel entry, as the derivative of Σ y with respect to it for an x of ones."""
    params, state = case.layer.init(KEY, case.input_shape)
    if "kernel" not in params:
        return None
    x = jnp.ones((1, *case.input_shape))
    y, back = jax.vjp(lambda kernel: case.layer.apply(params | {"kernel": kernel}, state, x)[0], params["kernel"])
    uses = float(back(jnp.ones_like(y))[0].max())
    if params["kernel"].ndim == 2:
        return "dense" if uses == 1 else None
    positions = {"slide": np.prod(y.shape[1:-1]), "scatter": np.prod(case.input_shape[:-1])}
    return next((name for name, count in positions.items() if uses == count), None)


def merges(case):
    if case.layer.merge is None:
        return None
    x = sample(case)
    params, state = case.layer.init(KEY, case.input_shape)
    y, _ = case.layer.apply(params, state, x)
    branches = [child.apply(params.get(name, {}), {}, x)[0] for name, child in case.layer.children]
    expected = {"sum": sum(branches)} if len({b.shape for b in branches}) == 1 else {}
    expected["concat"] = np.concatenate(branches, axis=-1)
    return next((name for name, z in expected.items() if z.shape == y.shape and np.allclose(y, z)), None)


def has_state(case):
    return bool(case.layer.init(KEY, case.input_shape)[1])


COMPUTED = {f.__name__: f for f in (keeps_channels, keeps_positions, identity_at_inference, rectifies, saturates_at)}
COMPUTED |= {f.__name__: f for f in (pools, kernel_use, merges, has_state)}


@pytest.mark.parametrize("fact", Facts._fields)
def test_facts_match_computed_properties(fact):
    """Every property that holds is declared, except those in UNDECLARED."""
    declared = {name: getattr(case.layer.facts, fact) for name, case in CASES.items()}
    computed = {name: COMPUTED[fact](case) for name, case in CASES.items()}
    undeclared = {name for name, undeclared_fact in UNDECLARED if undeclared_fact == fact}
    assert {name for name in CASES if declared[name] != computed[name]} == undeclared
    assert all(declared[name] == Facts._field_defaults[fact] for name in undeclared)


def test_cases_cover_public_layers_and_ops():
    layer_makers = {name for name in layers.__all__ if getattr(layers, name).__annotations__.get("return") is Layer}
    assert layer_makers - {"as_layer", "with_facts"} <= CASES.keys()
    covered = {getattr(ops, name) for name in CASES if hasattr(ops, name)}
    assert FUNCTION_FACTS.keys() <= covered
    no_layers = {"backward", "batch_statistics", "convolution_matrix", "is_correct", "softmax_cross_entropy"}
    no_layers |= {"LOWERINGS", "from_keras_conv_transpose", "from_lax_conv_transpose"}
    assert set(ops.__all__) - CASES.keys() == no_layers


def test_function_of_same_name_has_default_facts():
    def relu(x):
        return x

    assert as_layer(relu).kind == "relu" and as_layer(relu).facts == Facts()
    assert as_layer(partial(relu)).facts == Facts()
    assert (
        as_layer(jax.nn.relu).facts == as_layer(partial(ops.relu)).facts == Facts(keeps_channels=True, rectifies=True)
    )


class Unhashable:
    __hash__ = None

    def __call__(self, x):
        return x


def test_as_layer_accepts_unhashable_function():
    assert as_layer(Unhashable()).facts == Facts()


def half_relu(x):
    return jnp.maximum(x, 0) / 2


def test_with_facts_sets_facts():
    layer = with_facts(half_relu, keeps_channels=True, rectifies=True)
    assert layer.kind == "half_relu" and layer.facts == Facts(keeps_channels=True, rectifies=True)

    pool = with_facts(MaxPool(2), keeps_channels=False)
    assert pool.facts == Facts(pools="max") and pool.window == MaxPool(2).window


def own_init(key, input_shape):
    return {}, {}


def own_apply(params, state, x, *, train=False, key=None):
    return x, state


@pytest.mark.parametrize(
    "layer",
    [
        with_facts(half_relu, rectifies=True),
        Layer("own", own_init, own_apply, facts=Facts(saturates_at=(-3, 3))),
        Conv(2, 3)._replace(facts=Facts(keeps_positions=False)),
        *(case.layer for case in LAYERS.values()),
    ],
    ids=repr,
)
def test_facts_survive_pickle(layer):
    assert pickle.loads(pickle.dumps(layer)).facts == layer.facts
    assert pickle.loads(pickle.dumps(serial(layer))).children[0][1].facts == layer.facts


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"rectifys": True},
            r"^with_facts: no argument is called rectifys: did you mean rectifies\? It takes keeps_ch",
        ),
        ({"rectifies": 1}, r"^with_facts: rectifies must be True or False, got 1$"),
        ({"pools": "average"}, r"^with_facts: pools must be None or one of max, mean, lp, got 'average'$"),
        ({"saturates_at": (1, -1)}, r"^with_facts: saturates_at must be None or a pair \(low, high\), got \(1, -1\)$"),
        ({"saturates_at": 1}, r"^with_facts: saturates_at must be None or a pair"),
    ],
)
def test_with_facts_rejects_invalid_facts(facts, message):
    with pytest.raises(ArgumentError, match=message):
        with_facts(half_relu, **facts)


def test_layer_rejects_facts_of_other_type():
    with pytest.raises(ArgumentError, match=r"^Layer 'own': facts must be a Facts, such as Facts\(.*got {'rectifies'"):
        Layer("own", own_init, own_apply, facts={"rectifies": True})
