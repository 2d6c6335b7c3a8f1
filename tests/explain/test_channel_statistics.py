"""What is planted is found, and nothing else; numbers against numpy on the feature maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, MaxPool, explain, flatten, relu, residual, serial, with_facts
from jaxconv.layers.traversal import source_kernel_layer
from jaxconv.ops import global_avg_pool, global_max_pool, hard_sigmoid, hard_tanh, relu6, sigmoid, tanh


def network():
    return serial(
        Conv(4, 3, padding="SAME"), BatchNorm(), relu, MaxPool(2), Conv(5, 3, padding="SAME"), relu6, flatten, Dense(3)
    )


@pytest.fixture(scope="module")
def built():
    model = network()
    params, state = model.init(jax.random.key(1), (6, 8, 2))
    biases = jax.tree.map(lambda leaf: leaf + 0.3 if leaf.ndim == 1 else leaf, params)  # so that no filter is dead
    return model, biases, state, np.random.default_rng(2).random((23, 6, 8, 2)).astype(np.float32)


def with_filter(params, layer, channel, kernel=None, bias=None):
    old = params[layer]
    new = {
        "kernel": old["kernel"] if kernel is None else old["kernel"].at[..., channel].set(kernel),
        "bias": old["bias"] if bias is None else old["bias"].at[channel].set(bias),
    }
    return params | {layer: new}


def test_activity_is_numpys_of_the_feature_maps_whatever_the_batches(built):
    model, params, state, images = built
    params = with_filter(params, "conv2", 1, bias=-0.5)  # rarely alive
    maps = explain.feature_maps(model, params, state, images)
    found = explain.activation_statistics(model, params, state, images, batch_size=5)  # 23 = 4 · 5 + 3
    assert list(found) == list(explain.layer_names(model))
    for name, y in maps.items():
        y = np.asarray(y, np.float64).reshape(len(images), -1, y.shape[-1])
        np.testing.assert_array_equal(found[name].active_fraction, (y != 0).any(axis=1).mean(axis=0))
        np.testing.assert_allclose(found[name].zero_fraction, (y == 0).mean(axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(found[name].mean, y.mean(axis=(0, 1)), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found[name].std, y.std(axis=(0, 1)), rtol=1e-5, atol=1e-7)
        assert found[name].saturated_fraction is None and found[name].correlation is None
    live = found["relu61"].active_fraction
    assert 0 < live[1] < 1 and (np.delete(live, 1) == 1).all()  # or the test would say nothing


def test_a_planted_dead_filter_is_found_and_no_other(built):
    """Lecture row 003-24."""
    model, params, state, images = built
    assert explain.dead_filters(model, params, state, images, batch_size=8) == []
    dying = with_filter(params, "conv2", 3, bias=-1e3)
    [dead] = explain.dead_filters(model, dying, state, images, batch_size=8)
    assert dead == ("relu61", 3, 0.0, "conv2")
    rare = with_filter(dying, "conv2", 1, bias=-0.5)
    share = explain.activation_statistics(model, rare, state, images, layers=["relu61"])["relu61"].active_fraction[1]
    both = explain.dead_filters(model, rare, state, images, max_active_fraction=share)
    assert both == [("relu61", 1, share, "conv2"), ("relu61", 3, 0.0, "conv2")]
    first = params | {"bn1": {"scale": params["bn1"]["scale"], "bias": params["bn1"]["bias"].at[2].set(-1e3)}}
    assert explain.dead_filters(model, first, state, images) == [("relu1", 2, 0.0, "conv1")]  # through the batch norm


def test_of_a_filter_that_answers_to_some_images_the_share_is_told():
    images = np.zeros((7, 3, 3, 2), np.float32)
    images[2, 1, 2, 0] = images[5, 0, 0, 0] = images[:, 2, 2, 1] = 1
    found = explain.activation_statistics(serial(relu), {}, {}, images, batch_size=4)["relu1"]
    np.testing.assert_array_equal(found.active_fraction, [2 / 7, 1])
    np.testing.assert_allclose(found.zero_fraction, [1 - 2 / 63, 1 - 7 / 63])
    assert explain.dead_filters(serial(relu), {}, {}, images, max_active_fraction=0.3) == [("relu1", 0, 2 / 7, None)]


def test_behind_a_sum_there_is_no_one_filter():
    inner = residual(Conv(2, 1), relu, Conv(2, 1))
    model = serial(Conv(2, 3, padding="SAME"), inner, relu, residual(relu), tanh, relu)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    found = source_kernel_layer(model, params, state, (4, 4, 1))
    assert found["res1/body/relu1"] == "res1/body/conv1" and found["res1/shortcut"] == "conv1"
    assert not {"res1", "relu1", "res2/body/relu1", "res2", "tanh1", "relu2"} & set(found)
    model = serial(Conv(2, 4), relu, flatten, relu, lambda x: x[:, ::-1], relu)  # nor behind what may mix channels
    found = source_kernel_layer(model, model.init(jax.random.key(0), (4, 4, 1))[0], {}, (4, 4, 1))
    assert found == {"conv1": "conv1", "relu1": "conv1"}


@pytest.mark.parametrize("pool", [global_avg_pool, global_max_pool])
def test_a_global_pool_has_the_channels_of_its_convolution(pool):
    model = serial(Conv(2, 3), pool, relu, Dense(3))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    found = source_kernel_layer(model, params, state, (4, 4, 1))
    assert list(found.values()) == ["conv1", "conv1", "conv1", "dense1"]


def test_a_function_counts_by_its_facts_and_not_by_its_name():
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


def test_planted_saturation_is_the_share_that_is_planted(rng):
    values = rng.permutation(np.repeat([-9.0, -0.5, 0.4, 9.0], [30, 20, 40, 10])).astype(np.float32)
    images = values.reshape(10, 5, 2, 1)
    for layer in (tanh, hard_tanh, sigmoid, hard_sigmoid):
        [(name, share)] = explain.saturation(serial(layer), {}, {}, images, batch_size=3).items()
        assert (name, share) == (f"{layer.__name__}1", 0.4)
    assert explain.saturation(serial(relu), {}, {}, images) == {}
    just = np.array([0.0100001, 0.0099, 0.9899, 0.9901], np.float32)  # of a sigmoid
    logit = np.log(just / (1 - just)).reshape(4, 1, 1, 1)
    assert explain.saturation(serial(sigmoid), {}, {}, logit) == {"sigmoid1": 0.5}
    edge = np.arctanh(np.array([-0.9901, -0.9899, 0.9899, 0.9901], np.float32)).reshape(4, 1, 1, 1)
    assert explain.saturation(serial(tanh), {}, {}, edge) == {"tanh1": 0.5}


@pytest.mark.parametrize("offset", [0, 3000])
def test_correlation_is_numpys_even_far_from_0(rng, offset):
    mixed = rng.normal(size=(22, 3, 4, 3)) @ rng.normal(size=(3, 5)) + rng.normal(size=(22, 3, 4, 5))
    images = (mixed + np.arange(22)[:, None, None, None] / 10 + offset).astype(np.float32)  # batches differ
    want = np.corrcoef(images.reshape(-1, 5).astype(np.float64), rowvar=False)
    found = explain.feature_correlation(serial(lambda x: x), {}, {}, images, layer="lambda1", batch_size=5)
    np.testing.assert_allclose(found.matrix, want, atol=2e-6)
    np.testing.assert_allclose(found.mean_absolute, np.abs(want[~np.eye(5, dtype=bool)]).mean(), rtol=1e-5)
    assert found.duplicates == [] and found.constant == []


def test_a_planted_duplicate_is_found_and_no_other(built):
    """Lecture row 003-25."""
    model, params, state, images = built
    assert explain.feature_correlation(model, params, state, images, layer="conv2").duplicates == []
    twin = with_filter(params, "conv2", 4, params["conv2"]["kernel"][..., 1], params["conv2"]["bias"][1])
    assert explain.feature_correlation(model, twin, state, images, layer="conv2", batch_size=7).duplicates == [(1, 4)]
    mirror = with_filter(params, "conv2", 0, -params["conv2"]["kernel"][..., 2])  # ρ = −1 says the same too
    assert explain.feature_correlation(model, mirror, state, images, layer="conv2").duplicates == [(0, 2)]


@pytest.mark.parametrize("constant", [0.1, 1e4 / 3])
def test_a_constant_channel_has_no_correlation(rng, constant):
    images = rng.normal(size=(9, 4, 3, 3)).astype(np.float32)
    images[..., 1] = constant
    images[::2, ::3, :, 1] = np.nextafter(images[::2, ::3, :, 1], np.float32(9e9), dtype=np.float32)  # as sums round
    found = explain.feature_correlation(serial(lambda x: x), {}, {}, images, layer="lambda1", batch_size=4)
    want = np.corrcoef(images[..., 0].ravel().astype(np.float64), images[..., 2].ravel().astype(np.float64))[0, 1]
    assert found.constant == [1] and np.isnan(found.matrix[1]).all() and np.isnan(found.matrix[:, 1]).all()
    np.testing.assert_allclose([found.matrix[0, 2], found.mean_absolute], [want, abs(want)], rtol=1e-5)
    images[..., 0] = 7.0
    assert np.isnan(explain.feature_correlation(serial(relu), {}, {}, images * 0, layer="relu1").mean_absolute)


def test_the_table_tells_what_is_wrong_with_which_layer(built):
    model, params, state, images = built
    labels = np.arange(23) % 3
    well = explain.diagnose(model, params, state, images, labels)
    assert well.warnings == []
    handed_on = ("max_pool1", "flatten1", "dropout1")
    assert [row.name for row in well.rows] == [name for name in explain.layer_names(model) if name not in handed_on]
    alone = explain.feature_correlation(model, params, state, images, layer="conv2")
    np.testing.assert_allclose(well.correlations["conv2"].matrix, alone.matrix, atol=1e-6)
    assert [row.name for row in well.rows if row.dead is not None] == ["relu1", "relu61"]
    assert [row.name for row in well.rows if row.correlation is not None] == ["conv1", "conv2"]
    norms = explain.gradient_norms(model, params, state, images, labels)
    for row in well.rows:
        assert (row.gradient is None) == (row.name not in norms)
        if row.gradient is not None:
            np.testing.assert_allclose(row.gradient, norms[row.name], rtol=1e-4)
    ill = with_filter(params, "conv2", 4, params["conv2"]["kernel"][..., 1], params["conv2"]["bias"][1])
    ill = with_filter(ill, "conv2", 3, bias=-1e3)
    found = explain.diagnose(model, ill, state, images, batch_size=10)
    assert [(row.dead, row.duplicates) for row in found.rows if row.name in ("conv2", "relu61")] == [
        (None, 1),
        (1, None),
    ]
    doubled, dead = found.warnings
    assert doubled.startswith("conv2: filters do the same (|ρ| > 0.999): 1 and 4;")
    assert dead.startswith(
        "conv2: 1 of 5 filters is dead (3): behind relu61 nothing is left of them in any of 23 images"
    )


def test_saturated_and_starved_layers_are_told(rng):
    model = serial(flatten, Dense(6), sigmoid, Dense(6), tanh, Dense(2))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    params["dense2"]["kernel"] *= 1e3
    images, labels = rng.random((120, 4, 4, 1)).astype(np.float32), rng.integers(0, 2, 120)
    saturated, starved = explain.diagnose(model, params, state, images, labels).warnings
    assert saturated.startswith("tanh1: ") and "% of its outputs are nearly -1 and 1" in saturated
    assert starved.startswith("dense2: the gradient is less than a thousandth")
    broken = params | {"dense3": {"kernel": params["dense3"]["kernel"] * np.nan, "bias": params["dense3"]["bias"]}}
    assert "dense3: not all of its outputs are finite" in explain.diagnose(model, broken, state, images).warnings[-1]


NO = np.zeros((0, 6, 8, 2), np.float32)


@pytest.mark.parametrize(
    ("said", "call"),
    [
        (r"activation_statistics: images \(0, 6, 8, 2\) hold none", lambda *n: explain.activation_statistics(*n, NO)),
        (
            r"activation_statistics: unknown layer 'conv3'",
            lambda *n: explain.activation_statistics(*n, NO + 1, layers=["conv3"]),
        ),
        (r"dead_filters: images \(0, 6, 8, 2\) hold none", lambda *n: explain.dead_filters(*n, NO)),
        (
            r"dead_filters: max_active_fraction=1 should be a share",
            lambda *n: explain.dead_filters(*n, NO, max_active_fraction=1),
        ),
        (r"saturation: images \(0, 6, 8, 2\) hold none", lambda *n: explain.saturation(*n, NO)),
        (r"feature_correlation: unknown layer 'con'", lambda *n: explain.feature_correlation(*n, NO, layer="con")),
        (r"feature_correlation: images .* hold none", lambda *n: explain.feature_correlation(*n, NO, layer="conv1")),
        (r"diagnose: images \(0, 6, 8, 2\) hold none", lambda *n: explain.diagnose(*n, NO)),
        (
            r"diagnose: labels \(2,\) should be one for each of the 1 ",
            lambda *n: explain.diagnose(*n, np.ones((1, 6, 8, 2)), [0, 1]),
        ),
        (r"gradient_norms: images .* hold none", lambda *n: explain.gradient_norms(*n, NO, [])),
    ],
)
def test_what_cannot_be_is_told(built, said, call):
    with pytest.raises(InputError, match=said):
        call(*built[:3])
