"""Data sets: the IDX format, the parts, the enlarging; and the official files where they are at hand."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from jaxconv import InputError, data
from jaxconv.data.dataset import Dataset, Split, hold_out
from jaxconv.data.idx import read_idx

HAVE = Path(os.environ.get("JAXCONV_DATA", "/nowhere"))


def needs(name):
    there = (HAVE / name / "train-images-idx3-ubyte.gz").is_file()
    return pytest.mark.skipif(not there, reason=f"JAXCONV_DATA has no {name}")


def idx(shape, content):
    return gzip.compress(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content)


def test_idx_is_read_as_its_header_says(tmp_path):
    path = tmp_path / "three.gz"
    path.write_bytes(idx((2, 3, 2), bytes(range(12))))
    np.testing.assert_array_equal(read_idx(path), np.arange(12).reshape(2, 3, 2))
    path.write_bytes(idx((4,), bytes(range(4))))
    assert read_idx(path).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip at all", "not a whole gzip file"),
        (idx((9, 9), bytes(range(81)))[:-20], "not a whole gzip file"),
        (gzip.compress(b"\x89PNG....."), r"not an IDX file of bytes: it begins with 89 50 4e 47"),
        (gzip.compress(b""), "not an IDX file of bytes: it begins with nothing"),
        (idx((3, 4), bytes(11)), r"promises \(3, 4\) but holds 11 bytes"),
    ],
)
def test_damaged_idx_is_described(tmp_path, content, message):
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_digits_are_whole_and_its_parts_are_apart():
    digits = data.load("digits")
    parts = digits.train, digits.validation, digits.test
    assert [len(part.labels) for part in parts] == [1257, 180, 360]
    images = np.concatenate([part.images for part in parts])
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # no image is there twice
    assert images.min() == 0 and images.max() == 255
    assert all(set(part.labels) == set(range(10)) for part in parts)


def test_hold_out_takes_the_last_before_shuffling():
    train, validation = hold_out(Split(np.arange(6), np.arange(6)), 2)
    assert train.labels.tolist() == [0, 1, 2, 3] and validation.labels.tolist() == [4, 5]


@pytest.mark.parametrize("count", [0, 6, 7, -1])
def test_holding_out_nothing_or_everything_is_refused(count):
    with pytest.raises(InputError, match=f"hold_out: count={count} should be at least 1 and below the 6 examples"):
        hold_out(Split(np.arange(6), np.arange(6)), count)


def test_enlarging_magnifies_then_frames(rng):
    image = rng.integers(0, 256, (2, 28, 28, 1), np.uint8)
    framed = data.enlarge(image, (32, 32))
    np.testing.assert_array_equal(framed[:, 2:30, 2:30], image)
    assert framed.sum(dtype=int) == image.sum(dtype=int)
    assert data.enlarge(image, (28, 28)) is image and data.enlarge(image, (8, 8)) is image
    flat = data.enlarge(np.full((1, 8, 8, 1), 77, np.uint8), (32, 32))
    assert flat.shape == (1, 32, 32, 1) and (flat == 77).all()
    ramp = np.arange(8, dtype=np.uint8)[None, None, :, None] * np.ones((1, 8, 1, 1), np.uint8) * 16
    row = data.enlarge(ramp, (16, 16))[0, 5, :, 0]
    assert (np.diff(row.astype(int))[1:-1] == 8).all()  # linear between the pixels


def test_a_data_set_that_cannot_be_is_refused():
    good = Split(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 1], np.int32))

    def make(**changes):
        return Dataset(
            **{"name": "toy", "classes": ("a", "b"), "train": good, "validation": good, "test": good} | changes
        )

    assert make().in_shape == (4, 4, 1)
    with pytest.raises(InputError, match="toy: test has labels from 0 to 2, but there are 2 classes: 0 to 1"):
        make(test=good._replace(labels=np.array([0, 1, 2])))
    with pytest.raises(InputError, match=r"toy: train has images float32\(3, 4, 4, 1\)"):
        make(train=good._replace(images=good.images.astype(np.float32)))
    with pytest.raises(InputError, match="as many labels"):
        make(validation=good._replace(labels=good.labels[:2]))


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs(n)) for n in ("mnist", "fashion_mnist")])
def test_the_official_files(name):
    dataset = data.load(name)
    train, validation, test = dataset.train, dataset.validation, dataset.test
    assert train.images.shape == (50_000, 28, 28, 1) and train.images.dtype == np.uint8
    assert validation.images.shape == test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(test.labels).min() > 800 and len(dataset.classes) == 10
    first = {"mnist": [5, 0, 4, 1, 9], "fashion_mnist": [9, 0, 0, 3, 0]}[name]
    assert train.labels[:5].tolist() == first
    [report] = data.check([name])
    assert not report.damaged and not report.missing and "(50000, 28, 28)" in report.lines[-1]


@needs("mnist")
def test_mean_and_deviation_of_mnist_are_the_published_ones():
    mnist = data.load("mnist")
    pixels = np.concatenate([mnist.train.images, mnist.validation.images]) / 255
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0.1307, 0.3081], atol=5e-5)
