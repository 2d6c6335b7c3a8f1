"""Pooling and normalization compared with PyTorch: values and gradients, including ties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.frameworks

C = 6


def assert_matches_torch(op, torch_op, x, *vectors):
    """Compare two functions of images, (N, *, C) in jaxconv and (N, C, *) in PyTorch, and vectors ``(C,)``."""
    tensors = [torch.tensor(array, requires_grad=True) for array in (np.moveaxis(x, -1, 1), *vectors)]
    expected = torch_op(*tensors)
    dy = np.random.default_rng(7).normal(size=tuple(expected.shape))
    expected.backward(torch.tensor(dy))
    expected, dx, *d_vectors = (a.detach().numpy() for a in (expected, *(t.grad for t in tensors)))

    @jax.jit
    def value_and_gradients(dy, *arrays):
        y, vjp = jax.vjp(op, *arrays)
        return y, *vjp(dy)

    actual = value_and_gradients(np.moveaxis(dy, 1, -1), x, *vectors)
    for a, b in zip(actual, (np.moveaxis(expected, 1, -1), np.moveaxis(dx, 1, -1), *d_vectors), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


POOLS = {
    "max": (
        functools.partial(ops.max_pool, window_shape=(3, 2), stride=(2, 1), padding=1),
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), 1),
    ),
    "max, dilated, ceil": (
        functools.partial(ops.max_pool, window_shape=2, stride=3, dilation=(2, 3), ceil_mode=True),
        lambda x: F.max_pool2d(x, 2, 3, dilation=(2, 3), ceil_mode=True),
    ),
    "max, wider than the image": (
        functools.partial(ops.max_pool, window_shape=(9, 10), stride=(3, 2), ceil_mode=True),
        lambda x: F.max_pool2d(x, (9, 10), (3, 2), ceil_mode=True),
    ),
    "avg": (
        functools.partial(ops.avg_pool, window_shape=(3, 2), stride=2, padding=1, ceil_mode=True),
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True, count_include_pad=False),
    ),
    "avg, padding counted": (
        functools.partial(
            ops.avg_pool, window_shape=(3, 2), stride=2, padding=1, ceil_mode=True, count_include_pad=True
        ),
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True),
    ),
    "l2": (
        functools.partial(ops.lp_pool, window_shape=(3, 2), stride=(1, 2)),
        lambda x: F.lp_pool2d(x, 2, (3, 2), (1, 2)),
    ),
    "l4": (functools.partial(ops.lp_pool, window_shape=(3, 2), p=4), lambda x: F.lp_pool2d(x, 4, (3, 2))),
    "adaptive avg": (
        functools.partial(ops.adaptive_avg_pool, output_size=(3, 5)),
        lambda x: F.adaptive_avg_pool2d(x, (3, 5)),
    ),
    "adaptive avg, more than pixels": (
        functools.partial(ops.adaptive_avg_pool, output_size=(10, 20)),
        lambda x: F.adaptive_avg_pool2d(x, (10, 20)),
    ),
    "adaptive max": (
        functools.partial(ops.adaptive_max_pool, output_size=(3, 5)),
        lambda x: F.adaptive_max_pool2d(x, (3, 5)),
    ),
    "adaptive max, more than pixels": (
        functools.partial(ops.adaptive_max_pool, output_size=(10, 20)),
        lambda x: F.adaptive_max_pool2d(x, (10, 20)),
    ),
}


@pytest.mark.parametrize(("op", "torch_op"), POOLS.values(), ids=POOLS)
def test_pools_with_many_ties_match_pytorch(x64, rng, op, torch_op):
    assert_matches_torch(op, torch_op, rng.integers(1, 4, size=(2, 8, 9, 3)).astype(float))


def test_max_pool_of_minus_infinity_matches_pytorch(x64, rng):
    """Pixels and whole windows of −∞ next to padding."""
    x = rng.integers(1, 4, size=(2, 8, 9, 3)).astype(float)
    assert_matches_torch(*POOLS["max"], np.where(rng.uniform(size=x.shape) < 0.8, -np.inf, x))


@pytest.mark.parametrize("name", ["l2", "l4", "avg", "adaptive avg"])
def test_pools_of_both_signs_match_pytorch(x64, rng, name):
    assert_matches_torch(*POOLS[name], rng.normal(size=(2, 8, 9, 3)))


def test_lp_pool_of_odd_order_differs_from_pytorch(x64, rng):
    """PyTorch omits |x|: results agree for positive x, and negative values cancel there."""
    op, torch_op = functools.partial(ops.lp_pool, window_shape=2, p=3), lambda x: F.lp_pool2d(x, 3, 2)
    x = rng.uniform(0.1, 1, size=(2, 4, 6, 3))
    assert_matches_torch(op, torch_op, x)
    cancelling = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    assert torch_op(cancelling).item() == 0
    np.testing.assert_allclose(op(jnp.asarray(cancelling.numpy()).reshape(1, 2, 2, 1)).item(), 4 ** (1 / 3))


@pytest.mark.parametrize(
    ("op", "torch_op", "size"),
    [
        (lambda x: ops.adaptive_max_pool(x, 4), lambda x: F.adaptive_max_pool1d(x, 4), (9,)),
        (lambda x: ops.adaptive_avg_pool(x, 4), lambda x: F.adaptive_avg_pool1d(x, 4), (9,)),
        (lambda x: ops.adaptive_max_pool(x, (2, 3, 4)), lambda x: F.adaptive_max_pool3d(x, (2, 3, 4)), (5, 3, 7)),
        (lambda x: ops.adaptive_avg_pool(x, (2, 3, 4)), lambda x: F.adaptive_avg_pool3d(x, (2, 3, 4)), (5, 3, 7)),
        (lambda x: ops.lp_pool(x, 2, stride=1), lambda x: F.lp_pool1d(x, 2, 2, 1), (9,)),
    ],
)
def test_pools_in_1d_and_3d_match_pytorch(x64, rng, op, torch_op, size):
    assert_matches_torch(op, torch_op, rng.integers(1, 4, size=(2, *size, 3)).astype(float))


def test_pools_of_nan_match_pytorch(x64):
    x = np.zeros((1, 5, 7, 1))
    x[0, 2, 3, 0] = np.nan
    for op, torch_op in (POOLS["max"], POOLS["adaptive max"], POOLS["adaptive avg"], POOLS["l2"]):
        expected = torch_op(torch.tensor(np.moveaxis(x, -1, 1))).numpy()
        np.testing.assert_array_equal(np.isnan(op(jnp.asarray(x))), np.isnan(np.moveaxis(expected, 1, -1)))


def channels_last(x, f):
    return f(x.movedim(1, -1)).movedim(-1, 1)


NORMS = {
    "layer": (
        functools.partial(ops.layer_norm, eps=1e-3),
        lambda x, w, b: channels_last(x, lambda x: F.layer_norm(x, (C,), w, b, 1e-3)),
        2,
    ),
    "group": (
        functools.partial(ops.group_norm, num_groups=3, eps=1e-3),
        lambda x, w, b: F.group_norm(x, 3, w, b, 1e-3),
        2,
    ),
    "instance": (
        functools.partial(ops.instance_norm, eps=1e-3),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=1e-3),
        2,
    ),
    "batch": (
        functools.partial(ops.batch_norm, eps=1e-3),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=1e-3),
        2,
    ),
    "rms": (
        functools.partial(ops.rms_norm, eps=1e-3),
        lambda x, w: channels_last(x, lambda x: F.rms_norm(x, (C,), w, 1e-3)),
        1,
    ),
    # PyTorch divides alpha by the size.
    "response": (
        functools.partial(ops.local_response_norm, size=3, alpha=0.2, k=1.5),
        lambda x: F.local_response_norm(x, 3, alpha=0.2 * 3, beta=0.75, k=1.5),
        0,
    ),
}


@pytest.mark.parametrize("size", [(4, 5), (7,), (2, 3, 4)], ids=["2-D", "1-D", "3-D"])
@pytest.mark.parametrize(("op", "torch_op", "num_vectors"), NORMS.values(), ids=NORMS)
def test_norms_match_pytorch(x64, rng, op, torch_op, num_vectors, size):
    assert_matches_torch(op, torch_op, rng.normal(1, 2, size=(3, *size, C)), *rng.normal(size=(num_vectors, C)))
