"""A run on a folder and classes with names that terminals, rich, matplotlib and JSON would stumble over."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxconv import plot

pytestmark = [pytest.mark.usefixtures("promoting"), pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on")]
CLASSES = ["$x$", "[red]\x1b[31m", os.fsdecode(b"caf\xe9")]


@pytest.fixture
def pictures(tmp_path, rng):
    folder = tmp_path / os.fsdecode(b"my$\\frac{\xe9\x1b[2J")
    try:
        for label in CLASSES:
            (folder / label).mkdir(parents=True)
            for n in range(10):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / label / f"{n}.png")
    except OSError:
        pytest.skip("this file system has no such names")
    return folder


def run(capsys, *words):
    from jaxconv import cli

    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in out + err)
    return code, out, err


def test_names_cost_nothing(pictures, tmp_path, capsys):
    train = ["train", "--dataset", f"folder:{pictures}", "--model", "mlp", "--epochs", "1", "--batch-size", "8"]
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

    code, out, _ = run(capsys, "predict", folder, pictures / CLASSES[0] / "1.png")
    assert code == 0 and "[red]\\x1b[31m" in out and "caf\\udce9" in out and len(classes) == 3

    (folder / "evaluation.json").mkdir()  # it cannot be written, as in a run that may only be read
    code, out, err = run(capsys, "eval", folder)
    assert code == 0 and "on 3 images" in out and err.startswith("jaxconv: warning: the scores are not saved: ")

    code, out, _ = run(capsys, "summary", folder)
    assert code == 0 and "mlp on 8×8×1" in out and "387" in out  # 128 · 3 + 3 parameters of the last layer


def test_a_picture_that_fails_leaves_the_result(pictures, tmp_path, capsys, monkeypatch):
    def fail(*args, **options):
        raise ValueError("no font")

    monkeypatch.setattr(plot, "misclassified", fail)
    line = ["train", "--dataset", f"folder:{pictures}", "--model", "mlp", "--epochs", "1", "--batch-size", "8"]
    with pytest.warns(UserWarning, match=r"the picture .*misclassified\.png is left out: ValueError: no font"):
        assert run(capsys, *line, "--run-dir", tmp_path / "run")[0] == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"result.json", "training_curves.png", "confusion_matrix.png"} <= names and "misclassified.png" not in names


@pytest.mark.filterwarnings("default:.*the best epoch is chosen on")
def test_a_small_validation_part_is_warned_of(pictures, tmp_path, capsys):
    from jaxconv import data
    from jaxconv.runs import runner

    with pytest.warns(UserWarning, match="the best epoch is chosen on 3 validation images"):
        runner._warn_of_small_validation_set(data.load(f"folder:{pictures}"))
    runner._warn_of_small_validation_set(data.load("digits"))
