"""What the experiments share: options, what is left behind, the record, progress, networks from several seeds."""

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
    """Run a script about coins in an empty folder: (report or exit code, what it printed, what it said to stderr)."""
    path = tmp_path / "scripts" / "coin.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    spec = importlib.util.spec_from_file_location("coin", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coin", module)
    spec.loader.exec_module(module)
    called = []
    for name in ("tune_cpu", "enable_fast_compile", "enable_compilation_cache"):  # they change the process
        monkeypatch.setattr(runtime, name, lambda *args, name=name: called.append(name))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(line):
        monkeypatch.setattr(sys, "argv", [str(path), *line.split()])
        called.clear()
        try:
            returned = study.run_study(module.Config, module.measure, module.summarize_results)
        except SystemExit as stop:
            returned = stop.code
        return returned, *capsys.readouterr()

    run.module, run.called, run.folder = module, called, tmp_path
    return run


def heads(tosses, seed):
    return float(np.float32(np.random.default_rng(seed).integers(0, 2, tosses).mean()))


def test_a_study_leaves_its_results_and_figures_and_says_what_it_found(coin):
    report, out, _ = coin("--num-seeds 2")
    folder = coin.folder / "here/runs/coin"
    assert {path.name for path in folder.iterdir()} == {"coin.json", "coin.png", "other.png"}
    assert json.loads((folder / "coin.json").read_text()) == report
    each = [heads(100, 0), heads(100, 1)]
    assert report["results"] == {"heads": {"100": each}, "kinds": [0, 1], "file": "coin.txt"}
    said = f"Of 100 tosses, {np.mean(each):.2f} ± {np.std(each, ddof=1):.2f} are heads."
    assert report["summary"] == said and f"\n{said}\n" in out and "│ mean │" in out
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
    assert coin.called == ["tune_cpu", "enable_compilation_cache"]


def test_the_sentence_can_be_made_of_the_file_again(coin):
    coin("--tosses 40")
    report = json.loads((coin.folder / "here/runs/coin/coin.json").read_text())
    assert coin.module.summarize_results(report["results"]) == report["summary"]


def test_smoke_takes_its_own_options_and_compiles_in_haste(coin):
    report, *_ = coin("--smoke --num-seeds 2 --tosses 50 --output-dir there")
    assert report["config"]["tosses"] == 8 and report["results"]["heads"] == {"8": [heads(8, 0), heads(8, 1)]}
    assert (coin.folder / "here/there/coin.json").exists() and not (coin.folder / "here/runs").exists()
    assert coin.called == ["tune_cpu", "enable_compilation_cache", "enable_fast_compile"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--smoke --record", "--smoke and --record cannot be combined: a smoke run is not evidence"),
        ("--num-seeds 0", "num_seeds=0 should be at least 1"),
        ("--num-seeds 0 --smoke", "num_seeds=0 should be at least 1"),
        ("--tosses 0", "tosses=0 should be at least 1"),
        ("--output-dir taken", "the folder taken cannot be made: File exists"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(coin, line, said):
    (coin.folder / "here/taken").write_text("a file")
    code, out, err = coin(line)
    assert (code, out) == (2, "") and err.endswith(f"coin.py: error: {said}\n") and "Traceback" not in err
    assert not list(coin.folder.rglob("*.json"))


def test_the_help_is_the_scripts_docstring(coin):
    code, out, _ = coin("--help")
    assert code == 0 and "A coin falls on heads" in out and "How often." in out and "Trainings of each kind" in out


def test_an_option_that_is_none_is_refused(coin):
    code, _, err = coin("--toses 5")
    assert code == 2 and "--tosses" in err


def test_ctrl_c_ends_it_with_a_line(coin):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = coin("--tosses 13 --record")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out) == (130, "") and err.endswith("coin.py: interrupted\n")
    assert not list(coin.folder.rglob("*.json"))


def test_a_record_is_the_results_and_the_first_figure_beside_the_script(coin):
    report, out, _ = coin(f"--record --output-dir {coin.folder}/secret --num-seeds 1")
    results = coin.folder / "scripts/results"
    assert {path.name for path in results.iterdir()} == {"coin.json", "coin.png"}
    recorded = json.loads((results / "coin.json").read_text())
    assert recorded == report | {"config": report["config"] | {"output_dir": None}}
    assert "secret" not in (results / "coin.json").read_text() and report["command"] == "coin.py --record --num-seeds 1"
    assert f"saved in {results / 'coin.json'}" in out
    with Image.open(coin.folder / "secret/coin.png") as whole, Image.open(results / "coin.png") as kept:
        assert kept.size == whole.size and kept.mode == "P" and len(kept.getcolors()) <= 128
        difference = np.asarray(kept.convert("RGB"), float) - np.asarray(whole.convert("RGB"), float)
    assert abs(difference).mean() < 15  # it is that picture, and not the other, which is white
    report["results"]["heads"]["100"] = [0.5]
    (results / "coin.json").write_text("{}")
    coin("--record --num-seeds 1")
    assert json.loads((results / "coin.json").read_text())["results"]["heads"]["100"] == [heads(100, 0)]


def test_a_mistake_in_the_sentence_does_not_cost_the_work(coin, monkeypatch):
    monkeypatch.setattr(coin.module, "summarize_results", lambda results: results["tails"])
    with pytest.raises(KeyError, match="tails"):
        coin("--num-seeds 1 --record")
    report = json.loads((coin.folder / "here/runs/coin/coin.json").read_text())
    assert report["results"]["heads"] == {"100": [heads(100, 0)]} and report["summary"] == ""
    assert not (coin.folder / "scripts/results").exists()


def test_a_study_that_trains_nothing_has_no_seeds(coin, capsys):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(StudyOptions):
        num_seeds = 1  # what the script looks at, no option
        tosses: int = 20

    coin.module.Config = Config
    code, out, _ = coin("--help")
    assert code == 0 and "--tosses" in out and "--num-seeds" not in out
    report, *_ = coin("")
    assert report["num_seeds"] == 1 and "num_seeds" not in report["config"]


def test_what_is_reduced_is_what_smoke_says():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Study):
        SMOKE = types.MappingProxyType({"epochs": 1, "num_seeds": 2})
        epochs: int = 9

    assert Config().reduced() == Config() == Config(epochs=9, num_seeds=3)
    assert Config(smoke=True, epochs=7).reduced() == Config(smoke=True, epochs=1, num_seeds=2)


def test_progress_counts_what_is_done():
    def at():
        [task] = progress._bar.tasks
        return task.description, task.completed, task.total

    with Progress() as progress:
        progress.expect(3)
        assert at() == ("", 0, 3)
        progress("first")
        progress.set_fraction(0.5)
        assert at() == ("first", 0.5, 3)
        progress("second")
        assert at() == ("second", 1, 3)
        each = progress.track(["a", "b"], "item {}")
        next(each)
        assert at() == ("item a", 2, 5)
        progress.set_fraction(0.25)
        assert at() == ("item a", 2.25, 5)
        assert list(each) == ["b"] and at() == ("item b", 3, 5)
        progress("fifth"), progress("one more than was expected")
        assert at() == ("one more than was expected", 5, 6)
    assert progress._bar.finished is False and not progress._bar.live.is_started


def test_a_spread_is_numpys(rng):
    values = rng.random(5)
    for digits in (1, 4):
        mean, deviation = np.mean(values), np.std(values, ddof=1)
        assert mean_std(list(values), digits) == f"{mean:.{digits}f} ± {deviation:.{digits}f}"
    assert mean_std([0.25], 3) == "0.250"


def test_a_table_has_names_to_the_left_and_numbers_to_the_right():
    made = results_table("title", ("network", "accuracy", "n"), [("cnn", 0.5, 3), ("mlp", 0.25, 4)])
    assert [(column.header, column.justify, list(column.cells)) for column in made.columns] == [
        ("network", "left", ["cnn", "mlp"]),
        ("accuracy", "right", ["0.5", "0.25"]),
        ("n", "right", ["3", "4"]),
    ]
    assert made.title == "title" and results_table("", ("a",), []).title is None


@pytest.mark.usefixtures("promoting")
def test_networks_are_those_of_fit_seed_by_seed():
    digits = data.load("digits")
    examples, validation, test = digits.train.subset(slice(90)), digits.validation, digits.test
    model, shift, told = models.mlp(hidden=(16,)), augment.random_translation(1), []
    trained = train_networks(
        model, examples, validation, seeds=[3, 1], epochs=3, batch_size=20, augment=shift, on_progress=told.append
    )
    optimizer = train.make_optimizer("adam", 3e-3, "one_cycle", 3 * 5)  # 90 images are five batches
    for i, seed in enumerate([3, 1]):
        alone = train.fit(
            model, examples, validation, optimizer=optimizer, epochs=3, batch_size=20, seed=seed, augment=shift
        )
        jax.tree.map(np.testing.assert_array_equal, trained.variables[i], (alone.params, alone.state))
        best = max(record["val_accuracy"] for record in alone.history)
        assert trained.val_accuracy[i] == best == trained.history[i][trained.best_epoch[i] - 1]["val_accuracy"]
        logits, _ = model.apply(*trained.variables[i], jnp.asarray(test.images, jnp.float32) / 255)
        right = np.asarray(logits).argmax(1) == test.labels
        assert trained.accuracy(*test)[i] == pytest.approx(right.mean())
    assert len(trained.history) == 2 and [record["epoch"] for record in trained.history[1]] == [1, 2, 3]
    np.testing.assert_allclose(told, np.arange(1, 7) / 6)
    assert trained.seconds > 0


@pytest.mark.usefixtures("promoting")
def test_networks_tell_their_scores_and_how_they_stand_a_shift():
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
                moved = np.zeros_like(images)  # a pixel at a time
                for i, j in itertools.product(range(8), repeat=2):
                    u, v = (i, j - row.shift) if axis == "x" else (i - row.shift, j)
                    if 0 <= u < 8 and 0 <= v < 8:
                        moved[:, i, j] = images[:, u, v]
                logits, _ = trained.model.apply(params, state, jnp.asarray(moved, jnp.float32) / 255)
                assert row.accuracy == pytest.approx((np.asarray(logits).argmax(1) == labels).mean())


@pytest.mark.usefixtures("promoting")
def test_a_recipe_is_trained_as_its_config_says():
    digits = data.load("digits")
    model, few = models.mlp(hidden=(4,)), (digits.train.subset(slice(90)), digits.validation)
    made = {
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "schedule": "cosine",
        "warmup_epochs": 1,
        "weight_decay": 0.01,
    }
    step = {"monitor": "val_loss", "patience": 1, "epochs": 3, "batch_size": 20, "label_smoothing": 0.1}
    recipe = TrainConfig(**made, **step)
    trained = train_with_config(recipe, model, *few, seeds=[2])
    optimizer = train.make_optimizer("momentum", 0.1, "cosine", 3 * 5, warmup_steps=5, weight_decay=0.01)
    stopping = train.EarlyStopping(patience=1, monitor="val_loss")
    alone = train.fit(
        model, *few, optimizer=optimizer, epochs=3, batch_size=20, seed=2, early_stopping=stopping, label_smoothing=0.1
    )
    jax.tree.map(np.testing.assert_array_equal, trained.variables[0], (alone.params, alone.state))
    assert trained.best_epoch == [alone.best_epoch]


@pytest.mark.usefixtures("promoting")
def test_networks_may_be_given_an_optimizer_of_the_number_of_steps():
    digits = data.load("digits")
    examples, asked = digits.train.subset(slice(50)), []

    def make(steps):
        asked.append(steps)
        return optax.sgd(0.0)

    trained = train_networks(
        models.mlp(hidden=(4,)), examples, digits.validation, seeds=[0], epochs=2, batch_size=16, make_optimizer=make
    )
    assert asked == [2 * 4]
    fresh, _ = models.mlp(hidden=(4,)).init(train.split_seed(0)[0], digits.image_shape)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), trained.variables[0][0], fresh)


def test_a_study_trains_with_its_own_options_unless_told_others(promoting):
    digits, told = data.load("digits"), []
    few = digits.train.subset(slice(90)), digits.validation
    study = TrainingStudy(num_seeds=2, epochs=2, batch_size=20, learning_rate=1e-2)
    with Progress() as progress:
        progress.set_fraction = told.append
        trained = study.train(models.mlp(hidden=(4,)), *few, progress, label_smoothing=0.1)
        longer = study.train(models.mlp(hidden=(4,)), *few, progress, epochs=3)
    wanted = train_networks(
        *(models.mlp(hidden=(4,)), *few),
        **dict(seeds=[0, 1], epochs=2, batch_size=20, learning_rate=1e-2, label_smoothing=0.1),
    )
    jax.tree.map(np.testing.assert_array_equal, trained.variables, wanted.variables)
    assert [len(history) for history in longer.history] == [3, 3] and len(trained.history[0]) == 2
    assert told[:4] == [0.25, 0.5, 0.75, 1.0] and len(told) == 10
