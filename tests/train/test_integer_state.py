"""Non-floating layer state under every step option, and optimizers with extra arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, Layer, distributed, flatten, serial, train
from toy_training import toy

pytestmark = pytest.mark.usefixtures("promoting")

KEY = jax.random.key(0)
DATA = toy(32)


def mixed_init(key, input_shape):
    return {}, {
        "count": jnp.zeros((), jnp.int32),
        "bytes": jnp.zeros(3, jnp.uint8),
        "flag": jnp.zeros((), bool),
        "key": key,
        "mean": jnp.zeros((), jnp.float32),
    }


def mixed_apply(params, state, x, *, train=False, key=None):
    if not train:
        return x, state
    return x, {
        "count": state["count"] + 1,
        "bytes": state["bytes"] + jnp.uint8(2),
        "flag": jnp.ones((), bool),
        "key": jax.random.fold_in(state["key"], state["count"]),
        "mean": x.mean(),  # in the compute dtype
    }


MODEL = serial(Layer("mixed", mixed_init, mixed_apply), flatten, Dense(3))
OPTIONS = [
    {},
    {"ema_decay": 0.9},
    {"dtype": "bfloat16"},
    {"grad_accumulation": 2},
    {"seeds": [3, 4]},
    {"jit": False},
    {"mesh": True, "ema_decay": 0.9},
    {"dtype": "bfloat16", "grad_accumulation": 2, "ema_decay": 0.5, "seeds": [3, 4]},
]


def fit_function(options):
    return train.fit_seeds if "seeds" in options else train.fit


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fit_updates_counters_flags_and_keys(options):
    if options.get("mesh"):
        options = options | {"mesh": distributed.create_mesh(1)}
    fitted = fit_function(options)(MODEL, DATA, DATA, optimizer=optax.sgd(0.1), epochs=2, batch_size=16, **options)
    updates = 4 * options.get("grad_accumulation", 1)
    for variables in ((None, fitted.final_state.state), fitted.final_state.eval_variables):
        layer_state = variables[1]["mixed1"]
        assert {name: leaf.dtype for name, leaf in layer_state.items() if name != "key"} == {
            "count": jnp.int32,
            "bytes": jnp.uint8,
            "flag": bool,
            "mean": jnp.float32,
        }
        assert (
            (layer_state["count"] == updates).all()
            and (layer_state["bytes"] == 2 * updates).all()
            and layer_state["flag"].all()
        )
        for i, seed in enumerate(options.get("seeds", [0])):
            key = jax.random.fold_in(train.split_seed(seed)[0], 0)
            for count in range(updates):
                key = jax.random.fold_in(key, count)
            actual = layer_state["key"][i] if "seeds" in options else layer_state["key"]
            assert jax.random.key_data(actual).tolist() == jax.random.key_data(key).tolist()


def test_ema_averages_floats_only():
    [batch] = train.iterate_batches(*toy(16), 16)
    train_state = train.create_train_state(MODEL, optax.sgd(0.1), KEY, (4, 4, 1), ema=True)
    updated, _ = train.make_train_step(MODEL, optax.sgd(0.1), ema_decay=0.9)(train_state, batch, KEY)
    assert updated.ema[1]["mixed1"]["count"] == 1
    # The decay of the first step is (1 + 0) / (10 + 0) = 0.1.
    np.testing.assert_allclose(updated.ema[1]["mixed1"]["mean"], 0.9 * batch.image.mean() / 255, rtol=1e-5)


def test_integer_parameter_raises_with_name():
    layer = Layer("count", lambda key, input_shape: ({"n": jnp.zeros((), jnp.int32)}, {}), mixed_apply)
    with pytest.raises(
        InputError, match=r"train step: .*parameter count1/n is int32, which has no gradient: keep it in"
    ):
        train.fit(serial(layer, flatten, Dense(3)), DATA, DATA, optimizer=optax.sgd(0.1), epochs=1, batch_size=16)


PLAIN = serial(flatten, Dense(3))


def loss_by_numpy(params, images, labels):
    """Return the mean cross-entropy in float64."""
    w, b = (np.asarray(params["dense1"][name], np.float64) for name in ("kernel", "bias"))
    z = images.reshape(len(images), -1) / 255 @ w + b
    return (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]).mean()


def recording_optimizer(calls):
    """Return an optimizer that records its arguments and makes no update."""

    def update(updates, state, params=None, *, value, grad, value_fn, **extra_args):
        halved = jax.tree.map(lambda leaf: leaf / 2, params)
        values = value, value_fn(params), value_fn(halved)
        differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), grad, jax.grad(value_fn)(params))
        jax.debug.callback(lambda *args: calls.append(args), *values, differences)
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("examples", [16, 11])
def test_optimizer_gets_value_grad_and_value_fn(accumulate, examples):
    calls = []
    images, labels = toy(examples)
    [batch] = train.iterate_batches(images, labels, 16)
    train_state = train.create_train_state(PLAIN, recording_optimizer(calls), KEY, (4, 4, 1))
    train.make_train_step(PLAIN, recording_optimizer(calls), grad_accumulation=accumulate)(
        jax.tree.map(jnp.copy, train_state), batch, KEY
    )
    jax.effects_barrier()
    [(value, value_at_params, value_at_halved, gradient_differences)] = calls
    halved = jax.tree.map(lambda leaf: leaf / 2, train_state.params)
    np.testing.assert_allclose((value, value_at_params), loss_by_numpy(train_state.params, images, labels), rtol=1e-5)
    np.testing.assert_allclose(value_at_halved, loss_by_numpy(halved, images, labels), rtol=1e-5)
    assert max(jax.tree.leaves(gradient_differences)) < 1e-6


OPTIMIZERS = {
    "reduce_on_plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "lbfgs": optax.lbfgs(),
    "in MultiSteps": optax.MultiSteps(optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), 2),
    "polyak_sgd": optax.polyak_sgd(),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 2, "seeds": [0, 1]}], ids=str)
def test_optimizers_with_extra_args_reduce_loss(name, options):
    fitted = fit_function(options)(PLAIN, DATA, DATA, optimizer=OPTIMIZERS[name], epochs=4, batch_size=32, **options)
    first, *_, last = (record["loss"] for record in fitted.history)
    assert last < first


def test_lbfgs_step_matches_optax_loop():
    images, labels = DATA
    x, optimizer = jnp.asarray(images, jnp.float32) / 255, optax.lbfgs()

    def loss(params):
        logits, _ = PLAIN.apply(params, {}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()

    train_state = train.create_train_state(PLAIN, optimizer, KEY, (4, 4, 1))
    params, state = train_state.params, train_state.opt_state
    step = train.make_train_step(PLAIN, optimizer)
    for _ in range(3):
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = optax.apply_updates(params, updates)
    for _ in range(3):
        train_state, _ = step(train_state, train.Batch(images, labels))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), train_state.params, params)


def test_optimizer_requiring_other_args_raises():
    def update(updates, state, params=None, *, hessian, **extra_args):
        return updates, state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    with pytest.raises(
        InputError, match=r"requires 'hessian', which the step does not provide; it provides value, grad, value_fn"
    ):
        train.fit(PLAIN, DATA, DATA, optimizer=optimizer, epochs=1, batch_size=32)


def test_optimizer_gets_only_accepted_extra_args():
    def update(updates, state, params=None, *, value=None):
        assert value is not None
        return jax.tree.map(lambda leaf: -0.1 * leaf, updates), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    fitted = train.fit(PLAIN, DATA, DATA, optimizer=optimizer, epochs=1, batch_size=32)
    plain = train.fit(PLAIN, DATA, DATA, optimizer=optax.sgd(0.1), epochs=1, batch_size=32)
    assert train.tree_sha256(fitted.params) == train.tree_sha256(plain.params)
