"""``jaxconv train --resume``: resumed runs equal uninterrupted ones; errors take one line."""

import dataclasses
import json
import resource
import shutil

import numpy as np
import pytest

from jaxconv import InputError, train
from jaxconv.runs import TrainConfig, run_training, runner, train_or_resume
from toy_training import examples, without_times

pytestmark = [
    pytest.mark.usefixtures("promoting", "no_figures"),
    pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = TrainConfig(model="mlp", epochs=3, batch_size=128, run_dir=tmp_path_factory.mktemp("runs") / "finished")
    return run_training(config, progress=False)


@pytest.fixture
def stopped(finished, tmp_path):
    """Copy of the run without ``result.json``, as if killed just before it was written."""
    folder = tmp_path / "stopped"
    shutil.copytree(finished[0], folder)
    (folder / "result.json").unlink()
    return folder


def lines(folder):
    return without_times(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())


def assert_equal_runs(folder, finished):
    result = json.loads((folder / "result.json").read_text())
    for name in ("params_sha256", "final_params_sha256", "test_accuracy", "test_loss", "best_epoch", "steps"):
        assert result[name] == finished[1][name]
    assert lines(folder) == lines(finished[0])


@pytest.mark.parametrize(("save", "written"), [(1, False), (1, True), (3, False)])
def test_interrupted_run_resumes_identically(jaxconv, monkeypatch, finished, tmp_path, save, written):
    """Interrupt just before a checkpoint is written, or between it and its line in metrics.jsonl."""
    saves, save_checkpoint = [], train.save_checkpoint

    def interrupted(folder, snapshot, *, max_to_keep):
        saves.append(snapshot.progress.epoch)
        if written or len(saves) < save:
            save_checkpoint(folder, snapshot, max_to_keep=max_to_keep)
        if len(saves) == save:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", interrupted)
    folder = tmp_path / "run"
    code, _, output = jaxconv("train", "--model", "mlp", "--epochs", 3, "--batch-size", 128, "--run-dir", folder)
    if save == 1 and not written:  # no checkpoint, so no folder
        assert (code, output) == (130, "jaxconv: interrupted\n") and not folder.exists()
        return
    suggestion = f"jaxconv train --resume {folder} continues from the last checkpoint"
    assert (code, output) == (130, f"jaxconv: interrupted; {suggestion}\n")
    assert len(lines(folder)) == save - 1
    code, output, _ = jaxconv("train", "--resume", folder)
    assert code == 0 and f"saved in {folder}" in output
    assert saves == [*range(1, save + 1), *range(save + written, 4)]
    assert_equal_runs(folder, finished)


@pytest.fixture
def limited():
    """Return a function that limits the size of files, which simulates a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("save", [1, 2])
def test_checkpoint_on_full_disk_fails_and_resumes(jaxconv, monkeypatch, finished, tmp_path, limited, save):
    saves, save_checkpoint, folder = [], train.save_checkpoint, tmp_path / "run"

    def save_on_full_disk(folder, snapshot, *, max_to_keep):
        saves.append(snapshot.progress.epoch)
        limited(1000 if len(saves) == save else resource.RLIM_INFINITY)
        save_checkpoint(folder, snapshot, max_to_keep=max_to_keep)

    monkeypatch.setattr(train, "save_checkpoint", save_on_full_disk)
    code, _, output = jaxconv("train", "--model", "mlp", "--epochs", 3, "--batch-size", 128, "--run-dir", folder)
    previous = f"; the previous one, {folder}/checkpoints/10, is intact" if save == 2 else ""
    assert code == 2 and output == (
        f"jaxconv: error: the checkpoint {folder}/checkpoints/{save}0 cannot be written: File too large{previous}\n"
    )
    limited(resource.RLIM_INFINITY)
    assert jaxconv("train", "--resume", folder)[0] == 0
    assert_equal_runs(folder, finished)


def test_lock_on_full_disk_fails(jaxconv, tmp_path, limited):
    limited(10)
    code, _, output = jaxconv("train", "--model", "mlp", "--epochs", 1, "--run-dir", tmp_path / "run")
    assert code == 2 and output == f"jaxconv: error: {tmp_path}/run/.lock.json cannot be written: File too large\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
def test_results_on_full_disk_fail_and_resume(jaxconv, stopped, finished, limited, name):
    with pytest.MonkeyPatch.context() as patch:
        for writer in ("write_json", "write_jsonl"):
            written = getattr(runner, writer)

            def full(path, content, written=written):
                if path.name == name:
                    limited(10)
                return written(path, content)

            patch.setattr(runner, writer, full)
        code, _, output = jaxconv("train", "--resume", stopped)
    limited(resource.RLIM_INFINITY)
    assert code == 2 and output == f"jaxconv: error: {stopped / name} cannot be written: File too large\n"
    assert not list(stopped.glob("*.partial"))
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)


def test_run_killed_after_last_epoch_writes_its_result(jaxconv, stopped, finished):
    (stopped / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')  # as after a kill
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a partial checkpoint"])
def test_resume_without_checkpoint_starts_again(jaxconv, stopped, finished, left):
    partial = shutil.copytree(stopped / "checkpoints" / "20", stopped / "partial")
    shutil.rmtree(stopped / "checkpoints")
    if left != "nothing":
        (stopped / "checkpoints").mkdir()
    if left == "a partial checkpoint":
        partial.rename(stopped / "checkpoints" / "partial-10")
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)
    assert train.all_steps(stopped / "checkpoints") == [20, 30]


def test_resume_finished_run_changes_nothing(jaxconv, finished):
    folder, result = finished

    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}

    before = state()
    code, output, _ = jaxconv("train", "--resume", folder)
    assert code == 0 and f"test accuracy {result['test_accuracy']:.4f}" in output and state() == before


def test_resume_damaged_checkpoint_is_named(jaxconv, stopped, finished):
    newest = stopped / "checkpoints" / "30" / "progress.json"
    newest.write_bytes(newest.read_bytes()[:-1])
    code, _, output = jaxconv("train", "--resume", stopped)
    checkpoint = stopped / "checkpoints"
    assert code == 2 and output == (
        f"jaxconv: error: the checkpoint {checkpoint}/30 is damaged (progress.json has changed): "
        f"delete {checkpoint}/30 to use {checkpoint}/20, which is intact\n"
    )
    shutil.rmtree(checkpoint / "30")
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)


def test_resume_with_other_options_fails(jaxconv, stopped):
    other = ("--model", "lenet5", "--dataset", "mnist", "--batch-size", "64", "--epochs", "9")
    code, _, output = jaxconv("train", "--resume", stopped, *other)
    assert code == 2 and output == (
        f"jaxconv: error: {stopped} was started with --dataset digits, not mnist, --model mlp, not lenet5, "
        "--epochs 3, not 9, --batch-size 128, not 64: leave these options out, or start a new run: "
        "the learning rate schedule spans 3 epochs\n"
    )
    code, _, output = jaxconv("train", "--resume", stopped, "--recipe", "lecture")
    assert code == 2 and "train: --recipe cannot be combined with --resume\n" in output
    assert not (stopped / "result.json").exists()


def test_resume_overrides_keep_results(jaxconv, stopped, finished):
    more = ("--max-checkpoints", "1", "--num-devices", "1", "--checkpoint-minutes", "3", "--tensorboard")
    assert jaxconv("train", "--resume", stopped, *more)[0] == 0
    assert_equal_runs(stopped, finished)
    config = json.loads((stopped / "config.json").read_text())
    assert [config[name] for name in ("max_checkpoints", "num_devices", "checkpoint_minutes", "tensorboard")] == [
        1,
        1,
        3,
        True,
    ]
    assert config["data_sha256"]  # other entries are kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": None}, "is damaged: Expected `int`, got `null` - at `$.seed`"),
        ({"seed": -1}, "is damaged: Expected `int` >= 0 - at `$.seed`"),
        ({"augment": 5}, "is damaged: Expected `array | null`, got `int` - at `$.augment`"),
        ({"num_devices": "1"}, "is damaged: Expected `int | null`, got `str` - at `$.num_devices`"),
        ({"epochs": True}, "is damaged: Expected `int`, got `bool` - at `$.epochs`"),
        ({"epochs": 0}, ": fit: epochs=0 should be an int of at least 1"),
        ({"runs_dir": 5}, "is damaged: Expected `Path`, got `int` - at `$.runs_dir`"),
        ("epochs", "has no epochs: was it written by another version of jaxconv?"),
    ],
)
def test_resume_edited_config_fails(jaxconv, stopped, change, message):
    config = json.loads((stopped / "config.json").read_text())
    if isinstance(change, str):
        del config[change]
    else:
        config |= change
    (stopped / "config.json").write_text(json.dumps(config))
    code, _, output = jaxconv("train", "--resume", stopped)
    assert code == 2 and output.startswith(f"jaxconv: error: {stopped}/config.json") and message in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_resume_damaged_result_fails(jaxconv, stopped, content):
    (stopped / "result.json").write_text(content)
    code, _, output = jaxconv("train", "--resume", stopped)
    assert code == 2 and output.startswith(f"jaxconv: error: {stopped}/result.json is ") and output.count("\n") == 1
    assert output.endswith(": delete it, and --resume writes it again\n")


def test_resume_checkpoint_of_other_model_fails(jaxconv, stopped, monkeypatch):
    # As in older versions, whose snapshots lack config.json.
    monkeypatch.setattr(train, "read_extra", lambda folder: None)
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps(config | {"model": "small_cnn"}))
    code, _, output = jaxconv("train", "--resume", stopped)
    assert code == 2 and "checkpoints/30 is of another model: " in output and output.count("\n") == 1
    assert "; params/conv1/kernel: expected float32(3, 3, 1," in output


@pytest.mark.parametrize("change", ["other images", "fewer images"])
def test_resume_changed_data_fails(jaxconv, tmp_path, change):
    file, folder = tmp_path / "data.npz", tmp_path / "run"
    images, labels = examples(300, 0)

    def write(images, labels):
        np.savez(file, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])

    write(images, labels)
    config = TrainConfig(dataset=f"npz:{file}", model="mlp", epochs=1, batch_size=64, run_dir=folder)
    run_training(config, progress=False)
    (folder / "result.json").unlink()
    if change == "fewer images":
        write(images[1:], labels[1:])
    else:
        write(255 - images, labels)
    code, _, output = jaxconv("train", "--resume", folder)
    assert code == 2 and f"the data of {folder} has changed: " in output and output.endswith(": start a new run\n")


def test_resume_invalid_folder_fails(jaxconv, tmp_path, stopped):
    code, _, output = jaxconv("train", "--resume", tmp_path / "none")
    assert code == 2 and output.startswith(
        f"jaxconv: error: there is no run folder {tmp_path}/none: give one written by"
    )
    code, _, output = jaxconv("train", "--resume", tmp_path)
    assert code == 2 and output == f"jaxconv: error: {tmp_path} is not a run folder: it has no config.json\n"
    (stopped / "config.json").write_text("{")
    code, _, output = jaxconv("train", "--resume", stopped)
    assert code == 2 and f"{stopped}/config.json is not JSON" in output


def test_config_round_trips_through_json(tmp_path):
    """An option missing from config.json would change in a resumed run."""
    config = TrainConfig(
        dataset="mnist",
        model="lenet5",
        epochs=2,
        augment=("hflip", "mixup:0.2"),
        ema_decay=0.9,
        patience=3,
        checkpoint_minutes=0.5,
        run_dir=tmp_path,
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert {field.name for field in dataclasses.fields(TrainConfig)} == set(config.to_dict())


def test_train_or_resume_starts_resumes_and_reads(finished, stopped, tmp_path):
    config = TrainConfig(model="mlp", epochs=3, batch_size=128, max_checkpoints=1, run_dir=tmp_path / "new")
    folder, _ = train_or_resume(config, progress=False)
    assert folder == config.run_dir
    assert_equal_runs(folder, finished)
    written = (folder / "result.json").read_text()
    # max_checkpoints does not change results.
    folder, result = train_or_resume(dataclasses.replace(config, max_checkpoints=2), progress=False)
    assert json.dumps(result) == json.dumps(json.loads(written))

    num_checkpoints = len(list((stopped / "checkpoints").iterdir()))
    folder, _ = train_or_resume(dataclasses.replace(config, run_dir=stopped, checkpoint_minutes=3.0), progress=False)
    assert_equal_runs(folder, finished)
    assert num_checkpoints == len(list((stopped / "checkpoints").iterdir()))  # all epochs were finished
    assert json.loads((stopped / "config.json").read_text())["checkpoint_minutes"] == 3.0


@pytest.mark.parametrize(
    "change",
    [{"epochs": 4}, {"augment": ("hflip", "translate:1")}, {"seed": 1}, {"baseline_model": "mlp"}, {"ema_decay": 0.9}],
)
def test_train_or_resume_other_options_raise(finished, stopped, change):
    files = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    config = dataclasses.replace(TrainConfig(model="mlp", epochs=3, batch_size=128, run_dir=stopped), **change)
    ((name, value),) = change.items()
    requested = list(value) if isinstance(value, tuple) else value
    with pytest.raises(InputError) as error:
        train_or_resume(config, progress=False)
    saved = json.loads((stopped / "config.json").read_text())[name]
    assert str(error.value) == f"{stopped} has a run with {name}={saved!r}, not {requested!r}: give another --run-dir"
    assert files == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}


def test_train_or_resume_without_run_dir_raises():
    with pytest.raises(InputError, match=r"^train_or_resume: run_dir is None: give the folder of the run"):
        train_or_resume(TrainConfig(model="mlp"), progress=False)
