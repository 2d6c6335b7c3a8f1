"""Receptive fields: the bounds of every layer, against the pixels with a nonzero gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    GroupNorm,
    InputError,
    LayerNorm,
    MaxPool,
    explain,
    flatten,
    models,
    ops,
    parallel,
    relu,
    residual,
    serial,
)
from jaxconv.explain.receptive_fields import all_receptive_fields, receptive_field_of
from jaxconv.layers.base import Layer, stateless
from jaxconv.shapes import Window

IN_SHAPE = (13, 11, 1)
NETWORKS = {
    "serial": serial(Conv(2, 3, padding="SAME"), relu, MaxPool(2), Conv(2, (3, 2)), LayerNorm()),
    "strides": serial(Conv(2, (5, 3), stride=(2, 1), padding="SAME"), Conv(2, 3, stride=2, padding=((2, 0), 1))),
    "dilation": serial(Conv(2, 3, padding="SAME"), Conv(2, (2, 3), dilation=(3, 2), padding="SAME_LOWER")),
    "pools": serial(AvgPool(3, stride=2, padding=1), MaxPool(2, stride=2, ceil_mode=True), Conv(2, 2)),
    "residual": serial(
        Conv(2, 2, stride=2, padding="SAME"),
        residual(Conv(2, 3, padding="SAME"), BatchNorm(), relu, Conv(2, (4, 1), padding="SAME")),
        residual(Conv(3, 3, stride=2, padding=1), shortcut=Conv(3, 1, stride=2)),
        relu,
        Conv(2, 2),
    ),
    "parallel": serial(
        Conv(2, 2),
        parallel(
            Conv(1, 1),
            serial(MaxPool(3, stride=1, padding="SAME"), Conv(2, 1)),
            residual(Conv(2, (3, 1), padding=((2, 0), 0))),
            Conv(1, (1, 4), padding=((0, 0), (0, 3))),
        ),
        MaxPool(2, stride=3),
    ),
}


def contributing_pixels(model, layer):
    """Return the pixels on which each output position depends for some of 40 images: bool (*positions, H, W)."""
    params, state = model.init(jax.random.key(1), IN_SHAPE)
    images = jax.random.normal(jax.random.key(2), (40, *IN_SHAPE))

    def channel_sum(image):
        y = explain.feature_maps(model, params, state, image[None], layers=(layer,))[layer][0]
        return jnp.tanh(y).sum(axis=-1)  # the plain sum over channels is constant after a layer norm

    jacobian = jax.jit(jax.vmap(jax.jacrev(channel_sum)))(images)
    return np.any(np.asarray(jacobian)[..., 0] != 0, axis=0)


def pixel_bounds(pixels):
    """Return the span from the first to the last pixel, per dimension."""
    return tuple((int(indices.min()), int(indices.max()) + 1) for indices in np.nonzero(pixels))


@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_match_pixels_with_gradient(name):  # row 001-17
    model = NETWORKS[name]
    for layer in explain.layer_names(model):
        field, contributing = receptive_field_of(model, IN_SHAPE, layer), contributing_pixels(model, layer)
        for position in np.ndindex(contributing.shape[:2]):
            bounds = field.bounds(position)
            inside_bounds = tuple((max(low, 0), min(high, n)) for (low, high), n in zip(bounds, IN_SHAPE))
            inside = tuple(slice(*span) for span in inside_bounds)
            if name == "dilation" and inside_bounds != bounds:
                # Pixels that are reached only through the padding of an earlier layer do not contribute.
                assert contributing[position].sum() == contributing[position][inside].sum()
                continue
            assert pixel_bounds(contributing[position]) == inside_bounds, (layer, position, bounds)
            if name in ("serial", "pools"):
                assert contributing[position][inside].all()  # without gaps


def test_field_sizes_match_summary():
    for name in ("lenet5", "mnist_cnn", "vgg6"):
        spec = models.get_model(name)
        table = {row.name: row.receptive_field for row in explain.summarize(spec.create(), spec.input_shape).rows}
        fields = all_receptive_fields(spec.create(), spec.input_shape)
        assert {path: field and field.field.size for path, field in fields.items()} == table
        assert tuple(fields) == explain.layer_names(spec.create())


def custom_merge():
    branches = parallel(Conv(2, 3, padding="SAME"), Conv(2, 1))
    return branches._replace(merge=lambda x, y: x * y["conv1"].mean((1, 2), keepdims=True) + y["conv2"])


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (serial(flatten, Dense(3)), "dense1"),
        (serial(ops.global_avg_pool), "global_avg_pool1"),
        (serial(ConvTranspose(1, 3, padding=1), relu), "conv_transpose1"),
        (serial(ConvTranspose(1, 3, padding=1), relu), "relu1"),
        (serial(Conv(4, 3), GroupNorm(2), Conv(1, 1)), "conv2"),
        (serial(lambda x: x[:, ::2], Conv(1, 1)), "conv1"),
        (residual(GroupNorm(1)), "res"),
        (parallel(lambda x: x[:, :5, :5], Conv(1, (9, 7))), "parallel"),
        (parallel(Conv(1, (3, 11), stride=2), Conv(1, (8, 11))), "parallel"),  # both are (6, 1), with unequal strides
        (custom_merge(), "parallel"),
        # A partial function declares no window.
        (serial(partial(ops.max_pool, window_shape=3, stride=1, padding="SAME")), "max_pool1"),
    ],
)
def test_unknown_receptive_field_is_none(model, layer):
    assert receptive_field_of(model, (13, 11, 4), layer) is None


def test_branch_field_is_known_if_merge_is_not():
    model = parallel(Conv(2, 3, padding="SAME"), serial(Conv(1, 2, padding="SAME"), GroupNorm(1)))
    fields = all_receptive_fields(model, (6, 6, 1))
    assert fields["serial1/conv1"].bounds((0, 5)) == ((0, 2), (5, 7))
    assert fields["conv1"].bounds((0, 5)) == ((-1, 2), (4, 7))
    assert fields["serial1/gn1"] is None and fields["parallel"] is None


def test_bounds_in_1d_3d_and_with_custom_window():
    assert receptive_field_of(
        serial(Conv(2, 3, padding="CAUSAL"), Conv(1, 3, padding="CAUSAL")), (9, 1), "conv2"
    ).bounds((4,)) == ((0, 5),)
    cube = serial(Conv(1, 2), MaxPool((1, 2, 3)))
    assert receptive_field_of(cube, (5, 5, 7, 1), "max_pool1").bounds((1, 1, 1)) == ((1, 3), (2, 5), (3, 7))
    overhanging = serial(MaxPool(3, ceil_mode=True))  # the window is larger than the image
    assert receptive_field_of(overhanging, (2, 4, 1), "max_pool1").bounds((0, 1)) == ((0, 3), (3, 6))
    subsample: Layer = stateless("subsample", lambda x: x[:, ::2, ::2], window=Window(1, stride=2))
    assert receptive_field_of(serial(Conv(1, 3), subsample), (9, 9, 1), "subsample1").bounds((1, 2)) == (
        (2, 5),
        (4, 7),
    )


def test_vector_input_has_empty_bounds():
    fields = all_receptive_fields(serial(flatten, Dense(4), GroupNorm(2), relu), (6,)).values()
    assert [field.bounds(()) for field in fields] == [()] * 4


def test_receptive_field_invalid_arguments_raise():
    model = serial(Conv(2, 3), relu)
    with pytest.raises(InputError, match=r"receptive_field_of: unknown layer 'conv2': did you mean 'conv1'\?"):
        receptive_field_of(model, (8, 8, 1), "conv2")
    with pytest.raises(InputError, match=r"conv1: conv: .*the window spans 3 pixels"):
        receptive_field_of(model, (2, 8, 1), "conv1")
    with pytest.raises(InputError, match="fields: input_shape=0 should be an int of at least 1"):
        all_receptive_fields(model, (8, 0, 1))
