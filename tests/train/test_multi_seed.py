"""Several seeds in one compiled function: each result equals that of training the seed separately."""

import jax
import numpy as np
import optax
import pytest

from jaxconv import train
from jaxconv.train.multi_seed import Single, Stacked
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")

OPTIONS = {"optimizer": optax.adam(0.05), "batch_size": 8}
NAMES = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")


def test_members_match_results_of_fit():
    """The seed that stops first has a shorter history, fewer steps and an earlier final state."""
    options = OPTIONS | {"epochs": 12, "early_stopping": train.EarlyStopping(1, "val_loss"), "ema_decay": 0.5}
    ensemble = train.fit_seeds(net(), toy(50), toy(21, seed=1), seeds=(0, 1), **options)
    individual = [train.fit(net(), toy(50), toy(21, seed=1), seed=seed, **options) for seed in (0, 1)]
    assert len({fitted.num_steps for fitted in individual}) == 2
    for member, fitted in zip(ensemble.members, individual, strict=True):
        assert isinstance(member, train.FitResult)
        assert (member.best_epoch, member.num_steps, int(member.final_state.step)) == (
            fitted.best_epoch,
            fitted.num_steps,
            fitted.num_steps,
        )
        assert len(member.history) == len(fitted.history)
        for member_record, fitted_record in zip(member.history, fitted.history, strict=True):
            np.testing.assert_allclose(
                *([record[name] for name in NAMES] for record in (member_record, fitted_record)), rtol=1e-3
            )
        assert_close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)  # noqa: E731
        jax.tree.map(
            assert_close,
            (member.params, member.state, member.final_state),
            (fitted.params, fitted.state, fitted.final_state),
        )
        images, labels = toy(19, seed=2)
        evaluations = [
            network.evaluator(network.params, network.state, network.evaluator.batches(images, labels))
            for network in (member, fitted)
        ]
        np.testing.assert_allclose(evaluations[0].loss, evaluations[1].loss, rtol=1e-2)
        assert evaluations[0].examples == evaluations[1].examples == 19


def test_fit_seeds_accepts_dataset_and_any_seed_sequence():
    class Split(tuple):
        """Pair of arrays with ``input_shape``, as the splits of jaxconv.data."""

        input_shape = (4, 4, 1)

    class Dataset:
        train, validation = Split(toy(50)), toy(21, seed=1)

    with_range, with_array = (
        train.fit_seeds(net(), Dataset, seeds=seeds, epochs=1, **OPTIONS) for seeds in (range(2), np.arange(2))
    )
    jax.tree.map(np.testing.assert_array_equal, with_range.params, with_array.params)
    assert with_range.best_epoch == [1, 1] and with_range.num_steps == 7


def test_single_and_stacked_operations():
    function = lambda x: x  # noqa: E731
    single, new, old = Single(3), {"w": np.ones(2)}, {"w": np.zeros(2)}
    assert single.transform(function, (0, None)) is function and single.member(new, 5) is new
    assert single.num_members is None and Stacked((3, 0)).num_members == 2
    assert single.select(np.array([False]), new, old) is old
    selected = single.select(np.array([True]), new, old)
    assert (selected["w"] == 1).all() and selected["w"] is not new[
        "w"
    ]  # a copy, since an execution donates the memory of new
    plan = train.plan_epoch(10, 4, (4, 4, 1))
    indices = Stacked((3, 0)).batch_indices(plan, 2)
    assert indices.shape == (plan.executions, 2, plan.steps_per_execution, 4)
    for i, seed in enumerate((3, 0)):
        np.testing.assert_array_equal(indices[:, i], Single(seed).batch_indices(plan, 2))
        assert indices[:, i].ravel()[:10].tolist() == train.epoch_permutation(seed, 2, 10).tolist()
