"""TensorFlow Datasets: prepared datasets are read without TensorFlow; with TensorFlow, MNIST is prepared."""

import importlib.util
import io
import json
import logging
import os
import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxconv import InputError, data
from jaxconv.data.base import LazySplit

MNIST = Path(os.environ.get("JAXCONV_DATA", "/nowhere")) / "mnist"
HAS_TFDS = importlib.util.find_spec("tensorflow_datasets") is not None
needs_tfds = pytest.mark.skipif(not HAS_TFDS, reason="tensorflow-datasets is not installed")
needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="no TensorFlow")
SHAPE = 5, 7, 3

# TFDS emits warnings, which are errors in this suite.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    logging.getLogger("absl").setLevel(logging.ERROR)  # it recommends OpenCV
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def prepare(folder, splits, *, features=None, supervised=("image", "label"), name="toy"):
    """Write a dataset as TFDS prepares it: array_record files of tf.train.Example, and their metadata as JSON.

    Args:
        splits: images and labels by split name.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    version_dir = folder / name / "1.0.0"
    version_dir.mkdir(parents=True)
    image, label = tfds.features.Image(shape=SHAPE), tfds.features.ClassLabel(names=["cat", "dog"])
    features = features or {"image": image, "label": label}
    tfds.features.FeaturesDict(features).save_config(version_dir)
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    if supervised:
        info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": key} for key in supervised]}}
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(str(version_dir / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for image, label in zip(images, labels):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "png")
            example = tf_example_pb2.Example()
            keys = list(features)
            example.features.feature[keys[0]].bytes_list.value.append(encoded.getvalue())
            example.features.feature[keys[1]].int64_list.value.append(int(label))
            writer.write(example.SerializeToString())
        writer.close()
        info["splits"].append({"name": split, "shardLengths": [str(len(images))], "numBytes": "1"})
        info["splits"][-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (version_dir / "dataset_info.json").write_text(json.dumps(info))


def random_examples(rng, count, shape=SHAPE):
    return rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 2


def assert_equal(split, images, labels):
    np.testing.assert_array_equal(split.images, images)
    assert split.labels.dtype == np.int32 and split.labels.tolist() == list(labels)


@needs_tfds
def test_load_tfds_without_tensorflow(folder, rng):
    train, test = random_examples(rng, 600), random_examples(rng, 9)
    prepare(folder, {"train": train, "test": test, "extra": random_examples(rng, 2)})
    before = "tensorflow" in sys.modules
    dataset = data.load("tfds:toy")
    assert ("tensorflow" in sys.modules) == before
    assert dataset.name == "tfds:toy" and dataset.class_names == ("cat", "dog")
    assert_equal(dataset.train, train[0][:500], train[1][:500])  # the last sixth is held out
    assert_equal(dataset.validation, train[0][500:], train[1][500:])
    assert_equal(dataset.test, *test)


@needs_tfds
def test_load_tfds_streaming_equals_examples(folder, rng):
    train, validation, test = random_examples(rng, 60), random_examples(rng, 8), random_examples(rng, 9)
    prepare(folder, {"train": train, "validation": validation, "test": test})
    dataset = data.load("tfds:toy:1.0.0", streaming=True)
    assert_equal(dataset.validation, *validation)
    assert_equal(dataset.test, *test)
    assert isinstance(dataset.train, LazySplit) and dataset.train.labels.tolist() == train[1].tolist()
    unpickled = pickle.loads(pickle.dumps(dataset.train))
    for i in (0, 31, -1):
        np.testing.assert_array_equal(unpickled[i][0], train[0][i])
    np.testing.assert_array_equal(unpickled.take(np.array([7, 3, 7])), train[0][[7, 3, 7]])
    assert unpickled.with_min_size((10, 14))[0][0].shape == (10, 14, 3)


@needs_tfds
@pytest.mark.parametrize(
    ("split_names", "sizes"),
    [
        ((), (42, 8, 10)),  # of 60, a sixth for test, then a sixth of the remaining 50 for validation
        (("validation",), (50, 10, 9)),  # it becomes the test split
        (("val", "test"), (60, 9, 9)),
    ],
)
def test_load_tfds_holds_out_missing_splits(folder, rng, split_names, sizes):
    splits = {"train": random_examples(rng, 60)} | {name: random_examples(rng, 9) for name in split_names}
    prepare(folder, splits)
    dataset = data.load("tfds:toy")
    assert tuple(len(split.labels) for split in (dataset.train, dataset.validation, dataset.test)) == sizes


@needs_tfds
def test_load_tfds_skips_test_split_without_labels(folder, rng):
    validation = random_examples(rng, 9)
    prepare(
        folder,
        {"train": random_examples(rng, 60), "validation": validation, "test": (random_examples(rng, 9)[0], [-1] * 9)},
    )
    dataset = data.load("tfds:toy")
    assert_equal(dataset.test, *validation)
    assert len(dataset.validation.labels) == 10


@needs_tfds
def test_load_tfds_grayscale_images_and_other_keys(folder, rng):
    import tensorflow_datasets as tfds

    images, labels = random_examples(rng, 60, (4, 6))
    features = {"digit": tfds.features.Image(shape=(4, 6, 1)), "kind": tfds.features.ClassLabel(num_classes=2)}
    prepare(folder, {"train": (images, labels)}, features=features, supervised=("digit", "kind"))
    dataset = data.load("tfds:toy")
    assert dataset.class_names == ("0", "1")
    np.testing.assert_array_equal(dataset.test.images[..., 0], images[50:])


def invalid_datasets(rng):
    import tensorflow_datasets as tfds

    image, label = tfds.features.Image(shape=SHAPE), tfds.features.ClassLabel(num_classes=2)
    examples = random_examples(rng, 12)
    return {
        "no class": (
            {"train": examples},
            {"features": {"image": image, "label": tfds.features.Scalar(np.int64)}},
            "has image",
        ),
        "no label": (
            {"train": examples},
            {"features": {"image": image, "kind": label}, "supervised": None},
            r"has image \(Image\(.*\), kind \(ClassLabel\(.*\); expected an Image of uint8 and a ClassLabel",
        ),
        "16 bits": (
            {"train": examples},
            {"features": {"image": tfds.features.Image(shape=(*SHAPE[:2], 1), dtype=np.uint16), "label": label}},
            "dtype=uint16",
        ),
        "label": ({"train": (examples[0], [0, 1, 0, 2] * 3)}, {}, r"label 2 \(example [13]\), but there are 2 classes"),
        "no train": ({"test": examples}, {}, "has the splits test, but no train"),
        "sizes": (
            {"train": ([*examples[0], np.zeros((5, 8, 3), np.uint8)], [*examples[1], 0])},
            {"features": {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}},
            r"more than one size: record 0 is \(5, 7, 3\), record 12 \(5, 8, 3\)",
        ),
    }


@needs_tfds
@pytest.mark.parametrize("case", ["no class", "no label", "16 bits", "label", "no train", "sizes"])
def test_load_tfds_invalid_examples_raise(folder, rng, case):
    splits, options, message = invalid_datasets(rng)[case]
    prepare(folder, splits, **options)
    with pytest.raises(InputError, match=f"tfds:toy.*{message}") as caught:
        data.load("tfds:toy")
    assert "\n" not in str(caught.value)


@needs_tfds
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "unknown dataset 'mnits': did you mean 'mnist'"),
        ("emnist/lettrs", "cannot be opened: .*BuilderConfig lettrs not found"),
        ("mnist:9.9.9", "cannot be opened: .*only: 3.0.1"),
        ("../mnist", "cannot be opened: "),
        ("huggingface:mnist", "is a community dataset, whose code would be run"),
        ("somebody:toy", "is a community dataset, whose code would be run"),
    ],
)
def test_load_tfds_unknown_name_raises(name, message):
    with pytest.raises(InputError, match=message) as caught:
        data.load(f"tfds:{name}")
    assert "\n" not in str(caught.value)


@needs_tfds
def test_load_tfds_unprepared_without_tensorflow_raises(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r"tfds:mnist is not prepared in .*tfds/mnist.*pip install tensorflow-cpu, or"):
        data.load("tfds:mnist")
    assert not list(folder.rglob("*.json"))


@needs_tfds
def test_load_tfds_failed_preparation_raises(folder, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(*_, **options):
        assert options["file_format"] == "array_record" and not options["download_config"].try_download_gcs
        raise OSError("no network")

    if importlib.util.find_spec("tensorflow") is None:
        fake = types.ModuleType("tensorflow")
        fake.__spec__ = importlib.util.spec_from_loader("tensorflow", None)
        monkeypatch.setitem(sys.modules, "tensorflow", fake)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(InputError, match=f"mnist could not be prepared: no network.*into {folder}/downloads/manual"):
        data.load("tfds:mnist")


def test_load_tfds_without_package_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r'tfds:mnist needs tensorflow-datasets: pip install "jaxconv\[tfds\]"'):
        data.load("tfds:mnist")


@needs_tfds
@needs_tensorflow
@pytest.mark.skipif(not MNIST.is_dir(), reason="JAXCONV_DATA has no mnist")
def test_load_tfds_mnist_equals_official_files(folder):
    shutil.copytree(MNIST, folder / "downloads" / "manual")
    prepared, official = data.load("tfds:mnist"), data.load("mnist")
    assert (prepared.class_names, prepared.image_shape) == (official.class_names, official.image_shape)

    def sorted_examples(*splits):
        rows = [np.concatenate([s.images.reshape(len(s.images), -1), s.labels[:, None]], 1) for s in splits]
        return sorted(map(bytes, np.concatenate(rows).astype(np.uint8)))

    sizes = [len(split.labels) for split in (prepared.train, prepared.validation, prepared.test)]
    assert sizes == [50_000, 10_000, 10_000]
    assert sorted_examples(prepared.test) == sorted_examples(official.test)  # TFDS shuffles the examples
    expected = sorted_examples(official.train, official.validation)
    assert sorted_examples(prepared.train, prepared.validation) == expected
