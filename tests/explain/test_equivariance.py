"""Moved images: accuracy and features, layers that move with them, and pixels that are looked at more than others."""

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


def moved_by_loops(images, down, right, padding_mode):
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


def built(model, input_shape, seed=0):
    return (model, *jax.jit(model.init, static_argnums=1)(jax.random.key(seed), input_shape))


@pytest.fixture(scope="module")
def small():
    return built(serial(Conv(3, 3), relu, MaxPool(2), flatten, Dense(5), relu, Dense(4)), (8, 7, 2))


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("by", [(0, 0), (2, -3), (-1, 4), (5, 6)])
def test_a_moved_image_is_what_loops_make_of_it(rng, padding_mode, by):
    x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    np.testing.assert_array_equal(shift_images(x, *by, padding_mode), moved_by_loops(x, *by, padding_mode))


@pytest.mark.parametrize(("axis", "padding_mode"), [("x", "zeros"), ("y", "replicate"), ("both", "circular")])
def test_the_translation_test_is_what_the_network_makes_of_each_moved_image(small, rng, axis, padding_mode):
    model, params, state = small
    images, labels = rng.integers(0, 256, (7, 8, 7, 2), np.uint8), rng.integers(0, 4, 7)
    shifts = [-2, 0, 1, 6]

    def look(x):  # the features before dense2 come out of relu2
        maps = explain.feature_maps(model, params, state, x, layers=("relu2", "dense2"))
        return np.asarray(maps["relu2"], np.float64), np.asarray(maps["dense2"]).argmax(1)

    before, said_before = look(images)
    found = explain.translation_test(
        model, params, state, images, labels, shifts=shifts, axis=axis, padding_mode=padding_mode, batch_size=3
    )
    assert [each.shift for each in found] == shifts
    for each in found:
        by = {"x": (0, each.shift), "y": (each.shift, 0), "both": (each.shift, each.shift)}[axis]
        features, said = look(moved_by_loops(images, *by, padding_mode))
        assert each.accuracy == pytest.approx(np.mean(said == labels))
        assert each.consistency == pytest.approx(np.mean(said == said_before))
        ratio = np.linalg.norm(features - before, axis=1) / np.linalg.norm(before, axis=1)
        assert each.feature_distance == pytest.approx(ratio.mean(), rel=1e-5)
    assert found[1].consistency == 1 and found[1].feature_distance == 0
    assert found[3].feature_distance > 0.1


def test_all_shifts_are_one_compilation(small, rng):
    model, params, _ = small
    traced = []

    def counting(x):
        traced.append(1)
        return x

    counted = serial(counting, model)
    images, labels = rng.random((5, 8, 7, 2), np.float32), np.zeros(5, int)
    counts = []
    for shifts in ([1], [2], range(-6, 7)):  # the first time what is only shapes is traced too, and remembered
        traced.clear()
        explain.translation_test(counted, {"serial1": params}, {}, images, labels, shifts=shifts, batch_size=2)
        counts.append(len(traced))
    assert counts[1] == counts[2]  # thirteen shifts and three batches are traced as often as one shift


def test_circular_convolution_and_global_pooling_do_not_notice_a_move_and_a_dense_network_does(rng):
    images, labels = rng.random((6, 8, 8, 1), np.float32), np.zeros(6, int)
    body = Conv(8, 3, padding="SAME", padding_mode="circular"), relu
    invariant = built(serial(*body, global_avg_pool, Dense(3)), (8, 8, 1))
    dense = built(serial(flatten, Dense(8), relu, Dense(3)), (8, 8, 1))
    options = {"shifts": range(-7, 8), "padding_mode": "circular"}
    assert all(
        each.consistency == 1 and each.feature_distance < 1e-5
        for each in explain.translation_test(*invariant, images, labels, **options)
    )
    moves = [each for each in explain.translation_test(*dense, images, labels, **options) if each.shift]
    assert min(each.feature_distance for each in moves) > 0.1


def test_without_a_kernel_the_logits_are_the_features_and_dark_ones_are_at_no_distance(rng):
    model = built(serial(flatten, lambda x: x[:, :3]), (4, 4, 1))
    images = rng.random((2, 4, 4, 1), np.float32)
    images[1] = 0
    [each] = explain.translation_test(*model, images, np.zeros(2, int), shifts=[1], axis="x")
    by_hand = np.linalg.norm(
        [images[0, 0, 0] - 0, images[0, 0, 1] - images[0, 0, 0], images[0, 0, 2] - images[0, 0, 1]]
    )
    assert each.feature_distance == pytest.approx(by_hand / np.linalg.norm(images[0, 0, :3]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (r"translation_test: images \(0, 8, 7, 2\) hold none", {"images": np.zeros((0, 8, 7, 2)), "labels": []}),
        (r"translation_test: labels int\d+\(2,\) should be 3 integers", {"labels": np.zeros(2, int)}),
        (r"translation_test: labels go from 0 to 4", {"labels": np.array([0, 4, 1])}),
        (r"unknown axis 'z'.* Known: x, y, both", {"axis": "z"}),
        (r"unknown padding_mode 'zero': did you mean 'zeros'\?", {"padding_mode": "zero"}),
        (r"a shift of 7 should be an int from -6 to 6", {"shifts": [7]}),
        (r"a shift of 0.5 should be an int", {"shifts": [0.5]}),
        (r"translation_test: batch_size=0", {"batch_size": 0}),
    ],
)
def test_the_translation_test_tells_what_cannot_be(small, said, change):
    given = {"images": np.zeros((3, 8, 7, 2), np.float32), "labels": np.zeros(3, int)} | change
    with pytest.raises(InputError, match=said):
        explain.translation_test(*small, given.pop("images"), given.pop("labels"), **given)


def test_convolution_around_the_border_commutes_with_rolling_exactly(rng):
    """Lecture row 001-04: an 8 is an 8 no matter where."""
    model, params, state = built(serial(Conv(4, (3, 2), padding="SAME", padding_mode="circular"), relu), (7, 6, 2))
    x = rng.normal(size=(2, 7, 6, 2)).astype(np.float32)
    rolled = model.apply(params, state, np.roll(x, (3, -2), (1, 2)))[0]
    np.testing.assert_allclose(rolled, np.roll(model.apply(params, state, x)[0], (3, -2), (1, 2)), atol=1e-6)


def test_a_dense_layer_that_sees_the_pixels_flattened_does_not(rng):
    """Lecture row 004-03: shared weights find the same feature anywhere; those of a dense layer do not."""
    x = rng.normal(size=(2, 6, 6, 1)).astype(np.float32)
    errors = {}
    for name, layers in {
        "shared": (Conv(1, 3, padding="SAME", padding_mode="circular"),),
        "dense": (flatten, Dense(36), lambda y: y.reshape(-1, 6, 6, 1)),
    }.items():
        model, params, state = built(serial(*layers), (6, 6, 1))
        wanted = np.roll(model.apply(params, state, x)[0], 1, 2)
        errors[name] = np.linalg.norm(model.apply(params, state, np.roll(x, 1, 2))[0] - wanted) / np.linalg.norm(wanted)
    assert errors["shared"] < 1e-6 and errors["dense"] > 0.5


STEPS = serial(
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
def test_what_computes_the_same_everywhere_has_no_error_where_its_jump_divides_the_shift(rng, shift):
    network = built(STEPS, (26, 25, 1))
    x = rng.normal(size=(2, 26, 25, 1)).astype(np.float32)
    error = explain.equivariance_error(*network, x, shift=shift)
    assert list(error) == [name for name in explain.layer_names(STEPS) if name not in ("flatten1", "dense1")]
    # Only conv2 steps by 4 pixels; all shifts are of even numbers.
    assert [name for name, value in error.items() if value is None] == (["conv2"] if shift != -4 else [])
    assert max(float(value) for value in error.values() if value is not None) < 1e-5


@pytest.mark.parametrize("shift", [1, -1])
def test_where_the_jump_does_not_divide_the_shift_no_place_is_the_same_and_the_nearest_differs(rng, shift):
    network = built(STEPS, (21, 19, 1))
    x = rng.normal(size=(2, 21, 19, 1)).astype(np.float32)
    error = explain.equivariance_error(*network, x, shift=(shift, 0))
    assert [name for name, value in error.items() if value is not None] == ["conv1", "relu1"]
    near = explain.equivariance_error(*network, x, shift=(shift, 0), nearest=True)
    assert near["conv1"] == error["conv1"] < 1e-5 and 0.2 < near["max_pool1"] < 2
    # By loops: the pooled rows of the moved image, beside those of the image that begin one pixel further down.
    model, params, _ = network
    pool = serial(*[part for _, part in model.children[:3]])
    pooled = [
        np.asarray(pool.apply({"conv1": params["conv1"]}, {}, y)[0]) for y in (moved_by_loops(x, shift, 0, "zeros"), x)
    ]
    there, here = [], []
    # Place p sees rows 2p to 2p + 4; of the moved image only rows 1 to 20, or 0 to 19, are the image's.
    for p in range(9):
        q = p if shift == 1 else p + 1
        if max(0, shift) <= 2 * p and 2 * p + 4 <= 21 + min(0, shift) and q < 9:
            there.append(pooled[0][:, p])
            here.append(pooled[1][:, q])
    wanted = np.linalg.norm(np.subtract(there, here)) / np.linalg.norm(here)
    assert near["max_pool1"] == pytest.approx(wanted, rel=1e-5)


def test_what_depends_on_the_place_has_an_error(rng):
    def fades(x):
        return x * jnp.linspace(1, 2, x.shape[1], dtype=x.dtype)[None, :, None, None]

    network = built(serial(Conv(2, 3), fades), (9, 9, 1))
    x = rng.normal(size=(1, 9, 9, 1)).astype(np.float32)
    down = explain.equivariance_error(*network, x, shift=(2, 0))
    across = explain.equivariance_error(*network, x, shift=(0, 2))
    # The first time too large by 1/6 a row, of what is between 1 and 2.
    assert down["conv1"] < 1e-5 and 0.1 < down["fades1"] < 0.4 and across["fades1"] < 1e-5


def test_it_works_under_jit_and_says_where_nothing_is_left(rng):
    model, params, state = built(serial(Conv(2, 3), Conv(2, 3), Conv(2, 3)), (8, 8, 1))
    x = rng.normal(size=(1, 8, 8, 1)).astype(np.float32)
    error = jax.jit(lambda x: explain.equivariance_error(model, params, state, x, shift=-3))(x)
    # 5 pixels of each side are still the image's: enough for two 3×3 convolutions and no third.
    assert error["conv2"] < 1e-5 and error["conv3"] is None
    for said, images, shift in [
        (r"shift=8 should be an int", x, 8),
        (r"shift=0.5 should be an int", x, 0.5),
        (r"shift=\(1, 2, 3\) should be", x, (1, 2, 3)),
        (r"images \(0, 8, 8, 1\) hold none", x[:0], 1),
        (r"images \(8, 8, 1\) should be \(N, H, W, C\)", x[0], 1),
    ]:
        with pytest.raises(InputError, match=said):
            explain.equivariance_error(model, params, state, images, shift=shift)


@pytest.mark.parametrize(
    ("layers", "input_shape"),
    [
        ((Conv(2, 3), AvgPool(2), Conv(1, (2, 3), stride=(2, 1), padding="SAME")), (12, 10, 1)),
        ((Conv(1, 3, stride=2, padding=1), residual(Conv(1, 3, padding="SAME"))), (8, 9, 1)),
        ((Conv(1, 4, padding=((1, 2), (0, 3))), AvgPool(3, stride=2)), (7, 8, 2)),
    ],
)
def test_coverage_is_how_many_outputs_have_a_gradient_at_each_pixel(layers, input_shape):
    model, params, state = built(serial(*layers), input_shape)
    params = jax.tree.map(lambda p: jnp.abs(p) + 0.1, params)  # so that nothing cancels
    last = explain.layer_names(model)[-1]
    gradient = np.asarray(
        jax.jacrev(lambda x: model.apply(params, state, x)[0][0, ..., 0])(jnp.ones((1, *input_shape)))
    )
    counts = np.zeros(input_shape[:2], int)
    for place in np.ndindex(gradient.shape[:2]):
        counts += gradient[place][0].any(-1)
    np.testing.assert_array_equal(explain.coverage_map(model, input_shape), counts)
    np.testing.assert_array_equal(explain.coverage_map(model, input_shape, layer=last), counts)


def test_coverage_of_one_convolution_is_that_of_its_window():
    """Lecture row 001-23: pixel (1, 1) feeds one hidden unit, (2, 2) four, (3, 3) nine."""
    found = explain.coverage_map(serial(Conv(5, 3), relu, flatten, Dense(2)), (7, 7, 1))
    np.testing.assert_array_equal(found, shapes.coverage(shapes.Window(3), (7, 7)))
    assert found.diagonal()[:3].tolist() == [1, 4, 9]
    window = shapes.Window((3, 4), stride=(2, 1), padding=((1, 0), (2, 2)))
    model = serial(Conv(5, (3, 4), stride=(2, 1), padding=((1, 0), (2, 2))))
    np.testing.assert_array_equal(explain.coverage_map(model, (8, 6, 1)), shapes.coverage(window, (8, 6)))


def test_the_deeper_the_layer_the_less_corners_are_used():
    """Lecture row 002-18, the second of two issues: beside the centre, a corner is used ever less."""
    model = serial(*[Conv(2, 3)] * 4)
    maps = [explain.coverage_map(model, (10, 10, 1), layer=f"conv{i}") for i in (1, 2, 3, 4)]
    assert [each[0, 0] for each in maps] == [1, 1, 1, 1]
    assert [each[4, 4] for each in maps] == [9, 25, 16, 4]  # of 64, 36, 16 and 4 outputs
    kept = explain.coverage_map(serial(Conv(2, 3, padding="SAME")), (10, 10, 1))
    assert (kept[0, 0], kept[4, 4]) == (4, 9)


def test_coverage_tells_which_layers_have_places(small):
    model, *_ = small
    with pytest.raises(InputError, match=r"coverage_map: unknown layer 'conv2': did you mean 'conv1'\?"):
        explain.coverage_map(model, (8, 7, 2), layer="conv2")
    with pytest.raises(InputError, match=r"dense1 have no known place .*: conv1, relu1, max_pool1$"):
        explain.coverage_map(model, (8, 7, 2), layer="dense1")
    with pytest.raises(InputError, match=r"coverage_map: the outputs of dense1 have no known place .*: none$"):
        explain.coverage_map(serial(flatten, Dense(2)), (8, 7, 2))


def test_every_3x3_layer_loses_two_pixels_so_ten_last_for_four():
    """Lecture row 002-18, the first issue: the image shrinks, and the fifth layer has nothing left to look at."""
    sizes = []
    for depth in range(1, 5):
        model = serial(*[Conv(1, 3)] * depth)
        params, state = model.init(jax.random.key(0), (10, 10, 1))
        sizes.append(model.apply(params, state, jnp.ones((1, 10, 10, 1)))[0].shape[1:3])
    assert sizes == [(8, 8), (6, 6), (4, 4), (2, 2)]
    with pytest.raises(InputError, match=r"^conv5: conv: window \(3, 3\) on an input of \(2, 2\)"):
        serial(*[Conv(1, 3)] * 5).init(jax.random.key(0), (10, 10, 1))


def test_figures_show_the_boxes_the_counts_and_the_curves(rng):
    figure = plot.receptive_field(rng.random((9, 8, 1)), {"conv1": ((-1, 2), (3, 6)), "conv2": ((-2, 5), (1, 8))})
    frames = {
        patch.get_label(): (patch.get_y(), patch.get_x(), patch.get_height(), patch.get_width())
        for patch in figure.axes[0].patches
    }
    assert frames == {"conv1: 3×3": (-1.5, 2.5, 3, 3), "conv2: 7×7": (-2.5, 0.5, 7, 7)}  # pixel (0, 0) is about (0, 0)
    (left, right), (below, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert left < -0.5 and right > 7.5 and below > 8.5 and top < -2.5  # also what is outside of the image
    counts = shapes.coverage(shapes.Window((2, 3)), (5, 4))
    axes = plot.coverage(counts).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), counts)
    shown = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in axes.texts}
    assert shown == dict(np.ndenumerate(counts))
    rows = [explain.ShiftResult(1, 0.5, 0.6, 0.7), explain.ShiftResult(-1, 0.2, 0.3, 0.4)]
    for axes, *wanted in zip(plot.accuracy_vs_shift({"cnn": rows}).axes, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)):
        assert axes.lines[0].get_xydata().tolist() == [[-1, wanted[0]], [1, wanted[1]]]
    curve = plots.accuracy_vs_num_samples({"mlp": {1000: [0.9, 0.7], 10: [0.5, 0.5]}}).axes[0]
    assert curve.lines[0].get_xydata().tolist() == [[10, 0.5], [1000, pytest.approx(0.8)]]


def test_the_figure_of_distortions_has_the_image_at_each_strength_above_each_panel(rng):
    image = rng.integers(0, 256, (14, 10, 1), np.uint8)
    results = {"cnn": {"contrast": [(1.0, 0.9), (0.5, 0.4)], "own": [(0, 1.0)]}}
    figure = plot.accuracy_vs_severity(results, image)
    above, panel = (next(axes for axes in figure.axes if axes.get_subplotspec().rowspan.start == row) for row in (0, 1))
    assert above.get_title() == "contrast" and panel.lines[0].get_xydata().tolist() == [[0.5, 0.4], [1.0, 0.9]]
    strip = above.images[0].get_array()
    assert strip.shape == (14, 21, 3)  # the stronger first, a gap of one pixel, and the image as it is
    np.testing.assert_array_equal(strip[:, 11:, 0], image[..., 0])
    wanted = image.mean() + 0.5 * (image[..., 0] - image.mean())
    assert np.abs(strip[:, :10, 1] - wanted).max() < 1


def test_figures_tell_what_cannot_be():
    for said, call in [
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
        with pytest.raises(InputError, match=said):
            call()


def test_the_mean_of_translation_tests_is_taken_shift_by_shift(rng):
    numbers = rng.random((3, 4, 3))  # networks, shifts, measures
    tests = [[explain.ShiftResult(k - 1, *row) for k, row in enumerate(each)] for each in numbers]
    means = explain.mean_shift_results(tests)
    assert [row.shift for row in means] == [-1, 0, 1, 2]
    np.testing.assert_allclose([row[1:] for row in means], numbers.mean(0))
    for wrong in ([], [tests[0], tests[1][:-1]], [tests[0], tests[1][::-1]]):
        with pytest.raises(
            InputError, match="mean_shift_results: give at least one translation test, and all by the same"
        ):
            explain.mean_shift_results(wrong)
