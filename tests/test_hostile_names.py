"""Runs with folder and class names that contain escape sequences, rich and TeX markup or invalid UTF-8."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxconv import plot

pytestmark = [pytest.mark.usefixtures("promoting"), pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on")]
CLASSES = ["$x$", "[red]\x1b[31m", os.fsdecode(b"caf\xe9")]


@pytest.fixture
def image_folder(tmp_path, rng):
    folder = tmp_path / os.fsdecode(b"my$\\frac{\xe9\x1b[2J")
    try:
        for label in CLASSES:
            (folder / label).mkdir(parents=True)
            for n in range(10):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / label / f"{n}.png")
    except OSError:
        pytest.skip("the file system does not support these names")
    return folder


def run(capsys, *words):
    from jaxconv import cli

    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in out + err)
    return code, out, err


def test_hostile_names_do_not_break_commands(image_folder, tmp_path, capsys):
    train = ["train", "--dataset", f"folder:{image_folder}", "--model", "mlp", "--epochs", "1", "--batch-size", "8"]
    folder = tmp_path / "run"
    code, out, err = run(capsys, *train, "--run-dir", folder)
    assert code == 0, err
    assert {"result.json", "training_curves.png", "misclassified.png", "confusion_matrix.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert "left out" not in err and json.loads((folder / "result.json").read_text())["num_test_examples"] == 3
    classes = json.loads((folder / "config.json").read_text())["class_names"]

    (folder / "result.json").unlink()
    assert run(capsys, "train", "--resume", folder)[0] == 0 and (folder / "result.json").exists()

    code, out, _ = run(capsys, "predict", folder, image_folder / CLASSES[0] / "1.png")
    assert code == 0 and "[red]\\x1b[31m" in out and "caf\\udce9" in out and len(classes) == 3

    (folder / "evaluation.json").mkdir()  # writing fails, as in a read-only run folder
    code, out, err = run(capsys, "eval", folder)
    assert code == 0 and "on 3 images" in out and err.startswith("jaxconv: warning: the scores are not saved: ")

    code, out, _ = run(capsys, "summary", folder)
    assert code == 0 and "mlp on 8×8×1" in out and "387" in out  # 128 · 3 + 3 parameters of the last layer


def test_failed_figure_keeps_result(image_folder, tmp_path, capsys, monkeypatch):
    def fail(*args, **options):
        raise ValueError("no font")

    monkeypatch.setattr(plot, "misclassified", fail)
    line = ["train", "--dataset", f"folder:{image_folder}", "--model", "mlp", "--epochs", "1", "--batch-size", "8"]
    with pytest.warns(UserWarning, match=r"the picture .*misclassified\.png is left out: ValueError: no font"):
        assert run(capsys, *line, "--run-dir", tmp_path / "run")[0] == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"result.json", "training_curves.png", "confusion_matrix.png"} <= names and "misclassified.png" not in names


@pytest.mark.filterwarnings("default:.*the best epoch is chosen on")
def test_small_validation_split_warns(image_folder, tmp_path, capsys):
    from jaxconv import data
    from jaxconv.runs import runner

    with pytest.warns(UserWarning, match="the best epoch is chosen on 3 validation images"):
        runner._warn_of_small_validation_set(data.load(f"folder:{image_folder}"))
    runner._warn_of_small_validation_set(data.load("digits"))
