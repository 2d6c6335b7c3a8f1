"""Dead layers during training cause one warning each; without them nothing is compiled in addition."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Conv, Dense, InputError, Layer, MaxPool, data, explain, flatten, relu, residual, serial, train
from jaxconv.errors import DeadLayerWarning
from jaxconv.ops import relu6
from jaxconv.train.evaluation import Evaluator, evaluator_of
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")


def with_bias(params, bias, layer="conv2"):
    return params | {layer: params[layer] | {"bias": jnp.full_like(params[layer]["bias"], bias)}}


def copy_snapshot(snapshot):
    """Copy a snapshot, since the next step donates its arrays."""
    copies = jax.tree.map(jnp.copy, (snapshot.train_state, snapshot.best))
    return train.Snapshot(*copies, snapshot.progress)


def two_convs():
    return serial(Conv(3, 3, padding="SAME"), relu, Conv(4, 3, padding="SAME"), relu6, flatten, Dense(3))


def test_evaluator_dead_names_inactive_rectifier_only(rng):
    model, (images, labels) = two_convs(), toy(21)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    evaluator = Evaluator(model, 8)
    batches = list(evaluator.batches(images, labels))
    assert evaluator(params, state, batches, alive=True).dead() == [] and evaluator.dead_check.num_compilations == 0
    result = evaluator(with_bias(params, -1e3), state, batches, alive=True)
    assert result.dead() == ["relu61"] and list(result.alive) == ["relu1", "relu61"]
    assert (evaluator.program.num_compilations, evaluator.dead_check.num_compilations) == (1, 1)
    assert evaluator(with_bias(params, -1e3), state, batches).alive == {}  # without alive=True


def test_rectifier_active_in_one_corner_pixel_is_not_dead():
    """The default check sees only the middle row, in which the layer looks dead."""
    model = serial(lambda x: x - 0.5, relu, flatten, Dense(3))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    images, labels = np.zeros((21, 4, 4, 1), np.uint8), np.zeros(21, np.int32)
    evaluator = Evaluator(model, 8)
    assert evaluator(params, state, list(evaluator.batches(images, labels)), alive=True).dead() == ["relu1"]
    images[20, 3, 0] = 255
    assert evaluator(params, state, list(evaluator.batches(images, labels)), alive=True).dead() == []


def test_evaluator_dead_is_per_network():
    model, (images, labels) = two_convs(), toy(9)
    networks = [model.init(jax.random.key(seed), (4, 4, 1)) for seed in range(2)]
    networks[1] = with_bias(networks[1][0], -1e3), networks[1][1]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *networks)
    evaluator = Evaluator(model, 8, num_members=2)
    result = evaluator(*stacked, list(evaluator.batches(images, labels)), alive=True)
    assert (result.dead(0), result.dead(1), result.dead()) == ([], ["relu61"], ["relu61"])


def test_evaluator_params_of_other_model_raise():
    model, (images, labels) = two_convs(), toy(9)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    evaluator = Evaluator(model, 8)
    with pytest.raises(InputError, match="params or state has unexpected keys conv9; the layers"):
        evaluator(params | {"conv9": params["conv1"]}, state, evaluator.batches(images, labels))


def custom_combinator(child):
    """Return a custom combinator, whose result cannot be computed from its children alone."""

    def apply(params, state, x, *, train=False, key=None, mask=None):
        y, state = child.apply(params, state, x, train=train, key=key, mask=mask)
        return 2 * y, state

    return Layer("mine", child.init, apply, child.children)


@pytest.mark.parametrize("around", [lambda layer: layer, lambda layer: serial(layer)])
def test_evaluator_applies_custom_combinator_unchanged(around):
    model, (images, labels) = around(custom_combinator(two_convs())), toy(9)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    evaluator = Evaluator(model, 8)
    result = evaluator(params, state, list(evaluator.batches(images, labels)), logits=True, alive=True)
    x = images.astype(np.float32) / 255
    expected = model.apply(params, state, x)[0]
    np.testing.assert_allclose(result.logits, expected, rtol=1e-5, atol=1e-5)
    assert result.alive == {}


def test_evaluator_of_caches_model_with_unhashable_window():
    model = serial(Conv(2, 3, padding=[[1, 1], [0, 1]]), relu, residual(Conv(2, 1)), MaxPool(2), flatten, Dense(3))
    cached = lambda model: evaluator_of(model, 8, (4, 4, 1), "uint8", None, None)  # noqa: E731
    assert cached(model) is cached(model._replace(name="other")) is not cached(net())


@pytest.fixture(scope="module")
def digits():
    dataset = data.load("digits")
    return (dataset.train.images, dataset.train.labels), (dataset.validation.images, dataset.validation.labels)


def lenet_like():
    return serial(Conv(8, 3), relu, MaxPool(2), Conv(16, 3), relu, flatten, Dense(32), relu, Dense(10))


def trained(digits, rate, **options):
    return train.fit(lenet_like(), *digits, optimizer=optax.adam(rate), batch_size=64, **options)


def test_fit_with_100x_learning_rate_warns_of_dead_layers(digits):
    """Lecture row 003-24: training completes with finite losses, and some layers are dead."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = trained(digits, 0.3, epochs=3)
    assert all(np.isfinite(record["val_loss"]) for record in fitted.history)
    dead = [record.get("dead_layers", []) for record in fitted.history]
    first = {name: 1 + min(i for i, names in enumerate(dead) if name in names) for names in dead for name in names}
    assert first
    assert {w.category for w in caught} == {DeadLayerWarning} and len(caught) == len(first)
    for name, epoch in first.items():
        [warning] = [w for w in caught if f"fit: epoch {epoch}: {name} is dead: its output is 0 for" in str(w.message)]
        assert "lower learning rate" in str(warning.message) and warning.filename == __file__
    params, state = fitted.final_state.eval_variables
    maps = explain.feature_maps(lenet_like(), params, state, digits[1][0])
    assert [name for name in maps if name.startswith("relu") and not np.any(maps[name])] == dead[-1]


def test_fit_with_high_learning_rate_has_dead_filters(digits):
    """Lecture row 003-24: the network learns and no layer is dead, but many filters are."""
    dead = {}
    for rate in (0.003, 0.1):
        fitted = trained(digits, rate, epochs=5, seed=1)
        assert all("dead" not in record for record in fitted.history) and fitted.history[-1]["val_accuracy"] > 0.4
        dead[rate] = explain.dead_filters(lenet_like(), fitted.params, fitted.state, digits[0][0])
    assert len(dead[0.1]) > 2 * len(dead[0.003])


def test_resumed_fit_does_not_repeat_dead_layer_warning():
    model, saved = two_convs(), []
    fit = lambda **options: train.fit(  # noqa: E731
        model, toy(), toy(), optimizer=optax.sgd(1e-6), batch_size=16, epochs=3, **options
    )
    fit(on_epoch_end=lambda record, snapshot, best: saved.append(copy_snapshot(snapshot)))
    train_state, best, progress = saved[0]
    dying = train.Snapshot(train_state._replace(params=with_bias(train_state.params, -1e3)), best, progress)
    with pytest.warns(DeadLayerWarning, match="fit: epoch 2: relu61 is dead") as caught:
        resumed = fit(resume_from=dying)
    assert len(caught) == 1 and [record.get("dead_layers") for record in resumed.history] == [
        None,
        ["relu61"],
        ["relu61"],
    ]
    with_dead_history = dying._replace(
        progress=progress._replace(history=({**progress.history[0], "dead_layers": ["relu61"]},))
    )
    assert fit(resume_from=with_dead_history).history[-1]["dead_layers"] == [
        "relu61"
    ]  # a warning would raise in this suite


def test_fit_seeds_records_dead_layers_per_seed():
    model, saved = two_convs(), []
    fit = lambda **options: train.fit_seeds(  # noqa: E731
        model, toy(), toy(), optimizer=optax.sgd(1e-6), batch_size=16, epochs=2, seeds=[0, 1], **options
    )
    fit(on_epoch_end=lambda record, snapshot, best: saved.append(copy_snapshot(snapshot)))
    params = saved[0].train_state.params
    params_with_dead_layer = params | {"conv2": params["conv2"] | {"bias": params["conv2"]["bias"].at[1].set(-1e3)}}
    with pytest.warns(DeadLayerWarning, match="relu61 is dead"):
        last = fit(
            resume_from=saved[0]._replace(train_state=saved[0].train_state._replace(params=params_with_dead_layer))
        ).history[-1]
    assert last["dead_layers"] == ["relu61"] and [record.get("dead_layers") for record in last["per_seed"]] == [
        None,
        ["relu61"],
    ]
