"""Facts of every public layer and op are computed: perturb a channel or a position, go to the ends of the range."""

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
    """A layer and the window that its positions have, counted without the layer's own: (size, stride, padding)."""

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

# Facts that hold but that a layer does not state, and why.
UNSTATED = {
    ("softmax", "keeps_channels"): "its channels compete",
    ("log_softmax", "keeps_channels"): "its channels compete",
    ("relu6", "saturates_at"): "it rectifies",
}


def function_of(case):
    params, state = case.layer.init(KEY, case.input_shape)
    return jax.jit(lambda x: case.layer.apply(params, state, x)[0])


def sample(case, seed=1):
    return np.random.default_rng(seed).normal(size=(1, *case.input_shape)).astype(np.float32)


def changes(f, x, index):
    """Return the largest change of each output where the inputs at an index are replaced."""
    most = np.zeros(f(x).shape)
    for seed in range(6):
        moved = x.copy()
        moved[index] += 3 * np.random.default_rng(seed).normal(size=x[index].shape)
        most = np.maximum(most, abs(f(moved) - f(x)))
    return most


def keeps_channels(case):
    f, x = function_of(case), sample(case)
    if f(x).shape[-1] != C:
        return False
    moved = np.array([changes(f, x, (..., c)).reshape(-1, C).mean(axis=0) for c in range(C)])
    own, others = moved.diagonal(), np.where(np.eye(C), 0, moved).max(axis=0)
    return bool((own >= 2 * others).all())


def keeps_positions(case):
    """Perturb one position: only outputs whose window covers it may change."""
    f, x = function_of(case), sample(case)
    if x.ndim == 2:
        return True  # a row has no positions
    y = f(x)
    size, stride, pad = case.window
    if y.shape[1:-1] != ((SIZE + 2 * pad - size) // stride + 1,) * 2:
        return False
    for position in ((0, 0), (2, 3), (5, 1)):
        moved = changes(f, x, (0, *position)).max(axis=-1)[0] > 1e-5
        reach = [
            np.array([q - (p * stride - pad) in range(size) for p in range(n)])
            for q, n in zip(position, y.shape[1:-1], strict=True)
        ]
        if (moved & ~np.outer(*reach)).any():
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
    low, high = y[x < 0], y[x > 0]
    flat = np.ptp(low) < 1e-3 and np.ptp(high) < 1e-3 and low.mean() < high.mean()
    return (round(float(low.mean()), 3), round(float(high.mean()), 3)) if flat else None


def pools(case):
    """Compare with numpy: over windows of 2×2, over windows of 3×3 or over all positions."""
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
    """Count the products of one entry of the kernel: the slope by it, of the sum of y, for an x of ones."""
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
    branches = [part.apply(params.get(name, {}), {}, x)[0] for name, part in case.layer.children]
    expected = {"sum": sum(branches)} if len({b.shape for b in branches}) == 1 else {}
    expected["concat"] = np.concatenate(branches, axis=-1)
    return next((name for name, z in expected.items() if z.shape == y.shape and np.allclose(y, z)), None)


def has_state(case):
    return bool(case.layer.init(KEY, case.input_shape)[1])


COMPUTED = {f.__name__: f for f in (keeps_channels, keeps_positions, identity_at_inference, rectifies, saturates_at)}
COMPUTED |= {f.__name__: f for f in (pools, kernel_use, merges, has_state)}


@pytest.mark.parametrize("fact", Facts._fields)
def test_facts_hold(fact):
    """And no layer leaves one out, but for those in UNSTATED."""
    stated = {name: getattr(case.layer.facts, fact) for name, case in CASES.items()}
    computed = {name: COMPUTED[fact](case) for name, case in CASES.items()}
    silent = {name for name, of in UNSTATED if of == fact}
    assert {name for name in CASES if stated[name] != computed[name]} == silent
    assert all(stated[name] == Facts._field_defaults[fact] for name in silent)


def test_every_public_layer_and_op_has_a_case():
    makers = {name for name in layers.__all__ if getattr(layers, name).__annotations__.get("return") is Layer}
    assert makers - {"as_layer", "with_facts"} <= CASES.keys()
    known = {getattr(ops, name) for name in CASES if hasattr(ops, name)}
    assert FUNCTION_FACTS.keys() <= known
    others = {"backward", "batch_statistics", "convolution_matrix", "is_correct", "softmax_cross_entropy", "LOWERINGS"}
    assert set(ops.__all__) - CASES.keys() == others | {"from_keras_conv_transpose", "from_lax_conv_transpose"}


def test_a_function_of_the_same_name_states_nothing():
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


def test_an_unhashable_function_is_a_layer():
    assert as_layer(Unhashable()).facts == Facts()


def half(x):
    return jnp.maximum(x, 0) / 2


def test_facts_of_a_function_of_ones_own():
    layer = with_facts(half, keeps_channels=True, rectifies=True)
    assert layer.kind == "half" and layer.facts == Facts(keeps_channels=True, rectifies=True)

    pool = with_facts(MaxPool(2), keeps_channels=False)
    assert pool.facts == Facts(pools="max") and pool.window == MaxPool(2).window


def own_init(key, input_shape):
    return {}, {}


def own_apply(params, state, x, *, train=False, key=None):
    return x, state


@pytest.mark.parametrize(
    "layer",
    [
        with_facts(half, rectifies=True),
        Layer("own", own_init, own_apply, facts=Facts(saturates_at=(-3, 3))),
        Conv(2, 3)._replace(facts=Facts(keeps_positions=False)),
        *(case.layer for case in LAYERS.values()),
    ],
    ids=repr,
)
def test_facts_are_the_same_after_pickle(layer):
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
def test_facts_that_are_none(facts, message):
    with pytest.raises(ArgumentError, match=message):
        with_facts(half, **facts)


def test_a_layer_takes_facts_only():
    with pytest.raises(ArgumentError, match=r"^Layer 'own': facts must be a Facts, such as Facts\(.*got {'rectifies'"):
        Layer("own", own_init, own_apply, facts={"rectifies": True})
