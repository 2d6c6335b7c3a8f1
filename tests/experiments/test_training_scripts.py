"""The experiments on MNIST, Fashion-MNIST and CIFAR-10: what they ask for, and the sentences they end with."""

import dataclasses
from pathlib import Path

import pytest

import cifar10
import fashion_mnist
import mnist
from common.study import Progress
from jaxconv import InputError, models
from jaxconv.data import augment


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [(0.97, 0.99, 2 / 3), (0.5, 0.5, 0.0), (0.75, 0.5, -1.0), (0.5, 1.0, 1.0), (1.0, 1.0, 0.0)],
)
def test_how_much_of_an_error_is_gone(before, after, share):  # row 004-25: (0.03 − 0.01) / 0.03
    assert mnist.error_reduction(before, after) == pytest.approx(share)


def test_mnist_tells_the_lowest_and_the_decrease_of_each_seed():
    results = {
        "convnet": {"parameters": 93322, "test_accuracy": [0.992, 0.99]},
        "dense": {"parameters": 118282, "test_accuracy": [0.98, 0.96]},
        "error_reduction": [0.6, 0.75],
    }
    assert mnist.summarize_results(results) == (
        "Test accuracy: the convnet (93,322 parameters) 0.9910 ± 0.0014, the lowest 0.9900; the dense network "
        "(118,282) 0.9700 ± 0.0141. The error decreases by 68% on average (by seed 60%, 75%)."
    )


def test_fashion_mnist_tells_every_way_and_its_worst():
    results = {"lecture's": {"test_accuracy": [0.91, 0.92]}, "better": {"test_accuracy": [0.9375]}}
    assert fashion_mnist.summarize_results(results) == (
        "Test accuracy by network: lecture's 0.9150 ± 0.0071 (at worst 0.9100), better 0.9375 (at worst 0.9375)."
    )


@pytest.mark.parametrize("way", fashion_mnist.WAYS.values(), ids=fashion_mnist.WAYS)
def test_ways_for_fashion_mnist_can_be_had(way):
    assert models.get_model(way.model).input_shape == (28, 28, 1)  # nothing is enlarged
    assert (augment.parse_augmentations(way.augment)[0] is None) == (way.augment == ())


@pytest.mark.parametrize("name", cifar10.RECIPES)
def test_recipes_for_cifar10_can_be_had(name):
    config = cifar10.make_config(cifar10.Config(), name, 3)
    assert (config.model, config.seed, config.dataset) == (name, 3, "cifar10")
    assert config.run_dir == Path(f"runs/cifar10/cifar10-{name}-3")
    assert config.epochs == cifar10.RECIPES[name]["epochs"]
    config.validate()
    moved = {"convnetjs": ("hflip", "translate:2")}  # row 004-13; the others as He et al.
    assert config.augmentations() == moved.get(name, ("hflip", "translate:4"))


def test_cifar10_tells_of_the_images_and_of_the_views():
    found = {"test_accuracy": [0.75], "epochs": [40], "views_accuracy": [0.7625]}
    results = {"note": "", "networks": {"convnetjs": found, "resnet20": {"test_accuracy": [0.9], "epochs": [20]}}}
    each = "convnetjs 0.7500 after 40 epochs (over ten views 0.7625), resnet20 0.9000 after 20 epochs."
    assert cifar10.summarize_results(results) == f"Test accuracy: {each}"
    assert cifar10.summarize_results(results | {"note": "other images"}) == f"Test accuracy on other images: {each}"


@pytest.mark.usefixtures("promoting")
def test_cifar10_started_again_reads_what_is_finished(tmp_path):
    config = dataclasses.replace(cifar10.Config(smoke=True, output_dir=tmp_path).reduced(), smoke=False, epochs=1)
    with Progress() as progress:
        first, again = (cifar10.measure(config, progress).results for _ in range(2))
    assert first == again  # seconds too
    found = first["networks"]["convnetjs"]
    assert len(found["views_accuracy"]) == 1 and found["epochs"] == [1]
    with Progress() as progress, pytest.raises(InputError, match="epochs=1, not 2: give another --run-dir"):
        cifar10.measure(dataclasses.replace(config, epochs=2), progress)


@pytest.mark.parametrize(
    ("script", "options"), [(cifar10, {"networks": ("resnet21",)}), (fashion_mnist, {"ways": ("x",)})]
)
def test_unknown_names_are_refused(script, options):
    with Progress() as progress, pytest.raises(InputError, match="unknown"):
        script.measure(script.Config(**options), progress)
