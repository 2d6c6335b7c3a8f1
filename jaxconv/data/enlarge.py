"""Making images larger, for a network that needs more pixels than they have."""

import numpy as np


def enlarge(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Make images at least so large: by the largest whole factor that fits (linear), then a border of zeros.

    So 28×28 digits get two pixels of border for LeNet's 32×32, as LeCun did it, and 8×8 digits are magnified three
    times and framed for a network that wants 28×28. Images that are large enough stay as they are.

    Args:
        images: ``(N, H, W, C)`` uint8.
        size: the least height and width.

    >>> enlarge(np.full((1, 8, 8, 1), 255, np.uint8), (28, 28))[0, 13, :, 0]
    array([  0,   0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
           255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
             0,   0], dtype=uint8)
    """
    height, width = images.shape[1:3]
    factor = max(1, min(size[0] // height, size[1] // width))
    if factor > 1:
        larger = _magnify(_magnify(images.astype(np.float32), factor, axis=1), factor, axis=2)
        images = larger.round().astype(np.uint8)
    missing = [max(0, wanted - have) for wanted, have in zip(size, images.shape[1:3], strict=True)]
    border = [(m // 2, m - m // 2) for m in missing]
    return np.pad(images, ((0, 0), *border, (0, 0))) if any(missing) else images


def _magnify(images: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """Linear between the centres of the pixels, flat beyond the outermost. No jax: data workers call it."""
    count = images.shape[axis]
    centres = ((np.arange(count * factor) + 0.5) / factor - 0.5).clip(0, count - 1)
    low = np.floor(centres).astype(int)
    shape = [1] * images.ndim
    shape[axis] = -1
    share = (centres - low).astype(np.float32).reshape(shape)
    first, second = images.take(low, axis), images.take((low + 1).clip(max=count - 1), axis)
    return first * (1 - share) + second * share
