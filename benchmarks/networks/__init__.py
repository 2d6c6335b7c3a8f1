"""Benchmark networks, one file per library, each in the style of the library's documentation.

All have the same sizes, and train on the same batch with Adam at the same learning rate.
"""

# Residual networks: number of blocks in each of the three stages, with 16, 32 and 64 channels.
RESNETS = {f"resnet{depth}": (depth - 2) // 6 for depth in (20, 32, 44, 56, 110)}
NETS = ("lenet5", "mnist_cnn", "vgg6", *RESNETS)  # implemented by every framework


def blocks(name: str) -> list[tuple[int, int, int]]:
    """Return input channels, output channels and stride of each block of a residual network.

    >>> blocks("resnet20")[2:5]
    [(16, 16, 1), (16, 32, 2), (32, 32, 1)]
    """
    widths = [features for features in (16, 32, 64) for _ in range(RESNETS[name])]
    return [(i, o, o // i) for i, o in zip([16, *widths], widths, strict=False)]
