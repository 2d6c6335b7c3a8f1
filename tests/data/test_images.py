"""Images from files: orientation, transparency, bit depth, color modes, resizing, and errors."""

import io
import os
import re
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxconv import InputError, data
from jaxconv.data import images as image_file
from jaxconv.data.images import FORMATS, open_image, read_image_shape, read_pixels


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_read_image_of_same_size_keeps_pixels(tmp_path, rng):
    gray, color = rng.integers(0, 256, (4, 6), np.uint8), rng.integers(0, 256, (4, 6, 3), np.uint8)
    path = save(tmp_path / "gray.png", gray)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 1))[..., 0], gray)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 3)), np.dstack([gray] * 3))
    path = save(tmp_path / "color.png", color)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 3)), color)
    luma = color @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(data.read_image(path, (4, 6, 1))[..., 0], luma, atol=1)
    path = save(tmp_path / "gray_16_bit.png", gray.astype(np.uint16) * 257)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 1))[..., 0], gray)
    path = save(tmp_path / "levels.png", np.array([[0, 256, 257, 65_280, 65_534, 65_535]], np.uint16))
    assert data.read_image(path, (1, 6, 1)).ravel().tolist() == [0, 0, 1, 254, 254, 255]  # white is 65,535


def test_read_image_composites_on_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    image = data.read_image(save(tmp_path / "x.png", pixels), (1, 2, 3))
    assert image.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.fromarray(pixels).quantize(2)
    palette.save(tmp_path / "p.png")
    assert data.read_image(tmp_path / "p.png", (1, 2, 3))[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_applies_exif_orientation(tmp_path, rng, orientation):
    """EXIF's table of orientations: each names the sides of the stored image that are the top and the left."""
    upright = rng.integers(0, 256, (4, 6), np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 1))[..., 0], upright)


def test_read_image_resizes_without_aspect_ratio(tmp_path):
    halves = np.repeat(np.array([[0, 200]], np.uint8), 40, axis=1).repeat(20, axis=0)
    image = data.read_image(save(tmp_path / "x.png", halves), (10, 8, 1))
    assert image.shape == (10, 8, 1)
    # Lanczos interpolation overshoots at the edge.
    np.testing.assert_allclose(image[:, [0, 1, 2, 5, 6, 7], 0], [[0, 0, 0, 200, 200, 200]] * 10, atol=12)


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def orientation_metadata(orientation, key):
    """Options of ``Image.save`` that store an orientation under one of the keys that Pillow reads."""
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = orientation
    if key == "exif":
        return {"format": "png", "exif": exif}
    if key == "xmp":
        return {"format": "jpeg", "xmp": XMP.format(orientation).encode()}
    if key == "XML:com.adobe.xmp":
        text.add_itxt(key, XMP.format(orientation))
    else:
        text.add_text(key, f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}")
    return {"format": "png", "pnginfo": text}


@pytest.mark.parametrize("key", ["exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_read_image_shape_equals_shape_of_pixels(tmp_path, key, orientation):
    path = save(tmp_path / "x", np.zeros((4, 6, 3), np.uint8), **orientation_metadata(orientation, key))
    shape = (6, 4, 3) if orientation > 4 else (4, 6, 3)
    assert read_image_shape(path) == shape == read_pixels(path, 3).shape


HEADER = b"IHDR" + bytes(5)  # 5 of 13 bytes
TRUNCATED_HEADER = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 5) + HEADER + struct.pack(">I", zlib.crc32(HEADER))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "there is no image .*x.png"),
        (
            lambda path: path.write_bytes(b"hello"),
            "x.png is not an image that Pillow can read as PNG, .*: give a png or a jpg",
        ),
        (lambda path: save(path, np.zeros((4, 6), np.uint8)), "x.png is blank: every pixel is 0"),
        (
            lambda path: save(path, np.ones((4, 6), np.float32), format="tiff"),
            r"^\S+x.png has 32-bit pixels, whose value of white",
        ),
        (
            lambda path: path.write_bytes(save(path, np.eye(99, dtype=np.uint8)).read_bytes()[:70]),
            "x.png cannot be read as an image",
        ),
        (lambda path: path.write_bytes(TRUNCATED_HEADER), "x.png cannot be read as an image: Truncated IHDR chunk"),
    ],
)
def test_read_image_invalid_file_raises(tmp_path, write, message):
    write(tmp_path / "x.png")
    with pytest.raises(InputError, match=message):
        data.read_image(tmp_path / "x.png", (4, 6, 1))


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth, color_type, samples, transparent=None, palette=None):
    """PNG of one row of pixels, assembled by hand; ``samples`` is ``(W, channels)``."""
    samples = np.asarray(samples).reshape(len(samples), -1)
    bits = "".join(format(sample, f"0{depth}b") for sample in samples.ravel())
    bits += "0" * (-len(bits) % 8)
    row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    chunks = [png_chunk(b"IHDR", struct.pack(">IIBBBBB", len(samples), 1, depth, color_type, 0, 0, 0))]
    if palette is not None:
        chunks.append(png_chunk(b"PLTE", bytes(palette)))
    if transparent is not None:
        chunks.append(png_chunk(b"tRNS", transparent))
    chunks += [png_chunk(b"IDAT", zlib.compress(b"\0" + row)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def pixels_of(raw, channels, tmp_path):
    (tmp_path / "x.png").write_bytes(raw)
    return read_pixels(tmp_path / "x.png", channels)[0]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("index", [0, 1, -1])
def test_transparent_color_of_gray_png_is_white(tmp_path, rng, depth, index):
    """PNG's specification: samples equal to the transparent color at the file's depth are transparent, no others."""
    largest = 2**depth - 1
    samples = np.array([0, largest, largest // 2, *rng.integers(0, largest + 1, 20)])
    transparent = samples[index]
    expected = np.where(samples == transparent, 255, samples * 255 // largest)
    for high_bits in (0, 2**15 if 1 < depth < 16 else 0):  # "the least significant bits are used"
        raw = png(depth, 0, samples, struct.pack(">H", int(transparent) + high_bits))
        assert pixels_of(raw, 1, tmp_path).ravel().tolist() == expected.tolist()
        assert read_image_shape(tmp_path / "x.png") == (1, 23, 1)
    assert pixels_of(png(depth, 0, samples), 1, tmp_path).ravel().tolist() == (samples * 255 // largest).tolist()


def test_colors_near_transparent_color_are_opaque(tmp_path):
    raw = png(16, 0, [25_700, 25_701, 25_699, 0], struct.pack(">H", 25_700))
    assert pixels_of(raw, 3, tmp_path).tolist() == [[255] * 3, [100] * 3, [99] * 3, [0] * 3]


@pytest.mark.parametrize("high_bits", [0, 256])
def test_transparent_color_of_rgb_png_is_white(tmp_path, high_bits):
    raw = png(8, 2, [[1, 2, 3], [1, 2, 4]], struct.pack(">HHH", 1 + high_bits, 2, 3))
    assert pixels_of(raw, 3, tmp_path).tolist() == [[255] * 3, [1, 2, 4]]
    raw_16_bit = png(16, 2, [[1, 2, 3], [1, 2, 4]], struct.pack(">HHH", 1, 2, 3))
    with pytest.raises(InputError, match=r"x\.png has 16 bits per channel and a transparent color, .* save it with an"):
        pixels_of(raw_16_bit, 3, tmp_path)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_with_alpha_is_composited_on_white(tmp_path, depth):
    palette, samples = [10, 20, 30, 40, 50, 60], [0, 1]
    for stored, alphas in (([0], [0, 255]), ([255, 0], [255, 0]), ([102, 51], [102, 51]), ([], [255, 255])):
        colors, alpha = np.array(palette).reshape(2, 3), np.array(alphas)[:, None] / 255
        pixels = pixels_of(png(depth, 3, samples, bytes(stored) if stored else None, palette), 3, tmp_path)
        np.testing.assert_allclose(pixels, colors * alpha + 255 * (1 - alpha), atol=1)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("color_type", [4, 6])
def test_alpha_channel_is_composited_on_white(tmp_path, rng, color_type, depth):
    samples = rng.integers(0, 256, (9, {4: 2, 6: 4}[color_type])) * (257 if depth == 16 else 1)
    pixels = pixels_of(png(depth, color_type, samples), 3, tmp_path)
    colors, alpha = samples[:, :-1] / (2**depth - 1), samples[:, -1:] / (2**depth - 1)
    expected = np.broadcast_to(255 * (colors * alpha + 1 - alpha), (9, 3))
    np.testing.assert_allclose(pixels, expected, atol=1)


@pytest.mark.parametrize("largest", [1, 100, 255, 256, 1023, 65_535])
def test_pgm_is_scaled_by_its_maximum(tmp_path, rng, largest):
    samples = np.array([0, largest, *rng.integers(0, largest + 1, 20)])
    raw = b"P5 22 1 %d\n" % largest + samples.astype(">u2" if largest > 255 else "u1").tobytes()
    np.testing.assert_allclose(pixels_of(raw, 1, tmp_path).ravel(), samples * 255 / largest, atol=1)
    assert read_image_shape(tmp_path / "x.png") == (1, 22, 1)


@pytest.mark.parametrize(("order", "photometric"), [("<", 1), (">", 1), ("<", 0)])  # Pillow refuses (">", 0)
def test_16_bit_tiff_of_each_byte_order_and_polarity(tmp_path, rng, order, photometric):
    samples = np.array([0, 65_535, *rng.integers(0, 65_536, 20)])
    mode = {"<": "I;16", ">": "I;16B"}[order]
    file = io.BytesIO()
    Image.frombytes(mode, (22, 1), samples.astype(f"{order}u2").tobytes()).save(file, "TIFF")
    entry = struct.pack(f"{order}HHIHH", 262, 3, 1, 1, 0)  # PhotometricInterpretation, as Pillow writes it
    raw = file.getvalue()
    assert raw.count(entry) == 1
    raw = raw.replace(entry, struct.pack(f"{order}HHIHH", 262, 3, 1, photometric, 0))
    expected = (samples if photometric else 65_535 - samples) // 257
    assert pixels_of(raw, 1, tmp_path).ravel().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "GIF"), ("RGB", "BMP"), ("1", "BMP"), ("P", "GIF"), ("RGBA", "WEBP"), ("LA", "TIFF"), ("PA", "TIFF"),
     ("CMYK", "TIFF"), ("RGBX", "TIFF"), ("RGB", "PPM"), ("1", "PPM")],
)  # fmt: skip
def test_read_pixels_of_each_format_and_mode(tmp_path, rng, mode, format):
    gray = rng.integers(0, 2, (6, 5)).astype(np.uint8) * 255
    image = Image.fromarray(np.dstack([gray, 255 - gray, gray]))
    if mode == "PA":
        image = image.quantize(4)
    file = io.BytesIO()
    image.convert(mode).save(file, format, **({"lossless": True} if format == "WEBP" else {}))
    (tmp_path / "x.png").write_bytes(file.getvalue())
    if mode in ("L", "1", "LA"):
        expected = np.repeat(np.asarray(image.convert("RGB").convert("L").convert(mode).convert("L"))[..., None], 3, -1)
    else:
        expected = np.dstack([gray, 255 - gray, gray])
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.png", 3), expected)


def test_read_image_unsupported_color_mode_raises(tmp_path):
    Image.new("LAB", (4, 6)).save(tmp_path / "x.png", "TIFF")
    with pytest.raises(InputError, match=r"x\.png has the color mode LAB, which is not supported: save it as RGB"):
        data.read_image(tmp_path / "x.png", (4, 6, 3))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
UNSUPPORTED = ["EPS", "ICNS", "DDS", "SPIDER", "ICO", "TGA", "PCX", "SGI", "IM", "JPEG2000"]


@pytest.mark.parametrize("format", UNSUPPORTED)
def test_read_image_unsupported_format_raises(tmp_path, monkeypatch, format):
    """For EPS files Pillow runs Ghostscript, the first ``gs`` in PATH."""
    created, gs = tmp_path / "created", tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {created}\n")
    gs.chmod(gs.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = io.BytesIO()
    if format == "EPS":
        file.write(EPS)
    else:
        Image.new("F" if format == "SPIDER" else "RGB", (16, 16)).save(file, format)
    (tmp_path / "x.png").write_bytes(file.getvalue())
    for read in (lambda path: data.read_image(path, (4, 6, 1)), lambda path: read_pixels(path, 3), read_image_shape):
        with pytest.raises(InputError, match=r"x\.png is not an image that Pillow can read as PNG, JPEG"):
            read(tmp_path / "x.png")
    assert not created.exists()


def bomb(height, width):
    """Small PNG of height × width black pixels, compressed row by row."""
    compressor = zlib.compressobj()
    rows = b"".join(compressor.compress(bytes(1 + width // 8)) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", rows), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("height", "width"), [(10_000, 10_000), (20_000, 20_000), (30_000, 30_000)])
def test_decompression_bomb_raises_before_decoding(tmp_path, monkeypatch, height, width):
    """Between one and two times its limit, Pillow itself only warns."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    (tmp_path / "x.png").write_bytes(bomb(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", width, height)))
    raw = bytearray((tmp_path / "x.png").read_bytes())
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    (tmp_path / "x.png").write_bytes(raw)
    for read in (lambda path: data.read_image(path, (4, 6, 1)), lambda path: read_pixels(path, 3), read_image_shape):
        with pytest.raises(InputError, match=r"^\S*x\.png .*pixels") as caught:
            read(tmp_path / "x.png")
        assert "\n" not in str(caught.value)


def test_open_image_limits_pixels_and_bytes(monkeypatch):
    raw = bomb(10, 16)
    with open_image(raw, max_pixels=160) as image:
        assert image.size == (16, 10)
    with pytest.raises(InputError, match=r"^the image data has 16×10 pixels; the limit is 159: save it smaller$"):
        with open_image(raw, max_pixels=159):
            pass
    monkeypatch.setattr(image_file, "MAX_BYTES", len(raw) - 1)
    with pytest.raises(InputError, match=rf"^the image data has {len(raw)} bytes; the limit is {len(raw) - 1}"):
        with open_image(raw):
            pass


@pytest.mark.parametrize(
    "error", [MemoryError(), struct.error("x"), KeyError(3), RecursionError("deep"), OverflowError("large"), EOFError(),
              AttributeError("None"), zlib.error("-3"), TypeError("int"), Image.DecompressionBombError("b")],
)  # fmt: skip
def test_errors_of_pillow_become_one_line_input_errors(tmp_path, monkeypatch, error):
    def load(image):
        raise error

    path = save(tmp_path / "x.png", np.eye(9, dtype=np.uint8))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image: \S") as caught:
        data.read_image(path, (4, 6, 1))
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_read_image_of_pipe_folder_or_device_raises(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path} is not a file"):
            data.read_image(path, (4, 6, 1))


def test_only_images_module_opens_images():
    root = Path(data.__file__).parent.parent
    users = [path.name for path in root.rglob("*.py") if re.search(r"\bImage\.open\(|\bimread\(", path.read_text())]
    assert users == ["images.py"] and len(FORMATS) == 7
