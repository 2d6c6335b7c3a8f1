"""Initial variables and frozen parameters: against training the head alone on the features of the frozen body."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, Layer, flatten, relu, residual, serial, train
from toy_training import toy

pytestmark = pytest.mark.usefixtures("promoting")


def counting_apply(params, state, x, *, train=False, key=None):
    """Add the running mean to the input, and update it in training mode."""
    mean = state["mean"].astype(x.dtype)
    y = x + mean.reshape(1, 1, 1, -1)
    return y, {"mean": 0.5 * mean + 0.5 * x.mean((0, 1, 2))} if train else state


COUNT = Layer("count", lambda key, input_shape: ({}, {"mean": jnp.zeros(input_shape[-1:])}), counting_apply)
BODY = (Conv(3, 2), BatchNorm(), residual(COUNT), relu, flatten)
MODEL = serial(*BODY, Dense(3))
OPTIONS = {"optimizer": optax.adam(1e-2), "epochs": 2, "batch_size": 8}
BYTES = toy(50)
DATA = BYTES[0].astype(np.float32) / 255, BYTES[1]


def is_head(path):
    return path.startswith("dense1")


def random_variables():
    """Return params and state of random numbers, none equal to its initial value."""
    rng = np.random.default_rng(0)
    initial = MODEL.init(jax.random.key(9), (4, 4, 1))
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), initial)


VARIABLES = random_variables()
FROZEN = tuple(name for name in VARIABLES[0] if name != "dense1")


def fit(**options):
    return train.fit(MODEL, DATA, DATA, **OPTIONS | {"variables": VARIABLES, "trainable": is_head} | options)


def assert_identical(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for actual_leaf, expected_leaf in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.asarray(actual_leaf).tobytes() == np.asarray(expected_leaf).tobytes()


def assert_frozen(fitted):
    for params, state in (
        (fitted.params, fitted.state),
        (fitted.final_state.params, fitted.final_state.state),
        fitted.final_state.eval_variables,
    ):
        assert_identical({name: params[name] for name in FROZEN}, {name: VARIABLES[0][name] for name in FROZEN})
        assert_identical(state, VARIABLES[1])
        assert (np.asarray(params["dense1"]["kernel"]) != VARIABLES[0]["dense1"]["kernel"]).all()


def test_fit_starts_from_variables():
    variables = jax.tree.map(jnp.asarray, VARIABLES)
    fitted = fit(variables=variables, trainable=None, optimizer=optax.sgd(0.0))
    assert_identical(fitted.final_state.params, variables[0])  # not deleted, since the step donates copies
    assert (np.asarray(fitted.final_state.state["bn1"]["mean"]) != VARIABLES[1]["bn1"]["mean"]).all()


@pytest.mark.parametrize("trainable", ["function", "tree"])
def test_training_head_matches_head_alone_on_features(trainable):
    """Frozen normalization layers use and keep their running statistics."""
    body = serial(*BODY)
    params, state = ({name: subtree for name, subtree in tree.items() if name != "dense1"} for tree in VARIABLES)
    features = np.asarray(body.apply(params, state, jnp.asarray(DATA[0]))[0])[:, None, None]
    head_only = train.fit(
        serial(flatten, Dense(3)), (features, DATA[1]), (features, DATA[1]), scale=1,
        variables=({"dense1": VARIABLES[0]["dense1"]}, {}), **OPTIONS,
    )  # fmt: skip
    tree = jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "dense1", VARIABLES[0])
    if trainable == "tree":  # which cannot freeze a layer with state but without parameters
        model = serial(*(layer for layer in BODY if getattr(layer, "kind", "") != "res"), Dense(3))
        params, state = (
            {name: subtree for name, subtree in variables.items() if name != "res1"} for variables in VARIABLES
        )
        fitted = train.fit(model, DATA, DATA, variables=(params, state), trainable=tree, **OPTIONS)
        assert_identical(fitted.final_state.state, state)
        by_function = train.fit(model, DATA, DATA, variables=(params, state), trainable=is_head, **OPTIONS)
        return assert_identical(fitted.final_state, by_function.final_state)
    fitted = fit()
    assert_frozen(fitted)
    assert_close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(assert_close, fitted.final_state.params["dense1"], head_only.final_state.params["dense1"])
    for record, head_record in zip(fitted.history, head_only.history, strict=True):
        np.testing.assert_allclose(record["val_loss"], head_record["val_loss"], rtol=1e-4)


def test_partly_trained_batch_norm_updates_statistics():
    fitted = fit(trainable=lambda path: path == "bn1/scale")
    assert (np.asarray(fitted.final_state.state["bn1"]["mean"]) != VARIABLES[1]["bn1"]["mean"]).all()
    assert_identical(fitted.final_state.state["res1"], VARIABLES[1]["res1"])
    assert_identical(fitted.final_state.params["bn1"]["bias"], VARIABLES[0]["bn1"]["bias"])
    assert_identical(fitted.final_state.params["dense1"], VARIABLES[0]["dense1"])


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"grad_accumulation": 2, "dtype": "bfloat16"}, {"jit": False}])
def test_step_options_keep_frozen_variables(options):
    assert_frozen(fit(**options))


@pytest.mark.parametrize(
    "optimizer",
    [
        train.make_optimizer("muon", 0.01, weight_decay=0.1, max_grad_norm=1.0),
        optax.lbfgs(),
        optax.MultiSteps(optax.chain(optax.sgd(0.001), optax.contrib.reduce_on_plateau()), 2),
        optax.polyak_sgd(),
    ],
    ids=["muon", "lbfgs", "MultiSteps", "polyak_sgd"],
)
def test_optimizers_keep_frozen_variables(optimizer):
    """Some call value_fn, with the trained parameters only."""
    fitted = fit(optimizer=optimizer, epochs=3)
    assert_frozen(fitted)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_optimizer_state_excludes_frozen_parameters():
    size = sum(leaf.size for leaf in jax.tree.leaves(VARIABLES[0]["dense1"]))
    # Two moments per trained parameter, and the step counter.
    assert sum(leaf.size for leaf in jax.tree.leaves(fit(epochs=1).final_state.opt_state)) == 2 * size + 1


def test_backward_pass_of_frozen_layers_is_not_computed():
    model = serial(Conv(16, 3), relu, Conv(16, 3), relu, flatten, Dense(3))
    batch = train.Batch(np.ones((8, 12, 12, 1), np.float32), np.zeros(8, np.int32))

    def flops(trainable):
        train_state = train.create_train_state(
            model, optax.sgd(0.1), jax.random.key(0), (12, 12, 1), trainable=trainable
        )
        step = jax.jit(train.make_train_step(model, optax.sgd(0.1), trainable=trainable, jit=False))
        return step.lower(train_state, batch, None).compile().cost_analysis()["flops"]

    assert flops(is_head) < 0.55 * flops(None)


def test_fit_seeds_starts_all_seeds_from_variables():
    fitted = train.fit_seeds(MODEL, DATA, DATA, seeds=[0, 1], variables=VARIABLES, trainable=is_head, **OPTIONS)
    for member in fitted.members:
        assert_frozen(member)
    first, second = (member.params["dense1"]["kernel"] for member in fitted.members)
    assert (np.asarray(first) != np.asarray(second)).any()  # the data orders differ


def test_resume_requires_same_trainable(tmp_path):
    unbroken = fit()
    fit(epochs=1, on_epoch_end=lambda record, snapshot, best: train.save_checkpoint(tmp_path, snapshot))
    init = functools.partial(train.create_train_state, MODEL, OPTIONS["optimizer"], trainable=is_head)
    target = jax.eval_shape(lambda key: init(key, (4, 4, 1)), jax.random.key(0))
    snapshot = train.restore_snapshot(tmp_path, (target, target.eval_variables))
    assert_identical(fit(resume_from=snapshot).final_state, unbroken.final_state)
    head_and_mean = lambda path: is_head(path) or path == "res1/body/count1/mean"  # noqa: E731
    for other_trainable in (head_and_mean, None, lambda path: path == "dense1/bias"):
        message = r"fit: resume_from is of another run: .*trainable selects other parameters"
        with pytest.raises(InputError, match=message):
            fit(resume_from=snapshot, trainable=other_trainable)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trainable": lambda path: False},
            r"trainable selects no parameter of bn1/bias, bn1/scale, conv1/bias",
        ),
        (
            {"trainable": {"dense1": {"bias": True}}},
            r"trainable must have the paths of params; it differs in bn1",
        ),
        (
            {"trainable": jax.tree.map(lambda _: 1, VARIABLES[0])},
            r"trainable must be a tree of bools, got 1 at",
        ),
        ({"variables": VARIABLES[0]}, r"variables must be \(params, state\), got dict"),
        (
            {"variables": serial(*BODY, Dense(5)).init(jax.random.key(0), (4, 4, 1))},
            r"variables are of another model: params/dense1/bias: expected float32\(3,\), got float32\(5,\);",
        ),
        (
            {"variables": ({}, {})},
            r"params/bn1/bias: expected float32\(3,\), got nothing.*state/bn1/mean: expected",
        ),
    ],
)
def test_variables_and_trainable_invalid_raise(options, message):
    with pytest.raises(InputError, match=message):
        fit(**options)
