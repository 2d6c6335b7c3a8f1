"""Normalisation: each op is its formula in numpy's float64, also in half precision and under every transformation."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv import DtypeError, InputError, ops

EPS = 1e-2  # large, so that one in the wrong place shows


def normal(block, eps=EPS):
    return (block - block.mean()) / np.sqrt(((block - block.mean()) ** 2).mean() + eps)


def grouped(x, groups):
    """Block by block: one example, one group of neighbouring channels."""
    y, share = np.zeros(x.shape), x.shape[-1] // groups
    for n in range(len(x)):
        for g in range(groups):
            y[n, ..., g * share : (g + 1) * share] = normal(x[n, ..., g * share : (g + 1) * share])
    return y


def by_pixel(x, f):
    return np.stack([f(pixel) for pixel in x.reshape(-1, x.shape[-1])]).reshape(x.shape)


def response(pixel, reach=1):
    """AlexNet's, with k = 2, α = 0.3, β = 0.75."""
    sums = [sum(a * a for j, a in enumerate(pixel) if abs(j - i) <= reach) for i in range(len(pixel))]
    return np.array([a / (2 + 0.3 * s) ** 0.75 for a, s in zip(pixel, sums)])


NORMS = {
    "layer": (functools.partial(ops.layer_norm, eps=EPS), lambda x: by_pixel(x, normal)),
    "group 1": (functools.partial(ops.group_norm, num_groups=1, eps=EPS), lambda x: grouped(x, 1)),
    "group 3": (functools.partial(ops.group_norm, num_groups=3, eps=EPS), lambda x: grouped(x, 3)),
    "instance": (functools.partial(ops.instance_norm, eps=EPS), lambda x: grouped(x, x.shape[-1])),
    "rms": (
        functools.partial(ops.rms_norm, eps=EPS),
        lambda x: by_pixel(x, lambda v: v / np.sqrt(np.mean(v * v) + EPS)),
    ),
    "response": (
        functools.partial(ops.local_response_norm, size=3, alpha=0.3),
        lambda x: by_pixel(x, response),
    ),
}
EVERY_NORM = pytest.mark.parametrize(("op", "wanted"), NORMS.values(), ids=NORMS)
# What takes a learned scale, and a bias; and which of them.
LEARNED = {"layer": 2, "group 3": 2, "instance": 2, "rms": 1}


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (3, 4, 6), (2, 2, 3, 2, 6)], ids=["2-D", "1-D", "3-D"])
@EVERY_NORM
def test_every_norm_is_its_formula(x64, rng, op, wanted, shape):
    x = rng.normal(1, 2, size=shape)
    np.testing.assert_allclose(jax.jit(op)(jnp.asarray(x)), wanted(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["layer", "group 3", "rms", "response"])
def test_rows_of_values_are_pixels_too(x64, rng, name):
    op, wanted = NORMS[name]
    x = rng.normal(1, 2, size=(4, 6))
    np.testing.assert_allclose(op(jnp.asarray(x)), wanted(x), rtol=1e-12)


@pytest.mark.parametrize(("name", "count"), LEARNED.items(), ids=LEARNED)
def test_scale_and_bias_come_after(x64, rng, name, count):
    op, wanted = NORMS[name]
    x, (scale, bias) = rng.normal(1, 2, size=(2, 3, 2, 6)), rng.normal(size=(2, 6))
    got = op(jnp.asarray(x), *map(jnp.asarray, (scale, bias)[:count]))
    np.testing.assert_allclose(got, wanted(x) * scale + (bias if count == 2 else 0), rtol=1e-12, atol=1e-12)


@EVERY_NORM
def test_both_derivatives_are_those_of_differences(x64, rng, op, wanted):
    x = jnp.asarray(rng.normal(size=(2, 4, 6)))
    check_grads(jax.jit(op), (x,), order=2, modes=("rev",), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "count"), LEARNED.items(), ids=LEARNED)
def test_gradients_of_scale_and_bias(x64, rng, name, count):
    op, _ = NORMS[name]
    arrays = [jnp.asarray(rng.normal(size=size)) for size in [(2, 3, 6), (6,), (6,)][: 1 + count]]
    check_grads(jax.jit(op), tuple(arrays), order=1, modes=("rev",), rtol=1e-6, atol=1e-6)


@EVERY_NORM
def test_transformations_agree(x64, rng, op, wanted):
    x, d, dy = jnp.asarray(rng.normal(size=(3, 2, 3, 4, 6)))

    @jax.jit
    def together(x, d, dy):
        _, forward = jax.jvp(op, (x,), (d,))
        (backward,) = jax.vjp(op, x)[1](dy)
        alone = jnp.stack([op(one[None])[0] for one in x])  # examples do not see each other
        return alone, jax.vmap(lambda one: op(one[None])[0])(x), (forward * dy).sum(), (backward * d).sum()

    alone, mapped, forward, backward = together(x, d, dy)
    np.testing.assert_allclose(op(x), alone, rtol=1e-12)
    np.testing.assert_allclose(mapped, alone, rtol=1e-12)
    np.testing.assert_allclose(forward, backward, rtol=1e-10)


@EVERY_NORM
def test_half_precision_is_normalised_in_float32(x64, rng, op, wanted, dtype=jnp.bfloat16):
    """The value and its gradient, whose parts nearly cancel, are those of float64 rounded once."""
    f = jax.jit(lambda x, dy: (op(x), *jax.vjp(op, x)[1](dy)))
    x, dy = (jnp.asarray(rng.normal(mean, 1, size=(2, 8, 9, 6)), dtype) for mean in (50, 0))
    got = f(x, dy)
    assert [half.dtype for half in got] == [dtype, dtype]
    for half, exact in zip(got, f(x.astype(jnp.float64), dy.astype(jnp.float64))):
        np.testing.assert_allclose(np.asarray(half, float), exact, rtol=float(jnp.finfo(dtype).eps), atol=1e-4)


@pytest.mark.parametrize("name", ["layer", "group 1", "instance"])
def test_variance_of_an_example_survives_a_large_mean(rng, name):
    op, wanted = NORMS[name]
    x = (1e4 + rng.normal(size=(2, 9, 8, 6))).astype(np.float32)
    np.testing.assert_allclose(op(x), wanted(x.astype(np.float64)), atol=3e-3)


def test_a_constant_example_is_zero_with_a_finite_gradient():
    x = jnp.full((1, 3, 2, 4), 7.0)
    for op in (ops.layer_norm, ops.instance_norm, functools.partial(ops.group_norm, num_groups=2)):
        y, slope = jax.jit(lambda x, op=op: (op(x), jax.grad(lambda x: (op(x) * jnp.cos(x)).sum())(x)))(x)
        assert not y.any() and jnp.isfinite(slope).all()
    assert jnp.isfinite(jax.jit(jax.grad(lambda x: ops.rms_norm(x).sum()))(0 * x)).all()


def test_local_response_sees_what_the_paper_says():
    """Its constants by default; a size of 4 reaches as far as one of 5; one beyond the channels sees them all."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 3, 7)), jnp.float32)
    assert (ops.local_response_norm(x) == ops.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0)).all()
    assert (ops.local_response_norm(x, size=4) == ops.local_response_norm(x, size=5)).all()
    everything = x / (2 + 0.5 * jnp.square(x).sum(axis=-1, keepdims=True)) ** 0.75
    np.testing.assert_allclose(ops.local_response_norm(x, size=99, alpha=0.5), everything, rtol=1e-5)


@pytest.mark.parametrize(
    ("twin", "op"),
    [
        (nn.LayerNorm(epsilon=EPS), NORMS["layer"][0]),
        (nn.GroupNorm(3, epsilon=EPS), NORMS["group 3"][0]),
        (nn.InstanceNorm(epsilon=EPS), NORMS["instance"][0]),
        (nn.RMSNorm(epsilon=EPS), NORMS["rms"][0]),
    ],
    ids=["layer", "group 3", "instance", "rms"],
)
def test_flax_gives_the_same_from_the_same_parameters(rng, twin, op):
    x = jnp.asarray(rng.normal(size=(2, 5, 4, 6)), jnp.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        shapes = jax.eval_shape(twin.init, jax.random.key(0), x)["params"]
        params = {name: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for name, p in shapes.items()}
        wanted = twin.apply({"params": params}, x)
    np.testing.assert_allclose(op(x, **params), wanted, rtol=1e-5, atol=1e-5)


def test_batch_norm_is_its_formula(x64, rng):
    x, scale, bias = rng.normal(3, 2, size=(4, 3, 5, 2)), rng.normal(size=2), rng.normal(size=2)
    wanted = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(*map(jnp.asarray, (x, scale, bias)), eps=1e-3), wanted, rtol=1e-12)
    mean, var = rng.normal(size=2), rng.uniform(1, 2, size=2)
    wanted = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(*map(jnp.asarray, (x, scale, bias, mean, var))), wanted, rtol=1e-12)
    check_grads(ops.batch_norm, tuple(map(jnp.asarray, (x, scale, bias))), order=1, modes=("rev",), rtol=1e-6)


def test_variance_survives_a_large_mean(rng):
    x = (1e4 + rng.normal(size=(1000, 1))).astype(np.float32)
    np.testing.assert_allclose(ops.batch_statistics(x)[1], x.astype(np.float64).var(0), rtol=1e-3)
    y = ops.batch_norm(x, jnp.ones(1), jnp.zeros(1))
    wanted = (x.astype(np.float64) - x.astype(np.float64).mean()) / x.astype(np.float64).std()
    np.testing.assert_allclose(y, wanted, atol=2e-3)


def test_masked_statistics_are_those_of_the_rest(x64, rng):
    x = rng.normal(size=(5, 3, 3, 2))
    got = ops.batch_statistics(jnp.asarray(x), jnp.asarray([True, False, True, True, False]))
    kept = x[[0, 2, 3]]
    np.testing.assert_allclose(got, (kept.mean((0, 1, 2)), kept.var((0, 1, 2))), rtol=1e-12)


def test_bfloat16_is_normalised_in_float32(rng):
    x = jnp.asarray(100 + rng.normal(size=(64, 2)), jnp.bfloat16)
    y = ops.batch_norm(x, jnp.ones(2), jnp.zeros(2))
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), (exact - exact.mean(0)) / exact.std(0), atol=2e-2)


X = np.zeros((2, 3, 3, 4), np.float32)


def test_what_a_mask_hides_has_no_part_in_anything():
    """Not even a NaN, and not in the gradient either."""
    x, mask = jnp.array([[1.0, 2], [3, 8], [np.nan, np.inf]]), [True, True, False]
    scale, bias = jnp.array([2.0, 3]), jnp.array([5.0, 7])

    def loss(x, **options):
        return (ops.batch_norm(x, scale, bias, eps=0.1, **options)[:2] * jnp.array([[1.0, 2], [5, 4]])).sum()

    np.testing.assert_allclose(loss(x, mask=mask), loss(x[:2]), rtol=1e-6)
    gradient = jax.grad(loss)(x, mask=mask)
    np.testing.assert_allclose(gradient[:2], jax.grad(loss)(x[:2]), rtol=1e-6)
    assert not gradient[2].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.batch_norm(jnp.ones((2, 1), jnp.uint8), *jnp.ones((4, 1))),
            r"batch_norm: x is uint8; convert it first",
        ),
        (
            lambda: ops.batch_statistics(jnp.ones((3, 2)), jnp.array([True])),
            r"^batch_statistics: mask bool\(1,\) should be bool\(3,\), one entry an example",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(2), jnp.ones(3)),
            r"batch_norm: scale \(2,\) should be \(3,\)",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), jnp.ones(3)),
            r"batch_norm: give both mean and var, or neither",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), jnp.ones(3), jnp.ones(1)),
            r"batch_norm: var \(1,\) should be \(3,\)",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((1, 3)), jnp.ones(3), jnp.ones(3)),
            r"^batch_norm: of x \(1, 3\) each mean is over 1 value; .* nothing but the bias",
        ),
        (lambda: ops.batch_statistics(X[:0]), r"batch_statistics: of x \(0, 3, 3, 4\) each mean is over 0 value"),
        (
            lambda: ops.batch_statistics(X, [0.0, 1.0]),
            r"^batch_statistics: mask float32\(2,\) should be bool\(2,\)",
        ),
        (lambda: ops.batch_statistics(X, [False, False]), r"^batch_statistics: mask is False for every example"),
        (
            lambda: ops.batch_norm(X, *jnp.ones((4, 4)), mask=[True, False]),
            r"^batch_norm: mask means nothing where mean and var are given",
        ),
        (lambda: ops.layer_norm(X, eps="a"), r"^layer_norm: eps='a' should be a number of at least 0"),
        (lambda: ops.rms_norm(X, eps=-1.0), r"^rms_norm: eps=-1\.0 should be a number of at least 0"),
        (lambda: ops.local_response_norm(X, alpha="a"), r"^local_response_norm: alpha='a' should be a number"),
        (lambda: ops.local_response_norm(X, k=0.0), r"^local_response_norm: k=0\.0 should be a number above 0"),
        (lambda: ops.local_response_norm(X, size=True), r"^local_response_norm: size=True should be an int"),
        (lambda: ops.layer_norm(X, jnp.ones(3)), r"layer_norm: scale \(3,\) should be \(4,\)"),
        (lambda: ops.rms_norm(X, jnp.ones((1, 4))), r"rms_norm: scale \(1, 4\) should be \(4,\)"),
        (lambda: ops.instance_norm(X, None, jnp.ones(1)), r"instance_norm: bias \(1,\) should be \(4,\)"),
        (lambda: ops.layer_norm(X[0, 0, 0]), r"layer_norm: x \(4,\) should be .* add the batch axis"),
        (lambda: ops.layer_norm(X[..., :1]), r"layer_norm: of x \(2, 3, 3, 1\) each mean is over 1 channel;"),
        (lambda: ops.instance_norm(X[:, 0, 0]), r"instance_norm: of x \(2, 4\) each mean is over 1 pixel"),
        (lambda: ops.instance_norm(X[:, :0]), r"instance_norm: of x \(2, 0, 3, 4\) each mean is over 0 pixel"),
        (lambda: ops.group_norm(X[:, 0, 0], num_groups=4), r"group_norm: of x \(2, 4\) each mean is over 1 value"),
        (
            lambda: ops.group_norm(X, num_groups=3),
            r"group_norm: num_groups=3 does not divide the 4 channels of x \(2, 3",
        ),
        (lambda: ops.group_norm(X, num_groups=0), r"^group_norm: num_groups=0 should be an int of at least 1"),
        (lambda: ops.group_norm(X, num_groups=2.0), r"^group_norm: num_groups=2\.0 should be an int"),
        (lambda: ops.local_response_norm(X, size=0), r"local_response_norm: size=0 should be an int of at least 1"),
        (lambda: ops.local_response_norm(X, size=2.5), r"local_response_norm: size=2\.5 should be an int"),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()


@EVERY_NORM
def test_integers_are_refused(op, wanted):
    with pytest.raises(DtypeError, match=r"_norm: x is uint8; convert it first, x\.astype\(jnp\.float32\) / 255"):
        op(X.astype(np.uint8))


@EVERY_NORM
def test_an_empty_batch_is_an_empty_answer(op, wanted):
    assert op(np.zeros((0, 3, 3, 6), np.float32)).shape == (0, 3, 3, 6)


def test_statistics_of_another_dtype_do_not_set_the_precision(x64, rng):
    """float64 images with float32 statistics, and bfloat16 ones with bfloat16's, are normalised in at least float32."""
    x, scale, bias = rng.normal(size=(4, 3, 2)), rng.normal(size=2), rng.normal(size=2)
    mean, var = rng.normal(size=2).astype(np.float32), rng.uniform(1, 2, size=2).astype(np.float32)
    wanted = (x - mean.astype(float)) / np.sqrt(var.astype(float) + 1e-5) * scale + bias
    got = ops.batch_norm(*map(jnp.asarray, (x, scale, bias, mean, var)))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, scale, bias, mean, var)]
    x, scale, bias, mean, var = (np.asarray(a, float) for a in half)
    wanted = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(np.asarray(ops.batch_norm(*half), float), wanted, rtol=2**-8, atol=1e-6)


def test_running_statistics_keep_their_dtype(x64, rng):
    from jaxconv import BatchNorm

    layer = BatchNorm()
    params, state = layer.init(jax.random.key(0), (3, 2))
    _, after = layer.apply(params, state, jnp.asarray(rng.normal(size=(4, 3, 2))), train=True)
    assert jax.tree.map(lambda a: a.dtype, after) == jax.tree.map(lambda a: a.dtype, state)
