"""TensorFlow Datasets: what was prepared is read without TensorFlow; and with it, the real MNIST is prepared."""

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

# TFDS is not written for warnings to be errors.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    logging.getLogger("absl").setLevel(logging.ERROR)  # it recommends OpenCV
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def prepared(folder, splits, *, features=None, supervised=("image", "label"), name="toy"):
    """A data set as TFDS prepares it: array_record files of tf.train.Example, and what is in them as JSON.

    Args:
        splits: the images and labels of each.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    where = folder / name / "1.0.0"
    where.mkdir(parents=True)
    kinds = tfds.features
    features = features or {"image": kinds.Image(shape=SHAPE), "label": kinds.ClassLabel(names=["cat", "dog"])}
    kinds.FeaturesDict(features).save_config(where)
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    if supervised:
        info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": key} for key in supervised]}}
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(str(where / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for image, label in zip(images, labels):
            packed = io.BytesIO()
            Image.fromarray(image).save(packed, "png")
            example = tf_example_pb2.Example()
            keys = list(features)
            example.features.feature[keys[0]].bytes_list.value.append(packed.getvalue())
            example.features.feature[keys[1]].int64_list.value.append(int(label))
            writer.write(example.SerializeToString())
        writer.close()
        info["splits"].append({"name": split, "shardLengths": [str(len(images))], "numBytes": "1"})
        info["splits"][-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (where / "dataset_info.json").write_text(json.dumps(info))


def draw(rng, count, shape=SHAPE):
    return rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 2


def check(split, images, labels):
    np.testing.assert_array_equal(split.images, images)
    assert split.labels.dtype == np.int32 and split.labels.tolist() == list(labels)


@needs_tfds
def test_a_prepared_data_set_is_read_without_tensorflow(folder, rng):
    train, test = draw(rng, 600), draw(rng, 9)
    prepared(folder, {"train": train, "test": test, "extra": draw(rng, 2)})
    before = "tensorflow" in sys.modules
    dataset = data.load("tfds:toy")
    assert ("tensorflow" in sys.modules) == before
    assert dataset.name == "tfds:toy" and dataset.class_names == ("cat", "dog")
    check(dataset.train, train[0][:500], train[1][:500])  # the last sixth is held out
    check(dataset.validation, train[0][500:], train[1][500:])
    check(dataset.test, *test)


@needs_tfds
def test_a_stream_is_read_when_it_is_asked_for_and_can_be_sent_to_a_worker(folder, rng):
    train, validation, test = draw(rng, 60), draw(rng, 8), draw(rng, 9)
    prepared(folder, {"train": train, "validation": validation, "test": test})
    dataset = data.load("tfds:toy:1.0.0", streaming=True)
    check(dataset.validation, *validation)
    check(dataset.test, *test)
    assert isinstance(dataset.train, LazySplit) and dataset.train.labels.tolist() == train[1].tolist()
    there = pickle.loads(pickle.dumps(dataset.train))
    for i in (0, 31, -1):
        np.testing.assert_array_equal(there[i][0], train[0][i])
    np.testing.assert_array_equal(there.take(np.array([7, 3, 7])), train[0][[7, 3, 7]])
    assert there.with_min_size((10, 14))[0][0].shape == (10, 14, 3)


@needs_tfds
@pytest.mark.parametrize(
    ("others", "sizes"),
    [
        ((), (42, 8, 10)),  # of 60, a sixth to test, then a sixth of the rest to choose
        (("validation",), (50, 10, 9)),  # which becomes the test part
        (("val", "test"), (60, 9, 9)),
    ],
)
def test_parts_that_are_missing_are_made(folder, rng, others, sizes):
    prepared(folder, {"train": draw(rng, 60)} | {name: draw(rng, 9) for name in others})
    dataset = data.load("tfds:toy")
    assert tuple(len(part.labels) for part in (dataset.train, dataset.validation, dataset.test)) == sizes


@needs_tfds
def test_a_test_split_without_public_labels_is_left_out(folder, rng):
    validation = draw(rng, 9)
    prepared(folder, {"train": draw(rng, 60), "validation": validation, "test": (draw(rng, 9)[0], [-1] * 9)})
    dataset = data.load("tfds:toy")
    check(dataset.test, *validation)
    assert len(dataset.validation.labels) == 10


@needs_tfds
def test_grey_images_and_other_names(folder, rng):
    import tensorflow_datasets as tfds

    images, labels = draw(rng, 60, (4, 6))
    features = {"digit": tfds.features.Image(shape=(4, 6, 1)), "kind": tfds.features.ClassLabel(num_classes=2)}
    prepared(folder, {"train": (images, labels)}, features=features, supervised=("digit", "kind"))
    dataset = data.load("tfds:toy")
    assert dataset.class_names == ("0", "1")
    np.testing.assert_array_equal(dataset.test.images[..., 0], images[50:])


def bad(rng):
    import tensorflow_datasets as tfds

    kinds = tfds.features
    picture, label = kinds.Image(shape=SHAPE), kinds.ClassLabel(num_classes=2)
    some = draw(rng, 12)
    return {
        "no class": ({"train": some}, {"features": {"image": picture, "label": kinds.Scalar(np.int64)}}, "has image"),
        "no label": (
            {"train": some},
            {"features": {"image": picture, "kind": label}, "supervised": None},
            r"has image \(Image\(.*\), kind \(ClassLabel\(.*\); wanted an Image of uint8 and a ClassLabel",
        ),
        "deep": (
            {"train": some},
            {"features": {"image": kinds.Image(shape=(*SHAPE[:2], 1), dtype=np.uint16), "label": label}},
            "dtype=uint16",
        ),
        "beyond": ({"train": (some[0], [0, 1, 0, 2] * 3)}, {}, r"label 2 \(example [13]\), but there are 2 classes"),
        "no train": ({"test": some}, {}, "has the splits test, but no train"),
        "sizes": (
            {"train": ([*some[0], np.zeros((5, 8, 3), np.uint8)], [*some[1], 0])},
            {"features": {"image": kinds.Image(shape=(None, None, 3)), "label": label}},
            r"more than one size: record 0 is \(5, 7, 3\), record 12 \(5, 8, 3\)",
        ),
    }


@needs_tfds
@pytest.mark.parametrize("case", ["no class", "no label", "deep", "beyond", "no train", "sizes"])
def test_what_is_no_images_with_a_class_is_described(folder, rng, case):
    splits, options, message = bad(rng)[case]
    prepared(folder, splits, **options)
    with pytest.raises(InputError, match=f"tfds:toy.*{message}") as caught:
        data.load("tfds:toy")
    assert "\n" not in str(caught.value)


@needs_tfds
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "unknown data set 'mnits': did you mean 'mnist'"),
        ("emnist/lettrs", "cannot be opened: .*BuilderConfig lettrs not found"),
        ("mnist:9.9.9", "cannot be opened: .*only: 3.0.1"),
        ("../mnist", "cannot be opened: "),
        ("huggingface:mnist", "is of a community, whose code would be run"),
        ("somebody:toy", "is of a community, whose code would be run"),
    ],
)
def test_a_name_that_tfds_does_not_have_is_told(name, message):
    with pytest.raises(InputError, match=message) as caught:
        data.load(f"tfds:{name}")
    assert "\n" not in str(caught.value)


@needs_tfds
def test_without_tensorflow_it_is_said_how_to_prepare(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r"tfds:mnist is not prepared in .*tfds/mnist.*pip install tensorflow-cpu, or"):
        data.load("tfds:mnist")
    assert not list(folder.rglob("*.json"))


@needs_tfds
def test_what_cannot_be_prepared_names_the_folder_for_its_files(folder, monkeypatch):
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


def test_without_tfds_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r'tfds:mnist needs tensorflow-datasets: pip install "jaxconv\[tfds\]"'):
        data.load("tfds:mnist")


@needs_tfds
@needs_tensorflow
@pytest.mark.skipif(not MNIST.is_dir(), reason="JAXCONV_DATA has no mnist")
def test_the_real_mnist_is_prepared_from_the_official_files_and_read(folder):
    shutil.copytree(MNIST, folder / "downloads" / "manual")
    prepared, official = data.load("tfds:mnist"), data.load("mnist")
    assert (prepared.class_names, prepared.image_shape) == (official.class_names, official.image_shape)

    def rows(*splits):
        both = [np.concatenate([s.images.reshape(len(s.images), -1), s.labels[:, None]], 1) for s in splits]
        return sorted(map(bytes, np.concatenate(both).astype(np.uint8)))

    assert [len(part.labels) for part in (prepared.train, prepared.validation, prepared.test)] == [50_000] + [
        10_000
    ] * 2
    assert rows(prepared.test) == rows(official.test)  # TFDS has shuffled them
    assert rows(prepared.train, prepared.validation) == rows(official.train, official.validation)
