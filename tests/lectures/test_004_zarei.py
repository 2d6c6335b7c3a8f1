"""Lecture 004, Anahita Zarei: a digit of plus and minus ones, relu, pooling, and a Keras network in numbers.

One test per row, named after it. Rows tested elsewhere:

    004-03  convnets need fewer examples              experiments/invariance.py, tests/explain/test_equivariance.py
    004-04  spatial hierarchies                       tests/explain/test_feature_visualization.py
    004-11  max pooling against other downsampling    experiments/pooling.py
    004-14  unusual styles and noise                  experiments/robustness.py, tests/explain/test_corruptions.py
    004-15  a report that shows every layer           tests/demo/test_demo.py, tests/report/test_report.py
    004-16  ensembles                                 experiments/ensemble.py
    004-17  the shapes of MNIST                       tests/data/test_registry.py, if the files are available
    004-22  early stopping                            tests/train/test_early_stopping.py
    004-24  loss curves                               tests/plot/test_plot.py
    004-25  97 % without convolutions, 99 % with      experiments/mnist.py
"""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import Conv, Dense, Dropout, MaxPool, flatten, models, ops, relu, serial, shapes, train
from jaxconv.data.base import Split, hold_out
from jaxconv.explain import arithmetic, summarize
from lecture_tables import as_integers, compiled, image, integers, kernel, parameters, plane, table

EVERY_IMPL = pytest.mark.parametrize("impl", list(ops.LOWERINGS))
DIGIT, FILTER = image(table("s004_digit")), kernel(table("s004_filter"))
MNIST = summarize(models.mnist_cnn(), (28, 28, 1))


def test_004_01_five_positions_along_each_axis():
    """A 3×3 window has 5 positions on 7 pixels (4 shifts, E30), so 5×5 hidden neurons; with stride 2, 3×3."""
    x, weights = image(np.zeros((7, 7))), kernel(np.ones((3, 3)))
    assert ops.conv(x, weights).shape == (1, 5, 5, 1) and ops.conv(x, weights, stride=2).shape == (1, 3, 3, 1)
    starts = shapes.tap_indices(shapes.resolve_window(shapes.Window(3), (7, 7)))[0][:, 0]
    assert starts.tolist() == [0, 1, 2, 3, 4] and np.diff(starts).tolist() == [1] * 4


@pytest.mark.parametrize("patch", [3, 5])
def test_004_02_patch_size_and_depth_set_kernel_shape(rng, patch):
    """They are the first two arguments of a layer; the function infers them from its kernel."""
    params = parameters(rng, Conv(8, patch), (9, 9, 2))
    assert params["kernel"].shape == (patch, patch, 2, 8)
    assert ops.conv(np.zeros((1, 9, 9, 2), np.float32), **params).shape == (1, 10 - patch, 10 - patch, 8)


def test_004_05_dense_and_convolutional_parameters():
    """49·25 weights and 25 biases are 1250 parameters; 9 shared weights and 1 bias are 10, both for 5×5 neurons."""
    regular, convolutional = serial(flatten, Dense(25)), Conv(1, 3)
    assert summarize(regular, (7, 7, 1)).params == 1250
    assert summarize(convolutional, (7, 7, 1)).params == 10
    assert [math.prod(summarize(m, (7, 7, 1)).rows[-1].shape) for m in (regular, convolutional)] == [25, 25]


@EVERY_IMPL
def test_004_06_horizontal_stroke_filter_table(impl):
    """A 5×5 digit of ±1, zero padded to 7×7, under [−1 −1 −1; 1 1 1; −1 −1 −1]: all 25 cells."""
    y = compiled(ops.conv, DIGIT, FILTER, np.float32([0]), padding=1, impl=impl)
    np.testing.assert_array_equal(as_integers(plane(y), impl), table("s004_out"))
    padded = np.pad(DIGIT, ((0, 0), (1, 1), (1, 1), (0, 0)))
    assert padded.shape == (1, 7, 7, 1)
    np.testing.assert_array_equal(
        as_integers(plane(compiled(ops.conv, padded, FILTER, impl=impl)), impl), table("s004_out")
    )


def test_004_06_first_two_sums():
    """Both are 0. The second is printed with 1, 0, −1 as the first row of the filter, over zeros (E31)."""
    for column, products in [(0, [0, 0, 0, 0, -1, 1, 0, 1, -1]), (1, [0, 0, 0, -1, 1, -1, 1, -1, 1])]:
        sum_terms = arithmetic("conv", DIGIT, FILTER, padding=1, index=(0, 0, column, 0))
        assert [term.value for term in sum_terms.terms] == products and sum_terms.total == sum(products) == 0


def test_004_07_relu_keeps_horizontal_strokes():
    """Only the third row, 2 5 3 3 0, is positive."""
    y = relu(ops.conv(DIGIT, FILTER, padding=1))
    np.testing.assert_array_equal(plane(y), table("s004_relu"))
    assert plane(y).tolist() == [[0] * 5, [0] * 5, [2, 5, 3, 3, 0], [0] * 5, [0] * 5]


def test_004_08_three_filters_make_three_feature_maps(rng):
    """Depth 3, and each map equals the output of its filter alone."""
    others = integers(rng, 3, 3, 1, 2)
    y = ops.conv(DIGIT, np.concatenate([FILTER, others], axis=-1), padding=1)
    assert y.shape == (1, 5, 5, 3)
    np.testing.assert_array_equal(y[0, :, :, 0], table("s004_out"))


def test_004_09_relu_gradient_is_0_or_1():
    """The gradient depends on the sign of x, and is 0 at 0."""
    x = jnp.array([-7.0, -0.5, 0.0, 0.5, 7.0])
    assert jax.vmap(jax.grad(relu))(x).tolist() == [0, 0, 0, 1, 1]


def test_004_09_half_of_random_relu_outputs_are_zero(rng):
    """With random weights, 50 ± 2 % of the outputs of relu are 0, and none of sigmoid and tanh."""
    params, _ = Conv(64, 3).init(jax.random.key(0), (16, 16, 8))
    z = ops.conv(rng.normal(size=(4, 16, 16, 8)).astype(np.float32), **params)
    assert abs(float(jnp.mean(relu(z) == 0)) - 0.5) < 0.02
    assert (ops.sigmoid(z) != 0).all() and (ops.tanh(z) != 0).all()


def test_004_10_max_pool_compresses_four_to_one(rng):
    """The maximum replaces each 2×2 block: a quarter of the numbers, and of the weights of the next layer."""
    x = rng.permutation(8 * 6).reshape(1, 8, 6, 1).astype(np.float32)
    y = ops.max_pool(x, 2)
    assert 4 * y.size == x.size
    np.testing.assert_array_equal(plane(y), plane(x).reshape(4, 2, 3, 2).max(axis=(1, 3)))
    with_pooling, without = (serial(Conv(4, 3), *pool, flatten, Dense(10)) for pool in ([MaxPool(2)], []))
    dense = [summarize(model, (10, 10, 1)).rows[-1] for model in (with_pooling, without)]
    assert [row.macs for row in dense] == [16 * 4 * 10, 64 * 4 * 10]


def test_004_12_last_dense_layer_as_convolution(rng):
    """Fully connected layers as convolutions (a "full convnet") also accept larger images."""
    maps, weights = integers(rng, 2, 5, 4, 3), integers(rng, 5 * 4 * 3, 10)
    dense = ops.dense(ops.flatten(maps), weights)
    as_conv = ops.conv(maps, weights.reshape(5, 4, 3, 10))
    np.testing.assert_array_equal(as_conv[:, 0, 0], dense)
    larger = ops.conv(np.pad(maps, ((0, 0), (2, 1), (0, 3), (0, 0))), weights.reshape(5, 4, 3, 10))
    assert larger.shape == (2, 4, 4, 10)
    np.testing.assert_array_equal(larger[:, 2, 0], dense)


def test_004_13_convnetjs_cifar_10_network_size():
    """Three 5×5 convolutions of 16, 20 and 20 filters, pooled by 2: 22,466 parameters."""
    blocks = [layer for k in (16, 20, 20) for layer in (Conv(k, 5, padding="SAME"), relu, MaxPool(2))]
    summary = summarize(serial(*blocks, flatten, Dense(10)), (32, 32, 3))
    assert [row.params for row in summary.rows if row.params] == [1_216, 8_020, 10_020, 3_210]
    assert summary.params == 22_466


def test_004_18_integer_and_one_hot_labels_agree(rng):
    """to_categorical(y, 10) and integer labels have the same loss."""
    logits, label = integers(rng, 6, 10), rng.integers(0, 10, 6)
    one_hot = np.eye(10, dtype=np.float32)[label]
    np.testing.assert_array_equal(jax.nn.one_hot(label, 10), one_hot)
    losses = [ops.softmax_cross_entropy(logits, target) for target in (label, one_hot)]
    expected = -(one_hot * np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))).sum(axis=1)
    for loss in losses:
        np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)


def test_004_19_parameters_of_every_layer():
    """320, 18,496, 36,928, 36,928 and 650: 93,322 parameters, all trainable."""
    assert [row.params for row in MNIST.rows if row.params] == [320, 18_496, 36_928, 36_928, 650]
    assert (MNIST.params, MNIST.state, MNIST.macs) == (93_322, 0, 2_794_240)
    assert [3 * 3 * 32 + 32, 3 * 3 * 32 * 64 + 64, 576 * 64 + 64, 64 * 10 + 10] == [320, 18_496, 36_928, 650]


def test_004_20_shape_after_every_layer():
    """Height and width shrink, channels follow the first argument; the flattened size is 3·3·64 = 576."""
    kinds = ("conv", "max_pool", "flatten", "dense")
    actual = [row.shape for row in MNIST.rows if row.kind in kinds]
    assert actual == [(26, 26, 32), (13, 13, 32), (11, 11, 64), (5, 5, 64), (3, 3, 64), (576,), (64,), (10,)]


def test_004_21_rmsprop_matches_keras(x64):
    """v ← 0.9 v + 0.1 g² and w ← w − lr · g / √(v + ε), for three steps."""
    optimizer, w = train.make_optimizer("rmsprop", 1e-3), jnp.array([1.0, -2.0])
    opt_state, by_hand, v = optimizer.init(w), np.array([1.0, -2.0]), np.zeros(2)
    for g in np.array([[0.5, 1e-4], [-1.0, 2.0], [3.0, 0.1]]):
        updates, opt_state = optimizer.update(jnp.asarray(g), opt_state, w)
        w = w + updates
        v = 0.9 * v + 0.1 * g**2
        by_hand = by_hand - 1e-3 * g / np.sqrt(v + 1e-7)
        np.testing.assert_allclose(w, by_hand, rtol=1e-9)


def test_004_23_a_sixth_for_validation_and_batches_of_256():
    """60,000 · 1/6: the last 10,000 validate, 50,000 train in 196 steps, of which the last has 80 examples."""
    indices = np.arange(60_000)
    training, validation = hold_out(Split(indices[:, None, None, None], indices), 10_000)
    assert training.labels.tolist() == list(range(50_000)) and validation.labels[0] == 50_000
    steps = list(train.iterate_batches(*training, 256, train.epoch_permutation(0, 1, 50_000)))
    assert len(steps) == 196 and [int(batch.mask.sum()) for batch in steps] == [256] * 195 + [80]
    assert {batch.image.shape for batch in steps} == {(256, 1, 1, 1)}  # one shape: compiled once


def test_004_26_evaluate_covers_every_image():
    """10,000 test images are 39 batches of 256 and one of 16, all of which are evaluated."""
    labels = np.arange(10_000, dtype=np.int32) % 3
    images = np.eye(3, dtype=np.float32)[labels].reshape(-1, 3, 1, 1)
    assert [int(batch.mask.sum()) for batch in train.iterate_batches(images, labels, 256)] == [256] * 39 + [16]
    model, params = serial(flatten, Dense(3)), {"dense1": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}}
    labels[-8:] = (labels[-8:] + 1) % 3  # eight mistakes, all in the last batch
    scored = train.evaluate(model, params, {}, images, labels, batch_size=256)
    assert (scored["accuracy"], scored["count"]) == (0.9992, 10_000)
    right = math.log(math.e + 2) - 1
    np.testing.assert_allclose(scored["loss"], right + 8 / 10_000, rtol=1e-5)  # a mistake adds 1 to the loss


def test_004_27_notebook_imports_exist():
    """ModelCheckpoint, Dropout and Adam (imported, and not used)."""
    assert Dropout(0.5).kind == "dropout" and "adam" in train.OPTIMIZERS
    assert callable(train.save_checkpoint) and callable(train.restore_best)


@pytest.mark.parametrize("author", ["Nielsen", "Goodfellow", "Abu-Mostafa", "Chollet"])
def test_004_28_reading_page_cites_books(author):
    """The further-reading page of the documentation cites them (the lecture has "Abu-Mustafa")."""
    assert author in (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
