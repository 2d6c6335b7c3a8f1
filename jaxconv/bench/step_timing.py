"""jaxconv, in its two ways: a jitted call a step, and the compiled chunk of many steps that ``fit`` runs."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import models, train
from jaxconv.bench.peers import CLASSES, LEARNING_RATE, Runner, random_batch
from jaxconv.train.epoch import make_chunk
from jaxconv.train.loaders import Resident

IMAGES = 50_000  # on the device, of which an epoch gathers its batches: as many as CIFAR-10 has
LONGEST = 50  # steps of a chunk; only of batches smaller than usual would fit take more


def build(model: str, batch: int, *, mode: str = "step", images: int = IMAGES) -> Runner:
    """Mode ``step`` or ``epoch``."""
    return epoch(model, batch, images) if mode == "epoch" else step(model, batch)


def step(model: str, batch: int) -> Runner:
    entry = models.find(model)
    net, optimizer = entry.make(CLASSES), optax.adam(LEARNING_RATE)
    ts = train.init_state(net, optimizer, jax.random.key(0), entry.in_shape)
    train_step = train.make_train_step(net, optimizer, jax.random.key(1))
    examples = train.Batch(*map(jnp.asarray, random_batch(entry.in_shape, batch)))

    def steps(count: int) -> float:
        nonlocal ts
        for _ in range(count):
            ts, metrics = train_step(ts, examples)
        jax.block_until_ready(ts)
        return float(metrics.loss) / batch

    return Runner(_sizes(ts), steps)


def epoch(model: str, batch: int, images: int) -> Runner:
    entry = models.find(model)
    net, optimizer = entry.make(CLASSES), optax.adam(LEARNING_RATE)
    ts = train.init_state(net, optimizer, jax.random.key(0), entry.in_shape)
    cut = train.plan(images, batch, entry.in_shape)
    chunk = min(cut.chunk, LONGEST)
    cut = cut._replace(chunk=chunk, chunks=math.ceil(cut.steps / chunk))
    cut = cut._replace(examples=cut.chunks * chunk * batch, steps=cut.chunks * chunk)  # whole chunks of whole batches
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (cut.examples, *entry.in_shape), np.uint8)
    labels = rng.integers(0, CLASSES, cut.examples).astype(np.int32)
    feed = Resident(pixels, labels, cut, 0, None)
    function = make_chunk(train.make_step(net, optimizer), feed.fetch)
    advance = train.Program("the training chunk", function, donate_argnums=0)
    orders = itertools.chain.from_iterable(feed.chunks(epoch, 0) for epoch in itertools.count(1))
    key, live = jax.random.key(1), jnp.asarray(True)

    def steps(count: int) -> float:
        nonlocal ts
        for _ in range(count // chunk):
            ts, metrics = advance(ts, key, live, next(orders), *feed.data)
        jax.block_until_ready(ts)
        return float(metrics.loss / metrics.examples)

    return Runner(_sizes(ts), steps, chunk)


def _sizes(ts: train.TrainState) -> list[int]:
    return [leaf.size for leaf in jax.tree.leaves(ts.params)]
