"""Optimizers and schedules: against the formulas of the papers in NumPy, Keras's RMSprop, and theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, LayerNorm, flatten, serial, train
from jaxconv.train.optimizers import DECOUPLED, OPTIMIZERS, SCHEDULES, kernel_mask, make_optimizer, make_schedule

pytestmark = pytest.mark.usefixtures("promoting")

SHAPES = {"conv1": {"kernel": (2, 3, 1, 4), "bias": (4,)}, "bn1": {"scale": (4,)}, "dense1": {"kernel": (5, 3)}}


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: rng.normal(size=shape), SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def run(optimizer, params, gradients):
    params = jax.tree.map(jnp.asarray, params)
    opt_state, update = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    for g in gradients:
        updates, opt_state = update(g, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


def newton_schulz(g):
    """Return the Newton-Schulz iteration (Jordan, 2024), which brings all singular values close to 1."""
    x = g / np.linalg.norm(g)
    x = x.T if g.shape[0] > g.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


def by_formula(name, w, gradients, lr, weight_decay):
    """Update one parameter by the formula of each method's paper; pass weight_decay=0 if it does not decay."""
    is_kernel = w.ndim > 1
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        g = g if name in ("adamw", "lion", "muon") else g + weight_decay * w
        if name == "sgd":
            step = g
        elif name in ("momentum", "nesterov"):
            m = 0.9 * m + g
            step = m if name == "momentum" else 0.9 * m + g
        elif name in ("adam", "adamw"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            step = g / np.sqrt(v + 1e-7)  # Keras: ε inside the square root
        elif name == "lion":
            step, m = np.sign(0.9 * m + 0.1 * g), 0.99 * m + 0.01 * g
        elif is_kernel:  # muon: Nesterov momentum, orthogonalized
            m = 0.95 * m + 0.05 * g
            nesterov = 0.95 * m / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
            matrix = nesterov.reshape(-1, w.shape[-1])  # one column per filter
            step = (0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)).reshape(w.shape)
        else:  # biases of muon: Adam with Nesterov momentum (Dozat, 2016)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            nesterov = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
            step = nesterov / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w = w - lr * (step + (weight_decay * w if name in ("adamw", "lion", "muon") else 0))
    return w


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_matches_formula_and_decays_kernels_only(x64, name, weight_decay):
    params, gradients = random_tree(0), [random_tree(seed) for seed in (1, 2, 3)]
    actual = run(make_optimizer(name, 0.1, weight_decay=weight_decay), params, gradients)
    for path, w in jax.tree_util.tree_leaves_with_path(params):
        get_leaf = lambda tree, path=path: tree[path[0].key][path[1].key]  # noqa: E731
        leaf_decay = weight_decay if path[-1].key == "kernel" else 0
        expected = by_formula(name, w, [get_leaf(g) for g in gradients], 0.1, leaf_decay)
        np.testing.assert_allclose(get_leaf(actual), expected, rtol=1e-6, err_msg=f"{name} {path}")


def test_formulas_differ_between_optimizers_and_decays():
    """The expected values distinguish the methods: only adam and adamw without decay are equal."""
    w, gradients = random_tree(0)["dense1"]["kernel"], [random_tree(seed)["dense1"]["kernel"] for seed in (1, 2, 3)]
    results = {
        (name, weight_decay): by_formula(name, w, gradients, 0.1, weight_decay)
        for name in OPTIMIZERS
        for weight_decay in (0, 0.3)
    }
    equal_pairs = [(a, b) for a in results for b in results if a < b and np.allclose(results[a], results[b])]
    assert equal_pairs == [(("adam", 0), ("adamw", 0))]
    assert set(DECOUPLED) < set(OPTIMIZERS)


@pytest.mark.frameworks
def test_rmsprop_matches_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 2)), rng.normal(size=(20, 3, 2)) * 10.0 ** rng.integers(-5, 2, (20, 3, 2))
    keras_optimizer, variable = keras.optimizers.RMSprop(1e-2), keras.Variable(start)
    for g in gradients:
        keras_optimizer.apply([keras.ops.convert_to_tensor(g.astype(np.float32))], [variable])
    actual = run(make_optimizer("rmsprop", 1e-2), start.astype(np.float32), gradients.astype(np.float32))
    np.testing.assert_allclose(actual, np.asarray(variable), rtol=1e-5, atol=1e-6)


def test_muon_step_has_singular_values_near_one():
    """Five iterations bring every singular value to between 0.7 and 1.2; the step is scaled by 0.2 · √24."""
    gradient = {"kernel": np.random.default_rng(0).normal(size=(2, 3, 4, 7)).astype(np.float32)}
    updated = run(make_optimizer("muon", 1.0), jax.tree.map(np.zeros_like, gradient), [gradient])["kernel"]
    values = np.linalg.svd(np.asarray(updated).reshape(24, 7), compute_uv=False) / (0.2 * np.sqrt(24))
    assert 0.65 < values.min() and values.max() < 1.25


def test_kernel_mask_selects_kernels_of_every_layer_only():
    model = serial(Conv(4, 3), BatchNorm(), LayerNorm(), flatten, Dense(3))
    params = jax.eval_shape(lambda key: model.init(key, (6, 7, 2)), jax.random.key(0))[0]
    leaves = jax.tree_util.tree_leaves_with_path(kernel_mask(params))
    mask = {jax.tree_util.keystr(path, simple=True, separator="/"): is_kernel for path, is_kernel in leaves}
    assert mask == {path: path.endswith("kernel") for path in mask} and sum(mask.values()) == 2
    stacked = {"bias": np.ones((5, 4)), "scale": np.ones((5, 4)), "kernel": np.ones((5, 4))}  # five stacked networks
    assert kernel_mask(stacked) == {"bias": False, "scale": False, "kernel": True}
    assert kernel_mask(np.ones((2, 2))) is True and kernel_mask(np.ones(2)) is False


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_in_jit_scan_vmap_matches_loop(name):
    """The optimizer state is a tree of arrays, as transformations and checkpoints require."""
    optimizer = make_optimizer(name, 0.05, "cosine", 6, warmup_steps=2, weight_decay=0.1, max_grad_norm=1.0)
    float32 = lambda tree: jax.tree.map(lambda leaf: leaf.astype(np.float32), tree)  # noqa: E731
    networks = [float32(random_tree(seed)) for seed in (0, 10)]
    gradients = [[float32(random_tree(seed + offset)) for seed in (1, 2, 3, 4)] for offset in (0, 10)]
    expected = [run(optimizer, *inputs) for inputs in zip(networks, gradients)]

    def run_scan(params, gradients):
        def step(carry, g):
            params, opt_state = carry
            updates, opt_state = optimizer.update(g, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0]

    stack = lambda *trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # noqa: E731
    actual, opt_state = jax.jit(jax.vmap(run_scan))(stack(*networks), stack(*(stack(*g) for g in gradients)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(opt_state))
    tree = jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), actual, stack(*expected))
    assert jax.tree.leaves(tree) == []


def test_clipping_limits_global_norm_and_keeps_direction():
    for norm in (0.5, 2.0, 1e3):
        optimizer = make_optimizer("sgd", 1.0, max_grad_norm=norm)
        gradient = random_tree(3)
        zeros = jax.tree.map(np.zeros_like, gradient)
        step = -np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run(optimizer, zeros, [gradient]))])
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
        length = np.linalg.norm(flat)  # global norm
        assert 2 < length < 1e3
        np.testing.assert_allclose(np.linalg.norm(step), min(norm, length), rtol=1e-5)
        np.testing.assert_allclose(step / np.linalg.norm(step), flat / length, rtol=1e-4, atol=1e-6)


def test_gradient_is_clipped_before_weight_decay():
    params, gradient = {"kernel": np.full((1, 2), 3.0)}, {"kernel": np.array([[30.0, 40.0]])}
    updated = run(make_optimizer("sgd", 1.0, weight_decay=0.5, max_grad_norm=5.0), params, [gradient])["kernel"]
    np.testing.assert_allclose(updated, [[3 - (3 + 1.5), 3 - (4 + 1.5)]], rtol=1e-6)


def rates(name, peak, steps, **options):
    schedule = jax.jit(jax.vmap(make_schedule(name, peak, steps, **options)))
    return np.asarray(schedule(np.arange(steps + 1)), np.float64)


def test_schedules_match_formulas():
    steps = np.arange(101)
    np.testing.assert_allclose(rates("constant", 0.1, 100), 0.1)
    np.testing.assert_allclose(rates("cosine", 0.1, 100), 0.05 * (1 + np.cos(np.pi * steps / 100)), atol=1e-7)
    step_rates = np.where(steps < 50, 0.1, np.where(steps < 75, 0.01, 0.001))
    np.testing.assert_allclose(rates("step", 0.1, 100), step_rates, rtol=1e-6)
    one_cycle_rates = rates("one_cycle", 0.1, 100)
    np.testing.assert_allclose(one_cycle_rates[[0, 15, 30, 65, 100]], [0.004, 0.052, 0.1, 0.05, 0], atol=1e-4)
    assert (np.diff(one_cycle_rates[:31]) > 0).all() and (np.diff(one_cycle_rates[30:]) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_few_steps_are_positive(name, steps):
    actual = rates(name, 0.1, steps)[:steps]
    assert np.isfinite(actual).all() and (actual > 0).all() and actual.max() <= 0.1 * (1 + 1e-6)
    if name == "step":
        expected = [0.1 if 2 * t < steps else 0.01 if 4 * t < 3 * steps else 0.001 for t in range(steps)]
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_is_linear_up_to_start_of_schedule(name):
    without_warmup, with_warmup = rates(name, 0.1, 20), rates(name, 0.1, 25, warmup_steps=5)
    np.testing.assert_allclose(with_warmup[:6], without_warmup[0] * np.arange(6) / 5, rtol=1e-6)
    np.testing.assert_allclose(with_warmup[5:], without_warmup, rtol=1e-6)


def test_optimizer_uses_rates_of_schedule():
    gradient = np.ones(1, np.float32)
    weights = [
        run(make_optimizer("sgd", 0.1, "step", 8, warmup_steps=4), gradient, [gradient] * n)[0] for n in range(9)
    ]
    np.testing.assert_allclose(-np.diff(weights), [0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.01, 0.001], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adm"}, r"unknown optimizer 'adm': did you mean 'adam'\?"),
        ({"name": ["adam"]}, r"unknown optimizer \['adam'\]"),
        ({"schedule": "cosin"}, r"unknown schedule 'cosin': did you mean 'cosine'\?"),
        ({"learning_rate": 0}, r"learning_rate=0 should be a positive number, such as 0\.001"),
        ({"learning_rate": float("nan")}, r"learning_rate=nan should be a positive number"),
        ({"learning_rate": "0.1"}, r"learning_rate='0.1' should be a positive number"),
        ({"learning_rate": True}, r"learning_rate=True should be a positive number"),
        (
            {"total_steps": 2**31},
            r"2,147,483,648 steps overflow the int32 step counter; use fewer epochs or larger batches",
        ),
        ({"total_steps": 0}, r"schedule: total_steps=0 should be an int of at least 1"),
        ({"total_steps": 2.5}, r"schedule: total_steps=2\.5 should be an int of at least 1"),
        ({"total_steps": 5, "warmup_steps": -1}, r"schedule: warmup_steps=-1 should be an int of at least 0"),
        (
            {"total_steps": 5, "warmup_steps": 5},
            r"warmup_steps=5 must be less than the total of 5 steps; use fewer, or more epochs",
        ),
        ({"weight_decay": -1e-4}, r"weight_decay=-0\.0001 should be a number of at least 0, such as 0\.0005"),
        ({"weight_decay": float("inf")}, r"weight_decay=inf should be a number of at least 0"),
        ({"weight_decay": None}, r"weight_decay=None should be a number of at least 0"),
        ({"max_grad_norm": 0.0}, r"max_grad_norm=0\.0 should be a positive number, such as 1\.0, or None"),
        ({"max_grad_norm": float("nan")}, r"max_grad_norm=nan should be a positive number"),
        ({"max_grad_norm": "1"}, r"max_grad_norm='1' should be a positive number"),
    ],
)
def test_make_optimizer_invalid_options_raise(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        train.make_optimizer(**options)
