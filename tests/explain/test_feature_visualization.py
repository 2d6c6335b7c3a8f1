"""What filters look for: images made for them, parts of real images; and whether an attribution asks the network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import spearmanr

from jaxconv import Conv, Dense, InputError, MaxPool, data, explain, flatten, plot, relu, serial
from jaxconv.train import fit

CONVS = serial(Conv(3, 3, padding="SAME"), relu, MaxPool(2), Conv(4, 2), flatten, Dense(2))


def test_the_best_image_of_a_linear_filter_is_white_where_the_kernel_is_positive(rng, promoting):
    kernel = rng.uniform(0.2, 1, size=(3, 4, 2, 2)).astype(np.float32) * rng.choice([-1, 1], size=(3, 4, 2, 2))
    params = {"conv1": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.ones(2)}}
    model, options = serial(Conv(2, (3, 4))), {"layer": "conv1", "num_steps": 60, "blur": 0, "jitter": 0}
    images = explain.maximize_activation(model, params, {}, (6, 7, 2), key=jax.random.key(0), **options)
    assert images.shape == (2, 6, 7, 2)
    for k in range(2):
        answers = np.asarray(model.apply(params, {}, images[k : k + 1])[0])[0, ..., k]
        i, j = np.unravel_index(answers.argmax(), answers.shape)
        np.testing.assert_allclose(images[k, i : i + 3, j : j + 4], kernel[..., k] > 0, atol=1e-6)
        np.testing.assert_allclose(
            answers.max(), 1 + np.maximum(kernel[..., k], 0).sum(), rtol=1e-5
        )  # no image has more


def test_it_climbs_in_a_network_with_the_options_as_they_are(rng, promoting):  # rows 003-09, 004-04
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    for layer, channels in (("conv2", (3, 1)), ("dense1", None)):
        images = explain.maximize_activation(
            *(CONVS, params, state, (8, 8, 1)), layer=layer, channels=channels, key=jax.random.key(1), num_steps=60
        )
        noise = rng.uniform(size=(200, 8, 8, 1)).astype(np.float32)
        answer = lambda x: np.asarray(explain.feature_maps(CONVS, params, state, x, layers=(layer,))[layer])  # noqa: B023, E731
        assert np.asarray(images).min() >= 0 and np.asarray(images).max() <= 1
        for row, k in enumerate(channels or (0, 1)):
            best = answer(noise)[..., k].reshape(200, -1).max(1)
            assert answer(images)[row, ..., k].max() > best.max()


def brute_force(images, kernel, count):
    """For each filter of a 2-D convolution with SAME padding: (answer, image, place), strongest first."""
    kh, kw, _, filters = kernel.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = []
    for k in range(filters):
        best = []
        for n in range(len(images)):
            answers = [
                ((padded[n, i : i + kh, j : j + kw] * kernel[..., k]).sum(), -i, -j)
                for i, j in np.ndindex(images.shape[1:3])
            ]
            value, i, j = max(answers)
            best.append((value, n, (-i, -j)))
        rows.append(sorted(best, key=lambda each: (-each[0], each[1]))[:count])
    return rows


def test_the_nearest_patches_are_those_of_a_search_by_hand(rng):  # rows 003-09, 004-04
    images = rng.integers(0, 256, size=(11, 5, 6, 2), dtype=np.uint8)
    images[:, 0, 0] = 255  # so that some of the strongest are at a corner
    model = serial(Conv(3, 3, padding="SAME"))
    kernel = rng.normal(size=(3, 3, 2, 3)).astype(np.float32)
    kernel[1:, 1:, :, 0] += 2
    params = {"conv1": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(3)}}
    found = explain.top_activating_patches(
        model, params, {}, images, layer="conv1", channels=[2, 0], count=4, batch_size=4
    )
    assert found.patches.shape == (2, 4, 3, 3, 2) and found.patches.dtype == np.uint8
    wanted = brute_force(images / 255, kernel.astype(np.float64), 4)
    at_border = 0
    for row, k in enumerate((2, 0)):
        for column, (value, n, (i, j)) in enumerate(wanted[k]):
            assert found.index[row, column] == n and found.position[row, column].tolist() == [i, j]
            np.testing.assert_allclose(found.activation[row, column], value, rtol=1e-4)
            for u, v in np.ndindex(3, 3):
                y, x = i - 1 + u, j - 1 + v
                inside = 0 <= y < 5 and 0 <= x < 6
                assert found.patches[row, column, u, v].tolist() == (images[n, y, x].tolist() if inside else [0, 0])
                at_border += not inside
    assert at_border > 3


def test_deeper_patches_hold_all_that_the_filter_saw(rng):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    images = rng.uniform(size=(6, 8, 8, 1)).astype(np.float32)
    found = explain.top_activating_patches(CONVS, params, state, images, layer="conv2", count=2)
    assert found.patches.shape == (4, 2, 6, 6, 1) and found.patches.dtype == np.float32
    # What is outside of the patch may be anything: the answer is the same.
    for k, c in np.ndindex(4, 2):
        image = rng.uniform(size=(8, 8, 1)).astype(np.float32)
        (top, bottom), (left, right) = explain.receptive_field_of(CONVS, (8, 8, 1), "conv2").bounds(
            found.position[k, c]
        )
        for i in range(max(top, 0), min(bottom, 8)):
            for j in range(max(left, 0), min(right, 8)):
                image[i, j] = found.patches[k, c, i - top, j - left]
        y = explain.feature_maps(CONVS, params, state, image[None], layers=("conv2",))["conv2"]
        np.testing.assert_allclose(y[(0, *found.position[k, c], k)], found.activation[k, c], rtol=1e-4, atol=1e-5)
    whole = explain.top_activating_patches(CONVS, params, state, images, layer="dense1", channels=[1], count=6)
    assert whole.position.shape == (1, 6, 0)
    np.testing.assert_array_equal(whole.patches[0], images[whole.index[0]])
    assert (np.diff(whole.activation[0]) <= 0).all()


def test_the_figures_show_each_image_and_each_patch(rng):
    images = rng.uniform(size=(2, 6, 5, 3)).astype(np.float32)
    figure = plot.attributions(images, {"grad_cam": np.ones((2, 6, 5)), "occlusion": np.zeros((2, 6, 5))}, ["cat"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "grad cam", "occlusion", "", "", ""]
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), np.round(255 * images[1]).astype(np.uint8))
    with pytest.raises(InputError, match=r"attributions: heat of grad_cam \(2, 3, 3\) should be \(2, 6, 5\)"):
        plot.attributions(images, {"grad_cam": np.ones((2, 3, 3))})
    with pytest.raises(InputError, match=r"attributions: images \(0, 6, 5, 3\) should be at least one"):
        plot.attributions(images[:0], {})
    found = explain.ActivatingPatches(
        images[None], np.zeros((1, 2), int), np.zeros((1, 2, 2), int), np.array([[3.14159, 2.0]])
    )
    figure = plot.activating_patches(found, "conv1", names=["edges"])
    assert [axes.get_xlabel() for axes in figure.axes] == ["3.14", "2"] and figure.axes[0].get_ylabel() == "edges"


def trained_on_digits():
    model = serial(Conv(8, 3, padding="SAME"), relu, MaxPool(2), Conv(8, 3), relu, flatten, Dense(10))
    digits = data.load("digits")
    return (
        model,
        digits,
        fit(*(model, digits.train, digits.validation), optimizer=optax.adam(0.01), epochs=4, batch_size=32),
    )


def test_an_attribution_that_asks_the_network_changes_when_it_forgets(promoting):
    model, digits, fitted = trained_on_digits()
    images = np.asarray(digits.test[0][:40])
    asked = jax.jit(explain.saliency, static_argnums=0)
    given = (model, fitted.params, fitted.state, images)
    steps = explain.model_randomization_test(asked, *given, key=jax.random.key(5))
    assert [step.layer for step in steps] == ["dense1", "conv2", "conv1"]
    assert steps[-1].correlation < 0.5
    deaf = lambda model, params, state, images, label: np.asarray(images) * 1.0  # noqa: E731
    for step in explain.model_randomization_test(deaf, *given, key=jax.random.key(5)):
        assert step.correlation == pytest.approx(1)


def test_layers_forget_one_after_another_from_the_last(rng):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    x, seen = rng.uniform(size=(3, 8, 8, 1)).astype(np.float32), []

    def attribute(model, params, state, images, label):
        seen.append((params, np.asarray(label)))
        return rng.normal(size=(3, 4, 4))

    steps = explain.model_randomization_test(attribute, CONVS, params, state, x, key=jax.random.key(7))
    new, _ = CONVS.init(jax.random.key(7), (8, 8, 1))
    order = ["dense1", "conv2", "conv1"]
    assert [step.layer for step in steps] == order and len(seen) == 4
    likeliest = np.asarray(CONVS.apply(params, state, x)[0]).argmax(1)
    for k, (given, label) in enumerate(seen):
        np.testing.assert_array_equal(label, likeliest)
        for name in order:
            source = new if name in order[:k] else params
            np.testing.assert_array_equal(given[name]["kernel"], source[name]["kernel"])


def test_the_correlation_is_spearmans_of_absolute_values(rng):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    x = np.zeros((3, 8, 8, 1), np.float32)
    made = [np.round(rng.normal(size=(3, 5, 5)), 1) for _ in range(3)] + [np.ones((3, 5, 5))]  # with ties; and constant
    answers = iter(made)
    steps = explain.model_randomization_test(
        lambda *given: next(answers), CONVS, params, state, x, key=jax.random.key(7)
    )
    for step, after in zip(steps[:2], made[1:3]):
        wanted = [spearmanr(np.abs(made[0][n]).ravel(), np.abs(after[n]).ravel()).statistic for n in range(3)]
        assert step.correlation == pytest.approx(np.mean(wanted))
    assert steps[2].correlation == 0


@pytest.mark.parametrize(
    ("said", "name", "options"),
    [
        (r"maximize_activation: unknown layer 'conv9'", "max", {"layer": "conv9"}),
        (r"maximize_activation: channel 4 is none of the 4 of layer conv2", "max", {"layer": "conv2", "channels": [4]}),
        (r"maximize_activation: num_steps=0 should be", "max", {"layer": "conv2", "num_steps": 0}),
        (r"maximize_activation: blur=2 should be from 0 to 1", "max", {"layer": "conv2", "blur": 2}),
        (r"maximize_activation: jitter=-1 should be", "max", {"layer": "conv2", "jitter": -1}),
        (r"top_activating_patches: unknown layer", "near", {"layer": "relu7"}),
        (r"top_activating_patches: count=0 should be", "near", {"layer": "conv1", "count": 0}),
        (r"top_activating_patches: count=4 of 3 images", "near", {"layer": "conv1", "count": 4}),
        (
            r"top_activating_patches: channel -1 is none of the 3",
            "near",
            {"layer": "conv1", "channels": [-1], "count": 1},
        ),
        (r"top_activating_patches: channels=\(\) names none", "near", {"layer": "conv1", "channels": [], "count": 1}),
    ],
)
def test_what_cannot_be_is_told(said, name, options):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    with pytest.raises(InputError, match=said):
        if name == "max":
            explain.maximize_activation(CONVS, params, state, (8, 8, 1), key=jax.random.key(0), **options)
        else:
            explain.top_activating_patches(CONVS, params, state, np.zeros((3, 8, 8, 1), np.uint8), **options)


def test_what_has_nothing_to_forget_is_told():
    model = serial(relu, flatten)
    with pytest.raises(InputError, match="model_randomization_test: no layer of the model has params"):
        explain.model_randomization_test(
            explain.saliency, model, {}, {}, np.ones((1, 2, 2, 1), np.float32), key=jax.random.key(0)
        )
    with pytest.raises(InputError, match=r"top_activating_patches: images \(0, 8, 8, 1\) hold none"):
        explain.top_activating_patches(model, {}, {}, np.zeros((0, 8, 8, 1), np.uint8), layer="relu1")
