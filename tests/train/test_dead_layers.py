"""A layer that dies while it is trained is told, once, and costs nothing where none does."""

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


def planted(params, bias, layer="conv2"):
    return params | {layer: params[layer] | {"bias": jnp.full_like(params[layer]["bias"], bias)}}


def kept(snapshot):
    """A copy: the next step uses its memory."""
    copied = jax.tree.map(jnp.copy, (snapshot.train_state, snapshot.best))
    return train.Snapshot(*copied, snapshot.progress)


def two_convs():
    return serial(Conv(3, 3, padding="SAME"), relu, Conv(4, 3, padding="SAME"), relu6, flatten, Dense(3))


def test_a_rectifier_that_answers_nowhere_is_dead_and_no_other(rng):
    model, (images, labels) = two_convs(), toy(21)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    evaluator = Evaluator(model, 8)
    held = list(evaluator.batches(images, labels))
    assert evaluator(params, state, held, alive=True).dead() == [] and evaluator.dead_check.num_compilations == 0
    scores = evaluator(planted(params, -1e3), state, held, alive=True)
    assert scores.dead() == ["relu61"] and list(scores.alive) == ["relu1", "relu61"]
    assert (evaluator.program.num_compilations, evaluator.dead_check.num_compilations) == (1, 1)
    assert evaluator(planted(params, -1e3), state, held).alive == {}  # nobody asked


def test_one_pixel_of_one_image_in_a_corner_is_life():
    """The middle row alone, which is all that is looked at first, would say that it is dead."""
    model = serial(lambda x: x - 0.5, relu, flatten, Dense(3))
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    images, labels = np.zeros((21, 4, 4, 1), np.uint8), np.zeros(21, np.int32)
    evaluator = Evaluator(model, 8)
    assert evaluator(params, state, list(evaluator.batches(images, labels)), alive=True).dead() == ["relu1"]
    images[20, 3, 0] = 255
    assert evaluator(params, state, list(evaluator.batches(images, labels)), alive=True).dead() == []


def test_of_several_networks_each_has_its_own_dead():
    model, (images, labels) = two_convs(), toy(9)
    networks = [model.init(jax.random.key(seed), (4, 4, 1)) for seed in range(2)]
    networks[1] = planted(networks[1][0], -1e3), networks[1][1]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *networks)
    evaluator = Evaluator(model, 8, num_members=2)
    scores = evaluator(*together, list(evaluator.batches(images, labels)), alive=True)
    assert (scores.dead(0), scores.dead(1), scores.dead()) == ([], ["relu61"], ["relu61"])


def test_what_belongs_to_another_model_is_refused_as_applying_it_does():
    model, (images, labels) = two_convs(), toy(9)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    evaluator = Evaluator(model, 8)
    with pytest.raises(InputError, match="params or state has conv9, which this model has not"):
        evaluator(params | {"conv9": params["conv1"]}, state, evaluator.batches(images, labels))


def custom(parts):
    """A user's layer that does more than its parts, which going through these would not find out."""

    def apply(params, state, x, *, train=False, key=None, mask=None):
        y, state = parts.apply(params, state, x, train=train, key=key, mask=mask)
        return 2 * y, state

    return Layer("mine", parts.init, apply, parts.children)


@pytest.mark.parametrize("around", [lambda layer: layer, lambda layer: serial(layer)])
def test_a_layer_that_is_no_sum_of_its_parts_is_scored_as_it_is(around):
    model, (images, labels) = around(custom(two_convs())), toy(9)
    params, state = model.init(jax.random.key(0), (4, 4, 1))
    evaluator = Evaluator(model, 8)
    scores = evaluator(params, state, list(evaluator.batches(images, labels)), logits=True, alive=True)
    x = images.astype(np.float32) / 255
    want = model.apply(params, state, x)[0]
    np.testing.assert_allclose(scores.logits, want, rtol=1e-5, atol=1e-5)
    assert scores.alive == {}


def test_the_same_model_has_the_same_evaluator_even_if_its_window_has_no_hash():
    model = serial(Conv(2, 3, padding=[[1, 1], [0, 1]]), relu, residual(Conv(2, 1)), MaxPool(2), flatten, Dense(3))
    asked = lambda model: evaluator_of(model, 8, (4, 4, 1), "uint8", None, None)  # noqa: E731
    assert asked(model) is asked(model._replace(name="other")) is not asked(net())


@pytest.fixture(scope="module")
def digits():
    found = data.load("digits")
    return (found.train.images, found.train.labels), (found.validation.images, found.validation.labels)


def lenet_like():
    return serial(Conv(8, 3), relu, MaxPool(2), Conv(16, 3), relu, flatten, Dense(32), relu, Dense(10))


def trained(digits, rate, **options):
    return train.fit(lenet_like(), *digits, optimizer=optax.adam(rate), batch_size=64, **options)


def test_a_learning_rate_a_hundred_times_too_high_kills_layers_and_is_told(digits):
    """Lecture row 003-24: it ends, without an infinite number, and has learned nothing."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fitted = trained(digits, 0.3, epochs=3)
    assert all(np.isfinite(record["val_loss"]) for record in fitted.history)
    dead = [record.get("dead_layers", []) for record in fitted.history]
    first = {name: 1 + min(i for i, names in enumerate(dead) if name in names) for names in dead for name in names}
    assert first
    assert {w.category for w in told} == {DeadLayerWarning} and len(told) == len(first)
    for name, epoch in first.items():
        [one] = [w for w in told if f"fit: epoch {epoch}: {name} is dead: its output is 0 for" in str(w.message)]
        assert "lower learning rate" in str(one.message) and one.filename == __file__
    params, state = fitted.final_state.eval_variables
    maps = explain.feature_maps(lenet_like(), params, state, digits[1][0])
    assert [name for name in maps if name.startswith("relu") and not np.any(maps[name])] == dead[-1]


def test_a_learning_rate_that_is_less_too_high_kills_filters(digits):
    """Lecture row 003-24: no layer is dead and something is learned, by less of a network than was made."""
    dead = {}
    for rate in (0.003, 0.1):
        fitted = trained(digits, rate, epochs=5, seed=1)
        assert all("dead" not in record for record in fitted.history) and fitted.history[-1]["val_accuracy"] > 0.4
        dead[rate] = explain.dead_filters(lenet_like(), fitted.params, fitted.state, digits[0][0])
    assert len(dead[0.1]) > 2 * len(dead[0.003])


def test_a_run_that_goes_on_does_not_tell_again():
    model, saved = two_convs(), []
    fit = lambda **options: train.fit(  # noqa: E731
        model, toy(), toy(), optimizer=optax.sgd(1e-6), batch_size=16, epochs=3, **options
    )
    fit(on_epoch_end=lambda record, snapshot, best: saved.append(kept(snapshot)))
    ts, best, position = saved[0]
    dying = train.Snapshot(ts._replace(params=planted(ts.params, -1e3)), best, position)
    with pytest.warns(DeadLayerWarning, match="fit: epoch 2: relu61 is dead") as told:
        first = fit(resume_from=dying)
    assert len(told) == 1 and [record.get("dead_layers") for record in first.history] == [None, ["relu61"], ["relu61"]]
    again = dying._replace(progress=position._replace(history=({**position.history[0], "dead_layers": ["relu61"]},)))
    assert fit(resume_from=again).history[-1]["dead_layers"] == ["relu61"]  # a warning would be an error


def test_of_several_seeds_the_record_says_whose_layer_is_dead():
    model, saved = two_convs(), []
    fit = lambda **options: train.fit_seeds(  # noqa: E731
        model, toy(), toy(), optimizer=optax.sgd(1e-6), batch_size=16, epochs=2, seeds=[0, 1], **options
    )
    fit(on_epoch_end=lambda record, snapshot, best: saved.append(kept(snapshot)))
    params = saved[0].train_state.params
    one = params | {"conv2": params["conv2"] | {"bias": params["conv2"]["bias"].at[1].set(-1e3)}}
    with pytest.warns(DeadLayerWarning, match="relu61 is dead"):
        last = fit(resume_from=saved[0]._replace(train_state=saved[0].train_state._replace(params=one))).history[-1]
    assert last["dead_layers"] == ["relu61"] and [each.get("dead_layers") for each in last["per_seed"]] == [
        None,
        ["relu61"],
    ]
