"""The studies of LeNet-5 and of ensembles: what they compute beside training."""

import itertools

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.metrics import log_loss as sklearns

import ensemble
import lenet
from common.study import Progress
from jaxconv import Conv, Dense, InputError, MaxPool, flatten, models, serial, tanh, train
from toy_training import net, toy


def shaken(model, input_shape, rng):
    """Parameters with biases that are not 0."""
    params, _ = model.init(jax.random.key(0), input_shape)
    return jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), params)


def test_000_10_lenet5_without_a_convolution_has_the_same_logits(rng):
    model = models.lenet5()
    params, x = shaken(model, (32, 32, 1), rng), rng.uniform(size=(3, 32, 32, 1)).astype(np.float32)
    found = lenet.compare_with_matrices(model, params, {}, x)
    assert found["matrices"] == {
        "conv1": {"entries": 4_816_896, "non_zero": 117_600, "distinct": 150},
        "conv2": {"entries": 1600 * 1176, "non_zero": 1600 * 150, "distinct": 2400},
    }
    assert found["images"] == 3 and 0 < found["largest_difference"] < 1e-5 < found["largest_logit"]


def test_any_convolution_becomes_its_matrix(x64, rng):
    """Strides, padding, images that are not square; in float64, where the two are the same."""
    body = [Conv(3, (3, 2), stride=(2, 1), padding=((1, 2), (2, 0))), tanh, MaxPool(2), Conv(4, 2, dilation=2), flatten]
    model = serial(*body, Dense(5))
    params = jax.tree.map(lambda leaf: leaf.astype(float), shaken(model, (13, 9, 2), rng))
    x = rng.normal(size=(4, 13, 9, 2))
    logits, matrices = lenet.logits_by_matrices(model, params, x)
    np.testing.assert_allclose(logits, model.apply(params, {}, x)[0], rtol=1e-10)
    assert set(matrices) == {"conv1", "conv2"}


def test_the_mean_of_several_trainings():
    histories = [
        [{"epoch": 1, "val_accuracy": 0.5, "loss": 3}, {"epoch": 2, "val_accuracy": 0.75, "loss": 2}],
        [{"epoch": 1, "val_accuracy": 0.25, "loss": 1}, {"epoch": 2, "val_accuracy": 1.0, "loss": 1}],
    ]
    assert lenet.mean_history(histories) == [{"epoch": 1, "val_accuracy": 0.375}, {"epoch": 2, "val_accuracy": 0.875}]


def test_every_network_of_lenets_study_takes_its_images():
    for name, make in lenet.NETWORKS.items():
        model = make(10)
        params, _ = jax.eval_shape(lambda model=model: model.init(jax.random.key(0), (32, 32, 1)))
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert size == (60_000 if name == "1998" else 61_706)
    kinds = [part.kind for _, part in lenet.NETWORKS["relu L2"]().children]
    assert kinds.count("relu") == 4 and kinds.count("lp_pool") == 2


def test_three_that_are_wrong_alone_are_right_together():
    """Two are mistaken about each image, but never sure of the same."""
    sure, unsure = [0.9, 0.1, 0.0], [0.4, 0.6, 0.0]
    probabilities = np.array([[sure, unsure], [unsure, sure], [[0.2, 0.3, 0.5]] * 2])
    found = ensemble.accuracy_by_size(probabilities, np.array([0, 0]))
    assert found == {1: [0.5, 0.5, 0.0], 2: [1.0, 0.5, 0.5], 3: [1.0]}


def test_every_choice_of_members_counts_once(rng):
    probabilities, labels = rng.dirichlet(np.ones(4), size=(5, 30)), rng.integers(0, 4, 30)
    found = ensemble.accuracy_by_size(probabilities, labels)
    assert {count: len(each) for count, each in found.items()} == {1: 5, 2: 10, 3: 10, 4: 5, 5: 1}
    for count in found:
        for chosen, got in zip(itertools.combinations(range(5), count), found[count], strict=True):
            said = [int(np.argmax(sum(probabilities[i][n] for i in chosen))) for n in range(30)]
            assert got == pytest.approx(accuracy_score(labels, said))


def test_the_loss_together_is_below_the_mean_of_the_losses(rng):
    """Since −log is convex; and the loss is scikit-learn's."""
    probabilities, labels = rng.dirichlet(np.ones(4), size=(5, 30)), rng.integers(0, 4, 30)
    losses = [ensemble.log_loss(each, labels) for each in probabilities]
    np.testing.assert_allclose(losses, [sklearns(labels, each, labels=range(4)) for each in probabilities], rtol=1e-6)
    assert ensemble.log_loss(probabilities.mean(0), labels) < np.mean(losses)
    assert np.isfinite(ensemble.log_loss(np.array([[0.0, 1.0]]), np.array([0])))


def test_the_settings_are_drawn_from_the_whole_range():
    rng = np.random.default_rng(1)
    drawn = [ensemble.draw_setting(rng) for _ in range(400)]
    rates = np.log10([each.learning_rate for each in drawn])
    assert -3.53 < rates.min() < -3.4 and -1.6 < rates.max() < -1.52 and abs(np.median(rates) + 2.52) < 0.15
    assert {each.width for each in drawn} == set(ensemble.WIDTHS)
    dropout = [each.dropout for each in drawn]
    assert 0 <= min(dropout) < 0.02 and 0.48 < max(dropout) <= 0.5
    sizes = {width: ensemble.network(ensemble.Setting(0.1, width, 0.5), 10).init(jax.random.key(0), (8, 8, 1))[0]
             for width in (8, 16)}  # fmt: skip
    assert [sizes[width]["conv2"]["kernel"].shape for width in (8, 16)] == [(3, 3, 8, 16), (3, 3, 16, 32)]


def test_the_best_epoch_of_each_of_several(promoting):
    """What the study says of networks that were trained at once is what they have."""
    images, labels = toy()
    fitted = train.fit_seeds(
        net(), (images, labels), (images, labels), optimizer=train.make_optimizer("adam", 1e-2), epochs=3,
        batch_size=10, seeds=[0, 1, 2],
    )  # fmt: skip
    best = [max(each) for each in zip(*ensemble.val_accuracy_by_epoch(fitted), strict=True)]
    for i, accuracy in enumerate(best):
        member = fitted.members[i]
        assert train.evaluate(net(), member.params, member.state, images, labels)["accuracy"] == pytest.approx(accuracy)


def test_what_was_measured_is_told_from_the_results():
    found = {
        "search": [{"val_accuracy": 0.5}, {"val_accuracy": 0.875}],
        "test_loss": [0.5, 0.25],
        "together": {"1": [0.8, 0.9], "2": [0.925]},
        "loss_together": 0.125,
        "seconds_each": {"one after the other": 2.0, "at once": 5.0},
    }
    told = ensemble.summarize_results(found)
    for part in ("2 networks get 0.8500 ± 0.0707", "0.9250 together", "decreases by 50%", "0.375, together 0.125",
                 "from 0.5000 to 0.8750", "2.5 times"):  # fmt: skip
        assert part in told


def test_unknown_networks_and_no_draws_are_refused():
    with Progress() as progress:
        with pytest.raises(InputError, match="lenet: unknown network 'tanh': did you mean 'tanh "):
            lenet.measure(lenet.Config(networks=("tanh",)), progress)
        with pytest.raises(InputError, match="ensemble: draws=0"):
            ensemble.measure(ensemble.Config(draws=0), progress)
