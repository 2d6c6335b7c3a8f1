"""Channel statistics and diagnosis: planted problems are detected, and numbers match NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, MaxPool, explain, flatten, relu, residual, serial, with_facts
from jaxconv.layers.traversal import source_kernel_layer
from jaxconv.ops import global_avg_pool, global_max_pool, hard_sigmoid, hard_tanh, relu6, sigmoid, tanh


def create_network():
    return serial(
        Conv(4, 3, padding="SAME"), BatchNorm(), relu, MaxPool(2), Conv(5, 3, padding="SAME"), relu6, flatten, Dense(3)
    )


@pytest.fixture(scope="module")
def network():
    model = create_network()
    params, state = model.init(jax.random.key(1), (6, 8, 2))
    biases = jax.tree.map(lambda leaf: leaf + 0.3 if leaf.ndim == 1 else leaf, params)  # no filter is dead
    return model, biases, state, np.random.default_rng(2).random((23, 6, 8, 2)).astype(np.float32)


def set_filter(params, layer, channel, kernel=None, bias=None):
    layer_params = params[layer]
    updated = {
        "kernel": layer_params["kernel"] if kernel is None else layer_params["kernel"].at[..., channel].set(kernel),
        "bias": layer_params["bias"] if bias is None else layer_params["bias"].at[channel].set(bias),
    }
    return params | {layer: updated}


def test_activation_statistics_match_numpy_for_any_batching(network):
    model, params, state, images = network
    params = set_filter(params, "conv2", 1, bias=-0.5)  # rarely active
    maps = explain.feature_maps(model, params, state, images)
    statistics = explain.activation_statistics(model, params, state, images, batch_size=5)  # 23 = 4 · 5 + 3
    assert list(statistics) == list(explain.layer_names(model))
    for name, y in maps.items():
        y = np.asarray(y, np.float64).reshape(len(images), -1, y.shape[-1])
        np.testing.assert_array_equal(statistics[name].active_fraction, (y != 0).any(axis=1).mean(axis=0))
        np.testing.assert_allclose(statistics[name].zero_fraction, (y == 0).mean(axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(statistics[name].mean, y.mean(axis=(0, 1)), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(statistics[name].std, y.std(axis=(0, 1)), rtol=1e-5, atol=1e-7)
        assert statistics[name].saturated_fraction is None and statistics[name].correlation is None
    active = statistics["relu61"].active_fraction
    assert 0 < active[1] < 1 and (np.delete(active, 1) == 1).all()  # the test covers partly active channels


def test_dead_filters_finds_only_planted_filter(network):
    """Lecture row 003-24."""
    model, params, state, images = network
    assert explain.dead_filters(model, params, state, images, batch_size=8) == []
    with_dead = set_filter(params, "conv2", 3, bias=-1e3)
    [dead] = explain.dead_filters(model, with_dead, state, images, batch_size=8)
    assert dead == ("relu61", 3, 0.0, "conv2")
    with_rare = set_filter(with_dead, "conv2", 1, bias=-0.5)
    statistics = explain.activation_statistics(model, with_rare, state, images, layers=["relu61"])
    fraction = statistics["relu61"].active_fraction[1]
    reported = explain.dead_filters(model, with_rare, state, images, max_active_fraction=fraction)
    assert reported == [("relu61", 1, fraction, "conv2"), ("relu61", 3, 0.0, "conv2")]
    with_dead_norm = params | {"bn1": {"scale": params["bn1"]["scale"], "bias": params["bn1"]["bias"].at[2].set(-1e3)}}
    # The kernel is found through the batch norm.
    assert explain.dead_filters(model, with_dead_norm, state, images) == [("relu1", 2, 0.0, "conv1")]


def test_dead_filters_reports_active_fraction():
    images = np.zeros((7, 3, 3, 2), np.float32)
    images[2, 1, 2, 0] = images[5, 0, 0, 0] = images[:, 2, 2, 1] = 1
    statistics = explain.activation_statistics(serial(relu), {}, {}, images, batch_size=4)["relu1"]
    np.testing.assert_array_equal(statistics.active_fraction, [2 / 7, 1])
    np.testing.assert_allclose(statistics.zero_fraction, [1 - 2 / 63, 1 - 7 / 63])
    assert explain.dead_filters(serial(relu), {}, {}, images, max_active_fraction=0.3) == [("relu1", 0, 2 / 7, None)]


def test_source_kernel_layer_is_unknown_after_sum():
    block = residual(Conv(2, 1), relu, Conv(2, 1))
    model = serial(Conv(2, 3, padding="SAME"), block, relu, residual(relu), tanh, relu)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    sources = source_kernel_layer(model, params, state, (4, 4, 1))
    assert sources["res1/body/relu1"] == "res1/body/conv1" and sources["res1/shortcut"] == "conv1"
    assert not {"res1", "relu1", "res2/body/relu1", "res2", "tanh1", "relu2"} & set(sources)
    model = serial(Conv(2, 4), relu, flatten, relu, lambda x: x[:, ::-1], relu)  # the lambda may mix channels
    sources = source_kernel_layer(model, model.init(jax.random.key(0), (4, 4, 1))[0], {}, (4, 4, 1))
    assert sources == {"conv1": "conv1", "relu1": "conv1"}


@pytest.mark.parametrize("pool", [global_avg_pool, global_max_pool])
def test_source_kernel_layer_passes_global_pools(pool):
    model = serial(Conv(2, 3), pool, relu, Dense(3))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    sources = source_kernel_layer(model, params, state, (4, 4, 1))
    assert list(sources.values()) == ["conv1", "conv1", "conv1", "dense1"]


def test_custom_functions_count_by_facts_not_names():
    def relu(x):
        return x - 1

    def tanh(x):
        return x

    def own(x):
        return 3 * jnp.maximum(x, 0)

    images = np.zeros((2, 1, 1, 1), np.float32)
    stated = with_facts(own, keeps_channels=True, rectifies=True)
    model = serial(relu, tanh, own, stated)
    assert [dead.layer for dead in explain.dead_filters(model, {}, {}, images)] == ["own2"]
    assert explain.saturation(model, {}, {}, images) == {}
    assert [row.dead for row in explain.diagnose(model, {}, {}, images).rows] == [None, None, None, 1]
    with pytest.raises(InputError, match="the model has no relu"):
        explain.guided_backprop(serial(relu, own, flatten), {}, {}, images, 0)
    assert not explain.guided_backprop(serial(stated, flatten), {}, {}, images - 1, target_fn=lambda y: y[:, 0]).any()
    squashed = serial(with_facts(lambda x: 3 * jnp.tanh(x), saturates_at=(-3, 3)))
    images = np.array([9.0, 9.0, 0.0, -9.0], np.float32).reshape(4, 1, 1, 1)
    assert list(explain.saturation(squashed, {}, {}, images).values()) == [0.75]
    assert "75% of its outputs are nearly -3 and 3" in explain.diagnose(squashed, {}, {}, images).warnings[0]


def test_saturation_equals_planted_fraction(rng):
    values = rng.permutation(np.repeat([-9.0, -0.5, 0.4, 9.0], [30, 20, 40, 10])).astype(np.float32)
    images = values.reshape(10, 5, 2, 1)
    for layer in (tanh, hard_tanh, sigmoid, hard_sigmoid):
        [(name, fraction)] = explain.saturation(serial(layer), {}, {}, images, batch_size=3).items()
        assert (name, fraction) == (f"{layer.__name__}1", 0.4)
    assert explain.saturation(serial(relu), {}, {}, images) == {}
    outputs = np.array([0.0100001, 0.0099, 0.9899, 0.9901], np.float32)  # sigmoid outputs
    inputs = np.log(outputs / (1 - outputs)).reshape(4, 1, 1, 1)
    assert explain.saturation(serial(sigmoid), {}, {}, inputs) == {"sigmoid1": 0.5}
    edge_inputs = np.arctanh(np.array([-0.9901, -0.9899, 0.9899, 0.9901], np.float32)).reshape(4, 1, 1, 1)
    assert explain.saturation(serial(tanh), {}, {}, edge_inputs) == {"tanh1": 0.5}


@pytest.mark.parametrize("offset", [0, 3000])
def test_feature_correlation_matches_numpy_with_offset(rng, offset):
    mixed = rng.normal(size=(22, 3, 4, 3)) @ rng.normal(size=(3, 5)) + rng.normal(size=(22, 3, 4, 5))
    drift = np.arange(22)[:, None, None, None] / 10  # the mean differs between batches
    images = (mixed + drift + offset).astype(np.float32)
    expected = np.corrcoef(images.reshape(-1, 5).astype(np.float64), rowvar=False)
    correlation = explain.feature_correlation(serial(lambda x: x), {}, {}, images, layer="lambda1", batch_size=5)
    np.testing.assert_allclose(correlation.matrix, expected, atol=2e-6)
    np.testing.assert_allclose(correlation.mean_absolute, np.abs(expected[~np.eye(5, dtype=bool)]).mean(), rtol=1e-5)
    assert correlation.duplicates == [] and correlation.constant == []


def test_feature_correlation_finds_only_planted_duplicate(network):
    """Lecture row 003-25."""
    model, params, state, images = network
    assert explain.feature_correlation(model, params, state, images, layer="conv2").duplicates == []
    with_duplicate = set_filter(params, "conv2", 4, params["conv2"]["kernel"][..., 1], params["conv2"]["bias"][1])
    correlation = explain.feature_correlation(model, with_duplicate, state, images, layer="conv2", batch_size=7)
    assert correlation.duplicates == [(1, 4)]
    with_negated = set_filter(params, "conv2", 0, -params["conv2"]["kernel"][..., 2])  # ρ = −1 is a duplicate as well
    assert explain.feature_correlation(model, with_negated, state, images, layer="conv2").duplicates == [(0, 2)]


@pytest.mark.parametrize("constant", [0.1, 1e4 / 3])
def test_feature_correlation_of_constant_channel_is_nan(rng, constant):
    images = rng.normal(size=(9, 4, 3, 3)).astype(np.float32)
    images[..., 1] = constant
    images[::2, ::3, :, 1] = np.nextafter(images[::2, ::3, :, 1], np.float32(9e9), dtype=np.float32)  # float32 rounding
    correlation = explain.feature_correlation(serial(lambda x: x), {}, {}, images, layer="lambda1", batch_size=4)
    expected = np.corrcoef(images[..., 0].ravel().astype(np.float64), images[..., 2].ravel().astype(np.float64))[0, 1]
    assert correlation.constant == [1]
    assert np.isnan(correlation.matrix[1]).all() and np.isnan(correlation.matrix[:, 1]).all()
    np.testing.assert_allclose(
        [correlation.matrix[0, 2], correlation.mean_absolute], [expected, abs(expected)], rtol=1e-5
    )
    images[..., 0] = 7.0
    assert np.isnan(explain.feature_correlation(serial(relu), {}, {}, images * 0, layer="relu1").mean_absolute)


def test_diagnose_reports_planted_problems_by_layer(network):
    model, params, state, images = network
    labels = np.arange(23) % 3
    healthy = explain.diagnose(model, params, state, images, labels)
    assert healthy.warnings == []
    excluded = ("max_pool1", "flatten1", "dropout1")
    assert [row.name for row in healthy.rows] == [name for name in explain.layer_names(model) if name not in excluded]
    separate = explain.feature_correlation(model, params, state, images, layer="conv2")
    np.testing.assert_allclose(healthy.correlations["conv2"].matrix, separate.matrix, atol=1e-6)
    assert [row.name for row in healthy.rows if row.dead is not None] == ["relu1", "relu61"]
    assert [row.name for row in healthy.rows if row.correlation is not None] == ["conv1", "conv2"]
    norms = explain.gradient_norms(model, params, state, images, labels)
    for row in healthy.rows:
        assert (row.gradient is None) == (row.name not in norms)
        if row.gradient is not None:
            np.testing.assert_allclose(row.gradient, norms[row.name], rtol=1e-4)
    planted = set_filter(params, "conv2", 4, params["conv2"]["kernel"][..., 1], params["conv2"]["bias"][1])
    planted = set_filter(planted, "conv2", 3, bias=-1e3)
    diagnosis = explain.diagnose(model, planted, state, images, batch_size=10)
    assert [(row.dead, row.duplicates) for row in diagnosis.rows if row.name in ("conv2", "relu61")] == [
        (None, 1),
        (1, None),
    ]
    duplicate, dead = diagnosis.warnings
    assert duplicate.startswith("conv2: duplicate filters (|ρ| > 0.999): 1 and 4;")
    assert dead.startswith("conv2: 1 of 5 filters is dead (3): relu61 is 0 for all 23 images, so the gradient is 0")


def test_diagnose_warns_of_saturated_and_vanishing_layers(rng):
    model = serial(flatten, Dense(6), sigmoid, Dense(6), tanh, Dense(2))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    params["dense2"]["kernel"] *= 1e3
    images, labels = rng.random((120, 4, 4, 1)).astype(np.float32), rng.integers(0, 2, 120)
    saturated, vanishing = explain.diagnose(model, params, state, images, labels).warnings
    assert saturated.startswith("tanh1: ") and "% of its outputs are nearly -1 and 1" in saturated
    assert vanishing.startswith("dense2: the gradient is less than a thousandth")
    broken = params | {"dense3": {"kernel": params["dense3"]["kernel"] * np.nan, "bias": params["dense3"]["bias"]}}
    assert "dense3: not all of its outputs are finite" in explain.diagnose(model, broken, state, images).warnings[-1]


EMPTY = np.zeros((0, 6, 8, 2), np.float32)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"activation_statistics: images must be .* got shape \(0, 6, 8, 2\)",
            lambda *n: explain.activation_statistics(*n, EMPTY),
        ),
        (
            r"activation_statistics: unknown layer 'conv3'",
            lambda *n: explain.activation_statistics(*n, EMPTY + 1, layers=["conv3"]),
        ),
        (r"dead_filters: images must be .* got shape \(0, 6, 8, 2\)", lambda *n: explain.dead_filters(*n, EMPTY)),
        (
            r"dead_filters: max_active_fraction must be a fraction",
            lambda *n: explain.dead_filters(*n, EMPTY, max_active_fraction=1),
        ),
        (r"saturation: images must be .* got shape \(0, 6, 8, 2\)", lambda *n: explain.saturation(*n, EMPTY)),
        (r"feature_correlation: unknown layer 'con'", lambda *n: explain.feature_correlation(*n, EMPTY, layer="con")),
        (
            r"feature_correlation: images must be .* with N >= 1",
            lambda *n: explain.feature_correlation(*n, EMPTY, layer="conv1"),
        ),
        (r"diagnose: images must be .* got shape \(0, 6, 8, 2\)", lambda *n: explain.diagnose(*n, EMPTY)),
        (
            r"diagnose: labels must be \(1,\), one per image, got shape \(2,\)",
            lambda *n: explain.diagnose(*n, np.ones((1, 6, 8, 2)), [0, 1]),
        ),
        (r"gradient_norms: images must be .* with N >= 1", lambda *n: explain.gradient_norms(*n, EMPTY, [])),
    ],
)
def test_channel_statistics_invalid_arguments_raise(network, message, call):
    with pytest.raises(InputError, match=message):
        call(*network[:3])
