"""Terms and text of arithmetic, as in the lectures."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxconv import ops, shapes
from jaxconv.explain import arithmetic

TABLES = json.loads((Path(__file__).parents[1] / "lectures" / "worked_tables.json").read_text())
IMAGE = np.array(TABLES["s002_image_10x10x3"], np.float32)[None]
VERTICAL = np.repeat(np.array(TABLES["s002_vertical_filter"], np.float32)[:, :, None, None], 3, axis=2)


def test_conv_has_75_products_and_bias(rng):
    """Lecture row 001-05."""
    x, kernel = (rng.normal(size=size).astype(np.float32) for size in [(1, 32, 32, 3), (5, 5, 3, 2)])
    result = arithmetic("conv", x, kernel, np.array([1, 2], np.float32), index=(0, 27, 3, 1))
    assert len(result.terms) == 75 and result.bias == 2
    assert [len(group.terms) for group in result.groups] == [25, 25, 25]
    assert [group.label for group in result.groups] == ["channel 0", "channel 1", "channel 2"]
    # The 8th kernel offset of channel 1 is (1, 2): one pixel down and two to the right.
    pixel, weight = result.groups[1].terms[7].numbers
    assert (pixel.where, weight.where) == ("x[0,28,5,1]", "kernel[1,2,1,1]")
    assert (pixel.value, weight.value) == (x[0, 28, 5, 1], kernel[1, 2, 1, 1])
    assert not any(term.padding for term in result.terms)


def test_conv_input_gradient_terms_match_coverage():
    """Lecture row 001-23: pixel (1, 1) feeds 1 output, (2, 2) 4 and (3, 3) 9; and the coverage of another window."""
    x, kernel, dy = np.ones((1, 7, 7, 1)), np.ones((3, 3, 1, 1)), np.ones((1, 5, 5, 1))
    num_terms = [len(arithmetic("conv", x, kernel, wrt="x", dy=dy, index=(0, i, i, 0)).terms) for i in range(4)]
    assert num_terms == [1, 4, 9, 9]
    counts = shapes.coverage(shapes.Window((3, 3), 2, 1, 2), (7, 7))
    options = {"stride": 2, "padding": 1, "dilation": 2}
    dy = np.ones(ops.conv(x, kernel, **options).shape)
    for i, j in [(0, 0), (1, 3), (3, 2), (6, 5)]:
        assert len(arithmetic("conv", x, kernel, wrt="x", dy=dy, index=(0, i, j, 0), **options).terms) == counts[i, j]


def test_conv_padding_is_written_and_flagged():
    x, kernel = np.arange(1.0, 4)[None, :, None], np.array([5.0, 6, 7])[:, None, None]
    result = arithmetic("conv", x, kernel, index=(0, 0, 0), padding="SAME")
    assert str(result) == "conv: y[0, 0, 0]\n  channel 0: 0·5 + 1·6 + 2·7 = 20"
    assert [term.padding for term in result.terms] == [True, False, False]
    assert result.terms[0].numbers[0].where == "outside"
    result = arithmetic("conv", x, kernel, index=(0, 0, 0), padding="SAME", padding_mode="circular")
    assert str(result) == "conv: y[0, 0, 0]\n  channel 0: 3·5 + 1·6 + 2·7 = 35"
    assert result.terms[0].padding and result.terms[0].numbers[0].where == "x[0,2,0]"
    result = arithmetic("conv", x, kernel, wrt="kernel", dy=x, index=(2, 0, 0), padding="SAME")
    assert str(result) == "conv: d_kernel[2, 0, 0]\n  example 0: 2·1 + 3·2 + 0·3 = 8"
    assert [term.padding for term in result.terms] == [False, False, True]
    # In two dimensions, padding along one axis suffices.
    image = np.arange(1.0, 5).reshape(1, 2, 2, 1)
    for padding_mode in ("zeros", "replicate"):
        options = {"padding": ((1, 0), (0, 0)), "padding_mode": padding_mode}
        result = arithmetic("conv", image, np.ones((2, 2, 1, 1)), index=(0, 0, 0, 0), **options)
        assert [term.padding for term in result.terms] == [True, True, False, False]


def test_conv_text_of_image_and_vertical_filter():
    """Lecture row 002-13: R = −448, G = −91, B = 472, total −67, and the full table."""
    result = arithmetic(ops.conv, IMAGE, VERTICAL, index=(0, 0, 0, 0))
    assert [group.subtotal for group in result.groups] == [-448, -91, 472]
    assert str(result) == (
        "conv: y[0, 0, 0, 0]\n"
        "  channel 0: 3·1 + 3·0 + 98·(-1) + 3·1 + 170·0 + 206·(-1) + 102·1 + 220·0 + 252·(-1) = -448\n"
        "  channel 1: 51·1 + 51·0 + 163·(-1) + 51·1 + 178·0 + 196·(-1) + 169·1 + 170·0 + 3·(-1) = -91\n"
        "  channel 2: 252·1 + 252·0 + 207·(-1) + 252·1 + 147·0 + 10·(-1) + 203·1 + 13·0 + 18·(-1) = 472\n"
        "  total: -448 - 91 + 472 = -67"
    )
    biased = arithmetic("conv", IMAGE, VERTICAL, np.ones(1, np.float32), index=(0, 0, 0, 0))
    assert str(biased).endswith("  total: -448 - 91 + 472 + 1 (bias) = -66")
    table = [[arithmetic("conv", IMAGE, VERTICAL, index=(0, i, j, 0)).total for j in range(8)] for i in range(8)]
    np.testing.assert_array_equal(table, TABLES["s002_valid_8x8"])


def test_conv_text_of_edge():
    """Lecture row 002-07: each channel gives 75, in total 225."""
    edge = np.repeat(np.array(TABLES["s002_edge_image_10x10"], np.float32)[None, :, :, None], 3, axis=3)
    result = arithmetic("conv", edge, VERTICAL, index=(0, 2, 3, 0))
    ones = "25·1 + 25·0 + 0·(-1) + 25·1 + 25·0 + 0·(-1) + 25·1 + 25·0 + 0·(-1) = 75"
    assert [group.line for group in result.groups] == [f"channel {c}: {ones}" for c in range(3)]
    assert str(result).endswith("  total: 75 + 75 + 75 = 225")


def test_conv_text_of_padded_digit():
    """Lecture row 004-06: text of the first two windows, and the full table."""
    digit = np.array(TABLES["s004_digit"], np.float32)[None, :, :, None]
    kernel = np.array(TABLES["s004_filter"], np.float32)[:, :, None, None]

    def output(i, j):
        return arithmetic("conv", digit, kernel, np.zeros(1, np.float32), index=(0, i, j, 0), padding=1)

    assert str(output(0, 0)) == (
        "conv: y[0, 0, 0, 0]\n"
        "  channel 0: 0·(-1) + 0·(-1) + 0·(-1) + 0·1 + (-1)·1 + 1·1 + 0·(-1) + (-1)·(-1) + 1·(-1) = 0\n"
        "  total: 0 + 0 (bias) = 0"
    )
    assert output(0, 1).groups[0].line.endswith("(-1)·1 + 1·1 + (-1)·1 + (-1)·(-1) + 1·(-1) + (-1)·(-1) = 0")
    np.testing.assert_array_equal([[output(i, j).total for j in range(5)] for i in range(5)], TABLES["s004_out"])


def test_conv_gradient_terms_match_lecture():
    """Lecture rows 001-21 and 001-22, with ∂E/∂X23 and ∂E/∂X33 corrected."""
    x, kernel = np.arange(1.0, 10).reshape(1, 3, 3, 1), np.arange(1.0, 5).reshape(2, 2, 1, 1)
    dy = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)

    def factors(wrt, *index):
        terms = arithmetic("conv", x, kernel, wrt=wrt, index=index, dy=dy).terms
        return [
            tuple(number.at[1:3] if number.of != "kernel" else number.at[:2] for number in t.numbers) for t in terms
        ]

    # ∂E/∂F12 = ∂O11·X12 + ∂O12·X13 + ∂O21·X22 + ∂O22·X23
    assert factors("kernel", 0, 1, 0, 0) == [((0, 1), (0, 0)), ((0, 2), (0, 1)), ((1, 1), (1, 0)), ((1, 2), (1, 1))]
    # ∂E/∂X23 = ∂O12·F22 + ∂O22·F12, ∂E/∂X33 = ∂O22·F22
    assert factors("x", 0, 1, 2, 0) == [((1, 1), (0, 1)), ((0, 1), (1, 1))]
    assert factors("x", 0, 2, 2, 0) == [((1, 1), (1, 1))]
    assert str(arithmetic("conv", x, kernel, wrt="x", index=(0, 1, 1, 0), dy=dy)) == (
        "conv: dx[0, 1, 1, 0]\n  filter 0: 4·1 + 3·2 + 2·3 + 1·4 = 20"
    )


def test_pooling_text_matches_lecture():
    """Lecture rows 001-24 and 002-29."""
    y = np.array(TABLES["s002_valid_8x8"], np.float32)[None, :, :, None]
    assert str(arithmetic("max_pool", y, 2, index=(0, 0, 0, 0))) == (
        "max_pool: y[0, 0, 0, 0]\n  max(-67, 23, 313, 343) = 343"
    )
    assert str(arithmetic("avg_pool", y, 2, index=(0, 3, 3, 0))) == (
        "avg_pool: y[0, 3, 3, 0]\n  (-367 - 296 - 35 + 76) / 4 = -155.5"
    )
    for op, name in [("max_pool", "s002_maxpool_4x4"), ("avg_pool", "s002_avgpool_4x4")]:
        table = [[arithmetic(op, y, 2, index=(0, i, j, 0)).total for j in range(4)] for i in range(4)]
        np.testing.assert_array_equal(table, TABLES[name])
    x, dy = np.array([7.0, 1, 7, 3])[None, :, None], np.array([2.0, 5])[None, :, None]
    first = arithmetic("max_pool", x, 3, stride=1, index=(0, 2, 0), wrt="x", dy=dy)
    assert str(first) == (
        "max_pool: dx[0, 2, 0]\n"
        "  max(7, 1, 7): dy[0,0,0] = 2 goes to x[0,0,0], the largest (first of ties)\n"
        "  max(1, 7, 3): dy[0,1,0] = 5 goes to x[0,2,0], the largest\n"
        "  total: 0 + 5 = 5"
    )
    split = arithmetic("max_pool", x, 3, stride=1, index=(0, 2, 0), wrt="x", dy=dy, ties="split")
    assert "dy[0,0,0] = 2 goes to x[0,0,0] and x[0,2,0], the largest, 1 to each" in str(split) and split.total == 6
    outside = arithmetic("max_pool", x, 1, stride=3, index=(0, 2, 0), wrt="x", dy=dy)
    assert str(outside) == "max_pool: dx[0, 2, 0]\n  total: no terms = 0"
    with_nan = arithmetic(
        "max_pool", np.array([1, np.nan, 2])[None, :, None], 3, index=(0, 1, 0), wrt="x", dy=dy[:, :1]
    )
    assert "max(1, nan, 2): dy[0,0,0] = 2 goes to x[0,1,0]" in str(with_nan) and with_nan.total == 2


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        (lambda x: arithmetic("tanh", x, index=(0, 1), wrt="x", dy=x), ["(1 - (-0.7616)²)·(-1) = -0.42"]),
        (lambda x: arithmetic("relu", x, index=(0, 0), wrt="x", dy=x), ["[3 > 0]·3 = 3"]),
        (lambda x: arithmetic("sigmoid", x, index=(0, 0)), ["1 / (1 + exp(-3)) = 0.9526"]),
        (lambda x: arithmetic("selu", x, index=(0, 1)), ["1.051·(1.673·exp(-1) - 1.673) = -1.111"]),
        (lambda x: arithmetic("hard_silu", x, index=(0, 1)), ["(-1)·min(max(-1 + 3, 0), 6) / 6 = -0.3333"]),
        (
            lambda x: arithmetic("hard_silu", x, index=(0, 1), wrt="x", dy=x),
            ["(0.3333 + (-1)·[-3 < -1 < 3] / 6)·(-1) = -0.1667"],
        ),
        (
            lambda x: arithmetic("gelu", x, index=(0, 1), wrt="x", dy=x, approximate=False),
            ["(0.1587 + (-1)·exp(-(-1)² / 2) / √(2π))·(-1) = 0.08332"],
        ),
        (lambda x: arithmetic("glu", x[:, :2], index=(0, 0)), ["3·1 / (1 + exp(1)) = 0.8068"]),
        (
            lambda x: arithmetic("glu", x[:, :2], index=(0, 1), wrt="x", dy=np.full((1, 1), 2.0)),
            ["3·0.2689·(1 - 0.2689)·2 = 1.18"],
        ),
        (lambda x: arithmetic("lp_pool", x[..., None], 2, index=(0, 0, 0)), ["(|3|^2 + |-1|^2)^(1/2) = 3.162"]),
        (
            lambda x: arithmetic("softmax_cross_entropy", x, np.array([1]), index=0),
            ["log-sum: log(exp(3) + exp(-1) + exp(0.5)) = 3.096", "3.096 - (-1) = 4.096"],
        ),
        (
            lambda x: arithmetic(
                "softmax_cross_entropy", x, np.array([1]), index=(0, 1), wrt="logits", dy=np.array([2.0])
            ),
            ["softmax: exp(-1) / (exp(3) + exp(-1) + exp(0.5)) = 0.01664", "(0.01664 - 1)·2 = -1.967"],
        ),
        (
            lambda x: arithmetic("dense", x, np.array([[2.0], [-1.0], [4.0]]), np.ones(1), index=(0, 0)),
            ["3·2 + (-1)·(-1) + 0.5·4 = 9", "total: 9 + 1 (bias) = 10"],
        ),
        (
            lambda x: arithmetic(
                "local_response_norm", x, index=(0, 1), wrt="x", dy=x, size=2, k=1.0, alpha=0.5, beta=1.0
            ),
            [
                "sum of squares near channel 0: 3² + (-1)² = 10",
                "sum of squares near channel 1: 3² + (-1)² + 0.5² = 10.25",
                "sum of squares near channel 2: (-1)² + 0.5² = 1.25",
                "sum over neighbors: 3·3/6^2 + (-1)·(-1)/6.125^2 + 0.5·0.5/1.625^2 = 0.3713",
                "-1 / 6.125^1 - 2·0.5·1·(-1)·0.3713 = 0.2081",
            ],
        ),
        (
            lambda x: arithmetic("layer_norm", x, np.ones(3), -np.ones(3), index=(0, 2)),
            [
                "mean: (3 - 1 + 0.5) / 3 = 0.8333",
                "var: ((3 - 0.8333)² + (-1 - 0.8333)² + (0.5 - 0.8333)²) / 3 = 2.722",
                "(0.5 - 0.8333) / √(2.722 + 1e-05)·1 - 1 = -1.202",
            ],
        ),
    ],
)
def test_formulas_have_expected_text(call, lines):
    _, *text_lines = str(call(np.array([[3.0, -1, 0.5]]))).split("\n")
    assert text_lines == [f"  {line}" for line in lines]


def test_dropout_text_of_kept_and_dropped():
    x, key = np.full((1, 50), 3.0), jax.random.key(0)
    y = ops.dropout(x, key, 0.5)[0]
    kept, dropped = int(np.argmax(y != 0)), int(np.argmax(y == 0))
    assert str(arithmetic("dropout", x, key, 0.5, index=(0, kept))) == (
        f"dropout: y[0, {kept}]\n  kept: 3 / (1 - 0.5) = 6"
    )
    assert str(arithmetic("dropout", x, key, 0.5, index=(0, dropped))) == f"dropout: y[0, {dropped}]\n  dropped: 0"
    dy = -x[:, :, None]
    result = arithmetic("spatial_dropout", x[:, :, None], key, 0.0, index=(0, 1, 0), wrt="x", dy=dy)
    assert str(result) == "spatial_dropout: dx[0, 1, 0]\n  kept: -3 / (1 - 0) = -3"
    assert result.terms[0].numbers[0].where == "dy[0,1,0]"


def test_glu_terms_read_both_halves():
    x = np.arange(12.0).reshape(1, 2, 6)
    (term,) = arithmetic("glu", x, index=(0, 1, 2)).terms
    assert [number.where for number in term.numbers] == ["x[0,1,2]", "x[0,1,5]"]
    (term,) = arithmetic("glu", x, wrt="x", dy=x[..., :3], index=(0, 1, 5)).terms
    assert [number.where for number in term.numbers] == ["x[0,1,2]", "x[0,1,5]", "dy[0,1,2]"]


def test_long_lines_wrap_between_terms(rng):
    x, kernel = rng.integers(-99, 99, (2, 1, 9, 9, 1)).astype(np.float32)[:, 0], np.ones((9, 9, 1, 1), np.float32)
    result = arithmetic("conv", x, kernel, index=(1, 0, 0, 0))
    first, *lines = str(result).split("\n")[1:]
    assert first.startswith("  channel 0: ") and len(lines) > 4
    assert all(len(line) <= 100 and line.startswith("    ") and not line.startswith("     ") for line in lines)
    joined = " ".join(line.strip() for line in [first, *lines])
    assert joined == result.groups[0].line and joined.count("·") == 81
