"""Folders of images and archives of them: pixels, splits and errors."""

import dataclasses
import hashlib
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxconv import InputError, data
from jaxconv.data import image_folder
from jaxconv.data.archives import extract_archive
from jaxconv.data.base import LazySplit
from jaxconv.utils import progress

SHAPE = 5, 7


@pytest.fixture(autouse=True)
def unpacked(monkeypatch, tmp_path):
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    return tmp_path / "cache" / "unpacked"


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def pets(tmp_path, rng):
    """40 grayscale images of two classes, and their pixels by name."""
    root = tmp_path / "pets"
    return root, {
        name: save(root / name, rng.integers(0, 256, SHAPE, np.uint8))
        for name in (f"{label}/{n}.png" for n in range(20) for label in ("dog", "cat"))
    }


def splits_of(dataset):
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}


def test_load_folder_splits_by_hash_of_path(pets):
    root, pixels = pets
    dataset = data.load(f"folder:{root}")
    assert dataset.class_names == ("cat", "dog") and dataset.image_shape == (*SHAPE, 1)
    order = sorted(pixels, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    rank_in_class = {name: [other for other in order if other[0] == name[0]].index(name) for name in order}
    ranks = {"test": range(2), "validation": range(2, 4), "train": range(4, 20)}
    expected = {key: [name for name in order if rank_in_class[name] in ranks[key]] for key in ranks}
    for key, split in splits_of(dataset).items():
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images[..., 0], [pixels[name] for name in expected[key]])
        assert split.labels.tolist() == [int(name.startswith("dog")) for name in expected[key]]


def test_load_folder_streaming_equals_in_memory(pets, monkeypatch):
    root, _ = pets
    monkeypatch.setattr(progress, "CHUNK", 7)
    in_memory, streamed = data.load(f"folder:{root}"), data.load(f"folder:{root}", streaming=True)
    assert isinstance(streamed.train, LazySplit) and not isinstance(streamed.validation, LazySplit)
    unpickled = pickle.loads(pickle.dumps(streamed.train))
    np.testing.assert_array_equal(unpickled.labels, in_memory.train.labels)
    for i in (0, 9, len(unpickled) - 1):
        np.testing.assert_array_equal(unpickled[i][0], in_memory.train.images[i])
    np.testing.assert_array_equal(unpickled.take([3, 1]), in_memory.train.images[[3, 1]])
    larger, larger_streamed = in_memory.with_min_size((11, 14, 1)), streamed.with_min_size((11, 14, 1))
    np.testing.assert_array_equal(larger_streamed.train[4][0], larger.train.images[4])
    (root / streamed.train.items[2]).unlink()
    with pytest.raises(InputError, match=f"there is no image .*{streamed.train.items[2]}"):
        unpickled[2]
    save(root / streamed.train.items[3], np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"is \(9, 9, 1\) now, but was \(5, 7, 1\) when the dataset was opened"):
        unpickled[3]


@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_load_folder_of_splits(tmp_path, rng, validation):
    pixels = {}
    for folder, count in (("train", 6), (validation, 2), ("test", 3)):
        for label in "ab":
            for n in range(count):
                name = f"{folder}/{label}/{n}.png"
                pixels[name] = save(tmp_path / "set" / name, rng.integers(0, 256, SHAPE, np.uint8))
    dataset = data.load(f"folder:{tmp_path / 'set'}")
    assert [len(split.labels) for split in splits_of(dataset).values()] == [12, 4, 6]
    for folder, split in zip(("train", validation, "test"), splits_of(dataset).values()):
        order = sorted((n for n in pixels if n.startswith(folder)), key=lambda n: hashlib.sha256(n.encode()).digest())
        np.testing.assert_array_equal(split.images[..., 0], [pixels[name] for name in order])
        assert split.labels.tolist() == ["ab".index(name.split("/")[1]) for name in order]


def test_load_folder_without_validation_holds_out_a_sixth(tmp_path, rng):
    for name in [f"train/{label}/{n}.png" for label in "ab" for n in range(30)] + ["test/a/1.png", "test/b/1.png"]:
        save(tmp_path / name, rng.integers(0, 256, SHAPE, np.uint8))
    dataset = data.load(f"folder:{tmp_path}")
    assert [len(split.labels) for split in splits_of(dataset).values()] == [50, 10, 2]
    assert set(dataset.validation.labels) == {0, 1}  # both classes, although the files are sorted by class


def test_load_folder_converts_image_modes(tmp_path, rng):
    gray = rng.integers(0, 256, SHAPE, np.uint8)
    gray_16_bit, transparent = gray.astype(np.uint16) * 257, np.dstack([gray, np.zeros_like(gray)])
    save(tmp_path / "a" / "8.png", gray)
    save(tmp_path / "a" / "16.png", gray_16_bit)
    save(tmp_path / "b" / "transparent.png", transparent)
    save(tmp_path / "b" / "bits.png", gray > 99)
    for label in "ab":  # so that each class has one image per split
        save(tmp_path / label / "third.png", gray)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"ignored")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"ignored")
    (tmp_path / "README.txt").write_text("ignored, since it is not in a class folder")
    (tmp_path / "__MACOSX").mkdir()

    def read_all():
        stored = image_folder.load_image_folder(str(tmp_path))
        return {file: split[i][0] for split in stored[2:] for i, file in enumerate(split.items)}

    images = read_all()
    np.testing.assert_array_equal(images["a/8.png"][..., 0], gray)
    np.testing.assert_array_equal(images["a/16.png"][..., 0], gray)
    np.testing.assert_array_equal(images["b/bits.png"][..., 0], np.where(gray > 99, 255, 0))
    assert (images["b/transparent.png"] == 255).all() and images["b/transparent.png"].shape == (*SHAPE, 1)

    color = save(tmp_path / "b" / "color.png", rng.integers(0, 256, (*SHAPE, 3), np.uint8))
    rotated = rng.integers(0, 256, (SHAPE[1], SHAPE[0], 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    save(tmp_path / "b" / "rotated.JPG", rotated, exif=exif, quality=100, subsampling=0)
    images = read_all()
    assert {image.shape for image in images.values()} == {(*SHAPE, 3)}
    np.testing.assert_array_equal(images["b/color.png"], color)
    np.testing.assert_array_equal(images["a/8.png"], np.dstack([gray] * 3))
    difference = images["b/rotated.JPG"].astype(int) - np.rot90(rotated, -1)
    assert abs(difference).mean() < 20  # JPEG is lossy


def image(path, shape=SHAPE):
    save(path, np.zeros(shape, np.uint8))


def text(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not an image")


def truncated(path):
    save(path, np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
    path.write_bytes(path.read_bytes()[:60])


INVALID = {
    "nothing": ({}, r"there is no .*set"),
    "no folders": ({"1.png": image}, "has no subfolders; expected PATH/class/"),
    "one class": ({"a/1.png": image}, "has only the class a; .* with at least two classes"),
    "empty class": ({"a/1.png": image, "b/.hidden": text}, "class b is empty: .*set/b has no png or jpg"),
    "no image": ({"a/1.png": image, "b/1.txt": text}, r"set/b/1\.txt is not a png or jpg"),
    "deeper": ({"a/x/1.png": image, "b/1.png": image}, r"set/a/x is not a png or jpg; expected PATH/class/\*\.png"),
    "text": ({"a/1.png": image, "b/1.png": text, "b/2.png": image}, r"b/1\.png is not an image that Pillow can"),
    "truncated": (
        {"a/1.png": image, "b/1.png": truncated, **{f"{name}.png": image for name in ("a/2", "a/3", "b/2", "b/3")}},
        r"b/1\.png cannot be read as an image",
    ),
    "too few": (
        {"a/1.png": image, "b/1.png": image},
        "has 1 images of the class a; at least 3 are required, .*: add some, or define the splits: expected PATH",
    ),
    "too few of one class": (
        {f"{name}.png": image for name in ("a/1", "a/2", "a/3", "b/3", "b/4")},
        "has 2 images of the class b",
    ),
    "no train": ({"test/a/1.png": image, "test/b/1.png": image}, "has test but no train; expected PATH/class"),
    "unknown split": (
        {"train/a/1.png": image, "train/b/1.png": image, "tset/a/1.png": image},
        "tset is neither train, validation nor test",
    ),
    "two validation splits": (
        {f"{folder}/{label}/1.png": image for folder in ("train", "val", "valid") for label in "ab"},
        "has train, val, valid: keep one validation folder",
    ),
    "unknown class": (
        {f"{name}/1.png": image for name in ("train/a", "train/b", "test/a", "test/c")},
        "test has a class c that train does not have; known: a, b",
    ),
    "one class in test": (
        {f"{name}/1.png": image for name in ("train/a", "train/b", "test/a")},
        "set/test has only the class a",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_load_folder_invalid_content_raises(tmp_path, case):
    content, message = INVALID[case]
    for name, write in content.items():
        write(tmp_path / "set" / name)
    with pytest.raises(InputError, match=message) as caught:
        data.load(f"folder:{tmp_path / 'set'}")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_load_folder_of_two_image_sizes_raises(pets):
    root, _ = pets
    image(root / "dog" / "wide.png", (5, 8))
    with pytest.raises(
        InputError, match=r"more than one size: \w+/\d+\.png is 5×7 \(height × width\), dog/wide.png is"
    ):
        data.load(f"folder:{root}")


def test_load_archive_equals_folder_and_is_cached(pets, unpacked, tmp_path, monkeypatch):
    root, _ = pets
    expected = data.load(f"folder:{root}")
    archives = {"with.tar.gz": ("w:gz", "pets"), "without.tar": ("w", "."), "xz.tar.xz": ("w:xz", "pets")}
    for name, (mode, arcname) in archives.items():
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(root, arcname)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as content:
        for path in sorted(root.rglob("*.png")):
            content.write(path, path.relative_to(tmp_path))
    calls = []
    counted = lambda *args: calls.append(args) or extract_archive(*args)  # noqa: E731
    monkeypatch.setattr(image_folder, "extract_archive", counted)
    for count, name in enumerate([*archives, "pets.zip"], 1):
        for _ in range(2):  # the second time from the cache
            dataset = data.load(f"folder:{tmp_path / name}")
            np.testing.assert_array_equal(dataset.train.images, expected.train.images)
            assert dataset.class_names == ("cat", "dog") and len(list(unpacked.iterdir())) == count == len(calls)


def test_load_changed_archive_unpacks_again(pets, tmp_path):
    root, _ = pets
    for count in (40, 41):
        with tarfile.open(tmp_path / "pets.tar", "w") as tar:
            tar.add(root, "pets")
        dataset = data.load(f"folder:{tmp_path / 'pets.tar'}")
        assert sum(len(split.labels) for split in splits_of(dataset).values()) == count
        image(root / "cat" / "new.png")


def test_load_invalid_archive_leaves_no_cache(tmp_path, unpacked):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as content:
        content.writestr("cat/1.txt", "not an image")
        content.writestr("dog/1.txt", "not an image")
    with pytest.raises(InputError, match=r"is not a png or jpg"):
        data.load(f"folder:{tmp_path / 'x.zip'}")
    assert list(unpacked.iterdir()) == []


def test_load_folder_errors_are_printable(tmp_path):
    for label in ("cat\n\x1b[31m", "dog"):
        text(tmp_path / "set" / label / "1.txt")
    with pytest.raises(InputError, match=r"cat\\n\\x1b\[31m/1\.txt is not a png or jpg"):
        data.load(f"folder:{tmp_path / 'set'}")


def test_to_memory_beyond_memory_raises(pets):
    root, _ = pets
    train = data.load(f"folder:{root}", streaming=True).train
    with pytest.raises(
        InputError, match=r"^x: images \(32, 1099511627776, 1099511627776, 1\) do not fit in memory: .*--st"
    ):
        dataclasses.replace(train, image_shape=(2**40, 2**40, 1)).to_memory("x")
