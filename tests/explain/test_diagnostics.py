"""Norms of gradients and updates, against jax.grad of a reference loss; and histograms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, explain, flatten, models, relu, residual, serial
from jaxconv.ops import sigmoid


@pytest.fixture
def network_and_batch(rng):
    model = serial(Conv(3, 3), BatchNorm(), relu, residual(Conv(3, 3, padding="SAME")), flatten, Dense(4))
    params, state = model.init(jax.random.key(0), (5, 6, 2))
    return model, params, state, rng.normal(size=(6, 5, 6, 2)).astype(np.float32), np.array([0, 3, 1, 2, 2, 0])


def reference_gradient(model, params, state, x, labels, train):
    def loss(params):
        logits = model.apply(params, state, x, train=train)[0]
        return -jnp.mean(jnp.stack([jax.nn.log_softmax(z)[label] for z, label in zip(logits, labels)]))

    return jax.grad(loss)(params)


@pytest.mark.parametrize("train", [True, False])
def test_gradient_norms_match_jax_grad(network_and_batch, train):
    expected = reference_gradient(*network_and_batch, train)
    norms = explain.gradient_norms(*network_and_batch, train=train)
    assert list(norms) == ["conv1", "res1/body/conv1", "dense1"]
    for name, norm in norms.items():
        layer_gradient = expected["res1"]["body"]["conv1"] if "/" in name else expected[name]
        np.testing.assert_allclose(norm, np.linalg.norm(np.ravel(layer_gradient["kernel"])), rtol=1e-4)


def test_update_ratios_match_optimizer_step(network_and_batch):
    params = network_and_batch[1]
    gradient = reference_gradient(*network_and_batch, True)
    ratios = explain.update_ratios(*network_and_batch, optimizer=optax.sgd(0.2))
    for name in ("conv1", "dense1"):
        delta, kernel = (np.linalg.norm(np.ravel(tree[name]["kernel"])) for tree in (gradient, params))
        np.testing.assert_allclose(ratios[name], 0.2 * delta / kernel, rtol=1e-4)
    sign_ratios = explain.update_ratios(*network_and_batch, optimizer=optax.sign_sgd(0.01))  # each weight by 0.01
    kernel = np.asarray(params["conv1"]["kernel"])
    np.testing.assert_allclose(sign_ratios["conv1"], 0.01 * np.sqrt(kernel.size) / np.linalg.norm(kernel), rtol=1e-5)
    momentum = optax.sgd(0.2, momentum=0.9)
    opt_state = momentum.update(gradient, momentum.init(params), params)[1]
    second_ratios = explain.update_ratios(*network_and_batch, optimizer=momentum, opt_state=opt_state)
    np.testing.assert_allclose(second_ratios["conv1"], 1.9 * ratios["conv1"], rtol=1e-4)


def test_gradient_norms_do_not_underflow():
    model = serial(lambda x: x * 1e-30, flatten, Dense(2))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    norms = explain.gradient_norms(model, params, state, np.ones((1, 2, 2, 1), np.float32), [0])
    np.testing.assert_allclose(norms["dense1"], 1e-30 * np.sqrt(8) / 2, rtol=1e-4)


def test_gradient_norms_require_dropout_key(network_and_batch):
    model = serial(flatten, Dropout(0.5), Dense(2))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    x, labels = np.ones((2, 2, 2, 1), np.float32), [0, 1]
    with pytest.raises(InputError, match=r"dropout1: dropout.* key"):
        explain.gradient_norms(model, params, state, x, labels)
    assert explain.gradient_norms(model, params, state, x, labels, key=jax.random.key(0))["dense1"] > 0
    assert explain.gradient_norms(model, params, state, x, labels, train=False)["dense1"] > 0


@pytest.mark.parametrize(
    ("message", "labels"),
    [
        (r"gradient_norms: labels must be \(6,\), one per image, got shape \(5,\)", [0] * 5),
        (r"gradient_norms: label 4 is none of the 4 classes", [0, 1, 2, 3, 4, 0]),
        (r"gradient_norms: labels must be .* class indices, got float32\(6,\)", np.zeros(6, np.float32)),
    ],
)
def test_gradient_norms_reject_invalid_labels(network_and_batch, message, labels):
    with pytest.raises(InputError, match=message):
        explain.gradient_norms(*network_and_batch[:4], labels)


def test_histograms_count_each_value_once(rng):
    kernel, feature_map = rng.normal(size=(3, 3, 2, 4)).astype(np.float32), rng.random((2, 5)).astype(np.float32)
    kernel.flat[:3] = np.nan, np.inf, -np.inf
    results = explain.histograms({"conv2": {"kernel": kernel}, "conv1": jnp.asarray(feature_map, jnp.bfloat16)}, bins=7)
    assert list(results) == ["conv2/kernel", "conv1"]
    histogram = results["conv2/kernel"]
    assert (histogram.nan, histogram.inf, histogram.counts.sum()) == (1, 2, kernel.size - 3)
    assert len(histogram.edges) == 8
    finite = kernel[np.isfinite(kernel)]
    for count, low, high in zip(histogram.counts[:-1], histogram.edges, histogram.edges[1:]):
        assert count == ((finite >= low) & (finite < high)).sum()
    assert (histogram.edges[0], histogram.edges[-1]) == (finite.min(), finite.max())
    assert explain.histograms({"a": feature_map}, bins=[0.0, 0.5, 2.0])["a"].counts.tolist() == [
        (feature_map < 0.5).sum(),
        (feature_map >= 0.5).sum(),
    ]
    all_nan = explain.histograms({"a": np.full(3, np.nan)})["a"]
    assert all_nan.nan == 3 and all_nan.counts.sum() == 0


@pytest.mark.parametrize(
    ("message", "arrays", "bins"),
    [
        ("histograms: bins=0 should be an int of at least 1", {"a": np.ones(2)}, 0),
        (
            r"histograms: bins must be an int or increasing edges, got \[1.0, 0.0\]",
            {"a": np.ones(2)},
            [1.0, 0.0],
        ),
        ("histograms: arrays must be a dict of at least one array", {}, 5),
        ("histograms: arrays must be a dict of at least one array", np.ones(2), 5),
    ],
)
def test_histograms_reject_invalid_arguments(message, arrays, bins):
    with pytest.raises(InputError, match=message):
        explain.histograms(arrays, bins=bins)


def first_to_last_gradient_ratio(model, input_shape, images, labels):
    """Return the gradient norm of the first layer divided by that of the last layer."""
    params, state = model.init(jax.random.key(0), input_shape)
    norms = list(explain.gradient_norms(model, params, state, images, labels).values())
    return float(norms[0] / norms[-1])


def test_gradients_vanish_in_plain_sigmoid_stack_only(rng):
    """Lecture row 003-22. The slope of a sigmoid is at most ¼; orthogonal kernels preserve the norm."""
    images, labels = rng.random((8, 4, 4, 1)).astype(np.float32), np.arange(8) % 3
    orthogonal = Dense(16, kernel_init=jax.nn.initializers.orthogonal())
    plain = {n: serial(flatten, *[orthogonal, sigmoid] * n, Dense(3)) for n in (4, 8)}
    plain_ratios = {n: first_to_last_gradient_ratio(model, (4, 4, 1), images, labels) for n, model in plain.items()}
    assert plain_ratios[8] < 0.25**4 * plain_ratios[4] < 0.25**4 * 0.05
    with_shortcuts = serial(flatten, *[residual(orthogonal, sigmoid)] * 8, Dense(3))
    assert first_to_last_gradient_ratio(with_shortcuts, (4, 4, 1), images, labels) > 100 * plain_ratios[8]


def test_gradients_explode_with_batch_norm_without_shortcuts(rng):
    """Lecture row 003-22: batch norm keeps the gradients of plain networks from vanishing (He et al., 2015, section
    4.1). At initialization they even grow from the last layer to the first, exponentially in the depth (Yang et al.,
    2019, https://arxiv.org/abs/1902.08129); shortcuts prevent that."""
    images, labels = rng.random((8, 8, 8, 1)).astype(np.float32), np.arange(8)
    plain, shortcuts = (
        first_to_last_gradient_ratio(models.resnet(14, plain=plain), (8, 8, 1), images, labels)
        for plain in (True, False)
    )
    assert plain > 2 and shortcuts < 1  # measured: 3.6 and 0.7
