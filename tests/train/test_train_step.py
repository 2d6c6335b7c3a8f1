"""One step, and what can be asked of it: against the same written out, and laws that every option keeps."""

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


def plain():
    return serial(Conv(4, 3), relu, flatten, Dense(3))


def steps(model, optimizer, batches, count=3, key=KEY, **options):
    """The train state and the last metrics after so many steps from the same start."""
    ts = train.create_train_state(model, optimizer, KEY, SHAPE, ema=options.get("ema_decay") is not None)
    step = train.make_train_step(model, optimizer, **options)
    for _ in range(count):
        for batch in batches:
            ts, metrics = step(ts, batch, key)
    return ts, metrics


def same(first, second, rtol=1e-4, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), first, second)


def test_a_padded_batch_trains_as_the_short_one_would():
    images, labels = toy(count=5)
    model, optimizer = serial(Conv(4, 3), BatchNorm(), relu, flatten, Dense(3)), optax.sgd(0.1, momentum=0.9)
    [padded] = train.iterate_batches(images, labels, 8)
    assert padded.image.shape[0] == 8
    same(*(steps(model, optimizer, [batch]) for batch in (train.Batch(images, labels), padded)))


def test_every_step_drops_others():
    model = serial(flatten, Dropout(0.5), Dense(3))
    ts = train.create_train_state(model, optax.sgd(0.0), KEY, SHAPE)  # nothing is learned: only the dropout differs
    step, [batch] = train.make_train_step(model, optax.sgd(0.0)), train.iterate_batches(*toy(16), 16)
    losses = []
    for _ in range(4):
        ts, metrics = step(ts, batch, KEY)
        losses.append(float(metrics.sums["loss"]))
    assert len(set(losses)) == 4


def test_smoothed_targets_have_the_loss_of_the_formula():
    images, labels = toy(count=6)
    model, s = plain(), 0.3
    ts = train.create_train_state(model, optax.sgd(0.0), KEY, SHAPE)
    logits = np.asarray(model.apply(ts.params, {}, images.astype(np.float32) / 255)[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -((1 - s) * log_p[np.arange(6), labels] + s * log_p.mean(axis=1)).sum()
    _, metrics = steps(model, optax.sgd(0.0), [train.Batch(images, labels)], 1, label_smoothing=s)
    np.testing.assert_allclose(metrics.sums["loss"], wanted, rtol=1e-5)
    assert metrics.sums["accuracy"] == (logits.argmax(1) == labels).sum()


@pytest.mark.parametrize("examples", [12, 7, 2])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(examples):
    [batch] = train.iterate_batches(*toy(examples), 12)
    whole, parts = (steps(plain(), optax.adam(0.1), [batch], grad_accumulation=n) for n in (1, 4))
    same(whole, parts, rtol=1e-3, atol=1e-5)
    assert parts[1].count == examples


def test_a_part_without_an_example_changes_nothing():
    """One of eight examples counts: the second part has none, and batch norm no statistics of it."""
    [batch] = train.iterate_batches(*toy(1), 8)
    half = train.Batch(*(array[::2] for array in batch))
    same(*(steps(net(0.0), optax.sgd(0.1), [b], grad_accumulation=n) for b, n in ((batch, 2), (half, 1))))


def test_parts_go_through_batch_norm_one_after_the_other():
    images, labels = toy(8)
    ts, _ = steps(serial(BatchNorm(momentum=0.5), flatten, Dense(3)), optax.sgd(0.0), [train.Batch(images, labels)], 1,
                  grad_accumulation=2)  # fmt: skip
    first, second = images[::2].mean() / 255, images[1::2].mean() / 255
    np.testing.assert_allclose(ts.state["bn1"]["mean"], 0.5 * (0.5 * 0 + 0.5 * first) + 0.5 * second, rtol=1e-5)


def test_the_averaged_network_is_the_moving_average_of_what_was_learned():
    [batch] = train.iterate_batches(*toy(16), 16)
    model, optimizer = net(), optax.sgd(0.3)
    ts = train.create_train_state(model, optimizer, KEY, SHAPE, ema=True)
    step = train.make_train_step(model, optimizer, ema_decay=0.25)
    wanted = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (ts.params, ts.state))
    for t in range(5):
        ts, _ = step(ts, batch, KEY)
        keep = min(0.25, (1 + t) / (10 + t))
        wanted = jax.tree.map(
            lambda old, new, k=keep: k * old + (1 - k) * np.asarray(new), wanted, (ts.params, ts.state)
        )
    same(ts.ema, wanted, rtol=1e-5)
    assert ts.eval_variables is ts.ema
    assert not np.allclose(ts.params["dense1"]["kernel"], wanted[0]["dense1"]["kernel"])


def test_bfloat16_computes_in_half_and_learns_in_full():
    """Near the numbers of float32, but not on them; and no parameter loses its precision."""
    [batch] = train.iterate_batches(*toy(16), 16)
    full, half = (steps(net(0.0), optax.sgd(0.1), [batch], 5, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves((half[0].params, half[0].state))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(half[1].sums["loss"], full[1].sums["loss"], rtol=0.03)
    kernels = [ts.params["dense1"]["kernel"] for ts, _ in (full, half)]
    assert 0 < np.abs(kernels[0] - kernels[1]).max() < 0.03
    step = jax.jit(train.make_train_step(net(), optax.sgd(0.1), dtype="bfloat16", jit=False))
    on_gpu = step.trace(half[0], batch, KEY).lower(lowering_platforms=("cuda",)).as_text()
    forward = [line for line in on_gpu.splitlines() if "stablehlo.convolution" in line or "dot_general" in line][:2]
    assert all(line.split(" : (")[1].count("bf16") >= 2 for line in forward)  # both factors


def test_augmentation_sees_floats_and_other_keys_every_step():
    seen = []

    def augment(key, images):
        jax.debug.callback(lambda data, highest: seen.append((int(data[-1]), float(highest))),
                           jax.random.key_data(key), images.max())  # fmt: skip
        return 1 - images

    [batch] = train.iterate_batches(*toy(8), 8)
    turned = batch._replace(image=255 - batch.image)
    same(steps(plain(), optax.sgd(0.1), [batch], augment=augment), steps(plain(), optax.sgd(0.1), [turned]))
    jax.effects_barrier()
    assert len({key for key, _ in seen}) == 3 and all(0.5 < highest <= 1 for _, highest in seen)


def test_mixing_gives_soft_targets_of_which_the_larger_counts():
    def mix(key, images, targets):
        return 0.75 * images + 0.25 * images[::-1], 0.75 * targets + 0.25 * targets[::-1]

    images, labels = toy(6)
    model = plain()
    ts = train.create_train_state(model, optax.sgd(0.0), KEY, SHAPE)
    x = images / np.float32(255)
    logits = np.asarray(model.apply(ts.params, {}, 0.75 * x + 0.25 * x[::-1])[0], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    one_hot = np.eye(3)[labels]
    _, metrics = steps(model, optax.sgd(0.0), [train.Batch(images, labels)], 1, mixup_fn=mix)
    np.testing.assert_allclose(
        metrics.sums["loss"], -((0.75 * one_hot + 0.25 * one_hot[::-1]) * log_p).sum(), rtol=1e-5
    )
    assert metrics.sums["accuracy"] == (logits.argmax(1) == labels).sum()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda batch: batch._replace(image=(batch.image / np.float32(255)) * np.float32("nan")),
        lambda batch: batch._replace(mask=np.zeros(16, bool)),
    ],
)
def test_a_step_that_cannot_be_made_changes_nothing(spoil):
    [batch] = train.iterate_batches(*toy(16), 16)
    model, optimizer = net(), optax.adam(0.1)
    ts = train.create_train_state(model, optimizer, KEY, SHAPE)
    step = jax.jit(train.make_train_step(model, optimizer, jit=False))
    kept, _ = step(ts, spoil(batch), KEY)
    jax.tree.map(np.testing.assert_array_equal, kept, ts)
    moved, _ = step(ts, batch, KEY)
    assert moved.step == 1 and not (moved.params["conv1"]["kernel"] == ts.params["conv1"]["kernel"]).any()
    still, _ = step(ts, batch, KEY, False)
    jax.tree.map(np.testing.assert_array_equal, still, ts)


def test_what_guards_a_step_is_not_compiled_into_the_update_of_every_array():
    """It was, and so with the square of the layers: resnet110 took 160 s to compile, where 19 are enough."""
    model, optimizer = serial(flatten, *(Dense(3) for _ in range(12))), optax.adam(0.1)
    ts = train.create_train_state(model, optimizer, KEY, SHAPE)
    [batch] = train.iterate_batches(*toy(16), 16)
    program = train.make_train_step(model, optimizer).lower(ts, batch).compile().as_text()
    assert 0 < program.count(" and(") <= 3 * len(jax.tree.leaves(ts))  # a few each, not one for each array


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
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        steps(plain(), optax.sgd(0.1), train.iterate_batches(*toy(16), 16), 1, **options)


def test_augmentation_without_a_key_is_refused():
    model, optimizer = plain(), optax.sgd(0.1)
    ts = train.create_train_state(model, optimizer, jax.random.key(0), (4, 4, 1))
    step = train.make_train_step(model, optimizer, augment=lambda key, images: images)
    with pytest.raises(InputError, match=r"augmentation is random: pass a key, such as jax\.random\.key\(0\)"):
        step(ts, next(iter(train.iterate_batches(*toy(8), 8))))
