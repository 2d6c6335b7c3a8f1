"""What jaxconv train --resume says and does: it goes on with a run folder, or tells in one line why it cannot."""

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
    pytest.mark.usefixtures("promoting", "no_pictures"),
    pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = TrainConfig(model="mlp", epochs=3, batch_size=128, run_dir=tmp_path_factory.mktemp("runs") / "finished")
    return run_training(config, progress=False)


@pytest.fixture
def stopped(finished, tmp_path):
    """The same run, killed just before it told its result."""
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
def test_ctrl_c_and_resume(jaxconv, monkeypatch, finished, tmp_path, save, written):
    """Interrupted just before a checkpoint is written, or just after, before its line in metrics.jsonl is."""
    saves, really = [], train.save_checkpoint

    def interrupted(folder, snapshot, *, max_to_keep):
        saves.append(snapshot.progress.epoch)
        if written or len(saves) < save:
            really(folder, snapshot, max_to_keep=max_to_keep)
        if len(saves) == save:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_checkpoint", interrupted)
    folder = tmp_path / "run"
    code, _, said = jaxconv("train", "--model", "mlp", "--epochs", 3, "--batch-size", 128, "--run-dir", folder)
    if save == 1 and not written:  # nothing came of it, so nothing is left
        assert (code, said) == (130, "jaxconv: interrupted\n") and not folder.exists()
        return
    hint = f"jaxconv train --resume {folder} goes on from the last checkpoint"
    assert (code, said) == (130, f"jaxconv: interrupted; {hint}\n")
    assert len(lines(folder)) == save - 1
    code, said, _ = jaxconv("train", "--resume", folder)
    assert code == 0 and f"saved in {folder}" in said
    assert saves == [*range(1, save + 1), *range(save + written, 4)]
    assert_equal_runs(folder, finished)


@pytest.fixture
def limited():
    """Files can be no longer than a number of bytes: a disk that is full, for whoever wants more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("save", [1, 2])
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    jaxconv, monkeypatch, finished, tmp_path, limited, save
):
    saves, really, folder = [], train.save_checkpoint, tmp_path / "run"

    def full(where, snapshot, *, max_to_keep):
        saves.append(snapshot.progress.epoch)
        limited(1000 if len(saves) == save else resource.RLIM_INFINITY)
        really(where, snapshot, max_to_keep=max_to_keep)

    monkeypatch.setattr(train, "save_checkpoint", full)
    code, _, said = jaxconv("train", "--model", "mlp", "--epochs", 3, "--batch-size", 128, "--run-dir", folder)
    good = f"; the one before it, {folder}/checkpoints/10, is as it was" if save == 2 else ""
    assert code == 2 and said == (
        f"jaxconv: error: the checkpoint {folder}/checkpoints/{save}0 cannot be written: File too large{good}\n"
    )
    limited(resource.RLIM_INFINITY)
    assert jaxconv("train", "--resume", folder)[0] == 0
    assert_equal_runs(folder, finished)


def test_a_disk_that_is_full_from_the_start_is_said(jaxconv, tmp_path, limited):
    limited(10)
    code, _, said = jaxconv("train", "--model", "mlp", "--epochs", 1, "--run-dir", tmp_path / "run")
    assert code == 2 and said == f"jaxconv: error: {tmp_path}/run/.lock.json cannot be written: File too large\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
def test_a_disk_without_room_for_a_line_is_said(jaxconv, stopped, finished, limited, name):
    with pytest.MonkeyPatch.context() as patch:
        for writer in ("write_json", "write_jsonl"):
            written = getattr(runner, writer)

            def full(path, content, written=written):
                if path.name == name:
                    limited(10)
                return written(path, content)

            patch.setattr(runner, writer, full)
        code, _, said = jaxconv("train", "--resume", stopped)
    limited(resource.RLIM_INFINITY)
    assert code == 2 and said == f"jaxconv: error: {stopped / name} cannot be written: File too large\n"
    assert not list(stopped.glob("*.partial"))
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)


def test_a_run_killed_after_its_last_epoch_only_tells_its_result(jaxconv, stopped, finished):
    (stopped / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')  # as a kill may leave it
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "half a checkpoint"])
def test_a_run_without_a_checkpoint_begins_again(jaxconv, stopped, finished, left):
    half = shutil.copytree(stopped / "checkpoints" / "20", stopped / "half")
    shutil.rmtree(stopped / "checkpoints")
    if left != "nothing":
        (stopped / "checkpoints").mkdir()
    if left == "half a checkpoint":
        half.rename(stopped / "checkpoints" / "partial-10")
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)
    assert train.all_steps(stopped / "checkpoints") == [20, 30]


def test_a_finished_run_is_left_alone(jaxconv, finished):
    folder, result = finished

    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}

    before = state()
    code, said, _ = jaxconv("train", "--resume", folder)
    assert code == 0 and f"test accuracy {result['test_accuracy']:.4f}" in said and state() == before


def test_a_damaged_checkpoint_is_named_and_after_deleting_it_the_run_goes_on(jaxconv, stopped, finished):
    newest = stopped / "checkpoints" / "30" / "progress.json"
    newest.write_bytes(newest.read_bytes()[:-1])
    code, _, said = jaxconv("train", "--resume", stopped)
    checkpoint = stopped / "checkpoints"
    assert code == 2 and said == (
        f"jaxconv: error: the checkpoint {checkpoint}/30 is damaged (progress.json has changed): "
        f"delete {checkpoint}/30, and {checkpoint}/20, which is whole, is used\n"
    )
    shutil.rmtree(checkpoint / "30")
    assert jaxconv("train", "--resume", stopped)[0] == 0
    assert_equal_runs(stopped, finished)


def test_another_model_data_set_or_batch_size_is_refused(jaxconv, stopped):
    other = ("--model", "lenet5", "--dataset", "mnist", "--batch-size", "64", "--epochs", "9")
    code, _, said = jaxconv("train", "--resume", stopped, *other)
    assert code == 2 and said == (
        f"jaxconv: error: {stopped} was started with --dataset digits, not mnist, --model mlp, not lenet5, "
        "--epochs 3, not 9, --batch-size 128, not 64: leave these options out, or start a new run: "
        "the learning rate schedule spans 3 epochs\n"
    )
    code, _, said = jaxconv("train", "--resume", stopped, "--recipe", "lecture")
    assert code == 2 and "train: --recipe cannot be combined with --resume\n" in said
    assert not (stopped / "result.json").exists()


def test_what_the_numbers_do_not_depend_on_may_change(jaxconv, stopped, finished):
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
    assert config["data_sha256"]  # what else was there still is


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
def test_a_config_that_was_tampered_with_is_refused(jaxconv, stopped, change, message):
    config = json.loads((stopped / "config.json").read_text())
    if isinstance(change, str):
        del config[change]
    else:
        config |= change
    (stopped / "config.json").write_text(json.dumps(config))
    code, _, said = jaxconv("train", "--resume", stopped)
    assert code == 2 and said.startswith(f"jaxconv: error: {stopped}/config.json") and message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_result_is_said(jaxconv, stopped, content):
    (stopped / "result.json").write_text(content)
    code, _, said = jaxconv("train", "--resume", stopped)
    assert code == 2 and said.startswith(f"jaxconv: error: {stopped}/result.json is ") and said.count("\n") == 1
    assert said.endswith(": delete it, and --resume makes it again\n")


def test_a_checkpoint_of_another_model_is_refused(jaxconv, stopped, monkeypatch):
    monkeypatch.setattr(train, "read_extra", lambda folder: None)  # as of an older version, without config.json
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps(config | {"model": "small_cnn"}))
    code, _, said = jaxconv("train", "--resume", stopped)
    assert code == 2 and "checkpoints/30 is of another model: " in said and said.count("\n") == 1
    assert "; params/conv1/kernel is missing where float32(3, 3, 1," in said


@pytest.mark.parametrize("what", ["as many", "fewer"])
def test_data_that_changed_is_refused(jaxconv, tmp_path, what):
    file, folder = tmp_path / "data.npz", tmp_path / "run"
    images, labels = examples(300, 0)

    def write(images, labels):
        np.savez(file, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])

    write(images, labels)
    config = TrainConfig(dataset=f"npz:{file}", model="mlp", epochs=1, batch_size=64, run_dir=folder)
    run_training(config, progress=False)
    (folder / "result.json").unlink()
    if what == "fewer":
        write(images[1:], labels[1:])
    else:
        write(255 - images, labels)
    code, _, said = jaxconv("train", "--resume", folder)
    assert code == 2 and f"{folder} began with data whose " in said and said.endswith(": start a new run\n")


def test_what_is_no_run_folder_is_said(jaxconv, tmp_path, stopped):
    code, _, said = jaxconv("train", "--resume", tmp_path / "none")
    assert code == 2 and said.startswith(f"jaxconv: error: there is no run folder {tmp_path}/none: give one that")
    code, _, said = jaxconv("train", "--resume", tmp_path)
    assert code == 2 and said == f"jaxconv: error: {tmp_path} is not a run folder: it has no config.json\n"
    (stopped / "config.json").write_text("{")
    code, _, said = jaxconv("train", "--resume", stopped)
    assert code == 2 and f"{stopped}/config.json is not JSON" in said


def test_every_option_of_a_run_is_remembered(tmp_path):
    """What is left out of config.json would be another value in the run that goes on."""
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


def test_the_run_of_a_config_is_begun_gone_on_with_or_read(finished, stopped, tmp_path):
    config = TrainConfig(model="mlp", epochs=3, batch_size=128, max_checkpoints=1, run_dir=tmp_path / "new")
    folder, _ = train_or_resume(config, progress=False)
    assert folder == config.run_dir
    assert_equal_runs(folder, finished)
    written = (folder / "result.json").read_text()
    folder, result = train_or_resume(
        dataclasses.replace(config, max_checkpoints=2), progress=False
    )  # which changes no number
    assert json.dumps(result) == json.dumps(json.loads(written))

    before = len(list((stopped / "checkpoints").iterdir()))
    folder, _ = train_or_resume(dataclasses.replace(config, run_dir=stopped, checkpoint_minutes=3.0), progress=False)
    assert_equal_runs(folder, finished)
    assert before == len(list((stopped / "checkpoints").iterdir()))  # nothing was left to train
    assert json.loads((stopped / "config.json").read_text())["checkpoint_minutes"] == 3.0


@pytest.mark.parametrize(
    "change",
    [{"epochs": 4}, {"augment": ("hflip", "translate:1")}, {"seed": 1}, {"baseline_model": "mlp"}, {"ema_decay": 0.9}],
)
def test_a_folder_in_which_something_else_was_asked_for_is_left_alone(finished, stopped, change):
    files = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    config = dataclasses.replace(TrainConfig(model="mlp", epochs=3, batch_size=128, run_dir=stopped), **change)
    ((name, value),) = change.items()
    asked = list(value) if isinstance(value, tuple) else value
    with pytest.raises(InputError) as refused:
        train_or_resume(config, progress=False)
    then = json.loads((stopped / "config.json").read_text())[name]
    assert str(refused.value) == f"{stopped} holds a run with {name}={then!r}, not {asked!r}: give another --run-dir"
    assert files == {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}


def test_a_run_that_is_to_be_found_again_needs_a_folder():
    with pytest.raises(InputError, match=r"^train_or_resume: the run needs a folder of its own: give run_dir"):
        train_or_resume(TrainConfig(model="mlp"), progress=False)
