"""Given, frozen and partly trained parameters: against training the rest alone, on what the frozen part makes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, Layer, flatten, relu, residual, serial, train
from toy_training import toy

pytestmark = pytest.mark.usefixtures("promoting")


def counting(params, state, x, *, train=False, key=None):
    """Tell a batch in training by the running mean, which it moves and which is added to it."""
    mean = state["mean"].astype(x.dtype)
    y = x + mean.reshape(1, 1, 1, -1)
    return y, {"mean": 0.5 * mean + 0.5 * x.mean((0, 1, 2))} if train else state


COUNT = Layer("count", lambda key, input_shape: ({}, {"mean": jnp.zeros(input_shape[-1:])}), counting)
BODY = (Conv(3, 2), BatchNorm(), residual(COUNT), relu, flatten)
MODEL = serial(*BODY, Dense(3))
OPTIONS = {"optimizer": optax.adam(1e-2), "epochs": 2, "batch_size": 8}
BYTES = toy(50)
DATA = BYTES[0].astype(np.float32) / 255, BYTES[1]


def head(path):
    return path.startswith("dense1")


def of_a_trained_network():
    """Params and state in which no number is what init would make it."""
    rng = np.random.default_rng(0)
    fresh = MODEL.init(jax.random.key(9), (4, 4, 1))
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), fresh)


VARIABLES = of_a_trained_network()
FROZEN = tuple(name for name in VARIABLES[0] if name != "dense1")


def fit(**options):
    return train.fit(MODEL, DATA, DATA, **OPTIONS | {"variables": VARIABLES, "trainable": head} | options)


def same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def assert_frozen(fitted):
    for params, state in (
        (fitted.params, fitted.state),
        (fitted.final_state.params, fitted.final_state.state),
        fitted.final_state.eval_variables,
    ):
        same({name: params[name] for name in FROZEN}, {name: VARIABLES[0][name] for name in FROZEN})
        same(state, VARIABLES[1])
        assert (np.asarray(params["dense1"]["kernel"]) != VARIABLES[0]["dense1"]["kernel"]).all()


def test_training_starts_from_the_given_variables():
    given = jax.tree.map(jnp.asarray, VARIABLES)
    fitted = fit(variables=given, trainable=None, optimizer=optax.sgd(0.0))
    same(fitted.final_state.params, given[0])  # not deleted either: the step reuses the memory of copies
    assert (np.asarray(fitted.final_state.state["bn1"]["mean"]) != VARIABLES[1]["bn1"]["mean"]).all()


@pytest.mark.parametrize("trainable", ["function", "tree"])
def test_training_the_head_is_training_it_alone_on_what_the_frozen_part_makes(trainable):
    """The frozen norms use the statistics they were given, not those of the batch, and keep them."""
    body = serial(*BODY)
    params, state = ({name: part for name, part in tree.items() if name != "dense1"} for tree in VARIABLES)
    features = np.asarray(body.apply(params, state, jnp.asarray(DATA[0]))[0])[:, None, None]
    alone = train.fit(
        serial(flatten, Dense(3)), (features, DATA[1]), (features, DATA[1]), scale=1,
        variables=({"dense1": VARIABLES[0]["dense1"]}, {}), **OPTIONS,
    )  # fmt: skip
    tree = jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == "dense1", VARIABLES[0])
    if trainable == "tree":  # which says nothing of a norm that has no parameters
        plain = serial(*(layer for layer in BODY if getattr(layer, "kind", "") != "res"), Dense(3))
        params, state = ({name: part for name, part in each.items() if name != "res1"} for each in VARIABLES)
        fitted = train.fit(plain, DATA, DATA, variables=(params, state), trainable=tree, **OPTIONS)
        same(fitted.final_state.state, state)
        function = train.fit(plain, DATA, DATA, variables=(params, state), trainable=head, **OPTIONS)
        return same(fitted.final_state, function.final_state)
    fitted = fit()
    assert_frozen(fitted)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, fitted.final_state.params["dense1"], alone.final_state.params["dense1"])
    for here, there in zip(fitted.history, alone.history, strict=True):
        np.testing.assert_allclose(here["val_loss"], there["val_loss"], rtol=1e-4)


def test_a_norm_of_which_a_part_is_trained_moves():
    fitted = fit(trainable=lambda path: path == "bn1/scale")
    assert (np.asarray(fitted.final_state.state["bn1"]["mean"]) != VARIABLES[1]["bn1"]["mean"]).all()
    same(fitted.final_state.state["res1"], VARIABLES[1]["res1"])
    same(fitted.final_state.params["bn1"]["bias"], VARIABLES[0]["bn1"]["bias"])
    same(fitted.final_state.params["dense1"], VARIABLES[0]["dense1"])


@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"grad_accumulation": 2, "dtype": "bfloat16"}, {"jit": False}])
def test_what_is_frozen_does_not_move_whatever_the_step_does(options):
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
def test_optimizers_of_every_kind_leave_what_is_frozen(optimizer):
    """Some take the loss as a function of the parameters, which they call with those that are trained."""
    fitted = fit(optimizer=optimizer, epochs=3)
    assert_frozen(fitted)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]


def test_the_optimizer_has_no_moments_of_what_is_frozen():
    size = sum(leaf.size for leaf in jax.tree.leaves(VARIABLES[0]["dense1"]))
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(fit(epochs=1).final_state.opt_state)) == 2 * size + 1
    )  # and a counter


def test_the_backward_pass_of_what_is_frozen_is_not_computed():
    model = serial(Conv(16, 3), relu, Conv(16, 3), relu, flatten, Dense(3))
    batch = train.Batch(np.ones((8, 12, 12, 1), np.float32), np.zeros(8, np.int32))

    def flops(trainable):
        ts = train.create_train_state(model, optax.sgd(0.1), jax.random.key(0), (12, 12, 1), trainable=trainable)
        step = jax.jit(train.make_train_step(model, optax.sgd(0.1), trainable=trainable, jit=False))
        return step.lower(ts, batch, None).compile().cost_analysis()["flops"]

    assert flops(head) < 0.55 * flops(None)


def test_all_seeds_start_from_the_variables():
    fitted = train.fit_seeds(MODEL, DATA, DATA, seeds=[0, 1], variables=VARIABLES, trainable=head, **OPTIONS)
    for member in fitted.members:
        assert_frozen(member)
    first, second = (member.params["dense1"]["kernel"] for member in fitted.members)
    assert (np.asarray(first) != np.asarray(second)).any()  # their orders differ


def test_a_run_goes_on_bit_for_bit_and_not_with_other_parameters(tmp_path):
    whole = fit()
    fit(epochs=1, on_epoch_end=lambda record, snapshot, best: train.save_checkpoint(tmp_path, snapshot))
    init = lambda: train.create_train_state(MODEL, OPTIONS["optimizer"], jax.random.key(0), (4, 4, 1), trainable=head)  # noqa: E731
    like = jax.eval_shape(init)
    start = train.restore_snapshot(tmp_path, (like, like.eval_variables))
    same(fit(resume_from=start).final_state, whole.final_state)
    mean = lambda path: head(path) or path == "res1/body/count1/mean"  # noqa: E731
    for other in (mean, None, lambda path: path == "dense1/bias"):
        message = r"fit: resume_from is of another run: .*trainable selects other parameters"
        with pytest.raises(InputError, match=message):
            fit(resume_from=start, trainable=other)


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
            r"params/bn1/bias: expected float32\(3,\), got nothing.*state/bn1/mean is",
        ),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        fit(**options)
