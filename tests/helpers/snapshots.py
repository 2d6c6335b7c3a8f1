"""Snapshots with random arrays, and helpers to compare and corrupt their files."""

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
    """Build a snapshot whose arrays are random, so that no two are equal."""
    init = functools.partial(
        create_train_state, model, make_optimizer(optimizer, max_grad_norm=1.0), input_shape=(4, 4, 1), ema=ema
    )
    is_multi_seed = isinstance(seed, list)
    keys = jnp.stack([jax.random.key(s) for s in seed]) if is_multi_seed else jax.random.key(seed)
    like = jax.eval_shape(jax.vmap(init) if is_multi_seed else init, keys)
    rng = np.random.default_rng(step)
    train_state, best = jax.tree.map(
        lambda leaf: jnp.asarray(rng.integers(0, 2**31, leaf.shape), jnp.uint32).view(jnp.int32).astype(leaf.dtype),
        (like, like.eval_variables),
    )
    return Snapshot(
        train_state._replace(step=jnp.full_like(train_state.step, step)), best, POSITION._replace(history=records(step))
    )


def like(snapshot):
    """Return the array shapes of the train state and of the best variables."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), snapshot[:2])


def assert_same(actual, expected):
    """Check that two snapshots are equal bit for bit, with the same types."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for leaf, expected_leaf in zip(*map(jax.tree.leaves, (actual[:2], expected[:2])), strict=True):
        assert leaf.dtype == expected_leaf.dtype and leaf.shape == expected_leaf.shape
        assert np.asarray(leaf).tobytes() == np.asarray(expected_leaf).tobytes()
    assert actual.progress == expected.progress


def flip(path, index):
    content = bytearray(path.read_bytes())
    content[index] ^= 1
    path.write_bytes(content)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
