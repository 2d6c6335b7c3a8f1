"""What fit, evaluate and predict take: data sets, lists, labels and parameters of any type; and what they compile."""

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
    part = data.Split(IMAGES, LABELS)
    names = ("left", "middle", "right")
    return data.Dataset("toy", names, part.to_lazy() if lazy else part, data.Split(*toy(9, seed=1)), part)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_data_set_is_its_parts(lazy):
    options = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 8}
    whole = dataset(lazy)
    by_parts = train.fit(MODEL, tuple(dataset().train), tuple(whole.validation), **options)
    fitted = train.fit(MODEL, whole, **options)
    assert train.tree_sha256(fitted.params) == train.tree_sha256(by_parts.params)
    assert fitted.history[0]["val_loss"] == by_parts.history[0]["val_loss"]
    other = train.fit(MODEL, whole, (IMAGES, LABELS), **options)
    assert other.history[0]["val_loss"] != fitted.history[0]["val_loss"]


def test_lists_are_arrays():
    floats = (IMAGES / 255).astype(np.float32)
    wanted = train.predict(MODEL, PARAMS, STATE, floats)
    np.testing.assert_array_equal(train.predict(MODEL, PARAMS, STATE, floats.tolist()), wanted)
    scores = train.evaluate(MODEL, PARAMS, STATE, floats, LABELS)
    assert train.evaluate(MODEL, PARAMS, STATE, floats.tolist(), LABELS.tolist()) == scores


@pytest.mark.parametrize("images", ["digits", [[1], [1, 2]], None, [None], {"image": 1}, 5, []])
def test_what_is_no_array_of_images_is_refused(images):
    for call in (train.predict, lambda *args: train.evaluate(*args, [0])):
        with pytest.raises(InputError, match=r"^(predict|evaluate): images .*should be"):
            call(MODEL, PARAMS, STATE, images)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64, np.uint16, np.int32])
def test_labels_of_every_type_are_the_same_numbers(kind):
    """One after the other, of which the program is kept."""
    wanted = train.evaluate(MODEL, PARAMS, STATE, IMAGES, LABELS, batch_size=16)
    assert train.evaluate(MODEL, PARAMS, STATE, IMAGES, LABELS.astype(kind), batch_size=16) == wanted
    assert train.evaluate(MODEL, PARAMS, STATE, IMAGES, jnp.asarray(LABELS.astype(kind)), batch_size=16) == wanted


def test_a_kept_evaluation_is_that_of_the_parameters_type_and_of_the_precision():
    half = serial(lambda x: x.astype(jnp.bfloat16), flatten, Dense(3))
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    full = serial(lambda x: x.astype(jnp.float32), flatten, Dense(3))
    either = serial(lambda x: x, flatten, Dense(3))
    assert train.evaluate(full, PARAMS, STATE, IMAGES, LABELS)["count"] == 24
    assert train.evaluate(half, low, STATE, IMAGES, LABELS)["count"] == 24
    images = jnp.asarray(IMAGES, jnp.bfloat16) / 255
    train.evaluate(either, PARAMS, STATE, jnp.asarray(images, jnp.float32), LABELS)
    kept = lambda network: evaluator_of(either, 8, (4, 4, 1), "float32", None, None, network)  # noqa: E731
    usual = kept((PARAMS, STATE))
    assert kept((jax.tree.map(np.asarray, PARAMS), STATE)) is usual is not kept((low, STATE))
    with jax.default_matmul_precision("highest"):
        assert kept((PARAMS, STATE)) is not usual
    assert kept((PARAMS, STATE)) is usual


def test_few_programs_for_any_number_of_images():
    sizes = []

    def traced(x):
        sizes.append(len(x))
        return relu(x)

    model = serial(traced, flatten, Dense(3))
    params, state = model.init(KEY, (4, 4, 1))
    images, _ = toy(150)
    sizes.clear()
    for count in (1, 2, 3, 5, 8, 9, 20, 63, 64, 65, 100, 101, 150):
        got = train.predict(model, params, state, images[:count], batch_size=100)
        assert got.shape == (count, 3)
        wanted = jax.nn.softmax(
            MODEL.apply(params_of(params), state, np.maximum(images[:count] / np.float32(255), 0))[0]
        )
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert sizes == [1, 8, 64, 100]
    sizes.clear()
    for count in (1, 2, 5, 9):
        train.predict(model, params, state, images[:count], batch_size=5)
    assert sizes == [5]  # 1 is compiled already


def params_of(params):
    return {"dense1": params["dense1"]}


def test_a_snapshot_can_be_kept_and_trained_on():
    """From on_epoch and from on_pause: the rest of the run is the same, bit for bit."""
    kept, paused = [], []
    options = {"optimizer": optax.adam(0.01), "epochs": 3, "batch_size": 8}
    whole = train.fit(
        net(),
        toy(),
        toy(),
        on_epoch_end=lambda record, snapshot, best: kept.append(snapshot),
        on_checkpoint=paused.append,
        checkpoint_seconds=0,
        **options,
    )
    assert len(kept) == 3
    for start in (kept[0], kept[1], *paused[:1]):
        again = train.fit(net(), toy(), toy(), resume_from=start, **options)
        assert train.tree_sha256((again.params, again.final_state.opt_state)) == train.tree_sha256(
            (whole.params, whole.final_state.opt_state)
        )
    assert [int(snapshot.train_state.step) for snapshot in kept] == [7, 14, 21]


def test_a_start_whose_memory_is_gone_says_so():
    ts = train.create_train_state(MODEL, optax.sgd(0.1), KEY, (4, 4, 1))
    start = train.Snapshot(ts, (PARAMS, STATE), train.TrainProgress())
    jax.tree.map(lambda leaf: leaf.delete(), ts)
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
            resume_from=start,
        )
