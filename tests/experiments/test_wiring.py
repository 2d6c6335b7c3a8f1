"""Networks, splits and choices of every experiment, without training: ``--smoke`` does not detect errors in them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ensemble
import fashion_mnist
import features
import generative
import invariance
import lenet
import mnist
import pooling
import residual
import robustness
import sequence
import translation
from common.study import Progress
from jaxconv import data, explain, serial, train
from jaxconv.explain import ShiftResult, summarize

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
pytestmark = pytest.mark.usefixtures("promoting")


def hashes(images):
    return {hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in np.asarray(images)}


@pytest.fixture
def calls(monkeypatch):
    """Replace training and evaluation by functions that log their arguments."""
    log = SimpleNamespace(fits=[], evaluated=[], moved=[], distorted=[])

    def fit(model, examples, validation, *, seed, **options):
        is_multi_seed = not isinstance(seed, int)
        init = lambda key: model.init(key, examples[0].shape[1:])  # noqa: E731
        keys = jnp.stack([jax.random.key(s) for s in seed]) if is_multi_seed else jax.random.key(seed)
        params, state = (jax.vmap(init) if is_multi_seed else init)(keys)
        members = [
            jax.tree.map(lambda leaf, i=i: leaf[i], (params, state)) for i in range(len(seed) if is_multi_seed else 0)
        ]
        accuracy = len(log.fits) * 37 % 101 / 101  # differs between calls
        record = {"epoch": 1, "loss": 1.0, "accuracy": accuracy, "val_accuracy": accuracy, "val_loss": 1.0}
        if is_multi_seed:
            record["per_seed"] = [record] * len(seed)
        log.fits.append(
            SimpleNamespace(
                model=model,
                params=params,
                train=examples[0],
                validation=validation[0],
                seed=seed,
                augment=options.get("augment"),
                task=options.get("task"),
            )
        )
        members = [SimpleNamespace(params=params, state=state) for params, state in members]
        return SimpleNamespace(
            params=params, state=state, history=[record], best_epoch=1, train_seconds=1.0, members=members
        )

    def fit_seeds(model, examples, validation, *, seeds, **options):
        return fit(model, examples, validation, seed=seeds, **options)

    def evaluate(model, params, state, images, labels, **options):
        log.evaluated.append(images)
        return {"accuracy": 0.5, "loss": 1.0, "count": len(labels)}

    def translation_test(model, params, state, images, labels, *, shifts, axis="both", **options):
        log.moved.append(images)
        return [ShiftResult(s, 0.5, 0.5, 0.1) for s in shifts]

    def corruption_accuracy(model, params, state, images, labels, *, corruptions, **options):
        log.distorted.append(images)
        return {d: [(explain.CORRUPTIONS[d].identity, 1.0), (1.5, 0.5)] for d in corruptions}

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(train, "fit_seeds", fit_seeds)
    monkeypatch.setattr(train, "evaluate", evaluate)
    monkeypatch.setattr(explain, "translation_test", translation_test)
    monkeypatch.setattr(explain, "corruption_accuracy", corruption_accuracy)
    return log


def run_smoke(experiment, **changes):
    config = dataclasses.replace(experiment.Config(smoke=True).reduced(), **changes)
    with Progress() as progress:
        return experiment.measure(config, progress).results


def check_splits(log, name="digits", input_shape=None):
    """Check that training, selection and scoring use the training, validation and test split."""
    dataset = data.load(name)
    dataset = dataset.with_min_size(input_shape) if input_shape else dataset
    train_, validation, test = (hashes(getattr(dataset, part).images) for part in ("train", "validation", "test"))
    assert not train_ & test
    for fit in log.fits:
        assert hashes(fit.train) <= train_ and hashes(fit.validation) <= validation
    for images in [*log.evaluated, *log.moved, *log.distorted]:
        assert hashes(images) <= test


def test_pooling(calls):
    x = jnp.array([[1.0, 2.0], [3.0, 10.0]])[None, :, :, None]
    expected = {"max": 10.0, "mean": 4.0, "L2": np.sqrt(1 + 4 + 9 + 100)}
    for name, value in expected.items():
        layer = serial(*pooling.POOLS[name](1))
        assert float(layer.apply(*layer.init(jax.random.key(0), (2, 2, 1)), x)[0].squeeze()) == pytest.approx(value)
    run_smoke(pooling, pools=tuple(pooling.POOLS), num_seeds=1)
    check_splits(calls)
    sizes = dict(zip(pooling.POOLS, (sum(p.size for p in jax.tree.leaves(f.params)) for f in calls.fits), strict=True))
    assert sizes["max"] == sizes["mean"] == sizes["L2"] == sizes["stride 2"]


def test_robustness(calls):
    run_smoke(robustness, models=("small_cnn",))
    check_splits(calls)
    assert calls.distorted


def test_ensemble(calls, monkeypatch):
    monkeypatch.setattr(train, "predict", lambda model, params, state, images: np.full((len(images), 10), 0.1))
    smoke_results = run_smoke(ensemble, draws=4)
    check_splits(calls)
    for results in (smoke_results, json.loads((RESULTS / "ensemble.json").read_text())["results"]):
        best = max(results["search"], key=lambda setting: setting["val_accuracy"])
        assert {name: best[name] for name in results["chosen"]} == results["chosen"]


def test_residual(calls, monkeypatch):
    monkeypatch.setattr(residual, "gradient_norms", lambda model: lambda *args, **options: {1: 1.0, 2: 1.0, 3: 1.0})
    monkeypatch.setattr(residual, "zero_block", lambda *args: {"from_identity": 0.0, "gradient_from_identity": 0.0})
    run_smoke(residual, kinds=("plain", "residual"), depths=(8,))
    check_splits(calls)
    plain, shortcuts = calls.fits
    assert [sum(name.startswith("res") for name in fit.params) for fit in (plain, shortcuts)] == [0, 3]
    sizes = [sum(p.size for p in jax.tree.leaves(fit.params)) for fit in (plain, shortcuts)]
    assert sizes[0] == sizes[1]


def test_translation(calls):
    run_smoke(translation)
    check_splits(calls)
    assert [fit.augment is not None for fit in calls.fits] == [False, False, True, True]


def test_invariance(calls):
    run_smoke(invariance)
    permuted = [fit for fit in calls.fits if not hashes(fit.train) & hashes(data.load("digits").train.images)]
    assert len(permuted) == 2  # one per network, with all images permuted
    last = calls.evaluated[-1]
    test = data.load("digits").test.images
    assert not hashes(last) & hashes(test)
    np.testing.assert_array_equal(np.sort(last.reshape(len(last), -1)), np.sort(test.reshape(len(test), -1)))


def test_lenet():
    kinds = {"max": "max_pool", "mean": "avg_pool", "L2": "lp_pool"}
    for name, make in lenet.NETWORKS.items():
        if name != "1998":
            activation, pool = name.split()
            layer_kinds = [child.kind for _, child in make(10).children]
            assert (layer_kinds.count(activation), layer_kinds.count(kinds[pool])) == (4, 2), name


def test_features():
    flat, step = np.full((1, 9, 9, 1), 100, np.uint8), np.zeros((1, 9, 9, 1), np.uint8)
    step[:, :, 4:] = 255
    edges = features.FEATURES["edges"]
    assert np.abs(np.asarray(edges(flat, 3))[:, 1:-1, 1:-1]).max() < 1e-6
    np.testing.assert_allclose(np.asarray(edges(step, 3))[0, 4, 1:-1, 0], [0, 0, 4, 4, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(features.FEATURES["pixels"](flat, 3), 100 / 255)


def test_generative(calls):
    """The loss of the variational autoencoder is the sum of both terms, and its code is sampled in training."""
    run_smoke(generative, num_seeds=1)
    check_splits(calls)
    plain, variational = calls.fits
    assert isinstance(plain.task, train.Reconstruction)
    code, images = generative.Config(smoke=True).reduced().code, data.load("digits").test.images[:9] / np.float32(255)
    coder, key = generative.coder((8, 8, 1), code, True), jax.random.key(0)
    params = jax.tree.map(lambda leaf: leaf[0], variational.params)  # of the only seed
    encoded = np.asarray(coder.encoder.apply(params["encoder"], {}, images)[0], np.float64)
    mean, log_var = encoded[:, :code], encoded[:, code:]
    sample = mean + np.exp(log_var / 2) * np.asarray(jax.random.normal(key, mean.shape))
    logits = np.asarray(coder.decoder.apply(params["decoder"], {}, jnp.asarray(sample, jnp.float32))[0])
    pixels = (np.logaddexp(0, logits) - images * logits).sum(axis=(1, 2, 3))
    divergence = (0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)).sum(axis=1)
    output, _ = variational.model.apply(params, {}, images, train=True, key=key)
    assert divergence.sum() > 0
    np.testing.assert_allclose(variational.task.loss(output, images), pixels + divergence, rtol=1e-5)


def test_mnist(calls):
    run_smoke(mnist)
    check_splits(calls, input_shape=(28, 28, 1))
    assert all(len(images) == len(data.load("digits").test.labels) for images in calls.evaluated)


def test_fashion_mnist(calls):
    run_smoke(fashion_mnist, ways=tuple(fashion_mnist.WAYS))
    check_splits(calls, input_shape=(28, 28, 1))
    assert [fit.augment is not None for fit in calls.fits] == [way.augment != () for way in fashion_mnist.WAYS.values()]


def test_sequence():
    networks = sequence.TASKS["text"].networks
    for name in ("conv, 3 words", "conv, 5 words"):
        assert summarize(networks[name](2), (40, 100)).rows[0].receptive_field == (int(name.split()[1]),)


@pytest.mark.xfail(strict=True, reason="the records do not name their commit, date and data yet")
@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_record_has_commit_date_and_data(path):
    record = json.loads(path.read_text())
    assert {"commit", "date", "data_sha256"} <= set(record)
