"""Image corruptions, against SciPy and loops, and the accuracy of a network on corrupted images."""

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
    """Return a dense network, which is sensitive to every corruption."""
    model = serial(flatten, Dense(16), relu, Dense(3))
    params, state = model.init(jax.random.key(0), IMAGES.shape[1:])
    mean = model.apply(params, state, jnp.asarray(IMAGES))[0].mean(0)
    params["dense2"]["bias"] -= mean  # the predicted classes differ between images
    return model, params, state


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_changes_images_except_at_identity(name):
    entry = CORRUPTIONS[name]
    corrupt = jax.jit(lambda x, severity: explain.corrupt(x, name, severity))
    images = np.concatenate([IMAGES, np.zeros((1, 9, 11, 2), np.float32), np.ones((1, 9, 11, 2), np.float32)])
    np.testing.assert_array_equal(corrupt(images, entry.identity), images)
    assert entry.identity in entry.severities
    for severity in entry.severities:
        y = np.asarray(corrupt(images, float(severity)))
        assert y.shape == images.shape and y.dtype == np.float32
        assert -1e-6 <= y.min() and y.max() <= 1 + 1e-6
        assert severity == entry.identity or (np.abs(y[:4] - images[:4]).max(axis=(1, 2, 3)) > 0.1).all()


def test_rotation_matches_numpy_and_scipy():
    square = IMAGES[:, :, :9]
    rotated = explain.corrupt(square, "rotation", 90.0)
    np.testing.assert_allclose(rotated, np.rot90(square, axes=(1, 2)), atol=1e-5)
    expected = ndimage.rotate(IMAGES, 40, axes=(2, 1), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(explain.corrupt(IMAGES, "rotation", 40.0), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["scale", "shear"])
def test_scale_and_shear_match_affine_transform(name):
    options = {"scale": {"scale": 0.7}, "shear": {"shear": 20.0}}[name]
    [severity] = options.values()
    np.testing.assert_array_equal(explain.corrupt(IMAGES, name, severity), affine_transform(IMAGES, **options))
    # At scale 0.5, the image covers the center and the rest is 0.
    half_size = np.asarray(explain.corrupt(np.ones((1, 8, 8, 1), np.float32), "scale", 0.5))[0, :, :, 0]
    assert half_size[2:6, 2:6].min() == 1 and half_size.sum() < 25


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_stroke_width_matches_scipy_morphology(radius):
    size = (1, 2 * radius + 1, 2 * radius + 1, 1)
    corrupt = jax.jit(lambda severity: explain.corrupt(IMAGES, "stroke_width", severity))
    thicker, thinner = corrupt(float(radius)), corrupt(-float(radius))
    np.testing.assert_array_equal(thicker, ndimage.grey_dilation(IMAGES, size))
    np.testing.assert_array_equal(thinner, ndimage.grey_erosion(IMAGES, size))
    previous = ndimage.grey_dilation(IMAGES, (1, 2 * radius - 1, 2 * radius - 1, 1))
    interpolated = corrupt(radius - 0.25)
    np.testing.assert_allclose(interpolated, 0.75 * np.asarray(thicker) + 0.25 * previous, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.3, 3.0])
def test_blur_matches_scipy(sigma):
    expected = ndimage.gaussian_filter(IMAGES, (0, sigma, sigma, 0), mode="nearest", radius=(0, 9, 9, 0))
    np.testing.assert_allclose(explain.corrupt(IMAGES, "blur", sigma), expected, atol=1e-5)


def test_contrast_preserves_image_mean():
    y = np.asarray(explain.corrupt(IMAGES, "contrast", 0.25))
    mean = IMAGES.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, mean + 0.25 * (IMAGES - mean), atol=1e-6)
    assert explain.corrupt(IMAGES, "contrast", 5.0).max() == 1


def test_noise_and_salt_and_pepper_have_given_severity():
    gray = np.full((30, 20, 20, 2), 0.5, np.float32)
    noise = np.asarray(explain.corrupt(gray, "noise", 0.1)) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.03) and abs(noise.mean()) < 0.003
    assert not np.array_equal(noise[0], noise[1])
    replaced = np.asarray(explain.corrupt(gray, "salt_and_pepper", 0.2))
    np.testing.assert_array_equal(replaced[..., 0], replaced[..., 1])
    fractions = [(replaced[..., 0] == value).mean() for value in (0, 1)]
    assert fractions == pytest.approx([0.1, 0.1], abs=0.01)


def test_occlusion_covers_gray_square_at_any_position():
    images = np.ones((400, 6, 7, 1), np.float32)
    covered = np.asarray(explain.corrupt(images, "occlusion", 3.0)[..., 0]) == 0.5
    corners = set()
    for mask in covered:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == 3 and mask.sum() == 9
        corners.add((rows[0], columns[0]))
    assert corners == {(i, j) for i in range(4) for j in range(5)}
    assert (np.asarray(explain.corrupt(images[:2], "occlusion", 16.0)) == 0.5).all()


def test_shift_directions_are_uniform():
    y = np.asarray(explain.corrupt(np.repeat(IMAGES[:1], 200, 0), "shift", 2.0))
    counts = []
    for offset in [(2, 0), (-2, 0), (0, 2), (0, -2)]:
        expected = ndimage.shift(IMAGES[0], (*offset, 0), order=1, mode="grid-constant")
        counts.append(sum(np.allclose(image, expected, atol=1e-6) for image in y))
    assert sum(counts) == 200 and min(counts) > 30


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_corruption_accuracy_matches_loop_over_images(network, rng, dtype):  # row 004-14
    model, params, state = network
    images = rng.integers(0, 256, (11, *IMAGES.shape[1:]), np.uint8)
    images = images if dtype == np.uint8 else images / np.float32(255)
    labels = np.array(model.apply(params, state, jnp.asarray(images / np.float32(images.max())))[0]).argmax(1)
    assert len(set(labels)) > 1
    labels[:2] = (labels[:2] + 1) % 3  # two of eleven predictions are wrong without corruption
    corruptions = {"rotation": [0.0, 50.0, 180.0], "noise": [0.0, 0.5], "contrast": [1, 0.3]}
    key = jax.random.key(7)
    results = explain.corruption_accuracy(*network, images, labels, corruptions=corruptions, batch_size=4, key=key)
    assert list(results) == list(corruptions)
    for name, severities in corruptions.items():
        assert [severity for severity, _ in results[name]] == severities
        for severity, accuracy in results[name]:
            num_correct = 0
            for i in range(11):
                x = jnp.asarray(images[i : i + 1] / np.float32(255 if dtype == np.uint8 else 1))
                y = CORRUPTIONS[name].apply(jax.random.fold_in(key, i), x, severity)
                num_correct += int(np.argmax(model.apply(params, state, y)[0]) == labels[i])
            assert accuracy == num_correct / 11
        assert results[name][0][1] == 9 / 11
    assert results["rotation"][2][1] != 9 / 11
    single_batch = explain.corruption_accuracy(*network, images, labels, corruptions=corruptions, key=key)
    assert single_batch == results  # noise does not depend on the batch size


def test_corruption_accuracy_defaults_to_all_corruptions(network):
    results = explain.corruption_accuracy(*network, IMAGES, np.zeros(4, int))
    assert {name: tuple(severity for severity, _ in pairs) for name, pairs in results.items()} == {
        name: entry.severities for name, entry in CORRUPTIONS.items()
    }
    assert list(explain.corruption_accuracy(*network, IMAGES, np.zeros(4, int), corruptions="blur")) == ["blur"]


def test_corruption_accuracy_compiles_once_per_corruption(network, monkeypatch):
    traces = []

    def apply(key, images, severity):
        traces.append(1)
        return images * severity

    monkeypatch.setitem(CORRUPTIONS, "dimmer", explain.Corruption(apply, (1, 0.5, 0.2), "times", identity=1))
    explain.corruption_accuracy(*network, IMAGES, np.zeros(4, int), corruptions=["dimmer"], batch_size=3)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (
            r"corruption_accuracy: images must be .* with N >= 1, got shape \(0, 9, 11, 2\)",
            {"images": IMAGES[:0], "labels": []},
        ),
        (r"corruption_accuracy: labels int\d+\(3,\) should be 4 integers", {"labels": np.zeros(3, int)}),
        (r"corruption_accuracy: labels go from 0 to 3, but the model has 3", {"labels": np.array([0, 1, 3, 0])}),
        (
            r"corruption_accuracy: images must be uint8 or floats in \[0, 1\], got values from 0 to 255",
            {"images": np.round(IMAGES) * 255},
        ),
        (
            r"corruption_accuracy: images must be uint8 or floats in \[0, 1\], got values from nan",
            {"images": IMAGES * np.nan},
        ),
        (r"unknown corruption 'rotate': did you mean 'rotation'\? Known: rotation, scale", {"corruptions": ["rotate"]}),
        (
            r"corruption_accuracy: severity of scale must be from 0.01 to 100 .* got 0",
            {"corruptions": {"scale": [1, 0]}},
        ),
        (r"corruption_accuracy: severity of blur must be from 0 to 3 \(pixels.* got 4", {"corruptions": {"blur": [4]}}),
        (r"corruption_accuracy: severity of noise must be .* got nan", {"corruptions": {"noise": [float("nan")]}}),
        (r"corruption_accuracy: severities of noise must be a list .* got 0.1", {"corruptions": {"noise": 0.1}}),
        (r"corruption_accuracy: severities of noise must be a list .* got \[\]", {"corruptions": {"noise": []}}),
        (r"corruption_accuracy: batch_size=2.5", {"batch_size": 2.5}),
        (r"^dense1: ", {"images": IMAGES[:, :5]}),
    ],
)
def test_corruption_accuracy_invalid_arguments_raise(network, message, changes):
    arguments = {"images": IMAGES, "labels": np.zeros(4, int)} | changes
    with pytest.raises(InputError, match=message):
        explain.corruption_accuracy(*network, arguments.pop("images"), arguments.pop("labels"), **arguments)


def test_corrupt_invalid_arguments_raise():
    for message, images, name, severity in [
        (r"corrupt: unknown corruption 'blurr': did you mean 'blur'\?", IMAGES, "blurr", 1.0),
        (
            r"corrupt: severity of stroke_width must be from -3 to 3 \(pixels added .* got -4",
            IMAGES,
            "stroke_width",
            -4,
        ),
        (r"corrupt: severity of occlusion must be .* got '3'", IMAGES, "occlusion", "3"),
        (r"corrupt: images \(9, 11, 2\) should be \(N, H, W, C\)", IMAGES[0], "blur", 1.0),
        (r"corrupt: images must be .* with N >= 1, got shape \(0, 9, 11, 2\)", IMAGES[:0], "blur", 1.0),
    ]:
        with pytest.raises(InputError, match=message):
            explain.corrupt(images, name, severity)


def test_corrupt_scales_uint8_images():
    uint8_images = (IMAGES * 255).astype(np.uint8)
    np.testing.assert_allclose(explain.corrupt(uint8_images, "contrast", 1.0), uint8_images / 255.0, rtol=1e-6)
