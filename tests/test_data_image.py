"""Pictures from files: upright, opaque, grey or in colour, of the size that is asked for."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jaxconv import InputError, data
from jaxconv.data.image import image_shape, read_pixels


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
    assert image_shape(path) == shape == read_pixels(path, 3).shape


HEAD = b"IHDR" + bytes(5)  # of 13 bytes
SHORT_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 5) + HEAD + struct.pack(">I", zlib.crc32(HEAD))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no image .*x.png"),
        (lambda path: path.write_bytes(b"hello"), "x.png is not an image that Pillow can read: give a png or a jpg"),
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
