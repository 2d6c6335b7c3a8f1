"""Images of experiments/style_transfer.py."""

import sys

import numpy as np
import pytest

import style_transfer
from jaxconv import InputError


@pytest.mark.parametrize("name", sorted(style_transfer.PATTERNS))
def test_load_picture_generates_patterns(name):
    color, gray = style_transfer.load_picture(name, 24, 3), style_transfer.load_picture(name, 24, 1)
    assert color.shape == (24, 24, 3) and color.dtype == np.float32
    assert 0 <= color.min() < 0.2 and 0.8 < color.max() <= 1
    np.testing.assert_allclose(gray[..., 0], color.mean(axis=-1), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(style_transfer.PICTURES))
def test_load_picture_crops_skimage_images(name):
    skimage_data = pytest.importorskip("skimage.data")
    source, (left, top, size) = style_transfer.PICTURES[name]
    original = getattr(skimage_data, source)()
    assert 0 <= left and left + size <= original.shape[1] and 0 <= top and top + size <= original.shape[0]
    crop = original[top : top + size, left : left + size] / 255
    crop = crop if crop.ndim == 3 else crop[..., None] * np.ones(3)
    np.testing.assert_allclose(style_transfer.load_picture(name, size, 3), crop, atol=1e-6)
    assert style_transfer.load_picture(name, 20, 1).shape == (20, 20, 1)


def test_missing_skimage_names_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InputError, match=r"gravel needs scikit-image: .*jaxconv\[experiments\].* rings, stripes"):
        style_transfer.load_picture("gravel", 20, 3)
