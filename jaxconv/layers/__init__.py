"""Layers: pairs of pure functions, ``init`` and ``apply``.

    model = serial(Conv(32, 3), relu, MaxPool(2), flatten, Dense(10))
    params, state = model.init(key, (28, 28, 1))
    logits, state = model.apply(params, state, images)

A layer adds three things to the op that it wraps: parameter names (the op's argument names), shape inference (``init``
passes the output shape of each layer to the next) and running statistics, passed in and returned as ``state``.
CamelCase names return a ``Layer``; snake_case names are functions of arrays. A plain function can be used as a layer.
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
