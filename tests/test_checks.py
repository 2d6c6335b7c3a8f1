"""Class indices of every integer dtype, and per-pixel classes, compared with formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, explain, flatten, ops, serial, train
from jaxconv.checks import class_numbers
from jaxconv.ops import backward

INTEGERS = pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32"])
CLASSES = 300  # more than fit into uint8


def numpy_loss(logits, label):
    """Compute the loss and its gradient in float64."""
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    one_hot = np.eye(z.shape[-1])[label]
    return -np.log((p * one_hot).sum(-1)), p - one_hot


@INTEGERS
@pytest.mark.parametrize("jitted", [False, True])
def test_loss_accepts_labels_of_any_integer_dtype(rng, dtype, jitted):
    logits = rng.normal(size=(5, CLASSES)).astype(np.float32)
    largest = min(CLASSES - 1, np.iinfo(dtype).max)
    label = np.array([3, 0, largest, 44, 100], dtype)
    expected, expected_gradient = numpy_loss(logits, label.astype(int))

    def loss_and_gradients(logits, label):
        loss, vjp = jax.vjp(lambda z: ops.softmax_cross_entropy(z, label), logits)
        dy = jnp.ones(5)
        return loss, *vjp(dy), backward.softmax_cross_entropy(logits, label, dy), ops.is_correct(logits, label)

    loss, gradient, manual, correct = (jax.jit(loss_and_gradients) if jitted else loss_and_gradients)(logits, label)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    np.testing.assert_allclose(manual, expected_gradient, atol=1e-6)
    np.testing.assert_array_equal(correct, logits.argmax(1) == label)


def test_labels_of_small_dtypes_do_not_overflow():
    np.testing.assert_allclose(
        ops.softmax_cross_entropy(jnp.zeros((2, 256)), jnp.array([3, 255], jnp.uint8)), np.log(256)
    )
    np.testing.assert_allclose(ops.softmax_cross_entropy(jnp.zeros((1, 200)), jnp.array([3], jnp.int8)), np.log(200))
    assert class_numbers(jnp.array([2**32 - 1, 7], jnp.uint32), 8).tolist() == [-1, 7]


def test_labels_beyond_int32_are_invalid(x64):
    """Truncated to 32 bits, the label would be 3."""
    large = np.array([2**32 + 3])
    assert jax.jit(lambda label: class_numbers(label, 8))(large).tolist() == [-1]
    with pytest.raises(InputError, match=r"^softmax_cross_entropy: label 4294967299 is none of the 8 classes"):
        ops.softmax_cross_entropy(jnp.zeros((1, 8)), large)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 2, 5)], ids=["maps", "series"])
def test_loss_per_position_matches_numpy(x64, rng, shape):
    """Compare the loss, its gradient by autodiff and by hand, and accuracy, for class indices and probabilities."""
    logits, dy = 3 * rng.normal(size=shape), rng.normal(size=shape[:-1])
    indices = rng.integers(0, shape[-1], shape[:-1])
    expected, expected_gradient = numpy_loss(logits, indices)
    for label in (indices.astype(np.uint8), np.eye(shape[-1])[indices]):
        loss, vjp = jax.vjp(lambda z: ops.softmax_cross_entropy(z, label), jnp.asarray(logits))  # noqa: B023
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        np.testing.assert_allclose(vjp(jnp.asarray(dy))[0], expected_gradient * dy[..., None], rtol=1e-9, atol=1e-12)
        manual = backward.softmax_cross_entropy(logits, label, dy)
        np.testing.assert_allclose(manual, expected_gradient * dy[..., None], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ops.is_correct(logits, indices), logits.argmax(-1) == indices)
    metrics = train.tasks.measure(
        train.Classification(), jnp.asarray(logits), jnp.asarray(indices), np.arange(shape[0]) > 0
    )
    np.testing.assert_allclose(metrics.sums["loss"], expected[1:].reshape(shape[0] - 1, -1).mean(1).sum(), rtol=1e-12)
    correct_sum = (logits.argmax(-1) == indices)[1:].reshape(shape[0] - 1, -1).mean(1).sum()
    np.testing.assert_allclose((metrics.sums["accuracy"], metrics.count), (correct_sum, shape[0] - 1), rtol=1e-12)


def test_invalid_position_labels_raise():
    with pytest.raises(
        InputError, match=r"labels int32\(2, 4\) must be class indices, int\(2, 3\), or .* float32\(2, 3, 5"
    ):
        ops.softmax_cross_entropy(jnp.zeros((2, 3, 5)), jnp.zeros((2, 4), jnp.int32))
    with pytest.raises(InputError, match=r"softmax_cross_entropy: label 5 is none of the 5 classes"):
        ops.softmax_cross_entropy(jnp.zeros((2, 3, 5)), np.full((2, 3), 5, np.uint8))


@pytest.fixture
def many_classes():
    """Return a network with more classes than fit into uint8, its variables, images and labels."""
    model = serial(flatten, Dense(CLASSES))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    images = np.random.default_rng(1).integers(0, 256, (6, 2, 2, 1), np.uint8)
    return model, params, state, images, np.array([3, 250, 44, 0, 128, 200])


def test_label_smoothing_accepts_uint8_labels(many_classes):
    model, _, _, images, labels = many_classes
    step = train.make_train_step(model, optax.sgd(0.1), label_smoothing=0.1)

    def run_step(label):
        train_state = train.create_train_state(model, optax.sgd(0.1), jax.random.key(0), (2, 2, 1))
        return step(train_state, train.Batch(images, label, None))

    jax.tree.map(np.testing.assert_array_equal, run_step(labels.astype(np.uint8)), run_step(labels))


def test_evaluator_compiles_once_for_all_label_dtypes(many_classes):
    model, params, state, images, labels = many_classes
    scores = [
        train.evaluate(model, params, state, images, labels.astype(dtype)) for dtype in ("uint8", "int64", "uint16")
    ]
    assert scores[0] == scores[1] == scores[2]
    evaluator = train.Evaluator(model, 4)
    for dtype in ("uint8", "int64"):
        scores_of_batches = evaluator(params, state, evaluator.batches(images, labels.astype(dtype)))
        np.testing.assert_allclose(scores_of_batches.loss, scores[0]["loss"], rtol=1e-6)
    assert evaluator.program.num_compilations == 1


def test_fit_uint8_labels_match_int32(many_classes):
    model, _, _, images, labels = many_classes
    results = [
        train.fit(model, data, data, optimizer=optax.sgd(0.1), epochs=1, batch_size=3)
        for data in ((images, labels.astype(np.uint8)), (images, labels.astype(np.int32)))
    ]
    jax.tree.map(np.testing.assert_array_equal, results[0].params, results[1].params)


def test_explain_uint8_labels_match_int32(many_classes):
    model, params, state, images, labels = many_classes
    maps = [explain.saliency(model, params, state, images, labels.astype(dtype)) for dtype in ("uint8", "int32")]
    np.testing.assert_array_equal(*maps)
    norms = [explain.gradient_norms(model, params, state, images, labels.astype(dtype)) for dtype in ("uint8", "int32")]
    assert norms[0] == norms[1]
    with pytest.raises(InputError, match=r"^label 255 is none of the 200 classes"):
        explain.attribution.targets.resolve_target(jnp.zeros((6, 200)), np.uint8(255))
