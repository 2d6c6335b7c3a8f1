"""CIFAR-10: both official layouts and the archive, with small batches."""

import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading

import numpy as np
import pytest

from jaxconv import InputError, data
from jaxconv.data import registry, vision_datasets
from jaxconv.data.download import File
from jaxconv.data.safe_pickle import load_arrays

RECORDS = 8
NAMES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]


@pytest.fixture
def batches(rng):
    """Six small batches of pixels, in three planes, and labels."""
    return {
        name: (rng.integers(0, 256, (RECORDS, 3072), np.uint8), rng.integers(0, 10, RECORDS, np.uint8))
        for name in NAMES
    }


@pytest.fixture
def root(monkeypatch, tmp_path):
    monkeypatch.setattr(vision_datasets, "NUM_RECORDS", RECORDS)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels))


def python2(pixels, labels):
    """Pickle as written by Python 2 and an old numpy, assembled by hand from opcodes of protocol 2."""

    def text(content):
        return b"U" + bytes([len(content)]) + content

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    shape = b"K" + bytes([len(pixels)]) + b"M\x00\x0c\x86"
    content = b"T" + struct.pack("<I", pixels.size) + pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def python3(pixels, labels):
    return pickle.dumps({"data": pixels, "labels": labels.tolist(), "batch_label": "one"}, protocol=2)


def write_batches(folder, batches, pack, suffix=""):
    folder.mkdir(parents=True)
    for name, content in batches.items():
        (folder / f"{name}{suffix}").write_bytes(pack(*content))
    return folder


def assert_matches(dataset, batches):
    """Compare a sample of pixels with their positions in the format's description, by loops."""
    splits = [dataset.train, dataset.validation, dataset.test]
    assert [split.images.shape for split in splits] == [(n, 32, 32, 3) for n in (36, 4, RECORDS)]
    images, labels = (np.concatenate([split[i] for split in splits]) for i in range(2))
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    pixels = np.concatenate([batches[name][0] for name in NAMES])
    assert labels.tolist() == [label for name in NAMES for label in batches[name][1]]
    for n in range(48):
        for y, x, c in ((0, 0, 0), (0, 5, 1), (7, 0, 2), (31, 30, 1), (n % 32, 9, n % 3)):
            assert images[n, y, x, c] == pixels[n, 1024 * c + 32 * y + x]


@pytest.mark.parametrize("parent", ["data/cifar10", "data", "cache/cifar10"])
@pytest.mark.parametrize(
    ("folder", "pack", "suffix"),
    [
        ("cifar-10-batches-bin", binary, ".bin"),
        ("cifar-10-batches-py", python2, ""),
        ("cifar-10-batches-py", python3, ""),
    ],
)
def test_load_cifar10_reads_both_unpacked_layouts(root, tmp_path, batches, parent, folder, pack, suffix):
    path = write_batches(tmp_path / parent / folder, batches, pack, suffix)
    assert_matches(data.load("cifar10"), batches)
    [report] = data.verify_files(["cifar10"])
    assert (report.damaged, report.missing) == (0, 0)
    assert report.lines == [
        f"{path} has the layout of the official files; there are no official checksums for unpacked files",
        "train (36, 32, 32) validation (4, 32, 32) test (8, 32, 32) uint8, 10 classes",
    ]


def test_load_arrays_equals_pickle_loads(batches):
    raw = python2(*batches["test_batch"])
    for content in (pickle.loads(raw, encoding="bytes"), load_arrays(raw, "test_batch")):
        assert list(content) == [b"data", b"labels"]
        np.testing.assert_array_equal(content[b"data"], batches["test_batch"][0])


def test_cifar10_classes_are_in_official_order():
    assert vision_datasets.CIFAR10_CLASSES == tuple(
        "airplane automobile bird cat deer dog frog horse ship truck".split()
    )
    assert vision_datasets.NUM_RECORDS == 10_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], r"data_batch_2\.bin has 24,583 bytes, expected 24,584: 8 records of 3,073"),
        (
            lambda raw: raw[:3073] + b"\x0a" + raw[3074:],
            r"data_batch_2\.bin has label 10 \(record 1\), expected 0 to 9",
        ),
        (None, r"cifar-10-batches-bin has no data_batch_2\.bin"),
    ],
)
def test_load_cifar10_damaged_batch_raises(root, batches, change, message):
    folder = write_batches(root / "cifar10" / "cifar-10-batches-bin", batches, binary, ".bin")
    path = folder / "data_batch_2.bin"
    path.write_bytes(change(path.read_bytes())) if change else path.unlink()
    with pytest.raises(InputError, match=message):
        data.load("cifar10")
    [report] = data.verify_files(["cifar10"])
    assert report.damaged == 1 and "data_batch_2.bin" in report.lines[-1]


VALID = np.zeros((RECORDS, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must contain a dict, got a list"),
        ({"labels": [0] * RECORDS}, "must have data"),
        ({"data": VALID[:, :-1], "labels": [0] * RECORDS}, r"must have data, an array uint8\(8, 3072\)"),
        (
            {"data": VALID.astype(np.int64), "labels": [0] * RECORDS},
            r"is not .* \(UnpicklingError: dtype 'i8' is not uint8",
        ),
        (
            {"data": VALID.astype(object), "labels": [0] * RECORDS},
            r"is not .* \(UnpicklingError: dtype 'O8' is not uint8",
        ),
        ({"data": VALID, "labels": [0] * 7}, "must have labels, a list of 8 integers"),
        ({"data": VALID, "labels": ["cat"] * RECORDS}, "must have labels, a list of 8 integers"),
        ({"data": VALID, "labels": [0] * 7 + [-1]}, r"has label -1 \(record 7\), expected 0 to 9"),
    ],
)
def test_load_cifar10_invalid_pickle_content_raises(root, batches, content, message):
    folder = write_batches(root / "cifar10" / "cifar-10-batches-py", batches, python2)
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=f"data_batch_1 {message}"):
        data.load("cifar10")


def pack_archive(batches, names=NAMES):
    """Gzipped tar of a folder, like the official archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in names:
            content = binary(*batches[name])
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def serve_official(root, monkeypatch):
    """Function that serves an archive on this machine and registers it as the official one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def serve(content):
        server.content = content
        file = File(len(content), hashlib.sha256(content).hexdigest())
        source = vision_datasets.CIFAR10._replace(
            mirrors=(f"http://127.0.0.1:{server.server_port}/",), files={"cifar-10-binary.tar.gz": file}
        )
        monkeypatch.setattr(vision_datasets, "CIFAR10", source)
        monkeypatch.setitem(registry.SOURCES, "cifar10", source)

    yield serve
    server.shutdown()
    thread.join()
    server.server_close()


def test_load_cifar10_downloads_verifies_and_reads_archive(root, serve_official, batches):
    serve_official(pack_archive(batches))
    path = root / "cifar10" / "cifar-10-binary.tar.gz"
    [before] = data.verify_files(["cifar10"])
    assert before.missing == 1 and "cifar-10-binary.tar.gz is missing: it will be downloaded" in before.lines[0]
    assert_matches(data.load("cifar10"), batches)
    assert [file.name for file in root.rglob("*") if file.is_file()] == ["cifar-10-binary.tar.gz"]
    [after] = data.verify_files(["cifar10"])
    assert not after.missing and not after.damaged and after.lines[0] == f"{path} is the official file"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz is cut short"):
        data.load("cifar10")
    [damaged] = data.verify_files(["cifar10"])
    assert damaged.damaged == 1 and "is cut short" in damaged.lines[0]


def test_load_cifar10_archive_without_batch_raises(serve_official, batches):
    serve_official(pack_archive(batches, NAMES[:4]))
    with pytest.raises(InputError, match=r"cifar-10-binary.tar.gz/cifar-10-batches-bin has no data_batch_5\.bin"):
        data.load("cifar10")


def test_cifar10_checksum_matches_tfds():
    """The checksum in url_checksums/cifar10.txt of TensorFlow Datasets."""
    [(name, file)] = vision_datasets.CIFAR10.files.items()
    assert (name, file.size) == ("cifar-10-binary.tar.gz", 170_052_171)
    assert file.sha256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
