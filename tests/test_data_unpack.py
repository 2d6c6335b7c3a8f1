"""Archives made to get out of their folder, or to break: each is refused by the name of what is in it."""

import io
import os
import stat
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from jaxconv import InputError
from jaxconv.data.unpack import unpack


def tar(path, *members, mode="w"):
    """A tar of (name, type, linkname) that Python's own writer does not look at."""
    with tarfile.open(path, mode) as archive:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"evil") if member.size else None)
    return path


def zipped(path, *members):
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


def refused(tmp_path, archive, name, what):
    """By name, in one line, and nothing is left: not outside, not inside, not beside."""
    before = {path for path in tmp_path.rglob("*")} | {tmp_path / "into"}
    with pytest.raises(InputError) as caught:
        unpack(archive, tmp_path / "into" / "here")
    assert f"{archive}: its member {name!r} {what}; nothing was unpacked" == str(caught.value)
    assert {path for path in tmp_path.rglob("*")} <= before and not os.path.exists("/tmp/evil.txt")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    what = "would be written outside of the folder"
    refused(tmp_path, tar(tmp_path / "x.tar", ("good.txt", FILE, ""), (name, FILE, "")), name, what)
    refused(tmp_path, zipped(tmp_path / "x.zip", ("good.txt", REGULAR), (name, REGULAR)), name, what)


@pytest.mark.parametrize("case", LINKS)
def test_a_link_or_a_device_is_refused(tmp_path, case):
    name, kind, link, what = LINKS[case]
    refused(tmp_path, tar(tmp_path / "x.tar", ("good.txt", FILE, ""), (name, kind, link)), name, f"is {what}")


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive = zipped(tmp_path / "x.zip", ("good.txt", REGULAR), ("link", stat.S_IFLNK | 0o777))
    refused(tmp_path, archive, "link", "is a link or a device")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_what_is_good_is_unpacked(tmp_path, mode):
    members = ("a", tarfile.DIRTYPE, ""), ("a/b..c.txt", FILE, ""), ("./d.txt", FILE, "")
    for archive in (
        tar(tmp_path / "x.tar", *members, mode=mode),
        zipped(tmp_path / "x.zip", ("a/", stat.S_IFDIR | 0o755), ("a/b..c.txt", REGULAR), ("d.txt", 0)),
    ):
        folder = unpack(archive, tmp_path / "into" / archive.suffix)
        assert (folder / "a" / "b..c.txt").read_bytes() == (folder / "d.txt").read_bytes() == b"evil"
        assert [path.name for path in (tmp_path / "into").iterdir() if "partial" in path.name] == []


def test_nothing_that_is_unpacked_takes_over_the_rights_of_its_owner(tmp_path):
    """The bits setuid, setgid and sticky, and that everyone may write."""
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("good.txt")
        member.mode = 0o7777
        archive.addfile(member)
    archives = tmp_path / "x.tar", zipped(tmp_path / "x.zip", ("good.txt", stat.S_IFREG | 0o7777))
    for archive in archives:
        mode = (unpack(archive, tmp_path / "into" / archive.suffix) / "good.txt").stat().st_mode
        assert stat.S_IMODE(mode) & 0o7022 == 0, oct(mode)


def encrypted(path):
    raw = bytearray(zipped(path, ("good.txt", REGULAR)).read_bytes())
    raw[6] |= 1  # the flag in the local header, and in the central directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def strongly_encrypted(path):
    raw = bytearray(zipped(path, ("good.txt", REGULAR)).read_bytes())
    raw[6] |= 64
    raw[raw.index(b"PK\x01\x02") + 8] |= 64
    path.write_bytes(raw)


def deflate64(path):
    raw = bytearray(zipped(path, ("good.txt", REGULAR)).read_bytes())
    raw[8] = raw[raw.index(b"PK\x01\x02") + 10] = 9
    path.write_bytes(raw)


def cut_short(path):
    tar(path, *[(f"{n}.txt", FILE, "") for n in range(200)], mode="w:gz")
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path):
    raw = bytearray(zipped(path, ("good.txt", REGULAR)).read_bytes())
    raw[raw.index(b"evil")] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (encrypted, r"is encrypted \(good.txt\): unpack it yourself"),
        (strongly_encrypted, r"cannot be unpacked: strong encryption .*; unpack it yourself and give the folder$"),
        (deflate64, r"cannot be unpacked: .*compression.*; unpack it yourself and give the folder$"),
        (cut_short, r"is damaged: .*get it again"),
        (flipped, r"is damaged: Bad CRC-32 .*get it again"),
        (lambda path: path.write_bytes(b"hello"), "is neither a tar nor a zip: give a .tar, .tar.gz or .zip, or a"),
    ],
)
def test_a_broken_archive_is_described(tmp_path, make, message):
    make(tmp_path / "archive")
    with pytest.raises(InputError, match=message) as caught:
        unpack(tmp_path / "archive", tmp_path / "into" / "here")
    assert "\n" not in str(caught.value) and list((tmp_path / "into").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"x\.tar cannot be unpacked into .*file/here: .*; unpack it yourself and"):
        unpack(tar(tmp_path / "x.tar", ("good.txt", FILE, "")), tmp_path / "file" / "here")


def test_who_comes_second_takes_what_is_there(tmp_path):
    archive = tar(tmp_path / "x.tar", ("good.txt", FILE, ""))
    for _ in range(2):
        assert unpack(archive, tmp_path / "here") == tmp_path / "here"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "x.tar"]


def test_a_process_killed_while_it_unpacks_leaves_no_folder_that_looks_whole(tmp_path):
    archive = tar(tmp_path / "x.tar", *[(f"{n}.txt", FILE, "") for n in range(3000)])
    program = f"""
from pathlib import Path
import tarfile, time
from jaxconv.data.unpack import unpack
real = tarfile.TarFile.extractfile
tarfile.TarFile.extractfile = lambda *a: time.sleep(0.01) or real(*a)
unpack(Path({str(archive)!r}), Path({str(tmp_path / "into" / "here")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "into").rglob("*.txt"))) < 5:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "into" / "here").exists()
    assert len(list(unpack(archive, tmp_path / "into" / "here").iterdir())) == 3000
