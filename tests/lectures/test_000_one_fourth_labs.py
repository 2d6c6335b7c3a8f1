"""Lecture 000, One Fourth Labs: a convolution is a sparse dense layer that shares its weights; LeNet in numbers.

One test per row, named after it. Rows tested elsewhere, in part or completely:

    000-04  edges before a classifier make it better            experiments/features.py
    000-05  HOG or SIFT features and a layer without hidden     experiments/features.py
    000-21  LeCun's own network of 1998                         tests/models/test_lenets.py, experiments/lenet.py
    000-23  overfitting with many parameters                    experiments/features.py
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import AvgPool, Conv, Dense, InputError, MaxPool, flatten, models, ops, relu, serial, shapes, train
from jaxconv.explain import summarize
from lecture_tables import compiled, integers, parameters

LENET = summarize(models.lenet5(), (32, 32, 1))


def rows(*kinds):
    return [row for row in LENET.rows if row.kind in kinds]


def matrix_by_loops(kernel, input_shape, stride):
    """Compute the matrix of a convolution by loops: one row per output, zero outside of the window."""
    (h, w, c), (kh, kw, _, features) = input_shape, kernel.shape
    out = (h - kh) // stride + 1, (w - kw) // stride + 1
    matrix = np.zeros((*out, features, h, w, c), np.float32)
    for i, j in np.ndindex(*out):
        patch = matrix[i, j, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
        patch[...] = np.moveaxis(kernel, -1, 0)
    return matrix.reshape(math.prod(out) * features, h * w * c)


def test_000_01_pixel_and_neuron_are_weighted_sums(rng):
    """An output pixel is a sum over a small neighborhood; a dense layer with a masked matrix gives the same."""
    x, kernel = integers(rng, 2, 7, 6, 3), integers(rng, 3, 2, 3, 4)
    y = ops.conv(x, kernel, stride=2)
    assert y.shape == (2, 3, 3, 4)
    for n, i, j, k in np.ndindex(*y.shape):
        patch = x[n, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2]
        assert y[n, i, j, k] == (patch * kernel[..., k]).sum()
    matrix = matrix_by_loops(kernel, (7, 6, 3), stride=2)
    np.testing.assert_array_equal(ops.dense(flatten(x), matrix.T), flatten(y))


def test_000_02_each_filter_computes_one_channel(rng):
    """K filters give depth K, and filter k alone gives channel k."""
    x, kernel = integers(rng, 1, 6, 5, 2), integers(rng, 3, 3, 2, 5)
    y = ops.conv(x, kernel)
    assert y.shape == (1, 4, 3, 5)
    for k in range(5):
        np.testing.assert_array_equal(ops.conv(x, kernel[..., k : k + 1])[..., 0], y[..., k])


def test_000_03_flattened_image_has_2700_pixels():
    """30×30×3 becomes 2700 raw pixels (the classifiers on top of them are an experiment)."""
    assert flatten(np.zeros((4, 30, 30, 3), np.float32)).shape == (4, 2700)


def test_000_06_three_layers_have_three_weight_sets(rng):
    """A network that learns its features has 3 sets of weights, and each gets a gradient."""
    model = serial(Conv(4, 3), relu, Conv(4, 3), relu, flatten, Dense(3))
    params = parameters(rng, model, (8, 7, 1))
    assert sorted(params) == ["conv1", "conv2", "dense1"]
    assert all(sorted(weights) == ["bias", "kernel"] for weights in params.values())
    x, label = rng.normal(size=(5, 8, 7, 1)).astype(np.float32), np.arange(5) % 3

    @jax.jit
    @jax.grad
    def gradient(params):
        return ops.softmax_cross_entropy(model.apply(params, {}, x)[0], label).mean()

    assert all(np.linalg.norm(leaf) > 0 for leaf in jax.tree.leaves(gradient(params)))


def test_000_07_alexnets_first_layer():
    """227×227×3 under 96 filters of 11×11, stride 4, is 55×55×96. (The printed formula lacks a minus sign, E1.)"""
    table = summarize(Conv(96, 11, stride=4), (227, 227, 3))
    assert table.rows[0].shape == (55, 55, 96)
    assert (table.params, table.params - 96, table.macs) == (34_944, 34_848, 105_415_200)


@pytest.mark.parametrize(
    ("stride", "position", "inputs"),
    [(2, (0, 0), {1, 2, 5, 6}), (2, (0, 1), {3, 4, 7, 8}), (1, (0, 1), {2, 3, 6, 7})],
)
def test_000_08_sparse_connectivity(rng, stride, position, inputs):
    """h11 depends on inputs 1, 2, 5, 6 of 16, h12 on 3, 4, 7, 8: the stride is 2 (E38). A dense unit depends on all."""
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 1)), jnp.float32)
    kernel = np.ones((2, 2, 1, 1), np.float32)
    gradient = jax.grad(lambda x: ops.conv(x, kernel, stride=stride)[(0, *position, 0)])(x)
    assert set(1 + np.flatnonzero(gradient)) == inputs
    pixels = shapes.tap_indices(shapes.resolve_window(shapes.Window(2, stride), (4, 4)))
    assert {1 + 4 * i + j for i, j in itertools.product(pixels[0][position[0]], pixels[1][position[1]])} == inputs
    dense = rng.normal(size=(16, 4)).astype(np.float32)
    assert set(1 + np.flatnonzero(jax.grad(lambda x: ops.dense(flatten(x), dense)[0, 0])(x))) == set(range(1, 17))


def test_000_09_weights_are_shared(rng):
    """The kernel is the same at all positions: the number of weights is independent of the image size."""
    assert {summarize(Conv(4, (3, 2)), (h, w, 5)).params for h, w in [(3, 2), (8, 9), (300, 200)]} == {124}
    kernel = rng.permutation(3 * 2 * 2 * 4).reshape(3, 2, 2, 4).astype(np.float32) + 1
    for size in [(4, 3), (6, 7)]:
        assert len(np.unique(ops.convolution_matrix(kernel, (*size, 2)).data)) == kernel.size


def test_000_10_convolution_matrix_of_lenet_is_sparse(rng):
    """LeNet's first layer as a matrix: 4,816,896 entries, 117,600 (2.44 %) not zero, 150 distinct."""
    kernel = 1 + rng.permutation(150).reshape(5, 5, 1, 6).astype(np.float32)
    matrix = ops.convolution_matrix(kernel, (32, 32, 1))
    assert matrix.shape == (28 * 28 * 6, 32 * 32) and math.prod(matrix.shape) == 4_816_896
    assert matrix.nse == np.count_nonzero(matrix.data) == 117_600
    assert round(100 * matrix.nse / math.prod(matrix.shape), 2) == 2.44
    assert len(np.unique(matrix.data)) == 150
    x = integers(rng, 1, 32, 32, 1)
    np.testing.assert_array_equal(matrix @ x.ravel(), ops.conv(x, kernel).ravel())


def test_000_10_convolution_matrix_matches_loops(rng):
    """Compare the matrix entry by entry, with a stride and several channels."""
    kernel = integers(rng, 3, 2, 2, 3)
    expected = matrix_by_loops(kernel, (7, 5, 2), stride=2)
    np.testing.assert_array_equal(ops.convolution_matrix(kernel, (7, 5, 2), stride=2).todense(), expected)


def test_000_10_shared_weight_gradient_sums_over_copies(rng):
    """The gradient of a dense layer is dy xᵀ; that of a kernel entry sums over all its copies in the matrix."""
    x, kernel = integers(rng, 1, 6, 5, 2), integers(rng, 3, 2, 2, 3)
    y, vjp = jax.vjp(lambda k: ops.conv(x, k), jnp.asarray(kernel))
    dy = integers(rng, *y.shape)
    matrix_gradient = np.outer(dy.ravel(), x.ravel())
    entry_index = matrix_by_loops(
        1 + np.arange(kernel.size, dtype=np.float32).reshape(kernel.shape), (6, 5, 2), stride=1
    )
    copies = [matrix_gradient[entry_index == 1 + index].sum() for index in range(kernel.size)]
    np.testing.assert_array_equal(vjp(dy)[0], np.reshape(copies, kernel.shape))


POOLS = [((6,), (2,)), ((4, 4), (2, 2)), ((4, 6, 2), (2, 3, 2))]


@pytest.mark.parametrize(("size", "window"), POOLS, ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize(("pool", "reduce"), [(ops.max_pool, np.max), (ops.avg_pool, np.mean)], ids=["11", "12"])
def test_000_11_and_12_pooling_reduces_each_quadrant(rng, size, window, pool, reduce):
    """2×2 with stride 2: 4×4 becomes 2×2, the maximum (row 11) or the mean (row 12) of each quadrant."""
    # Multiples of 12, so that means are integers.
    x = (12.0 * rng.permutation(2 * math.prod(size))).reshape(1, *size, 2).astype(np.float32)
    y = compiled(pool, x, window_shape=window)
    assert y.shape == (1, *(n // f for n, f in zip(size, window)), 2)
    for position in np.ndindex(*y.shape[1:-1]):
        region = x[(0, *(slice(p * f, (p + 1) * f) for p, f in zip(position, window)))]
        np.testing.assert_array_equal(y[(0, *position)], reduce(region, axis=tuple(range(len(size)))))


def test_000_13_nonlinearities_are_elementwise(x64):
    """Sigmoid, tanh and relu after a convolution, each with its derivative; relu's is 0 at 0."""
    x = jnp.linspace(-3, 3, 7)
    s, t = 1 / (1 + np.exp(-x)), np.tanh(x)
    references = {
        ops.sigmoid: (s, s * (1 - s)),
        ops.tanh: (t, 1 - t**2),
        ops.relu: (np.maximum(x, 0), [0, 0, 0, 0, 1, 1, 1]),
    }
    for f, (value, slope) in references.items():
        np.testing.assert_allclose(f(x), value, rtol=1e-12, err_msg=f.__name__)
        np.testing.assert_allclose(jax.vmap(jax.grad(f))(x), slope, rtol=1e-12, err_msg=f.__name__)


def test_000_14_image_without_channel_axis_raises():
    """Grayscale images often have the shape (N, 32, 32); the message names the missing axis."""
    with pytest.raises(
        InputError, match=r"conv: x \(4, 32, 32\) should have 4 axes.*the channel axis, x\[\.\.\., None\]"
    ):
        ops.conv(np.zeros((4, 32, 32), np.float32), np.zeros((5, 5, 1, 6), np.float32))


def test_000_15_lenets_first_convolution():
    """6 filters of 5×5×1 give 28×28×6 and have 150 weights, and 6 biases that the lecture does not count (E4)."""
    first = rows("conv")[0]
    params, _ = jax.eval_shape(lambda: models.lenet5().init(jax.random.key(0), (32, 32, 1)))
    assert first.shape == (28, 28, 6) and first.params == 156
    assert (params["conv1"]["kernel"].size, params["conv1"]["bias"].size) == (150, 6)


def test_000_16_fully_connected_equivalent():
    """32×32 inputs to 28×28×6 outputs are 4,816,896 weights (and 4,704 biases, E4)."""
    dense = serial(flatten, Dense(math.prod(rows("conv")[0].shape)))
    assert summarize(dense, (32, 32, 1)).macs == 4_816_896
    assert summarize(dense, (32, 32, 1)).params == 4_816_896 + 4_704 == 4_821_600


def test_000_17_lenets_first_pooling():
    """2×2 with stride 2: 14×14×6, without parameters."""
    first = rows("max_pool")[0]
    assert first.shape == (14, 14, 6) and first.params == 0


def test_000_18_lenets_second_convolution():
    """16 filters of 5×5×6 give 10×10×16 and have 2400 weights (2416 parameters)."""
    second = rows("conv")[1]
    assert second.shape == (10, 10, 16) and second.params == 2_416 == 16 * 5 * 5 * 6 + 16


def test_000_19_lenets_second_pooling():
    """5×5×16, without parameters. The lecture prints stride 1 (E2), which would give 9×9, and 14×14 (E3)."""
    second = rows("max_pool")[1]
    assert second.shape == (5, 5, 16) and second.params == 0
    assert shapes.output_size(10, 2, stride=2) == 5 and shapes.output_size(10, 2, stride=1) == 9


def test_000_20_lenets_dense_layers_and_total():
    """400 → 120 is 48,120 parameters, 120 → 84 is 10,164, 84 → 10 is 850: together 61,706 (61,684, E4)."""
    assert [row.shape for row in rows("flatten", "dense")] == [(400,), (120,), (84,), (10,)]
    assert [row.params for row in rows("dense")] == [48_120, 10_164, 850]
    assert LENET.params == 61_706 and LENET.params - 6 - 16 == 61_684


@pytest.mark.parametrize("activation", [ops.tanh, ops.relu])
@pytest.mark.parametrize("pool", [MaxPool, AvgPool])
def test_000_21_activation_and_pooling_keep_parameters(activation, pool):
    """The choice of nonlinearity and pooling does not change the number of parameters."""
    table = summarize(models.lenet5(activation=activation, pool=pool), (32, 32, 1))
    assert table.params == 61_706 and [row.kind for row in table.rows].count(activation.__name__) == 4


def test_000_22_loss_backpropagation_and_update(promoting, rng):
    """One step is params − lr · gradient, and steps on one batch reduce its loss."""
    model, optimizer = serial(Conv(3, 3), relu, MaxPool(2), flatten, Dense(4)), train.make_optimizer("sgd", 0.1)
    images, labels = rng.integers(0, 256, (6, 8, 8, 1), np.uint8), np.arange(6, dtype=np.int32) % 4

    def loss(params):
        logits, _ = model.apply(params, {}, images / np.float32(255))
        return ops.softmax_cross_entropy(logits, labels).mean()

    train_state = train.create_train_state(model, optimizer, jax.random.key(0), (8, 8, 1))
    # Copies, since a step donates its input buffers.
    initial, gradient = jax.tree.map(np.array, (train_state.params, jax.jit(jax.grad(loss))(train_state.params)))
    step, losses = train.make_train_step(model, optimizer), []
    for _ in range(5):
        train_state, metrics = step(train_state, train.Batch(images, labels))
        losses.append(float(metrics.sums["loss"]))
        if len(losses) == 1:
            expected = jax.tree.map(lambda w, g: w - 0.1 * g, initial, gradient)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), train_state.params, expected
            )
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.frameworks
def test_000_24_lenet5_matches_pytorch(rng):
    """The same weights give the same logits. PyTorch flattens (C, H, W), so the first dense kernel is reordered."""
    torch = pytest.importorskip("torch")
    model = models.lenet5()
    params = parameters(rng, model, (32, 32, 1))
    x = rng.normal(size=(3, 32, 32, 1)).astype(np.float32)

    def conv(y, p):
        kernel = torch.tensor(p["kernel"].transpose(3, 2, 0, 1))
        return torch.nn.functional.max_pool2d(torch.tanh(torch.conv2d(y, kernel, torch.tensor(p["bias"]))), 2)

    def dense(y, p):
        return torch.nn.functional.linear(y, torch.tensor(p["kernel"].T), torch.tensor(p["bias"]))

    y = conv(conv(torch.tensor(x.transpose(0, 3, 1, 2)), params["conv1"]), params["conv2"]).flatten(1)
    channels_first = params["dense1"]["kernel"].reshape(5, 5, 16, 120).transpose(2, 0, 1, 3).reshape(400, 120)
    y = torch.tanh(dense(y, params["dense1"] | {"kernel": channels_first}))
    expected = dense(torch.tanh(dense(y, params["dense2"])), params["dense3"])
    np.testing.assert_allclose(jax.jit(model.apply)(params, {}, x)[0], expected.numpy(), rtol=1e-5, atol=1e-5)
