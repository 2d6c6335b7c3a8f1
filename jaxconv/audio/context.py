"""Each frame of a sound with those around it."""

import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxconv import checks
from jaxconv.errors import InputError


def stack_context(features: Float[ArrayLike, "*batch t b"], context: int = 10) -> Float[Array, "*batch t w b"]:
    """Every frame with ``context`` frames on each side: ``y[…, t, u, b] = features[…, t + u − context, b]``.

    Beyond its ends, the sound goes on as it ends there. So every frame becomes an image of ``2·context + 1`` frames,
    from which a network says what is spoken in its middle.

    Raises:
        InputError: no frame, or a negative context.
        DtypeError: features of integers.

    Lecture row 003-10: context 10 gives (21, 40).

    >>> import jax.numpy as jnp
    >>> stack_context(jnp.arange(4.)[:, None], 1)[:, :, 0]
    Array([[0., 0., 1.],
           [0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 3.]], dtype=float32)
    >>> stack_context(jnp.zeros((2, 50, 40))).shape
    (2, 50, 21, 40)
    """
    features = checks.array("stack_context", "features", features)
    checks.floating("stack_context", features=features)
    checks.whole("stack_context", 0, context=context)
    if features.ndim < 2 or not features.shape[-2]:
        raise InputError(f"stack_context: features {features.shape} should be (…, frames, bands), at least one frame")
    count = features.shape[-2]
    places = np.arange(count)[:, None] + np.arange(-context, context + 1)
    return features[..., np.clip(places, 0, count - 1), :]
