"""Functions of the experiments on LeNet-5 and ensembles, apart from training."""

import itertools

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

import ensemble
import lenet
from common.study import Progress
from jaxconv import Conv, Dense, InputError, MaxPool, flatten, models, serial, tanh, train
from toy_training import net, toy


def noisy_params(model, input_shape, rng):
    """Initialize parameters, and add noise so that biases are not 0."""
    params, _ = model.init(jax.random.key(0), input_shape)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), params)


def test_000_10_lenet5_by_matrices_has_same_logits(rng):
    model = models.lenet5()
    params, x = noisy_params(model, (32, 32, 1), rng), rng.uniform(size=(3, 32, 32, 1)).astype(np.float32)
    comparison = lenet.compare_with_matrices(model, params, {}, x)
    assert comparison["matrices"] == {
        "conv1": {"entries": 4_816_896, "non_zero": 117_600, "distinct": 150},
        "conv2": {"entries": 1600 * 1176, "non_zero": 1600 * 150, "distinct": 2400},
    }
    assert comparison["images"] == 3 and 0 < comparison["largest_difference"] < 1e-5 < comparison["largest_logit"]


def test_logits_by_matrices_match_convolutions(x64, rng):
    """With strides, padding and images that are not square, in float64."""
    body = [Conv(3, (3, 2), stride=(2, 1), padding=((1, 2), (2, 0))), tanh, MaxPool(2), Conv(4, 2, dilation=2), flatten]
    model = serial(*body, Dense(5))
    params = jax.tree.map(lambda leaf: leaf.astype(float), noisy_params(model, (13, 9, 2), rng))
    x = rng.normal(size=(4, 13, 9, 2))
    logits, matrices = lenet.logits_by_matrices(model, params, x)
    np.testing.assert_allclose(logits, model.apply(params, {}, x)[0], rtol=1e-10)
    assert set(matrices) == {"conv1", "conv2"}


def test_mean_history():
    histories = [
        [{"epoch": 1, "val_accuracy": 0.5, "loss": 3}, {"epoch": 2, "val_accuracy": 0.75, "loss": 2}],
        [{"epoch": 1, "val_accuracy": 0.25, "loss": 1}, {"epoch": 2, "val_accuracy": 1.0, "loss": 1}],
    ]
    assert lenet.mean_history(histories) == [{"epoch": 1, "val_accuracy": 0.375}, {"epoch": 2, "val_accuracy": 0.875}]


def test_lenet_networks_have_known_sizes():
    for name, make in lenet.NETWORKS.items():
        model = make(10)
        params, _ = jax.eval_shape(lambda model=model: model.init(jax.random.key(0), (32, 32, 1)))
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert size == (60_000 if name == "1998" else 61_706)
    kinds = [child.kind for _, child in lenet.NETWORKS["relu L2"]().children]
    assert kinds.count("relu") == 4 and kinds.count("lp_pool") == 2


def test_three_wrong_networks_are_right_as_ensemble():
    """Two networks are wrong on each image, but with low confidence."""
    confident, uncertain = [0.9, 0.1, 0.0], [0.4, 0.6, 0.0]
    probabilities = np.array([[confident, uncertain], [uncertain, confident], [[0.2, 0.3, 0.5]] * 2])
    accuracies = ensemble.accuracy_by_size(probabilities, np.array([0, 0]))
    assert accuracies == {1: [0.5, 0.5, 0.0], 2: [1.0, 0.5, 0.5], 3: [1.0]}


def test_accuracy_by_size_covers_all_subsets(rng):
    probabilities, labels = rng.dirichlet(np.ones(4), size=(5, 30)), rng.integers(0, 4, 30)
    accuracies = ensemble.accuracy_by_size(probabilities, labels)
    assert {size: len(values) for size, values in accuracies.items()} == {1: 5, 2: 10, 3: 10, 4: 5, 5: 1}
    for size in accuracies:
        for subset, accuracy in zip(itertools.combinations(range(5), size), accuracies[size], strict=True):
            predicted = [int(np.argmax(sum(probabilities[i][n] for i in subset))) for n in range(30)]
            assert accuracy == pytest.approx(accuracy_score(labels, predicted))


def test_ensemble_loss_is_below_mean_loss(rng):
    """Since −log is convex; the loss equals that of scikit-learn."""
    probabilities, labels = rng.dirichlet(np.ones(4), size=(5, 30)), rng.integers(0, 4, 30)
    losses = [ensemble.log_loss(values, labels) for values in probabilities]
    np.testing.assert_allclose(
        losses, [sklearn_log_loss(labels, values, labels=range(4)) for values in probabilities], rtol=1e-6
    )
    assert ensemble.log_loss(probabilities.mean(0), labels) < np.mean(losses)
    assert np.isfinite(ensemble.log_loss(np.array([[0.0, 1.0]]), np.array([0])))


def test_draw_setting_covers_the_ranges():
    rng = np.random.default_rng(1)
    settings = [ensemble.draw_setting(rng) for _ in range(400)]
    rates = np.log10([setting.learning_rate for setting in settings])
    assert -3.53 < rates.min() < -3.4 and -1.6 < rates.max() < -1.52 and abs(np.median(rates) + 2.52) < 0.15
    assert {setting.width for setting in settings} == set(ensemble.WIDTHS)
    dropout = [setting.dropout for setting in settings]
    assert 0 <= min(dropout) < 0.02 and 0.48 < max(dropout) <= 0.5
    sizes = {width: ensemble.network(ensemble.Setting(0.1, width, 0.5), 10).init(jax.random.key(0), (8, 8, 1))[0]
             for width in (8, 16)}  # fmt: skip
    assert [sizes[width]["conv2"]["kernel"].shape for width in (8, 16)] == [(3, 3, 8, 16), (3, 3, 16, 32)]


def test_val_accuracy_by_epoch_matches_evaluate(promoting):
    """The recorded accuracies of networks trained in parallel equal those of evaluate."""
    images, labels = toy()
    fitted = train.fit_seeds(
        net(), (images, labels), (images, labels), optimizer=train.make_optimizer("adam", 1e-2), epochs=3,
        batch_size=10, seeds=[0, 1, 2],
    )  # fmt: skip
    best = [max(accuracies) for accuracies in zip(*ensemble.val_accuracy_by_epoch(fitted), strict=True)]
    for i, accuracy in enumerate(best):
        member = fitted.members[i]
        assert train.evaluate(net(), member.params, member.state, images, labels)["accuracy"] == pytest.approx(accuracy)


def test_ensemble_summary_from_results():
    results = {
        "search": [{"val_accuracy": 0.5}, {"val_accuracy": 0.875}],
        "test_loss": [0.5, 0.25],
        "together": {"1": [0.8, 0.9], "2": [0.925]},
        "loss_together": 0.125,
        "seconds_each": {"one after the other": 2.0, "at once": 5.0},
    }
    summary = ensemble.summarize_results(results)
    for part in ("2 networks get 0.8500 ± 0.0707", "0.9250 together", "decreases by 50%", "0.375, together 0.125",
                 "from 0.5000 to 0.8750", "2.5 times"):  # fmt: skip
        assert part in summary


def test_unknown_network_and_zero_draws_raise():
    with Progress() as progress:
        with pytest.raises(InputError, match="lenet: unknown network 'tanh': did you mean 'tanh "):
            lenet.measure(lenet.Config(networks=("tanh",)), progress)
        with pytest.raises(InputError, match="ensemble: draws=0"):
            ensemble.measure(ensemble.Config(draws=0), progress)
