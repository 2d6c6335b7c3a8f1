"""The pictures that are painted, and what becomes of a name that is none."""

import sys

import numpy as np
import pytest

import style_transfer
from jaxconv import InputError


@pytest.mark.parametrize("name", sorted(style_transfer.PATTERNS))
def test_patterns_are_made_anew(name):
    colour, grey = style_transfer.load_picture(name, 24, 3), style_transfer.load_picture(name, 24, 1)
    assert colour.shape == (24, 24, 3) and colour.dtype == np.float32
    assert 0 <= colour.min() < 0.2 and 0.8 < colour.max() <= 1
    np.testing.assert_allclose(grey[..., 0], colour.mean(axis=-1), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(style_transfer.PICTURES))
def test_photographs_are_scikit_images(name):
    pictures = pytest.importorskip("skimage.data")
    source, (left, top, size) = style_transfer.PICTURES[name]
    whole = getattr(pictures, source)()
    assert 0 <= left and left + size <= whole.shape[1] and 0 <= top and top + size <= whole.shape[0]
    part = whole[top : top + size, left : left + size] / 255
    part = part if part.ndim == 3 else part[..., None] * np.ones(3)
    np.testing.assert_allclose(style_transfer.load_picture(name, size, 3), part, atol=1e-6)
    assert style_transfer.load_picture(name, 20, 1).shape == (20, 20, 1)


def test_without_scikit_image_it_says_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(InputError, match=r"gravel needs scikit-image: .*jaxconv\[experiments\].* rings, stripes"):
        style_transfer.load_picture("gravel", 20, 3)
