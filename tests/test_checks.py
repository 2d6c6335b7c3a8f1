"""Class numbers of every integer dtype, and a class for every pixel: against formulas in numpy's float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, explain, flatten, ops, serial, train
from jaxconv.checks import class_numbers
from jaxconv.ops import backward

INTEGERS = pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32"])
CLASSES = 300  # more than a byte holds


def loss_of(logits, label):
    """The loss and its gradient, in float64."""
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    true = np.eye(z.shape[-1])[label]
    return -np.log((p * true).sum(-1)), p - true


@INTEGERS
@pytest.mark.parametrize("jitted", [False, True])
def test_the_loss_takes_labels_of_any_integer_dtype(rng, dtype, jitted):
    logits = rng.normal(size=(5, CLASSES)).astype(np.float32)
    most = min(CLASSES - 1, np.iinfo(dtype).max)
    label = np.array([3, 0, most, 44, 100], dtype)
    wanted, slope = loss_of(logits, label.astype(int))

    def everything(logits, label):
        loss, vjp = jax.vjp(lambda z: ops.softmax_cross_entropy(z, label), logits)
        dy = jnp.ones(5)
        return loss, *vjp(dy), backward.softmax_cross_entropy(logits, label, dy), ops.is_correct(logits, label)

    loss, gradient, by_hand, correct = (jax.jit(everything) if jitted else everything)(logits, label)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    np.testing.assert_allclose(by_hand, slope, atol=1e-6)
    np.testing.assert_array_equal(correct, logits.argmax(1) == label)


def test_as_many_classes_as_the_dtype_has_numbers():
    np.testing.assert_allclose(
        ops.softmax_cross_entropy(jnp.zeros((2, 256)), jnp.array([3, 255], jnp.uint8)), np.log(256)
    )
    np.testing.assert_allclose(ops.softmax_cross_entropy(jnp.zeros((1, 200)), jnp.array([3], jnp.int8)), np.log(200))
    assert class_numbers(jnp.array([2**32 - 1, 7], jnp.uint32), 8).tolist() == [-1, 7]


def test_numbers_beyond_int32_are_none_of_the_classes(x64):
    """Cut to 32 bits this one would be 3."""
    far = np.array([2**32 + 3])
    assert jax.jit(lambda label: class_numbers(label, 8))(far).tolist() == [-1]
    with pytest.raises(InputError, match=r"^softmax_cross_entropy: label 4294967299 is none of the 8 classes"):
        ops.softmax_cross_entropy(jnp.zeros((1, 8)), far)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 2, 5)], ids=["maps", "series"])
def test_the_loss_of_every_place(x64, rng, shape):
    """The loss, its gradient by autodiff and by hand, and what is right: of class numbers and of probabilities."""
    logits, dy = 3 * rng.normal(size=shape), rng.normal(size=shape[:-1])
    numbers = rng.integers(0, shape[-1], shape[:-1])
    wanted, slope = loss_of(logits, numbers)
    for label in (numbers.astype(np.uint8), np.eye(shape[-1])[numbers]):
        loss, vjp = jax.vjp(lambda z: ops.softmax_cross_entropy(z, label), jnp.asarray(logits))  # noqa: B023
        np.testing.assert_allclose(loss, wanted, rtol=1e-12)
        np.testing.assert_allclose(vjp(jnp.asarray(dy))[0], slope * dy[..., None], rtol=1e-9, atol=1e-12)
        by_hand = backward.softmax_cross_entropy(logits, label, dy)
        np.testing.assert_allclose(by_hand, slope * dy[..., None], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ops.is_correct(logits, numbers), logits.argmax(-1) == numbers)
    measured = train.tasks.measure(
        train.Classification(), jnp.asarray(logits), jnp.asarray(numbers), np.arange(shape[0]) > 0
    )
    np.testing.assert_allclose(measured.sums["loss"], wanted[1:].reshape(shape[0] - 1, -1).mean(1).sum(), rtol=1e-12)
    right = (logits.argmax(-1) == numbers)[1:].reshape(shape[0] - 1, -1).mean(1).sum()
    np.testing.assert_allclose((measured.sums["accuracy"], measured.count), (right, shape[0] - 1), rtol=1e-12)


def test_labels_of_places_are_refused_where_they_do_not_go_with_the_logits():
    with pytest.raises(
        InputError, match=r"labels int32\(2, 4\) must be class indices, int\(2, 3\), or .* float32\(2, 3, 5"
    ):
        ops.softmax_cross_entropy(jnp.zeros((2, 3, 5)), jnp.zeros((2, 4), jnp.int32))
    with pytest.raises(InputError, match=r"softmax_cross_entropy: label 5 is none of the 5 classes"):
        ops.softmax_cross_entropy(jnp.zeros((2, 3, 5)), np.full((2, 3), 5, np.uint8))


@pytest.fixture
def wide():
    """A network with more classes than a byte holds, images, and labels in two dtypes."""
    model = serial(flatten, Dense(CLASSES))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    images = np.random.default_rng(1).integers(0, 256, (6, 2, 2, 1), np.uint8)
    return model, params, state, images, np.array([3, 250, 44, 0, 128, 200])


def test_a_step_with_soft_targets_takes_bytes(wide):
    model, _, _, images, labels = wide
    step = train.make_train_step(model, optax.sgd(0.1), label_smoothing=0.1)

    def after(label):
        ts = train.create_train_state(model, optax.sgd(0.1), jax.random.key(0), (2, 2, 1))
        return step(ts, train.Batch(images, label, None))

    jax.tree.map(np.testing.assert_array_equal, after(labels.astype(np.uint8)), after(labels))


def test_labels_of_any_dtype_are_scored_by_one_program(wide):
    model, params, state, images, labels = wide
    scores = [
        train.evaluate(model, params, state, images, labels.astype(dtype)) for dtype in ("uint8", "int64", "uint16")
    ]
    assert scores[0] == scores[1] == scores[2]
    evaluator = train.Evaluator(model, 4)
    for dtype in ("uint8", "int64"):
        scored = evaluator(params, state, evaluator.batches(images, labels.astype(dtype)))
        np.testing.assert_allclose(scored.loss, scores[0]["loss"], rtol=1e-6)
    assert evaluator.program.num_compilations == 1


def test_a_fit_on_bytes_is_a_fit_on_whole_numbers(wide):
    model, _, _, images, labels = wide
    fits = [
        train.fit(model, data, data, optimizer=optax.sgd(0.1), epochs=1, batch_size=3)
        for data in ((images, labels.astype(np.uint8)), (images, labels.astype(np.int32)))
    ]
    jax.tree.map(np.testing.assert_array_equal, fits[0].params, fits[1].params)


def test_a_class_is_explained_by_a_byte(wide):
    model, params, state, images, labels = wide
    of = [explain.saliency(model, params, state, images, labels.astype(dtype)) for dtype in ("uint8", "int32")]
    np.testing.assert_array_equal(*of)
    norms = [explain.gradient_norms(model, params, state, images, labels.astype(dtype)) for dtype in ("uint8", "int32")]
    assert norms[0] == norms[1]
    with pytest.raises(InputError, match=r"^label 255 is none of the 200 classes"):
        explain.attribution.targets.resolve_target(jnp.zeros((6, 200)), np.uint8(255))
