"""A run that was stopped and goes on is the run that was not, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, flatten, relu, serial, train
from jaxconv.train import EarlyStopping, epoch_permutation, fit, make_optimizer, restore_snapshot, save_checkpoint
from toy_training import examples, without_times

pytestmark = pytest.mark.usefixtures("promoting")

MODEL = serial(Conv(3, 2), BatchNorm(), relu, flatten, Dropout(0.3), Dense(3))
EPOCHS, STEPS = 3, 7  # 52 examples in batches of 8; in chunks of 3, 3 and 1 steps


class Source:
    """Examples that are read when they are asked for; it remembers which were."""

    def __init__(self):
        self.images, self.labels = examples(52, 0)
        self.image_shape, self.read = (5, 4, 1), []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index], int(self.labels[index])


@pytest.fixture
def short_chunks(monkeypatch):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 3 * 8 * 20)


def noisy(key, images):
    return images + jax.random.uniform(key, images.shape)


def mixed(key, images, targets):
    share = jax.random.uniform(key)
    return share * images + (1 - share) * images[::-1], share * targets + (1 - share) * targets[::-1]


def options(case):
    optimizer = {"name": "adam", "learning_rate": 0.01, "total_steps": EPOCHS * STEPS}
    more = {
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
        | ({} if "seeds" in more else {"seed": 1})
        | more
    )


CHUNKED = pytest.mark.usefixtures("short_chunks")


class Stop(Exception):
    pass


def until(folder, place, case, start=None, source=None):
    """Fit on from a snapshot, save the first one at a place ``(epochs, chunks)``, and stop there."""

    def save(snapshot):
        at = snapshot.progress
        if (at.epoch, at.execution) == place:
            save_checkpoint(folder, snapshot)
            raise Stop

    source = source or (Source() if case == "stream, one cycle" else examples(52, 0))
    known = options(case)
    return (train.fit_seeds if "seeds" in known else fit)(
        MODEL,
        source,
        examples(19, 1),
        **known,
        resume_from=start,
        on_epoch_end=lambda record, snapshot, is_best: save(snapshot),
        on_checkpoint=save,
        checkpoint_seconds=0,
    )


def load(folder, case):
    known = options(case)
    average, key = known.get("ema_decay") is not None, jax.random.key(0)
    init = lambda key: train.create_train_state(MODEL, known["optimizer"], key, (5, 4, 1), ema=average)  # noqa: E731
    if "seeds" in known:
        init, key = jax.vmap(init), jax.random.split(key, len(known["seeds"]))
    like = jax.eval_shape(init, key)
    return restore_snapshot(folder, (like, like.eval_variables))


def assert_same(found, wanted):
    """Every array bit for bit; every number of every epoch but the times."""
    for part in ("final_state", "params", "state"):
        here, there = getattr(found, part), getattr(wanted, part)
        assert jax.tree.structure(here) == jax.tree.structure(there)
        for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert without_times(found.history) == without_times(wanted.history)
    assert (found.best_epoch, found.num_steps) == (wanted.best_epoch, wanted.num_steps)


def stopped_at(places, case, folder):
    """The run that stops at each of some places and goes on from what was saved there."""
    start = None
    for place in places:
        with pytest.raises(Stop):
            until(folder, place, case, start)
        start = load(folder, case)
        assert (start.progress.epoch, start.progress.execution) == place
    return until(folder, None, case, start)


@CHUNKED
@pytest.mark.parametrize(
    "case",
    ["seeds, augmentation, average", "accumulation, bfloat16, warm-up", "stream, one cycle", "one step at a time"],
)
def test_a_run_stopped_within_epochs_and_between_them_is_the_unbroken_run(case, tmp_path):
    whole = until(None, None, case)
    assert whole.num_steps == EPOCHS * STEPS and len(whole.history) == EPOCHS
    assert_same(stopped_at([(0, 2), (1, 0)], case, tmp_path), whole)


@CHUNKED
def test_a_run_stopped_everywhere_is_the_unbroken_run(tmp_path):
    """In every place within an epoch, several times in one, and at the end, where nothing is left to do."""
    places = [(0, 1), (1, 0), (1, 1), (1, 2), (2, 2), (EPOCHS, 0)]
    assert_same(stopped_at(places, "dropout", tmp_path), until(None, None, "dropout"))


@CHUNKED
def test_early_stopping_stops_where_it_would_have(tmp_path):
    whole = until(None, None, "early stopping")
    assert len(whole.history) < EPOCHS  # or there is nothing to see here
    assert_same(stopped_at([(1, 0), (1, 2)], "early stopping", tmp_path), whole)
    with pytest.raises(Stop):
        until(tmp_path / "end", (len(whole.history), 0), "early stopping")
    assert_same(until(None, None, "early stopping", load(tmp_path / "end", "early stopping")), whole)


@CHUNKED
def test_a_stream_goes_on_where_it_was(tmp_path):
    """What was read before is not read again: of the last epoch's 52 examples, those of the last chunk are left."""
    with pytest.raises(Stop):
        until(tmp_path, (2, 2), "stream, one cycle")
    start = load(tmp_path, "stream, one cycle")
    assert start.progress.loader_state["next_index"] == 2
    source = Source()
    until(None, None, "stream, one cycle", start, source)
    order = epoch_permutation(1, 3, 52)
    assert set(source.read) == {*order[48:], *order[:20]}  # and the padding, which fills up from the start


@CHUNKED
def test_a_run_that_goes_wrong_is_not_saved_but_told(tmp_path):
    """In the first step after a checkpoint: it stands still, and there is a checkpoint of that step already."""
    images, labels = examples(52, 0)
    images = images.astype(np.float32) / 255
    images[epoch_permutation(1, 1, 52)[3 * 8]] = 3e38  # a number, but its products are beyond float32
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


@CHUNKED
def test_the_snapshot_is_the_state_in_which_training_goes_on(tmp_path):
    """Changing what is saved changes what comes of it: none of it is ignored."""
    with pytest.raises(Stop):
        until(tmp_path, (1, 2), "seeds, augmentation, average")
    start, whole = load(tmp_path, "seeds, augmentation, average"), until(None, None, "seeds, augmentation, average")

    def differs(changed):
        with pytest.raises(AssertionError):
            assert_same(until(None, None, "seeds, augmentation, average", changed), whole)

    def nudged(tree):
        return jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), tree)

    ts, at = start.train_state, start.progress
    for part in ("params", "state", "opt_state"):
        differs(start._replace(train_state=ts._replace(**{part: nudged(getattr(ts, part))})))
    differs(start._replace(progress=at._replace(metric_sums=at.metric_sums[:1] * 2)))
    differs(
        start._replace(
            progress=at._replace(
                early_stopping=(at.early_stopping[0]._replace(best_value=2.0, best_epoch=9), at.early_stopping[1])
            )
        )
    )
    differs(start._replace(progress=at._replace(history=())))
