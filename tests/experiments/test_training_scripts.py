"""The experiments on MNIST, Fashion-MNIST and CIFAR-10: configurations and summaries."""

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
    ("before", "after", "reduction"),
    [(0.97, 0.99, 2 / 3), (0.5, 0.5, 0.0), (0.75, 0.5, -1.0), (0.5, 1.0, 1.0), (1.0, 1.0, 0.0)],
)
def test_error_reduction(before, after, reduction):  # row 004-25: (0.03 − 0.01) / 0.03
    assert mnist.error_reduction(before, after) == pytest.approx(reduction)


def test_mnist_summary_has_minimum_and_reductions():
    results = {
        "convnet": {"parameters": 93322, "test_accuracy": [0.992, 0.99]},
        "dense": {"parameters": 118282, "test_accuracy": [0.98, 0.96]},
        "error_reduction": [0.6, 0.75],
    }
    assert mnist.summarize_results(results) == (
        "Test accuracy: the convnet (93,322 parameters) 0.9910 ± 0.0014, the lowest 0.9900; the dense network "
        "(118,282) 0.9700 ± 0.0141. The error decreases by 68% on average (by seed 60%, 75%)."
    )


def test_fashion_mnist_summary_has_mean_and_minimum():
    results = {"lecture's": {"test_accuracy": [0.91, 0.92]}, "better": {"test_accuracy": [0.9375]}}
    assert fashion_mnist.summarize_results(results) == (
        "Test accuracy by network: lecture's 0.9150 ± 0.0071 (at worst 0.9100), better 0.9375 (at worst 0.9375)."
    )


@pytest.mark.parametrize("way", fashion_mnist.WAYS.values(), ids=fashion_mnist.WAYS)
def test_fashion_mnist_ways_are_valid(way):
    assert models.get_model(way.model).input_shape == (28, 28, 1)  # images are not resized
    assert (augment.parse_augmentations(way.augment)[0] is None) == (way.augment == ())


@pytest.mark.parametrize("name", cifar10.RECIPES)
def test_cifar10_recipes_are_valid(name):
    config = cifar10.make_config(cifar10.Config(), name, 3)
    assert (config.model, config.seed, config.dataset) == (name, 3, "cifar10")
    assert config.run_dir == Path(f"runs/cifar10/cifar10-{name}-3")
    assert config.epochs == cifar10.RECIPES[name]["epochs"]
    config.validate()
    augmentations = {"convnetjs": ("hflip", "translate:2")}  # row 004-13; the others as He et al.
    assert config.augmentations() == augmentations.get(name, ("hflip", "translate:4"))


def test_cifar10_summary_has_note_and_views():
    convnetjs = {"test_accuracy": [0.75], "epochs": [40], "views_accuracy": [0.7625]}
    results = {"note": "", "networks": {"convnetjs": convnetjs, "resnet20": {"test_accuracy": [0.9], "epochs": [20]}}}
    accuracies = "convnetjs 0.7500 after 40 epochs (over ten views 0.7625), resnet20 0.9000 after 20 epochs."
    assert cifar10.summarize_results(results) == f"Test accuracy: {accuracies}"
    assert (
        cifar10.summarize_results(results | {"note": "other images"}) == f"Test accuracy on other images: {accuracies}"
    )


@pytest.mark.usefixtures("promoting")
def test_cifar10_rerun_reads_finished_runs(tmp_path):
    config = dataclasses.replace(cifar10.Config(smoke=True, output_dir=tmp_path).reduced(), smoke=False, epochs=1)
    with Progress() as progress:
        first, again = (cifar10.measure(config, progress).results for _ in range(2))
    assert first == again  # including the seconds
    network = first["networks"]["convnetjs"]
    assert len(network["views_accuracy"]) == 1 and network["epochs"] == [1]
    with Progress() as progress, pytest.raises(InputError, match="epochs=1, not 2: give another --run-dir"):
        cifar10.measure(dataclasses.replace(config, epochs=2), progress)


@pytest.mark.parametrize(
    ("script", "options"), [(cifar10, {"networks": ("resnet21",)}), (fashion_mnist, {"ways": ("x",)})]
)
def test_unknown_names_raise(script, options):
    with Progress() as progress, pytest.raises(InputError, match="unknown"):
        script.measure(script.Config(**options), progress)
