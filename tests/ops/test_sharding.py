"""Convolutions and pools of arrays that are cut up over devices: a second Python takes this CPU for two of them."""

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
    "turned, circular, bias": lambda x, k: ops.conv(
        x, k, k[0, 0, 0], flip_kernel=True, padding_mode="circular", groups=2
    ),
    "transpose, lax": lambda x, k: ops.conv_transpose(x, k, stride=2, groups=2),
    "transpose, explicit": lambda x, k: ops.conv_transpose(x, k, impl="explicit", stride=2, groups=2),
    "max_pool, side by side": lambda x, k: ops.max_pool(x, 2) * k.sum(),
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


FEW = ("auto", "lax", "toeplitz", "transpose, explicit", "max_pool, overlapping")  # for what differs little
OF_ALL = {"batch_norm": batch_norm}  # by the statistics of all devices, which a function inside shard_map does not see


def arrays():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((4, 7, 6, 4), (3, 2, 2, 6))]


def loss(op, x, kernel):
    return (op(x, kernel) ** 2).sum()


def results(kind, op, mesh):
    """The value and both gradients, as a function of an x that is cut up and a kernel that is everybody's."""
    value, total = op, partial(loss, op)
    if kind.startswith("shard_map"):
        over = partial(jax.shard_map, mesh=mesh, in_specs=(P("b"), P()), check_vma="unchecked" not in kind)
        value = over(op, out_specs=P("b"))
        total = over(lambda x, kernel: jax.lax.psum(loss(op, x, kernel), "b"), out_specs=P())
    return lambda x, kernel: (value(x, kernel), *jax.grad(total, (0, 1))(x, kernel))


def chosen(name):
    """Have ``auto`` take one of a CPU's lowerings, or lax's."""
    dispatch.MOST_PIECES = 0 if name == "elsewhere" else 10**6
    autotune.best_lowering = (lambda wanted, case: name) if name in dispatch.LOWERINGS else CHOICE


CHOICE = autotune.best_lowering


def program(kind, mesh):
    """Of every op at once, which takes one compilation."""
    some = OPS | OF_ALL
    if kind.startswith("shard_map"):
        some = OPS.copy() if kind == "shard_map" else {name: OPS[name] for name in FEW}
        if version_numbers(jax.__version__) < (0, 9, 1):  # where jnp.fft.rfft has no gradient inside shard_map
            some.pop("fft", None)
    return jax.jit(lambda x, kernel: {name: results(kind, op, mesh)(x, kernel) for name, op in some.items()})


def check(kind):
    """On two devices the numbers are those of one."""
    mesh = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Explicit if "Explicit" in kind else AxisType.Auto,))
    cut = NamedSharding(mesh, P("b")), NamedSharding(mesh, P())
    x, kernel = (jax.device_put(array, where) for array, where in zip(arrays(), cut, strict=True))
    with jax.set_mesh(mesh):
        got = program(kind, mesh)(x, kernel)
        if kind == "Explicit":
            for name, (y, dx, dk) in got.items():
                assert jax.typeof(y).sharding.spec == P("b", *(None,) * (y.ndim - 1)), name
                assert jax.typeof(dx).sharding.spec == P("b", None, None, None), name
                assert not any(jax.typeof(dk).sharding.spec), name
    want = program("Auto", None)(*arrays())
    for name in got:
        of_lax = "lax" if name in ops.LOWERINGS or name == "auto" else name
        for one, other in zip(got[name], want[of_lax], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=f"{kind}: {name}")


def check_ways():
    """The ways of a CPU inside shard_map."""
    mesh = jax.make_mesh((2,), ("b",), axis_types=(AxisType.Explicit,))
    cut = NamedSharding(mesh, P("b")), NamedSharding(mesh, P())
    x, kernel = arrays()[0], arrays()[1][:, :, :1, :4]
    op = partial(ops.conv, stride=(2, 1), groups=4)
    want = jax.jit(results("Auto", partial(op, impl="lax"), None))(x, kernel)
    with jax.set_mesh(mesh):
        x, kernel = (jax.device_put(array, where) for array, where in zip((x, kernel), cut, strict=True))
        for kind in ("Explicit", "shard_map"):
            for name in (*dispatch.LOWERINGS, "elsewhere"):
                chosen(name)
                jax.clear_caches()
                for one, other in zip(jax.jit(results(kind, op, mesh))(x, kernel), want, strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=f"{kind}: {name}")


if __name__ == "__main__":  # for the test below, where this CPU is two devices
    check_ways() if sys.argv[1] == "ways" else check(sys.argv[1])
    sys.exit()


@pytest.mark.parametrize("kind", [*KINDS, "ways"])
def test_value_and_gradients_are_those_of_one_device(kind):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, __file__, kind], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
