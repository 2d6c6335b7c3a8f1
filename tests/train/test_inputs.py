"""Inputs of fit, evaluate and predict: datasets, lists, dtypes; and the number of compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, data, flatten, relu, serial, train
from jaxconv.train.evaluation import evaluator_of
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")

KEY = jax.random.key(0)
IMAGES, LABELS = toy(24)
MODEL = serial(flatten, Dense(3))
PARAMS, STATE = MODEL.init(KEY, (4, 4, 1))


def dataset(lazy=False):
    split = data.Split(IMAGES, LABELS)
    class_names = ("left", "middle", "right")
    return data.Dataset("toy", class_names, split.to_lazy() if lazy else split, data.Split(*toy(9, seed=1)), split)


@pytest.mark.parametrize("lazy", [False, True])
def test_fit_accepts_dataset_or_its_splits(lazy):
    options = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 8}
    toy_dataset = dataset(lazy)
    expected = train.fit(MODEL, tuple(dataset().train), tuple(toy_dataset.validation), **options)
    fitted = train.fit(MODEL, toy_dataset, **options)
    assert train.tree_sha256(fitted.params) == train.tree_sha256(expected.params)
    assert fitted.history[0]["val_loss"] == expected.history[0]["val_loss"]
    other_validation = train.fit(MODEL, toy_dataset, (IMAGES, LABELS), **options)
    assert other_validation.history[0]["val_loss"] != fitted.history[0]["val_loss"]


def test_predict_and_evaluate_accept_lists():
    floats = (IMAGES / 255).astype(np.float32)
    expected = train.predict(MODEL, PARAMS, STATE, floats)
    np.testing.assert_array_equal(train.predict(MODEL, PARAMS, STATE, floats.tolist()), expected)
    expected_scores = train.evaluate(MODEL, PARAMS, STATE, floats, LABELS)
    assert train.evaluate(MODEL, PARAMS, STATE, floats.tolist(), LABELS.tolist()) == expected_scores


@pytest.mark.parametrize("images", ["digits", [[1], [1, 2]], None, [None], {"image": 1}, 5, []])
def test_predict_and_evaluate_reject_invalid_images(images):
    for call in (train.predict, lambda *args: train.evaluate(*args, [0])):
        with pytest.raises(InputError, match=r"^(predict|evaluate): images .*should be"):
            call(MODEL, PARAMS, STATE, images)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint16, np.int32])
def test_evaluate_accepts_every_label_dtype(dtype):
    """All dtypes share one cached evaluator."""
    expected = train.evaluate(MODEL, PARAMS, STATE, IMAGES, LABELS, batch_size=16)
    assert train.evaluate(MODEL, PARAMS, STATE, IMAGES, LABELS.astype(dtype), batch_size=16) == expected
    assert train.evaluate(MODEL, PARAMS, STATE, IMAGES, jnp.asarray(LABELS.astype(dtype)), batch_size=16) == expected


def test_evaluator_of_cache_depends_on_dtype_and_precision():
    bfloat16_model = serial(lambda x: x.astype(jnp.bfloat16), flatten, Dense(3))
    bfloat16_params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    float32_model = serial(lambda x: x.astype(jnp.float32), flatten, Dense(3))
    any_dtype_model = serial(lambda x: x, flatten, Dense(3))
    assert train.evaluate(float32_model, PARAMS, STATE, IMAGES, LABELS)["count"] == 24
    assert train.evaluate(bfloat16_model, bfloat16_params, STATE, IMAGES, LABELS)["count"] == 24
    images = jnp.asarray(IMAGES, jnp.bfloat16) / 255
    train.evaluate(any_dtype_model, PARAMS, STATE, jnp.asarray(images, jnp.float32), LABELS)
    cached = lambda variables: evaluator_of(any_dtype_model, 8, (4, 4, 1), "float32", None, None, variables)  # noqa: E731
    default = cached((PARAMS, STATE))
    assert cached((jax.tree.map(np.asarray, PARAMS), STATE)) is default is not cached((bfloat16_params, STATE))
    with jax.default_matmul_precision("highest"):
        assert cached((PARAMS, STATE)) is not default
    assert cached((PARAMS, STATE)) is default


def test_predict_compiles_few_batch_sizes():
    sizes = []

    def traced(x):
        sizes.append(len(x))
        return relu(x)

    model = serial(traced, flatten, Dense(3))
    params, state = model.init(KEY, (4, 4, 1))
    images, _ = toy(150)
    sizes.clear()
    for count in (1, 2, 3, 5, 8, 9, 20, 63, 64, 65, 100, 101, 150):
        actual = train.predict(model, params, state, images[:count], batch_size=100)
        assert actual.shape == (count, 3)
        expected = jax.nn.softmax(
            MODEL.apply(params_of(params), state, np.maximum(images[:count] / np.float32(255), 0))[0]
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert sizes == [1, 8, 64, 100]
    sizes.clear()
    for count in (1, 2, 5, 9):
        train.predict(model, params, state, images[:count], batch_size=5)
    assert sizes == [5]  # size 1 is cached


def params_of(params):
    return {"dense1": params["dense1"]}


def test_fit_resumes_from_kept_snapshots():
    """Snapshots of on_epoch_end and on_checkpoint: a resumed run equals the unbroken one, bit for bit."""
    epoch_snapshots, checkpoint_snapshots = [], []
    options = {"optimizer": optax.adam(0.01), "epochs": 3, "batch_size": 8}
    unbroken = train.fit(
        net(),
        toy(),
        toy(),
        on_epoch_end=lambda record, snapshot, best: epoch_snapshots.append(snapshot),
        on_checkpoint=checkpoint_snapshots.append,
        checkpoint_seconds=0,
        **options,
    )
    assert len(epoch_snapshots) == 3
    for snapshot in (epoch_snapshots[0], epoch_snapshots[1], *checkpoint_snapshots[:1]):
        resumed = train.fit(net(), toy(), toy(), resume_from=snapshot, **options)
        assert train.tree_sha256((resumed.params, resumed.final_state.opt_state)) == train.tree_sha256(
            (unbroken.params, unbroken.final_state.opt_state)
        )
    assert [int(snapshot.train_state.step) for snapshot in epoch_snapshots] == [7, 14, 21]


def test_resume_from_deleted_arrays_raises():
    train_state = train.create_train_state(MODEL, optax.sgd(0.1), KEY, (4, 4, 1))
    snapshot = train.Snapshot(train_state, (PARAMS, STATE), train.TrainProgress())
    jax.tree.map(lambda leaf: leaf.delete(), train_state)
    with pytest.raises(
        InputError, match=r"^fit: resume_from has deleted arrays: a train step donates its input, so copy"
    ):
        train.fit(
            MODEL,
            (IMAGES, LABELS),
            (IMAGES, LABELS),
            optimizer=optax.sgd(0.1),
            epochs=1,
            batch_size=8,
            resume_from=snapshot,
        )
