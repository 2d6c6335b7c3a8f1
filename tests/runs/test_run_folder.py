"""Run folders that are damaged, edited, symbolic links or removed: every command fails with one line."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxconv import InputError, data, train
from jaxconv.runs import TrainConfig, evaluate_run, load_run, resume_training, run_training, runner
from jaxconv.runs.lock import lock_run
from jaxconv.utils import files

pytestmark = [
    pytest.mark.usefixtures("promoting", "no_figures"),
    pytest.mark.filterwarnings("ignore:.*the best epoch is chosen on"),
]
REMOVED = object()
OPTIONS = {"model": "mlp", "epochs": 2, "batch_size": 128}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_training(TrainConfig(**OPTIONS, run_dir=tmp_path_factory.mktemp("runs") / "run"), progress=False)


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray(data.load("digits").test.images[0, :, :, 0]).save(path)
    return path


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


def edit(name, **changes):
    """Return a function that changes entries of a JSON file; REMOVED removes one."""

    def mutate(folder):
        content = json.loads((folder / name).read_text())
        for key, value in changes.items():
            if value is REMOVED:
                del content[key]
            else:
                content[key] = value
        (folder / name).write_text(json.dumps(content))

    return mutate


def write(name, content):
    """Return a function that replaces a file."""
    return lambda folder: (folder / name).write_bytes(content)


def replace(name, create):
    """Return a function that replaces a file by something that is not a regular file."""

    def mutate(folder):
        path = folder / name
        path.unlink()
        create(path)

    return mutate


def lines(change):
    """Return a function that changes the lines of metrics.jsonl."""

    def mutate(folder):
        path = folder / "metrics.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return mutate


def without_saved_config(mutate):
    """Return a function that mutates a run of an older version, whose snapshots do not include config.json."""

    def mutate_old_run(folder):
        mutate(folder)
        for path in folder.glob("checkpoints/*/progress.json"):
            content = json.loads(path.read_text())
            del content["extra"]
            path.write_text(json.dumps(content))
            manifest = json.loads(path.with_name("manifest.json").read_text())
            manifest["progress.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
            path.with_name("manifest.json").write_text(json.dumps(manifest))

    return mutate_old_run


DEEP = b"[" * 200_000 + b"]" * 200_000
READERS = ("predict", "eval", "explain")
ALL = (*READERS, "resume")

# Mutation of the folder, the commands that reject it, and a part of their message.
CORRUPTIONS = {
    "config gone": (lambda f: (f / "config.json").unlink(), ALL, "is not a run folder: it has no config.json"),
    "config empty": (write("config.json", b""), ALL, "config.json is not JSON"),
    "config partial": (write("config.json", b'{"dataset": "dig'), ALL, "config.json is not JSON"),
    "config zeroed": (write("config.json", bytes(900)), ALL, "config.json is not JSON"),
    "config no UTF-8": (write("config.json", b"\xff\xfe{}"), ALL, "config.json is not JSON"),
    "config nested": (write("config.json", DEEP), ALL, "config.json is "),
    "config nested in an entry": (write("config.json", b'{"dataset": ' + DEEP + b"}"), ALL, "config.json is "),
    "config {}": (write("config.json", b"{}"), ALL, "config.json is damaged: Object missing required field `dataset`"),
    "config a list": (write("config.json", b"[]"), ALL, "Expected `object`, got `array`"),
    "config NaN": (write("config.json", b'{"dataset": NaN}'), ALL, "NaN is not a JSON number"),
    "config infinite": (write("config.json", b'{"dataset": 1e999}'), ALL, "1e999 is not a JSON number"),
    "config a folder": (replace("config.json", Path.mkdir), ALL, "config.json is not a file"),
    "config a pipe": (replace("config.json", os.mkfifo), ALL, "config.json is not a file"),
    "config a device": (replace("config.json", lambda p: p.symlink_to("/dev/zero")), ALL, "config.json is not a file"),
    "config endless": (write("config.json", b" " * (2**26 + 1)), ALL, "config.json is larger than 67,108,864 bytes"),
    "input_shape zero": (edit("config.json", input_shape=[0, 0, 1]), ALL, "Expected `int` >= 1 - at `$.input_shape["),
    "input_shape huge": (edit("config.json", input_shape=[10**5, 10**5, 1]), ALL, "Expected `int` <= 16384"),
    "input_shape short": (edit("config.json", input_shape=[8, 8]), ALL, "Expected `array` of length 3, got 2"),
    "input_shape other": (
        edit("config.json", input_shape=[8, 8, 5]),
        ALL,
        "has input_shape=[8, 8, 5], but the run was trained",
    ),
    "image_shape other": (edit("config.json", image_shape=[9, 9, 1]), ALL, "has image_shape=[9, 9, 1], but the"),
    "input_shape large, old": (
        without_saved_config(edit("config.json", input_shape=[9000, 9000, 1])),
        READERS,
        "input_shape=[9000, 9000, 1], but mlp takes images [8, 8, 1] as [8, 8, 1]",
    ),
    "channels, old": (
        without_saved_config(edit("config.json", input_shape=[8, 8, 5], image_shape=[8, 8, 5])),
        READERS,
        "is of another model: ",
    ),
    "classes swapped": (edit("config.json", class_names=[*"1023456789"]), ALL, "has class_names=['1', '0', '2'"),
    "classes empty": (edit("config.json", class_names=[]), ALL, "Expected `array` of length >= 1 - at `$.class_names`"),
    "classes numbers": (
        edit("config.json", class_names=[0, 1]),
        ALL,
        "Expected `str`, got `int` - at `$.class_names[0]`",
    ),
    "model other": (edit("config.json", model="small_cnn"), ALL, "has model='small_cnn', but the run was trained with"),
    "model unknown, old": (without_saved_config(edit("config.json", model="lenet")), READERS, "unknown model 'lenet'"),
    "seeds huge": (edit("config.json", num_seeds=10**20), ALL, "at `$.num_seeds`"),
    "seeds other": (edit("config.json", num_seeds=3), ALL, "has num_seeds=3, but the run was trained with num_seeds=1"),
    "seeds a bool": (edit("config.json", num_seeds=True), ALL, "Expected `int`, got `bool` - at `$.num_seeds`"),
    "hashes other": (edit("config.json", data_sha256={"test images": "0"}), ALL, "has data_sha256={'test images':"),
    "result partial": (write("result.json", b"{"), ("explain", "finished"), "result.json is not JSON"),
    "result {}": (write("result.json", b"{}"), ("explain", "finished"), "delete it, and --resume writes it again"),
    "result lacks": (edit("result.json", device=REMOVED), ("explain", "finished"), "missing required field `device`"),
    "result beyond": (edit("result.json", test_accuracy=2), ("explain", "finished"), "Expected `float` <= 1.0"),
    "result without std": (
        edit("result.json", test_accuracy_per_seed=[0.5]),
        ("explain", "finished"),
        "no test_accuracy_std",
    ),
    "result nested": (write("result.json", DEEP), ("explain", "finished"), "result.json is "),
    "result gone": (lambda f: (f / "result.json").unlink(), ("explain",), "has no result.json: its training did not"),
    "metrics gone": (lambda f: (f / "metrics.jsonl").unlink(), ("explain",), "has no metrics.jsonl: delete "),
    "metrics short": (lines(lambda lines: lines[:1]), ("explain",), "is damaged: it has 1 lines for 2 epochs"),
    "metrics torn": (lines(lambda lines: [lines[0], lines[1][:20]]), ("explain",), "line 2 of "),
    "metrics twice": (lines(lambda lines: [lines[0], lines[0]]), ("explain",), "is damaged: it is of epoch 1"),
    "metrics lacks": (lines(lambda lines: [lines[0], '{"epoch": 2}\n']), ("explain",), "missing required field `loss`"),
    "metrics text": (lines(lambda lines: [lines[0], lines[1].replace(": ", ': "x')]), ("explain",), "line 2"),
    "newest gone": (
        lambda f: shutil.rmtree(f / "checkpoints" / "20"),
        READERS,
        "has other parameters than ",
    ),
    "newest renamed": (
        lambda f: (f / "checkpoints" / "10").rename(f / "checkpoints" / "99"),
        READERS,
        "checkpoints/99 is that of step 10: rename it back",
    ),
    "no checkpoint": (lambda f: shutil.rmtree(f / "checkpoints"), READERS, "has no checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_damaged_run_fails_with_one_line(jaxconv, folder, digit, name):
    mutate, commands, message = CORRUPTIONS[name]
    mutate(folder)
    lines = {command: [command, folder] for command in READERS} | {"predict": ["predict", folder, digit]}
    for command in commands:
        if command == "resume":
            (folder / "result.json").unlink(missing_ok=True)
        code, _, output = jaxconv(*lines.get(command, ["train", "--resume", folder]))
        assert code == 2 and output.startswith("jaxconv: error: ") and output.count("\n") == 1, (command, output)
        assert message in output and str(folder) in output, (command, output)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"learning_rate": 0.1},
        {"schedule": "constant"},
        {"label_smoothing": 0.5},
        {"augment": ["hflip"]},
        {"dtype": "bfloat16"},
        {"epochs": 3},
        {"batch_size": 64},
        {"optimizer": "sgd"},
        {"ema_decay": 0.9},
        {"patience": 1},
        {"streaming": True},
        {"num_examples": {"train": 1, "validation": 1, "test": 1}},
    ],
    ids=str,
)
def test_resume_edited_option_fails(jaxconv, folder, change):
    """Each of these changes would silently train another network."""
    (folder / "result.json").unlink()
    ((name, value),) = change.items()
    original = json.loads((folder / "config.json").read_text())[name]
    edit("config.json", **change)(folder)
    code, _, output = jaxconv("train", "--resume", folder)
    assert code == 2 and output == (
        f"jaxconv: error: {folder}/config.json has {name}={value!r}, but the run was trained with {name}={original!r}: "
        "restore the file\n"
    )
    edit("config.json", **{name: original})(folder)
    assert jaxconv("train", "--resume", folder)[0] == 0


def test_run_of_older_version_can_be_read(jaxconv, folder, digit):
    before = load_run(folder)
    without_saved_config(edit("config.json", data_sha256=REMOVED, sha256="older version"))(folder)
    assert jaxconv("predict", folder, digit)[0] == 0
    after = load_run(folder)
    assert train.tree_sha256(after.params) == train.tree_sha256(before.params)
    assert not evaluate_run(after)["test_data_changed"]
    (folder / "result.json").unlink()
    code, _, output = jaxconv("train", "--resume", folder)
    assert code == 2 and "config.json has no data_sha256" in output


FILES = (
    "config.json",
    "metrics.jsonl",
    "result.json",
    "classification_report.json",
    "training_curves.png",
    "misclassified.png",
    "confusion_matrix.png",
)


def test_symbolic_links_in_a_run_are_replaced(jaxconv, folder, tmp_path):
    """Every file of the run is a symbolic link, and so are the names of possible temporary files."""
    (folder / "result.json").unlink()
    shutil.copytree(folder, tmp_path / "plain")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in (*FILES, "evaluation.json", ".lock.json", "evaluation.partial", "config.partial", "result.partial"):
        target = outside / name
        target.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"precious")
        (folder / name).unlink(missing_ok=True)
        if name != "result.json":
            (folder / name).symlink_to(target)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    assert jaxconv("eval", folder)[0] == 0
    assert jaxconv("train", "--resume", folder)[0] == 0
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before
    assert not any((folder / name).is_symlink() for name in (*FILES, "evaluation.json"))
    assert json.loads((folder / "evaluation.json").read_text())["num_examples"] == 360


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "baseline", ".lock"])
def test_linked_subfolder_fails(jaxconv, folder, tmp_path, name):
    (folder / "result.json").unlink()
    outside = tmp_path / "outside"
    if name == "checkpoints":
        (folder / name).rename(outside)
    elif name == ".lock":
        outside.write_text("precious")
        (folder / name).unlink()
    else:
        outside.mkdir()
    (folder / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    code, _, output = jaxconv("train", "--resume", folder, *(["--tensorboard"] if name == "tensorboard" else []))
    assert code == 2 and f"{folder}/{name} is a symbolic link" in output and output.count("\n") == 1
    assert sorted(outside.rglob("*")) == before and (outside.is_dir() or outside.read_text() == "precious")


def test_explain_linked_output_folder_fails(jaxconv, folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (folder / "explain").symlink_to(tmp_path / "outside")
    code, _, output = jaxconv("explain", folder)
    assert code == 2 and f"{folder}/explain is a symbolic link" in output and not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("change", ["removed", "replaced", "moved"])
def test_training_stops_if_its_folder_is_gone(jaxconv, monkeypatch, tmp_path, change):
    folder, save_checkpoint, saves = tmp_path / "run", train.save_checkpoint, []

    def save(checkpoints, snapshot, *, max_to_keep):
        save_checkpoint(checkpoints, snapshot, max_to_keep=max_to_keep)
        saves.append(checkpoints)
        if change == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        if change == "replaced":
            shutil.copytree(tmp_path / "elsewhere", folder)
            (folder / ".lock.json").write_text('{"host": "another", "process": 1, "since": "now"}')

    monkeypatch.setattr(train, "save_checkpoint", save)
    code, out, output = jaxconv("train", "--model", "mlp", "--epochs", 3, "--batch-size", 128, "--run-dir", folder)
    assert code == 2 and "saved in" not in out and len(saves) == 1
    assert f"the run folder {folder} was removed, moved or replaced during training" in output
    assert (folder / "metrics.jsonl").exists() == (change == "replaced")
    if change == "replaced":
        assert not (folder / "metrics.jsonl").read_text()  # nothing is written into the other run
    if change == "moved":
        monkeypatch.setattr(train, "save_checkpoint", save_checkpoint)
        assert jaxconv("train", "--resume", tmp_path / "elsewhere")[0] == 0


def test_folder_removed_in_the_last_epoch_fails(jaxconv, monkeypatch, tmp_path):
    folder, append = tmp_path / "run", files.append_jsonl

    def remove(path, record):
        append(path, record)
        if record["epoch"] == 2:
            shutil.rmtree(folder)

    monkeypatch.setattr(runner, "append_jsonl", remove)
    code, out, output = jaxconv("train", "--model", "mlp", "--epochs", 2, "--batch-size", 128, "--run-dir", folder)
    assert code == 2 and "saved in" not in out and f"the run folder {folder} was removed" in output
    assert not folder.exists()


def test_finished_run_restores_lost_metrics_lines(monkeypatch, tmp_path, jaxconv):
    folder, append = tmp_path / "run", files.append_jsonl

    def lose(path, record):
        append(path, record)
        path.unlink()

    monkeypatch.setattr(runner, "append_jsonl", lose)
    assert jaxconv("train", "--model", "mlp", "--epochs", 2, "--batch-size", 128, "--run-dir", folder)[0] == 0
    assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def images_file(path, change=None):
    """Write 1,000 random training images; ``change`` flips one bit, also outside of the hashed sample."""
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 256, (count, 6, 6, 1), np.uint8) for split, count in COUNTS.items()}
    arrays |= {f"y_{split}": np.arange(count) % 3 for split, count in COUNTS.items()}
    if change:
        name, index = change
        arrays[name][index] ^= 1
    np.savez(path, **arrays)


COUNTS = {"train": 1000, "val": 60, "test": 60}


@pytest.fixture
def npz_run(tmp_path):
    """Run folder of a training on an npz file."""
    images_file(tmp_path / "data.npz")
    config = TrainConfig(f"npz:{tmp_path / 'data.npz'}", **OPTIONS | {"epochs": 1}, run_dir=tmp_path / "npz_run")
    return run_training(config, progress=False)[0]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("x_train", (501, 3, 3, 0)), "training images"),
        (("x_val", (7, 0, 0, 0)), "validation images"),
        (("x_test", (7, 0, 0, 0)), "test images"),
        (("y_train", 3), "training labels"),
    ],
)
def test_one_changed_bit_of_the_data_is_detected(jaxconv, npz_run, tmp_path, change, part):
    (npz_run / "result.json").unlink()
    images_file(tmp_path / "data.npz", change)
    code, _, output = jaxconv("train", "--resume", npz_run)
    assert code == 2 and output.startswith(f"jaxconv: error: the data of {npz_run} has changed: ") and part in output
    assert output.endswith(": start a new run\n")
    code, _, output = jaxconv("eval", npz_run)
    warned = output == (
        "jaxconv: warning: the test images differ from those of the training run, so scores may differ\n"
    )
    assert code == 0 and warned == (part == "test images") and (warned or not output)
    assert json.loads((npz_run / "evaluation.json").read_text())["test_data_changed"] == warned


def test_eval_data_of_another_shape_fails(jaxconv, npz_run, tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.ones((90, 6, 6, 3), np.uint8), y_train=np.arange(90) % 3,
             x_test=np.ones((60, 6, 6, 3), np.uint8), y_test=np.arange(60) % 3)  # fmt: skip
    code, _, output = jaxconv("eval", npz_run)
    assert code == 2 and "config.json has image_shape=[6, 6, 1], but the images of npz:" in output


@pytest.fixture
def streamed(tmp_path):
    """Run folder of a training on streamed image files, without its result, and the folder of the images."""
    rng, images = np.random.default_rng(0), tmp_path / "images"
    for i in range(400):
        path = images / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).save(path, compress_level=0)  # all of one size
    config = TrainConfig(
        f"folder:{images}", **OPTIONS | {"epochs": 1, "batch_size": 64}, streaming=True, run_dir=tmp_path / "run"
    )
    folder, _ = run_training(config, progress=False)
    (folder / "result.json").unlink()
    return folder, images


def test_changed_streamed_images_are_detected(jaxconv, streamed):
    folder, images = streamed
    parts = json.loads((folder / "config.json").read_text())["data_sha256"]
    assert set(parts) == {
        "training files", "training file times", "training labels", "sample of the training images",
        "validation images", "test images",
    }  # fmt: skip
    lazy = data.load(f"folder:{images}", streaming=True).train
    sample = set(np.linspace(0, len(lazy) - 1, 256).astype(int).tolist())
    path = images / lazy.items[next(i for i in range(len(lazy)) if i not in sample)]
    os.utime(path, (1, 1))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        resume_training(folder, progress=False)
    assert len(warned) == 1 and "modification times of the training files have changed since" in str(warned[0].message)
    (folder / "result.json").unlink()
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(path)
    code, _, output = jaxconv("train", "--resume", folder)
    assert code == 2 and f"the data of {folder} has changed: training files: start" in output


HOLD = """
import sys, time
from pathlib import Path
from jaxconv.runs.lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(folder):
    """Another process that holds the lock of the run folder."""
    (folder / "result.json").unlink()
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_locked_run_names_the_lock_owner(jaxconv, folder, digit, holder):
    owner = f"process {holder.pid} on {socket.gethostname()}, since {time.strftime('%Y-')}"
    for _ in range(2):  # a failed attempt does not release the lock
        code, _, output = jaxconv("train", "--resume", folder)
        assert code == 2 and output.startswith(f"jaxconv: error: {folder} is locked by {owner}")
        assert output.endswith(": wait until it ends, or stop it\n")
    assert jaxconv("predict", folder, digit)[0] == jaxconv("eval", folder)[0] == 0  # reading takes no lock


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_lock_of_dead_process_is_released(jaxconv, folder, holder, sent):
    holder.send_signal(sent)
    holder.wait(60)
    assert jaxconv("train", "--resume", folder)[0] == 0
    assert (folder / "result.json").exists() and not (folder / ".lock.json").exists()


def test_second_run_in_one_folder_fails(tmp_path):
    """The second run fails and does not change the files of the first."""
    folder = tmp_path / "run"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is locked by process {process.pid} on "):
            run_training(TrainConfig(**OPTIONS, run_dir=folder), progress=False)
        assert sorted(path.name for path in folder.iterdir()) == [".lock", ".lock.json"]
    finally:
        process.kill()
        process.communicate()
    assert run_training(TrainConfig(**OPTIONS, run_dir=folder), progress=False)[0] == folder


def test_lock_is_released_after_an_error(folder):
    with pytest.raises(RuntimeError), lock_run(folder):
        raise RuntimeError
    with lock_run(folder) as lock:
        lock.check()
    assert not (folder / ".lock.json").exists()


def test_file_system_without_locks_warns(folder, monkeypatch):
    monkeypatch.setattr("filelock.FileLock.acquire", lambda lock: (_ for _ in ()).throw(OSError(95, "not supported")))
    with (
        pytest.warns(UserWarning, match="has no locks: make sure that only one process writes it"),
        lock_run(folder) as lock,
    ):
        lock.check()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_run_can_be_read(jaxconv, folder, digit):
    folder.chmod(0o555)
    try:
        assert jaxconv("predict", folder, digit)[0] == 0
        assert jaxconv("train", "--resume", folder)[0] == 0  # finished runs are only read
    finally:
        folder.chmod(0o755)
