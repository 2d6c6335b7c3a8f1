"""Tasks other than classification: against NumPy, in fit, evaluate, predict, streams and checkpoints."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Conv, Dense, InputError, flatten, serial, train
from jaxconv.train import EarlyStopping, MultiLabel, Reconstruction, Regression, Segmentation
from toy_training import toy

pytestmark = pytest.mark.usefixtures("promoting")

HEAD, PIXELS = serial(flatten, Dense(2)), serial(Conv(3, 1))
IMAGES, CLASSES = toy(22)
LABELS = np.stack([IMAGES.mean((1, 2, 3)) / 100, CLASSES - 1.0], axis=1)
BITS = np.stack([CLASSES == 0, CLASSES < 2], axis=1)
MAPS = (IMAGES[..., 0] // 86).astype(np.uint8)  # (22, 4, 4), of 3 classes by brightness
MAPS[:5, 0] = 255  # ignored
SEGMENTATION = Segmentation(ignore_index=255)
OPTIONS = {"epochs": 2, "batch_size": 8, "seed": 4}


def fit(model, labels, task, **options):
    options = OPTIONS | {"optimizer": optax.sgd(0.1)} | options
    return train.fit(model, (IMAGES, labels), (IMAGES, labels), task=task, **options)


def outputs(model, fitted):
    return np.asarray(model.apply(fitted.params, fitted.state, jnp.asarray(IMAGES, jnp.float32) / 255)[0], np.float64)


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def by_numpy(task, z):
    """Return loss, metric and predictions in float64, from the outputs."""
    if isinstance(task, MultiLabel):
        loss = np.log1p(np.exp(-np.where(BITS, z, -z))).mean(1)
        return {"loss": loss.mean(), "accuracy": ((z > 0) == BITS).mean()}, 1 / (1 + np.exp(-z))
    if isinstance(task, Regression):
        error = np.abs(z - LABELS)
        loss = error**2 if task.error == "squared" else error
        return {"loss": loss.mean(), "mae": error.mean()}, z
    if isinstance(task, Segmentation):
        valid = MAPS != 255
        pixel_losses = -np.take_along_axis(log_softmax(z), np.where(valid, MAPS, 0)[..., None].astype(int), -1)[..., 0]
        loss = [losses[mask].mean() for losses, mask in zip(pixel_losses, valid, strict=True)]
        correct = z.argmax(-1)[valid] == MAPS[valid]
        return {"loss": np.mean(loss), "accuracy": correct.mean()}, np.exp(log_softmax(z))
    x, p = IMAGES / 255, 1 / (1 + np.exp(-z))
    loss = (p - x) ** 2 if task.error == "squared" else -(x * np.log(p) + (1 - x) * np.log(1 - p))
    return {"loss": loss.mean(), "mae": np.abs(p - x).mean()}, p


CASES = {
    "multilabel": (HEAD, BITS, MultiLabel()),
    "regression": (HEAD, LABELS, Regression()),
    "absolute error": (HEAD, LABELS, Regression("absolute")),
    "segmentation": (PIXELS, MAPS, SEGMENTATION),
    "reconstruction": (serial(Conv(1, 1)), CLASSES, Reconstruction()),
    "squared error": (serial(Conv(1, 1)), CLASSES, Reconstruction("squared")),
}


@pytest.mark.parametrize("case", CASES)
def test_task_metrics_and_predictions_match_numpy(case):
    """22 examples in batches of 8: the padding of the last batch is masked."""
    model, labels, task = CASES[case]
    fitted = fit(model, labels, task, epochs=1)
    expected, expected_predictions = by_numpy(task, outputs(model, fitted))
    actual = train.evaluate(model, fitted.params, fitted.state, IMAGES, labels, batch_size=8, task=task)
    assert actual.pop("count") == 22
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-4)
        np.testing.assert_allclose(fitted.history[0][f"val_{name}"], value, rtol=1e-4)
        assert np.isfinite(fitted.history[0][name])
    actual_predictions = train.predict(model, fitted.params, fitted.state, IMAGES, batch_size=8, task=task)
    np.testing.assert_allclose(actual_predictions, expected_predictions, rtol=1e-4, atol=1e-5)


def test_regression_matches_numpy_gradient_descent():
    fitted = fit(HEAD, LABELS, Regression())
    params, _ = HEAD.init(jax.random.fold_in(jax.random.key(4), 0), (4, 4, 1))
    weights, bias = (np.asarray(params["dense1"][name], np.float64) for name in ("kernel", "bias"))
    x = IMAGES.reshape(22, 16) / 255
    for epoch in (1, 2):
        order, errors = train.epoch_permutation(4, epoch, 22), []
        for start in (0, 8, 16):
            rows = order[start : start + 8]
            error = x[rows] @ weights + bias - LABELS[rows]
            errors += list(error)
            weights, bias = weights - 0.1 * x[rows].T @ error / len(rows), bias - 0.1 * error.mean(0)
        record = fitted.history[epoch - 1]
        np.testing.assert_allclose(record["loss"], np.mean(np.square(errors)), rtol=1e-4)
        np.testing.assert_allclose(record["mae"], np.abs(errors).mean(), rtol=1e-4)
    np.testing.assert_allclose(fitted.final_state.params["dense1"]["kernel"], weights, rtol=1e-4, atol=1e-5)
    assert fitted.best_epoch == 1 + np.argmin([record["val_loss"] for record in fitted.history])


@dataclasses.dataclass(frozen=True)
class Iou(Segmentation):
    """Custom task whose sums have one number per class."""

    monitor: str = "val_mean_iou"

    def metrics(self, output, target, mask):
        predicted, true = (
            jax.nn.one_hot(classes, 3) * mask[:, None, None, None] for classes in (output.argmax(-1), target)
        )
        intersection = (predicted * true).sum((0, 1, 2))
        return {"intersection": intersection, "union": predicted.sum((0, 1, 2)) + true.sum((0, 1, 2)) - intersection}

    def compute(self, total):
        return {"mean_iou": np.mean(total.sums["intersection"] / np.maximum(total.sums["union"], 1))}


def iou_by_numpy(z):
    maps = (IMAGES[..., 0] // 86).astype(int)
    predicted = z.argmax(-1)
    per_class = [
        ((predicted == k) & (maps == k)).sum() / max(((predicted == k) | (maps == k)).sum(), 1) for k in range(3)
    ]
    return np.mean(per_class)


@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 2, "ema_decay": 0.5}, {"jit": False}], ids=str)
def test_custom_task_with_array_sums(options):
    maps = IMAGES[..., 0] // 86
    fitted = fit(PIXELS, maps, Iou(), epochs=4, optimizer=optax.adam(0.1), **options)
    scores = [record["val_mean_iou"] for record in fitted.history]
    assert max(scores) == scores[fitted.best_epoch - 1]
    np.testing.assert_allclose(scores[fitted.best_epoch - 1], iou_by_numpy(outputs(PIXELS, fitted)), rtol=1e-5)


def test_fit_seeds_computes_task_metrics_per_seed():
    maps = IMAGES[..., 0] // 86
    options = {name: value for name, value in OPTIONS.items() if name != "seed"} | {"optimizer": optax.adam(0.1)}
    data = IMAGES, maps
    ensemble = train.fit_seeds(PIXELS, data, data, seeds=[0, 1], task=Iou(), progress_bar=True, **options)
    for member in ensemble.members:
        best = member.history[member.best_epoch - 1]["val_mean_iou"]
        np.testing.assert_allclose(best, iou_by_numpy(outputs(PIXELS, member)), rtol=1e-5)
    last_record = ensemble.history[-1]
    np.testing.assert_allclose(
        last_record["val_mean_iou"], np.mean([record["val_mean_iou"] for record in last_record["per_seed"]])
    )


def test_stream_accepts_labels_of_any_rank():
    class Source:
        labels, image_shape = MAPS, (4, 4, 1)

        def __len__(self):
            return 22

        def __getitem__(self, index):
            return IMAGES[index], MAPS[index]

    streamed = train.fit(PIXELS, Source(), (IMAGES, MAPS), task=SEGMENTATION, optimizer=optax.sgd(0.1), **OPTIONS)
    in_memory = fit(PIXELS, MAPS, SEGMENTATION)
    assert_close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(assert_close, streamed.final_state.params, in_memory.final_state.params)


def test_regression_resumed_within_epoch_equals_unbroken_run(monkeypatch, tmp_path):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 8 * 16)  # one step per execution
    unbroken, init = fit(HEAD, LABELS, Regression()), jax.random.key(0)

    class Stop(Exception):
        pass

    def save(snapshot):
        train.save_checkpoint(tmp_path, snapshot)
        if (snapshot.progress.epoch, snapshot.progress.execution) == (1, 2):
            raise Stop

    with pytest.raises(Stop):
        fit(HEAD, LABELS, Regression(), on_checkpoint=save, checkpoint_seconds=0)
    target = jax.eval_shape(lambda: train.create_train_state(HEAD, optax.sgd(0.1), init, (4, 4, 1)))
    snapshot = train.restore_snapshot(tmp_path, (target, target.eval_variables))
    assert [sorted(execution) for execution in snapshot.progress.metric_sums] == [["count", "loss", "mae"]] * 2
    resumed = fit(HEAD, LABELS, Regression(), resume_from=snapshot)
    jax.tree.map(np.testing.assert_array_equal, resumed.final_state, unbroken.final_state)
    names = "loss", "mae", "val_loss", "val_mae"
    assert [[r[n] for n in names] for r in resumed.history] == [[r[n] for n in names] for r in unbroken.history]


@pytest.mark.parametrize(
    ("monitor", "mode", "higher"),
    [("val_mean_iou", "auto", True), ("val_mae", "auto", False), ("val_rms_error", "auto", False),
     ("val_loss", "auto", False), ("val_score", "min", False), ("val_perplexity", "max", True)],
)  # fmt: skip
def test_early_stopping_mode_depends_on_monitor(monitor, mode, higher):
    rule, state, improvements = EarlyStopping(None, monitor, mode=mode), train.EarlyStoppingState(), []
    for epoch, value in enumerate((0.5, 0.7, 0.3), start=1):
        state, is_best = rule.update(state, {"epoch": epoch, monitor: value, "val_loss": value})
        improvements.append(is_best)
    assert improvements == ([True, True, False] if higher else [True, False, True])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(HEAD, CLASSES, Regression()), r"fit: labels \(22,\) must have the shape of the model's output"),
        (lambda: fit(HEAD, LABELS, MultiLabel()), r"fit: labels must be 0 or 1"),
        (lambda: fit(HEAD, LABELS / 0, Regression()), r"fit: labels must be finite"),
        (lambda: fit(PIXELS, CLASSES, Segmentation()), r"fit: labels int32\(22,\) must be integers \(22, 4, 4\)"),
        (lambda: fit(PIXELS, MAPS, Segmentation()), r"fit: labels go from 0 to 255, but the model has 3 outputs"),
        (lambda: fit(HEAD, CLASSES, Reconstruction()), r"must have the image shape \(4, 4, 1\), got \(2,\)"),
        (lambda: fit(HEAD, LABELS, Regression(), label_smoothing=0.1), r"label_smoothing is for Classification,"),
        (lambda: fit(PIXELS, MAPS, SEGMENTATION, mixup_fn=lambda key, *pair: pair), r"pixels cannot be mixed"),
        (lambda: fit(HEAD, LABELS[:9], Regression()), r"fit: labels float64\(9, 2\) should be 22 arrays, one per"),
        (lambda: Regression("cubed"), r"Regression: unknown error 'cubed'.* squared, absolute"),
        (lambda: EarlyStopping(1, mode="maximum"), r"early stopping: unknown mode 'maximum'"),
        (
            lambda: train.evaluate(HEAD, *HEAD.init(jax.random.key(0), (4, 4, 1)), IMAGES, CLASSES, task=Regression()),
            r"evaluate: labels \(22,\) must have the shape",
        ),
    ],
)  # fmt: skip
def test_tasks_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message), np.errstate(divide="ignore", invalid="ignore"):
        call()
