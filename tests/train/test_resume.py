"""A run that is stopped and resumed equals the unbroken run, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, flatten, relu, serial, train
from jaxconv.train import EarlyStopping, epoch_permutation, fit, make_optimizer, restore_snapshot, save_checkpoint
from toy_training import examples, without_times

pytestmark = pytest.mark.usefixtures("promoting")

MODEL = serial(Conv(3, 2), BatchNorm(), relu, flatten, Dropout(0.3), Dense(3))
EPOCHS, STEPS = 3, 7  # 52 examples in batches of 8; executions of 3, 3 and 1 steps


class Source:
    """Random-access source that records the indices read."""

    def __init__(self):
        self.images, self.labels = examples(52, 0)
        self.image_shape, self.read = (5, 4, 1), []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index], int(self.labels[index])


@pytest.fixture
def short_executions(monkeypatch):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 3 * 8 * 20)


def noisy(key, images):
    return images + jax.random.uniform(key, images.shape)


def mixed(key, images, targets):
    fraction = jax.random.uniform(key)
    return fraction * images + (1 - fraction) * images[::-1], fraction * targets + (1 - fraction) * targets[::-1]


def options(case):
    optimizer = {"name": "adam", "learning_rate": 0.01, "total_steps": EPOCHS * STEPS}
    case_options = {
        "dropout": {},
        "seeds, augmentation, average": {"seeds": [3, 0], "augment": noisy, "mixup_fn": mixed, "ema_decay": 0.9},
        "accumulation, bfloat16, warm-up": {
            "grad_accumulation": 2,
            "dtype": "bfloat16",
            "optimizer": make_optimizer(**optimizer | {"name": "momentum"}, schedule="cosine", warmup_steps=9),
        },
        "stream, one cycle": {"optimizer": make_optimizer(**optimizer, schedule="one_cycle"), "label_smoothing": 0.1},
        "one step at a time": {"jit": False},
        "early stopping": {"early_stopping": EarlyStopping(1, "val_loss", min_delta=9.0)},
    }[case]
    return (
        {"optimizer": make_optimizer(**optimizer), "epochs": EPOCHS, "batch_size": 8}
        | ({} if "seeds" in case_options else {"seed": 1})
        | case_options
    )


SHORT_EXECUTIONS = pytest.mark.usefixtures("short_executions")


class Stop(Exception):
    pass


def until(folder, position, case, resume_from=None, source=None):
    """Fit up to a position ``(epochs, executions)``, save the snapshot there, and raise Stop; None: to the end."""

    def save(snapshot):
        progress = snapshot.progress
        if (progress.epoch, progress.execution) == position:
            save_checkpoint(folder, snapshot)
            raise Stop

    source = source or (Source() if case == "stream, one cycle" else examples(52, 0))
    case_options = options(case)
    return (train.fit_seeds if "seeds" in case_options else fit)(
        MODEL,
        source,
        examples(19, 1),
        **case_options,
        resume_from=resume_from,
        on_epoch_end=lambda record, snapshot, is_best: save(snapshot),
        on_checkpoint=save,
        checkpoint_seconds=0,
    )


def load(folder, case):
    case_options = options(case)
    ema, key = case_options.get("ema_decay") is not None, jax.random.key(0)
    init = lambda key: train.create_train_state(MODEL, case_options["optimizer"], key, (5, 4, 1), ema=ema)  # noqa: E731
    if "seeds" in case_options:
        init, key = jax.vmap(init), jax.random.split(key, len(case_options["seeds"]))
    target = jax.eval_shape(init, key)
    return restore_snapshot(folder, (target, target.eval_variables))


def assert_same(actual, expected):
    """Assert that all arrays are equal bit for bit, and all records except the times."""
    for field in ("final_state", "params", "state"):
        actual_tree, expected_tree = getattr(actual, field), getattr(expected, field)
        assert jax.tree.structure(actual_tree) == jax.tree.structure(expected_tree)
        for actual_leaf, expected_leaf in zip(
            jax.tree.leaves(actual_tree), jax.tree.leaves(expected_tree), strict=True
        ):
            assert np.asarray(actual_leaf).tobytes() == np.asarray(expected_leaf).tobytes()
    assert without_times(actual.history) == without_times(expected.history)
    assert (actual.best_epoch, actual.num_steps) == (expected.best_epoch, expected.num_steps)


def stopped_at(positions, case, folder):
    """Return the result of a run that is stopped at each position and resumed from its checkpoint."""
    snapshot = None
    for position in positions:
        with pytest.raises(Stop):
            until(folder, position, case, snapshot)
        snapshot = load(folder, case)
        assert (snapshot.progress.epoch, snapshot.progress.execution) == position
    return until(folder, None, case, snapshot)


@SHORT_EXECUTIONS
@pytest.mark.parametrize(
    "case",
    ["seeds, augmentation, average", "accumulation, bfloat16, warm-up", "stream, one cycle", "one step at a time"],
)
def test_resume_within_and_between_epochs_equals_unbroken_run(case, tmp_path):
    unbroken = until(None, None, case)
    assert unbroken.num_steps == EPOCHS * STEPS and len(unbroken.history) == EPOCHS
    assert_same(stopped_at([(0, 2), (1, 0)], case, tmp_path), unbroken)


@SHORT_EXECUTIONS
def test_resume_at_every_position_equals_unbroken_run(tmp_path):
    """Positions: after each execution of an epoch, several in one epoch, and at the end."""
    positions = [(0, 1), (1, 0), (1, 1), (1, 2), (2, 2), (EPOCHS, 0)]
    assert_same(stopped_at(positions, "dropout", tmp_path), until(None, None, "dropout"))


@SHORT_EXECUTIONS
def test_resumed_early_stopping_equals_unbroken_run(tmp_path):
    unbroken = until(None, None, "early stopping")
    assert len(unbroken.history) < EPOCHS  # else the test checks nothing
    assert_same(stopped_at([(1, 0), (1, 2)], "early stopping", tmp_path), unbroken)
    with pytest.raises(Stop):
        until(tmp_path / "end", (len(unbroken.history), 0), "early stopping")
    assert_same(until(None, None, "early stopping", load(tmp_path / "end", "early stopping")), unbroken)


@SHORT_EXECUTIONS
def test_resumed_stream_reads_remaining_examples_only(tmp_path):
    """Only the last execution of the last epoch is read after resuming."""
    with pytest.raises(Stop):
        until(tmp_path, (2, 2), "stream, one cycle")
    snapshot = load(tmp_path, "stream, one cycle")
    assert snapshot.progress.loader_state["next_index"] == 2
    source = Source()
    until(None, None, "stream, one cycle", snapshot, source)
    order = epoch_permutation(1, 3, 52)
    assert set(source.read) == {*order[48:], *order[:20]}  # and the padding, taken from the start of the order


@SHORT_EXECUTIONS
def test_nonfinite_step_raises_and_saves_no_checkpoint(tmp_path):
    """The first step after a checkpoint is not finite, so no other checkpoint is written."""
    images, labels = examples(52, 0)
    images = images.astype(np.float32) / 255
    images[epoch_permutation(1, 1, 52)[3 * 8]] = 3e38  # finite, but products overflow float32
    validation = images[labels == 0], labels[labels == 0]
    with pytest.raises(
        InputError, match=r"^fit: step 4 \(epoch 1\): the loss is nan; the first non-finite parameter is"
    ):
        fit(
            MODEL,
            (images, labels),
            validation,
            **options("dropout"),
            scale=1,
            on_checkpoint=lambda snapshot: save_checkpoint(tmp_path, snapshot),
            checkpoint_seconds=0,
        )
    assert train.all_steps(tmp_path) == [3]


@SHORT_EXECUTIONS
def test_resume_uses_every_field_of_snapshot(tmp_path):
    """Modifying any field of the snapshot changes the result."""
    with pytest.raises(Stop):
        until(tmp_path, (1, 2), "seeds, augmentation, average")
    snapshot, unbroken = (
        load(tmp_path, "seeds, augmentation, average"),
        until(None, None, "seeds, augmentation, average"),
    )

    def assert_differs(modified):
        with pytest.raises(AssertionError):
            assert_same(until(None, None, "seeds, augmentation, average", modified), unbroken)

    def increment(tree):
        return jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), tree)

    train_state, progress = snapshot.train_state, snapshot.progress
    for field in ("params", "state", "opt_state"):
        assert_differs(
            snapshot._replace(train_state=train_state._replace(**{field: increment(getattr(train_state, field))}))
        )
    assert_differs(snapshot._replace(progress=progress._replace(metric_sums=progress.metric_sums[:1] * 2)))
    assert_differs(
        snapshot._replace(
            progress=progress._replace(
                early_stopping=(
                    progress.early_stopping[0]._replace(best_value=2.0, best_epoch=9),
                    progress.early_stopping[1],
                )
            )
        )
    )
    assert_differs(snapshot._replace(progress=progress._replace(history=())))
