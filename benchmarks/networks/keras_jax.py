"""Keras on JAX: ``compile`` and ``train_on_batch``."""

import os
from collections.abc import Callable
from functools import partial

os.environ["KERAS_BACKEND"] = "jax"  # before the import, or Keras uses its configuration file

import keras
from keras import layers, ops

from benchmarks.networks import NETS, RESNETS, blocks
from jaxconv import models
from jaxconv.bench.step_timing import CLASSES, LEARNING_RATE, Runner, random_batch


def lenet5() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            *(layers.Conv2D(6, 5, activation="tanh"), layers.MaxPooling2D()),
            *(layers.Conv2D(16, 5, activation="tanh"), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dense(120, activation="tanh")),
            layers.Dense(84, activation="tanh"),
            layers.Dense(CLASSES),
        ]
    )


def mnist_cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D()),
            layers.Conv2D(64, 3, activation="relu"),
            *(layers.Flatten(), layers.Dense(64, activation="relu")),
            layers.Dense(CLASSES),
        ]
    )


def vgg6() -> keras.Model:
    def stage(features: int) -> list[layers.Layer]:
        conv = partial(layers.Conv2D, features, 3, padding="same", activation="relu")
        return [conv(), conv(), layers.MaxPooling2D()]

    ends = [layers.Flatten(), layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((32, 32, 3)), *stage(32), *stage(64), *stage(128), *ends])


def resnet(name: str) -> keras.Model:
    def conv_bn(x: keras.KerasTensor, features: int, stride: int = 1) -> keras.KerasTensor:
        if stride > 1:  # "same" would pad on one side only
            x = layers.ZeroPadding2D(1)(x)
        padding = "valid" if stride > 1 else "same"
        x = layers.Conv2D(features, 3, strides=stride, padding=padding, use_bias=False)(x)
        return layers.BatchNormalization(epsilon=1e-5)(x)  # default of the other frameworks

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(conv_bn(inputs, 16))
    for in_features, features, stride in blocks(name):
        y = layers.ReLU()(conv_bn(x, features, stride))
        y = conv_bn(y, features)
        if stride > 1:
            x = ops.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, features - in_features)))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


MAKE: dict[str, Callable[..., keras.Model]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg6": vgg6,
    **{name: partial(resnet, name) for name in RESNETS},
}
assert set(MAKE) == set(NETS)


def build(model: str, batch: int) -> Runner:
    keras.utils.set_random_seed(0)
    x, y = map(ops.convert_to_tensor, random_batch(models.get_model(model).input_shape, batch))
    net = MAKE[model]()
    net.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def steps(count: int) -> float:
        for _ in range(count):
            loss = net.train_on_batch(x, y)  # returns a number, so it blocks
        return float(loss)

    return Runner([ops.size(variable) for variable in net.trainable_variables], steps)
