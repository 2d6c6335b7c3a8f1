"""Pictures from files: upright, opaque, grey or in colour, of the size that is asked for."""

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
from jaxconv.data.images import FORMATS, open_picture, read_image_shape, read_pixels


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_a_picture_of_the_right_size_comes_as_it_is(tmp_path, rng):
    grey, colour = rng.integers(0, 256, (4, 6), np.uint8), rng.integers(0, 256, (4, 6, 3), np.uint8)
    path = save(tmp_path / "grey.png", grey)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 1))[..., 0], grey)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 3)), np.dstack([grey] * 3))
    path = save(tmp_path / "colour.png", colour)
    np.testing.assert_array_equal(data.read_image(path, (4, 6, 3)), colour)
    luma = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(data.read_image(path, (4, 6, 1))[..., 0], luma, atol=1)
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(data.read_image(save(tmp_path / "deep.png", deep), (4, 6, 1))[..., 0], grey)
    steps = save(tmp_path / "steps.png", np.array([[0, 256, 257, 65_280, 65_534, 65_535]], np.uint16))
    assert data.read_image(steps, (1, 6, 1)).ravel().tolist() == [0, 0, 1, 254, 254, 255]  # white is 65,535


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    image = data.read_image(save(tmp_path / "x.png", pixels), (1, 2, 3))
    assert image.tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.fromarray(pixels).quantize(2)
    palette.save(tmp_path / "p.png")
    assert data.read_image(tmp_path / "p.png", (1, 2, 3))[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_of_a_camera_is_undone(tmp_path, rng, orientation):
    """EXIF's table: which side of the stored picture is the top, and which the left."""
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


def test_it_is_resized_without_regard_to_its_proportions(tmp_path):
    halves = np.repeat(np.array([[0, 200]], np.uint8), 40, axis=1).repeat(20, axis=0)
    image = data.read_image(save(tmp_path / "x.png", halves), (10, 8, 1))
    assert image.shape == (10, 8, 1)
    np.testing.assert_allclose(image[:, [0, 1, 2, 5, 6, 7], 0], [[0, 0, 0, 200, 200, 200]] * 10, atol=12)  # it rings


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def noted(orientation, where):
    """A camera's orientation in each place that Pillow looks at when it turns a picture upright."""
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = orientation
    if where == "exif":
        return {"format": "png", "exif": exif}
    if where == "xmp":
        return {"format": "jpeg", "xmp": XMP.format(orientation).encode()}
    if where == "XML:com.adobe.xmp":
        text.add_itxt(where, XMP.format(orientation))
    else:
        text.add_text(where, f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}")
    return {"format": "png", "pnginfo": text}


@pytest.mark.parametrize("where", ["exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_the_head_tells_the_shape_that_the_picture_has(tmp_path, where, orientation):
    path = save(tmp_path / "x", np.zeros((4, 6, 3), np.uint8), **noted(orientation, where))
    shape = (6, 4, 3) if orientation > 4 else (4, 6, 3)
    assert read_image_shape(path) == shape == read_pixels(path, 3).shape


HEAD = b"IHDR" + bytes(5)  # of 13 bytes
SHORT_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 5) + HEAD + struct.pack(">I", zlib.crc32(HEAD))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no image .*x.png"),
        (
            lambda path: path.write_bytes(b"hello"),
            "x.png is not an image that Pillow can read as PNG, .*: give a png or a jpg",
        ),
        (lambda path: save(path, np.zeros((4, 6), np.uint8)), "x.png is blank: every pixel is 0"),
        (
            lambda path: save(path, np.ones((4, 6), np.float32), format="tiff"),
            r"^\S+x.png has pixels of 32 bits, whose white",
        ),
        (
            lambda path: path.write_bytes(save(path, np.eye(99, dtype=np.uint8)).read_bytes()[:70]),
            "x.png cannot be read as an image",
        ),
        (lambda path: path.write_bytes(SHORT_HEAD), "x.png cannot be read as an image: Truncated IHDR chunk"),
    ],
)
def test_what_is_no_picture_is_described(tmp_path, make, message):
    make(tmp_path / "x.png")
    with pytest.raises(InputError, match=message):
        data.read_image(tmp_path / "x.png", (4, 6, 1))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth, colour, samples, transparent=None, palette=None):
    """A PNG put together by hand, of one row of pixels; ``samples`` is ``(W, channels)``."""
    samples = np.asarray(samples).reshape(len(samples), -1)
    bits = "".join(format(sample, f"0{depth}b") for sample in samples.ravel())
    bits += "0" * (-len(bits) % 8)
    row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", len(samples), 1, depth, colour, 0, 0, 0))]
    if palette is not None:
        chunks.append(chunk(b"PLTE", bytes(palette)))
    if transparent is not None:
        chunks.append(chunk(b"tRNS", transparent))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")])


def pixels_of(raw, channels, tmp_path):
    (tmp_path / "x.png").write_bytes(raw)
    return read_pixels(tmp_path / "x.png", channels)[0]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_the_transparent_colour_of_a_grey_png_is_white_at_every_depth(tmp_path, rng, depth, place):
    """PNG's specification: samples that equal it, at the file's depth, are transparent, and all others opaque."""
    largest = 2**depth - 1
    samples = np.array([0, largest, largest // 2, *rng.integers(0, largest + 1, 20)])
    transparent = samples[place]
    want = np.where(samples == transparent, 255, samples * 255 // largest)
    for beyond in (0, 2**15 if 1 < depth < 16 else 0):  # "the least significant bits are used"
        raw = png(depth, 0, samples, struct.pack(">H", int(transparent) + beyond))
        assert pixels_of(raw, 1, tmp_path).ravel().tolist() == want.tolist()
        assert read_image_shape(tmp_path / "x.png") == (1, 23, 1)
    assert pixels_of(png(depth, 0, samples), 1, tmp_path).ravel().tolist() == (samples * 255 // largest).tolist()


def test_near_to_the_transparent_colour_is_not_transparent(tmp_path):
    raw = png(16, 0, [25_700, 25_701, 25_699, 0], struct.pack(">H", 25_700))
    assert pixels_of(raw, 3, tmp_path).tolist() == [[255] * 3, [100] * 3, [99] * 3, [0] * 3]


@pytest.mark.parametrize("beyond", [0, 256])
def test_the_transparent_colour_of_a_colour_png_is_white(tmp_path, beyond):
    raw = png(8, 2, [[1, 2, 3], [1, 2, 4]], struct.pack(">HHH", 1 + beyond, 2, 3))
    assert pixels_of(raw, 3, tmp_path).tolist() == [[255] * 3, [1, 2, 4]]
    deep = png(16, 2, [[1, 2, 3], [1, 2, 4]], struct.pack(">HHH", 1, 2, 3))
    with pytest.raises(InputError, match=r"x\.png has 16 bits a channel and a transparent colour, .* save it with an"):
        pixels_of(deep, 3, tmp_path)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_may_be_transparent_in_part(tmp_path, depth):
    palette, samples = [10, 20, 30, 40, 50, 60], [0, 1]
    for alphas, want in (([0], [0, 255]), ([255, 0], [255, 0]), ([102, 51], [102, 51]), ([], [255, 255])):
        ink, alpha = np.array(palette).reshape(2, 3), np.array(want)[:, None] / 255
        found = pixels_of(png(depth, 3, samples, bytes(alphas) if alphas else None, palette), 3, tmp_path)
        np.testing.assert_allclose(found, ink * alpha + 255 * (1 - alpha), atol=1)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [4, 6])
def test_an_alpha_channel_lays_on_white(tmp_path, rng, colour, depth):
    samples = rng.integers(0, 256, (9, {4: 2, 6: 4}[colour])) * (257 if depth == 16 else 1)
    found = pixels_of(png(depth, colour, samples), 3, tmp_path)
    ink, alpha = samples[:, :-1] / (2**depth - 1), samples[:, -1:] / (2**depth - 1)
    want = np.broadcast_to(255 * (ink * alpha + 1 - alpha), (9, 3))
    np.testing.assert_allclose(found, want, atol=1)


@pytest.mark.parametrize("largest", [1, 100, 255, 256, 1023, 65_535])
def test_the_greys_of_a_pgm_are_scaled_by_its_own_white(tmp_path, rng, largest):
    samples = np.array([0, largest, *rng.integers(0, largest + 1, 20)])
    raw = b"P5 22 1 %d\n" % largest + samples.astype(">u2" if largest > 255 else "u1").tobytes()
    np.testing.assert_allclose(pixels_of(raw, 1, tmp_path).ravel(), samples * 255 / largest, atol=1)
    assert read_image_shape(tmp_path / "x.png") == (1, 22, 1)


@pytest.mark.parametrize(("order", "photometric"), [("<", 1), (">", 1), ("<", 0)])  # Pillow refuses (">", 0)
def test_16_bits_of_a_tiff_are_grey_in_either_order_and_polarity(tmp_path, rng, order, photometric):
    samples = np.array([0, 65_535, *rng.integers(0, 65_536, 20)])
    mode = {"<": "I;16", ">": "I;16B"}[order]
    file = io.BytesIO()
    Image.frombytes(mode, (22, 1), samples.astype(f"{order}u2").tobytes()).save(file, "TIFF")
    entry = struct.pack(f"{order}HHIHH", 262, 3, 1, 1, 0)  # PhotometricInterpretation, as Pillow writes it
    raw = file.getvalue()
    assert raw.count(entry) == 1
    raw = raw.replace(entry, struct.pack(f"{order}HHIHH", 262, 3, 1, photometric, 0))
    want = (samples if photometric else 65_535 - samples) // 257
    assert pixels_of(raw, 1, tmp_path).ravel().tolist() == want.tolist()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "GIF"), ("RGB", "BMP"), ("1", "BMP"), ("P", "GIF"), ("RGBA", "WEBP"), ("LA", "TIFF"), ("PA", "TIFF"),
     ("CMYK", "TIFF"), ("RGBX", "TIFF"), ("RGB", "PPM"), ("1", "PPM")],
)  # fmt: skip
def test_each_format_and_mode_comes_as_it_was_saved(tmp_path, rng, mode, kind):
    grey = rng.integers(0, 2, (6, 5)).astype(np.uint8) * 255
    picture = Image.fromarray(np.dstack([grey, 255 - grey, grey]))
    if mode == "PA":
        picture = picture.quantize(4)
    file = io.BytesIO()
    picture.convert(mode).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "x.png").write_bytes(file.getvalue())
    if mode in ("L", "1", "LA"):
        want = np.repeat(np.asarray(picture.convert("RGB").convert("L").convert(mode).convert("L"))[..., None], 3, -1)
    else:
        want = np.dstack([grey, 255 - grey, grey])
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.png", 3), want)


def test_colours_that_are_not_converted_are_refused(tmp_path):
    Image.new("LAB", (4, 6)).save(tmp_path / "x.png", "TIFF")
    with pytest.raises(InputError, match=r"x\.png has the colours LAB, which are not converted here: save it as RGB"):
        data.read_image(tmp_path / "x.png", (4, 6, 3))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
OTHERS = ["EPS", "ICNS", "DDS", "SPIDER", "ICO", "TGA", "PCX", "SGI", "IM", "JPEG2000"]


@pytest.mark.parametrize("kind", OTHERS)
def test_a_format_that_is_not_meant_is_refused_whatever_the_name(tmp_path, monkeypatch, kind):
    """Pillow runs Ghostscript, the first ``gs`` of the PATH, on what calls itself EPS."""
    mark, gs = tmp_path / "mark", tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {mark}\n")
    gs.chmod(gs.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    file = io.BytesIO()
    if kind == "EPS":
        file.write(EPS)
    else:
        Image.new("F" if kind == "SPIDER" else "RGB", (16, 16)).save(file, kind)
    (tmp_path / "x.png").write_bytes(file.getvalue())
    for read in (lambda path: data.read_image(path, (4, 6, 1)), lambda path: read_pixels(path, 3), read_image_shape):
        with pytest.raises(InputError, match=r"x\.png is not an image that Pillow can read as PNG, JPEG"):
            read(tmp_path / "x.png")
    assert not mark.exists()


def bomb(height, width):
    """A small PNG of so many black pixels, made without having them all."""
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + width // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("height", "width"), [(10_000, 10_000), (20_000, 20_000), (30_000, 30_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch, height, width):
    """Between once and twice its limit, Pillow itself warns only."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    (tmp_path / "x.png").write_bytes(bomb(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", width, height)))
    raw = bytearray((tmp_path / "x.png").read_bytes())
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    (tmp_path / "x.png").write_bytes(raw)
    for read in (lambda path: data.read_image(path, (4, 6, 1)), lambda path: read_pixels(path, 3), read_image_shape):
        with pytest.raises(InputError, match=r"^\S*x\.png .*pixels") as caught:
            read(tmp_path / "x.png")
        assert "\n" not in str(caught.value)


def test_the_limits_of_pixels_and_of_bytes(monkeypatch):
    raw = bomb(10, 16)
    with open_picture(raw, most_pixels=160) as picture:
        assert picture.size == (16, 10)
    with pytest.raises(InputError, match=r"^the picture has 16×10 pixels; a picture may have 159: save it smaller$"):
        with open_picture(raw, most_pixels=159):
            pass
    monkeypatch.setattr(image_file, "MOST_BYTES", len(raw) - 1)
    with pytest.raises(InputError, match=rf"^the picture has {len(raw)} bytes; a picture may have {len(raw) - 1}"):
        with open_picture(raw):
            pass


@pytest.mark.parametrize(
    "error", [MemoryError(), struct.error("x"), KeyError(3), RecursionError("deep"), OverflowError("large"), EOFError(),
              AttributeError("None"), zlib.error("-3"), TypeError("int"), Image.DecompressionBombError("b")],
)  # fmt: skip
def test_whatever_pillow_raises_is_one_line_with_the_file(tmp_path, monkeypatch, error):
    def load(image):
        raise error

    path = save(tmp_path / "x.png", np.eye(9, dtype=np.uint8))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image: \S") as caught:
        data.read_image(path, (4, 6, 1))
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_a_pipe_a_folder_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{path} is not a file"):
            data.read_image(path, (4, 6, 1))


def test_pictures_are_opened_in_one_place():
    root = Path(data.__file__).parent.parent
    users = [path.name for path in root.rglob("*.py") if re.search(r"\bImage\.open\(|\bimread\(", path.read_text())]
    assert users == ["images.py"] and len(FORMATS) == 7
