"""The lectures' networks have the lectures' numbers, and the summary tells them."""

import jax
import numpy as np
import pytest

from jaxconv import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    InputError,
    MaxPool,
    models,
    ops,
    parallel,
    relu,
    residual,
    serial,
)
from jaxconv.explain import summarize


def test_mnist_cnn_is_the_lectures():  # rows 004-19, 004-20, 001-17
    table = summarize(models.mnist_cnn(), (28, 28, 1))
    assert [row.params for row in table.rows if row.params] == [320, 18_496, 36_928, 36_928, 650]
    assert (table.params, table.state, table.multiply_adds) == (93_322, 0, 2_794_240)
    kinds = "conv relu max_pool conv relu max_pool conv relu flatten dense relu dense"
    assert [row.kind for row in table.rows] == kinds.split()
    shapes = [row.shape for row in table.rows if row.kind != "relu"]
    assert shapes == [(26, 26, 32), (13, 13, 32), (11, 11, 64), (5, 5, 64), (3, 3, 64), (576,), (64,), (10,)]
    assert [row.sees for row in table.rows if row.kind in ("conv", "max_pool")] == [(n, n) for n in (3, 4, 8, 10, 18)]


def test_lenet5_is_the_lectures():  # rows 000-15 to 000-20
    table = summarize(models.lenet5(), (32, 32, 1))
    assert [row.params for row in table.rows if row.params] == [156, 2_416, 48_120, 10_164, 850]
    assert table.params == 61_706
    kinds = "conv tanh max_pool conv tanh max_pool flatten dense tanh dense tanh dense"
    assert [row.kind for row in table.rows] == kinds.split()
    shapes = [row.shape for row in table.rows if row.kind in ("conv", "max_pool", "dense")]
    assert shapes == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (120,), (84,), (10,)]


def test_alexnets_first_layer():  # row 000-07
    table = summarize(Conv(96, 11, stride=4), (227, 227, 3))
    assert (table.rows[0].shape, table.params, table.multiply_adds) == ((55, 55, 96), 34_944, 105_415_200)


def test_ten_filters_cost_the_same_on_any_image():  # row 002-25
    assert {summarize(Conv(10, 3), (n, n, 3)).params for n in (10, 150, 1000)} == {280}


@pytest.mark.parametrize("pool", [MaxPool, AvgPool])
@pytest.mark.parametrize("activation", [ops.tanh, relu])
def test_lenet5_takes_its_options(pool, activation):
    model = models.lenet5(activation=activation, pool=pool)
    kinds = [row.kind for row in summarize(model, (32, 32, 1)).rows]
    assert kinds.count(activation.__name__) == 4 and kinds.count("max_pool" if pool is MaxPool else "avg_pool") == 2


@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "mnist_cnn", "mlp", "vgg6", "resnet20"])
def test_lowerings_agree_in_a_whole_model_and_its_gradient(name):
    entry = models.find(name)
    x = jax.random.uniform(jax.random.key(1), (2, *entry.in_shape))
    results = []
    for options in [{}] if name == "mlp" else [{"impl": "lax"}, {"impl": "explicit"}]:
        model = entry.make(7, **options)
        params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), entry.in_shape)

        def loss(params, model=model, state=state):
            return ops.softmax_cross_entropy(model.apply(params, state, x)[0], np.array([0, 6])).sum()

        results.append(jax.jit(jax.value_and_grad(loss))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), results[0], results[-1])


def test_receptive_field_is_where_the_gradient_is_not_zero():
    model = serial(
        Conv(2, 3),
        MaxPool(2),
        residual(Conv(2, 3, padding="SAME", dilation=2)),
        parallel(Conv(2, (3, 1), padding="SAME"), serial(Conv(1, (1, 3), padding="SAME"), Conv(2, 1)), relu),
        Conv(2, (2, 1), stride=2),
        AvgPool(2),
    )
    params, state = model.init(jax.random.key(0), (40, 40, 1))
    gradient = jax.jit(jax.grad(lambda x: model.apply(params, state, x)[0][0, 1, 1].sum()))
    rows = columns = 0
    for seed in range(8):  # max pooling lets one pixel of each window through; try several images
        used = np.argwhere(np.asarray(gradient(jax.random.normal(jax.random.key(seed), (1, 40, 40, 1))))[0, :, :, 0])
        height, width = used.max(0) - used.min(0) + 1
        rows, columns = max(rows, height), max(columns, width)
    assert summarize(model, (40, 40, 1)).rows[-1].sees == (rows, columns)


def test_branches_together_see_what_the_widest_sees_in_each_dimension():
    tall, wide = Conv(1, (5, 1), padding="SAME"), Conv(1, (3, 7), padding="SAME")
    assert summarize(serial(residual(tall, shortcut=wide), Conv(1, 1)), (9, 9, 1)).rows[-1].sees == (5, 7)


def test_channels_of_branches_side_by_side_add_up():
    pooled = serial(MaxPool(3, stride=2, padding="SAME"), Conv(4, 1))
    block = parallel(Conv(2, (5, 3), stride=2, padding="SAME"), pooled, AvgPool(2, padding="SAME"))
    table = summarize(serial(Conv(3, 1), block, Conv(5, 3)), (9, 8, 1))
    branches = [(row.name, row.shape, row.params, row.multiply_adds, row.sees) for row in table.rows[1:-1]]
    assert branches == [
        ("parallel1/conv1", (5, 4, 2), 5 * 3 * 3 * 2 + 2, 5 * 4 * (5 * 3 * 3 * 2), (5, 3)),
        ("parallel1/serial1/max_pool1", (5, 4, 3), 0, 0, (3, 3)),
        ("parallel1/serial1/conv1", (5, 4, 4), 3 * 4 + 4, 5 * 4 * (3 * 4), (3, 3)),
        ("parallel1/avg_pool1", (5, 4, 3), 0, 0, (2, 2)),
    ]
    last = table.rows[-1]  # sees 2 + 4 + 3 channels, each pixel of which stands for 5 × 3 of the image, 2 apart
    assert (last.shape, last.params, last.sees) == ((3, 2, 5), 3 * 3 * 9 * 5 + 5, (9, 7))
    assert last.multiply_adds == 3 * 2 * (3 * 3 * 9 * 5)
    stamped = summarize(serial(parallel(ConvTranspose(1, 3, padding=1), relu), Conv(1, 2)), (4, 4, 2))
    assert [row.sees for row in stamped.rows] == [None, (1, 1), None]
    assert (stamped.rows[-1].shape, stamped.rows[-1].params) == ((3, 3, 1), 2 * 2 * 3 + 1)


def test_rows_are_named_by_their_path_and_count_state_apart():
    model = serial(Conv(4, 3), BatchNorm(), residual(Conv(4, 3, padding="SAME")), ops.global_avg_pool, Dense(2))
    table = summarize(model, (8, 8, 1))
    assert [row.name for row in table.rows] == [
        "conv1",
        "bn1",
        "res1/body/conv1",
        "res1/shortcut",
        "global_avg_pool1",
        "dense1",
    ]
    assert table.state == 8 and table.rows[1].params == 8
    assert [row.sees for row in table.rows][-2:] == [None, None]


def test_a_model_that_does_not_fit_is_told():
    with pytest.raises(InputError, match=r"conv3: conv: window \(3, 3\) on an input of \(1, 1\)"):
        summarize(models.mnist_cnn(), (12, 12, 1))
    with pytest.raises(InputError, match=r"in_shape \(0, 28, 1\): every size should be at least 1"):
        summarize(models.mlp(), (0, 28, 1))
    with pytest.raises(InputError, match="unknown model 'lenet': did you mean 'lenet5'"):
        models.find("lenet")


def test_a_transposed_convolution_works_at_its_inputs_and_ends_what_is_known_of_the_view():
    table = summarize(serial(Conv(4, 3), ConvTranspose(2, (2, 3), stride=2)), (8, 7, 3))
    first, second = table.rows
    assert first.sees == (3, 3) and second.sees is None
    assert second.shape == (12, 11, 2) and second.multiply_adds == 6 * 5 * (2 * 3 * 4 * 2)
