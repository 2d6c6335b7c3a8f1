"""Checkpoints come back bit for bit; damaged, missing or foreign ones are told apart from good ones."""

import signal

import jax
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, flatten, serial
from jaxconv.train import load_checkpoint, save_checkpoint
from jaxconv.train.checkpoint import _uninterrupted

MODEL = serial(Conv(3, 2), BatchNorm(), flatten, Dense(2))


def made(model=MODEL, seed=0):
    return model.init(jax.random.key(seed), (4, 4, 1))


def shapes(model=MODEL):
    return jax.eval_shape(lambda key: model.init(key, (4, 4, 1)), jax.random.key(0))


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", 3, *made())
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(tmp_path / "checkpoint", shapes()), made())


def test_only_the_newest_is_kept(tmp_path):
    folder = tmp_path / "checkpoint"
    for epoch in (1, 2, 10):
        save_checkpoint(folder, epoch, *made(seed=epoch))
    assert [path.name for path in folder.iterdir()] == ["10"]
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(folder, shapes()), made(seed=10))


def test_a_model_without_state_is_saved_too(tmp_path):
    model = serial(flatten, Dense(2))
    save_checkpoint(tmp_path / "c", 1, *made(model))
    params, state = load_checkpoint(tmp_path / "c", shapes(model))
    assert state == {} and params["dense1"]["kernel"].shape == (16, 2)


def test_a_write_that_was_cut_off_is_not_taken_for_a_checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, 1, *made(seed=1))
    (folder / "2.orbax-checkpoint-tmp-7").mkdir()
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(folder, shapes()), made(seed=1))


@pytest.mark.parametrize("name", ["none", "empty"])
def test_no_checkpoint_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no checkpoint: did its training stop before the first epoch ended\?"):
        load_checkpoint(tmp_path / name, shapes())


# orbax leaves a coroutine behind when a read fails.
UNRAISABLE = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@UNRAISABLE
def test_damage_is_said(tmp_path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, 1, *made())
    for path in (folder / "1" / "default").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"the checkpoint .*checkpoint/1 is damaged: ."):
        load_checkpoint(folder, shapes())


@UNRAISABLE
def test_a_checkpoint_without_its_index_is_damaged(tmp_path):
    save_checkpoint(tmp_path / "c", 1, *made())
    (tmp_path / "c" / "1" / "default" / "_METADATA").unlink()
    with pytest.raises(InputError, match=r"the checkpoint .*c/1 is damaged: ."):
        load_checkpoint(tmp_path / "c", shapes())


def test_another_models_checkpoint_is_refused_with_every_difference(tmp_path):
    save_checkpoint(tmp_path / "c", 1, *made())
    other = serial(Conv(3, 2), flatten, Dense(5))
    with pytest.raises(InputError, match="is of another model") as caught:
        load_checkpoint(tmp_path / "c", shapes(other))
    assert str(caught.value).split(": ")[1].split("; ") == [
        "params/bn1/bias is (3,) where nothing is wanted",
        "params/bn1/scale is (3,) where nothing is wanted",
        "params/dense1/bias is (2,) where (5,) is wanted",
        "params/dense1/kernel is (27, 2) where (27, 5) is wanted",
        "state/bn1/mean is (3,) where nothing is wanted",
        "state/bn1/var is (3,) where nothing is wanted",
    ]


def test_ctrl_c_waits_for_the_write():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with _uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("written")
    assert done == ["written"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # and comes at once again afterwards
