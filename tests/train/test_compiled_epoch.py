"""The compiled epoch: the numbers of the plain loop, of a stream, of every seed alone, and of one compilation."""

import sys

import jax
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, flatten, serial, train
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")

OPTIONS = {"epochs": 2, "batch_size": 8}
CUTTING = sys.modules["jaxconv.train.loaders"]  # not the function of that name


def fit(data=None, **options):
    options = OPTIONS | {"optimizer": optax.adam(1e-2)} | options
    function = train.fit_seeds if "seeds" in options else train.fit
    return function(net(), toy(50) if data is None else data, toy(21, seed=1), **options)


def flip(key, images):
    return jax.numpy.where(jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1)), images[:, ::-1], images)


def learned(fitted):
    return fitted.params, fitted.state, fitted.final_state


def same(first, second, rtol=2e-4, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), first, second)


@pytest.fixture
def short_chunks(monkeypatch):
    """Seven steps an epoch in chunks of three: the last chunk has two steps without an example."""
    monkeypatch.setattr(CUTTING, "PIXELS_PER_EXECUTION", 3 * 8 * 16)
    assert train.plan_epoch(50, 8, (4, 4, 1)) == train.EpochPlan(50, 8, 7, 3, 3)


@pytest.mark.parametrize(
    "options", [{}, {"augment": flip, "ema_decay": 0.9, "grad_accumulation": 2, "label_smoothing": 0.1}]
)
def test_the_compiled_epoch_makes_the_numbers_of_the_plain_loop(short_chunks, options):
    compiled, plain = (fit(jit=compiled, **options) for compiled in (True, False))
    same(learned(compiled), learned(plain))
    assert compiled.num_steps == plain.num_steps == 14
    for one, other in zip(compiled.history, plain.history, strict=True):
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)
        assert one["accuracy"] == other["accuracy"]


def test_the_length_of_the_chunks_changes_nothing(short_chunks, monkeypatch):
    first = fit()
    monkeypatch.setattr(CUTTING, "PIXELS_PER_EXECUTION", 2**22)
    assert train.plan_epoch(50, 8, (4, 4, 1)).executions == 1
    same(learned(first), learned(fit()), rtol=1e-5, atol=1e-6)


def test_each_program_is_compiled_once(short_chunks):
    fitted = fit(epochs=3)
    assert {name: program.num_compilations for name, program in fitted.compiled.items()} == {"train": 1, "eval": 1}
    assert fitted.compile_seconds == sum(program.compile_seconds for program in fitted.compiled.values()) > 0


class Files:
    """Examples that are read one by one; it notes which."""

    def __init__(self, images, labels):
        self.images, self.labels, self.image_shape, self.read = images, labels, images.shape[1:], []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index], int(self.labels[index])


class Taken(Files):
    def take(self, indices):
        self.read += indices.tolist()
        return self.images[indices]


@pytest.mark.parametrize("kind", [Files, Taken])
def test_a_stream_makes_the_numbers_of_the_memory(short_chunks, kind):
    source = kind(*toy(50))
    same(learned(fit(source)), learned(fit()), rtol=1e-5, atol=1e-6)  # two programs: XLA may round them differently
    assert sorted(set(source.read)) == list(range(50))
    assert len(source.read) == 2 * 9 * 8  # two epochs of nine steps, two of them only for the shape


def test_a_stream_that_cannot_be_read_says_so_where_it_is_read():
    class Broken(Files):
        def __getitem__(self, index):
            raise InputError("seven.png cannot be read")

    with pytest.raises(InputError, match=r"seven\.png cannot be read"):
        fit(Broken(*toy(50)))


def test_several_seeds_are_trained_as_each_would_be_alone(short_chunks):
    seeds = [3, 0]
    together = fit(seeds=seeds, ema_decay=0.9)
    alone = [fit(seed=seed, ema_decay=0.9) for seed in seeds]
    for i, one in enumerate(alone):
        same(jax.tree.map(lambda leaf, i=i: leaf[i], learned(together)), learned(one))
        for epoch in (0, 1):
            member = together.history[epoch]["per_seed"][i]
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                np.testing.assert_allclose(member[name], one.history[epoch][name], rtol=1e-4)
    assert together.best_epoch == [one.best_epoch for one in alone]
    mean = np.mean([one.history[1]["val_loss"] for one in alone])
    np.testing.assert_allclose(together.history[1]["val_loss"], mean, rtol=1e-4)


def test_each_of_several_seeds_stops_by_itself():
    """One goes on until its own patience is at an end; the others stand still."""
    options = {"epochs": 12, "early_stopping": train.EarlyStopping(1, "val_loss"), "optimizer": optax.adam(0.05)}
    seeds = [0, 1]
    together = fit(seeds=seeds, **options)
    alone = [fit(seed=seed, **options) for seed in seeds]
    lengths = [len(one.history) for one in alone]
    assert len(set(lengths)) > 1 and len(together.history) == max(lengths)
    assert together.best_epoch == [one.best_epoch for one in alone]
    for i, one in enumerate(alone):
        same(jax.tree.map(lambda leaf, i=i: leaf[i], together.params), one.params, rtol=1e-2, atol=1e-3)
    assert together.final_state.step.tolist() == [one.num_steps for one in alone]


def test_one_of_several_that_stopped_stands_still():
    """So nothing that the others still do can spoil it, nor it them."""
    seen = []

    def watch(record, snapshot, is_best):
        stopped = [each.stopped for each in snapshot.progress.early_stopping]
        seen.append((jax.tree.map(np.array, snapshot.train_state), stopped))

    options = {"epochs": 12, "early_stopping": train.EarlyStopping(1, "val_loss"), "optimizer": optax.adam(0.05)}
    fit(seeds=[0, 1], on_epoch_end=watch, **options)
    first = next(i for i, (_, stopped) in enumerate(seen) if any(stopped))
    state, stopped = seen[first]
    assert sum(stopped) == 1 and len(seen) > first + 1
    for later, _ in seen[first + 1 :]:
        pairs = zip(*map(jax.tree.leaves, (state, later)), strict=True)
        assert all((a[stopped] == b[stopped]).all() for a, b in pairs)
        assert later.step[stopped.index(False)] > state.step[0]


def test_early_stopping_ends_training_and_gives_the_best_back():
    seen = []
    fitted = fit(
        epochs=30,
        optimizer=optax.adam(0.05),
        early_stopping=train.EarlyStopping(2, "val_loss"),
        on_epoch_end=lambda record, snapshot, is_best: seen.append(
            (record["val_loss"], jax.tree.map(np.array, snapshot.train_state.params))
        ),
    )
    losses = [loss for loss, _ in seen]
    assert len(losses) < 30 and len(losses) == fitted.best_epoch + 2
    assert min(losses) == losses[fitted.best_epoch - 1] < losses[-1]
    same(fitted.params, seen[fitted.best_epoch - 1][1], rtol=0, atol=0)


def test_a_step_goes_wrong_and_is_named_with_the_first_parameter():
    """One image is too bright to compute with: the step that meets it first is known from the order."""
    images, labels = toy(50)
    images = images / np.float32(255)
    images[17] = 3e38
    order = train.epoch_permutation(0, 1, 50).tolist()
    step = order.index(17) // 8 + 1
    model = serial(flatten, Dense(3))
    with pytest.raises(InputError) as caught:
        train.fit(model, (images, labels), (images[:9], labels[:9]), optimizer=optax.sgd(0.1), scale=1, **OPTIONS)
    assert f"fit: step {step} (epoch 1): the loss is inf; the first non-finite parameter is dense1/bias (1 of" in str(
        caught.value
    )


def test_of_several_networks_the_one_that_goes_wrong_is_named():
    def rate(step):
        return jax.numpy.where(step == 9, jax.numpy.inf, 0.01)

    with pytest.raises(InputError, match=r"fit: step 10 \(epoch 2, network 0\): the loss is"):
        fit(seeds=[0, 1], optimizer=optax.sgd(rate))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [0, 0]}, r"fit_seeds: seeds=\[0, 0\] must differ from each other"),
        ({"seeds": []}, r"fit_seeds: seeds=\[\] must be whole numbers from 0 to 2³² − 1"),
        ({"seeds": 3}, r"fit_seeds: seeds=3 must be whole numbers from 0 to 2³² − 1"),
        ({"seeds": [0, 2**32]}, r"fit_seeds: seeds=\[0, 4294967296\] must be whole numbers from 0 to 2³² − 1"),
        ({"seeds": [0, 1], "jit": False}, r"fit_seeds: jit=False trains one network at a time: use fit"),
        (
            {"seeds": [0, 1], "data": Files(*toy(50))},
            r"fit_seeds: train_data must be arrays, since each seed has its own",
        ),
        ({"seeds": [0, 1], "seed": 1}, r"fit_seeds: no argument is called seed: did you mean seeds\?"),
        ({"seeds": [0, 1], "epoch": 1}, r"fit_seeds: no argument is called epoch: did you mean epochs\?"),
        ({"seed": [0, 1]}, r"fit: seed=\[0, 1\] must be one int; for several seeds use fit_seeds\(…, seeds=\[0, 1\]\)"),
        ({"seed": np.arange(2)}, r"fit: seed=array\(\[0, 1\]\) must be one int"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        fit(**options)
