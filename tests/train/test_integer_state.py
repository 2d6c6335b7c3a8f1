"""State that is not floating goes through every option of the step; optimisers get the loss that they take."""

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


def odd_init(key, input_shape):
    return {}, {
        "count": jnp.zeros((), jnp.int32),
        "bytes": jnp.zeros(3, jnp.uint8),
        "seen": jnp.zeros((), bool),
        "key": key,
        "mean": jnp.zeros((), jnp.float32),
    }


def odd_apply(params, state, x, *, train=False, key=None):
    if not train:
        return x, state
    return x, {
        "count": state["count"] + 1,
        "bytes": state["bytes"] + jnp.uint8(2),
        "seen": jnp.ones((), bool),
        "key": jax.random.fold_in(state["key"], state["count"]),
        "mean": x.mean(),  # in bfloat16, where that is computed in
    }


MODEL = serial(Layer("odd", odd_init, odd_apply), flatten, Dense(3))
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


def fit_of(options):
    return train.fit_seeds if "seeds" in options else train.fit


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_counters_flags_and_keys_go_through_every_option(options):
    if options.get("mesh"):
        options = options | {"mesh": distributed.create_mesh(1)}
    fitted = fit_of(options)(MODEL, DATA, DATA, optimizer=optax.sgd(0.1), epochs=2, batch_size=16, **options)
    updates = 4 * options.get("grad_accumulation", 1)
    for params_and_state in ((None, fitted.final_state.state), fitted.final_state.eval_variables):
        odd = params_and_state[1]["odd1"]
        assert {name: leaf.dtype for name, leaf in odd.items() if name != "key"} == {
            "count": jnp.int32,
            "bytes": jnp.uint8,
            "seen": bool,
            "mean": jnp.float32,
        }
        assert (odd["count"] == updates).all() and (odd["bytes"] == 2 * updates).all() and odd["seen"].all()
        for i, seed in enumerate(options.get("seeds", [0])):
            key = jax.random.fold_in(train.split_seed(seed)[0], 0)
            for count in range(updates):
                key = jax.random.fold_in(key, count)
            got = odd["key"][i] if "seeds" in options else odd["key"]
            assert jax.random.key_data(got).tolist() == jax.random.key_data(key).tolist()


def test_of_the_averaged_network_only_floats_are_averaged():
    [batch] = train.iterate_batches(*toy(16), 16)
    ts = train.create_train_state(MODEL, optax.sgd(0.1), KEY, (4, 4, 1), ema=True)
    new, _ = train.make_train_step(MODEL, optax.sgd(0.1), ema_decay=0.9)(ts, batch, KEY)
    assert new.ema[1]["odd1"]["count"] == 1
    np.testing.assert_allclose(new.ema[1]["odd1"]["mean"], 0.9 * batch.image.mean() / 255, rtol=1e-5)  # (1+0)/(10+0)


def test_a_parameter_without_a_gradient_is_refused_by_name():
    layer = Layer("count", lambda key, input_shape: ({"n": jnp.zeros((), jnp.int32)}, {}), odd_apply)
    with pytest.raises(
        InputError, match=r"train step: .*parameter count1/n is int32, which has no gradient: keep it in"
    ):
        train.fit(serial(layer, flatten, Dense(3)), DATA, DATA, optimizer=optax.sgd(0.1), epochs=1, batch_size=16)


PLAIN = serial(flatten, Dense(3))


def loss_by_numpy(params, images, labels):
    """The mean cross-entropy, in float64."""
    w, b = (np.asarray(params["dense1"][name], np.float64) for name in ("kernel", "bias"))
    z = images.reshape(len(images), -1) / 255 @ w + b
    return (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]).mean()


def told(seen):
    """An optimiser that keeps what it is given, and stands still."""

    def update(updates, state, params=None, *, value, grad, value_fn, **others):
        halved = jax.tree.map(lambda leaf: leaf / 2, params)
        numbers = value, value_fn(params), value_fn(halved)
        slopes = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), grad, jax.grad(value_fn)(params))
        jax.debug.callback(lambda *args: seen.append(args), *numbers, slopes)
        return jax.tree.map(jnp.zeros_like, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("examples", [16, 11])
def test_an_optimiser_is_given_the_loss_its_gradient_and_the_function(accumulate, examples):
    seen = []
    images, labels = toy(examples)
    [batch] = train.iterate_batches(images, labels, 16)
    ts = train.create_train_state(PLAIN, told(seen), KEY, (4, 4, 1))
    train.make_train_step(PLAIN, told(seen), grad_accumulation=accumulate)(jax.tree.map(jnp.copy, ts), batch, KEY)
    jax.effects_barrier()
    [(value, same, of_half, slopes)] = seen
    halved = jax.tree.map(lambda leaf: leaf / 2, ts.params)
    np.testing.assert_allclose((value, same), loss_by_numpy(ts.params, images, labels), rtol=1e-5)
    np.testing.assert_allclose(of_half, loss_by_numpy(halved, images, labels), rtol=1e-5)
    assert max(jax.tree.leaves(slopes)) < 1e-6


OPTIMIZERS = {
    "reduce_on_plateau": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    "lbfgs": optax.lbfgs(),
    "in MultiSteps": optax.MultiSteps(optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), 2),
    "polyak_sgd": optax.polyak_sgd(),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 2, "seeds": [0, 1]}], ids=str)
def test_optimisers_that_take_the_loss_learn(name, options):
    fitted = fit_of(options)(PLAIN, DATA, DATA, optimizer=OPTIMIZERS[name], epochs=4, batch_size=32, **options)
    first, *_, last = (record["loss"] for record in fitted.history)
    assert last < first


def test_a_line_search_is_the_one_that_optax_does_alone():
    images, labels = DATA
    x, optimizer = jnp.asarray(images, jnp.float32) / 255, optax.lbfgs()

    def loss(params):
        logits, _ = PLAIN.apply(params, {}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()

    ts = train.create_train_state(PLAIN, optimizer, KEY, (4, 4, 1))
    params, state = ts.params, ts.opt_state
    step = train.make_train_step(PLAIN, optimizer)
    for _ in range(3):
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        params = optax.apply_updates(params, updates)
    for _ in range(3):
        ts, _ = step(ts, train.Batch(images, labels))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ts.params, params)


def test_an_optimiser_that_takes_something_else_is_refused():
    def update(updates, state, params=None, *, hessian, **others):
        return updates, state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    with pytest.raises(
        InputError, match=r"requires 'hessian', which the step does not provide; it provides value, grad, value_fn"
    ):
        train.fit(PLAIN, DATA, DATA, optimizer=optimizer, epochs=1, batch_size=32)


def test_an_optimiser_without_room_for_more_gets_no_more():
    def update(updates, state, params=None, *, value=None):
        assert value is not None
        return jax.tree.map(lambda leaf: -0.1 * leaf, updates), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    fitted = train.fit(PLAIN, DATA, DATA, optimizer=optimizer, epochs=1, batch_size=32)
    plain = train.fit(PLAIN, DATA, DATA, optimizer=optax.sgd(0.1), epochs=1, batch_size=32)
    assert train.tree_sha256(fitted.params) == train.tree_sha256(plain.params)
