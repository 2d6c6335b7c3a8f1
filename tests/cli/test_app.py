"""Command line: help, output, files left by a run, and one-line errors for invalid input."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxconv import data, models, train
from jaxconv.cli import app
from jaxconv.data import augment, registry, vision_datasets
from jaxconv.runs import RECIPES

PROGRAM = [sys.executable, "-m", "jaxconv.cli"]


pytestmark = pytest.mark.usefixtures("promoting")


@pytest.fixture
def jaxconv(jaxconv, tmp_path, monkeypatch):
    """The ``jaxconv`` fixture without downloaded data, on a terminal of 200 columns."""
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    return jaxconv


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from jaxconv.runs import TrainConfig, run_training

    config = TrainConfig(model="mlp", epochs=2, batch_size=128, runs_dir=tmp_path_factory.mktemp("trained"))
    return run_training(config, progress=False)[0]


def test_train_eval_predict(jaxconv, tmp_path):
    code, out, _ = jaxconv("train --model mlp --epochs 2 --batch-size 64")
    assert code == 0
    [folder] = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert f"test accuracy {result['test_accuracy']:.4f} on 360 images" in out
    names = "checkpoints, classification_report.json, config.json, confusion_matrix.png"
    assert f"saved in runs/{folder.name}: {names}" in out
    assert "  epoch      loss  accuracy    validation loss  accuracy    images/s" in out

    code, out, _ = jaxconv(f"eval runs/{folder.name}")
    assert code == 0 and f"accuracy {result['test_accuracy']:.4f} on 360 images" in out
    assert json.loads((folder / "evaluation.json").read_text())["accuracy"] == result["test_accuracy"]

    Image.fromarray(data.load("digits").test.images[0, :, :, 0]).save("digit.png")
    code, out, _ = jaxconv(f"predict runs/{folder.name} digit.png digit.png --topk 2")
    assert code == 0
    line, again = out.splitlines()
    assert line == again and line.startswith("digit.png: ") and line.count("%") == 2


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("mnist_cnn", ["320", "18,496", "36,928", "36,928", "650", "93,322", "2,794,240", "18×18"]),
        ("lenet5", ["156", "2,416", "48,120", "10,164", "850", "61,706", "(10, 10, 16)", "16×16"]),
    ],
)
def test_summary_prints_the_counts_of_the_lectures(jaxconv, model, expected):
    code, out, _ = jaxconv(f"summary {model}")
    assert code == 0 and all(number in out for number in expected)
    code, out, _ = jaxconv(f"summary {model} --format json")
    assert f"{json.loads(out)['total']['params']:,}" in expected


def test_train_help_lists_choices_and_defaults(jaxconv):
    code, out, _ = jaxconv("train --help")
    assert code == 0
    assert "jaxconv train --dataset mnist --recipe fast" in out
    text = " ".join(out.replace("│", " ").split())  # the table wraps long texts
    for choice in (*data.DATASETS, *train.OPTIMIZERS, *train.SCHEDULES, *RECIPES, *augment.AUGMENTATIONS):
        assert choice in text
    assert f"Model: {', '.join(models.list_models())}. (default: small_cnn)" in text
    assert jaxconv("--version")[1].startswith("jaxconv 0")


@pytest.mark.parametrize("line", ["", "--help", "-h"])
def test_help_fits_a_screen_and_lists_the_commands(jaxconv, line):
    code, out, _ = jaxconv(line)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("usage: jaxconv")
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert [text.split()[0] for text in lines if text.startswith("  ") and text[2] != "-"] == list(app.COMMANDS)


@pytest.mark.parametrize("command", app.COMMANDS)
def test_command_help_opens_with_two_examples(jaxconv, command):
    code, out, _ = jaxconv(f"{command} --help")
    examples = [line.strip() for line in out.splitlines() if line.startswith(f"  jaxconv {command}")]
    assert code == 0 and examples == list(app.COMMANDS[command].examples) and len(set(examples)) == 2
    head, _, options = out.partition("-h, --help")
    assert options and head.index("Examples:") < head.index(f"  {examples[0]}") < head.index(f"  {examples[1]}")


@pytest.mark.parametrize("example", [example for command in app.COMMANDS.values() for example in command.examples])
def test_examples_of_the_help_are_valid_options(jaxconv, example):
    program, name, *words = shlex.split(example)
    # run() removes --no-cpu-tuning from the arguments of every command but bench
    options = app.parse([name, *(word for word in words if word != app.NO_TUNE)])
    command = app.COMMANDS[name]
    assert program == "jaxconv" and type(options) is command.options
    command.check(options)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def no_network(monkeypatch):
    """Replace the mirrors of MNIST by addresses that refuse connections."""
    closed = vision_datasets.MNIST._replace(mirrors=("http://127.0.0.1:9/", "http://127.0.0.1:9/again/"))
    monkeypatch.setattr(vision_datasets, "MNIST", closed)
    monkeypatch.setitem(registry.SOURCES, "mnist", closed)


TRAIN_IMAGES = "data/mnist/train-images-idx3-ubyte.gz"
INVALID = {
    "command": (
        "trian",
        {},
        "unknown command 'trian': did you mean 'train'? Known: train, eval, predict, summary, compare, bench, explain",
    ),
    "option": (
        "train --epoch 3",
        {},
        "unknown jaxconv train option '--epoch': did you mean '--epochs'? Known: --dataset,",
    ),
    "dataset": (
        "train --dataset fashion-mnist",
        {},
        "unknown dataset 'fashion-mnist': did you mean 'fashion_mnist'?",
    ),
    "model": ("train --model lenet", {}, "unknown model 'lenet': did you mean 'lenet5'?"),
    "optimizer": ("train --optimizer adma", {}, "unknown optimizer 'adma': did you mean 'adam'?"),
    "schedule": ("train --schedule cosinus", {}, "unknown schedule 'cosinus': did you mean 'cosine'?"),
    "learning rate": ("train --learning-rate -1", {}, "learning_rate=-1.0 should be a positive number, such as 0.001"),
    "batch size 0": ("train --batch-size 0", {}, "batch_size=0 should be an int of at least 1"),
    "no epochs": ("train --epochs=0", {}, "epochs=0 should be an int of at least 1"),
    "optimizer, before downloading": ("train --dataset mnist --optimizer adma", {}, "unknown optimizer 'adma'"),
    "option before the command": (
        "--epochs 3 train",
        {},
        "--epochs precedes the command: write jaxconv COMMAND --epochs",
    ),
    "extra argument": (
        "train extra",
        {},
        "jaxconv train: unexpected argument 'extra': see jaxconv train --help",
    ),
    "value of the wrong type": ("train --epochs many", {}, "Error parsing --epochs: invalid literal for int()"),
    "value missing": ("train --epochs", {}, "Missing value for argument '--epochs'"),
    "argument missing": ("eval", {}, "Run folder written by jaxconv train. (required)"),
    "unknown action": ("data chekc", {}, "invalid choice 'chekc' for argument 'action'. Expected one of ('check',)."),
    "negative seed": ("train --seed -1", {}, "train: seed=-1 should be an int of at least 0"),
    "no classes to list": (
        "predict RUN digit.png --topk 0",
        {"RUN": "complete"},
        "predict: --topk must be at least 1, got 0",
    ),
    "batch size too large": (
        "train --batch-size 2000",
        {},
        "batch_size=2000 is larger than the 1257 training examples",
    ),
    "no network": (
        "train --dataset mnist",
        {},
        "mnist: train-images-idx3-ubyte.gz could not be downloaded. Tried http://127.0.0.1:9/ (no connection); "
        "http://127.0.0.1:9/again/ (no connection). Check the network, or put the file into ",
    ),
    "truncated file": (
        "train --dataset mnist",
        {TRAIN_IMAGES: b"\x1f\x8b123"},
        "gz is cut short: 5 of 9,912,422 bytes: delete it",
    ),
    "corrupted file": ("train --dataset mnist", {TRAIN_IMAGES: bytes(9_912_422)}, "gz is corrupted: its sha256 is "),
    "web page": ("train --dataset mnist", {TRAIN_IMAGES: b"\n<!DOCTYPE html>"}, "gz is a web page, not data"),
    "damaged data": (
        "data check mnist",
        {TRAIN_IMAGES: b"\x1f\x8b123"},
        "mnist: damaged or missing files: see the lines above",
    ),
    "missing data": ("data check mnist", {}, "mnist: damaged or missing files: see the lines above"),
    "dataset to check": ("data check minst", {}, "unknown dataset 'minst': did you mean 'mnist'?"),
    "model to summarize": ("summary mnistcnn", {}, "unknown model 'mnistcnn': did you mean 'mnist_cnn'?"),
    "kernel too large": (
        "summary mnist_cnn --input-shape 2 28 1",
        {},
        "conv1: conv: window (3, 3) on an input of (2, 28), dimension 0: the window spans 3 pixels but the padded "
        "input has only 2 (2 + 0 + 0 of padding): pad more, or take a smaller window",
    ),
    "no run folder": ("eval runs/none", {}, "there is no run folder runs/none: give one written by jaxconv train"),
    "not a run folder": ("eval data", {"data/x": b""}, "data is not a run folder: it has no config.json"),
    "broken config": (
        "eval data",
        {"data/config.json": b"{}"},
        "config.json is damaged: Object missing required field `dataset`: restore the file",
    ),
    "run without a checkpoint": (
        "predict RUN digit.png",
        {"RUN": "without checkpoint"},
        "has no checkpoint: did its training stop before the first epoch ended?",
    ),
    "no image": ("predict RUN none.png", {"RUN": "complete"}, "there is no image none.png"),
    "no images": ("predict RUN", {"RUN": "complete"}, "predict: give at least one image file"),
    "not an image": (
        "predict RUN notes.png",
        {"RUN": "complete", "notes.png": b"dear diary"},
        "notes.png is not an image that Pillow can read as PNG, JPEG, GIF, BMP, WEBP, TIFF, PPM: give a png or a jpg",
    ),
    "image cut short": (
        "predict RUN cut.png",
        {"RUN": "complete", "cut.png": "png"},
        "cut.png cannot be read as an image",
    ),
}


@pytest.mark.parametrize(("line", "files", "message"), INVALID.values(), ids=INVALID)
def test_invalid_input_prints_one_line_and_exits_2(jaxconv, tmp_path, no_network, trained, line, files, message):
    for name, content in files.items():
        if name == "RUN":
            (tmp_path / "run").mkdir()
            for path in trained.iterdir():
                if path.is_file() or content == "complete":
                    (tmp_path / "run" / path.name).symlink_to(path)
        elif content == "png":
            noise = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)
            Image.fromarray(noise).save(name)
            write(tmp_path / name, (tmp_path / name).read_bytes()[:3000])
        else:
            write(tmp_path / name, content)
    files_before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    code, _, err = jaxconv(line.replace("RUN", "run"))
    assert code == 2
    assert err.startswith("jaxconv: error: ") and message in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files_before
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_train_missing_device_exits_2(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "gpux"}
    done = subprocess.run([*PROGRAM, "train"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not os.listdir(tmp_path)
    assert done.stderr.startswith("jaxconv: error: jax finds no device (JAX_PLATFORMS='gpux'): ")


def test_closed_stdout_exits_0(tmp_path):
    command = f"{sys.executable} -m jaxconv.cli data check digits | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_program_unknown_model_exits_2(tmp_path):
    """Run in a process of its own: stderr, exit code, and no files left."""
    command = [*PROGRAM, "train", "--model", "small"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and not os.listdir(tmp_path)
    assert (
        done.stderr
        == "jaxconv: error: unknown model 'small': did you mean 'small_cnn'? Known: "
        + ", ".join(models.list_models())
        + "\n"
    )


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_stopped_run_can_be_evaluated(jaxconv, tmp_path, stop, code):
    """After Ctrl-C or a kill at an arbitrary moment the last checkpoint is complete."""
    command = [*PROGRAM, "train", "--model", "mlp", "--epochs", "2000"]
    stderr = tmp_path / "stderr"  # a file: a pipe that is not read blocks the process once it is full
    with stderr.open("w") as file:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=file)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/checkpoints/[0-9]*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(stop)
        process.wait(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code and "Traceback" not in stderr.read_text()
    [folder] = (tmp_path / "runs").iterdir()
    assert not (folder / "result.json").exists()
    assert jaxconv(f"eval runs/{folder.name}")[0] == 0


def test_traceback_variable_raises(jaxconv, monkeypatch):
    from jaxconv import InputError

    monkeypatch.setenv("JAXCONV_TRACEBACK", "1")
    with pytest.raises(InputError):
        jaxconv("summary nothing")
