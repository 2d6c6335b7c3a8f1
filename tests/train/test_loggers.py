"""TensorBoard event files, read back by an independent parser."""

import struct
import sys

import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.train.loggers import TensorBoardWriter
from toy_training import RECORD


def events(folder):
    """Yield the events of all files in order, parsed as TFRecords: length, checksum, event, checksum."""
    pb = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            header, body, checksum = content[8:12], content[12 : 12 + length], content[12 + length : 16 + length]
            assert struct.unpack("<II", header + checksum) == (masked_crc32c(content[:8]), masked_crc32c(body))
            yield pb.Event.FromString(body)
            content = content[16 + length :]


def masked_crc32c(data):
    """Return the CRC-32C (Castagnoli), computed bit by bit and masked as in TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def displayed_curves(folder):
    """Return the curves that TensorBoard displays: a START event hides earlier events from its step on."""
    curves = {}
    for event in events(folder):
        if event.session_log.status == 1:
            curves = {tag: {t: y for t, y in curve.items() if t < event.step} for tag, curve in curves.items()}
        for value in event.summary.value:
            curve = curves.setdefault(value.tag, {})
            assert event.step not in curve, f"{value.tag} appears twice at {event.step}"
            curve[event.step] = value.simple_value
    return curves


def test_masked_crc32c_matches_rfc_3720():
    crc = masked_crc32c(b"123456789") - 0xA282EAD8 & 0xFFFFFFFF
    assert (crc >> 17 | crc << 15) & 0xFFFFFFFF == 0xE3069283  # RFC 3720, appendix B


def test_tensorboard_writer_writes_every_number(tmp_path):
    with TensorBoardWriter(tmp_path / "a" / "b") as writer:
        writer.write(RECORD | {"note": "text", "best": True})
        writer.write(RECORD | {"epoch": 2, "loss": np.float32(0.125)})
        curves = displayed_curves(tmp_path / "a" / "b")  # before close, as after a kill
    assert curves == displayed_curves(tmp_path / "a" / "b")
    assert curves == {
        "train/loss": {1: 0.5, 2: 0.125},
        "train/accuracy": {1: 0.75, 2: 0.75},
        "validation/loss": {1: 0.25, 2: 0.25},
        "validation/accuracy": {1: 1.0, 2: 1.0},
        "train/epoch_seconds": {1: 2.5, 2: 2.5},
    }
    first, *_ = events(tmp_path / "a" / "b")
    assert first.file_version == "brain.Event:2" and first.wall_time > 1e9


def test_tensorboard_writer_hides_repeated_epochs(tmp_path):
    """All writers open within one second, where tensorboardX's SummaryWriter would reuse the file name."""
    for first, last, loss in ((1, 4, 0.5), (3, 6, 0.25), (4, 5, 0.125)):
        with TensorBoardWriter(tmp_path, initial_epoch=first) as writer:
            for epoch in range(first, last + 1):
                writer.write({"epoch": epoch, "loss": loss})
    assert len(list(tmp_path.iterdir())) == 3
    assert displayed_curves(tmp_path) == {"train/loss": {1: 0.5, 2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}}


def test_tensorboard_writer_missing_package_or_file_raises(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be created: File exists"):
        TensorBoardWriter(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(InputError, match=r'^TensorBoard requires tensorboardX: pip install "jaxconv\[tensorboard\]"$'):
        TensorBoardWriter(tmp_path)
