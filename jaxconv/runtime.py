"""What the computation runs on. Nothing here happens on import."""

import importlib.metadata
import os
import platform

import jax

from jaxconv.errors import InputError


def device_name() -> str:
    """The device that jax will use, in words: ``"cpu (Linux x86_64, 2 cores)"``, ``"gpu (NVIDIA H200)"``.

    Raises:
        InputError: jax was asked for a device that is not there.
    """
    try:
        device = jax.devices()[0]
    except RuntimeError as error:
        asked = os.environ.get("JAX_PLATFORMS")
        raise InputError(f"jax finds no device (JAX_PLATFORMS={asked!r}): {str(error).splitlines()[0]}") from None
    if device.platform == "cpu":
        return f"cpu ({platform.system()} {platform.machine()}, {os.cpu_count()} cores)"
    count = f"{jax.device_count()} × " if jax.device_count() > 1 else ""
    return f"{device.platform} ({count}{device.device_kind})"


def versions() -> dict[str, str]:
    """The versions that a result depends on.

    >>> sorted(versions())
    ['jax', 'jaxconv', 'jaxlib', 'numpy', 'optax', 'python']
    """
    packages = ("jaxconv", "jax", "jaxlib", "numpy", "optax")
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}
