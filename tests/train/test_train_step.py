"""Train step and its options: against formulas in NumPy, and invariants of every option."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, flatten, relu, serial, train
from toy_training import net, toy

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)

pytestmark = pytest.mark.usefixtures("promoting")


def small_cnn():
    return serial(Conv(4, 3), relu, flatten, Dense(3))


def steps(model, optimizer, batches, num_steps=3, key=KEY, **options):
    """Return the train state after ``num_steps`` passes over the batches, and the last metrics."""
    train_state = train.create_train_state(model, optimizer, KEY, SHAPE, ema=options.get("ema_decay") is not None)
    step = train.make_train_step(model, optimizer, **options)
    for _ in range(num_steps):
        for batch in batches:
            train_state, metrics = step(train_state, batch, key)
    return train_state, metrics


def assert_close(first, second, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), first, second)


def test_padded_batch_matches_unpadded_batch():
    images, labels = toy(count=5)
    model, optimizer = serial(Conv(4, 3), BatchNorm(), relu, flatten, Dense(3)), optax.sgd(0.1, momentum=0.9)
    [padded] = train.iterate_batches(images, labels, 8)
    assert padded.image.shape[0] == 8
    assert_close(*(steps(model, optimizer, [batch]) for batch in (train.Batch(images, labels), padded)))


def test_dropout_differs_between_steps():
    model = serial(flatten, Dropout(0.5), Dense(3))
    train_state = train.create_train_state(model, optax.sgd(0.0), KEY, SHAPE)  # rate 0: only the dropout differs
    step, [batch] = train.make_train_step(model, optax.sgd(0.0)), train.iterate_batches(*toy(16), 16)
    losses = []
    for _ in range(4):
        train_state, metrics = step(train_state, batch, KEY)
        losses.append(float(metrics.sums["loss"]))
    assert len(set(losses)) == 4


def test_label_smoothing_loss_matches_formula():
    images, labels = toy(count=6)
    model, s = small_cnn(), 0.3
    train_state = train.create_train_state(model, optax.sgd(0.0), KEY, SHAPE)
    logits = np.asarray(model.apply(train_state.params, {}, images.astype(np.float32) / 255)[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -((1 - s) * log_p[np.arange(6), labels] + s * log_p.mean(axis=1)).sum()
    _, metrics = steps(model, optax.sgd(0.0), [train.Batch(images, labels)], 1, label_smoothing=s)
    np.testing.assert_allclose(metrics.sums["loss"], expected, rtol=1e-5)
    assert metrics.sums["accuracy"] == (logits.argmax(1) == labels).sum()


@pytest.mark.parametrize("examples", [12, 7, 2])
def test_grad_accumulation_matches_full_batch(examples):
    [batch] = train.iterate_batches(*toy(examples), 12)
    full_batch, accumulated = (
        steps(small_cnn(), optax.adam(0.1), [batch], grad_accumulation=count) for count in (1, 4)
    )
    assert_close(full_batch, accumulated, rtol=1e-3, atol=1e-5)
    assert accumulated[1].count == examples


def test_grad_accumulation_skips_empty_sub_batch():
    """One of eight examples is unmasked: the second sub-batch is empty, with NaN batch statistics."""
    [batch] = train.iterate_batches(*toy(1), 8)
    half_batch = train.Batch(*(array[::2] for array in batch))
    assert_close(
        *(
            steps(net(0.0), optax.sgd(0.1), [inputs], grad_accumulation=count)
            for inputs, count in ((batch, 2), (half_batch, 1))
        )
    )


def test_grad_accumulation_updates_batch_norm_sequentially():
    images, labels = toy(8)
    model, batch = serial(BatchNorm(momentum=0.5), flatten, Dense(3)), train.Batch(images, labels)
    train_state, _ = steps(model, optax.sgd(0.0), [batch], 1, grad_accumulation=2)
    first_mean, second_mean = images[::2].mean() / 255, images[1::2].mean() / 255
    np.testing.assert_allclose(
        train_state.state["bn1"]["mean"], 0.5 * (0.5 * 0 + 0.5 * first_mean) + 0.5 * second_mean, rtol=1e-5
    )


def test_ema_matches_moving_average_formula():
    [batch] = train.iterate_batches(*toy(16), 16)
    model, optimizer = net(), optax.sgd(0.3)
    train_state = train.create_train_state(model, optimizer, KEY, SHAPE, ema=True)
    step = train.make_train_step(model, optimizer, ema_decay=0.25)
    expected = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (train_state.params, train_state.state))
    for t in range(5):
        train_state, _ = step(train_state, batch, KEY)
        decay = min(0.25, (1 + t) / (10 + t))
        expected = jax.tree.map(
            lambda old, new, k=decay: k * old + (1 - k) * np.asarray(new),
            expected,
            (train_state.params, train_state.state),
        )
    assert_close(train_state.ema, expected, rtol=1e-5)
    assert train_state.eval_variables is train_state.ema
    assert not np.allclose(train_state.params["dense1"]["kernel"], expected[0]["dense1"]["kernel"])


def test_bfloat16_computes_in_bfloat16_and_updates_float32():
    """The loss is close to that of float32 but not equal, and parameters stay in float32."""
    [batch] = train.iterate_batches(*toy(16), 16)
    float32, bfloat16 = (steps(net(0.0), optax.sgd(0.1), [batch], 5, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves((bfloat16[0].params, bfloat16[0].state))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(bfloat16[1].sums["loss"], float32[1].sums["loss"], rtol=0.03)
    kernels = [train_state.params["dense1"]["kernel"] for train_state, _ in (float32, bfloat16)]
    assert 0 < np.abs(kernels[0] - kernels[1]).max() < 0.03
    step = jax.jit(train.make_train_step(net(), optax.sgd(0.1), dtype="bfloat16", jit=False))
    mlir = step.trace(bfloat16[0], batch, KEY).lower(lowering_platforms=("cuda",)).as_text()
    forward = [line for line in mlir.splitlines() if "stablehlo.convolution" in line or "dot_general" in line][:2]
    assert all(line.split(" : (")[1].count("bf16") >= 2 for line in forward)  # both operands


def test_augment_gets_floats_and_new_key_every_step():
    calls = []

    def augment(key, images):
        jax.debug.callback(lambda data, maximum: calls.append((int(data[-1]), float(maximum))),
                           jax.random.key_data(key), images.max())  # fmt: skip
        return 1 - images

    [batch] = train.iterate_batches(*toy(8), 8)
    inverted = batch._replace(image=255 - batch.image)
    assert_close(
        steps(small_cnn(), optax.sgd(0.1), [batch], augment=augment), steps(small_cnn(), optax.sgd(0.1), [inverted])
    )
    jax.effects_barrier()
    assert len({key for key, _ in calls}) == 3 and all(0.5 < maximum <= 1 for _, maximum in calls)


def test_mixup_fn_soft_targets_loss_and_accuracy():
    def mixup_fn(key, images, targets):
        return 0.75 * images + 0.25 * images[::-1], 0.75 * targets + 0.25 * targets[::-1]

    images, labels = toy(6)
    model = small_cnn()
    train_state = train.create_train_state(model, optax.sgd(0.0), KEY, SHAPE)
    x = images / np.float32(255)
    logits = np.asarray(model.apply(train_state.params, {}, 0.75 * x + 0.25 * x[::-1])[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    one_hot = np.eye(3)[labels]
    _, metrics = steps(model, optax.sgd(0.0), [train.Batch(images, labels)], 1, mixup_fn=mixup_fn)
    np.testing.assert_allclose(
        metrics.sums["loss"], -((0.75 * one_hot + 0.25 * one_hot[::-1]) * log_p).sum(), rtol=1e-5
    )
    assert metrics.sums["accuracy"] == (logits.argmax(1) == labels).sum()


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda batch: batch._replace(image=(batch.image / np.float32(255)) * np.float32("nan")),
        lambda batch: batch._replace(mask=np.zeros(16, bool)),
    ],
)
def test_nonfinite_masked_or_not_live_step_is_skipped(invalidate):
    [batch] = train.iterate_batches(*toy(16), 16)
    model, optimizer = net(), optax.adam(0.1)
    train_state = train.create_train_state(model, optimizer, KEY, SHAPE)
    step = jax.jit(train.make_train_step(model, optimizer, jit=False))
    skipped, _ = step(train_state, invalidate(batch), KEY)
    jax.tree.map(np.testing.assert_array_equal, skipped, train_state)
    updated, _ = step(train_state, batch, KEY)
    assert updated.step == 1 and not (updated.params["conv1"]["kernel"] == train_state.params["conv1"]["kernel"]).any()
    not_live, _ = step(train_state, batch, KEY, False)
    jax.tree.map(np.testing.assert_array_equal, not_live, train_state)


def test_finite_check_is_not_fused_into_every_update():
    """Otherwise compile time is quadratic in the number of layers: 160 s instead of 19 s for resnet110."""
    model, optimizer = serial(flatten, *(Dense(3) for _ in range(12))), optax.adam(0.1)
    train_state = train.create_train_state(model, optimizer, KEY, SHAPE)
    [batch] = train.iterate_batches(*toy(16), 16)
    hlo = train.make_train_step(model, optimizer).lower(train_state, batch).compile().as_text()
    # A few per array, not one per pair of arrays.
    assert 0 < hlo.count(" and(") <= 3 * len(jax.tree.leaves(train_state))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, r"train step: unknown dtype 'float16': did you mean 'bfloat16'\?"),
        ({"grad_accumulation": 0}, r"train step: grad_accumulation=0 should be an int of at least 1"),
        ({"grad_accumulation": 3}, r"train step: grad_accumulation=3 does not divide the batch of 16"),
        ({"label_smoothing": 1.0}, r"train step: label_smoothing=1.0 should be from 0 to below 1"),
        ({"ema_decay": -0.1}, r"train step: ema_decay=-0.1 should be from 0 to below 1"),
        (
            {"augment": lambda key, images: images[:, 1:]},
            r"train step: augment must keep the shape of the images, \(16, 4, 4, 1\), got \(16, 3, 4, 1\)",
        ),
    ],
)
def test_make_train_step_invalid_options_raise(options, message):
    with pytest.raises(InputError, match=message):
        steps(small_cnn(), optax.sgd(0.1), train.iterate_batches(*toy(16), 16), 1, **options)


def test_augment_without_key_raises():
    model, optimizer = small_cnn(), optax.sgd(0.1)
    train_state = train.create_train_state(model, optimizer, jax.random.key(0), (4, 4, 1))
    step = train.make_train_step(model, optimizer, augment=lambda key, images: images)
    with pytest.raises(InputError, match=r"augmentation is random: pass a key, such as jax\.random\.key\(0\)"):
        step(train_state, next(iter(train.iterate_batches(*toy(8), 8))))
