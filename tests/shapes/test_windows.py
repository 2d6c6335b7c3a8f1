"""Arithmetic of windows, compared with counting them one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxconv import InputError, shapes
from jaxconv.shapes import Window

SMALL = st.integers(1, 6)


@given(n=st.integers(1, 20), f=SMALL, s=SMALL, d=st.integers(1, 3), low=st.integers(0, 4), high=st.integers(0, 4))
def test_output_size_counts_the_windows_that_fit(n, f, s, d, low, high):
    starts = [p for p in range(-low, n + high, s) if p + d * (f - 1) + 1 <= n + high]
    if not starts:
        with pytest.raises(InputError, match="pad more, or take a smaller window"):
            shapes.output_size(n, f, stride=s, padding=(low, high), dilation=d)
    else:
        assert shapes.output_size(n, f, stride=s, padding=(low, high), dilation=d) == len(starts)


@given(n=st.integers(1, 20), f=SMALL, s=SMALL, d=st.integers(1, 3))
def test_same_padding_gives_one_output_per_stride(n, f, s, d):
    for padding in ("SAME", "SAME_LOWER"):
        low, high = shapes.resolve_padding(padding, n, f, s, d)
        assert shapes.output_size(n, f, stride=s, padding=(low, high), dilation=d) == -(-n // s)
        assert 0 <= (high - low if padding == "SAME" else low - high) <= 1


@given(n=st.integers(3, 20), f=st.integers(1, 5), s=st.integers(2, 6))
def test_exact_output_size_suggests_valid_sizes(n, f, s):
    if n < f:
        return
    if (n - f) % s == 0:
        assert shapes.output_size(n, f, stride=s, exact=True) == (n - f) // s + 1
        return
    with pytest.raises(InputError, match="is not an integer") as raised:
        shapes.output_size(n, f, stride=s, exact=True)
    suggestion = str(raised.value).split("; ")[1]
    padding, strides = suggestion.split(" would fit, or stride ")
    for stride in strides.replace(" or ", ", ").split(", "):
        assert shapes.output_size(n, f, stride=int(stride), exact=True) > 0
    if padding.endswith("on both sides"):
        values = padding.removeprefix("padding ").removesuffix(" on both sides").replace(" or ", ", ").split(", ")
        pads = [int(value) for value in values]
    else:
        low, high = padding.removeprefix("padding (").removesuffix(")").split(", ")
        pads = [(int(low), int(high))]
    for pad in pads:
        assert shapes.output_size(n, f, stride=s, padding=pad, exact=True) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window 0: give an int of at least 1"),
        ({"window": 3, "stride": 0}, "stride 0: give an int of at least 1"),
        ({"window": 3, "stride": 1.5}, "stride 1.5: give an int"),
        ({"window": 3, "dilation": -1}, "dilation -1: give an int"),
    ],
)
def test_output_size_invalid_arguments_raise(options, message):
    with pytest.raises(InputError, match=message):
        shapes.output_size(9, **options)


def test_output_sizes_of_the_lectures():
    assert [shapes.output_size(7, 3, stride=s) for s in (1, 2)] == [5, 3]  # 001-09
    with pytest.raises(InputError, match=r"\(7 \+ 0 - 3\) / 3 \+ 1 = 2\.33 .* padding 1 or 4 on both sides would fit"):
        shapes.output_size(7, 3, stride=3, exact=True)
    assert shapes.output_size(7, 3, stride=3, padding=1, exact=True) == 3
    assert shapes.output_size(10, 3, stride=2) == 4  # 002-10
    assert shapes.output_size(227, 11, stride=4) == 55  # 000-07
    assert shapes.resolve_padding("SAME", 28, 3, stride=2) == (0, 1)
    assert shapes.resolve_window(Window(5, padding=1), (10, 10)).out_size == (8, 8)  # 002-21
    assert shapes.coverage(Window(3), (7, 7))[[0, 1, 2, 3], [0, 1, 2, 3]].tolist() == [1, 4, 9, 9]  # 001-23


def test_tap_indices_of_small_kernel():
    rows, columns = shapes.tap_indices(shapes.resolve_window(Window(2, stride=2), (4, 4)))
    pixels = 1 + 4 * np.arange(4)[:, None] + np.arange(4)
    assert pixels[np.ix_(rows[0], columns[0])].ravel().tolist() == [1, 2, 5, 6]  # 000-08
    assert pixels[np.ix_(rows[0], columns[1])].ravel().tolist() == [3, 4, 7, 8]


@given(f=SMALL, s=SMALL, d=st.integers(1, 2), low=st.integers(0, 3), high=st.integers(0, 3), extra=st.integers(0, 8))
def test_coverage_matches_plain_loops(f, s, d, low, high, extra):
    n = d * (f - 1) + 1 + extra
    counts = np.zeros(n, int)
    for start in range(-low, n + high - d * (f - 1), s):
        for u in range(f):
            if 0 <= start + u * d < n:
                counts[start + u * d] += 1
    assert shapes.coverage(Window(f, s, [(low, high)], d), [n]).tolist() == counts.tolist()


@given(layers=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=4))
def test_receptive_field_matches_backward_walk(layers):
    """Follow two neighboring outputs back to the pixels that they depend on."""

    def reached_pixels(position):
        reached = {position}
        for f, s, d in reversed(layers):
            reached = {p * s + u * d for p in reached for u in range(f)}
        return reached

    windows = [Window(f, stride=s, dilation=d) for f, s, d in layers]
    (field,), (jump,) = shapes.receptive_field(windows, ndim=1)[-1]
    assert field == max(reached_pixels(0)) - min(reached_pixels(0)) + 1
    assert jump == min(reached_pixels(1)) - min(reached_pixels(0))


def test_receptive_fields_of_lecture_networks():
    def fields(*windows):
        return [field[0] for field, _ in shapes.receptive_field(windows)]

    conv3, conv5, pool = Window(3), Window(5), Window(2, stride=2)
    assert fields(conv5, pool, conv5, pool) == [5, 6, 14, 16]
    assert fields(conv3, pool, conv3, pool, conv3) == [3, 4, 8, 10, 18]
