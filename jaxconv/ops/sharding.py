"""Arrays that are cut up over devices: what an op must say of itself where jax asks for it.

Inside ``jax.shard_map`` each device has its own part of an array, and jax notes which axes of the mesh an array varies
over. On a mesh of Explicit axes, as ``jax.make_mesh`` makes them, how an array is cut up is part of its type. On a
mesh of Auto axes XLA decides, and there is nothing to say.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxconv._compat import varying_axes


def over_devices(function: Callable[..., Any], images: jax.Array, *others: jax.Array, vectors: int = 0) -> Any:
    """``function(images, *others)``, on a mesh of Explicit axes computed as on one of Auto axes.

    So no reshape or convolution in ``function`` has to say how its result is cut up. The batch stays cut up as it is,
    and so do the channels of images alone. All else is made whole first, for XLA's convolutions of images in pieces,
    and with kernels in pieces, have wrong gradients.

    Args:
        function: it gives an array ``(N, …)`` of as many axes as the images have, or a tuple of it and vectors.
        images: ``(N, …, C)``.
        others: arrays that belong to all of the images, such as a kernel.
        vectors: how many vectors there are; they are whole on every device.

    >>> over_devices(jax.numpy.add, jax.numpy.ones((2, 3)), jax.numpy.ones((1, 3))).shape
    (2, 3)
    """
    images, *rest = varying_alike(images, *others)
    mesh, cut = jax.typeof(images).sharding.mesh, jax.typeof(images).sharding.spec
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = tuple(axis for axis, kind in kinds.items() if kind == AxisType.Explicit)
    if not explicit:
        return function(images, *rest)
    spec = PartitionSpec(cut[0], *(None,) * (images.ndim - 2), None if rest else cut[-1])
    whole = [PartitionSpec(*(None,) * array.ndim) for array in rest]
    where = [NamedSharding(mesh, each) for each in (spec, *whole)]
    arrays = [jax.sharding.reshard(*each) for each in zip((images, *rest), where, strict=True)]
    out = (where[0], *[NamedSharding(mesh, PartitionSpec(None))] * vectors) if vectors else where[0]
    return jax.sharding.auto_axes(function, axes=explicit, out_sharding=out)(*arrays)


def varying_alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, each varying over all axes of the mesh that any of them varies over, under ``shard_map``.

    A kernel that all devices share meets images that each has its own of. The kernel's gradient is then the sum over
    the devices, which is the transpose of this.

    >>> [array.shape for array in varying_alike(jax.numpy.ones(2), jax.numpy.ones(3))]
    [(2,), (3,)]
    """
    own = [varying_axes(array) for array in arrays]
    missing = [tuple(frozenset().union(*own) - axes) for axes in own]
    return [
        lax.pcast(array, axes, to="varying") if axes else array for array, axes in zip(arrays, missing, strict=True)
    ]
