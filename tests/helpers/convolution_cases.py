"""Convolution cases with strides, paddings, dilations and groups; ``pads`` is the resolved padding."""

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    name: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: object
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def arrays(self):
        rng = np.random.default_rng(len(self.name))
        return rng.normal(size=self.x), rng.normal(size=self.kernel)

    def resolved(self):
        return self.stride, self.pads, self.dilation, self.groups


CASES = [
    Case("plain", (2, 7, 6, 3), (3, 2, 3, 4), (1, 1), "VALID", ((0, 0), (0, 0)), (1, 1), 1),
    Case("stride", (2, 9, 10, 2), (4, 5, 2, 3), (2, 1), "VALID", ((0, 0), (0, 0)), (1, 1), 1),
    Case("same", (1, 7, 6, 2), (3, 2, 2, 3), (1, 1), "SAME", ((1, 1), (0, 1)), (1, 1), 1),
    Case("same, stride 2", (1, 8, 7, 2), (3, 3, 2, 3), (2, 2), "SAME", ((0, 1), (1, 1)), (1, 1), 1),
    Case("same lower", (1, 8, 6, 2), (3, 2, 2, 3), (2, 1), "SAME_LOWER", ((1, 0), (1, 0)), (1, 1), 1),
    Case("full", (1, 4, 5, 2), (3, 2, 2, 3), (1, 1), "FULL", ((2, 2), (1, 1)), (1, 1), 1),
    Case("pairs", (2, 5, 6, 2), (3, 3, 2, 2), (1, 2), ((1, 2), (2, 0)), ((1, 2), (2, 0)), (1, 1), 1),
    Case("ints", (1, 5, 6, 2), (3, 3, 2, 2), (1, 1), (2, 1), ((2, 2), (1, 1)), (1, 1), 1),
    Case("dilation", (1, 9, 8, 2), (3, 2, 2, 3), (1, 2), 1, ((1, 1), (1, 1)), (2, 3), 1),
    Case("groups", (2, 5, 6, 6), (2, 3, 2, 9), (1, 1), "VALID", ((0, 0), (0, 0)), (1, 1), 3),
    Case("depthwise", (1, 6, 5, 4), (3, 3, 1, 8), (2, 1), "SAME", ((0, 1), (1, 1)), (1, 1), 4),
    Case("one filter a group", (2, 6, 5, 12), (3, 2, 4, 3), (1, 2), "SAME", ((1, 1), (0, 1)), (1, 1), 3),
    Case("1×1", (2, 3, 4, 3), (1, 1, 3, 5), (1, 1), "VALID", ((0, 0), (0, 0)), (1, 1), 1),
    Case("1-D causal", (2, 9, 3), (3, 3, 4), (1,), "CAUSAL", ((4, 0),), (2,), 1),
    Case("3-D", (1, 4, 5, 4, 2), (2, 3, 2, 2, 3), (1, 2, 1), "SAME", ((0, 1), (1, 1), (0, 1)), (1, 1, 1), 1),
]
