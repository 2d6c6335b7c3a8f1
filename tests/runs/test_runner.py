"""Training runs from end to end: training, the run folder, evaluation and prediction."""

import hashlib
import json
import time

import numpy as np
import optax
import pytest
from PIL import Image

from jaxconv import Conv, InputError, data, models, runs, serial, train
from jaxconv.runs import TrainConfig, load_run, predict_files, resume_training, run_training
from jaxconv.runs.run_folder import create_run_folder

pytestmark = pytest.mark.usefixtures("promoting")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run of eight epochs on the digits, shared by the tests of this module."""
    config = TrainConfig(epochs=8, runs_dir=tmp_path_factory.mktemp("runs"))
    return run_training(config, progress=False)


def test_run_reaches_96_percent_on_digits(run):
    _, result = run
    assert result["test_accuracy"] >= 0.96 and result["num_test_examples"] == 360


def test_run_folder_is_complete(run):
    folder, result = run
    assert folder.name.startswith("digits-small_cnn-")
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "training_curves.png",
        "misclassified.png",
        "confusion_matrix.png",
        "classification_report.json",
        "result.json",
    }
    assert json.loads((folder / "result.json").read_text()) == result
    assert set(result) >= {
        "dataset",
        "model",
        "seed",
        "test_accuracy",
        "test_loss",
        "val_accuracy",
        "epochs_run",
        "steps",
        "train_seconds",
        "compile_seconds",
        "time_to_first_step_seconds",
        "total_seconds",
        "images_per_second",
        "device",
        "versions",
        "command",
        "params_sha256",
        "num_compilations",
        "expected_calibration_error",
    }
    assert result["num_compilations"] == {"train": 1, "eval": 1}
    assert (result["epochs_run"], result["steps"]) == (8, 8 * 40)
    assert 0 < result["time_to_first_step_seconds"] < result["total_seconds"] - result["train_seconds"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    best = max(lines, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    assert best["epoch"] == result["best_epoch"] and best["val_accuracy"] == result["val_accuracy"]
    assert train.all_steps(folder / "checkpoints") == [280, 320]
    report = json.loads((folder / "classification_report.json").read_text())
    assert sum(map(sum, report["confusion_matrix"])) == 360 and report["accuracy"] == result["test_accuracy"]
    assert result["params_sha256"] == params_sha256(load_run(folder).params)


def params_sha256(params):
    """Return the SHA-256 of the bytes of all arrays, in the order of their paths."""
    arrays = {
        f"{layer}/{name}": np.asarray(array) for layer, arrays in params.items() for name, array in arrays.items()
    }
    return hashlib.sha256(b"".join(arrays[path].tobytes() for path in sorted(arrays))).hexdigest()


def test_figures_are_not_empty(run):
    folder, result = run
    for name in ("training_curves.png", "misclassified.png", "confusion_matrix.png"):
        pixels = np.asarray(Image.open(folder / name).convert("L"))
        assert min(pixels.shape) > 150 and pixels.std() > 10
    num_misclassified = round((1 - result["test_accuracy"]) * 360)
    loaded = load_run(folder)
    digits = data.load("digits").test
    from jaxconv import plot, train

    probabilities = train.predict(loaded.model, loaded.params, loaded.state, digits.images)
    figure = plot.misclassified(*digits, probabilities, loaded.config["class_names"])
    assert sum(bool(axes.images) for axes in figure.axes) == num_misclassified > 0


def test_evaluate_run_matches_result(run):
    folder, result = run
    scored = runs.evaluate_run(load_run(folder))
    assert scored["accuracy"] == result["test_accuracy"]
    np.testing.assert_allclose(scored["loss"], result["test_loss"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on 4 validation images")
def test_evaluate_run_does_not_read_training_images(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    config = TrainConfig(f"folder:{tmp_path / 'pictures'}", "mlp", epochs=1, batch_size=8, run_dir=tmp_path / "run")
    folder, _ = run_training(config, progress=False)
    read, to_memory = [], data.LazySplit.to_memory
    monkeypatch.setattr(data.LazySplit, "to_memory", lambda split, title: read.append(title) or to_memory(split, title))
    assert runs.evaluate_run(load_run(folder))["num_examples"] == 4
    assert [title.split()[-1] for title in read] == ["validation", "test"]


def test_predict_files_matches_predict(run, tmp_path):
    folder, _ = run
    loaded = load_run(folder)
    images = data.load("digits").test.images[:3]
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    Image.fromarray(images[0, :, :, 0]).save(paths[0])
    Image.fromarray(255 - images[1, :, :, 0]).convert("RGB").save(paths[1])
    Image.fromarray(images[2, :, :, 0]).resize((64, 64), Image.Resampling.NEAREST).save(paths[2])
    from jaxconv import train

    expected = train.predict(loaded.model, loaded.params, loaded.state, images)
    np.testing.assert_allclose(predict_files(loaded, paths[:1])[0], expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predict_files(loaded, paths[1:2], invert=True)[0], expected[1], rtol=1e-4, atol=1e-6)
    assert predict_files(loaded, paths[2:])[0].argmax() == expected[2].argmax()


def test_predict_files_image_modes_agree(run, tmp_path):
    """A digit has one prediction in 16 bits, as a palette, rotated with an EXIF tag, and on transparency."""
    loaded = load_run(run[0])
    digit = data.load("digits").test.images[0, :, :, 0]
    image = Image.fromarray(digit)
    image.save(tmp_path / "plain.png")
    Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / "16 bits.png")
    image.convert("P").save(tmp_path / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise to display
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "rotated.png", exif=exif)
    expected = predict_files(loaded, [tmp_path / "plain.png"])[0]
    for name in ("16 bits", "palette", "rotated"):
        actual = predict_files(loaded, [tmp_path / f"{name}.png"])[0]
        np.testing.assert_allclose(actual, expected, atol=1e-5, err_msg=name)

    Image.merge("LA", (Image.new("L", (8, 8), 0), image)).save(tmp_path / "alpha.png")  # black, with the digit as alpha
    np.testing.assert_allclose(predict_files(loaded, [tmp_path / "alpha.png"], invert=True)[0], expected, atol=2e-2)

    Image.new("LA", (8, 8), (255, 0)).save(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=r"nothing.png is blank: every pixel is 255"):
        predict_files(loaded, [tmp_path / "nothing.png"])
    Image.fromarray(digit.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(InputError, match=r"float.tiff has 32-bit pixels"):
        predict_files(loaded, [tmp_path / "float.tiff"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": []}, r"Expected `str`, got `array` - at `\$\.model`"),
        ({"dataset": None}, r"Expected `str`, got `null` - at `\$\.dataset`"),
        ({"input_shape": [0, 0, 1]}, r"Expected `int` >= 1 - at `\$\.input_shape"),
        ({"image_shape": "abc"}, r"Expected `array`, got `str` - at `\$\.image_shape`"),
        ({"class_names": 5}, r"Expected `array`, got `int` - at `\$\.class_names`"),
        ({"model": "lenet"}, r"unknown model 'lenet'"),
    ],
)
def test_load_run_edited_config_raises(run, tmp_path, change, message):
    config = json.loads((run[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_run(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]"])
def test_load_run_invalid_json_raises(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json is (not JSON|damaged)"):
        load_run(tmp_path)


def test_small_images_are_upscaled_to_the_model(tmp_path):
    folder, _ = run_training(TrainConfig(model="lenet5", epochs=1, batch_size=512, runs_dir=tmp_path), progress=False)
    config = json.loads((folder / "config.json").read_text())
    assert config["image_shape"] == [8, 8, 1] and config["input_shape"] == [32, 32, 1]
    path = tmp_path / "digit.png"
    Image.fromarray(data.load("digits").test.images[0, :, :, 0]).save(path)
    assert predict_files(load_run(folder), [path]).shape == (1, 10)


@pytest.mark.parametrize(
    "change", [{"batch_size": 5000}, {"optimizer": "adm"}, {"model": "lenet"}, {"dataset": "digit"}, {"epochs": 0}]
)
def test_invalid_config_leaves_no_folder(tmp_path, change):
    with pytest.raises(InputError):
        run_training(TrainConfig(runs_dir=tmp_path / "runs", **change), progress=False)
    assert not list((tmp_path / "runs").glob("*"))


def test_run_dir_with_other_files_is_not_changed(tmp_path):
    """A run that fails before its first checkpoint removes only a folder that it created."""
    (tmp_path / "thesis.txt").write_text("years of work")
    config = TrainConfig(model="mlp", batch_size=5000, run_dir=tmp_path)  # larger than the dataset
    with pytest.raises(InputError, match=r"is not empty: give --run-dir a new or empty folder"):
        run_training(config, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_diverged_run_keeps_its_checkpoints(tmp_path, monkeypatch):
    rate = optax.piecewise_constant_schedule(0.01, {2 * 40: 1e38})  # from the third epoch on
    monkeypatch.setattr(train, "make_optimizer", lambda *_, **__: optax.sgd(rate))
    with pytest.raises(
        InputError, match=r"fit: step 82 \(epoch 3\): the loss is nan; the first non-finite parameter is "
    ):
        run_training(TrainConfig(model="mlp", runs_dir=tmp_path, epochs=4), progress=False)
    [folder] = tmp_path.iterdir()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (folder / "result.json").exists()
    assert runs.evaluate_run(load_run(folder))["accuracy"] > 0.1


def test_runs_in_one_second_have_separate_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda format: "20260101-000000")
    config = TrainConfig(runs_dir=tmp_path)
    folders = [create_run_folder(config).name for _ in range(3)]
    assert folders == [f"digits-small_cnn-20260101-000000{n}" for n in ("", "-2", "-3")]


def test_reconstruction_run_has_its_metrics_and_figures(tmp_path, monkeypatch):
    """An autoencoder, registered by name: its training, its run folder, and its errors."""
    monkeypatch.setattr(models.registry, "_SPECS", dict(models.registry._SPECS))
    models.register_model("autoencoder", input_shape=(8, 8, 1))(lambda num_classes: serial(Conv(1, 1)))
    options = {"model": "autoencoder", "task": "reconstruction", "monitor": "val_loss", "epochs": 2, "batch_size": 256}
    folder, result = run_training(TrainConfig(**options, run_dir=tmp_path / "run"), progress=False)
    assert {"test_loss", "test_mae", "val_loss", "val_mae"} <= result.keys() and "test_accuracy" not in result
    names = {path.name for path in folder.iterdir()}
    assert "training_curves.png" in names and not names & {
        "classification_report.json",
        "misclassified.png",
        "confusion_matrix.png",
    }
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records[result["best_epoch"] - 1]["val_mae"] == result["val_mae"]
    assert resume_training(folder)[1]["test_mae"] == result["test_mae"]
    run = load_run(folder)
    images = data.load("digits").test.images
    scores = train.evaluate(run.model, run.params, run.state, *data.load("digits").test, task=train.Reconstruction())
    assert scores["mae"] == pytest.approx(result["test_mae"], rel=1e-5)
    with pytest.raises(InputError, match=r"was trained with task='reconstruction': only a classification can be"):
        run.predict(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regresion"}, r"train: unknown task 'regresion': did you mean 'regression'\?"),
        ({"task": "regression"}, r"early stopping: unknown monitor 'val_accuracy'.*val_loss, val_mae, loss, mae"),
        (
            {"task": "regression", "monitor": "val_mae", "baseline_model": "mlp"},
            r"train: baseline_model requires task='classification'",
        ),
        ({"task": "multilabel", "label_smoothing": 0.1}, r"label_smoothing is for Classification, not MultiLabel"),
    ],
)
def test_config_invalid_task_raises(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options).validate()
