"""Datasets from array files: npz with the array names of Keras and MedMNIST, and folders of IDX files."""

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from attack import fuzz_files
from jaxconv import InputError, data
from jaxconv.data.array_files import read_idx


@pytest.fixture
def arrays(rng):
    """30 training and 7 test images of 5×4 pixels, in 3 classes."""
    return {
        "x_train": rng.integers(0, 256, (30, 5, 4), np.uint8),
        "y_train": np.arange(30, dtype=np.uint8) % 3,
        "x_test": rng.integers(0, 256, (7, 5, 4), np.uint8),
        "y_test": np.array([2, 0, 1, 1, 0, 2, 2]),
    }


def save_npz(folder, arrays):
    np.savez(folder / "set.npz", **arrays)
    return f"npz:{folder / 'set.npz'}"


def test_load_keras_npz_holds_out_last_sixth(tmp_path, arrays):
    dataset = data.load(save_npz(tmp_path, arrays))
    assert dataset.class_names == ("0", "1", "2") and dataset.image_shape == (5, 4, 1)
    np.testing.assert_array_equal(dataset.train.images[..., 0], arrays["x_train"][:25])
    np.testing.assert_array_equal(dataset.validation.images[..., 0], arrays["x_train"][25:])
    np.testing.assert_array_equal(dataset.test.images[..., 0], arrays["x_test"])
    assert dataset.validation.labels.tolist() == [1, 2, 0, 1, 2] and dataset.test.labels.dtype == np.int32
    assert dataset.test.labels.tolist() == [2, 0, 1, 1, 0, 2, 2]


def test_load_medmnist_npz_reads_three_splits_and_column_labels(tmp_path, rng):
    counts = {"train": 9, "val": 4, "test": 5}
    images = {f"{name}_images": rng.integers(0, 256, (n, 6, 5, 3), np.uint8) for name, n in counts.items()}
    labels = {f"{name}_labels": rng.integers(0, 2, (n, 1)) for name, n in counts.items()}
    labels["train_labels"][0] = 1
    dataset = data.load(save_npz(tmp_path, images | labels))
    for name, split in (("train", dataset.train), ("val", dataset.validation), ("test", dataset.test)):
        np.testing.assert_array_equal(split.images, images[f"{name}_images"])
        assert split.labels.tolist() == labels[f"{name}_labels"].ravel().tolist()


def test_load_keras_npz_uses_validation_arrays(tmp_path, arrays):
    arrays |= {"x_val": arrays["x_test"][:2], "y_val": arrays["y_test"][:2]}
    dataset = data.load(save_npz(tmp_path, arrays))
    assert len(dataset.train.labels) == 30 and dataset.validation.labels.tolist() == [2, 0]


INVALID = {
    "names": ({"x_test": None, "a": np.zeros(3)}, "has x_train, y_train, y_test, a; expected x_train, y_train, x_test"),
    "floats to 1": (
        {"x_train": np.ones((30, 5, 4))},
        r"x_train is float64, expected uint8 from 0 to 255: save \(x_train \* 255\)\.round\(\)\.astype\(np\.uint8\)",
    ),
    "floats to 255": (
        {"x_test": np.full((7, 5, 4), 255.0)},
        r"x_test is float64.* save x_test\.clip\(0, 255\)\.round\(\)\.astype\(",
    ),
    "NaNs": (
        {"x_train": np.full((30, 5, 4), np.nan)},
        "x_train has NaNs, which are not valid pixels: replace them, for example",
    ),
    "int64": ({"x_train": np.ones((30, 5, 4), int)}, r"x_train is int64.* save x_train\.clip\(0, 255\)\.astype\("),
    "flat": ({"x_train": np.ones((30, 20), np.uint8)}, r"x_train has the shape \(30, 20\); expected \(N, H, W\)"),
    "empty": ({"x_test": np.ones((0, 5, 4), np.uint8)}, r"x_test has the shape \(0, 5, 4\); expected .* at least one"),
    "channels first": (
        {"x_train": np.ones((30, 3, 5, 4), np.uint8)},
        r"x_train \(30, 3, 5, 4\) looks channels-first: save np\.moveaxis\(images, 1, -1\)",
    ),
    "one-hot": ({"y_train": np.eye(3)[np.arange(30) % 3]}, r"labels float64\(30, 3\) .* use labels\.argmax\(1\)"),
    "several labels": ({"y_train": np.ones((30, 2), int)}, r"y_train: labels int64\(30, 2\) must be one integer"),
    "negative": ({"y_test": np.array([0, 0, -1, 0, 0, 0, -2])}, r"y_test: label -1 \(example 2\) is not a class index"),
    "beyond": ({"y_test": np.array([0, 1, 2, 3, 0, 0, 9])}, r"test has label 3 \(example 3\), but there are 3 classes"),
    "gaps": ({"y_train": np.arange(30) * 1000}, r"label 29000 \(example 29\) makes 29001 classes, more than the 30"),
    "no labels": ({"y_test": np.array([], int)}, r"y_test: labels int64\(0,\) must be one integer"),
    "too few labels": ({"y_test": np.array([0, 1])}, "test has 7 images uint8 .* and 2 labels"),
    "objects": ({"y_train": np.array([{}] * 30)}, "holds Python objects, which are not loaded"),
    "sizes": (
        {"x_test": np.ones((7, 5, 5), np.uint8)},
        r"training images are \(5, 4, 1\) but those of test \(5, 5, 1\)",
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_load_npz_invalid_arrays_raise(tmp_path, arrays, case):
    changes, message = INVALID[case]
    name = save_npz(tmp_path, {key: value for key, value in (arrays | changes).items() if value is not None})
    with pytest.raises(InputError, match=message) as caught:
        data.load(name)
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no .*set\.npz"),
        (b"", "cannot be read as an .npz of arrays"),
        (b"no numpy at all", "it is not a NumPy file"),  # np.load alone takes it for a pickle
        (b"PK\x03\x04 no zip", "cannot be read as an .npz of arrays: File is not a zip file"),
    ],
)
def test_load_npz_other_files_raise(tmp_path, content, message):
    if content is not None:
        (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        data.load(f"npz:{tmp_path / 'set.npz'}")


def test_load_npz_single_array_raises(tmp_path):
    np.save(tmp_path / "set.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"set\.npy is a single array; expected an \.npz of several"):
        data.load(f"npz:{tmp_path / 'set.npy'}")


def write_idx(path, array):
    raw = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_idx_folder(folder, arrays, *, prefix="", test="t10k", suffix=""):
    folder.mkdir()
    for split, name in (("train", "train"), ("test", test)):
        write_idx(folder / f"{prefix}{name}-images-idx3-ubyte{suffix}", arrays[f"x_{split}"])
        write_idx(folder / f"{prefix}{name}-labels-idx1-ubyte{suffix}", arrays[f"y_{split}"])
    return f"idx:{folder}"


@pytest.mark.parametrize(
    "naming", [{}, {"suffix": ".gz"}, {"prefix": "emnist-letters-", "test": "test", "suffix": ".gz"}, {"test": "test"}]
)
def test_load_idx_equals_load_npz(tmp_path, arrays, naming):
    name = write_idx_folder(tmp_path / "set", arrays, **naming)
    (tmp_path / "set" / "README").write_text("about the images and labels")
    dataset, npz = data.load(name), data.load(save_npz(tmp_path, arrays))
    assert dataset.name == name and dataset.class_names == ("0", "1", "2")
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(dataset, split).images, getattr(npz, split).images)
        np.testing.assert_array_equal(getattr(dataset, split).labels, getattr(npz, split).labels)


def test_load_idx_rank_4_has_color_channels(tmp_path, arrays, rng):
    arrays["x_train"] = rng.integers(0, 256, (30, 5, 4, 3), np.uint8)
    arrays["x_test"] = arrays["x_train"][:7]
    dataset = data.load(write_idx_folder(tmp_path / "set", arrays))
    np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
    assert dataset.image_shape == (5, 4, 3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "t10k-labels-idx1-ubyte").unlink(), "has no file named like t10k-labels-idx1-ubyte.gz"),
        (lambda f: (f / "train-images-idx3-ubyte").unlink(), "has no file named like train-images-idx3-ubyte.gz"),
        (
            lambda f: write_idx(f / "train-images-idx3-ubyte.gz", np.zeros((30, 5, 4))),
            "has train-images-idx3-ubyte and train-images-idx3-ubyte.gz: keep one of them",
        ),
        (
            lambda f: write_idx(f / "train-labels-idx1-ubyte", np.zeros(29)),
            r"images \(30, 5, 4\) and labels \(29,\) do not match",
        ),
        (
            lambda f: write_idx(f / "train-images-idx3-ubyte", np.zeros((30, 20))),
            r"images \(30, 20\) and labels \(30,\) do not match",
        ),
        (
            lambda f: [
                write_idx(f / f"t10k-{name}", np.zeros(shape))
                for name, shape in (("images-idx3-ubyte", (0, 5, 4)), ("labels-idx1-ubyte", 0))
            ],
            r"t10k-labels-idx1-ubyte: labels uint8\(0,\) must be one integer per image, .* and not empty",
        ),
        (
            lambda f: write_idx(f / "t10k-labels-idx1-ubyte", np.array([0, 1, 2, 200, 0, 0, 0])),
            r"test has label 200 \(example 3\), but there are 3 classes: 0 to 2",
        ),
    ],
)
def test_load_idx_inconsistent_files_raise(tmp_path, arrays, damage, message):
    name = write_idx_folder(tmp_path / "set", arrays)
    damage(Path(tmp_path / "set"))
    with pytest.raises(InputError, match=message):
        data.load(name)


def test_load_idx_missing_folder_raises(tmp_path):
    with pytest.raises(InputError, match=r"idx:.*nowhere: there is no folder .*nowhere"):
        data.load(f"idx:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("kind", ["idx", "npz", "folder"])
def test_load_unknown_home_folder_raises(kind):
    with pytest.raises(InputError, match=f"{kind}:~nosuchuser/x: there is no (folder )?~nosuchuser/x"):
        data.load(f"{kind}:~nosuchuser/x")


def test_load_os_errors_become_input_errors(tmp_path, arrays, monkeypatch):
    name = write_idx_folder(tmp_path / "set", arrays)
    with pytest.raises(InputError, match=r"^folder:/dev/null cannot be read: .*Not a directory: '/dev/null'"):
        data.load("folder:/dev/null")
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path))

    def deny(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda path, *_: deny(path))
        with pytest.raises(InputError, match=f"^{tmp_path}/set/train-images-idx3-ubyte cannot be read: Permission den"):
            data.load(name)
    for method in ("iterdir", "is_dir"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, deny)
            with pytest.raises(InputError, match=f"^{name} cannot be read: .*Permission denied: '{tmp_path}/set"):
                data.load(name)
    monkeypatch.setattr(Path, "is_file", deny)
    message = f"^mnist cannot be read: .*Permission denied: '{tmp_path}/mnist/train-images-idx3-ubyte.gz'"
    with pytest.raises(InputError, match=message):
        data.load("mnist")
    with pytest.raises(InputError, match=message):
        list(data.verify_files(["digits", "mnist"]))


HOSTILE = {
    "shape 10³⁰": r"x_train declares uint8\(10{30},\) but holds 600 bytes: it is damaged",
    "shape 10¹²": r"x_train declares uint8\(10{12}, 1, 1\) but holds 600 bytes",
    "shape 10³⁰ × 0": r"cannot be read as an .npz of arrays",
    "shape below 0": r"x_train declares uint8\(-30, -5, 4\) but holds 600 bytes",
    "shape 10³⁰ of nothing": r"x_train is \|V0: save integers",
    "100 axes": r"x_train declares uint8\(1, 1, .* but holds 600 bytes",
    "objects": r"x_train holds Python objects, which are not loaded",
    "nested records": r"x_train holds Python objects, which are not loaded",
    "records": r"x_train is \[\('a', '<i4'\)\]: save integers",
    "strings": r"x_train is <U1: save integers",
    "a small bzip2": r"x_train is compressed in a way that numpy does not write: save it with np\.savez",
    "a small lzma": r"x_train is compressed in a way",
    "Deflate64": r"x_train is compressed in a way",
    "encrypted": r"x_train is encrypted: save it with np\.savez",
    "strongly encrypted": r"cannot be read as an .npz",
    "a header of brackets": r"cannot be read as an .npz",
    "a header of braces": r"cannot be read as an .npz",
    "a header of minuses": r"cannot be read as an .npz",
    "a header of a list as a key": r"cannot be read as an .npz",
    "a header of an open string": r"cannot be read as an .npz",
    "a header of 4 GiB": r"cannot be read as an .npz",
    "a dtype of noise": r"cannot be read as an .npz",
    "format 3": r"x_train is in numpy's format \(3, 0\), for records only",
    "a pickle": r"it is not a NumPy file",
    "names of several lines": r"has y_tr\\nin, .*, a\\nb\\x1b\[31m; expected x_train",
    "a pipe": r"set\.npz is not a file",
    "a folder": r"set\.npz is not a file",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_load_hostile_npz_raises(tmp_path, case):
    path, content = tmp_path / "set.npz", fuzz_files.HOSTILE["npz"][case]()
    content(path) if callable(content) else path.write_bytes(content)
    with pytest.raises(InputError, match=HOSTILE[case]) as caught:
        data.load(f"npz:{path}")
    assert "\n" not in str(caught.value)


def test_load_npz_of_python_2(tmp_path, arrays):
    """Python 2 writes an L after each number of a shape; arrays in Fortran order are read as well."""
    (tmp_path / "set.npz").write_bytes(fuzz_files.HOSTILE["npz"]["a header of Python 2"]())
    with pytest.warns(UserWarning, match="Python 2"):
        assert data.load(f"npz:{tmp_path / 'set.npz'}").image_shape == (5, 4, 1)
    arrays["x_train"] = np.asfortranarray(arrays["x_train"])
    np.testing.assert_array_equal(data.load(save_npz(tmp_path, arrays)).train.images[..., 0], arrays["x_train"][:25])


def test_compressed_arrays_above_limit_raise(tmp_path, monkeypatch, arrays):
    monkeypatch.setattr("jaxconv.data.archives.MIN_LIMIT_BYTES", 10_000)
    arrays["x_train"] = np.zeros((30, 200, 200), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    with pytest.raises(InputError, match=r"set\.npz has [\d,]+ bytes and unpacks to more than [\d,]+: if you trust it"):
        data.load(f"npz:{tmp_path / 'set.npz'}")
    path = tmp_path / "x.gz"
    write_idx(path, arrays["x_train"])
    with pytest.raises(InputError, match=r"x\.gz has [\d,]+ bytes and unpacks to more than [\d,]+: if you trust it"):
        read_idx(path)
    monkeypatch.setenv("JAXCONV_UNPACK_GB", "1")
    np.testing.assert_array_equal(read_idx(path), arrays["x_train"])


IDX = {
    "rank 65": r"declares an array of rank 65; numpy allows at most 64",
    "rank 255": r"declares an array of rank 255",
    "sizes of 2³²−1": r"declares \(4294967295, 4294967295, 4294967295, 4294967295\), but holds at most \d+ bytes",
    "sizes of 2³²−1 and 0": r"declares \(4294967295, .*, 0\), which numpy cannot represent",
    "sizes that are cut": r"is not an IDX file of bytes: it begins with 00 00 08 03",
    "one byte too many": r"declares \(30, 5, 4\) but holds more bytes than that",
    "one byte too few": r"declares \(30, 5, 4\) but holds 599 bytes",
    "gz, a promise of 4 GB": r"declares \(4194304, 32, 32\), but holds at most",
    "gz, with noise behind": r"is not a complete gzip file",
}


@pytest.mark.parametrize("case", IDX)
def test_read_idx_hostile_file_raises(tmp_path, case):
    path = tmp_path / ("x.gz" if "gz" in case else "x")
    raw = (
        fuzz_files.HOSTILE["idx"][case]()
        if case != "gz, a promise of 4 GB"
        else gzip.compress(fuzz_files.idx((2**22, 32, 32), b""), mtime=0)
    )
    path.write_bytes(raw)
    with pytest.raises(InputError, match=f"{path} {IDX[case]}"):
        read_idx(path)


def test_read_idx_does_not_unpack_trailing_bomb(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(fuzz_files.gzip_of(fuzz_files.idx((30, 5, 4), bytes(600)), 2**26))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"declares \(30, 5, 4\) but holds more bytes than that"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_load_idx_images_without_pixels_raise(tmp_path, arrays):
    arrays |= {"x_train": np.zeros((30, 0, 4)), "x_test": np.zeros((7, 0, 4))}
    with pytest.raises(InputError, match=r"images uint8 \(0, 4, 1\) and 25 labels; expected uint8"):
        data.load(write_idx_folder(tmp_path / "set", arrays))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_read_idx_of_pipe_raises(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is not a file"):
        read_idx(tmp_path / name)
