"""LeNet-5 of 1998: the numbers in the paper, layer by layer, and reference implementations in PyTorch and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import AvgPool, InputError, LpPool, models, ops, relu, serial
from jaxconv.explain import summarize
from jaxconv.models.lenets import C3, SparseConv, Subsample, fan_in_uniform, rbf_codes, rbf_distances, scaled_tanh

MODEL = models.lenet5_1998()
IN_SHAPE = (32, 32, 1)


@pytest.fixture(scope="module")
def params():
    """Return perturbed parameters, since the initial biases are 0."""
    initial, _ = jax.jit(MODEL.init, static_argnums=1)(jax.random.key(0), IN_SHAPE)
    leaves, tree = jax.tree.flatten(initial)
    rng = np.random.default_rng(1)
    return tree.unflatten([leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves])


def test_000_21_lenet5_1998_counts_match_paper():
    """The paper states 60,000 parameters and 340,908 connections, biases included (E5)."""
    table = summarize(MODEL, IN_SHAPE)
    layers = [row for row in table.rows if row.params]
    assert [row.params for row in layers] == [156, 12, 1_516, 32, 48_120, 10_164] and table.params == 60_000
    assert [row.shape for row in layers] == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120), (84,)]
    assert table.rows[-1].shape == (10,) and table.rows[-1].params == 0
    c1, c3, c5, f6 = (row for row in layers if row.kind != "subsample")
    connections = [row.macs + np.prod(row.shape) for row in (c1, c3, c5, f6)]
    assert connections == [122_304, 151_600, 48_120, 10_164]
    s2, s4 = ((4 + 1) * np.prod(row.shape) for row in layers if row.kind == "subsample")
    assert (s2, s4) == (5_880, 2_000) and sum(connections) + s2 + s4 + 84 * 10 == 340_908
    assert [row.kind for row in table.rows].count("scaled_tanh") == 6


def test_lenet5_1998_receptive_fields():
    """The receptive fields are 5, 6, 14, 16 and 32 pixels, as in the version of the lectures."""
    rows = summarize(MODEL, IN_SHAPE).rows
    assert [row.receptive_field for row in rows if row.params and row.receptive_field] == [
        (n, n) for n in (5, 6, 14, 16, 32)
    ]


def test_c3_table_matches_paper():
    """Six maps have three adjacent inputs, six have four, three have two pairs, one has all; no two are equal."""
    assert [len(inputs) for inputs in C3] == [3] * 6 + [4] * 9 + [6]
    assert len({frozenset(inputs) for inputs in C3}) == 16
    for width, maps in ((3, C3[:6]), (4, C3[6:12])):
        assert {frozenset(inputs) for inputs in maps} == {
            frozenset((start + i) % 6 for i in range(width)) for start in range(6)
        }
    for inputs in C3[12:15]:  # the two unconnected maps are opposite
        unconnected = sorted(set(range(6)) - set(inputs))
        assert unconnected[1] - unconnected[0] == 3
    assert np.bincount(np.concatenate(C3)).tolist() == [10] * 6  # each row of the table in the paper has 10 crosses


def test_sparse_conv_matches_loops(x64, rng):
    table, window = [(3, 0), (1,), (0, 1, 4)], (3, 2)
    x = rng.normal(size=(2, 6, 5, 5))
    kernel, bias = rng.normal(size=(*window, 6)), rng.normal(size=3)
    expected = np.zeros((2, 4, 4, 3))
    for n, i, j in np.ndindex(2, 4, 4):
        pair = 0
        for o, inputs in enumerate(table):
            expected[n, i, j, o] = bias[o]
            for c in inputs:
                expected[n, i, j, o] += (x[n, i : i + 3, j : j + 2, c] * kernel[:, :, pair]).sum()
                pair += 1
    layer = SparseConv(table, window)
    params, _ = layer.init(jax.random.key(0), (6, 5, 5))
    assert jax.tree.map(jnp.shape, params) == {"kernel": (3, 2, 6), "bias": (3,)}
    for impl in ("auto", "explicit"):
        actual, _ = SparseConv(table, window, impl=impl).apply({"kernel": kernel, "bias": bias}, {}, x)
        np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_sparse_conv_weights_all_have_gradients(x64, rng):
    """All weights have a gradient, and an output does not depend on unconnected inputs."""
    table = [(0, 2), (1,)]
    layer, x = SparseConv(table, 2), rng.normal(size=(1, 4, 3, 3))
    params, _ = layer.init(jax.random.key(0), (4, 3, 3))
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)
    jacobian = jax.jacobian(lambda x: layer.apply(params, {}, x)[0].sum((0, 1, 2)))(x)  # (output, *x)
    has_gradient = np.asarray(jacobian != 0).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(has_gradient, [[True, False, True], [False, True, False]])
    gradient = jax.grad(lambda params: (layer.apply(params, {}, x)[0] ** 2).sum())(params)
    assert all((np.asarray(leaf) != 0).all() for leaf in jax.tree.leaves(gradient))


def test_subsample_matches_loops(x64, rng):
    x, scale, bias = rng.normal(size=(2, 6, 9, 4)), rng.normal(size=4), rng.normal(size=4)
    expected = np.zeros((2, 2, 3, 4))
    for n, i, j, c in np.ndindex(*expected.shape):
        window_sum = 0.0
        for u, v in np.ndindex(3, 3):
            window_sum += x[n, 3 * i + u, 3 * j + v, c]
        expected[n, i, j, c] = scale[c] * window_sum + bias[c]
    actual, _ = Subsample(3).apply({"scale": scale, "bias": bias}, {}, x)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@pytest.mark.frameworks
def test_lenet5_1998_matches_torch(params, rng):
    """Compare with a PyTorch implementation written from the paper, which computes C3 map by map."""
    torch = pytest.importorskip("torch")
    pixels = rng.uniform(size=(3, *IN_SHAPE)).astype(np.float32)
    conv1, s2, c3, s4, c5, f6 = (
        {name: torch.tensor(np.asarray(leaf)) for name, leaf in params[layer].items()}
        for layer in ("conv1", "subsample1", "sparse_conv1", "subsample2", "conv2", "dense1")
    )

    def f(a):
        return 1.7159 * torch.tanh(2 / 3 * a)

    def conv(y, p):
        return f(torch.conv2d(y, p["kernel"].permute(3, 2, 0, 1), p["bias"]))

    def subsample(y, p):
        window_sum = torch.nn.functional.avg_pool2d(y, 2, divisor_override=1)
        return f(window_sum * p["scale"][:, None, None] + p["bias"][:, None, None])

    y = conv((torch.tensor(pixels) * 1.275 - 0.1).permute(0, 3, 1, 2), conv1)
    y = subsample(y, s2)
    filters, maps = iter(c3["kernel"].permute(2, 0, 1)), []
    for o, inputs in enumerate(C3):
        weight = torch.stack([next(filters) for _ in inputs])[None]
        maps.append(torch.conv2d(y[:, list(inputs)], weight, c3["bias"][o : o + 1]))
    y = conv(subsample(f(torch.cat(maps, dim=1)), s4), c5).flatten(1)
    y = f(y @ f6["kernel"] + f6["bias"])
    expected = -(torch.cdist(y, torch.tensor(rbf_codes()), compute_mode="donot_use_mm_for_euclid_dist") ** 2)
    actual, _ = jax.jit(MODEL.apply)(params, {}, pixels)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=2e-5)


def test_lenet5_1998_jit_matches_eager_with_finite_gradients(params, rng):
    x, labels = rng.uniform(size=(4, *IN_SHAPE)).astype(np.float32), np.array([3, 0, 9, 5])

    def loss(params):
        logits, _ = MODEL.apply(params, {}, x)
        return ops.softmax_cross_entropy(logits, labels).mean()

    eager, compiled = MODEL.apply(params, {}, x)[0], jax.jit(MODEL.apply)(params, {}, x)[0]
    np.testing.assert_allclose(eager, compiled, rtol=1e-5)
    distances = -np.asarray(compiled, float)  # equation 9 of the paper, without its constant
    expected = distances[np.arange(4), labels] + np.log(np.exp(-distances).sum(axis=1))
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and (np.asarray(leaf) != 0).any()


def test_lenet5_1998_learns_digit_bitmaps(promoting):
    """Train the network to classify the digit bitmaps."""
    x = np.zeros((10, *IN_SHAPE), np.float32)
    x[:, 4:28, 9:23, 0] = (rbf_codes().reshape(10, 12, 7) > 0).repeat(2, axis=1).repeat(2, axis=2)
    params, _ = jax.jit(MODEL.init, static_argnums=1)(jax.random.key(0), IN_SHAPE)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, moments):
        def loss(params):
            logits, _ = MODEL.apply(params, {}, x)
            return ops.softmax_cross_entropy(logits, np.arange(10)).mean(), logits

        gradient, logits = jax.grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, logits

    moments = optimizer.init(params)
    for _ in range(40):
        params, moments, logits = step(params, moments)
    assert np.argmax(logits, axis=1).tolist() == list(range(10))


def test_lenet5_1998_init_is_within_paper_bounds():
    """The bound is 2.4 / fan-in: 25 for C1, 4 for a gain, 75, 100 or 150 for C3, 400 for C5, 120 for F6."""
    params, _ = jax.jit(MODEL.init, static_argnums=1)(jax.random.key(3), IN_SHAPE)

    def is_uniform(values, fan_in):
        return 0.9 < np.abs(values).max() * fan_in / 2.4 <= 1 + 1e-6

    assert is_uniform(params["conv1"]["kernel"], 25) and is_uniform(params["conv2"]["kernel"], 400)
    assert is_uniform(params["dense1"]["kernel"], 120)
    kernel = params["sparse_conv1"]["kernel"]
    assert (
        is_uniform(kernel[..., :18], 75) and is_uniform(kernel[..., 18:54], 100) and is_uniform(kernel[..., 54:], 150)
    )
    scale = np.abs(jnp.concatenate([Subsample(2).init(jax.random.key(n), (4, 6, 9))[0]["scale"] for n in range(5)]))
    assert is_uniform(scale, 4) and scale.min() < 0.1
    assert all((layer_params["bias"] == 0).all() for layer_params in params.values())


def test_scaled_tanh_fixed_points_and_curvature():
    """The function maps ±1 to ±1, where its curvature is largest."""
    assert abs(float(scaled_tanh(jnp.array(1.0))) - 1) < 1e-4 and float(scaled_tanh(jnp.array(-1.0))) == -float(
        scaled_tanh(jnp.array(1.0))
    )
    x = jnp.linspace(0, 3, 3001)
    curvature = jax.vmap(jax.grad(jax.grad(scaled_tanh)))(x)
    assert abs(float(x[jnp.argmax(jnp.abs(curvature))]) - 1) < 0.02


def test_rbf_distances_match_scipy(x64, rng):
    from scipy.spatial.distance import cdist

    x, codes = rng.normal(size=(5, 7)), rng.normal(size=(3, 7))
    np.testing.assert_allclose(rbf_distances(x, codes), cdist(x, codes, "sqeuclidean"), rtol=1e-12)


def test_rbf_codes_are_distinct_bitmaps():
    codes = rbf_codes()
    assert codes.shape == (10, 84) and set(codes.ravel().tolist()) == {-1.0, 1.0}
    bitmaps = codes.reshape(10, 12, 7) > 0
    assert bitmaps[:, [0, -1]].sum() == 0 and bitmaps[7, 1].all() and bitmaps[7].sum() == 16
    num_different = (codes[:, None] != codes[None]).sum(-1)
    assert num_different[~np.eye(10, dtype=bool)].min() >= 4
    # The code of the digit 4 has distance 0 to itself and a positive distance to all others.
    assert np.argmin(rbf_distances(codes[4:5], codes)) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.lenet5_1998(11), "lenet5_1998: num_classes must be at most 10, the number of digit bitmaps"),
        (lambda: models.lenet5_1998(0), "lenet5_1998: num_classes=0"),
        (lambda: SparseConv([(0,), ()], 3), r"SparseConv: table\[1\] must list one or more distinct .*, got \(\)$"),
        (lambda: SparseConv([(0, 0)], 3), r"SparseConv: table\[0\] must list .* distinct .*, got \(0, 0\)$"),
        (
            lambda: serial(SparseConv([(0, 3)], 3)).init(jax.random.key(0), (5, 5, 3)),
            r"sparse_conv1: SparseConv: x \(1, 5, 5, 3\) has no channel 3",
        ),
        (lambda: SparseConv([(0, -1)], 3), r"SparseConv: table\[0\] must list .* got \(0, -1\)$"),
    ],
)
def test_lenet_invalid_arguments_raise(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_lenet5_1998_fewer_classes_use_first_digits(params, rng):
    x = rng.uniform(size=(2, *IN_SHAPE)).astype(np.float32)
    all_logits, _ = MODEL.apply(params, {}, x)
    np.testing.assert_array_equal(models.lenet5_1998(7).apply(params, {}, x)[0], all_logits[:, :7])


def test_fan_in_uniform_bound():
    assert np.abs(fan_in_uniform(jax.random.key(0), (3, 2, 4, 5))).max() <= 2.4 / 24


@pytest.mark.frameworks
@pytest.mark.parametrize("pool", [LpPool, AvgPool])
@pytest.mark.parametrize("activation", [relu, ops.sigmoid])
def test_000_21_lenet5_with_other_poolings_matches_torch(rng, pool, activation):
    torch = pytest.importorskip("torch")
    model = models.lenet5(activation=activation, pool=pool)
    params, _ = jax.jit(model.init, static_argnums=1)(jax.random.key(0), IN_SHAPE)
    x = rng.uniform(size=(2, *IN_SHAPE)).astype(np.float32)
    f = torch.relu if activation is relu else torch.sigmoid
    functional = torch.nn.functional
    y = torch.tensor(x).permute(0, 3, 1, 2)
    tensors = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params)
    for name in ("conv1", "conv2"):
        y = f(torch.conv2d(y, tensors[name]["kernel"].permute(3, 2, 0, 1), tensors[name]["bias"]))
        y = functional.lp_pool2d(y, 2.0, 2) if pool is LpPool else functional.avg_pool2d(y, 2)
    y = y.permute(0, 2, 3, 1).flatten(1)
    for name in ("dense1", "dense2", "dense3"):
        y = y @ tensors[name]["kernel"] + tensors[name]["bias"]
        y = y if name == "dense3" else f(y)
    np.testing.assert_allclose(jax.jit(model.apply)(params, {}, x)[0], y.numpy(), rtol=1e-4, atol=1e-5)
