"""Ops on sharded arrays, in a subprocess where this CPU is two devices."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxconv import ops
from jaxconv._compat import version_numbers
from jaxconv.ops.convolution.cpu import autotune, dispatch

KINDS = ("Auto", "Explicit", "shard_map", "shard_map, unchecked", "shard_map, Explicit")
CONV = {"stride": (2, 1), "padding": 1, "groups": 2}
OPS = {impl: partial(ops.conv, impl=impl, **CONV) for impl in ("auto", *ops.LOWERINGS)}
OPS |= {
    "flipped, circular, bias": lambda x, k: ops.conv(
        x, k, k[0, 0, 0], flip_kernel=True, padding_mode="circular", groups=2
    ),
    "transpose, lax": lambda x, k: ops.conv_transpose(x, k, stride=2, groups=2),
    "transpose, explicit": lambda x, k: ops.conv_transpose(x, k, impl="explicit", stride=2, groups=2),
    "max_pool, non-overlapping": lambda x, k: ops.max_pool(x, 2) * k.sum(),
    "max_pool, split": lambda x, k: ops.max_pool(x, 2, ties="split") * k.sum(),
    "max_pool, overlapping": lambda x, k: ops.max_pool(x, 3, stride=2, padding=1) * k.sum(),
    "avg_pool": lambda x, k: ops.avg_pool(x, 3, stride=2, padding=1) * k.sum(),
    "lp_pool": lambda x, k: ops.lp_pool(x, 2) * k.sum(),
    "layer_norm": lambda x, k: ops.layer_norm(x) * k.sum(),
    "rms_norm": lambda x, k: ops.rms_norm(x, k[0, 0, 0, :4]),
}


def batch_norm(x, kernel):
    with_mask = ops.batch_norm(x, kernel[0, 0, 0, :4], kernel[1, 0, 0, :4], mask=jnp.arange(4) < 3)
    return with_mask + ops.batch_norm(x**2, kernel[0, 1, 0, :4], kernel[1, 1, 0, :4])


SUBSET = ("auto", "lax", "toeplitz", "transpose, explicit", "max_pool, overlapping")  # for similar kinds of meshes
# Statistics over the whole batch, which a function inside shard_map cannot compute.
BATCH_OPS = {"batch_norm": batch_norm}


def arrays():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 7, 6, 4), (3, 2, 2, 6))]


def loss(op, x, kernel):
    return (op(x, kernel) ** 2).sum()


def results(kind, op, mesh):
    """Return a function of a sharded x and a replicated kernel: the value and both gradients."""
    value_fn, loss_fn = op, partial(loss, op)
    if kind.startswith("shard_map"):
        shard = partial(jax.shard_map, mesh=mesh, in_specs=(P("b"), P()), check_vma="unchecked" not in kind)
        value_fn = shard(op, out_specs=P("b"))
        loss_fn = shard(lambda x, kernel: jax.lax.psum(loss(op, x, kernel), "b"), out_specs=P())
    return lambda x, kernel: (value_fn(x, kernel), *jax.grad(loss_fn, (0, 1))(x, kernel))


def select_lowering(name):
    """Make ``auto`` use one of the CPU lowerings, or lax."""
    dispatch.MAX_OPERATIONS = 0 if name == "lax" else 10**6
    autotune.best_lowering = (lambda output, category: name) if name in dispatch.LOWERINGS else ORIGINAL_BEST_LOWERING


ORIGINAL_BEST_LOWERING = autotune.best_lowering


def all_results(kind, mesh):
    """Return a function that computes the results of all ops, in one compilation."""
    selected = OPS | BATCH_OPS
    if kind.startswith("shard_map"):
        selected = OPS.copy() if kind == "shard_map" else {name: OPS[name] for name in SUBSET}
        if version_numbers(jax.__version__) < (0, 9, 1):  # jnp.fft.rfft has no gradient inside shard_map there
            selected.pop("fft", None)
    return jax.jit(lambda x, kernel: {name: results(kind, op, mesh)(x, kernel) for name, op in selected.items()})


def check_kind(kind):
    """Compare the results on two devices with those on one."""
    mesh = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Explicit if "Explicit" in kind else AxisType.Auto,))
    shardings = NamedSharding(mesh, P("b")), NamedSharding(mesh, P())
    x, kernel = (jax.device_put(array, sharding) for array, sharding in zip(arrays(), shardings, strict=True))
    with jax.set_mesh(mesh):
        actual = all_results(kind, mesh)(x, kernel)
        if kind == "Explicit":
            for name, (y, dx, dk) in actual.items():
                assert jax.typeof(y).sharding.spec == P("b", *(None,) * (y.ndim - 1)), name
                assert jax.typeof(dx).sharding.spec == P("b", None, None, None), name
                assert not any(jax.typeof(dk).sharding.spec), name
    expected = all_results("Auto", None)(*arrays())
    for name in actual:
        reference_name = "lax" if name in ops.LOWERINGS or name == "auto" else name
        for a, b in zip(actual[name], expected[reference_name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"{kind}: {name}")


def check_cpu_lowerings():
    """Compare all CPU lowerings on sharded arrays with lax on one device."""
    mesh = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Explicit,))
    shardings = NamedSharding(mesh, P("b")), NamedSharding(mesh, P())
    x, kernel = arrays()[0], arrays()[1][:, :, :1, :4]
    op = partial(ops.conv, stride=(2, 1), groups=4)
    expected = jax.jit(results("Auto", partial(op, impl="lax"), None))(x, kernel)
    with jax.set_mesh(mesh):
        x, kernel = (jax.device_put(array, sharding) for array, sharding in zip((x, kernel), shardings, strict=True))
        for kind in ("Explicit", "shard_map"):
            for name in (*dispatch.LOWERINGS, "lax"):
                select_lowering(name)
                jax.clear_caches()
                for a, b in zip(jax.jit(results(kind, op, mesh))(x, kernel), expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"{kind}: {name}")


if __name__ == "__main__":  # in the subprocess of the test below, where this CPU is two devices
    check_cpu_lowerings() if sys.argv[1] == "CPU lowerings" else check_kind(sys.argv[1])
    sys.exit()


@pytest.mark.parametrize("kind", [*KINDS, "CPU lowerings"])
def test_sharded_ops_match_one_device(kind):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    completed = subprocess.run(
        [sys.executable, __file__, kind], env=environment, capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
