"""Summaries match the numbers of the lectures, XLA's FLOPs, and each format."""

import json

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
from jaxconv.explain import LayerSummary, format_summary, summarize


def test_mnist_cnn_matches_lecture():  # rows 004-19, 004-20, 001-17
    table = summarize(models.mnist_cnn(), (28, 28, 1))
    assert [row.params for row in table.rows if row.params] == [320, 18_496, 36_928, 36_928, 650]
    assert (table.params, table.state, table.macs) == (93_322, 0, 2_794_240)
    kinds = "conv relu max_pool conv relu max_pool conv relu flatten dense relu dense"
    assert [row.kind for row in table.rows] == kinds.split()
    shapes = [row.shape for row in table.rows if row.kind != "relu"]
    assert shapes == [(26, 26, 32), (13, 13, 32), (11, 11, 64), (5, 5, 64), (3, 3, 64), (576,), (64,), (10,)]
    assert [row.receptive_field for row in table.rows if row.kind in ("conv", "max_pool")] == [
        (n, n) for n in (3, 4, 8, 10, 18)
    ]


def test_lenet5_matches_lecture():  # rows 000-15 to 000-20
    table = summarize(models.lenet5(), (32, 32, 1))
    assert [row.params for row in table.rows if row.params] == [156, 2_416, 48_120, 10_164, 850]
    assert table.params == 61_706
    kinds = "conv tanh max_pool conv tanh max_pool flatten dense tanh dense tanh dense"
    assert [row.kind for row in table.rows] == kinds.split()
    shapes = [row.shape for row in table.rows if row.kind in ("conv", "max_pool", "dense")]
    assert shapes == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (120,), (84,), (10,)]


def test_alexnet_first_layer_matches_lecture():  # row 000-07
    table = summarize(Conv(96, 11, stride=4), (227, 227, 3))
    assert (table.rows[0].shape, table.params, table.macs) == ((55, 55, 96), 34_944, 105_415_200)


def test_conv_params_do_not_depend_on_image_size():  # row 002-25
    assert {summarize(Conv(10, 3), (n, n, 3)).params for n in (10, 150, 1000)} == {280}


@pytest.mark.parametrize("pool", [MaxPool, AvgPool])
@pytest.mark.parametrize("activation", [ops.tanh, relu])
def test_lenet5_options_select_layers(pool, activation):
    model = models.lenet5(activation=activation, pool=pool)
    kinds = [row.kind for row in summarize(model, (32, 32, 1)).rows]
    assert kinds.count(activation.__name__) == 4 and kinds.count("max_pool" if pool is MaxPool else "avg_pool") == 2


@pytest.mark.parametrize(
    "name", ["small_cnn", "lenet5", "mnist_cnn", "mlp", "vgg6", "convnetjs", "all_cnn_c_48", "resnet20"]
)
def test_lowerings_agree_in_models_and_gradients(name):
    spec = models.get_model(name)
    x = jax.random.uniform(jax.random.key(1), (2, *spec.input_shape))
    results = []
    for options in [{}] if name == "mlp" else [{"impl": "lax"}, {"impl": "explicit"}]:
        model = spec.create(num_classes=7, **options)
        params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), spec.input_shape)

        def loss(params, model=model, state=state):
            return ops.softmax_cross_entropy(model.apply(params, state, x)[0], np.array([0, 6])).sum()

        results.append(jax.jit(jax.value_and_grad(loss))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), results[0], results[-1])


def test_receptive_field_matches_nonzero_gradient():
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
    for seed in range(8):  # max pooling passes one pixel per window, so several images are needed
        nonzero = np.argwhere(np.asarray(gradient(jax.random.normal(jax.random.key(seed), (1, 40, 40, 1))))[0, :, :, 0])
        height, width = nonzero.max(0) - nonzero.min(0) + 1
        rows, columns = max(rows, height), max(columns, width)
    assert summarize(model, (40, 40, 1)).rows[-1].receptive_field == (rows, columns)


def test_branches_have_union_of_receptive_fields():
    tall, wide = Conv(1, (5, 1), padding="SAME"), Conv(1, (3, 7), padding="SAME")
    assert summarize(serial(residual(tall, shortcut=wide), Conv(1, 1)), (9, 9, 1)).rows[-1].receptive_field == (5, 7)


def test_parallel_branches_add_channels():
    pooled = serial(MaxPool(3, stride=2, padding="SAME"), Conv(4, 1))
    block = parallel(Conv(2, (5, 3), stride=2, padding="SAME"), pooled, AvgPool(2, padding="SAME"))
    table = summarize(serial(Conv(3, 1), block, Conv(5, 3)), (9, 8, 1))
    branches = [(row.name, row.shape, row.params, row.macs, row.receptive_field) for row in table.rows[1:-1]]
    assert branches == [
        ("parallel1/conv1", (5, 4, 2), 5 * 3 * 3 * 2 + 2, 5 * 4 * (5 * 3 * 3 * 2), (5, 3)),
        ("parallel1/serial1/max_pool1", (5, 4, 3), 0, 0, (3, 3)),
        ("parallel1/serial1/conv1", (5, 4, 4), 3 * 4 + 4, 5 * 4 * (3 * 4), (3, 3)),
        ("parallel1/avg_pool1", (5, 4, 3), 0, 0, (2, 2)),
    ]
    last = table.rows[-1]  # input: 2 + 4 + 3 channels with receptive field 5 × 3 and stride 2
    assert (last.shape, last.params, last.receptive_field) == ((3, 2, 5), 3 * 3 * 9 * 5 + 5, (9, 7))
    assert last.macs == 3 * 2 * (3 * 3 * 9 * 5)
    transposed = summarize(serial(parallel(ConvTranspose(1, 3, padding=1), relu), Conv(1, 2)), (4, 4, 2))
    assert [row.receptive_field for row in transposed.rows] == [None, (1, 1), None]
    assert (transposed.rows[-1].shape, transposed.rows[-1].params) == ((3, 3, 1), 2 * 2 * 3 + 1)


def test_rows_have_paths_and_separate_state():
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
    assert [row.receptive_field for row in table.rows][-2:] == [None, None]


def test_summarize_invalid_input_shape_raises():
    with pytest.raises(InputError, match=r"conv3: conv: window \(3, 3\) on an input of \(1, 1\)"):
        summarize(models.mnist_cnn(), (12, 12, 1))
    with pytest.raises(InputError, match=r"input_shape must be ints >= 1, got \(0, 28, 1\)"):
        summarize(models.mlp(), (0, 28, 1))
    with pytest.raises(InputError, match="unknown model 'lenet': did you mean 'lenet5'"):
        models.get_model("lenet")


def test_conv_transpose_counts_macs_per_input_position():
    table = summarize(serial(Conv(4, 3), ConvTranspose(2, (2, 3), stride=2)), (8, 7, 3))
    first, second = table.rows
    assert first.receptive_field == (3, 3) and second.receptive_field is None
    assert second.shape == (12, 11, 2) and second.macs == 6 * 5 * (2 * 3 * 4 * 2)


def test_dense_params_of_equivalent_dense_layer():  # rows 000-16, 002-02, 003-12, 003-13
    lenet = summarize(models.lenet5(), (32, 32, 1)).rows
    assert (lenet[0].dense_params, lenet[0].shape) == (4_816_896, (28, 28, 6))
    assert lenet[7].dense_params == lenet[7].weights == 48_000  # a dense layer itself
    assert summarize(serial(ops.flatten, Dense(1000)), (150, 150, 3)).rows[1].dense_params == 67_500_000
    sequence = summarize(Conv(100, 5, padding="SAME"), (1000, 100))  # no array of this size is allocated
    assert (sequence.rows[0].dense_params, sequence.params) == (10_000_000_000, 50_100)


def test_weights_and_biases_are_separate():
    model = serial(Conv(4, 3, use_bias=False), BatchNorm(), relu, ops.flatten, Dense(2))
    rows = summarize(model, (5, 6, 3)).rows
    assert [(row.weights, row.biases, row.state) for row in rows] == [
        (3 * 3 * 3 * 4, 0, 0),
        (4, 4, 8),
        (0, 0, 0),
        (0, 0, 0),
        (3 * 4 * 4 * 2, 2, 0),
    ]
    assert [row.activation_bytes for row in rows] == [192, 192, 192, 192, 8]
    table = summarize(model, (5, 6, 3))
    assert table.share(table.rows[0]) == 108 / (108 + 8 + 98)


def test_training_macs_skip_unneeded_input_gradients():
    model = serial(MaxPool(2), parallel(Conv(2, 1), relu), residual(Conv(5, 1)), ops.flatten, Dense(3))
    rows = {row.name: row for row in summarize(model, (8, 8, 3)).rows}
    multiples = {name: row.training_macs / row.macs for name, row in rows.items() if row.params}
    assert multiples == {"parallel1/conv1": 2, "res1/body/conv1": 3, "dense1": 3}


def test_effective_strides_match_lecture():  # row 001-17
    rows = summarize(models.mnist_cnn(), (28, 28, 1)).rows
    assert [row.effective_stride for row in rows if row.kind in ("conv", "max_pool")] == [
        (n, n) for n in (1, 2, 2, 4, 4)
    ]


def _flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_macs_match_xla_for_layers():
    """XLA counts a multiply-add as two FLOPs and skips padding, so these layers have none."""
    for layer, input_shape in [
        (Conv(6, 5, use_bias=False, impl="lax"), (14, 13, 3)),
        (Conv(8, (3, 2), stride=2, groups=2, use_bias=False, impl="lax"), (11, 12, 4)),
        (Dense(30, use_bias=False), (70,)),
    ]:
        params, state = layer.init(jax.random.key(0), input_shape)
        x = np.zeros((4, *input_shape), np.float32)
        row = summarize(layer, input_shape).rows[0]
        forward = _flops(lambda p, x, layer=layer, state=state: layer.apply(p, state, x)[0], params, x)
        assert forward == 2 * 4 * row.macs


def test_macs_match_xla_for_lenet5():
    model = models.lenet5(impl="lax")
    params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(0), (32, 32, 1))
    x, table = np.zeros((1, 32, 32, 1), np.float32), summarize(model, (32, 32, 1))
    flops = _flops(lambda p, x: model.apply(p, state, x)[0], params, x)
    # One bias addition per output, and three comparisons per pooled output. (XLA counts tanh separately.)
    other_flops = sum(
        np.prod(row.shape) * {"conv": 1, "dense": 1, "max_pool": 3}.get(row.kind, 0) for row in table.rows
    )
    assert flops == 2 * table.macs + other_flops


def test_format_summary_formats():
    table = summarize(models.lenet5(), (32, 32, 1))
    parsed = json.loads(format_summary(table, "json"))
    assert parsed["total"]["params"] == 61_706 and parsed["total"]["macs"] == 416_520
    assert parsed["layers"][0]["dense_params"] == 4_816_896 and parsed["layers"][3]["receptive_field"] == [14, 14]
    for format in ("terminal", "text", "markdown"):
        text = format_summary(table, format)
        assert "4,816,896" in text and "61,470" in text and "(28, 28, 6)" in text
    markdown = format_summary(table, "markdown").splitlines()
    assert len(markdown) == 2 + 12 + 1 and len({line.count("|") for line in markdown}) == 1
    narrow = format_summary(table, "terminal", width=80)
    assert max(map(len, narrow.splitlines()[:-1])) <= 80 and "dense params" in narrow.splitlines()[-1]
    assert "4,816,896" not in narrow
    with pytest.raises(InputError, match="summary: unknown format 'html'"):
        format_summary(table, "html")


def test_summarize_does_not_compile_or_allocate():
    jax.clear_caches()
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    try:
        table = summarize(serial(Conv(3, 3), BatchNorm(), ops.flatten, Dense(10**6)), (2**10, 2**10, 3))  # 12 terabytes
    finally:
        jax.monitoring.clear_event_listeners()
    assert table.params > 3 * 10**12
    assert not [name for name in events if "backend_compile" in name]


def test_facts_are_in_rows_but_not_in_json():
    table = summarize(serial(Conv(2, 3), relu), (5, 5, 1))
    assert table.rows[0].facts.kernel_use == "slide" and table.rows[1].facts.rectifies
    assert set(table.to_dict()["layers"][0]) == {*LayerSummary._fields, "params", "share"} - {"facts"}
