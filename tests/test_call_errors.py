"""Invalid calls of layers, models, fit, evaluate and predict raise one-line errors with a suggestion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    InputError,
    Layer,
    MaxPool,
    flatten,
    models,
    parallel,
    residual,
    serial,
    train,
)
from jaxconv.errors import ArgumentError
from jaxconv.layers.base import check_input_shape
from jaxconv.utils.signatures import check_call, nearest
from toy_training import net, toy

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Conv(1, 8, 3), r"^Conv: 3 arguments, but it takes 2 without a name \(features, kernel_size\); name"),
        (lambda: Conv(8, 3, strides=2), r"^Conv: no argument is called strides: did you mean stride\? It takes Conv\("),
        (lambda: Conv(8), r"^Conv: kernel_size must be given\. It takes Conv\(features, kernel_size, \*, stride,"),
        (lambda: Conv(8, 3, features=8), r"^Conv: features is given twice"),
        (lambda: MaxPool(), r"^MaxPool: window_shape must be given"),
        (lambda: MaxPool(pool_size=2), r"called pool_size: did you mean window_shape\?"),
        (lambda: Dense(units=3), r"called units: did you mean features\?"),
        (lambda: Dropout(p=0.5), r"called p: did you mean rate\?"),
        (lambda: BatchNorm(momentun=0.9), r"called momentun: did you mean momentum\?"),
        (lambda: BatchNorm(0.9), r"^BatchNorm: 1 arguments, but it takes none without a name"),
        (lambda: models.mlp(classes=3), r"^mlp: no argument is called classes: did you mean num_classes\?"),
        (lambda: models.resnet(20, 10, 3), r"^resnet: 3 arguments"),
        (lambda: Conv(8, 3).init(KEY), r"^init: input_shape must be given\. It takes init\(key, input_shape\)$"),
        (lambda: train.evaluate(net(), {}, {}, toy()[0]), r"^evaluate: labels must be given"),
        (lambda: train.predict(toy()[0], net()), r"^predict: state and images must be given"),
        (lambda: train.fit(net(), toy(), toy()), r"^fit: optimizer and epochs must be given"),
        (lambda: fit(epoch=3), r"^fit: no argument is called epoch: did you mean epochs\?"),
        (
            lambda: fit(grad_acumulation=3),
            r"^fit: no argument is called grad_acumulation: did you mean grad_accumulation\?",
        ),
    ],
)
def test_invalid_call_arguments_raise(call, message):
    with pytest.raises(ArgumentError, match=message) as raised:
        call()
    assert isinstance(raised.value, InputError) and isinstance(raised.value, TypeError)
    assert "\n" not in str(raised.value)


def fit(**options):
    return train.fit(net(), toy(), toy(), **{"optimizer": SGD, "epochs": 1} | options)


def test_check_call_agrees_with_python(rng):
    """Random calls of two signatures raise ArgumentError if and only if Python raises TypeError."""

    def fixed_arguments(a, b=1, /, c=2, *, d, e=3): ...
    def variadic(a, *positional, b, **keywords): ...

    for function in (fixed_arguments, variadic):
        for _ in range(200):
            args = (0,) * int(rng.integers(0, 5))
            options = {name: 0 for name in "abcdex" if rng.random() < 0.3}
            try:
                function(*args, **options)
            except TypeError:
                with pytest.raises(ArgumentError, match=f"^{function.__name__}: "):
                    check_call(function, args, options)
            else:
                check_call(function, args, options)


def test_nearest_returns_close_name_only():
    assert nearest("filters", ["rate"]) is None and nearest("filters", ["rate", "features"]) == "features"


@pytest.mark.parametrize("key", [0, None, np.int32(3), jax.random.split(KEY), "0", np.random.default_rng(0), (9, 9, 1)])
def test_init_rejects_invalid_keys(key):
    with pytest.raises(InputError, match=r"^init: key"):
        Conv(2, 3).init(key, (9, 9, 1))


@pytest.mark.parametrize("key", [7, None, np.int32(7), "7"])
def test_create_train_state_rejects_invalid_keys(key):
    with pytest.raises(
        InputError, match=r"^create_train_state: key=\S+ should be a random key: jax\.random\.key\([07]\)$"
    ):
        train.create_train_state(Layer("mine", init_fn, apply_fn), SGD, key, (9, 9, 1))


def test_init_accepts_legacy_keys():
    assert Conv(2, 3).init(jax.random.PRNGKey(0), (9, 9, 1))[0]["kernel"].shape == (3, 3, 1, 2)


@pytest.mark.parametrize(
    "input_shape", [(None, 28, 28, 1), (-1, 28, 28, 1), 28, jnp.ones((28, 28, 1)), (28.0, 28, 1), ()]
)
def test_init_rejects_invalid_input_shapes(input_shape):
    with pytest.raises(InputError, match=r"^init: input_shape .* shape of one example without the batch axis, such as"):
        models.lenet5().init(KEY, input_shape)


@pytest.mark.parametrize(
    ("model", "input_shape"),
    [
        (models.lenet5(), (1, 32, 32, 1)),
        (serial(Conv(4, 3), MaxPool(2)), (1, 28, 28, 1)),
        (serial(Dense(3)), (32, 784)),
        (Dense(3), (32, 28, 28, 1)),
    ],
)
def test_init_error_mentions_batch_axis(model, input_shape):
    with pytest.raises(InputError, match=r"batch axis"):
        model.init(KEY, input_shape)


def test_init_accepts_lists_and_volumes():
    assert check_input_shape([3, np.int64(2)]) == (3, 2)
    assert Conv(2, 3).init(KEY, [5, 5, 5, 1])[0]["kernel"].shape == (3, 3, 3, 1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: serial([Conv(4, 3), flatten]),
            r"^a list of 2 is not a layer: write serial\(\*layers\), with the star",
        ),
        (lambda: residual((Conv(4, 3),)), r"^a tuple of 1 is not a layer: write serial\(\*layers\)"),
        (lambda: parallel([Conv(4, 3)]), r"^a list of 1 is not a layer"),
        (lambda: Layer(init_fn, apply_fn), r"^Layer\(.*\): Layer takes \(kind, init, apply\), such as .*'apply'$"),
        (
            lambda: Layer(init_fn, apply_fn, "mine"),
            r"^Layer: kind=<function .* should be a name: Layer takes \(kind, init",
        ),
        (lambda: Layer("mine", 3, apply_fn), r"^Layer 'mine': init must be a function, got 3: Layer takes"),
        (lambda: Layer("mine", init_fn, apply_fn, nam="x"), r"^Layer\('mine', .*nam="),
        (
            lambda: serial(Layer("mine", lambda key: 0, apply_fn)),
            r"^Layer 'mine': init should take \(key, input_shape\)",
        ),
        (
            lambda: serial(Layer("mine", init_fn, lambda params, state, x: (x, state))),
            r"^Layer 'mine': apply should take \(params, state, x, \*, train=False, key=None\) .*'train'$",
        ),
        (lambda: serial(Layer), r"^Layer makes a layer and is not one itself"),
        (lambda: train.fit([Conv(4, 3)], toy(), toy(), optimizer=SGD, epochs=1), r"^fit: a list of 1 is not a layer"),
        (
            lambda: fit(optimizer="adam"),
            r"^fit: optimizer='adam' must be an optimizer, not a name: use optax\.adam\(1e-3\)",
        ),
        (lambda: fit(optimizer="best"), r"^fit: optimizer='best' must be an optimizer, not a name: use optax\.adam"),
        (
            lambda: fit(optimizer=optax.adamw),
            r"^fit: optimizer=adamw is a function that returns an optimizer: call it, optax\.adamw",
        ),
        (lambda: fit(optimizer=0.1), r"^fit: optimizer=float should be an optax optimizer"),
        (lambda: train.make_train_step(net(), "sgd"), r"^train step: optimizer='sgd' must be an optimizer, not a name"),
        (
            lambda: train.fit(net(), toy(), optimizer=SGD, epochs=1),
            r"^fit: validation must be given: fit\(model, \(images, labels\), \(images, labels\), …\)",
        ),
    ],
)
def test_misused_arguments_error_suggests_fix(call, message):
    with pytest.raises(InputError, match=message):
        call()


def init_fn(key, input_shape):
    return {}, {}


def apply_fn(params, state, x, **options):
    return x, state
