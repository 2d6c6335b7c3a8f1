"""One file a library: the same networks, each written as that library's own documentation would write it.

All have the same sizes, and learn from the same batch with Adam at the same learning rate. Nothing here is meant to be
used: each file is what someone who trains with that library would have in front of them.
"""

# Residual networks: the depth, and the blocks of each of the three sizes, 16, 32 and 64 channels.
RESNETS = {f"resnet{depth}": (depth - 2) // 6 for depth in (20, 32, 44, 56, 110)}
NETS = ("lenet5", "mnist_cnn", "vgg6", *RESNETS)  # those that every peer has


def blocks(name: str) -> list[tuple[int, int, int]]:
    """The blocks of a residual network: channels in, channels out, stride.

    >>> blocks("resnet20")[2:5]
    [(16, 16, 1), (16, 32, 2), (32, 32, 1)]
    """
    outs = [features for features in (16, 32, 64) for _ in range(RESNETS[name])]
    return [(i, o, o // i) for i, o in zip([16, *outs], outs, strict=False)]
