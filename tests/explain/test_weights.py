"""Filters as images, their colour, and what training makes of them; AlexNet's two streams."""

import numpy as np
import pytest

from jaxconv import Conv, Dense, InputError, MaxPool, explain, flatten, relu, serial


def alexnet():
    """Krizhevsky et al., 2012, with the sizes that the lectures give (227 instead of the paper's 224)."""
    return serial(
        Conv(96, 11, stride=4), relu, MaxPool(3, stride=2),
        Conv(256, 5, padding=2, groups=2), relu, MaxPool(3, stride=2),
        Conv(384, 3, padding=1), relu,
        Conv(384, 3, padding=1, groups=2), relu,
        Conv(256, 3, padding=1, groups=2), relu, MaxPool(3, stride=2),
        flatten, Dense(4096), relu, Dense(4096), relu, Dense(1000),
    )  # fmt: skip


def test_two_groups_are_the_two_streams_of_alexnet():
    """Lecture row 003-23: its shapes, and the 60,965,224 parameters that its two halves came to."""
    table = explain.summarize(alexnet(), (227, 227, 3))
    found = {row.name: (row.shape, row.params) for row in table.rows if row.kind in ("conv", "max_pool", "dense")}
    assert found == {
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
@pytest.mark.parametrize("per", ["filter", "layer"])
def test_a_filter_is_an_image_around_the_grey_in_the_middle(rng, channels, per):
    kernel = rng.normal(size=(2, 3, channels, 4)).astype(np.float32) * np.array([1, 5, 0.1, 0], np.float32)
    shown = np.asarray(explain.kernel_images(kernel, normalize_by=per))
    assert shown.shape == (4, 2, 3, channels)
    for o in range(4):
        largest = np.abs(kernel[..., o] if per == "filter" else kernel).max() or 1
        for u, v, c in np.ndindex(2, 3, channels):
            np.testing.assert_allclose(shown[o, u, v, c], (1 + kernel[u, v, c, o] / largest) / 2, rtol=1e-5)
    assert shown.min() >= 0 and shown.max() <= 1 and (shown[3] == 0.5).all()


def test_deeper_filters_are_shown_a_channel_at_a_time(rng):
    kernel = rng.normal(size=(3, 2, 5, 4)).astype(np.float32)
    shown = np.asarray(explain.kernel_channel_images(kernel))
    assert shown.shape == (4, 5, 3, 2)
    for o, c in np.ndindex(4, 5):
        np.testing.assert_allclose(shown[o, c], kernel[:, :, c, o] / np.abs(kernel[..., o]).max(), rtol=1e-6)
    whole = np.asarray(explain.kernel_channel_images(kernel, per="layer"))
    np.testing.assert_allclose(whole[1, 2], kernel[:, :, 2, 1] / np.abs(kernel).max(), rtol=1e-6)


def test_colourfulness_is_the_share_that_is_left_without_grey(rng):
    """Lecture row 003-23."""
    kernel = rng.normal(size=(5, 4, 3, 6)).astype(np.float32)
    kernel[..., 0] = kernel[:, :, :1, 0]  # grey
    kernel[:, :, 2, 1] = -kernel[:, :, 0, 1] - kernel[:, :, 1, 1]  # only compares colours
    kernel[:, :, 1:, 2] = 0  # looks at red alone
    kernel[..., 3] = 0
    kernel[..., 4] *= 1e-25  # whose squares are 0 in float32
    found = np.asarray(explain.colorfulness(kernel))
    wide = kernel.astype(np.float64)
    # By the variance between the channels, as an analysis of variance has it.
    wanted = [3 * wide[..., o].var(axis=2).sum() / ((wide[..., o] ** 2).sum() or 1) for o in range(6)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[:4], [0, 1, 2 / 3, 0], rtol=1e-5, atol=1e-7)
    many = explain.colorfulness(rng.normal(size=(3, 3, 3, 2000)).astype(np.float32))
    np.testing.assert_allclose(np.mean(many), 2 / 3, atol=0.01)


def test_change_is_length_and_angle(rng):
    before, after = rng.normal(size=(2, 3, 2, 2, 5)).astype(np.float32)
    after[..., 0], after[..., 1], after[..., 2] = before[..., 0], 3 * before[..., 1], -before[..., 2]
    before[..., 3] = 0
    found = explain.kernel_change(before, after)
    for o in range(5):
        a, b = before[..., o].ravel().astype(np.float64), after[..., o].ravel().astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            np.testing.assert_allclose(found.relative[o], np.linalg.norm(b - a) / np.linalg.norm(a), rtol=1e-5)
            np.testing.assert_allclose(found.cosine[o], a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), rtol=1e-5)
    np.testing.assert_allclose(found.relative[:4], [0, 2, 2, np.inf], rtol=1e-5)
    assert np.isnan(found.cosine[3])


@pytest.mark.parametrize(
    ("said", "call"),
    [
        (
            r"kernel_images: kernel \(3, 3, 2, 4\) looks at 2 channels.*kernel_channel_images",
            lambda k: explain.kernel_images(k),
        ),
        (
            r"kernel_images: unknown per 'all'.*Known: filter, layer",
            lambda k: explain.kernel_images(k[:, :, :1], normalize_by="all"),
        ),
        (r"kernel_images: kernel float32\(3, 3, 2\) should be floats", lambda k: explain.kernel_images(k[..., 0])),
        (
            r"kernel_channel_images: kernel float32\(0, 3, 2, 4\) should be",
            lambda k: explain.kernel_channel_images(k[:0]),
        ),
        (r"colorfulness: kernel \(3, 3, 2, 4\) has not the three channels", lambda k: explain.colorfulness(k)),
        (
            r"change: kernels \(3, 3, 2, 4\) and \(2, 3, 2, 4\) are not of one",
            lambda k: explain.kernel_change(k, k[:2]),
        ),
    ],
)
def test_what_is_no_such_kernel_is_refused(said, call):
    with pytest.raises(InputError, match=said):
        call(np.ones((3, 3, 2, 4), np.float32))
