"""The sum behind one number: it comes to what the op gives, it has the terms it should, it reads as in the lectures."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES

from jaxconv import InputError, ops, shapes
from jaxconv.explain import arithmetic

TABLES = json.loads((Path(__file__).parent / "seeds" / "worked_tables.json").read_text())
IMAGE = np.array(TABLES["s002_image_10x10x3"], np.float32)[None]
VERTICAL = np.repeat(np.array(TABLES["s002_vertical_filter"], np.float32)[:, :, None, None], 3, axis=2)


def some(rng, shape):
    """The first and the last index, where windows meet borders, and two between."""
    yield from [(0,) * len(shape), tuple(n - 1 for n in shape)]
    yield from (tuple(int(rng.integers(n)) for n in shape) for _ in range(2))


def holds(rng, name, arrays, *fixed, **options):
    """Totals equal the op and jax's own gradients, for the value and for every array in ``arrays``."""

    @jax.jit
    def value_and_gradients(dy, *values):
        y, vjp = jax.vjp(lambda *values: getattr(ops, name)(*values, *fixed, **options), *values)
        return (y, *vjp(dy.reshape(y.shape)))

    values = list(map(jnp.asarray, arrays.values()))
    shape = jax.eval_shape(lambda: getattr(ops, name)(*values, *fixed, **options)).shape
    dy = rng.normal(size=shape)
    y, *gradients = map(np.asarray, value_and_gradients(jnp.asarray(dy), *values))
    asked = [("value", y, None), *zip(arrays, gradients, [dy] * len(gradients), strict=True)]
    for of, wanted, given in asked:
        for at in some(rng, wanted.shape):
            got = arithmetic(name, *values, *fixed, at=at, of=of, dy=given, **options)
            np.testing.assert_allclose(got.total, wanted[at], rtol=1e-12, atol=1e-13, err_msg=str(got))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_convolution_comes_to_what_the_op_and_jax_give(x64, rng, case):
    x, kernel = case.arrays()
    holds(rng, "conv", {"x": x, "kernel": kernel, "bias": rng.normal(size=kernel.shape[-1])}, **case.options)


@pytest.mark.parametrize("pad_mode", ["circular", "reflect", "replicate", "symmetric"])
def test_padding_that_repeats_pixels(x64, rng, pad_mode):
    arrays = {"x": rng.normal(size=(2, 5, 6, 2)), "kernel": rng.normal(size=(3, 2, 2, 3))}
    holds(rng, "conv", arrays, stride=(2, 1), padding=((2, 1), (0, 2)), pad_mode=pad_mode)


def test_flipped_convolution(x64, rng):
    arrays = {"x": rng.normal(size=(1, 6, 5, 2)), "kernel": rng.normal(size=(3, 2, 2, 3))}
    holds(rng, "conv", arrays, padding="SAME", dilation=(1, 2), flip=True)


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 3, 4, 2), (3, 2, 2, 3), {}),
        ((1, 3, 4, 2), (3, 2, 2, 3), {"stride": (2, 3), "padding": ((1, 0), (0, 1)), "output_padding": (1, 2)}),
        ((1, 4, 3, 4), (2, 3, 2, 6), {"stride": 2, "padding": "SAME", "groups": 2}),
        ((1, 4, 3, 2), (3, 2, 2, 2), {"dilation": (2, 3), "padding": 1}),
        ((2, 5, 3), (2, 3, 2), {"stride": 3}),
        ((1, 2, 3, 2, 1), (2, 1, 2, 1, 2), {"stride": (1, 2, 2)}),
    ],
    ids=["plain", "cut and kept", "groups", "dilation", "1-D with gaps", "3-D"],
)
def test_transposed_convolution(x64, rng, x, kernel, options):
    arrays = {"x": rng.normal(size=x), "kernel": rng.normal(size=kernel), "bias": rng.normal(size=kernel[-1])}
    holds(rng, "conv_transpose", arrays, **options)


def test_dense_and_flatten(x64, rng):
    arrays = {"x": rng.normal(size=(3, 5)), "kernel": rng.normal(size=(5, 2)), "bias": rng.normal(size=2)}
    holds(rng, "dense", arrays)
    holds(rng, "flatten", {"x": rng.normal(size=(2, 3, 4, 2))})


POOLS = {
    "overlap": ((2, 7, 6, 2), (3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 1))}),
    "dilated": ((1, 8, 9, 1), 2, {"stride": 1, "dilation": (2, 3)}),
    "hangs over": ((1, 8, 5, 2), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "1-D": ((2, 9, 3), 3, {}),
    "3-D": ((1, 4, 3, 6, 2), 2, {"padding": "SAME"}),
}


@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "lp_pool"])
@pytest.mark.parametrize("case", POOLS)
def test_pooling(x64, rng, op, case):
    shape, window, options = POOLS[case]
    # Whole numbers from a small range, so that there are ties; for the norms not, which have kinks at 0.
    x = rng.normal(size=shape) if op == "lp_pool" else rng.integers(-3, 3, size=shape).astype(float)
    holds(rng, op, {"x": x}, window, **options)


@pytest.mark.parametrize("case", ["overlap", "hangs over"])
@pytest.mark.parametrize(
    ("op", "more"),
    [("max_pool", {"ties": "split"}), ("avg_pool", {"count_include_pad": True}), ("lp_pool", {"p": 3})],
)
def test_the_other_rules_of_pooling(x64, rng, op, more, case):
    shape, window, options = POOLS[case]
    x = rng.normal(size=shape) if op == "lp_pool" else rng.integers(-3, 3, size=shape).astype(float)
    holds(rng, op, {"x": x}, window, **options, **more)


@pytest.mark.parametrize("op", ["global_max_pool", "global_avg_pool", "adaptive_max_pool", "adaptive_avg_pool"])
def test_pooling_to_a_size(x64, rng, op):
    x = rng.integers(-2, 3, size=(2, 5, 7, 2)).astype(float)
    for out in [(2, 3), (7, 1)] if op.startswith("adaptive") else [None]:
        holds(rng, op, {"x": x}, *([] if out is None else [out]))


def test_a_window_of_zeros_has_the_slope_that_the_op_gives_it(x64, rng):
    holds(rng, "lp_pool", {"x": np.zeros((1, 4, 1))}, 2, p=1.5)
    holds(rng, "lp_pool", {"x": np.array([0, 2e-200, 0, -1e200]).reshape(1, 4, 1)}, 2, p=3)


@pytest.mark.parametrize("op", ["layer_norm", "group_norm", "instance_norm", "batch_norm", "rms_norm"])
def test_normalisation(x64, rng, op):
    arrays = {"x": rng.normal(size=(2, 3, 4, 6)), "scale": rng.normal(size=6), "bias": rng.normal(size=6)}
    options = {"groups": 2} if op == "group_norm" else {}
    if op == "rms_norm":
        del arrays["bias"]
    holds(rng, op, arrays, eps=0.1, **options)
    if op == "batch_norm":
        holds(rng, op, arrays, rng.normal(size=6), rng.uniform(1, 2, size=6))
    else:
        holds(rng, op, {"x": arrays["x"]}, **options)


@pytest.mark.parametrize("size", [1, 4, 5, 99])
def test_local_response_norm(x64, rng, size):
    x = jnp.asarray(rng.normal(size=(1, 2, 3, 6)))
    y = np.asarray(jax.jit(lambda x: ops.local_response_norm(x, size=size, alpha=0.5))(x))
    for at in some(rng, x.shape):
        total = arithmetic("local_response_norm", x, at=at, size=size, alpha=0.5).total
        np.testing.assert_allclose(total, y[at], rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "options"),
    [
        *((name, {}) for name in ("relu", "relu6", "hard_tanh", "sigmoid", "tanh", "softplus", "silu", "gelu")),
        ("leaky_relu", {"negative_slope": 0.2}),
        ("elu", {"alpha": 0.5}),
    ],
)
def test_activations_also_at_their_kinks_and_far_out(x64, op, options):
    x = np.array([-800.0, -1, -0.3, 0, 0.7, 1, 6, 800])
    f = jax.jit(lambda x, dy: jax.vjp(lambda x: getattr(ops, op)(x, **options), x)[1](dy)[0])
    y, dx = map(np.asarray, (getattr(ops, op)(jnp.asarray(x), **options), f(x, np.arange(1.0, 9))))
    for i in range(len(x)):
        np.testing.assert_allclose(arithmetic(op, x, at=i, **options).total, y[i], rtol=1e-11, atol=1e-300)
        gradient = arithmetic(op, x, at=i, of="x", dy=np.arange(1.0, 9), **options)
        np.testing.assert_allclose(gradient.total, dx[i], rtol=1e-11, atol=1e-300, err_msg=str(gradient))


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(x64, rng, op, axis):
    holds(rng, op, {"x": 5 * rng.normal(size=(3, 4, 2))}, axis=axis)


def test_the_loss_for_classes_and_for_probabilities(x64, rng):
    logits = 20 * rng.normal(size=(3, 4))
    holds(rng, "softmax_cross_entropy", {"logits": logits}, jnp.array([2, 0, 3]))
    holds(rng, "softmax_cross_entropy", {"logits": logits}, jnp.asarray(rng.uniform(size=(3, 4))))


def test_75_products_and_a_bias(rng):
    """Lecture row 001-05."""
    x, kernel = (rng.normal(size=size).astype(np.float32) for size in [(1, 32, 32, 3), (5, 5, 3, 2)])
    got = arithmetic("conv", x, kernel, np.array([1, 2], np.float32), at=(0, 27, 3, 1))
    assert len(got.terms) == 75 and [len(group.terms) for group in got.groups] == [25, 25, 25] and got.bias == 2
    assert [group.label for group in got.groups] == ["channel 0", "channel 1", "channel 2"]
    # The 8th tap of channel 1 is (1, 2), on the pixel one below and two to the right.
    pixel, tap = got.groups[1].terms[7].numbers
    assert (pixel.where, tap.where) == ("x[0,28,5,1]", "kernel[1,2,1,1]")
    assert (pixel.value, tap.value) == (x[0, 28, 5, 1], kernel[1, 2, 1, 1])
    assert not any(term.padding for term in got.terms)


def test_corners_are_used_least():
    """Lecture row 001-23: pixel (1, 1) feeds 1 output, (2, 2) 4 and (3, 3) 9; and the coverage of any other window."""
    x, kernel, dy = np.ones((1, 7, 7, 1)), np.ones((3, 3, 1, 1)), np.ones((1, 5, 5, 1))
    used = [len(arithmetic("conv", x, kernel, of="x", dy=dy, at=(0, i, i, 0)).terms) for i in range(4)]
    assert used == [1, 4, 9, 9]
    counts = shapes.coverage(shapes.Window((3, 3), 2, 1, 2), (7, 7))
    options = {"stride": 2, "padding": 1, "dilation": 2}
    dy = np.ones(ops.conv(x, kernel, **options).shape)
    for i, j in [(0, 0), (1, 3), (3, 2), (6, 5)]:
        assert len(arithmetic("conv", x, kernel, of="x", dy=dy, at=(0, i, j, 0), **options).terms) == counts[i, j]


def test_padding_is_written_and_flagged():
    x, kernel = np.arange(1.0, 4)[None, :, None], np.array([5.0, 6, 7])[:, None, None]
    got = arithmetic("conv", x, kernel, at=(0, 0, 0), padding="SAME")
    assert str(got) == "conv: y[0, 0, 0]\n  channel 0: 0·5 + 1·6 + 2·7 = 20"
    assert [term.padding for term in got.terms] == [True, False, False]
    assert got.terms[0].numbers[0].where == "outside"
    got = arithmetic("conv", x, kernel, at=(0, 0, 0), padding="SAME", pad_mode="circular")
    assert str(got) == "conv: y[0, 0, 0]\n  channel 0: 3·5 + 1·6 + 2·7 = 35"
    assert got.terms[0].padding and got.terms[0].numbers[0].where == "x[0,2,0]"
    got = arithmetic("conv", x, kernel, of="kernel", dy=x, at=(2, 0, 0), padding="SAME")
    assert str(got) == "conv: d_kernel[2, 0, 0]\n  example 0: 2·1 + 3·2 + 0·3 = 8"
    assert [term.padding for term in got.terms] == [False, False, True]
    # In two dimensions one of them is enough to be on the padding.
    image = np.arange(1.0, 5).reshape(1, 2, 2, 1)
    for pad_mode in ("zeros", "replicate"):
        options = {"padding": ((1, 0), (0, 0)), "pad_mode": pad_mode}
        got = arithmetic("conv", image, np.ones((2, 2, 1, 1)), at=(0, 0, 0, 0), **options)
        assert [term.padding for term in got.terms] == [True, True, False, False]


def test_the_image_and_the_vertical_filter():
    """Lecture row 002-13: R = −448, G = −91, B = 472, total −67, and the whole table."""
    got = arithmetic(ops.conv, IMAGE, VERTICAL, at=(0, 0, 0, 0))
    assert [group.subtotal for group in got.groups] == [-448, -91, 472]
    assert str(got) == (
        "conv: y[0, 0, 0, 0]\n"
        "  channel 0: 3·1 + 3·0 + 98·(-1) + 3·1 + 170·0 + 206·(-1) + 102·1 + 220·0 + 252·(-1) = -448\n"
        "  channel 1: 51·1 + 51·0 + 163·(-1) + 51·1 + 178·0 + 196·(-1) + 169·1 + 170·0 + 3·(-1) = -91\n"
        "  channel 2: 252·1 + 252·0 + 207·(-1) + 252·1 + 147·0 + 10·(-1) + 203·1 + 13·0 + 18·(-1) = 472\n"
        "  total: -448 - 91 + 472 = -67"
    )
    biased = arithmetic("conv", IMAGE, VERTICAL, np.ones(1, np.float32), at=(0, 0, 0, 0))
    assert str(biased).endswith("  total: -448 - 91 + 472 + 1 (bias) = -66")
    table = [[arithmetic("conv", IMAGE, VERTICAL, at=(0, i, j, 0)).total for j in range(8)] for i in range(8)]
    np.testing.assert_array_equal(table, TABLES["s002_valid_8x8"])


def test_the_edge():
    """Lecture row 002-07: each channel gives 75, together 225."""
    edge = np.repeat(np.array(TABLES["s002_edge_image_10x10"], np.float32)[None, :, :, None], 3, axis=3)
    got = arithmetic("conv", edge, VERTICAL, at=(0, 2, 3, 0))
    ones = "25·1 + 25·0 + 0·(-1) + 25·1 + 25·0 + 0·(-1) + 25·1 + 25·0 + 0·(-1) = 75"
    assert [group.line for group in got.groups] == [f"channel {c}: {ones}" for c in range(3)]
    assert str(got).endswith("  total: 75 + 75 + 75 = 225")


def test_the_padded_digit():
    """Lecture row 004-06: the first two windows as they are written there, and the whole table."""
    digit = np.array(TABLES["s004_digit"], np.float32)[None, :, :, None]
    kernel = np.array(TABLES["s004_filter"], np.float32)[:, :, None, None]

    def at(i, j):
        return arithmetic("conv", digit, kernel, np.zeros(1, np.float32), at=(0, i, j, 0), padding=1)

    assert str(at(0, 0)) == (
        "conv: y[0, 0, 0, 0]\n"
        "  channel 0: 0·(-1) + 0·(-1) + 0·(-1) + 0·1 + (-1)·1 + 1·1 + 0·(-1) + (-1)·(-1) + 1·(-1) = 0\n"
        "  total: 0 + 0 (bias) = 0"
    )
    assert at(0, 1).groups[0].line.endswith("(-1)·1 + 1·1 + (-1)·1 + (-1)·(-1) + 1·(-1) + (-1)·(-1) = 0")
    np.testing.assert_array_equal([[at(i, j).total for j in range(5)] for i in range(5)], TABLES["s004_out"])


def test_the_lines_of_backpropagation():
    """Lecture rows 001-21 and 001-22, with ∂E/∂X23 and ∂E/∂X33 as they should be."""
    x, kernel = np.arange(1.0, 10).reshape(1, 3, 3, 1), np.arange(1.0, 5).reshape(2, 2, 1, 1)
    dy = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)

    def factors(of, *at):
        terms = arithmetic("conv", x, kernel, of=of, at=at, dy=dy).terms
        return [
            tuple(number.at[1:3] if number.of != "kernel" else number.at[:2] for number in t.numbers) for t in terms
        ]

    # ∂E/∂F12 = ∂O11·X12 + ∂O12·X13 + ∂O21·X22 + ∂O22·X23
    assert factors("kernel", 0, 1, 0, 0) == [((0, 1), (0, 0)), ((0, 2), (0, 1)), ((1, 1), (1, 0)), ((1, 2), (1, 1))]
    # ∂E/∂X23 = ∂O12·F22 + ∂O22·F12, ∂E/∂X33 = ∂O22·F22
    assert factors("x", 0, 1, 2, 0) == [((1, 1), (0, 1)), ((0, 1), (1, 1))]
    assert factors("x", 0, 2, 2, 0) == [((1, 1), (1, 1))]
    assert str(arithmetic("conv", x, kernel, of="x", at=(0, 1, 1, 0), dy=dy)) == (
        "conv: dx[0, 1, 1, 0]\n  filter 0: 4·1 + 3·2 + 2·3 + 1·4 = 20"
    )


def test_who_wins_a_window():
    """Lecture rows 001-24 and 002-29."""
    y = np.array(TABLES["s002_valid_8x8"], np.float32)[None, :, :, None]
    assert str(arithmetic("max_pool", y, 2, at=(0, 0, 0, 0))) == (
        "max_pool: y[0, 0, 0, 0]\n  max(-67, 23, 313, 343) = 343"
    )
    assert str(arithmetic("avg_pool", y, 2, at=(0, 3, 3, 0))) == (
        "avg_pool: y[0, 3, 3, 0]\n  (-367 - 296 - 35 + 76) / 4 = -155.5"
    )
    for op, name in [("max_pool", "s002_maxpool_4x4"), ("avg_pool", "s002_avgpool_4x4")]:
        table = [[arithmetic(op, y, 2, at=(0, i, j, 0)).total for j in range(4)] for i in range(4)]
        np.testing.assert_array_equal(table, TABLES[name])
    x, dy = np.array([7.0, 1, 7, 3])[None, :, None], np.array([2.0, 5])[None, :, None]
    first = arithmetic("max_pool", x, 3, stride=1, at=(0, 2, 0), of="x", dy=dy)
    assert str(first) == (
        "max_pool: dx[0, 2, 0]\n"
        "  max(7, 1, 7): dy[0,0,0] = 2 goes to x[0,0,0], the largest (first of ties)\n"
        "  max(1, 7, 3): dy[0,1,0] = 5 goes to x[0,2,0], the largest\n"
        "  total: 0 + 5 = 5"
    )
    split = arithmetic("max_pool", x, 3, stride=1, at=(0, 2, 0), of="x", dy=dy, ties="split")
    assert "dy[0,0,0] = 2 goes to x[0,0,0] and x[0,2,0], the largest, 1 to each" in str(split) and split.total == 6
    unseen = arithmetic("max_pool", x, 1, stride=3, at=(0, 2, 0), of="x", dy=dy)
    assert str(unseen) == "max_pool: dx[0, 2, 0]\n  total: nothing meets it = 0"
    hole = arithmetic("max_pool", np.array([1, np.nan, 2])[None, :, None], 3, at=(0, 1, 0), of="x", dy=dy[:, :1])
    assert "max(1, nan, 2): dy[0,0,0] = 2 goes to x[0,1,0]" in str(hole) and hole.total == 2


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        (lambda x: arithmetic("tanh", x, at=(0, 1), of="x", dy=x), ["(1 - (-0.7616)²)·(-1) = -0.42"]),
        (lambda x: arithmetic("relu", x, at=(0, 0), of="x", dy=x), ["[3 > 0]·3 = 3"]),
        (lambda x: arithmetic("sigmoid", x, at=(0, 0)), ["1 / (1 + exp(-3)) = 0.9526"]),
        (lambda x: arithmetic("lp_pool", x[..., None], 2, at=(0, 0, 0)), ["(|3|^2 + |-1|^2)^(1/2) = 3.162"]),
        (
            lambda x: arithmetic("softmax_cross_entropy", x, np.array([1]), at=0),
            ["log-sum: log(exp(3) + exp(-1) + exp(0.5)) = 3.096", "3.096 - (-1) = 4.096"],
        ),
        (
            lambda x: arithmetic("softmax_cross_entropy", x, np.array([1]), at=(0, 1), of="logits", dy=np.array([2.0])),
            ["softmax: exp(-1) / (exp(3) + exp(-1) + exp(0.5)) = 0.01664", "(0.01664 - 1)·2 = -1.967"],
        ),
        (
            lambda x: arithmetic("dense", x, np.array([[2.0], [-1.0], [4.0]]), np.ones(1), at=(0, 0)),
            ["3·2 + (-1)·(-1) + 0.5·4 = 9", "total: 9 + 1 (bias) = 10"],
        ),
        (
            lambda x: arithmetic("layer_norm", x, np.ones(3), -np.ones(3), at=(0, 2)),
            [
                "mean: (3 - 1 + 0.5) / 3 = 0.8333",
                "var: ((3 - 0.8333)² + (-1 - 0.8333)² + (0.5 - 0.8333)²) / 3 = 2.722",
                "(0.5 - 0.8333) / √(2.722 + 1e-05)·1 - 1 = -1.202",
            ],
        ),
    ],
)
def test_formulas_read_as_formulas(call, lines):
    _, *rest = str(call(np.array([[3.0, -1, 0.5]]))).split("\n")
    assert rest == [f"  {line}" for line in lines]


def test_long_lines_wrap_between_terms(rng):
    x, kernel = rng.integers(-99, 99, (2, 1, 9, 9, 1)).astype(np.float32)[:, 0], np.ones((9, 9, 1, 1), np.float32)
    got = arithmetic("conv", x, kernel, at=(1, 0, 0, 0))
    first, *lines = str(got).split("\n")[1:]
    assert first.startswith("  channel 0: ") and len(lines) > 4
    assert all(len(line) <= 100 and line.startswith("    ") and not line.startswith("     ") for line in lines)
    whole = " ".join(line.strip() for line in [first, *lines])
    assert whole == got.groups[0].line and whole.count("·") == 81


X, K = np.zeros((2, 6, 6, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arithmetic("convv", X, K, at=0), r"unknown op 'convv': did you mean 'conv'\? Known: conv, conv_tr"),
        (lambda: arithmetic(np.tanh, X, at=0), r"unknown op \"<ufunc 'tanh'>\": .*Known: conv, "),
        (
            lambda: arithmetic("conv", X, K, at=(0, 0, 0, 0), of="kernl"),
            r"^conv: unknown of 'kernl': did you mean 'kern",
        ),
        (lambda: arithmetic("max_pool", X, 2, at=0, of="kernel"), r"^max_pool: unknown of 'kernel': Known: value, x$"),
        (
            lambda: arithmetic("conv", X, K, at=(0, 4, 0, 0)),
            r"^conv: at=\(0, 4, 0, 0\) is no index of the output, whose shape is \(2, 4, 4, 4\)$",
        ),
        (lambda: arithmetic("conv", X, K, at=(0, -1, 0, 0)), r"^conv: at=\(0, -1, 0, 0\) is no index of the output"),
        (lambda: arithmetic("conv", X, K, at=0), r"^conv: at=0 is no index of the output"),
        (
            lambda: arithmetic("conv", X, K, at=(0, 0, 3, 0), of="kernel", dy=np.zeros((2, 4, 4, 4))),
            r"^conv: at=\(0, 0, 3, 0\) is no index of kernel, whose shape is \(3, 3, 3, 4\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, at=(0, 0, 0, 0), of="kernel"),
            r"^conv: of='kernel' needs dy, the gradient of the output, of shape \(2, 4, 4, 4\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, at=(0, 0, 0, 0), of="x", dy=X),
            r"^conv: dy \(2, 6, 6, 3\) should be \(2, 4, 4, 4\), the shape of the op's output$",
        ),
        (lambda: arithmetic("conv", X, K, at=(0, 0, 0, 0), dy=X), r"^conv: dy is for a gradient; say which, of='x'$"),
        (
            lambda: arithmetic("conv", X, K, at=0, of="bias", dy=np.zeros((2, 4, 4, 4))),
            r"^conv: there is no bias to take the gradient of; give one$",
        ),
        (lambda: arithmetic("conv", X, K[..., :2, :], at=0), r"^conv: x has 3 channels but kernel"),
        (lambda: arithmetic("conv", X, K, at=0, padding="SAMEE"), r"^conv: unknown padding 'SAMEE'"),
        (lambda: arithmetic("conv", X.astype(np.uint8), K, at=0), r"^conv: x is uint8; convert it first"),
        (
            lambda: arithmetic("softmax", X, at=(0,) * 4, where=X > 0),
            r"^softmax: arithmetic has no words for .* unexpected keyword argument 'where'; leave it out$",
        ),
        (
            lambda: arithmetic("softmax", X, at=(0,) * 4, axis=(0, 1)),
            r"^softmax: arithmetic is for one axis, not \(0, 1",
        ),
        (
            lambda: arithmetic("softmax_cross_entropy", X[0, 0], np.full(6, 3), at=0),
            r"^softmax_cross_entropy: label 3 is none of the 3 classes of logits$",
        ),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_how_a_sum_is_computed_does_not_change_it():
    assert arithmetic("conv", X, K, at=(0, 0, 0, 0), impl="fft", precision="highest").total == 0
