"""Folders of pictures: what is read, in which part it is, and what is refused; and archives of them."""

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
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    return tmp_path / "cache" / "unpacked"


def draw(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def pets(tmp_path, rng):
    """40 grey pictures of two classes, and their pixels by name."""
    root = tmp_path / "pets"
    return root, {
        name: draw(root / name, rng.integers(0, 256, SHAPE, np.uint8))
        for name in (f"{label}/{n}.png" for n in range(20) for label in ("dog", "cat"))
    }


def parts(dataset):
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}


def test_every_picture_is_in_one_part_by_the_hash_of_its_name(pets):
    root, pixels = pets
    dataset = data.load(f"folder:{root}")
    assert dataset.class_names == ("cat", "dog") and dataset.image_shape == (*SHAPE, 1)
    order = sorted(pixels, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    ranks = {name: [other for other in order if other[0] == name[0]].index(name) for name in order}  # in its class
    want = {"test": range(2), "validation": range(2, 4), "train": range(4, 20)}
    want = {part: [name for name in order if ranks[name] in rank] for part, rank in want.items()}
    for part, split in parts(dataset).items():
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images[..., 0], [pixels[name] for name in want[part]])
        assert split.labels.tolist() == [int(name.startswith("dog")) for name in want[part]]


def test_a_stream_gives_the_same_and_can_be_sent_to_a_worker(pets, monkeypatch):
    root, _ = pets
    monkeypatch.setattr(progress, "CHUNK", 7)
    whole, streamed = data.load(f"folder:{root}"), data.load(f"folder:{root}", streaming=True)
    assert isinstance(streamed.train, LazySplit) and not isinstance(streamed.validation, LazySplit)
    there = pickle.loads(pickle.dumps(streamed.train))
    np.testing.assert_array_equal(there.labels, whole.train.labels)
    for i in (0, 9, len(there) - 1):
        np.testing.assert_array_equal(there[i][0], whole.train.images[i])
    np.testing.assert_array_equal(there.take([3, 1]), whole.train.images[[3, 1]])
    larger, framed = whole.with_min_size((11, 14, 1)), streamed.with_min_size((11, 14, 1))
    np.testing.assert_array_equal(framed.train[4][0], larger.train.images[4])
    (root / streamed.train.items[2]).unlink()
    with pytest.raises(InputError, match=f"there is no image .*{streamed.train.items[2]}"):
        there[2]
    draw(root / streamed.train.items[3], np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"is \(9, 9, 1\) now, but it was \(5, 7, 1\) when the data set was opened"):
        there[3]


@pytest.mark.parametrize("third", ["validation", "val", "valid"])
def test_parts_can_be_given(tmp_path, rng, third):
    pixels = {}
    for part, count in (("train", 6), (third, 2), ("test", 3)):
        for label in "ab":
            for n in range(count):
                name = f"{part}/{label}/{n}.png"
                pixels[name] = draw(tmp_path / "set" / name, rng.integers(0, 256, SHAPE, np.uint8))
    dataset = data.load(f"folder:{tmp_path / 'set'}")
    assert [len(part.labels) for part in parts(dataset).values()] == [12, 4, 6]
    for part, split in zip(("train", third, "test"), parts(dataset).values()):
        order = sorted((n for n in pixels if n.startswith(part)), key=lambda n: hashlib.sha256(n.encode()).digest())
        np.testing.assert_array_equal(split.images[..., 0], [pixels[name] for name in order])
        assert split.labels.tolist() == ["ab".index(name.split("/")[1]) for name in order]


def test_without_a_validation_part_a_sixth_of_the_training_part_is(tmp_path, rng):
    for name in [f"train/{label}/{n}.png" for label in "ab" for n in range(30)] + ["test/a/1.png", "test/b/1.png"]:
        draw(tmp_path / name, rng.integers(0, 256, SHAPE, np.uint8))
    dataset = data.load(f"folder:{tmp_path}")
    assert [len(part.labels) for part in parts(dataset).values()] == [50, 10, 2]
    assert set(dataset.validation.labels) == {0, 1}  # of both classes, though they lie one after the other


def test_colour_and_grey_and_every_other_kind_of_picture(tmp_path, rng):
    grey = rng.integers(0, 256, SHAPE, np.uint8)
    deep, clear = grey.astype(np.uint16) * 257, np.dstack([grey, np.zeros_like(grey)])
    for name, pixels in (("a/8.png", grey), ("a/16.png", deep), ("b/clear.png", clear), ("b/bits.png", grey > 99)):
        draw(tmp_path / name, pixels)
    for label in "ab":  # of each class one for each part
        draw(tmp_path / label / "third.png", grey)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"not looked at")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"not looked at")
    (tmp_path / "README.txt").write_text("nor this, which is in no class")
    (tmp_path / "__MACOSX").mkdir()

    def read():
        found = image_folder.load_image_folder(str(tmp_path))
        return {file: split[i][0] for split in found[2:] for i, file in enumerate(split.items)}

    images = read()
    np.testing.assert_array_equal(images["a/8.png"][..., 0], grey)
    np.testing.assert_array_equal(images["a/16.png"][..., 0], grey)
    np.testing.assert_array_equal(images["b/bits.png"][..., 0], np.where(grey > 99, 255, 0))
    assert (images["b/clear.png"] == 255).all() and images["b/clear.png"].shape == (*SHAPE, 1)

    colour = draw(tmp_path / "b" / "colour.png", rng.integers(0, 256, (*SHAPE, 3), np.uint8))
    turned = rng.integers(0, 256, (SHAPE[1], SHAPE[0], 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter clockwise makes it upright
    draw(tmp_path / "b" / "turned.JPG", turned, exif=exif, quality=100, subsampling=0)
    images = read()
    assert {image.shape for image in images.values()} == {(*SHAPE, 3)}
    np.testing.assert_array_equal(images["b/colour.png"], colour)
    np.testing.assert_array_equal(images["a/8.png"], np.dstack([grey] * 3))
    difference = images["b/turned.JPG"].astype(int) - np.rot90(turned, -1)
    assert abs(difference).mean() < 20  # it is a jpg


def picture(path, shape=SHAPE):
    draw(path, np.zeros(shape, np.uint8))


def text(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no picture")


def cut(path):
    draw(path, np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8))
    path.write_bytes(path.read_bytes()[:60])


BAD = {
    "nothing": ({}, r"there is no .*set"),
    "no folders": ({"1.png": picture}, "has no sub-folders; wanted PATH/class/"),
    "one class": ({"a/1.png": picture}, "has only the class a; .* with at least two classes"),
    "empty class": ({"a/1.png": picture, "b/.hidden": text}, "class b is empty: .*set/b has no png and no jpg"),
    "no picture": ({"a/1.png": picture, "b/1.txt": text}, r"set/b/1\.txt is no png and no jpg"),
    "deeper": ({"a/x/1.png": picture, "b/1.png": picture}, r"set/a/x is no png and no jpg; wanted PATH/class/\*\.png"),
    "text": ({"a/1.png": picture, "b/1.png": text, "b/2.png": picture}, r"b/1\.png is not an image that Pillow can"),
    "cut short": (
        {"a/1.png": picture, "b/1.png": cut, **{f"{name}.png": picture for name in ("a/2", "a/3", "b/2", "b/3")}},
        r"b/1\.png cannot be read as an image",
    ),
    "too few": (
        {"a/1.png": picture, "b/1.png": picture},
        "has 1 pictures of the class a; one to train, one to choose and one to test are the least: add some, or set",
    ),
    "few of one": (
        {f"{name}.png": picture for name in ("a/1", "a/2", "a/3", "b/3", "b/4")},
        "has 2 pictures of the class b",
    ),
    "no train": ({"test/a/1.png": picture, "test/b/1.png": picture}, "has test but no train; wanted PATH/class"),
    "another part": (
        {"train/a/1.png": picture, "train/b/1.png": picture, "tset/a/1.png": picture},
        "tset is neither train, validation nor test",
    ),
    "two validation parts": (
        {f"{part}/{label}/1.png": picture for part in ("train", "val", "valid") for label in "ab"},
        "one validation part is enough",
    ),
    "another class": (
        {f"{name}/1.png": picture for name in ("train/a", "train/b", "test/a", "test/c")},
        "test has a class c, which train has not; known: a, b",
    ),
    "one class in test": (
        {f"{name}/1.png": picture for name in ("train/a", "train/b", "test/a")},
        "set/test has only the class a",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_is_no_data_set_is_described(tmp_path, case):
    content, message = BAD[case]
    for name, make in content.items():
        make(tmp_path / "set" / name)
    with pytest.raises(InputError, match=message) as caught:
        data.load(f"folder:{tmp_path / 'set'}")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_two_sizes_are_named_with_their_files(pets):
    root, _ = pets
    picture(root / "dog" / "wide.png", (5, 8))
    with pytest.raises(
        InputError, match=r"more than one size: \w+/\d+\.png is 5×7 \(height × width\), dog/wide.png is"
    ):
        data.load(f"folder:{root}")


def test_an_archive_is_the_folder_in_it(pets, cache, tmp_path, monkeypatch):
    root, _ = pets
    want = data.load(f"folder:{root}")
    archives = {"with.tar.gz": ("w:gz", "pets"), "without.tar": ("w", "."), "xz.tar.xz": ("w:xz", "pets")}
    for name, (mode, inside) in archives.items():
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(root, inside)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as content:
        for path in sorted(root.rglob("*.png")):
            content.write(path, path.relative_to(tmp_path))
    unpacked = []
    counted = lambda *where: unpacked.append(where) or extract_archive(*where)  # noqa: E731
    monkeypatch.setattr(image_folder, "extract_archive", counted)
    for number, name in enumerate([*archives, "pets.zip"], 1):
        for _ in range(2):  # the second time it is there
            dataset = data.load(f"folder:{tmp_path / name}")
            np.testing.assert_array_equal(dataset.train.images, want.train.images)
            assert dataset.class_names == ("cat", "dog") and len(list(cache.iterdir())) == number == len(unpacked)


def test_an_archive_that_has_changed_is_unpacked_anew(pets, tmp_path):
    root, _ = pets
    for count in (40, 41):
        with tarfile.open(tmp_path / "pets.tar", "w") as tar:
            tar.add(root, "pets")
        dataset = data.load(f"folder:{tmp_path / 'pets.tar'}")
        assert sum(len(part.labels) for part in parts(dataset).values()) == count
        picture(root / "cat" / "new.png")


def test_an_archive_that_is_no_data_set_does_not_stay_in_the_cache(tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as content:
        content.writestr("cat/1.txt", "no picture")
        content.writestr("dog/1.txt", "no picture")
    with pytest.raises(InputError, match=r"is no png and no jpg"):
        data.load(f"folder:{tmp_path / 'x.zip'}")
    assert list(cache.iterdir()) == []


def test_a_name_in_an_error_cannot_reach_the_terminal(tmp_path):
    for label in ("cat\n\x1b[31m", "dog"):
        text(tmp_path / "set" / label / "1.txt")
    with pytest.raises(InputError, match=r"cat\\n\\x1b\[31m/1\.txt is no png and no jpg"):
        data.load(f"folder:{tmp_path / 'set'}")


def test_what_does_not_fit_in_memory_says_so(pets):
    root, _ = pets
    train = data.load(f"folder:{root}", streaming=True).train
    with pytest.raises(
        InputError, match=r"^x: images \(32, 1099511627776, 1099511627776, 1\) do not fit in memory: .*--st"
    ):
        dataclasses.replace(train, image_shape=(2**40, 2**40, 1)).to_memory("x")
