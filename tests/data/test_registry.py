"""Datasets: the IDX format, splits, lazy splits and upscaling, and the official files if JAXCONV_DATA has them."""

import gzip
import os
import pickle
import re
import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxconv import InputError, data
from jaxconv.data.array_files import read_idx
from jaxconv.data.base import Dataset, LazySplit, Split, hold_out
from jaxconv.data.splits import PartialDataset, as_class_labels, complete_splits, default_class_names
from jaxconv.data.vision_datasets import CLOTHES
from jaxconv.utils import progress

DATA_DIR = Path(os.environ.get("JAXCONV_DATA", "/nowhere"))


def needs(name):
    available = (DATA_DIR / name / "train-images-idx3-ubyte.gz").is_file()
    return pytest.mark.skipif(not available, reason=f"JAXCONV_DATA has no {name}")


def idx(shape, content):
    return gzip.compress(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content, mtime=0)


def test_read_idx_matches_header(tmp_path):
    path = tmp_path / "three.gz"
    path.write_bytes(idx((2, 3, 2), bytes(range(12))))
    np.testing.assert_array_equal(read_idx(path), np.arange(12).reshape(2, 3, 2))
    path.write_bytes(idx((4,), bytes(range(4))))
    assert read_idx(path).tolist() == [0, 1, 2, 3]
    plain = tmp_path / "plain-idx1-ubyte"
    plain.write_bytes(gzip.decompress(idx((4,), bytes(range(4)))))
    assert read_idx(plain).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip at all", "not a complete gzip file"),
        (idx((9, 9), bytes(range(81)))[:-20], "not a complete gzip file"),
        (gzip.compress(b"\x89PNG.....", mtime=0), r"not an IDX file of bytes: it begins with 89 50 4e 47"),
        (gzip.compress(b"", mtime=0), "not an IDX file of bytes: it begins with nothing"),
        (idx((3, 4), bytes(11)), r"declares \(3, 4\) but holds 11 bytes"),
    ],
)
def test_read_idx_damaged_file_raises(tmp_path, content, message):
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_load_digits_splits_are_complete_and_disjoint():
    digits = data.load("digits")
    splits = digits.train, digits.validation, digits.test
    assert [len(split.labels) for split in splits] == [1257, 180, 360]
    images = np.concatenate([split.images for split in splits])
    assert len(np.unique(images.reshape(1797, -1), axis=0)) == 1797  # no duplicates
    assert images.min() == 0 and images.max() == 255
    assert all(set(split.labels) == set(range(10)) for split in splits)


def test_hold_out_takes_last_examples_in_order():
    train, validation = hold_out(Split(np.arange(6), np.arange(6)), 2)
    assert train.labels.tolist() == [0, 1, 2, 3] and validation.labels.tolist() == [4, 5]


@pytest.mark.parametrize("count", [0, 6, 7, -1])
def test_hold_out_invalid_count_raises(count):
    with pytest.raises(InputError, match=f"hold_out: count={count} must be at least 1 and less than the 6 examples"):
        hold_out(Split(np.arange(6), np.arange(6)), count)


def test_upscale_and_pad_scales_then_pads(rng):
    image = rng.integers(0, 256, (2, 28, 28, 1), np.uint8)
    padded = data.upscale_and_pad(image, (32, 32))
    np.testing.assert_array_equal(padded[:, 2:30, 2:30], image)
    assert padded.sum(dtype=int) == image.sum(dtype=int)
    assert data.upscale_and_pad(image, (28, 28)) is image and data.upscale_and_pad(image, (8, 8)) is image
    flat = data.upscale_and_pad(np.full((1, 8, 8, 1), 77, np.uint8), (32, 32))
    assert flat.shape == (1, 32, 32, 1) and (flat == 77).all()
    ramp = np.arange(8, dtype=np.uint8)[None, None, :, None] * np.ones((1, 8, 1, 1), np.uint8) * 16
    row = data.upscale_and_pad(ramp, (16, 16))[0, 5, :, 0]
    assert (np.diff(row.astype(int))[1:-1] == 8).all()  # linear between the pixels


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_upscale_and_pad_equals_jax_image_resize(rng, factor):
    images = rng.integers(0, 256, (3, 5, 7, 3), np.uint8)
    larger = jax.image.resize(images.astype(np.float32), (3, 5 * factor, 7 * factor, 3), "linear")
    np.testing.assert_array_equal(data.upscale_and_pad(images, (5 * factor, 7 * factor + 1))[:, :, :-1], larger.round())


def test_pickled_lazy_split_equals_split(rng):
    images, labels = rng.integers(0, 256, (700, 3, 5, 1), np.uint8), rng.integers(0, 9, 700, np.int32)
    lazy = pickle.loads(pickle.dumps(Split(images, labels).to_lazy()))
    assert len(lazy) == 700 and lazy.image_shape == (3, 5, 1) and lazy.to_lazy() is lazy
    for i in (0, 613, np.int64(3), -1):
        image, label = lazy[i]
        np.testing.assert_array_equal(image, images[i])
        assert label == labels[i] and type(label) is int
    with pytest.raises(IndexError):
        lazy[700]
    with pytest.raises(
        InputError, match=r"LazySplit\[slice\(1, 3, None\)\]: the index must be one integer; for several"
    ):
        lazy[1:3]
    np.testing.assert_array_equal(lazy.take([5, 1, 5]), images[[5, 1, 5]])
    in_memory = lazy.to_memory("all")  # in more than one chunk
    np.testing.assert_array_equal(in_memory.images, images)
    np.testing.assert_array_equal(in_memory.labels, labels)
    padded = lazy.with_min_size((4, 6))
    assert padded.image_shape == (4, 6, 1) == padded[2][0].shape
    np.testing.assert_array_equal(padded.take([2]), data.upscale_and_pad(images[2:3], (4, 6)))


def test_load_streaming_equals_in_memory():
    digits, lazy = data.load("digits"), data.load("digits", streaming=True)
    assert isinstance(lazy.train, LazySplit) and isinstance(lazy.test, Split)
    np.testing.assert_array_equal(lazy.train.to_memory("").images, digits.train.images)
    large = lazy.with_min_size((28, 28, 1))
    assert large.image_shape == (28, 28, 1) == large.train[0][0].shape
    np.testing.assert_array_equal(large.train[5][0], digits.with_min_size((28, 28, 1)).train.images[5])


def test_complete_splits_takes_missing_splits_from_the_end():
    images, labels = np.arange(60, dtype=np.uint8)[:, None, None, None], np.arange(60, dtype=np.int32) % 2
    train, other = Split(images, labels), Split(images[:5] + 100, labels[:5])

    stored = PartialDataset("x", ("even", "odd"), train)

    def pixels(stored):
        dataset = complete_splits(stored)
        return [split.images.ravel().tolist() for split in (dataset.train, dataset.validation, dataset.test)]

    assert pixels(stored._replace(validation=other, test=other)) == [[*range(60)], *[[*range(100, 105)]] * 2]
    expected = [[*range(50)], [*range(50, 60)], [*range(100, 105)]]
    assert pixels(stored._replace(test=other)) == expected
    assert pixels(stored._replace(validation=other)) == expected  # the validation split becomes the test split
    assert pixels(stored) == [[*range(42)], [*range(42, 50)], [*range(50, 60)]]
    streamed = complete_splits(stored, streaming=True)
    assert isinstance(streamed.train, LazySplit) and len(streamed.train) == 42


def split_of_labels(labels):
    labels = np.asarray(labels, np.int32)
    return Split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 1, 1, 2, 2],
        np.repeat([2, 1, 0], 20),
        np.repeat([0, 1, 0, 2, 1], [4, 5, 5, 5, 5]),
        [*[0] * 8, 2, *[0] * 12, *[1] * 20, *[2] * 20],  # sorted except for one label
        np.repeat([0, 1, 0, 2, 1, 0, 2], 20),
        [*np.tile([0, 1], 60), *np.repeat(2, 6), *np.tile([0, 1], 20)],  # a rare class
        [0, 0, 0, 0, 0, 0, 0, 1, 2, 2],  # a class with one example, which stays in training
    ],
)
def test_complete_splits_of_sorted_labels_holds_out_by_class(labels):
    labels, images = np.asarray(labels, np.int32), np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    stored = PartialDataset("x", ("a", "b", "c"), Split(images, labels), test=split_of_labels([0, 1, 2]))
    held_out = {index for label in range(3) for index in last_sixth(np.flatnonzero(labels == label))}
    for streaming in (False, True):
        dataset = complete_splits(stored, streaming=streaming)
        assert set(dataset.validation.images.ravel().tolist()) == held_out
        assert dataset.validation.labels.tolist() == labels[sorted(held_out)].tolist()
        train = dataset.train.to_memory("") if streaming else dataset.train
        assert train.images.ravel().tolist() == [i for i in range(len(labels)) if i not in held_out]
    complete = complete_splits(stored._replace(validation=split_of_labels([2])))
    assert len(complete.train.labels) == len(labels)  # nothing is held out


def last_sixth(indices):
    return indices[-max(1, len(indices) // 6) :].tolist() if len(indices) > 1 else []


@pytest.mark.parametrize("labels", [np.ones(40), np.tile([2, 1, 0], 20), np.tile([0, 1, 2, 2, 2, 2, 2, 2], 50)])
def test_complete_splits_of_mixed_labels_holds_out_last_sixth(labels):
    stored = PartialDataset("x", ("a", "b", "c"), split_of_labels(labels), test=split_of_labels([0, 1, 2]))
    held_out = complete_splits(stored).validation
    assert held_out.labels.tolist() == labels[-(len(labels) // 6) :].tolist()


def test_complete_splits_of_one_example_raises():
    with pytest.raises(InputError, match="x: one example is too few for training and testing"):
        complete_splits(PartialDataset("x", ("a",), split_of_labels([0])))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.array([0, 1, 2**32], np.int64),
            r"label 4294967296 \(example 2\) is not a class index: number the classes from 0",
        ),
        (np.array([2**63, 0], np.uint64), r"label 9223372036854775808 \(example 0\) is not a class index"),
        (np.array([0, 2**31]), r"label 2147483648 \(example 1\) is not a class index"),
        (np.array([0, -1], np.int8), r"label -1 \(example 1\) is not a class index"),
        (np.array([], np.uint8), r"labels uint8\(0,\) must be one integer per image, .* and not empty"),
        (np.zeros((0, 1), int), r"labels int64\(0,\) must be one integer per image"),
    ],
)
def test_as_class_labels_invalid_labels_raise(labels, message):
    with pytest.raises(InputError, match=f"^toy: {message}"):
        as_class_labels("toy", labels)


def test_as_class_labels_keeps_highest_int32():
    highest = as_class_labels("toy", np.array([2**31 - 1], np.uint64))
    assert highest.tolist() == [2**31 - 1] and highest.dtype == np.int32


def test_default_class_names_more_classes_than_examples_raises():
    assert default_class_names("toy", np.array([0, 2, 0])) == ("0", "1", "2")
    with pytest.raises(InputError, match=r"toy: label 3 \(example 1\) makes 4 classes, more than the 3 training"):
        default_class_names("toy", np.array([0, 3, 0]))


def test_map_chunks_shows_bar_only_at_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    assert list(progress.map_chunks(len, range(1200), "reading")) == [512, 512, 176]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(progress.map_chunks(len, range(1200), "reading")) == [512, 512, 176]
    assert "reading" in capsys.readouterr().err


def test_load_unknown_scheme_or_missing_path_raises():
    with pytest.raises(InputError, match="unknown dataset scheme 'nzp': did you mean 'npz'"):
        data.load("nzp:file.npz")
    with pytest.raises(InputError, match="folder: is incomplete: give folder:PATH"):
        data.load("folder:")
    with pytest.raises(InputError, match="unknown dataset 3"):
        data.load(3)


def test_package_loads_pickles_only_in_safe_pickle():
    root = Path(data.__file__).parent.parent
    sources = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}
    loaders = r"(?m)^\s*(import|from) (pickle|cloudpickle|dill|joblib|marshal|shelve)\b"
    assert [name for name, text in sources.items() if re.search(loaders, text)] == ["data/safe_pickle.py"]
    for name, text in sources.items():
        assert not re.search(r"pickle\.loads?\(|allow_pickle=True|\beval\(|\bexec\(|yaml\.load\(", text), name
        for call in re.findall(r"np\.load\([^)]*\)", text):
            assert "allow_pickle=False" in call, (name, call)


def test_dataset_invalid_splits_raise():
    valid = Split(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 1], np.int32))

    def make(**changes):
        return Dataset(
            **{"name": "toy", "class_names": ("a", "b"), "train": valid, "validation": valid, "test": valid} | changes
        )

    assert make().image_shape == (4, 4, 1)
    with pytest.raises(InputError, match=r"toy: test has label 2 \(example 2\), but there are 2 classes: 0 to 1"):
        make(test=valid._replace(labels=np.array([0, 1, 2])))
    with pytest.raises(InputError, match=r"toy: train has 3 images float32 \(4, 4, 1\) and 3 labels; expected uint8"):
        make(train=valid._replace(images=valid.images.astype(np.float32)))
    with pytest.raises(InputError, match=r"toy: validation has 3 images .* and 2 labels; .* one label per image"):
        make(validation=valid._replace(labels=valid.labels[:2]))
    with pytest.raises(InputError, match=r"label -1 \(example 1\)"):
        make(validation=valid._replace(labels=np.array([0, -1, 1])))
    with pytest.raises(InputError, match=r"training images are \(4, 4, 1\) but those of test \(5, 4, 1\)"):
        make(test=valid._replace(images=np.zeros((3, 5, 4, 1), np.uint8)))
    with pytest.raises(InputError, match="toy: train has 0 images"):
        make(train=valid.subset(slice(0, 0)).to_lazy())
    with pytest.raises(InputError, match="toy: train has label 1"):
        make(train=valid.to_lazy(), class_names=("a",))


def test_clothes_are_in_official_order():
    """The order of the table in https://github.com/zalandoresearch/fashion-mnist."""
    assert " ".join(CLOTHES) == "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle boot"


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs(n)) for n in ("mnist", "fashion_mnist")])
def test_official_files_have_published_shapes_and_labels(name):
    """Row 004-17: 60,000 and 10,000 images of 28×28, uint8; the last 10,000 of the former are for validation."""
    dataset = data.load(name)
    train, validation, test = dataset.train, dataset.validation, dataset.test
    assert train.images.shape == (50_000, 28, 28, 1) and train.images.dtype == np.uint8
    assert validation.images.shape == test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(test.labels).min() > 800 and len(dataset.class_names) == 10
    first_labels = {"mnist": [5, 0, 4, 1, 9], "fashion_mnist": [9, 0, 0, 3, 0]}[name]
    assert train.labels[:5].tolist() == first_labels
    [report] = data.verify_files([name])
    assert not report.damaged and not report.missing and "(50000, 28, 28)" in report.lines[-1]


@needs("mnist")
def test_mnist_mean_and_std_match_published_values():
    mnist = data.load("mnist")
    pixels = np.concatenate([mnist.train.images, mnist.validation.images]) / 255
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0.1307, 0.3081], atol=5e-5)
