"""Lecture 003, Shah & Ghosh: computation of convolutions, edges and boxes, speech and text, pooling, and residuals.

One test per row, named after it. Rows tested elsewhere, in part or completely:

    003-09  patterns that activate a layer         tests/explain/test_feature_visualization.py
    003-10  the audio front-end (mel bands)        tests/experiments/test_audio.py, experiments/sequence.py
    003-16  robustness to a shift by one pixel     experiments/pooling.py, translation.py
    003-17  stride instead of pooling              experiments/pooling.py
    003-20  residual networks                      tests/models/test_resnets.py, experiments/cifar10.py
    003-22  vanishing gradients in plain networks  tests/explain/test_diagnostics.py, experiments/residual.py
    003-23  filters of AlexNet                     tests/explain/test_weights.py; its streams are here
    003-24  dead filters                           tests/explain/test_channel_statistics.py, train/test_dead_layers.py
    003-25  correlated feature maps                tests/explain/test_channel_statistics.py
    003-26  occlusion                              tests/explain/test_attribution.py
    003-27  the notebook                           tests/test_notebooks.py; PyTorch's layouts are here
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_reference as reference
from jaxconv import Conv, Dense, filters, flatten, models, ops, relu, residual, serial, shapes
from jaxconv.explain import summarize
from lecture_tables import TABLES, as_integers, compiled, image, integers, kernel, plane, table

EVERY_IMPL = pytest.mark.parametrize("impl", list(ops.LOWERINGS))
NO_PADDING, ONE = ((0, 0), (0, 0)), (1, 1)


def test_003_01_convolution_as_three_loops(rng):
    """The three steps of the lecture, as three loops."""
    x, weights = integers(rng, 1, 5, 6, 3), integers(rng, 2, 3, 3, 4)
    y = np.zeros((1, 4, 4, 4))
    for o in range(4):  # 3: repeat, each with a different kernel
        for position in np.ndindex(4, 4):  # 2: slide
            (i, j), window = position, np.s_[position[0] : position[0] + 2, position[1] : position[1] + 3]
            y[0, i, j, o] = np.dot(x[0][window].ravel(), weights[..., o].ravel())  # 1: overlay, and dot product
    np.testing.assert_array_equal(compiled(ops.conv, x, weights, impl="explicit"), y)


@EVERY_IMPL
@pytest.mark.parametrize("size", [(9,), (4, 5, 3)], ids=["time", "volume"])
def test_003_02_1d_and_3d_convolution_sum_over_channels(rng, impl, size):
    """In 1-D and 3-D, the output is the sum of the convolutions of single channels."""
    x, weights = integers(rng, 2, *size, 3), integers(rng, *[2] * len(size), 3, 2)
    y = as_integers(compiled(ops.conv, x, weights, impl=impl), impl)
    no_padding, ones = ((0, 0),) * len(size), (1,) * len(size)
    channels = [
        reference.conv(x[..., c : c + 1], weights[..., c : c + 1, :], ones, no_padding, ones, 1) for c in range(3)
    ]
    np.testing.assert_array_equal(y, sum(channels))


@EVERY_IMPL
def test_003_03_binary_5_by_5_table(impl):
    """The first value is 4. (The printed image is damaged, E24.)"""
    y = compiled(ops.conv, image(table("s003_image")), kernel(table("s003_kernel")), impl=impl)
    assert as_integers(plane(y), impl).tolist() == table("s003_out").tolist() == [[4, 3, 4], [2, 4, 3], [2, 3, 4]]


def test_003_04_three_channels_add_up(rng):
    """The output of three channels is the sum of those of single channels."""
    x, weights = integers(rng, 1, 6, 5, 3), integers(rng, 3, 3, 3, 2)
    by_channel = [ops.conv(x[..., c : c + 1], weights[:, :, c : c + 1]) for c in range(3)]
    np.testing.assert_array_equal(ops.conv(x, weights), sum(by_channel))


# The animations of https://github.com/vdumoulin/conv_arithmetic: input, kernel, stride, padding, dilation, output.
CONVOLUTIONS = {
    "no padding, no strides": (4, 3, 1, 0, 1, 2),
    "arbitrary padding, no strides": (5, 4, 1, 2, 1, 6),
    "half padding, no strides": (5, 3, 1, 1, 1, 5),
    "full padding, no strides": (5, 3, 1, 2, 1, 7),
    "no padding, strides": (5, 3, 2, 0, 1, 2),
    "padding, strides": (5, 3, 2, 1, 1, 3),
    "padding, strides (odd)": (6, 3, 2, 1, 1, 3),
    "dilation": (7, 3, 1, 0, 2, 3),
}
NAMES = {"half padding, no strides": "SAME", "full padding, no strides": "FULL", "no padding, strides": "VALID"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_003_05_convolution_arithmetic(rng, name):
    """Shape and values of every animation."""
    size, window, stride, pad, dilation, out = CONVOLUTIONS[name]
    options = {"stride": stride, "padding": pad, "dilation": dilation}
    assert shapes.output_size(size, window, **options) == out
    x, weights = integers(rng, 1, size, size, 1), integers(rng, window, window, 1, 1)
    y = ops.conv(x, weights, **options)
    assert y.shape == (1, out, out, 1)
    expected = reference.conv(x, weights, (stride,) * 2, ((pad, pad),) * 2, (dilation,) * 2, 1)
    np.testing.assert_array_equal(y, expected)
    if name in NAMES:
        np.testing.assert_array_equal(ops.conv(x, weights, **options | {"padding": NAMES[name]}), y)


# Input, kernel, stride, padding (of the corresponding convolution), output padding, output.
TRANSPOSED = {
    "no padding, no strides": (2, 3, 1, 0, 0, 4),
    "arbitrary padding, no strides": (6, 4, 1, 2, 0, 5),
    "half padding, no strides": (5, 3, 1, 1, 0, 5),
    "full padding, no strides": (7, 3, 1, 2, 0, 5),
    "no padding, strides": (2, 3, 2, 0, 0, 5),
    "padding, strides": (3, 3, 2, 1, 0, 5),
    "padding, strides (odd)": (3, 3, 2, 1, 1, 6),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_003_05_transposed_convolution_arithmetic(rng, name):
    """Every pixel adds a scaled kernel to the output, which has the shape of the input of the animation above."""
    size, window, stride, pad, output_padding, out = TRANSPOSED[name]
    assert CONVOLUTIONS[name][0] == out and CONVOLUTIONS[name][-1] == size
    options = {"stride": stride, "padding": pad, "output_padding": output_padding}
    x, weights = integers(rng, 1, size, size, 1), integers(rng, window, window, 1, 1)
    y = ops.conv_transpose(x, weights, **options)
    output = np.zeros(((size - 1) * stride + window + output_padding,) * 2)
    for i, j in np.ndindex(size, size):
        rows, columns = (slice(p * stride, p * stride + window) for p in (i, j))
        output[rows, columns] += x[0, i, j, 0] * weights[:, :, 0, 0]
    np.testing.assert_array_equal(plane(y), output[pad : pad + out, pad : pad + out])
    # Transposed convolution is the input gradient of the convolution.
    _, vjp = jax.vjp(lambda image: ops.conv(image, weights, stride=stride, padding=pad), jnp.zeros((1, out, out, 1)))
    np.testing.assert_array_equal(vjp(x)[0], y)


@pytest.mark.frameworks
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_003_05_convolution_matches_pytorch(rng, name):
    """Compare with torch, if it is installed."""
    torch = pytest.importorskip("torch")
    size, window, stride, pad, dilation, _ = CONVOLUTIONS[name]
    options = {"stride": stride, "padding": pad, "dilation": dilation}
    x, weights = integers(rng, size, size), integers(rng, window, window)
    torch_y = torch.conv2d(torch.tensor(x[None, None]), torch.tensor(weights[None, None]), **options)
    np.testing.assert_array_equal(plane(ops.conv(image(x), kernel(weights), **options)), torch_y[0, 0].numpy())


@pytest.mark.frameworks
@pytest.mark.parametrize("name", TRANSPOSED)
def test_003_05_transposed_convolution_matches_pytorch(rng, name):
    """Compare with torch, if it is installed."""
    torch = pytest.importorskip("torch")
    size, window, stride, pad, output_padding, _ = TRANSPOSED[name]
    options = {"stride": stride, "padding": pad, "output_padding": output_padding}
    x, weights = integers(rng, size, size), integers(rng, window, window)
    torch_y = torch.nn.functional.conv_transpose2d(
        torch.tensor(x[None, None]), torch.tensor(weights[None, None]), **options
    )
    np.testing.assert_array_equal(
        plane(ops.conv_transpose(image(x), kernel(weights), **options)), torch_y[0, 0].numpy()
    )


def test_003_06_training_with_mirrored_kernels_is_equal(rng):
    """Initialized with mirrored kernels, true convolution learns exactly the mirrored kernels."""
    x, target = (jnp.asarray(rng.normal(size=(4, *size)), jnp.float32) for size in [(7, 6, 2), (5, 5, 3)])
    start = jnp.asarray(rng.normal(size=(3, 2, 2, 3)), jnp.float32)

    def trajectory(weights, flip):
        @jax.jit
        @jax.grad
        def gradient(weights):
            return jnp.square(relu(ops.conv(x, weights, flip_kernel=flip)) - target).mean()

        for _ in range(5):
            weights = weights - 0.1 * gradient(weights)
            yield np.asarray(weights)

    for correlated, convolved in zip(trajectory(start, flip=False), trajectory(start[::-1, ::-1], flip=True)):
        np.testing.assert_array_equal(convolved[::-1, ::-1], correlated)
        assert (correlated != start).any()


def test_003_07_sobel_edges(rng):
    """V = [−1 0 1; −2 0 2; −1 0 1], H = [1 2 1; 0 0 0; −1 −2 −1]; |H| + |V|, or √(H² + V²) (E25)."""
    weights_v, weights_h = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]
    x = integers(rng, 1, 7, 8, 1)
    h, v = (reference.conv(x, kernel(weights), ONE, NO_PADDING, ONE, 1) for weights in (weights_h, weights_v))
    for actual, expected in zip(filters.edges(x, padding="VALID"), (h, v)):
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(filters.sobel(x, combine="l1", padding="VALID"), abs(h) + abs(v))
    np.testing.assert_allclose(filters.sobel(x, combine="l2", padding="VALID"), np.sqrt(h**2 + v**2), rtol=1e-6)
    flat = jnp.full((1, 6, 5, 1), 3.0)
    for combine in ("l1", "l2"):
        gradient = jax.grad(lambda x, combine=combine: filters.sobel(x, combine=combine).sum())(flat)
        np.testing.assert_array_equal(gradient, np.zeros(flat.shape))


def bright_box(size, hollow=False):
    """Return an image of zeros with a square of ones in the center."""
    x, start = np.zeros((25, 26), np.float32), (25 - size) // 2
    x[start : start + size, start : start + size] = 1
    if hollow:
        x[start + 1 : start + size - 1, start + 1 : start + size - 1] = 0
    return x


@pytest.mark.parametrize("size", range(1, 10))
def test_003_08_box_detector_by_size(size):
    """The peak response to a solid box is 72 for 5×5, and lower for other sizes."""
    y = plane(filters.box_detector(image(bright_box(size))))
    assert y.max() == TABLES["s003_box_peaks"][str(size)]
    if size == 5:
        assert np.argwhere(y == 72).tolist() == [[12, 12]]


def test_003_08_box_detector_hollow_and_dark_boxes():
    """The peak response to a hollow 5×5 box is 24, and to a dark one −72 instead of 72."""
    hollow, bright = (filters.box_detector(image(bright_box(5, hollow))) for hollow in (True, False))
    assert plane(hollow).max() == plane(hollow)[12, 12] == TABLES["s003_box_peaks"]["hollow5"] == 24
    dark = filters.box_detector(image(1 - bright_box(5)))
    assert plane(dark)[12, 12] == plane(dark).min() == TABLES["s003_box_peaks"]["dark5"] == -72
    np.testing.assert_array_equal(dark, -bright)


def test_003_10_dense_speech_network_size():
    """21 frames of 40 bands through 128, 128, 128 to 138: 157,952 weights ("~160k"), 158,474 with biases (E27)."""
    summary = summarize(models.mlp(138, hidden=(128, 128, 128)), (21, 40, 1))
    assert summary.rows[-1].shape == (138,)
    assert (summary.macs, summary.params) == (157_952, 158_474)


def num_weights(summary):
    """Return the number of parameters without biases, one per feature."""
    return summary.params - sum(row.shape[-1] for row in summary.rows if row.params)


def test_003_11_convolutional_speech_network_size():
    """Ten layers of three 3×3 filters without padding give (1, 20)×3: 9,036 weights. The lecture states ~100k (E26)."""
    ten = summarize(serial(*[Conv(3, 3)] * 10, flatten, Dense(138)), (21, 40, 1))
    assert ten.rows[9].shape == (1, 20, 3)
    assert [row.params for row in ten.rows] == [27 + 3, *[81 + 3] * 9, 0, 1 * 20 * 3 * 138 + 138]
    assert (num_weights(ten), ten.params) == (9_036, 9_204)
    one = summarize(serial(Conv(3, 3), flatten, Dense(138)), (21, 40, 1))
    assert one.rows[0].shape == (19, 38, 3) and num_weights(one) == 298_908 + 27
    same = summarize(serial(*[Conv(3, 3, padding="SAME")] * 10, flatten, Dense(138)), (21, 40, 1))
    assert num_weights(same) == 347_760 + 756


def test_003_12_dense_layer_on_1000_words_size():
    """(1000·100)² weights and 1000·100 biases: 10,000,100,000 parameters, counted without creating them."""
    summary = summarize(serial(flatten, Dense(1000 * 100)), (1000, 100))
    assert (summary.macs, summary.params) == (10_000_000_000, 10_000_100_000)


def test_003_13_convolution_on_1000_words_size():
    """100·100·5 + 100 = 50,100 parameters. The output has 1000 words with padding, 996 without (E28)."""
    same = summarize(Conv(100, 5, padding="SAME"), (1000, 100))
    assert same.params == 50_100 and same.rows[0].shape == (1000, 100)
    valid = summarize(Conv(100, 5), (1000, 100))
    assert valid.params == 50_100 and valid.rows[0].shape == (996, 100)


def test_003_14_receptive_field_is_5_words():
    """The receptive field is 5 words: two on either side."""
    assert summarize(Conv(100, 5, padding="SAME"), (1000, 100)).rows[0].receptive_field == (5,)
    x, weights = jnp.ones((1, 20, 3)), jnp.ones((5, 3, 2))
    gradient = jax.grad(lambda x: ops.conv(x, weights, padding="SAME")[0, 9, 0])(x)
    assert np.flatnonzero(gradient[0, :, 0]).tolist() == [7, 8, 9, 10, 11]


def test_003_15_flattened_sizes():
    """200×200 = 40,000 numbers become 39,204 after a 3×3 kernel; 2×2 pooling leaves a quarter (10,000)."""
    assert flatten(ops.conv(image(np.zeros((200, 200))), kernel(np.ones((3, 3))))).shape == (1, 39_204)
    assert flatten(image(np.zeros((200, 200)))).shape == (1, 40_000)
    assert flatten(ops.max_pool(image(np.zeros((200, 200))), 2)).shape == (1, 10_000)


def test_003_18_flatten_order(rng):
    """The index of (h, w, c) is (h·W + w)·C + c; a kernel for PyTorch's (c·H + h)·W + w must be reordered."""
    x, dense = integers(rng, 2, 3, 4, 5), integers(rng, 60, 7)
    flat = flatten(x)
    for h, w, c in np.ndindex(3, 4, 5):
        np.testing.assert_array_equal(flat[:, (h * 4 + w) * 5 + c], x[:, h, w, c])
    channels_first = x.transpose(0, 3, 1, 2).reshape(2, 60) @ dense
    reordered = dense.reshape(5, 3, 4, 7).transpose(1, 2, 0, 3).reshape(60, 7)
    np.testing.assert_array_equal(ops.dense(flat, reordered), channels_first)


@pytest.mark.parametrize("size", [(4, 4), (8, 2), (16, 4)])
def test_003_19_global_average_pooling(rng, size):
    """One channel per class, averaged over maps of any size, without parameters."""
    head = serial(Conv(10, 1), ops.global_avg_pool)
    summary = summarize(head, (*size, 6))
    assert summary.rows[-1].params == 0 and summary.rows[-1].shape == (10,) and summary.params == 70
    x = integers(rng, 2, *size, 3)
    np.testing.assert_array_equal(ops.global_avg_pool(x), x.mean(axis=(1, 2)))  # a power of 2 pixels: exact


def test_003_21_zero_residual_is_identity(rng):
    """With two convolutions, the last one zero, the block returns x, and the gradient is unchanged."""
    uniform, zeros = jax.nn.initializers.uniform(), jax.nn.initializers.zeros
    first, last = (Conv(3, 3, padding="SAME", kernel_init=init) for init in (uniform, zeros))
    block = residual(first, relu, last)
    params, state = block.init(jax.random.key(0), (6, 5, 3))
    x = jnp.asarray(rng.normal(size=(2, 6, 5, 3)), jnp.float32)
    y, vjp = jax.vjp(lambda x: block.apply(params, state, x)[0], x)
    np.testing.assert_array_equal(y, x)
    dy = rng.normal(size=y.shape).astype(np.float32)
    np.testing.assert_array_equal(vjp(dy)[0], dy)


@pytest.mark.parametrize(
    ("layer", "input_shape", "out", "params"),
    [
        (Conv(256, 5, padding=2, groups=2), (27, 27, 96), (27, 27, 256), 307_456),
        (Conv(384, 3, padding=1), (13, 13, 256), (13, 13, 384), 885_120),
        (Conv(384, 3, padding=1, groups=2), (13, 13, 384), (13, 13, 384), 663_936),
        (Conv(256, 3, padding=1, groups=2), (13, 13, 384), (13, 13, 256), 442_624),
    ],
    ids=["conv2", "conv3", "conv4", "conv5"],
)
def test_003_23_alexnets_two_streams(layer, input_shape, out, params):
    """In its second, fourth and fifth layer a filter takes half of the channels, which halves the weights."""
    summary = summarize(layer, input_shape)
    assert summary.rows[0].shape == out and summary.params == params


def test_003_23_two_groups_equal_two_convolutions(rng):
    """A convolution with two groups equals two convolutions side by side."""
    x, weights = integers(rng, 1, 5, 6, 4), integers(rng, 3, 3, 2, 6)
    halves = [ops.conv(x[..., c], weights[..., o]) for c, o in [(np.s_[:2], np.s_[:3]), (np.s_[2:], np.s_[3:])]]
    np.testing.assert_array_equal(ops.conv(x, weights, groups=2), np.concatenate(halves, axis=-1))


@pytest.mark.frameworks
@pytest.mark.parametrize("size", [(9,), (6, 7)], ids=["N C T", "N C H W"])
def test_003_27_pytorchs_layouts(rng, size):
    """PyTorch has data (N, C, H, W) and filters (O, I, H, W); converting back and forth is the identity."""
    torch = pytest.importorskip("torch")
    x, weights = integers(rng, 2, *size, 3), integers(rng, *[2] * len(size), 3, 4)
    torch_x, torch_kernel = np.moveaxis(x, -1, 1), np.moveaxis(weights, (-1, -2), (0, 1))
    np.testing.assert_array_equal(np.moveaxis(torch_x, 1, -1), x)
    np.testing.assert_array_equal(np.moveaxis(torch_kernel, (0, 1), (-1, -2)), weights)
    conv = torch.conv1d if len(size) == 1 else torch.conv2d
    torch_y = conv(torch.tensor(torch_x), torch.tensor(torch_kernel)).numpy()
    np.testing.assert_array_equal(ops.conv(x, weights), np.moveaxis(torch_y, 1, -1))
