"""Compiled epochs: equal to the stepwise loop, to a stream, and to each seed trained separately."""

import sys

import jax
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, flatten, serial, train
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")

OPTIONS = {"epochs": 2, "batch_size": 8}
LOADERS = sys.modules["jaxconv.train.loaders"]  # the module, not the attribute of the package


def fit(data=None, **options):
    options = OPTIONS | {"optimizer": optax.adam(1e-2)} | options
    function = train.fit_seeds if "seeds" in options else train.fit
    return function(net(), toy(50) if data is None else data, toy(21, seed=1), **options)


def flip(key, images):
    return jax.numpy.where(jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1)), images[:, ::-1], images)


def trained_variables(fitted):
    return fitted.params, fitted.state, fitted.final_state


def assert_close(first, second, rtol=2e-4, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), first, second)


@pytest.fixture
def short_executions(monkeypatch):
    """Divide the seven steps of an epoch into executions of three; the last one has two fully masked steps."""
    monkeypatch.setattr(LOADERS, "PIXELS_PER_EXECUTION", 3 * 8 * 16)
    assert train.plan_epoch(50, 8, (4, 4, 1)) == train.EpochPlan(50, 8, 7, 3, 3)


@pytest.mark.parametrize(
    "options", [{}, {"augment": flip, "ema_decay": 0.9, "grad_accumulation": 2, "label_smoothing": 0.1}]
)
def test_compiled_epoch_matches_stepwise_loop(short_executions, options):
    compiled, stepwise = (fit(jit=compiled, **options) for compiled in (True, False))
    assert_close(trained_variables(compiled), trained_variables(stepwise))
    assert compiled.num_steps == stepwise.num_steps == 14
    for compiled_record, stepwise_record in zip(compiled.history, stepwise.history, strict=True):
        np.testing.assert_allclose(compiled_record["loss"], stepwise_record["loss"], rtol=1e-4)
        assert compiled_record["accuracy"] == stepwise_record["accuracy"]


def test_steps_per_execution_does_not_change_result(short_executions, monkeypatch):
    first = fit()
    monkeypatch.setattr(LOADERS, "PIXELS_PER_EXECUTION", 2**22)
    assert train.plan_epoch(50, 8, (4, 4, 1)).executions == 1
    assert_close(trained_variables(first), trained_variables(fit()), rtol=1e-5, atol=1e-6)


def test_fit_compiles_each_function_once(short_executions):
    fitted = fit(epochs=3)
    assert {name: program.num_compilations for name, program in fitted.compiled.items()} == {"train": 1, "eval": 1}
    assert fitted.compile_seconds == sum(program.compile_seconds for program in fitted.compiled.values()) > 0


class Source:
    """Random-access source that records the indices read."""

    def __init__(self, images, labels):
        self.images, self.labels, self.image_shape, self.read = images, labels, images.shape[1:], []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index], int(self.labels[index])


class SourceWithTake(Source):
    def take(self, indices):
        self.read += indices.tolist()
        return self.images[indices]


@pytest.mark.parametrize("kind", [Source, SourceWithTake])
def test_stream_matches_examples_in_memory(short_executions, kind):
    source = kind(*toy(50))
    # XLA may round the two compiled functions differently.
    assert_close(trained_variables(fit(source)), trained_variables(fit()), rtol=1e-5, atol=1e-6)
    assert sorted(set(source.read)) == list(range(50))
    assert len(source.read) == 2 * 9 * 8  # two epochs of nine steps, of which two are padding


def test_stream_read_error_is_raised():
    class Broken(Source):
        def __getitem__(self, index):
            raise InputError("seven.png cannot be read")

    with pytest.raises(InputError, match=r"seven\.png cannot be read"):
        fit(Broken(*toy(50)))


def test_fit_seeds_matches_fit_of_each_seed(short_executions):
    seeds = [3, 0]
    ensemble = fit(seeds=seeds, ema_decay=0.9)
    individual = [fit(seed=seed, ema_decay=0.9) for seed in seeds]
    for i, fitted in enumerate(individual):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], trained_variables(ensemble)), trained_variables(fitted))
        for epoch in (0, 1):
            member = ensemble.history[epoch]["per_seed"][i]
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                np.testing.assert_allclose(member[name], fitted.history[epoch][name], rtol=1e-4)
    assert ensemble.best_epoch == [fitted.best_epoch for fitted in individual]
    mean = np.mean([fitted.history[1]["val_loss"] for fitted in individual])
    np.testing.assert_allclose(ensemble.history[1]["val_loss"], mean, rtol=1e-4)


def test_fit_seeds_stops_each_seed_independently():
    """Each seed stops at the end of its own patience, while the others continue."""
    options = {"epochs": 12, "early_stopping": train.EarlyStopping(1, "val_loss"), "optimizer": optax.adam(0.05)}
    seeds = [0, 1]
    ensemble = fit(seeds=seeds, **options)
    individual = [fit(seed=seed, **options) for seed in seeds]
    lengths = [len(fitted.history) for fitted in individual]
    assert len(set(lengths)) > 1 and len(ensemble.history) == max(lengths)
    assert ensemble.best_epoch == [fitted.best_epoch for fitted in individual]
    for i, fitted in enumerate(individual):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], ensemble.params), fitted.params, rtol=1e-2, atol=1e-3)
    assert ensemble.final_state.step.tolist() == [fitted.num_steps for fitted in individual]


def test_stopped_seed_is_frozen():
    """The stopped network is frozen bit for bit, and does not affect the other one."""
    epochs = []

    def record_epoch(record, snapshot, is_best):
        stopped = [stopper.stopped for stopper in snapshot.progress.early_stopping]
        epochs.append((jax.tree.map(np.array, snapshot.train_state), stopped))

    options = {"epochs": 12, "early_stopping": train.EarlyStopping(1, "val_loss"), "optimizer": optax.adam(0.05)}
    fit(seeds=[0, 1], on_epoch_end=record_epoch, **options)
    stop_epoch = next(i for i, (_, stopped) in enumerate(epochs) if any(stopped))
    state, stopped = epochs[stop_epoch]
    assert sum(stopped) == 1 and len(epochs) > stop_epoch + 1
    for later, _ in epochs[stop_epoch + 1 :]:
        pairs = zip(*map(jax.tree.leaves, (state, later)), strict=True)
        assert all((a[stopped] == b[stopped]).all() for a, b in pairs)
        assert later.step[stopped.index(False)] > state.step[0]


def test_early_stopping_returns_best_epoch():
    epochs = []
    fitted = fit(
        epochs=30,
        optimizer=optax.adam(0.05),
        early_stopping=train.EarlyStopping(2, "val_loss"),
        on_epoch_end=lambda record, snapshot, is_best: epochs.append(
            (record["val_loss"], jax.tree.map(np.array, snapshot.train_state.params))
        ),
    )
    losses = [loss for loss, _ in epochs]
    assert len(losses) < 30 and len(losses) == fitted.best_epoch + 2
    assert min(losses) == losses[fitted.best_epoch - 1] < losses[-1]
    assert_close(fitted.params, epochs[fitted.best_epoch - 1][1], rtol=0, atol=0)


def test_nonfinite_step_names_step_and_parameter():
    """One image overflows float32; the step that contains it is known from the data order."""
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


def test_nonfinite_step_names_network():
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
            {"seeds": [0, 1], "data": Source(*toy(50))},
            r"fit_seeds: train_data must be arrays, since each seed has its own",
        ),
        ({"seeds": [0, 1], "seed": 1}, r"fit_seeds: no argument is called seed: did you mean seeds\?"),
        ({"seeds": [0, 1], "epoch": 1}, r"fit_seeds: no argument is called epoch: did you mean epochs\?"),
        ({"seed": [0, 1]}, r"fit: seed=\[0, 1\] must be one int; for several seeds use fit_seeds\(…, seeds=\[0, 1\]\)"),
        ({"seed": np.arange(2)}, r"fit: seed=array\(\[0, 1\]\) must be one int"),
    ],
)
def test_fit_seeds_invalid_arguments_raise(options, message):
    with pytest.raises(InputError, match=message):
        fit(**options)
