"""Lecture 002, pra-sâmi: edges in worked tables, strides, padding, true convolution, pooling.

One test per row, named after it. Rows tested elsewhere:

    002-01  style transfer, video classification        experiments/generative.py, sequence.py
    002-05  images of first-layer filters, deconvnet    tests/plot/test_diagnostics.py, explain/test_attribution.py
    002-15  learning Sobel's kernel from its results    experiments/edges.py
    002-31  Fashion-MNIST                               experiments/fashion_mnist.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d, correlate2d

from jaxconv import AvgPool, Conv, Dense, InputError, MaxPool, filters, flatten, ops, relu, serial, shapes
from jaxconv.explain import arithmetic, format_summary, summarize
from lecture_tables import TABLES, as_integers, compiled, image, integers, kernel, plane, table

EVERY_IMPL = pytest.mark.parametrize("impl", list(ops.LOWERINGS))
EDGE = image(table("s002_edge_image_10x10"))  # five columns of 25, five of 0
EDGE_RGB = np.concatenate([EDGE] * 3, axis=-1)
# With eight values of the green plane that were lost in print (E15, E16).
COLOR_IMAGE = image(table("s002_image_10x10x3"))
VERTICAL = filters.conv_kernel(table("s002_vertical_filter").astype(np.float32), 3)


def convolved(impl="auto", **options):
    """Convolve the image of row 002-13 with the vertical filter."""
    return as_integers(plane(compiled(ops.conv, COLOR_IMAGE, VERTICAL, impl=impl, **options)), impl)


def test_002_02_dense_layer_on_150_by_150_image():
    """150×150×3 has 67,500 values (22,500 pixels, E18); 1000 hidden units have 67,500,000 weights."""
    summary = summarize(serial(flatten, Dense(1000)), (150, 150, 3))
    assert summary.rows[0].shape == (67_500,) == (3 * 22_500,)
    assert summary.macs == 67_500_000 and summary.params == 67_501_000


def test_002_03_detector_peaks_at_pattern_position(rng):
    """The response of a detector is largest at the position of the pattern."""
    pattern = np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    for top, left in [(0, 0), (2, 5), (4, 1), (6, 7)]:
        x = np.zeros((9, 10))
        x[top : top + 3, left : left + 3] = pattern
        responses = plane(ops.conv(image(x), kernel(pattern)))
        assert np.unravel_index(responses.argmax(), responses.shape) == (top, left) and responses.max() == 9


@pytest.mark.parametrize(
    ("name", "weights", "total"),
    [
        ("BLUR", [[0, 1, 0], [1, 4, 1], [0, 1, 0]], 8),
        ("SHARPEN", [[0, -1, 0], [-1, 8, -1], [0, -1, 0]], 4),
        ("LAPLACIAN", [[0, -1, 0], [-1, 4, -1], [0, -1, 0]], 0),
        ("SOBEL_X", [[1, 0, -1], [2, 0, -2], [1, 0, -1]], 0),
    ],
)
def test_002_04_hand_crafted_kernels(name, weights, total):
    """Their entries sum to 8, 4, 0 and 0, so a constant image c becomes 8c, 4c, 0 and 0 (not normalized, E23)."""
    kernel = getattr(filters, name)
    np.testing.assert_array_equal(kernel, weights)
    constant = np.full((1, 5, 6, 3), 7, np.float32)
    assert kernel.sum() == total
    np.testing.assert_array_equal(filters.apply_filter(constant, kernel), total * constant)
    if total:
        np.testing.assert_array_equal(filters.apply_filter(constant, filters.normalized(kernel)), constant)


def test_002_06_two_linear_convolutions_equal_one(rng):
    """conv(conv(x, a), b) = conv(x, full_conv(a, b)); this does not hold with relu between them."""
    x, a, b = integers(rng, 2, 9, 8, 2), integers(rng, 3, 2, 2, 3), integers(rng, 2, 3, 3, 4)
    # The filters of a, one image per input channel, in true convolution with b.
    combined = np.moveaxis(ops.conv(np.moveaxis(a, 2, 0), b, padding="FULL", flip_kernel=True), 0, 2)
    assert combined.shape == (4, 4, 2, 4)
    for c, o in np.ndindex(2, 4):
        by_scipy = sum(convolve2d(a[:, :, c, m], b[:, :, m, o]) for m in range(3))
        np.testing.assert_allclose(combined[:, :, c, o], by_scipy, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(ops.conv(ops.conv(x, a), b), ops.conv(x, np.round(combined)))
    assert (ops.conv(relu(ops.conv(x, a)), b) != ops.conv(x, combined)).any()


def test_002_06_relu_keeps_one_edge_and_its_gradient():
    """A bright bar has an edge of either sign: they sum to 0, but not after relu, whose gradient is 0 for one."""
    bar = np.zeros((1, 6, 9, 1), np.float32)
    bar[:, :, 3:6] = 1
    y = ops.conv(bar, kernel(table("s002_vertical_filter")))
    assert plane(y).tolist() == [[0, -3, -3, 0, 3, 3, 0]] * 4
    assert y.sum() == 0 and relu(y).sum() == 24
    np.testing.assert_array_equal(jax.grad(lambda y: relu(y).sum())(y), y > 0)


@EVERY_IMPL
def test_002_07_edge_in_three_channels(impl):
    """Positions 4 and 5 have 75 + 75 + 75 = 225, the others 0. (In print, some rows are 6/4: E14.)"""
    y = as_integers(plane(compiled(ops.conv, EDGE_RGB, VERTICAL, impl=impl)), impl)
    np.testing.assert_array_equal(y, table("s002_edge_rgb_8x8"))
    assert y.tolist() == [[0, 0, 0, 225, 225, 0, 0, 0]] * 8


def test_002_07_edge_by_channel():
    """75 in red, green and blue. A 6/4 image, as printed in places, would have its edge one position later (E14)."""
    by_channel = filters.apply_filter(EDGE_RGB, filters.VERTICAL, padding="VALID")
    assert by_channel[0, 2, 4].tolist() == [75, 75, 75] and by_channel[0, 2, 1].tolist() == [0, 0, 0]
    wider = EDGE_RGB.copy()
    wider[:, :, 5] = 25
    assert plane(ops.conv(wider, VERTICAL))[0].tolist() == [0, 0, 0, 0, 225, 225, 0, 0]


def test_002_08_gray_edge():
    """25·3 = 75."""
    y = ops.conv(EDGE, kernel(table("s002_vertical_filter")))
    assert plane(y).tolist() == [[0, 0, 0, 75, 75, 0, 0, 0]] * 8


def test_002_09_eight_positions_along_each_axis():
    """10 − 3 + 1 = 8."""
    assert shapes.output_size(10, 3) == 8
    assert ops.conv(EDGE_RGB, VERTICAL).shape == (1, 8, 8, 1)


def test_002_10_stride_2_rounds_down():
    """(10 − 3)/2 + 1 = 4.5: "pick lower integer", 4×4; row 001-09: "not possible". ``exact`` selects either (E22)."""
    assert plane(ops.conv(EDGE_RGB, VERTICAL, stride=2)).tolist() == [[0, 0, 225, 0]] * 4
    assert shapes.output_size(10, 3, stride=2) == 4
    with pytest.raises(InputError, match=r"\(10 \+ 0 - 3\) / 2 \+ 1 = 4\.50 window positions is not an integer"):
        shapes.output_size(10, 3, stride=2, exact=True)


def test_002_11_filters_stack_to_channels():
    """8×8×K."""
    both_filters = jnp.concatenate([VERTICAL, filters.conv_kernel(filters.HORIZONTAL, 3)], axis=-1)
    y = ops.conv(EDGE_RGB, both_filters)
    assert y.shape == (1, 8, 8, 2)
    assert y[0, 5].tolist() == [[n, 0] for n in (0, 0, 0, 225, 225, 0, 0, 0)]


def test_002_12_odd_filters_need_no_asymmetric_padding():
    """Padding (nF − 1)/2 on both sides; an even filter has one more on one side."""
    assert [shapes.resolve_padding("SAME", 10, f) for f in (3, 5)] == [(1, 1), (2, 2)]
    assert [shapes.resolve_padding("SAME", 10, f) for f in (2, 4)] == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (
            {"kernel_size": 4, "padding": "SAME"},
            "conv1: SAME padding of an even window (4 pixels) adds one pixel more after the image",
        ),
        (
            {"kernel_size": (3, 2), "padding": "SAME_LOWER"},
            "SAME padding of an even window (2 pixels) adds one pixel more before the image",
        ),
        ({"kernel_size": 4, "padding": "SAME", "dilation": 2}, None),  # spans 7 pixels
        ({"kernel_size": 3, "padding": "SAME", "dilation": 3}, None),
        ({"kernel_size": 4}, None),
        ({"kernel_size": (1, 5), "padding": "SAME"}, None),
    ],
)
def test_002_12_even_filter_same_padding_warns(options, warning):
    summary = summarize(serial(Conv(3, **options), relu), (10, 9, 2))
    assert (warning or "") in summary.rows[0].warning and bool(summary.rows[0].warning) == bool(warning)
    assert (summary.rows[0].warning in format_summary(summary)) and not summary.rows[1].warning


@EVERY_IMPL
def test_002_13_valid_convolution_table(impl):
    """All 64 cells of the 8×8 table, of the image with distinct edges."""
    np.testing.assert_array_equal(convolved(impl), table("s002_valid_8x8"))


def test_002_13_first_cell_by_channel():
    """R = 3 + 3 + 102 − 98 − 206 − 252 = −448, G = −91, B = 472: together −67."""
    sum_terms = arithmetic("conv", COLOR_IMAGE, VERTICAL, index=(0, 0, 0, 0))
    assert [group.subtotal for group in sum_terms.groups] == [-448, -91, 472] and sum_terms.total == -67
    by_channel = filters.apply_filter(COLOR_IMAGE, filters.VERTICAL, padding="VALID")
    assert by_channel[0, 0, 0].tolist() == [-448, -91, 472]
    np.testing.assert_array_equal(by_channel.sum(axis=-1)[0], table("s002_valid_8x8"))


def test_002_14_horizontal_filter():
    """With image and filter transposed: two rows of 225."""
    horizontal = filters.conv_kernel(np.float32([[1, 1, 1], [0, 0, 0], [-1, -1, -1]]), 3)
    y = plane(ops.conv(EDGE_RGB.transpose(0, 2, 1, 3), horizontal))
    assert y.tolist() == [[n] * 8 for n in (0, 0, 0, 225, 225, 0, 0, 0)]
    np.testing.assert_array_equal(plane(ops.conv(EDGE_RGB, horizontal)), np.zeros((8, 8)))  # no such edge there


def test_002_16_shade_reversal():
    """From dark to light the edge is negative."""
    assert plane(ops.conv(EDGE_RGB[:, :, ::-1], VERTICAL)).tolist() == [[0, 0, 0, -225, -225, 0, 0, 0]] * 8


def test_002_17_edges_in_red_channel():
    """With zero weights for the other channels, the response is that of red alone."""
    red = plane(ops.conv(COLOR_IMAGE, VERTICAL.at[:, :, 1:].set(0)))
    np.testing.assert_array_equal(red, plane(ops.conv(COLOR_IMAGE[..., :1], VERTICAL[:, :, :1])))
    horizontal = filters.conv_kernel(filters.HORIZONTAL, 3).at[:, :, 1:].set(0)  # the filter of the slide
    assert plane(ops.conv(COLOR_IMAGE, horizontal))[0].tolist() == [-470, -483, -360, -301, -304, -375, -478, -442]


def test_002_18_image_shrinks_and_corners_count_less():
    """A 3×3 filter removes 2 pixels per layer: 10 pixels allow four layers, and a fifth raises."""
    x, weights, sizes = COLOR_IMAGE[..., :1], kernel(np.ones((3, 3))), []
    for _ in range(4):
        x = ops.conv(x, weights)
        sizes.append(x.shape[1:3])
    assert sizes == [(8, 8), (6, 6), (4, 4), (2, 2)]
    with pytest.raises(InputError, match=r"the window spans 3 pixels but the padded input has only 2"):
        ops.conv(x, weights)
    coverage = shapes.coverage(shapes.Window(3), (10, 10))
    assert (coverage[0, 0], coverage[0, 5], coverage[5, 5]) == (1, 3, 9)


@EVERY_IMPL
def test_002_19_zero_padding_table(impl):
    """The padded 10×10 table. In print, 25 of its 100 cells lack a sign or digits (E17)."""
    expected = table("s002_pad1_10x10")
    np.testing.assert_array_equal(convolved(impl, padding=1), expected)
    np.testing.assert_array_equal(expected[1:-1, 1:-1], table("s002_valid_8x8"))
    assert np.count_nonzero(expected != table("seed_pad1_10x10_as_printed")) == 25


def test_002_20_padding_keeps_size():
    """(10 − 3 + 2·1)/1 + 1 = 10."""
    assert shapes.output_size(10, 3, padding=1) == 10
    assert ops.conv(COLOR_IMAGE, VERTICAL, padding=1).shape == (1, 10, 10, 1)


def test_002_21_valid_and_same():
    """5×5 on 10×10 with padding 1 gives 8×8, which the lecture calls valid (E19). SAME is p = (nF − 1)/2."""
    weights = kernel(np.ones((5, 5)))
    sizes = {padding: ops.conv(EDGE, weights, padding=padding).shape[1:3] for padding in (1, 2, "VALID", "SAME")}
    assert sizes == {1: (8, 8), 2: (10, 10), "VALID": (6, 6), "SAME": (10, 10)}
    np.testing.assert_array_equal(ops.conv(EDGE, weights, padding="SAME"), ops.conv(EDGE, weights, padding=2))


@EVERY_IMPL
def test_002_22_convolution_mirrors_the_filter_on_both_axes(rng, impl):
    """[3 4 5; 1 0 2; −1 9 7] becomes [7 9 −1; 2 0 1; 5 4 3], and is then applied as a cross-correlation."""
    weights, mirrored = np.array(TABLES["s002_mirror"]["in"]), np.array(TABLES["s002_mirror"]["out"])
    x = integers(rng, 8, 9)

    def conv(x, weights, padding, flip=False):
        y = compiled(ops.conv, image(x), kernel(weights), padding=padding, flip_kernel=flip, impl=impl)
        return as_integers(plane(y), impl)

    np.testing.assert_array_equal(conv(x, weights, "FULL", flip=True), convolve2d(x, weights))
    np.testing.assert_array_equal(conv(x, mirrored, "FULL"), convolve2d(x, weights))
    # The response to a single bright pixel is the filter for convolution, and its mirror image for cross-correlation.
    spot = np.pad([[1.0]], 1)
    np.testing.assert_array_equal(conv(spot, weights, 1, flip=True), weights)
    np.testing.assert_array_equal(conv(spot, weights, 1), mirrored)


def test_002_23_only_convolution_is_associative(rng):
    """(a*b)*c = a*(b*c); the lecture states it for "such correlations" (E20)."""
    a, b, c = integers(rng, 6, 5), integers(rng, 3, 2), integers(rng, 2, 4)

    def full(x, weights, flip):
        return plane(ops.conv(image(x), kernel(weights), padding="FULL", flip_kernel=flip))

    np.testing.assert_array_equal(full(full(a, b, True), c, True), full(a, full(b, c, True), True))
    np.testing.assert_array_equal(full(full(a, b, True), c, True), convolve2d(convolve2d(a, b), c))
    assert (full(full(a, b, False), c, False) != full(a, full(b, c, False), False)).any()
    np.testing.assert_array_equal(full(full(a, b, False), c, False), correlate2d(correlate2d(a, b), c))


def test_002_24_convolution_layer_formula(rng):
    """Z1 = a0 · W1 + b1 and a1 = relu(Z1)."""
    model = serial(Conv(4, 3), relu)
    a0, w1, b1 = integers(rng, 2, 6, 5, 3), integers(rng, 3, 3, 3, 4), integers(rng, 4)
    patches = np.lib.stride_tricks.sliding_window_view(a0, (3, 3), axis=(1, 2))  # n, h, w, c, kh, kw
    z1 = np.einsum("nhwcij,ijco->nhwo", patches, w1) + b1
    np.testing.assert_array_equal(ops.conv(a0, w1, b1), z1)
    a1, _ = model.apply({"conv1": {"kernel": w1, "bias": b1}}, {}, a0)
    np.testing.assert_array_equal(a1, np.where(z1 > 0, z1, 0))


def test_002_25_number_of_parameters():
    """A 3×3×3 filter and its bias have 28 parameters, ten have 280 (not 280 filters, E21), for any image size."""
    assert summarize(Conv(1, 3), (10, 10, 3)).params == 28
    assert {summarize(Conv(10, 3), (n, n + 1, 3)).params for n in (3, 10, 150, 1000)} == {280}


@pytest.mark.frameworks
def test_002_26_layouts_match_pytorch(rng):
    """Weights have rank 4, activations are m × nH × nW × nC; in PyTorch the filter index comes first."""
    torch = pytest.importorskip("torch")
    x, weights = integers(rng, 2, 7, 6, 3), integers(rng, 3, 2, 3, 4)
    y = ops.conv(x, weights)
    assert y.shape == (2, 5, 5, 4) and weights.ndim == 4
    torch_y = torch.conv2d(torch.tensor(np.moveaxis(x, -1, 1)), torch.tensor(weights.transpose(3, 2, 0, 1)))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(y), -1, 1), torch_y.numpy())


def test_002_27_shapes_of_convolutional_network():
    """The figures of the slides are lost. A typical network of that kind, which downsamples by strides alone."""
    model = serial(Conv(10, 3), relu, Conv(20, 5, stride=2), relu, Conv(40, 5, stride=2), relu, flatten, Dense(1))
    rows = [row for row in summarize(model, (39, 39, 3)).rows if row.kind in ("conv", "flatten", "dense")]
    assert [row.shape for row in rows] == [(37, 37, 10), (17, 17, 20), (7, 7, 40), (1960,), (1,)]
    sizes = [(39 - 3) // 1 + 1, (37 - 5) // 2 + 1, (17 - 5) // 2 + 1]
    assert sizes == [37, 17, 7] and 7 * 7 * 40 == 1960


def test_002_28_max_pool_of_edge_image():
    """Mode max, pool 2, stride 2: 8×8 becomes 4×4."""
    y = ops.max_pool(image(table("s002_edge_rgb_8x8")), 2, stride=2)
    np.testing.assert_array_equal(plane(y), table("s002_edge_pool_4x4"))
    assert plane(y).tolist() == [[0, 225, 225, 0]] * 4


@pytest.mark.parametrize(("pool", "name"), [(ops.max_pool, "maxpool"), (ops.avg_pool, "avgpool")])
def test_002_29_pooling_tables(pool, name):
    """All 16 cells of the 4×4 tables of max and average pooling."""
    np.testing.assert_array_equal(plane(pool(image(convolved()), 2)), table(f"s002_{name}_4x4"))


def test_002_30_pooling_has_no_parameters():
    """Mode, pool and stride; a pooling layer has no parameters."""
    for make in (MaxPool, AvgPool):
        pooling = make(3, stride=2)
        assert jax.tree.leaves(pooling.init(jax.random.key(0), (8, 9, 4))) == []
        row = summarize(pooling, (8, 9, 4)).rows[0]
        assert row.shape == (3, 4, 4) and row.params == 0
