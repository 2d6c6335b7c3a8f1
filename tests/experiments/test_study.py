"""Shared code of the experiments: options, saved files, records, progress, and networks of several seeds."""

import dataclasses
import importlib.util
import itertools
import json
import signal
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from common import study
from common.networks import TrainingStudy, train_networks, train_with_config
from common.study import Progress, Study, StudyOptions, mean_std, results_table
from jaxconv import data, models, runtime, train
from jaxconv.data import augment
from jaxconv.runs import TrainConfig

SCRIPT = '''"""A coin falls on heads as often as not.

Claim (lecture row 000-00): the mean of many is a half.
"""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jaxconv.errors import InputError
from common.study import Study, StudyResult, mean_std, results_table, run_study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Toss coins."""

    SMOKE = {"tosses": 8}
    tosses: int = 100
    """How often."""


def measure(config, progress):
    if config.tosses < 1:
        raise InputError(f"tosses={config.tosses} should be at least 1")
    if config.tosses == 13:
        os.kill(os.getpid(), signal.SIGINT)
    heads = [np.float32(np.random.default_rng(seed).integers(0, 2, config.tosses).mean())
             for seed in progress.track(range(config.num_seeds))]
    figure = Figure(figsize=(3, 2))
    figure.subplots().imshow(np.random.default_rng(0).random((40, 60, 3)))
    by_length = {config.tosses: heads}
    results = {"heads": by_length, "kinds": np.arange(2), "file": Path("coin.txt")}
    table = results_table("coins", ("", "heads"), [("mean", 0.5)])
    return StudyResult(results, {"coin": figure, "other": Figure()}, [table])


def summarize_results(results):
    [(tosses, heads)] = results["heads"].items()
    return f"Of {tosses.strip()} tosses, {mean_std(heads, 2)} are heads."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
'''


@pytest.fixture
def coin(tmp_path, monkeypatch, capsys):
    """Run a script about coins in an empty folder; return report or exit code, stdout and stderr."""
    path = tmp_path / "scripts" / "coin.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    spec = importlib.util.spec_from_file_location("coin", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coin", module)
    spec.loader.exec_module(module)
    calls = []
    for name in ("tune_cpu", "enable_fast_compile", "enable_compilation_cache"):  # these change the process
        monkeypatch.setattr(runtime, name, lambda *args, name=name: calls.append(name))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(line):
        monkeypatch.setattr(sys, "argv", [str(path), *line.split()])
        calls.clear()
        try:
            result = study.run_study(module.Config, module.measure, module.summarize_results)
        except SystemExit as stop:
            result = stop.code
        return result, *capsys.readouterr()

    run.module, run.calls, run.folder = module, calls, tmp_path
    return run


def heads(tosses, seed):
    return float(np.float32(np.random.default_rng(seed).integers(0, 2, tosses).mean()))


def test_run_study_writes_report_figures_and_summary(coin):
    report, out, _ = coin("--num-seeds 2")
    folder = coin.folder / "here/runs/coin"
    assert {path.name for path in folder.iterdir()} == {"coin.json", "coin.png", "other.png"}
    assert json.loads((folder / "coin.json").read_text()) == report
    expected = [heads(100, 0), heads(100, 1)]
    assert report["results"] == {"heads": {"100": expected}, "kinds": [0, 1], "file": "coin.txt"}
    summary = f"Of 100 tosses, {np.mean(expected):.2f} ± {np.std(expected, ddof=1):.2f} are heads."
    assert report["summary"] == summary and f"\n{summary}\n" in out and "│ mean │" in out
    assert report["name"] == "coin" and report["num_seeds"] == 2 and report["command"] == "coin.py --num-seeds 2"
    assert report["config"] == {
        "num_seeds": 2,
        "smoke": False,
        "record": False,
        "output_dir": "runs/coin",
        "tosses": 100,
    }
    assert 0 <= report["cpu_seconds"] < 60 and 0 <= report["seconds"] < 600
    assert report["device"] == runtime.device_name() and report["versions"] == runtime.versions()
    assert "saved in runs/coin: coin.json, coin.png, other.png" in out
    assert not (coin.folder / "scripts/results").exists()
    assert coin.calls == ["tune_cpu", "enable_compilation_cache"]


def test_summary_can_be_recomputed_from_saved_json(coin):
    coin("--tosses 40")
    report = json.loads((coin.folder / "here/runs/coin/coin.json").read_text())
    assert coin.module.summarize_results(report["results"]) == report["summary"]


def test_smoke_overrides_options_and_enables_fast_compile(coin):
    report, *_ = coin("--smoke --num-seeds 2 --tosses 50 --output-dir there")
    assert report["config"]["tosses"] == 8 and report["results"]["heads"] == {"8": [heads(8, 0), heads(8, 1)]}
    assert (coin.folder / "here/there/coin.json").exists() and not (coin.folder / "here/runs").exists()
    assert coin.calls == ["tune_cpu", "enable_compilation_cache", "enable_fast_compile"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--smoke --record", "--smoke and --record cannot be combined: a smoke run is not evidence"),
        ("--num-seeds 0", "num_seeds=0 should be at least 1"),
        ("--num-seeds 0 --smoke", "num_seeds=0 should be at least 1"),
        ("--tosses 0", "tosses=0 should be at least 1"),
        ("--output-dir taken", "the folder taken cannot be created: File exists"),
    ],
)
def test_invalid_options_exit_2_with_one_line(coin, line, message):
    (coin.folder / "here/taken").write_text("a file")
    code, out, err = coin(line)
    assert (code, out) == (2, "") and err.endswith(f"coin.py: error: {message}\n") and "Traceback" not in err
    assert not list(coin.folder.rglob("*.json"))


def test_help_shows_script_docstring(coin):
    code, out, _ = coin("--help")
    assert code == 0 and "A coin falls on heads" in out and "How often." in out and "Number of seeds per network" in out


def test_unknown_option_exits_2(coin):
    code, _, err = coin("--toses 5")
    assert code == 2 and "--tosses" in err


def test_ctrl_c_exits_130_with_one_line(coin):
    previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = coin("--tosses 13 --record")
    finally:
        signal.signal(signal.SIGINT, previous_handler)
    assert (code, out) == (130, "") and err.endswith("coin.py: interrupted\n")
    assert not list(coin.folder.rglob("*.json"))


def test_record_saves_report_and_first_figure(coin):
    report, out, _ = coin(f"--record --output-dir {coin.folder}/secret --num-seeds 1")
    results = coin.folder / "scripts/results"
    assert {path.name for path in results.iterdir()} == {"coin.json", "coin.png"}
    recorded = json.loads((results / "coin.json").read_text())
    assert recorded == report | {"config": report["config"] | {"output_dir": None}}
    assert "secret" not in (results / "coin.json").read_text() and report["command"] == "coin.py --record --num-seeds 1"
    assert f"saved in {results / 'coin.json'}" in out
    with Image.open(coin.folder / "secret/coin.png") as original, Image.open(results / "coin.png") as quantized:
        assert quantized.size == original.size and quantized.mode == "P" and len(quantized.getcolors()) <= 128
        difference = np.asarray(quantized.convert("RGB"), float) - np.asarray(original.convert("RGB"), float)
    assert abs(difference).mean() < 15  # the first figure, and not the other one, which is white
    report["results"]["heads"]["100"] = [0.5]
    (results / "coin.json").write_text("{}")
    coin("--record --num-seeds 1")
    assert json.loads((results / "coin.json").read_text())["results"]["heads"]["100"] == [heads(100, 0)]


def test_failing_summary_keeps_results(coin, monkeypatch):
    monkeypatch.setattr(coin.module, "summarize_results", lambda results: results["tails"])
    with pytest.raises(KeyError, match="tails"):
        coin("--num-seeds 1 --record")
    report = json.loads((coin.folder / "here/runs/coin/coin.json").read_text())
    assert report["results"]["heads"] == {"100": [heads(100, 0)]} and report["summary"] == ""
    assert not (coin.folder / "scripts/results").exists()


def test_study_options_have_no_seeds(coin, capsys):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(StudyOptions):
        num_seeds = 1  # read by the script, but not an option
        tosses: int = 20

    coin.module.Config = Config
    code, out, _ = coin("--help")
    assert code == 0 and "--tosses" in out and "--num-seeds" not in out
    report, *_ = coin("")
    assert report["num_seeds"] == 1 and "num_seeds" not in report["config"]


def test_reduced_applies_smoke_overrides():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Study):
        SMOKE = types.MappingProxyType({"epochs": 1, "num_seeds": 2})
        epochs: int = 9

    assert Config().reduced() == Config() == Config(epochs=9, num_seeds=3)
    assert Config(smoke=True, epochs=7).reduced() == Config(smoke=True, epochs=1, num_seeds=2)


def test_progress_counts_completed_items():
    def state():
        [task] = progress._bar.tasks
        return task.description, task.completed, task.total

    with Progress() as progress:
        progress.expect(3)
        assert state() == ("", 0, 3)
        progress("first")
        progress.set_fraction(0.5)
        assert state() == ("first", 0.5, 3)
        progress("second")
        assert state() == ("second", 1, 3)
        items = progress.track(["a", "b"], "item {}")
        next(items)
        assert state() == ("item a", 2, 5)
        progress.set_fraction(0.25)
        assert state() == ("item a", 2.25, 5)
        assert list(items) == ["b"] and state() == ("item b", 3, 5)
        progress("fifth"), progress("unexpected sixth")
        assert state() == ("unexpected sixth", 5, 6)
    assert progress._bar.finished is False and not progress._bar.live.is_started


def test_mean_std_matches_numpy(rng):
    values = rng.random(5)
    for digits in (1, 4):
        mean, deviation = np.mean(values), np.std(values, ddof=1)
        assert mean_std(list(values), digits) == f"{mean:.{digits}f} ± {deviation:.{digits}f}"
    assert mean_std([0.25], 3) == "0.250"


def test_results_table_aligns_names_left_numbers_right():
    table = results_table("title", ("network", "accuracy", "n"), [("cnn", 0.5, 3), ("mlp", 0.25, 4)])
    assert [(column.header, column.justify, list(column.cells)) for column in table.columns] == [
        ("network", "left", ["cnn", "mlp"]),
        ("accuracy", "right", ["0.5", "0.25"]),
        ("n", "right", ["3", "4"]),
    ]
    assert table.title == "title" and results_table("", ("a",), []).title is None


@pytest.mark.usefixtures("promoting")
def test_train_networks_matches_fit_for_each_seed():
    digits = data.load("digits")
    examples, validation, test = digits.train.subset(slice(90)), digits.validation, digits.test
    model, shift, fractions = models.mlp(hidden=(16,)), augment.random_translation(1), []
    trained = train_networks(
        model, examples, validation, seeds=[3, 1], epochs=3, batch_size=20, augment=shift, on_progress=fractions.append
    )
    optimizer = train.make_optimizer("adam", 3e-3, "one_cycle", 3 * 5)  # 90 images are five batches
    for i, seed in enumerate([3, 1]):
        fitted = train.fit(
            model, examples, validation, optimizer=optimizer, epochs=3, batch_size=20, seed=seed, augment=shift
        )
        jax.tree.map(np.testing.assert_array_equal, trained.variables[i], (fitted.params, fitted.state))
        best = max(record["val_accuracy"] for record in fitted.history)
        assert trained.val_accuracy[i] == best == trained.history[i][trained.best_epoch[i] - 1]["val_accuracy"]
        logits, _ = model.apply(*trained.variables[i], jnp.asarray(test.images, jnp.float32) / 255)
        is_correct = np.asarray(logits).argmax(1) == test.labels
        assert trained.accuracy(*test)[i] == pytest.approx(is_correct.mean())
    assert len(trained.history) == 2 and [record["epoch"] for record in trained.history[1]] == [1, 2, 3]
    np.testing.assert_allclose(fractions, np.arange(1, 7) / 6)
    assert trained.seconds > 0


@pytest.mark.usefixtures("promoting")
def test_trained_networks_scores_and_translation_tests():
    digits = data.load("digits")
    images, labels = (array[:50] for array in digits.test)
    trained = train_networks(
        models.mlp(hidden=(4,)), digits.train.subset(slice(90)), digits.validation, seeds=[0, 1], epochs=2
    )
    scores = trained.scores(*digits.test)
    assert scores.pop("parameters") == 64 * 4 + 4 + 4 * 10 + 10
    assert scores == {
        "val_accuracy": trained.val_accuracy,
        "test_accuracy": trained.accuracy(*digits.test),
        "train_seconds": trained.seconds,
    }
    for axis in ("x", "y"):
        tests = trained.translation_tests(images, labels, 2, axis)
        for (params, state), rows in zip(trained.variables, tests, strict=True):
            assert [row.shift for row in rows] == [-2, -1, 0, 1, 2]
            for row in rows:
                moved = np.zeros_like(images)  # translated pixel by pixel
                for i, j in itertools.product(range(8), repeat=2):
                    u, v = (i, j - row.shift) if axis == "x" else (i - row.shift, j)
                    if 0 <= u < 8 and 0 <= v < 8:
                        moved[:, i, j] = images[:, u, v]
                logits, _ = trained.model.apply(params, state, jnp.asarray(moved, jnp.float32) / 255)
                assert row.accuracy == pytest.approx((np.asarray(logits).argmax(1) == labels).mean())


@pytest.mark.usefixtures("promoting")
def test_train_with_config_matches_fit():
    digits = data.load("digits")
    model, splits = models.mlp(hidden=(4,)), (digits.train.subset(slice(90)), digits.validation)
    optimizer_options = {
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "weight_decay": 0.01,
    }
    fit_options = {"monitor": "val_loss", "patience": 1, "epochs": 3, "batch_size": 20, "label_smoothing": 0.1}
    recipe = TrainConfig(**optimizer_options, **fit_options)
    trained = train_with_config(recipe, model, *splits, seeds=[2])
    optimizer = train.make_optimizer("momentum", 0.1, "cosine", 3 * 5, warmup_steps=5, weight_decay=0.01)
    stopping = train.EarlyStopping(patience=1, monitor="val_loss")
    fitted = train.fit(
        model,
        *splits,
        optimizer=optimizer,
        epochs=3,
        batch_size=20,
        seed=2,
        early_stopping=stopping,
        label_smoothing=0.1,
    )
    jax.tree.map(np.testing.assert_array_equal, trained.variables[0], (fitted.params, fitted.state))
    assert trained.best_epoch == [fitted.best_epoch]


@pytest.mark.usefixtures("promoting")
def test_train_networks_make_optimizer_gets_num_steps():
    digits = data.load("digits")
    examples, calls = digits.train.subset(slice(50)), []

    def make(steps):
        calls.append(steps)
        return optax.sgd(0.0)

    trained = train_networks(
        models.mlp(hidden=(4,)), examples, digits.validation, seeds=[0], epochs=2, batch_size=16, make_optimizer=make
    )
    assert calls == [2 * 4]
    initial, _ = models.mlp(hidden=(4,)).init(train.split_seed(0)[0], digits.image_shape)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), trained.variables[0][0], initial)


def test_training_study_options_can_be_overridden(promoting):
    digits, fractions = data.load("digits"), []
    splits = digits.train.subset(slice(90)), digits.validation
    study = TrainingStudy(num_seeds=2, epochs=2, batch_size=20, learning_rate=1e-2)
    with Progress() as progress:
        progress.set_fraction = fractions.append
        trained = study.train(models.mlp(hidden=(4,)), *splits, progress, label_smoothing=0.1)
        longer = study.train(models.mlp(hidden=(4,)), *splits, progress, epochs=3)
    expected = train_networks(
        *(models.mlp(hidden=(4,)), *splits),
        **dict(seeds=[0, 1], epochs=2, batch_size=20, learning_rate=1e-2, label_smoothing=0.1),
    )
    jax.tree.map(np.testing.assert_array_equal, trained.variables, expected.variables)
    assert [len(history) for history in longer.history] == [3, 3] and len(trained.history[0]) == 2
    assert fractions[:4] == [0.25, 0.5, 0.75, 1.0] and len(fractions) == 10
