"""The main job from end to end: train, a whole run folder, and using it again."""

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
    """Eight epochs on the real digits; every test below looks at what it left."""
    config = TrainConfig(epochs=8, runs_dir=tmp_path_factory.mktemp("runs"))
    return run_training(config, progress=False)


def test_it_learns_to_read(run):
    _, result = run
    assert result["test_accuracy"] >= 0.96 and result["num_test_examples"] == 360


def test_the_run_folder_is_whole(run):
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
    assert result["params_sha256"] == by_path_order(load_run(folder).params)


def by_path_order(params):
    """The hash as anyone could take it from outside: every array's bytes, in the order of their paths."""
    arrays = {f"{layer}/{name}": np.asarray(array) for layer, part in params.items() for name, array in part.items()}
    return hashlib.sha256(b"".join(arrays[path].tobytes() for path in sorted(arrays))).hexdigest()


def test_the_pictures_show_something(run):
    folder, result = run
    for name in ("training_curves.png", "misclassified.png", "confusion_matrix.png"):
        pixels = np.asarray(Image.open(folder / name).convert("L"))
        assert min(pixels.shape) > 150 and pixels.std() > 10
    wrong = round((1 - result["test_accuracy"]) * 360)
    loaded = load_run(folder)
    digits = data.load("digits").test
    from jaxconv import plot, train

    probabilities = train.predict(loaded.model, loaded.params, loaded.state, digits.images)
    figure = plot.misclassified(*digits, probabilities, loaded.config["class_names"])
    assert sum(bool(axes.images) for axes in figure.axes) == wrong > 0


def test_evaluating_the_run_gives_its_accuracy_again(run):
    folder, result = run
    scored = runs.evaluate_run(load_run(folder))
    assert scored["accuracy"] == result["test_accuracy"]
    np.testing.assert_allclose(scored["loss"], result["test_loss"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on 4 validation images")
def test_evaluating_does_not_read_what_was_trained_on(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    config = TrainConfig(f"folder:{tmp_path / 'pictures'}", "mlp", epochs=1, batch_size=8, run_dir=tmp_path / "run")
    folder, _ = run_training(config, progress=False)
    read, whole = [], data.LazySplit.to_memory
    monkeypatch.setattr(data.LazySplit, "to_memory", lambda split, title: read.append(title) or whole(split, title))
    assert runs.evaluate_run(load_run(folder))["num_examples"] == 4
    assert [title.split()[-1] for title in read] == ["validation", "test"]


def test_predicting_files_is_predicting_pixels(run, tmp_path):
    folder, _ = run
    loaded = load_run(folder)
    images = data.load("digits").test.images[:3]
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    Image.fromarray(images[0, :, :, 0]).save(paths[0])
    Image.fromarray(255 - images[1, :, :, 0]).convert("RGB").save(paths[1])
    Image.fromarray(images[2, :, :, 0]).resize((64, 64), Image.Resampling.NEAREST).save(paths[2])
    from jaxconv import train

    wanted = train.predict(loaded.model, loaded.params, loaded.state, images)
    np.testing.assert_allclose(predict_files(loaded, paths[:1])[0], wanted[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(predict_files(loaded, paths[1:2], invert=True)[0], wanted[1], rtol=1e-4, atol=1e-6)
    assert predict_files(loaded, paths[2:])[0].argmax() == wanted[2].argmax()


def test_images_of_every_kind_are_read_as_they_look(run, tmp_path):
    """The same digit as 16 bits, as ink on nothing, lying on its side with a note to turn it: the same answer."""
    loaded = load_run(run[0])
    digit = data.load("digits").test.images[0, :, :, 0]
    image = Image.fromarray(digit)
    image.save(tmp_path / "plain.png")
    Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / "16 bits.png")
    image.convert("P").save(tmp_path / "palette.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter to the right to see it upright
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "on its side.png", exif=exif)
    wanted = predict_files(loaded, [tmp_path / "plain.png"])[0]
    for name in ("16 bits", "palette", "on its side"):
        got = predict_files(loaded, [tmp_path / f"{name}.png"])[0]
        np.testing.assert_allclose(got, wanted, atol=1e-5, err_msg=name)

    Image.merge("LA", (Image.new("L", (8, 8), 0), image)).save(tmp_path / "ink.png")  # black where the digit is
    np.testing.assert_allclose(predict_files(loaded, [tmp_path / "ink.png"], invert=True)[0], wanted, atol=2e-2)

    Image.new("LA", (8, 8), (255, 0)).save(tmp_path / "nothing.png")
    with pytest.raises(InputError, match=r"nothing.png is blank: every pixel is 255"):
        predict_files(loaded, [tmp_path / "nothing.png"])
    Image.fromarray(digit.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(InputError, match=r"float.tiff has pixels of 32 bits"):
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
def test_a_config_that_was_tampered_with_is_refused(run, tmp_path, change, message):
    config = json.loads((run[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        load_run(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[]"])
def test_a_config_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json is (not JSON|damaged)"):
        load_run(tmp_path)


def test_models_that_want_more_pixels_get_them(tmp_path):
    folder, _ = run_training(TrainConfig(model="lenet5", epochs=1, batch_size=512, runs_dir=tmp_path), progress=False)
    config = json.loads((folder / "config.json").read_text())
    assert config["image_shape"] == [8, 8, 1] and config["input_shape"] == [32, 32, 1]
    path = tmp_path / "digit.png"
    Image.fromarray(data.load("digits").test.images[0, :, :, 0]).save(path)
    assert predict_files(load_run(folder), [path]).shape == (1, 10)


@pytest.mark.parametrize(
    "change", [{"batch_size": 5000}, {"optimizer": "adm"}, {"model": "lenet"}, {"dataset": "digit"}, {"epochs": 0}]
)
def test_bad_input_leaves_nothing_behind(tmp_path, change):
    with pytest.raises(InputError):
        run_training(TrainConfig(runs_dir=tmp_path / "runs", **change), progress=False)
    assert not list((tmp_path / "runs").glob("*"))


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    """A run that fails before its first checkpoint removes its folder: it must not be anybody else's."""
    (tmp_path / "thesis.txt").write_text("years of work")
    config = TrainConfig(model="mlp", batch_size=5000, run_dir=tmp_path)  # more than there are images
    with pytest.raises(
        InputError, match=r"is a folder with other things in it: give --run-dir one that is new or empty"
    ):
        run_training(config, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_run_that_diverges_keeps_what_it_had(tmp_path, monkeypatch):
    rate = optax.piecewise_constant_schedule(0.01, {2 * 40: 1e38})  # from the third epoch on
    monkeypatch.setattr(train, "make_optimizer", lambda *_, **__: optax.sgd(rate))
    with pytest.raises(
        InputError, match=r"fit: step 82 \(epoch 3\): the loss is nan; the first parameter to go bad is "
    ):
        run_training(TrainConfig(model="mlp", runs_dir=tmp_path, epochs=4), progress=False)
    [folder] = tmp_path.iterdir()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (folder / "result.json").exists()
    assert runs.evaluate_run(load_run(folder))["accuracy"] > 0.1


def test_two_runs_in_one_second_have_two_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    config = TrainConfig(runs_dir=tmp_path)
    folders = [create_run_folder(config).name for _ in range(3)]
    assert folders == [f"digits-small_cnn-20260101-000000{n}" for n in ("", "-2", "-3")]


def test_a_run_of_another_task_has_its_own_numbers_and_no_pictures_of_classes(tmp_path, monkeypatch):
    """An autoencoder by its registered name, from the training to what is written and what is refused."""
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
    numbers = train.evaluate(run.model, run.params, run.state, *data.load("digits").test, task=train.Reconstruction())
    assert numbers["mae"] == pytest.approx(result["test_mae"], rel=1e-5)
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
def test_a_task_that_cannot_work_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options).validate()
