"""Translation tests, equivariance errors and coverage maps, with their plots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import plots
from jaxconv import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    InputError,
    MaxPool,
    explain,
    flatten,
    global_avg_pool,
    parallel,
    plot,
    relu,
    residual,
    serial,
    shapes,
)
from jaxconv.explain.equivariance import shift_images


def shift_by_loops(images, down, right, padding_mode):
    y = np.zeros_like(images)
    _, height, width, _ = images.shape
    for i in range(height):
        for j in range(width):
            a, b = i - down, j - right
            if padding_mode == "circular":
                a, b = a % height, b % width
            if padding_mode == "replicate":
                a, b = min(max(a, 0), height - 1), min(max(b, 0), width - 1)
            if 0 <= a < height and 0 <= b < width:
                y[:, i, j] = images[:, a, b]
    return y


def init_network(model, input_shape, seed=0):
    return (model, *jax.jit(model.init, static_argnums=1)(jax.random.key(seed), input_shape))


@pytest.fixture(scope="module")
def small_network():
    return init_network(serial(Conv(3, 3), relu, MaxPool(2), flatten, Dense(5), relu, Dense(4)), (8, 7, 2))


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("offset", [(0, 0), (2, -3), (-1, 4), (5, 6)])
def test_shift_images_matches_loops(rng, padding_mode, offset):
    x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    np.testing.assert_array_equal(shift_images(x, *offset, padding_mode), shift_by_loops(x, *offset, padding_mode))


@pytest.mark.parametrize(("axis", "padding_mode"), [("x", "zeros"), ("y", "replicate"), ("both", "circular")])
def test_translation_test_matches_loop_over_shifts(small_network, rng, axis, padding_mode):
    model, params, state = small_network
    images, labels = rng.integers(0, 256, (7, 8, 7, 2), np.uint8), rng.integers(0, 4, 7)
    shifts = [-2, 0, 1, 6]

    def forward(x):  # dense2 is the last layer with a kernel; its input is the output of relu2
        maps = explain.feature_maps(model, params, state, x, layers=("relu2", "dense2"))
        return np.asarray(maps["relu2"], np.float64), np.asarray(maps["dense2"]).argmax(1)

    features, predicted = forward(images)
    results = explain.translation_test(
        model, params, state, images, labels, shifts=shifts, axis=axis, padding_mode=padding_mode, batch_size=3
    )
    assert [result.shift for result in results] == shifts
    for result in results:
        offset = {"x": (0, result.shift), "y": (result.shift, 0), "both": (result.shift, result.shift)}[axis]
        shifted_features, shifted_predicted = forward(shift_by_loops(images, *offset, padding_mode))
        assert result.accuracy == pytest.approx(np.mean(shifted_predicted == labels))
        assert result.consistency == pytest.approx(np.mean(shifted_predicted == predicted))
        ratio = np.linalg.norm(shifted_features - features, axis=1) / np.linalg.norm(features, axis=1)
        assert result.feature_distance == pytest.approx(ratio.mean(), rel=1e-5)
    assert results[1].consistency == 1 and results[1].feature_distance == 0
    assert results[3].feature_distance > 0.1


def test_translation_test_compiles_once_for_all_shifts(small_network, rng):
    model, params, _ = small_network
    traces = []

    def count_traces(x):
        traces.append(1)
        return x

    traced_model = serial(count_traces, model)
    images, labels = rng.random((5, 8, 7, 2), np.float32), np.zeros(5, int)
    counts = []
    for shifts in ([1], [2], range(-6, 7)):  # the first call also traces shapes, which are cached
        traces.clear()
        explain.translation_test(traced_model, {"serial1": params}, {}, images, labels, shifts=shifts, batch_size=2)
        counts.append(len(traces))
    assert counts[1] == counts[2]  # 13 shifts and 3 batches trace as often as one shift


def test_translation_test_of_invariant_and_dense_networks(rng):
    images, labels = rng.random((6, 8, 8, 1), np.float32), np.zeros(6, int)
    layers = Conv(8, 3, padding="SAME", padding_mode="circular"), relu
    invariant = init_network(serial(*layers, global_avg_pool, Dense(3)), (8, 8, 1))
    dense = init_network(serial(flatten, Dense(8), relu, Dense(3)), (8, 8, 1))
    options = {"shifts": range(-7, 8), "padding_mode": "circular"}
    assert all(
        result.consistency == 1 and result.feature_distance < 1e-5
        for result in explain.translation_test(*invariant, images, labels, **options)
    )
    shifted = [result for result in explain.translation_test(*dense, images, labels, **options) if result.shift]
    assert min(result.feature_distance for result in shifted) > 0.1


def test_translation_test_without_kernel_uses_logits(rng):
    network = init_network(serial(flatten, lambda x: x[:, :3]), (4, 4, 1))
    images = rng.random((2, 4, 4, 1), np.float32)
    images[1] = 0
    [result] = explain.translation_test(*network, images, np.zeros(2, int), shifts=[1], axis="x")
    distance = np.linalg.norm(
        [images[0, 0, 0] - 0, images[0, 0, 1] - images[0, 0, 0], images[0, 0, 2] - images[0, 0, 1]]
    )
    assert result.feature_distance == pytest.approx(distance / np.linalg.norm(images[0, 0, :3]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (
            r"translation_test: images must be .* with N >= 1, got shape \(0, 8, 7, 2\)",
            {"images": np.zeros((0, 8, 7, 2)), "labels": []},
        ),
        (r"translation_test: labels int\d+\(2,\) should be 3 integers", {"labels": np.zeros(2, int)}),
        (r"translation_test: labels go from 0 to 4", {"labels": np.array([0, 4, 1])}),
        (r"unknown axis 'z'.* Known: x, y, both", {"axis": "z"}),
        (r"unknown padding_mode 'zero': did you mean 'zeros'\?", {"padding_mode": "zero"}),
        (r"shifts must be ints from -6 to 6 for images of .* got 7", {"shifts": [7]}),
        (r"shifts must be ints .* got 0.5", {"shifts": [0.5]}),
        (r"translation_test: batch_size=0", {"batch_size": 0}),
    ],
)
def test_translation_test_invalid_arguments_raise(small_network, message, changes):
    arguments = {"images": np.zeros((3, 8, 7, 2), np.float32), "labels": np.zeros(3, int)} | changes
    with pytest.raises(InputError, match=message):
        explain.translation_test(*small_network, arguments.pop("images"), arguments.pop("labels"), **arguments)


def test_circular_convolution_commutes_with_roll(rng):
    """Lecture row 001-04: an 8 is an 8 at any position."""
    model, params, state = init_network(
        serial(Conv(4, (3, 2), padding="SAME", padding_mode="circular"), relu), (7, 6, 2)
    )
    x = rng.normal(size=(2, 7, 6, 2)).astype(np.float32)
    rolled = model.apply(params, state, np.roll(x, (3, -2), (1, 2)))[0]
    np.testing.assert_allclose(rolled, np.roll(model.apply(params, state, x)[0], (3, -2), (1, 2)), atol=1e-6)


def test_dense_layer_does_not_commute_with_roll(rng):
    """Lecture row 004-03: shared weights detect a feature at any position; those of a dense layer do not."""
    x = rng.normal(size=(2, 6, 6, 1)).astype(np.float32)
    errors = {}
    for name, layers in {
        "shared": (Conv(1, 3, padding="SAME", padding_mode="circular"),),
        "dense": (flatten, Dense(36), lambda y: y.reshape(-1, 6, 6, 1)),
    }.items():
        model, params, state = init_network(serial(*layers), (6, 6, 1))
        expected = np.roll(model.apply(params, state, x)[0], 1, 2)
        actual = model.apply(params, state, np.roll(x, 1, 2))[0]
        errors[name] = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert errors["shared"] < 1e-6 and errors["dense"] > 0.5


STRIDED_MODEL = serial(
    Conv(3, 3),
    relu,
    MaxPool(2),
    residual(BatchNorm(), Conv(3, 3, padding="SAME")),
    parallel(Conv(2, 1), AvgPool(3, stride=1, padding="SAME")),
    Conv(4, 2, stride=2),
    flatten,
    Dense(3),
)


@pytest.mark.parametrize("shift", [2, -4, (4, -2), (0, 2)])
def test_equivariance_error_is_zero_if_stride_divides_shift(rng, shift):
    network = init_network(STRIDED_MODEL, (26, 25, 1))
    x = rng.normal(size=(2, 26, 25, 1)).astype(np.float32)
    error = explain.equivariance_error(*network, x, shift=shift)
    assert list(error) == [name for name in explain.layer_names(STRIDED_MODEL) if name not in ("flatten1", "dense1")]
    # Only conv2 has an effective stride of 4; all shifts are even.
    assert [name for name, value in error.items() if value is None] == (["conv2"] if shift != -4 else [])
    assert max(float(value) for value in error.values() if value is not None) < 1e-5


@pytest.mark.parametrize("shift", [1, -1])
def test_equivariance_error_nearest_matches_loops(rng, shift):
    network = init_network(STRIDED_MODEL, (21, 19, 1))
    x = rng.normal(size=(2, 21, 19, 1)).astype(np.float32)
    error = explain.equivariance_error(*network, x, shift=(shift, 0))
    assert [name for name, value in error.items() if value is not None] == ["conv1", "relu1"]
    nearest = explain.equivariance_error(*network, x, shift=(shift, 0), nearest=True)
    assert nearest["conv1"] == error["conv1"] < 1e-5 and 0.2 < nearest["max_pool1"] < 2
    # Loop over the pooled rows of the shifted image and the nearest pooled rows of the image.
    model, params, _ = network
    pool = serial(*[child for _, child in model.children[:3]])
    pooled = [
        np.asarray(pool.apply({"conv1": params["conv1"]}, {}, y)[0]) for y in (shift_by_loops(x, shift, 0, "zeros"), x)
    ]
    shifted_rows, rows = [], []
    # Position p depends on rows 2p to 2p + 4; rows 1 to 20, or 0 to 19, of the shifted image are not padding.
    for p in range(9):
        q = p if shift == 1 else p + 1
        if max(0, shift) <= 2 * p and 2 * p + 4 <= 21 + min(0, shift) and q < 9:
            shifted_rows.append(pooled[0][:, p])
            rows.append(pooled[1][:, q])
    expected = np.linalg.norm(np.subtract(shifted_rows, rows)) / np.linalg.norm(rows)
    assert nearest["max_pool1"] == pytest.approx(expected, rel=1e-5)


def test_equivariance_error_detects_position_dependence(rng):
    def fade(x):
        return x * jnp.linspace(1, 2, x.shape[1], dtype=x.dtype)[None, :, None, None]

    network = init_network(serial(Conv(2, 3), fade), (9, 9, 1))
    x = rng.normal(size=(1, 9, 9, 1)).astype(np.float32)
    down = explain.equivariance_error(*network, x, shift=(2, 0))
    across = explain.equivariance_error(*network, x, shift=(0, 2))
    # The factor of 1 to 2 differs by 2/6 over two rows.
    assert down["conv1"] < 1e-5 and 0.1 < down["fade1"] < 0.4 and across["fade1"] < 1e-5


def test_equivariance_error_under_jit_and_invalid_shifts(rng):
    model, params, state = init_network(serial(Conv(2, 3), Conv(2, 3), Conv(2, 3)), (8, 8, 1))
    x = rng.normal(size=(1, 8, 8, 1)).astype(np.float32)
    error = jax.jit(lambda x: explain.equivariance_error(model, params, state, x, shift=-3))(x)
    # 5 pixels per axis remain: enough for two 3×3 convolutions, but not for a third.
    assert error["conv2"] < 1e-5 and error["conv3"] is None
    for message, images, shift in [
        (r"shift must be an int or a pair .* got 8", x, 8),
        (r"shift must be an int or a pair .* got 0.5", x, 0.5),
        (r"shift must be an int or a pair .* got \(1, 2, 3\)", x, (1, 2, 3)),
        (r"images must be .* with N >= 1, got shape \(0, 8, 8, 1\)", x[:0], 1),
        (r"images \(8, 8, 1\) should be \(N, H, W, C\)", x[0], 1),
    ]:
        with pytest.raises(InputError, match=message):
            explain.equivariance_error(model, params, state, images, shift=shift)


@pytest.mark.parametrize(
    ("layers", "input_shape"),
    [
        ((Conv(2, 3), AvgPool(2), Conv(1, (2, 3), stride=(2, 1), padding="SAME")), (12, 10, 1)),
        ((Conv(1, 3, stride=2, padding=1), residual(Conv(1, 3, padding="SAME"))), (8, 9, 1)),
        ((Conv(1, 4, padding=((1, 2), (0, 3))), AvgPool(3, stride=2)), (7, 8, 2)),
    ],
)
def test_coverage_map_counts_nonzero_gradients(layers, input_shape):
    model, params, state = init_network(serial(*layers), input_shape)
    params = jax.tree.map(lambda p: jnp.abs(p) + 0.1, params)  # positive, so that no gradient cancels
    last = explain.layer_names(model)[-1]
    gradient = np.asarray(
        jax.jacrev(lambda x: model.apply(params, state, x)[0][0, ..., 0])(jnp.ones((1, *input_shape)))
    )
    counts = np.zeros(input_shape[:2], int)
    for position in np.ndindex(gradient.shape[:2]):
        counts += gradient[position][0].any(-1)
    np.testing.assert_array_equal(explain.coverage_map(model, input_shape), counts)
    np.testing.assert_array_equal(explain.coverage_map(model, input_shape, layer=last), counts)


def test_coverage_map_of_one_convolution_matches_window():
    """Lecture row 001-23: pixel (1, 1) feeds one hidden unit, (2, 2) four, (3, 3) nine."""
    coverage = explain.coverage_map(serial(Conv(5, 3), relu, flatten, Dense(2)), (7, 7, 1))
    np.testing.assert_array_equal(coverage, shapes.coverage(shapes.Window(3), (7, 7)))
    assert coverage.diagonal()[:3].tolist() == [1, 4, 9]
    window = shapes.Window((3, 4), stride=(2, 1), padding=((1, 0), (2, 2)))
    model = serial(Conv(5, (3, 4), stride=(2, 1), padding=((1, 0), (2, 2))))
    np.testing.assert_array_equal(explain.coverage_map(model, (8, 6, 1)), shapes.coverage(window, (8, 6)))


def test_coverage_map_of_corners_falls_with_depth():
    """Lecture row 002-18, the second issue: relative to the center, corners are used less in deeper layers."""
    model = serial(*[Conv(2, 3)] * 4)
    maps = [explain.coverage_map(model, (10, 10, 1), layer=f"conv{i}") for i in (1, 2, 3, 4)]
    assert [counts[0, 0] for counts in maps] == [1, 1, 1, 1]
    assert [counts[4, 4] for counts in maps] == [9, 25, 16, 4]  # of 64, 36, 16 and 4 outputs
    same_padding = explain.coverage_map(serial(Conv(2, 3, padding="SAME")), (10, 10, 1))
    assert (same_padding[0, 0], same_padding[4, 4]) == (4, 9)


def test_coverage_map_rejects_layers_without_field(small_network):
    model, *_ = small_network
    with pytest.raises(InputError, match=r"coverage_map: unknown layer 'conv2': did you mean 'conv1'\?"):
        explain.coverage_map(model, (8, 7, 2), layer="conv2")
    with pytest.raises(InputError, match=r"receptive field of layer dense1 is unknown; .*: conv1, relu1, max_pool1$"):
        explain.coverage_map(model, (8, 7, 2), layer="dense1")
    with pytest.raises(InputError, match=r"coverage_map: the receptive field of layer dense1 is unknown; .*: none$"):
        explain.coverage_map(serial(flatten, Dense(2)), (8, 7, 2))


def test_valid_3x3_layers_shrink_ten_pixels_to_two():
    """Lecture row 002-18, the first issue: the image shrinks, and a fifth layer does not fit."""
    sizes = []
    for depth in range(1, 5):
        model = serial(*[Conv(1, 3)] * depth)
        params, state = model.init(jax.random.key(0), (10, 10, 1))
        sizes.append(model.apply(params, state, jnp.ones((1, 10, 10, 1)))[0].shape[1:3])
    assert sizes == [(8, 8), (6, 6), (4, 4), (2, 2)]
    with pytest.raises(InputError, match=r"^conv5: conv: window \(3, 3\) on an input of \(2, 2\)"):
        serial(*[Conv(1, 3)] * 5).init(jax.random.key(0), (10, 10, 1))


def test_plots_show_fields_counts_and_curves(rng):
    figure = plot.receptive_field(rng.random((9, 8, 1)), {"conv1": ((-1, 2), (3, 6)), "conv2": ((-2, 5), (1, 8))})
    frames = {
        patch.get_label(): (patch.get_y(), patch.get_x(), patch.get_height(), patch.get_width())
        for patch in figure.axes[0].patches
    }
    # Pixel (0, 0) is centered at (0, 0).
    assert frames == {"conv1: 3×3": (-1.5, 2.5, 3, 3), "conv2: 7×7": (-2.5, 0.5, 7, 7)}
    (left, right), (below, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert left < -0.5 and right > 7.5 and below > 8.5 and top < -2.5  # includes the area outside the image
    counts = shapes.coverage(shapes.Window((2, 3)), (5, 4))
    axes = plot.coverage(counts).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), counts)
    displayed = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in axes.texts}
    assert displayed == dict(np.ndenumerate(counts))
    rows = [explain.ShiftResult(1, 0.5, 0.6, 0.7), explain.ShiftResult(-1, 0.2, 0.3, 0.4)]
    for axes, *expected in zip(plot.accuracy_vs_shift({"cnn": rows}).axes, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)):
        assert axes.lines[0].get_xydata().tolist() == [[-1, expected[0]], [1, expected[1]]]
    curve = plots.accuracy_vs_num_samples({"mlp": {1000: [0.9, 0.7], 10: [0.5, 0.5]}}).axes[0]
    assert curve.lines[0].get_xydata().tolist() == [[10, 0.5], [1000, pytest.approx(0.8)]]


def test_accuracy_vs_severity_shows_image_at_severities(rng):
    image = rng.integers(0, 256, (14, 10, 1), np.uint8)
    results = {"cnn": {"contrast": [(1.0, 0.9), (0.5, 0.4)], "own": [(0, 1.0)]}}
    figure = plot.accuracy_vs_severity(results, image)
    above, panel = (next(axes for axes in figure.axes if axes.get_subplotspec().rowspan.start == row) for row in (0, 1))
    assert above.get_title() == "contrast" and panel.lines[0].get_xydata().tolist() == [[0.5, 0.4], [1.0, 0.9]]
    strip = above.images[0].get_array()
    assert strip.shape == (14, 21, 3)  # severity 0.5, a gap of one pixel, and the original image
    np.testing.assert_array_equal(strip[:, 11:, 0], image[..., 0])
    expected = image.mean() + 0.5 * (image[..., 0] - image.mean())
    assert np.abs(strip[:, :10, 1] - expected).max() < 1


def test_plots_invalid_arguments_raise():
    for message, call in [
        ("receptive_field: give at least one layer's box", lambda: plot.receptive_field(np.zeros((4, 4, 1)), {})),
        ("receptive_field: give at least", lambda: plot.receptive_field(np.zeros((4, 4, 1)), {"conv1": (1, 2)})),
        (r"coverage: counts \(3,\) should be \(H, W\)", lambda: plot.coverage(np.zeros(3))),
        ("accuracy_vs_shift: there is no network", lambda: plot.accuracy_vs_shift({})),
        ("accuracy_vs_num_samples: there is no network", lambda: plots.accuracy_vs_num_samples({})),
        ("accuracy_vs_severity: give at least one network", lambda: plot.accuracy_vs_severity({})),
        ("accuracy_vs_severity: give at least one network and one", lambda: plot.accuracy_vs_severity({"a": {}})),
        (
            "the same ones for all",
            lambda: plot.accuracy_vs_severity({"a": {"blur": [(0, 1)]}, "b": {"noise": [(0, 1)]}}),
        ),
    ]:
        with pytest.raises(InputError, match=message):
            call()


def test_mean_shift_results_averages_each_shift(rng):
    values = rng.random((3, 4, 3))  # (networks, shifts, measures)
    tests = [[explain.ShiftResult(k - 1, *row) for k, row in enumerate(network_values)] for network_values in values]
    means = explain.mean_shift_results(tests)
    assert [row.shift for row in means] == [-1, 0, 1, 2]
    np.testing.assert_allclose([row[1:] for row in means], values.mean(0))
    for invalid in ([], [tests[0], tests[1][:-1]], [tests[0], tests[1][::-1]]):
        with pytest.raises(
            InputError, match="mean_shift_results: tests must contain at least one translation test, all with the same"
        ):
            explain.mean_shift_results(invalid)
