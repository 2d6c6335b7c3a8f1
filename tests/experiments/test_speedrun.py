"""The speed run: initialization, training step, and lowering for a GPU."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cifar10_speedrun
from common import airbench94
from common.study import Progress
from jaxconv import Conv, InputError, dirac, filters, train
from jaxconv.data import augment

pytestmark = pytest.mark.usefixtures("promoting")
KEY = jax.random.key(0)
RECIPE = airbench94.Recipe(widths=(8, 16, 16))
array = jax.ShapeDtypeStruct


def patches(x, high, wide):
    """Return every window of every image as a row, by loops."""
    rows = [
        image[i : i + high, j : j + wide].ravel()
        for image in x
        for i in range(x.shape[1] - high + 1)
        for j in range(x.shape[2] - wide + 1)
    ]
    return np.array(rows, float)


@pytest.mark.parametrize("size", [(2, 2), (3, 1)])
def test_whitening_kernel_decorrelates_patches(rng, size):
    x = rng.normal(size=(40, 9, 8, 3)).cumsum(1).cumsum(2).astype(np.float32) / 5  # neighboring pixels are correlated
    rows = patches(x, *size)
    channels = rows.shape[1]
    assert np.linalg.cond(rows.T @ rows) > 30
    kernel = np.asarray(filters.whitening_kernel(x, size, eps=0))
    assert kernel.shape == (*size, 3, 2 * channels)
    y = rows @ kernel.reshape(channels, -1)
    np.testing.assert_allclose(y[:, :channels].T @ y[:, :channels] / len(rows), np.eye(channels), atol=2e-3)
    np.testing.assert_array_equal(kernel[..., channels:], -kernel[..., :channels])


def test_whitening_kernel_eps_suppresses_noise(rng):
    x = rng.normal(size=(50, 6, 7, 1)).astype(np.float32) * 1e-3
    x += rng.normal(size=(50, 1, 1, 1)).astype(np.float32)
    y = patches(x, 2, 2) @ np.asarray(filters.whitening_kernel(x, eps=0.01)).reshape(4, 8)
    sizes = (y[:, :4] ** 2).mean(0)
    assert 0.9 < sizes[0] < 1 and (sizes[1:] < 1e-3).all()


def test_whitening_kernel_rejects_invalid_images():
    x = np.zeros((2, 4, 5, 3), np.float32)
    with pytest.raises(InputError, match=r"whitening_kernel: size \(5, 2\) is larger than the image, \(4, 5\)"):
        filters.whitening_kernel(x, (5, 2))
    with pytest.raises(InputError, match="whitening_kernel: eps=-1"):
        filters.whitening_kernel(x, eps=-1)
    assert np.isfinite(filters.whitening_kernel(x)).all()


@pytest.mark.parametrize("features", [3, 4, 9])
@pytest.mark.parametrize("size", [3, (1, 5), (2, 4)])
def test_dirac_copies_first_channels(rng, features, size):
    x = rng.normal(size=(2, 6, 5, 4)).astype(np.float32)
    layer = Conv(features, size, padding="SAME", use_bias=False, kernel_init=dirac())
    params, state = layer.init(KEY, x.shape[1:])
    y = np.asarray(layer.apply(params, state, x)[0])
    same = min(features, 4)
    np.testing.assert_allclose(y[..., :same], x[..., :same], rtol=1e-6)
    assert all(
        y[..., o].std() > 0.1 and not np.allclose(y[..., o], x[..., c]) for o in range(4, features) for c in range(4)
    )


def test_alternating_flip_mirrors_every_other_epoch(rng):
    x = rng.uniform(size=(400, 3, 4, 2)).astype(np.float32)
    flip = jax.jit(augment.alternating_flip)
    mirrored = []
    for epoch in range(5):
        order = rng.permutation(400)
        y = np.empty_like(x)
        y[order] = flip(KEY, x[order], jnp.asarray(order), epoch)
        is_same, is_mirrored = (y == x).all((1, 2, 3)), (y == x[:, :, ::-1]).all((1, 2, 3))
        assert (is_same ^ is_mirrored).all()
        mirrored.append(is_mirrored)
    for previous, current in itertools.pairwise(mirrored):
        np.testing.assert_array_equal(previous, ~current)
    assert abs(mirrored[0].mean() - 0.5) < 5 * np.sqrt(0.25 / 400)


def test_alternating_flip_requires_index_per_image():
    with pytest.raises(InputError, match=r"alternating_flip: number int32\(2,\) should be int\(3,\), one per image"):
        augment.alternating_flip(KEY, np.zeros((3, 2, 2, 1), np.float32), np.arange(2, dtype=np.int32), 0)


def test_batches_are_permutations_without_remainder():
    # Six steps per epoch; two epochs and two steps.
    rows, epoch_numbers = map(np.asarray, airbench94.batches(KEY, 50, 8, 14))
    assert rows.shape == (14, 8) and epoch_numbers.tolist() == [0] * 6 + [1] * 6 + [2] * 2
    epochs = [set(rows[start : start + 6].ravel().tolist()) for start in (0, 6)]
    assert all(len(epoch) == 48 and epoch <= set(range(50)) for epoch in epochs)
    assert rows[:6].tolist() != rows[6:12].tolist()


def test_make_batch_mirrors_images_in_next_epoch():
    dataset = jax.tree.map(jnp.asarray, cifar10_speedrun.synthetic_images(30))
    indices = jnp.asarray([7, 3, 29])
    first, second = (airbench94.make_batch(KEY, dataset, indices, epoch) for epoch in (0, 1))
    np.testing.assert_array_equal(first.image[:, :, ::-1], second.image)
    np.testing.assert_array_equal(first.label, dataset.labels[indices])
    normalized = airbench94.normalize(dataset.images[indices])
    assert all((image == x).all() or (image == x[:, ::-1]).all() for image, x in zip(first.image, normalized))
    np.testing.assert_allclose(
        normalized[0, 0, 0, 2], (float(dataset.images[7, 0, 0, 2]) / 255 - 0.4465) / 0.2616, rtol=1e-5
    )


@pytest.mark.parametrize("learn", [True, False])
def test_make_optimizer_matches_formulas(rng, learn):
    shapes = {"whiten": {"bias": (3,)}, "serial1": {"conv1": {"kernel": (2, 3)}, "bn1": {"bias": (4,)}}}
    params = jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )
    recipe, steps = airbench94.Recipe(batch_size=512), 10
    optimizer = airbench94.make_optimizer(recipe, steps, learn_bias=learn)
    state, current = optimizer.init(params), params
    grads = [jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params) for _ in range(steps)]
    for grad in grads:
        updates, state = optimizer.update(grad, state, current)
        current = jax.tree.map(jnp.add, current, updates)
    for layer, name, factor in (("conv1", "kernel", 1), ("bn1", "bias", 64)):
        # As in PyTorch: the sum of 512 losses, with a learning rate and a weight decay per group.
        kilostep = 1024 * (1 + 1 / (1 - 0.85))
        rate = 11.5 / kilostep * factor
        decay = 0.0153 * 512 / kilostep / rate
        w, buffer = np.asarray(params["serial1"][layer][name], float), 0
        for step, grad in enumerate(grads):
            g = 512 * np.asarray(grad["serial1"][layer][name], float) + decay * w
            buffer = 0.85 * buffer + g
            schedule = 0.2 + 0.8 * step / 2 if step < 2 else 1 - 0.93 * (step - 2) / 8
            w = w - rate * schedule * (g + 0.85 * buffer)
        np.testing.assert_allclose(current["serial1"][layer][name], w, rtol=2e-4, atol=1e-4)
    assert bool((current["whiten"]["bias"] == params["whiten"]["bias"]).any()) != learn


def test_lookahead_interpolates_every_fifth_step():
    train_state = train.TrainState(
        jnp.asarray(5),
        {"w": jnp.asarray(2.0)},
        {"mean": jnp.asarray(4.0)},
        (),
        ({"w": jnp.asarray(1.0)}, {"mean": jnp.asarray(0.0)}),
    )
    weight = 0.95**5 * 0.5**3
    due = airbench94.lookahead(train_state, 10)
    np.testing.assert_allclose([due.params["w"], due.state["mean"]], [2 - weight, 4 - 4 * weight], rtol=1e-6)
    assert due.ema == (due.params, due.state)
    between = airbench94.lookahead(train_state._replace(step=jnp.asarray(6)), 10)
    assert (between.params, between.state, between.ema) == (train_state.params, train_state.state, train_state.ema)


def test_run_lowers_for_gpu_with_bfloat16_convolutions():
    dataset = airbench94.Images(
        array((50_000, 32, 32, 3), np.uint8),
        array((50_000,), np.int32),
        array((10_000, 32, 32, 3), np.uint8),
        array((10_000,), np.int32),
    )
    jitted = jax.jit(functools.partial(airbench94.run, airbench94.Recipe()))
    key = jax.eval_shape(lambda: jax.random.key(0))
    module = jitted.trace(key, dataset).lower(lowering_platforms=("cuda",)).as_text()
    convolutions = re.findall(
        r"stablehlo\.convolution.* : \(tensor<\S+x(\w+)>, tensor<\S+x(\w+)>\) -> tensor<\S+x(\w+)>", module
    )
    # 7 forward, and 6 + 6 gradients (the first kernel is frozen); one less without its bias; 7 for scoring.
    assert len(convolutions) == (7 + 6 + 6) + (7 + 6 + 5) + 7
    assert set(convolutions) == {("bf16", "bf16", "bf16")}
    assert re.search(r"tensor<144x1024xi32>", module) and re.search(r"tensor<332x1024xi32>", module)  # 476 steps


def test_score_averages_six_views(rng):
    images = rng.integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)

    def first_pixels(x):  # a network whose logits are ten pixels
        return x[:, 5, :10, 0]

    model = airbench94.serial(first_pixels)
    x = np.asarray(jnp.asarray(airbench94.normalize(images), jnp.bfloat16), np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    logits = np.zeros((50, 10))
    for weight, start in ((0.5, 1), (0.25, 0), (0.25, 2)):
        view = padded[:, start : start + 32, start : start + 32]
        logits += weight / 2 * (view[:, 5, :10, 0] + view[:, 5, ::-1][:, :10, 0])
    labels = np.where(np.arange(50) < 30, logits.argmax(1), (logits.argmax(1) + 1) % 10).astype(np.int32)
    plain, over_views = airbench94.score(model, {}, {}, jnp.asarray(images), jnp.asarray(labels), size=20)
    assert float(over_views) == pytest.approx(0.6)
    assert float(plain) == pytest.approx((x[:, 5, :10, 0].argmax(1) == labels).mean())


def test_speedrun_learns_synthetic_images(tmp_path):
    config = cifar10_speedrun.Config(smoke=True, output_dir=tmp_path).reduced()
    with Progress() as progress:
        results = cifar10_speedrun.measure(config, progress).results
    assert results["steps"] == 36 and results["images"] == 192
    assert all(len(results[name]) == 1 for name in ("seconds", "plain", "accuracy"))
    assert results["accuracy"][0] > 0.4 and results["plain"][0] > 0.4  # chance is 0.1


def test_speedrun_summary_has_data_note():
    results = {
        "steps": 36,
        "seconds": [1.0, 2.0],
        "plain": [0.5, 0.75],
        "accuracy": [0.75, 1.0],
        "data_note": "Made up",
    }
    summary = cifar10_speedrun.summarize_results(results)
    assert summary.startswith("1.500 ± 0.707 s for 36 steps") and summary.endswith(
        "0.8750 ± 0.1768 over six views. Made up."
    )
    assert cifar10_speedrun.summarize_results(results | {"data_note": ""}).endswith("over six views.")


def test_batch_larger_than_dataset_raises():
    with pytest.raises(InputError, match="speedrun: batch_size=1024 is more than the 20 images"):
        jax.eval_shape(functools.partial(airbench94.run, RECIPE), KEY, cifar10_speedrun.synthetic_images(20))
