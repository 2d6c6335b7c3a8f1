"""Snapshots of random numbers, and what tests do to their files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import BatchNorm, Conv, Dense, flatten, serial
from jaxconv.train import EarlyStoppingState, EpochPlan, Snapshot, TrainProgress, create_train_state, make_optimizer

MODEL = serial(Conv(3, 2), BatchNorm(), flatten, Dense(2))
POSITION = TrainProgress(
    plan=EpochPlan(50, 8, 7, 3, 3),
    epoch=1,
    execution=2,
    metric_sums=(
        {"loss": 0.1, "accuracy": 2.0, "count": 3.0},
        {"loss": 1e-45, "accuracy": 5.0, "count": 6.0},
    ),
    early_stopping=(EarlyStoppingState(0.1, 0.0, 1, 2, True), EarlyStoppingState()),
    seconds=1.5,
    chunk_seconds=0.25,
    loader_state={"next_index": 2},
)


def records(count):
    return tuple(
        {"epoch": epoch, "loss": 1 / (3 * epoch), "val_loss": 5e-324, "per_seed": [{"loss": 0.1}]}
        for epoch in range(1, count + 1)
    )


def made(step=3, model=MODEL, optimizer="adam", seed=0, ema=False):
    """A snapshot of random numbers in the right places, so that no two arrays are alike."""
    init = functools.partial(
        create_train_state, model, make_optimizer(optimizer, max_grad_norm=1.0), input_shape=(4, 4, 1), ema=ema
    )
    several = isinstance(seed, list)
    keys = jnp.stack([jax.random.key(each) for each in seed]) if several else jax.random.key(seed)
    like = jax.eval_shape(jax.vmap(init) if several else init, keys)
    rng = np.random.default_rng(step)
    ts, best = jax.tree.map(
        lambda leaf: jnp.asarray(rng.integers(0, 2**31, leaf.shape), jnp.uint32).view(jnp.int32).astype(leaf.dtype),
        (like, like.eval_variables),
    )
    return Snapshot(ts._replace(step=jnp.full_like(ts.step, step)), best, POSITION._replace(history=records(step)))


def like(snapshot):
    """The shapes of the train state and of the best network."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), snapshot[:2])


def assert_same(found, wanted):
    """Bit for bit, with the same types all the way down."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for here, there in zip(*map(jax.tree.leaves, (found[:2], wanted[:2])), strict=True):
        assert here.dtype == there.dtype and here.shape == there.shape
        assert np.asarray(here).tobytes() == np.asarray(there).tobytes()
    assert found.progress == wanted.progress


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
