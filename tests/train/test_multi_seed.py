"""Several seeds in one program: the result of each network is that of training it alone."""

import jax
import numpy as np
import optax
import pytest

from jaxconv import train
from jaxconv.train.multi_seed import Single, Stacked
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")

OPTIONS = {"optimizer": optax.adam(0.05), "batch_size": 8}
NUMBERS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")


def test_the_members_are_the_results_of_fit():
    """One of them stops earlier than the other: its history, steps and last state end there."""
    options = OPTIONS | {"epochs": 12, "early_stopping": train.EarlyStopping(1, "val_loss"), "ema_decay": 0.5}
    together = train.fit_seeds(net(), toy(50), toy(21, seed=1), seeds=(0, 1), **options)
    alone = [train.fit(net(), toy(50), toy(21, seed=1), seed=seed, **options) for seed in (0, 1)]
    assert len({one.num_steps for one in alone}) == 2
    for member, one in zip(together.members, alone, strict=True):
        assert isinstance(member, train.FitResult)
        assert (member.best_epoch, member.num_steps, int(member.final_state.step)) == (
            one.best_epoch,
            one.num_steps,
            one.num_steps,
        )
        assert len(member.history) == len(one.history)
        for here, there in zip(member.history, one.history, strict=True):
            np.testing.assert_allclose(*([record[name] for name in NUMBERS] for record in (here, there)), rtol=1e-3)
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)  # noqa: E731
        jax.tree.map(close, (member.params, member.state, member.final_state), (one.params, one.state, one.final_state))
        images, labels = toy(19, seed=2)
        scores = [each.evaluator(each.params, each.state, each.evaluator.batches(images, labels)) for each in
                  (member, one)]  # fmt: skip
        np.testing.assert_allclose(scores[0].loss, scores[1].loss, rtol=1e-2)
        assert scores[0].examples == scores[1].examples == 19


def test_a_data_set_and_any_sequence_of_seeds_are_taken():
    class Split(tuple):
        """A pair that knows the shape of an example, as the splits of jaxconv.data do."""

        input_shape = (4, 4, 1)

    class Parts:
        train, validation = Split(toy(50)), toy(21, seed=1)

    one, other = (train.fit_seeds(net(), Parts, seeds=seeds, epochs=1, **OPTIONS) for seeds in (range(2), np.arange(2)))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert one.best_epoch == [1, 1] and one.num_steps == 7


def test_a_single_network_is_trained_by_the_function_itself():
    function = lambda x: x  # noqa: E731
    single, new, old = Single(3), {"w": np.ones(2)}, {"w": np.zeros(2)}
    assert single.transform(function, (0, None)) is function and single.member(new, 5) is new
    assert single.num_members is None and Stacked((3, 0)).num_members == 2
    assert single.select(np.array([False]), new, old) is old
    chosen = single.select(np.array([True]), new, old)
    assert (chosen["w"] == 1).all() and chosen["w"] is not new["w"]  # a chunk reuses the memory of new
    plan = train.plan_epoch(10, 4, (4, 4, 1))
    rows = Stacked((3, 0)).batch_indices(plan, 2)
    assert rows.shape == (plan.executions, 2, plan.steps_per_execution, 4)
    for i, seed in enumerate((3, 0)):
        np.testing.assert_array_equal(rows[:, i], Single(seed).batch_indices(plan, 2))
        assert rows[:, i].ravel()[:10].tolist() == train.epoch_permutation(seed, 2, 10).tolist()
