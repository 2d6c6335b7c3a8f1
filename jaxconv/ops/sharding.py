"""Sharded arrays: the annotations that jax requires of an op.

Inside ``jax.shard_map`` each device holds its own shard, and jax tracks the mesh axes over which an array varies. On a
mesh of Explicit axes, the default of ``jax.make_mesh``, the sharding of an array is part of its type. On a mesh of Auto
axes XLA chooses the shardings, and no annotation is needed.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxconv._compat import varying_axes


def over_devices(function: Callable[..., Any], images: jax.Array, *others: jax.Array, vectors: int = 0) -> Any:
    """Compute ``function(images, *others)``; on a mesh of Explicit axes, as if the axes were Auto.

    So no reshape or convolution in ``function`` needs an output sharding. The batch axis keeps its sharding, and the
    channel axis does where there are no ``others``. All other axes are replicated first, because XLA's convolutions
    have wrong gradients for images sharded over space and for sharded kernels.

    Args:
        function: returns an array ``(N, …)`` with as many axes as the images, or a tuple of it and vectors.
        images: ``(N, …, C)``.
        others: arrays that all images share, such as a kernel.
        vectors: number of vectors that ``function`` returns after the array; they are replicated.

    >>> over_devices(jax.numpy.add, jax.numpy.ones((2, 3)), jax.numpy.ones((1, 3))).shape
    (2, 3)
    """
    images, *others_varying = align_varying_axes(images, *others)
    mesh, images_spec = jax.typeof(images).sharding.mesh, jax.typeof(images).sharding.spec
    axis_types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    explicit = tuple(axis for axis, axis_type in axis_types if axis_type == AxisType.Explicit)
    if not explicit:
        return function(images, *others_varying)
    spec = PartitionSpec(images_spec[0], *(None,) * (images.ndim - 2), None if others_varying else images_spec[-1])
    replicated = [PartitionSpec(*(None,) * array.ndim) for array in others_varying]
    shardings = [NamedSharding(mesh, partition) for partition in (spec, *replicated)]
    arrays = [
        jax.sharding.reshard(array, sharding)
        for array, sharding in zip((images, *others_varying), shardings, strict=True)
    ]
    out = (shardings[0], *[NamedSharding(mesh, PartitionSpec(None))] * vectors) if vectors else shardings[0]
    return jax.sharding.auto_axes(function, axes=explicit, out_sharding=out)(*arrays)


def align_varying_axes(*arrays: jax.Array) -> list[jax.Array]:
    """Make every array vary over all mesh axes that any of the arrays varies over, under ``shard_map``.

    This combines a replicated kernel with sharded images. Its transpose is the sum over the devices, as the gradient of
    the kernel requires.

    >>> [array.shape for array in align_varying_axes(jax.numpy.ones(2), jax.numpy.ones(3))]
    [(2,), (3,)]
    """
    varying = [varying_axes(array) for array in arrays]
    missing = [tuple(frozenset().union(*varying) - axes) for axes in varying]
    return [
        lax.pcast(array, axes, to="varying") if axes else array for array, axes in zip(arrays, missing, strict=True)
    ]
