"""Archives that try to write outside of their folder, or are damaged: an InputError names the member."""

import io
import os
import stat
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile

import pytest

from attack import fuzz_files
from jaxconv import InputError
from jaxconv.data import archives
from jaxconv.data.archives import extract_archive


def write_tar(path, *members, mode="w"):
    """Write a tar of (name, type, linkname) members, which tarfile's writer does not check."""
    with tarfile.open(path, mode) as archive:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"evil") if member.size else None)
    return path


def write_zip(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, b"evil")
    return path


FILE, REGULAR = tarfile.REGTYPE, stat.S_IFREG | 0o644
OUTSIDE = ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "a/..", "..\\evil.txt", "C:\\evil.txt", "C:evil.txt"]
LINKS = {
    "symlink out": ("a/link", tarfile.SYMTYPE, "/etc/passwd", "a link"),
    "symlink in": ("a/link", tarfile.SYMTYPE, "good.txt", "a link"),
    "hard link": ("a/link", tarfile.LNKTYPE, "good.txt", "a link"),
    "fifo": ("a/pipe", tarfile.FIFOTYPE, "", "a device"),
    "character device": ("a/null", tarfile.CHRTYPE, "", "a device"),
    "block device": ("a/disk", tarfile.BLKTYPE, "", "a device"),
}


def assert_rejected(tmp_path, archive, name, reason):
    """The error names the member, and no file is left inside, outside or beside the target folder."""
    before = {path for path in tmp_path.rglob("*")} | {tmp_path / "parent"}
    with pytest.raises(InputError) as caught:
        extract_archive(archive, tmp_path / "parent" / "target")
    assert f"{archive}: its member {name!r} {reason}; nothing was unpacked" == str(caught.value)
    assert {path for path in tmp_path.rglob("*")} <= before and not os.path.exists("/tmp/evil.txt")


@pytest.mark.parametrize("name", OUTSIDE)
def test_extract_archive_rejects_names_outside_folder(tmp_path, name):
    reason = "would be written outside of the folder"
    tar = write_tar(tmp_path / "x.tar", ("good.txt", FILE, ""), (name, FILE, ""))
    assert_rejected(tmp_path, tar, name, reason)
    zipped = write_zip(tmp_path / "x.zip", ("good.txt", REGULAR), (name, REGULAR))
    assert_rejected(tmp_path, zipped, name, reason)


@pytest.mark.parametrize("case", LINKS)
def test_extract_archive_rejects_links_and_devices(tmp_path, case):
    name, kind, link, description = LINKS[case]
    tar = write_tar(tmp_path / "x.tar", ("good.txt", FILE, ""), (name, kind, link))
    assert_rejected(tmp_path, tar, name, f"is {description}")


def test_extract_archive_rejects_link_in_zip(tmp_path):
    archive = write_zip(tmp_path / "x.zip", ("good.txt", REGULAR), ("link", stat.S_IFLNK | 0o777))
    assert_rejected(tmp_path, archive, "link", "is a link or a device")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_extract_archive_unpacks_files_and_folders(tmp_path, mode):
    members = ("a", tarfile.DIRTYPE, ""), ("a/b..c.txt", FILE, ""), ("./d.txt", FILE, "")
    for archive in (
        write_tar(tmp_path / "x.tar", *members, mode=mode),
        write_zip(tmp_path / "x.zip", ("a/", stat.S_IFDIR | 0o755), ("a/b..c.txt", REGULAR), ("d.txt", 0)),
    ):
        folder = extract_archive(archive, tmp_path / "parent" / archive.suffix)
        assert (folder / "a" / "b..c.txt").read_bytes() == (folder / "d.txt").read_bytes() == b"evil"
        assert [path.name for path in (tmp_path / "parent").iterdir() if "partial" in path.name] == []


def test_extract_archive_drops_permission_bits(tmp_path):
    """Drop the setuid, setgid, sticky, and group- and world-writable bits."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("good.txt")
        member.mode = 0o7777
        archive.addfile(member)
    archives = tmp_path / "x.tar", write_zip(tmp_path / "x.zip", ("good.txt", stat.S_IFREG | 0o7777))
    for archive in archives:
        mode = (extract_archive(archive, tmp_path / "parent" / archive.suffix) / "good.txt").stat().st_mode
        assert stat.S_IMODE(mode) & 0o7022 == 0, oct(mode)


def encrypted(path):
    raw = bytearray(write_zip(path, ("good.txt", REGULAR)).read_bytes())
    raw[6] |= 1  # the encryption flag of the local header, then of the central directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def strongly_encrypted(path):
    raw = bytearray(write_zip(path, ("good.txt", REGULAR)).read_bytes())
    raw[6] |= 64
    raw[raw.index(b"PK\x01\x02") + 8] |= 64
    path.write_bytes(raw)


def deflate64(path):
    raw = bytearray(write_zip(path, ("good.txt", REGULAR)).read_bytes())
    raw[8] = raw[raw.index(b"PK\x01\x02") + 10] = 9
    path.write_bytes(raw)


def truncated(path):
    write_tar(path, *[(f"{n}.txt", FILE, "") for n in range(200)], mode="w:gz")
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path):
    raw = bytearray(write_zip(path, ("good.txt", REGULAR)).read_bytes())
    raw[raw.index(b"evil")] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (encrypted, r"is encrypted \(good.txt\): unpack it yourself"),
        (strongly_encrypted, r"cannot be unpacked: strong encryption .*; unpack it yourself and give the folder$"),
        (deflate64, r"cannot be unpacked: .*compression.*; unpack it yourself and give the folder$"),
        (truncated, r"is damaged: .*download it again"),
        (flipped, r"is damaged: Bad CRC-32 .*download it again"),
        (lambda path: path.write_bytes(b"hello"), "is neither a tar nor a zip: give a .tar, .tar.gz or .zip, or a"),
    ],
)
def test_extract_archive_invalid_archive_raises(tmp_path, make, message):
    make(tmp_path / "archive")
    with pytest.raises(InputError, match=message) as caught:
        extract_archive(tmp_path / "archive", tmp_path / "parent" / "target")
    assert "\n" not in str(caught.value) and list((tmp_path / "parent").iterdir()) == []


def test_extract_archive_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"x\.tar cannot be unpacked into .*file/target: .*; unpack it yourself and"):
        extract_archive(write_tar(tmp_path / "x.tar", ("good.txt", FILE, "")), tmp_path / "file" / "target")


def test_extract_archive_twice_returns_same_folder(tmp_path):
    archive = write_tar(tmp_path / "x.tar", ("good.txt", FILE, ""))
    for _ in range(2):
        assert extract_archive(archive, tmp_path / "target") == tmp_path / "target"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target", "x.tar"]


def test_extract_archive_killed_process_leaves_no_folder(tmp_path):
    archive = write_tar(tmp_path / "x.tar", *[(f"{n}.txt", FILE, "") for n in range(3000)])
    program = f"""
from pathlib import Path
import tarfile, time
from jaxconv.data.archives import extract_archive
real = tarfile.TarFile.extractfile
tarfile.TarFile.extractfile = lambda *a: time.sleep(0.01) or real(*a)
extract_archive(Path({str(archive)!r}), Path({str(tmp_path / "parent" / "target")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "parent").rglob("*.txt"))) < 5:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "parent" / "target").exists()
    assert len(list(extract_archive(archive, tmp_path / "parent" / "target").iterdir())) == 3000


def write_zip_of_zeros(path, megabytes):
    """Write a zip of one file of zeros, which deflate compresses by a factor of about 1000."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(megabytes * 10**6))
    return path


def is_empty(folder):
    return not folder.exists() or list(folder.iterdir()) == []


@pytest.fixture
def small_limit(monkeypatch):
    """Lower the size limit a thousandfold, so that small files exceed it."""
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 64_000)
    monkeypatch.delenv("JAXCONV_UNPACK_GB", raising=False)


def test_extract_archive_above_limit_raises_and_cleans_up(tmp_path, small_limit, monkeypatch):
    archive = write_zip_of_zeros(tmp_path / "x.zip", 2)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("zeros")
        member.size = 2 * 10**6
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    with tarfile.open(tmp_path / "many.tar.gz", "w:gz") as many:
        for i in range(100):  # an empty file counts as one block of the disk
            many.addfile(tarfile.TarInfo(str(i)))
    for path in (archive, tmp_path / "x.tar.gz", tmp_path / "many.tar.gz"):
        size = path.stat().st_size
        limit = max(64_000, 100 * size)
        message = rf"x.zip has {size:,} bytes and unpacks to more than {limit:,}: if you trust it, set the environment "
        with pytest.raises(InputError, match=message.replace("x.zip", path.name)):
            extract_archive(path, tmp_path / "parent" / "target")
        assert is_empty(tmp_path / "parent")
    monkeypatch.setenv("JAXCONV_UNPACK_GB", "0.0021")
    assert (extract_archive(archive, tmp_path / "parent" / "target") / "zeros").stat().st_size == 2 * 10**6


def test_extract_archive_limits_total_size(tmp_path, small_limit, monkeypatch):
    monkeypatch.setattr(archives, "MAX_LIMIT_BYTES", 50_000)
    write_tar(tmp_path / "x.tar", *[(f"{n}.txt", FILE, "") for n in range(20)])
    with pytest.raises(InputError, match=r"unpacks to more than 50,000"):
        extract_archive(tmp_path / "x.tar", tmp_path / "parent" / "target")


@pytest.mark.parametrize("value", ["much", "-1", "0", "nan", "inf"])
def test_unpack_limit_invalid_value_raises(tmp_path, monkeypatch, value):
    monkeypatch.setenv("JAXCONV_UNPACK_GB", value)
    with pytest.raises(InputError, match=f"JAXCONV_UNPACK_GB is {value}: give a number of gigabytes, such as 100"):
        extract_archive(write_zip_of_zeros(tmp_path / "x.zip", 1), tmp_path / "parent" / "target")


def test_extract_archive_counts_decompressed_bytes(tmp_path, small_limit):
    """A sparse member of a tar expands to a terabyte of zeros from no data."""
    archive = tmp_path / "x.tar"
    archive.write_bytes(fuzz_files.HOSTILE["archives"]["tar of a hole of 1 TB"]())
    with pytest.raises(InputError, match="unpacks to more than"):
        extract_archive(archive, tmp_path / "parent" / "target")
    assert is_empty(tmp_path / "parent")


@pytest.mark.parametrize(
    "case", ["tar of a negative size", "tar of a size in a header, negative", "tar of a negative header",
             "tar of 5,000 headers", "tar of noise in a header", "tar of a deep folder", "zip of a deep folder",
             "tar of a zero byte in a name", "tar of a long name", "tar of a file and a folder", "zip of method 99"]
)  # fmt: skip
def test_extract_archive_hostile_archive_raises(tmp_path, case):
    """With a negative size tarfile seeks back and reads the same member forever."""
    (tmp_path / "x").write_bytes(fuzz_files.HOSTILE["archives"][case]())
    with pytest.raises(InputError, match=r"^\S*x(:| ).*") as caught:
        extract_archive(tmp_path / "x", tmp_path / "parent" / "target")
    assert "\n" not in str(caught.value) and is_empty(tmp_path / "parent")


def test_extract_archive_limits_header_memory(tmp_path):
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(fuzz_files.gzip_of(fuzz_files.tar_header(b"pax", 2**26, b"x"), 2**26))
    tracemalloc.start()
    with pytest.raises(InputError, match="neither a tar nor a zip"):
        extract_archive(archive, tmp_path / "parent" / "target")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_extract_archive_of_pipe_raises(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is not a file"):
        extract_archive(tmp_path / "pipe", tmp_path / "parent" / "target")
