"""The upper floor: a layer is a pair of pure functions, one that makes parameters and one that uses them.

    model = serial(Conv(32, 3), relu, MaxPool(2), flatten, Dense(10))
    params, state = model.init(key, (28, 28, 1))
    logits, state = model.apply(params, state, images)

A layer adds three things to the op it wraps: names for its parameters (the op's own argument names), shapes that
need not be written (each part is shown the output shape of the part before it) and running statistics that go in
and come out. CamelCase makes a ``Layer``; snake_case is a function of arrays; a bare function is a layer.
"""

from jaxconv.layers.base import Layer, as_layer, output_shape, with_facts
from jaxconv.layers.combinators import parallel, residual, serial
from jaxconv.layers.facts import Facts
from jaxconv.layers.initializers import dirac
from jaxconv.layers.linear import Conv, ConvTranspose, Dense
from jaxconv.layers.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from jaxconv.layers.pooling import AvgPool, LpPool, MaxPool
from jaxconv.layers.stochastic import Dropout, SpatialDropout

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Dropout",
    "Facts",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LpPool",
    "MaxPool",
    "RMSNorm",
    "SpatialDropout",
    "as_layer",
    "dirac",
    "output_shape",
    "parallel",
    "residual",
    "serial",
    "with_facts",
]
