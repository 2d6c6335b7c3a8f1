"""Filters as images, their color and change, and the grouped convolutions of AlexNet."""

import numpy as np
import pytest

from jaxconv import Conv, Dense, InputError, MaxPool, explain, flatten, relu, serial


def create_alexnet():
    """AlexNet (Krizhevsky et al., 2012) with the lectures' input size, 227 instead of the paper's 224."""
    return serial(
        Conv(96, 11, stride=4), relu, MaxPool(3, stride=2),
        Conv(256, 5, padding=2, groups=2), relu, MaxPool(3, stride=2),
        Conv(384, 3, padding=1), relu,
        Conv(384, 3, padding=1, groups=2), relu,
        Conv(256, 3, padding=1, groups=2), relu, MaxPool(3, stride=2),
        flatten, Dense(4096), relu, Dense(4096), relu, Dense(1000),
    )  # fmt: skip


def test_alexnet_groups_match_lecture():
    """Lecture row 003-23: shapes, and 60,965,224 parameters in both groups together."""
    table = explain.summarize(create_alexnet(), (227, 227, 3))
    shapes_and_params = {
        row.name: (row.shape, row.params) for row in table.rows if row.kind in ("conv", "max_pool", "dense")
    }
    assert shapes_and_params == {
        "conv1": ((55, 55, 96), 96 * (11 * 11 * 3 + 1)),
        "max_pool1": ((27, 27, 96), 0),
        "conv2": ((27, 27, 256), 256 * (5 * 5 * 48 + 1)),
        "max_pool2": ((13, 13, 256), 0),
        "conv3": ((13, 13, 384), 384 * (3 * 3 * 256 + 1)),
        "conv4": ((13, 13, 384), 384 * (3 * 3 * 192 + 1)),
        "conv5": ((13, 13, 256), 256 * (3 * 3 * 192 + 1)),
        "max_pool3": ((6, 6, 256), 0),
        "dense1": ((4096,), 4096 * (9216 + 1)),
        "dense2": ((4096,), 4096 * (4096 + 1)),
        "dense3": ((1000,), 1000 * (4096 + 1)),
    }
    assert table.params == 60_965_224


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalize_by", ["filter", "layer"])
def test_kernel_images_are_centered_at_gray(rng, channels, normalize_by):
    kernel = rng.normal(size=(2, 3, channels, 4)).astype(np.float32) * np.array([1, 5, 0.1, 0], np.float32)
    images = np.asarray(explain.kernel_images(kernel, normalize_by=normalize_by))
    assert images.shape == (4, 2, 3, channels)
    for o in range(4):
        largest = np.abs(kernel[..., o] if normalize_by == "filter" else kernel).max() or 1
        for u, v, c in np.ndindex(2, 3, channels):
            np.testing.assert_allclose(images[o, u, v, c], (1 + kernel[u, v, c, o] / largest) / 2, rtol=1e-5)
    assert images.min() >= 0 and images.max() <= 1 and (images[3] == 0.5).all()


def test_kernel_channel_images_are_normalized(rng):
    kernel = rng.normal(size=(3, 2, 5, 4)).astype(np.float32)
    images = np.asarray(explain.kernel_channel_images(kernel))
    assert images.shape == (4, 5, 3, 2)
    for o, c in np.ndindex(4, 5):
        np.testing.assert_allclose(images[o, c], kernel[:, :, c, o] / np.abs(kernel[..., o]).max(), rtol=1e-6)
    by_layer = np.asarray(explain.kernel_channel_images(kernel, per="layer"))
    np.testing.assert_allclose(by_layer[1, 2], kernel[:, :, 2, 1] / np.abs(kernel).max(), rtol=1e-6)


def test_colorfulness_is_fraction_without_gray(rng):
    """Lecture row 003-23."""
    kernel = rng.normal(size=(5, 4, 3, 6)).astype(np.float32)
    kernel[..., 0] = kernel[:, :, :1, 0]  # gray
    kernel[:, :, 2, 1] = -kernel[:, :, 0, 1] - kernel[:, :, 1, 1]  # weights sum to 0
    kernel[:, :, 1:, 2] = 0  # red only
    kernel[..., 3] = 0
    kernel[..., 4] *= 1e-25  # squares underflow in float32
    actual = np.asarray(explain.colorfulness(kernel))
    upcast = kernel.astype(np.float64)
    # The variance between the channels, as in an analysis of variance.
    expected = [3 * upcast[..., o].var(axis=2).sum() / ((upcast[..., o] ** 2).sum() or 1) for o in range(6)]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(actual[:4], [0, 1, 2 / 3, 0], rtol=1e-5, atol=1e-7)
    random = explain.colorfulness(rng.normal(size=(3, 3, 3, 2000)).astype(np.float32))
    np.testing.assert_allclose(np.mean(random), 2 / 3, atol=0.01)


def test_kernel_change_is_relative_norm_and_cosine(rng):
    before, after = rng.normal(size=(2, 3, 2, 2, 5)).astype(np.float32)
    after[..., 0], after[..., 1], after[..., 2] = before[..., 0], 3 * before[..., 1], -before[..., 2]
    before[..., 3] = 0
    change = explain.kernel_change(before, after)
    for o in range(5):
        a, b = before[..., o].ravel().astype(np.float64), after[..., o].ravel().astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            np.testing.assert_allclose(change.relative[o], np.linalg.norm(b - a) / np.linalg.norm(a), rtol=1e-5)
            np.testing.assert_allclose(change.cosine[o], a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), rtol=1e-5)
    np.testing.assert_allclose(change.relative[:4], [0, 2, 2, np.inf], rtol=1e-5)
    assert np.isnan(change.cosine[3])


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"kernel_images: kernel must have 1 or 3 input channels, got \(3, 3, 2, 4\).*kernel_channel_images",
            lambda k: explain.kernel_images(k),
        ),
        (
            r"kernel_images: unknown normalize_by 'all'.*Known: filter, layer",
            lambda k: explain.kernel_images(k[:, :, :1], normalize_by="all"),
        ),
        (
            r"kernel_images: kernel must be nonempty floats .* got float32\(3, 3, 2\)",
            lambda k: explain.kernel_images(k[..., 0]),
        ),
        (
            r"kernel_channel_images: kernel must be nonempty floats .* got float32\(0, 3, 2, 4\)",
            lambda k: explain.kernel_channel_images(k[:0]),
        ),
        (r"colorfulness: kernel must have 3 input channels, .* got \(3, 3, 2, 4\)", lambda k: explain.colorfulness(k)),
        (
            r"change: before and after must have the same shape, got \(3, 3, 2, 4\) and \(2, 3, 2, 4\)",
            lambda k: explain.kernel_change(k, k[:2]),
        ),
    ],
)
def test_kernel_functions_reject_invalid_kernels(message, call):
    with pytest.raises(InputError, match=message):
        call(np.ones((3, 3, 2, 4), np.float32))
