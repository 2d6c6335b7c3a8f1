"""Distorted images, against scipy and plain loops; and what a network makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxconv import Dense, InputError, explain, flatten, relu, serial
from jaxconv.data.augment import affine_transform
from jaxconv.explain import CORRUPTIONS

IMAGES = np.random.default_rng(0).random((4, 9, 11, 2), np.float32)


@pytest.fixture(scope="module")
def network():
    """It sees the pixels one by one, so that every distortion tells."""
    model = serial(flatten, Dense(16), relu, Dense(3))
    params, state = model.init(jax.random.key(0), IMAGES.shape[1:])
    mean = model.apply(params, state, jnp.asarray(IMAGES))[0].mean(0)
    params["dense2"]["bias"] -= mean  # or it would say the same class of everything
    return model, params, state


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_at_one_strength_the_images_are_exactly_as_they_were_and_at_others_they_are_not(name):
    entry = CORRUPTIONS[name]
    change = jax.jit(lambda x, strength: explain.corrupt(x, name, strength))
    images = np.concatenate([IMAGES, np.zeros((1, 9, 11, 2), np.float32), np.ones((1, 9, 11, 2), np.float32)])
    np.testing.assert_array_equal(change(images, entry.identity), images)
    assert entry.identity in entry.severities
    for strength in entry.severities:
        y = np.asarray(change(images, float(strength)))
        assert y.shape == images.shape and y.dtype == np.float32
        assert -1e-6 <= y.min() and y.max() <= 1 + 1e-6
        assert strength == entry.identity or (np.abs(y[:4] - images[:4]).max(axis=(1, 2, 3)) > 0.1).all()


def test_a_quarter_turn_is_numpys_and_other_turns_are_scipys():
    square = IMAGES[:, :, :9]
    turned = explain.corrupt(square, "rotation", 90.0)
    np.testing.assert_allclose(turned, np.rot90(square, axes=(1, 2)), atol=1e-5)
    wanted = ndimage.rotate(IMAGES, 40, axes=(2, 1), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(explain.corrupt(IMAGES, "rotation", 40.0), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["scale", "shear"])
def test_scale_and_slant_are_those_of_warp(name):
    option = {"scale": {"scale": 0.7}, "shear": {"shear": 20.0}}[name]
    [strength] = option.values()
    np.testing.assert_array_equal(explain.corrupt(IMAGES, name, strength), affine_transform(IMAGES, **option))
    # Half as large: the middle of what was there, and nothing around it.
    small = np.asarray(explain.corrupt(np.ones((1, 8, 8, 1), np.float32), "scale", 0.5))[0, :, :, 0]
    assert small[2:6, 2:6].min() == 1 and small.sum() < 25


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_thicker_and_thinner_strokes_are_scipys_grey_dilation_and_erosion(radius):
    size = (1, 2 * radius + 1, 2 * radius + 1, 1)
    stroke = jax.jit(lambda strength: explain.corrupt(IMAGES, "stroke_width", strength))
    thicker, thinner = stroke(float(radius)), stroke(-float(radius))
    np.testing.assert_array_equal(thicker, ndimage.grey_dilation(IMAGES, size))
    np.testing.assert_array_equal(thinner, ndimage.grey_erosion(IMAGES, size))
    less = ndimage.grey_dilation(IMAGES, (1, 2 * radius - 1, 2 * radius - 1, 1))
    between = stroke(radius - 0.25)
    np.testing.assert_allclose(between, 0.75 * np.asarray(thicker) + 0.25 * less, atol=1e-6)


@pytest.mark.parametrize("deviation", [0.5, 1.3, 3.0])
def test_blur_is_scipys(deviation):
    wanted = ndimage.gaussian_filter(IMAGES, (0, deviation, deviation, 0), mode="nearest", radius=(0, 9, 9, 0))
    np.testing.assert_allclose(explain.corrupt(IMAGES, "blur", deviation), wanted, atol=1e-5)


def test_contrast_leaves_the_mean_of_each_image():
    y = np.asarray(explain.corrupt(IMAGES, "contrast", 0.25))
    mean = IMAGES.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, mean + 0.25 * (IMAGES - mean), atol=1e-6)
    assert explain.corrupt(IMAGES, "contrast", 5.0).max() == 1


def test_noise_has_the_deviation_that_is_asked_for_and_specks_the_share():
    grey = np.full((30, 20, 20, 2), 0.5, np.float32)
    noise = np.asarray(explain.corrupt(grey, "noise", 0.1)) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.03) and abs(noise.mean()) < 0.003
    assert not np.array_equal(noise[0], noise[1])
    specks = np.asarray(explain.corrupt(grey, "salt_and_pepper", 0.2))
    np.testing.assert_array_equal(specks[..., 0], specks[..., 1])
    shares = [(specks[..., 0] == colour).mean() for colour in (0, 1)]
    assert shares == pytest.approx([0.1, 0.1], abs=0.01)


def test_a_block_is_a_whole_grey_square_anywhere_in_the_image():
    images = np.ones((400, 6, 7, 1), np.float32)
    covered = np.asarray(explain.corrupt(images, "occlusion", 3.0)[..., 0]) == 0.5
    corners = set()
    for each in covered:
        rows, columns = (np.flatnonzero(each.any(axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == 3 and each.sum() == 9
        corners.add((rows[0], columns[0]))
    assert corners == {(i, j) for i in range(4) for j in range(5)}
    assert (np.asarray(explain.corrupt(images[:2], "occlusion", 16.0)) == 0.5).all()


def test_a_shift_goes_up_down_left_or_right_each_about_as_often():
    y = np.asarray(explain.corrupt(np.repeat(IMAGES[:1], 200, 0), "shift", 2.0))
    counts = []
    for move in [(2, 0), (-2, 0), (0, 2), (0, -2)]:
        wanted = ndimage.shift(IMAGES[0], (*move, 0), order=1, mode="grid-constant")
        counts.append(sum(np.allclose(each, wanted, atol=1e-6) for each in y))
    assert sum(counts) == 200 and min(counts) > 30


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_robustness_is_the_accuracy_on_the_images_distorted_one_by_one(network, rng, dtype):  # row 004-14
    model, params, state = network
    images = rng.integers(0, 256, (11, *IMAGES.shape[1:]), np.uint8)
    images = images if dtype == np.uint8 else images / np.float32(255)
    labels = np.array(model.apply(params, state, jnp.asarray(images / np.float32(images.max())))[0]).argmax(1)
    assert len(set(labels)) > 1
    labels[:2] = (labels[:2] + 1) % 3  # two of eleven are wrong from the start
    asked = {"rotation": [0.0, 50.0, 180.0], "noise": [0.0, 0.5], "contrast": [1, 0.3]}
    key = jax.random.key(7)
    found = explain.corruption_accuracy(*network, images, labels, corruptions=asked, batch_size=4, key=key)
    assert list(found) == list(asked)
    for name, strengths in asked.items():
        assert [strength for strength, _ in found[name]] == strengths
        for strength, accuracy in found[name]:
            right = 0
            for i in range(11):
                x = jnp.asarray(images[i : i + 1] / np.float32(255 if dtype == np.uint8 else 1))
                y = CORRUPTIONS[name].apply(jax.random.fold_in(key, i), x, strength)
                right += int(np.argmax(model.apply(params, state, y)[0]) == labels[i])
            assert accuracy == right / 11
        assert found[name][0][1] == 9 / 11
    assert found["rotation"][2][1] != 9 / 11
    whole = explain.corruption_accuracy(*network, images, labels, corruptions=asked, key=key)
    assert whole == found  # noise does not depend on the batches


def test_by_default_all_distortions_are_asked_about(network):
    found = explain.corruption_accuracy(*network, IMAGES, np.zeros(4, int))
    assert {name: tuple(strength for strength, _ in pairs) for name, pairs in found.items()} == {
        name: entry.severities for name, entry in CORRUPTIONS.items()
    }
    assert list(explain.corruption_accuracy(*network, IMAGES, np.zeros(4, int), corruptions="blur")) == ["blur"]


def test_each_distortion_compiles_once_for_all_strengths_and_batches(network, monkeypatch):
    traced = []

    def apply(key, images, strength):
        traced.append(1)
        return images * strength

    monkeypatch.setitem(CORRUPTIONS, "dimmer", explain.Corruption(apply, (1, 0.5, 0.2), "times", identity=1))
    explain.corruption_accuracy(*network, IMAGES, np.zeros(4, int), corruptions=["dimmer"], batch_size=3)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (r"corruption_accuracy: images \(0, 9, 11, 2\) hold none", {"images": IMAGES[:0], "labels": []}),
        (r"corruption_accuracy: labels int\d+\(3,\) should be 4 integers", {"labels": np.zeros(3, int)}),
        (r"corruption_accuracy: labels go from 0 to 3, but the model has 3", {"labels": np.array([0, 1, 3, 0])}),
        (
            r"corruption_accuracy: images from 0 to 255: corruptions are of floats from 0 to 1",
            {"images": np.round(IMAGES) * 255},
        ),
        (r"corruption_accuracy: images from nan to nan", {"images": IMAGES * np.nan}),
        (r"unknown corruption 'rotate': did you mean 'rotation'\? Known: rotation, scale", {"corruptions": ["rotate"]}),
        (r"corruption_accuracy: scale of 0 should be from 0.01 to 100", {"corruptions": {"scale": [1, 0]}}),
        (r"corruption_accuracy: blur of 4 should be from 0 to 3 \(pixels", {"corruptions": {"blur": [4]}}),
        (r"corruption_accuracy: noise of nan should", {"corruptions": {"noise": [float("nan")]}}),
        (r"corruption_accuracy: noise of 0.1: give a list of severities", {"corruptions": {"noise": 0.1}}),
        (r"corruption_accuracy: noise of \[\]: give a list", {"corruptions": {"noise": []}}),
        (r"corruption_accuracy: batch_size=2.5", {"batch_size": 2.5}),
        (r"^dense1: ", {"images": IMAGES[:, :5]}),
    ],
)
def test_robustness_tells_what_cannot_be(network, said, change):
    given = {"images": IMAGES, "labels": np.zeros(4, int)} | change
    with pytest.raises(InputError, match=said):
        explain.corruption_accuracy(*network, given.pop("images"), given.pop("labels"), **given)


def test_distorted_tells_what_cannot_be():
    for said, images, name, strength in [
        (r"corrupt: unknown corruption 'blurr': did you mean 'blur'\?", IMAGES, "blurr", 1.0),
        (r"corrupt: stroke_width of -4 should be from -3 to 3 \(pixels more", IMAGES, "stroke_width", -4),
        (r"corrupt: occlusion of '3' should", IMAGES, "occlusion", "3"),
        (r"corrupt: images \(9, 11, 2\) should be \(N, H, W, C\)", IMAGES[0], "blur", 1.0),
        (r"corrupt: images \(0, 9, 11, 2\) hold none", IMAGES[:0], "blur", 1.0),
    ]:
        with pytest.raises(InputError, match=said):
            explain.corrupt(images, name, strength)


def test_bytes_are_distorted_as_training_sees_them():
    digits = (IMAGES * 255).astype(np.uint8)
    np.testing.assert_allclose(explain.corrupt(digits, "contrast", 1.0), digits / 255.0, rtol=1e-6)
