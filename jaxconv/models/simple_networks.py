"""The network without convolutions that the lectures compare with (row 004-25)."""

from jaxconv.layers import Dense, Layer, serial
from jaxconv.layers.factory import makes_layer
from jaxconv.ops import flatten, relu


@makes_layer
def mlp(classes: int = 10, *, hidden: tuple[int, ...] = (128, 128)) -> Layer:
    """Flatten, then dense layers with relu between them. It takes images of any size, and knows nothing of nearness.

    Args:
        classes: the number of outputs.
        hidden: the width of each layer between input and output.

    >>> from jaxconv.explain import summarize
    >>> summarize(mlp(), (28, 28, 1)).params
    118282
    """
    between = [part for width in hidden for part in (Dense(width), relu)]
    return serial(flatten, *between, Dense(classes))
