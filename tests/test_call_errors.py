"""Wrong calls are told in a sentence: of layers, of models, of fit, evaluate and predict."""

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
def test_arguments_that_a_function_has_not(call, message):
    with pytest.raises(ArgumentError, match=message) as raised:
        call()
    assert isinstance(raised.value, InputError) and isinstance(raised.value, TypeError)
    assert "\n" not in str(raised.value)


def fit(**options):
    return train.fit(net(), toy(), toy(), **{"optimizer": SGD, "epochs": 1} | options)


def test_a_call_is_refused_where_python_would_refuse_it(rng):
    """On random calls of random signatures."""

    def some(a, b=1, /, c=2, *, d, e=3): ...
    def any_number(a, *rest, b, **others): ...

    for function in (some, any_number):
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


def test_the_nearest_name_is_one_of_the_names():
    assert nearest("filters", ["rate"]) is None and nearest("filters", ["rate", "features"]) == "features"


@pytest.mark.parametrize("key", [0, None, np.int32(3), jax.random.split(KEY), "0", np.random.default_rng(0), (9, 9, 1)])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(InputError, match=r"^init: key"):
        Conv(2, 3).init(key, (9, 9, 1))


@pytest.mark.parametrize("key", [7, None, np.int32(7), "7"])
def test_a_train_state_is_made_of_a_key_too(key):
    with pytest.raises(
        InputError, match=r"^create_train_state: key=\S+ should be a random key: jax\.random\.key\([07]\)$"
    ):
        train.create_train_state(Layer("mine", made, used), SGD, key, (9, 9, 1))


def test_old_keys_are_keys():
    assert Conv(2, 3).init(jax.random.PRNGKey(0), (9, 9, 1))[0]["kernel"].shape == (3, 3, 1, 2)


@pytest.mark.parametrize(
    "input_shape", [(None, 28, 28, 1), (-1, 28, 28, 1), 28, jnp.ones((28, 28, 1)), (28.0, 28, 1), ()]
)
def test_what_is_no_shape_is_refused(input_shape):
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
def test_the_batch_axis_is_named_where_a_shape_has_one(model, input_shape):
    with pytest.raises(InputError, match=r"batch axis"):
        model.init(KEY, input_shape)


def test_shapes_may_be_lists_and_volumes():
    assert check_input_shape([3, np.int64(2)]) == (3, 2)
    assert Conv(2, 3).init(KEY, [5, 5, 5, 1])[0]["kernel"].shape == (3, 3, 3, 1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: serial([Conv(4, 3), flatten]), r"^a list of 2 is no layer: write serial\(\*layers\), with the star"),
        (lambda: residual((Conv(4, 3),)), r"^a tuple of 1 is no layer: write serial\(\*layers\)"),
        (lambda: parallel([Conv(4, 3)]), r"^a list of 1 is no layer"),
        (lambda: Layer(made, used), r"^Layer\(.*\): Layer takes \(kind, init, apply\), such as .*'apply'$"),
        (
            lambda: Layer(made, used, "mine"),
            r"^Layer: kind=<function .* should be a name: Layer takes \(kind, init",
        ),
        (lambda: Layer("mine", 3, used), r"^Layer 'mine': init=3 is no function: Layer takes"),
        (lambda: Layer("mine", made, used, nam="x"), r"^Layer\('mine', .*nam="),
        (lambda: serial(Layer("mine", lambda key: 0, used)), r"^Layer 'mine': init should take \(key, input_shape\)"),
        (
            lambda: serial(Layer("mine", made, lambda params, state, x: (x, state))),
            r"^Layer 'mine': apply should take \(params, state, x, \*, train=False, key=None\) .*'train'$",
        ),
        (lambda: serial(Layer), r"^Layer makes a layer and is not one itself"),
        (lambda: train.fit([Conv(4, 3)], toy(), toy(), optimizer=SGD, epochs=1), r"^fit: a list of 1 is no layer"),
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
def test_what_cannot_be_meant_says_what_to_write(call, message):
    with pytest.raises(InputError, match=message):
        call()


def made(key, input_shape):
    return {}, {}


def used(params, state, x, **options):
    return x, state
