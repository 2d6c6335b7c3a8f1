"""Invalid options raise the same errors on the command line and in Python, before any file is read."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxconv import InputError
from jaxconv.runs import TrainConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience=0 should be an int of at least 1"),
        ({"checkpoint_minutes": float("nan")}, "checkpoint_minutes must be a finite number >= 0, got nan"),
        ({"checkpoint_minutes": float("inf")}, "checkpoint_minutes must be a finite number >= 0, got inf"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes must be a finite number >= 0, got -1"),
        ({"num_seeds": 10**20}, "num_seeds must be at most 1,000 .*, got num_seeds=100000000000000000000, seed=0"),
        ({"num_seeds": 2, "seed": 2**32 - 1}, r"seed \+ num_seeds at most 2³², got num_seeds=2, seed=4294967295"),
        ({"seed": [1, 2]}, r"seed=\[1, 2\] should be an int of at least 0"),
        ({"grad_accumulation": 64}, "grad_accumulation must be at most batch_size=32, got 64"),
        ({"max_checkpoints": 0}, "max_checkpoints=0 should be an int of at least 1"),
        ({"num_devices": 0}, "num_devices=0 should be an int of at least 1"),
        ({"augment": ("hflip", "hflip")}, "augmentation 'hflip' is given 2 times"),
        ({"augment": ("translate:0",)}, "augmentation 'translate:0' has no effect"),
        ({"augment": ("",)}, "unknown augmentation ''"),
        ({"learning_rate": 1e-60}, "learning_rate=1e-60 should be a positive number"),
        ({"learning_rate": 1e60}, r"learning_rate=1e\+60 should be a positive number"),
        ({"streaming": "no"}, "streaming='no' should be True or False"),
        ({"runs_dir": "runs"}, "runs_dir must be a pathlib.Path, got 'runs'"),
        ({"dataset": 3}, "dataset must be a name, such as 'digits', got 3"),
    ],
)
def test_config_validate_rejects_invalid_options(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**options).validate()


MESSAGES = {
    "train --recipe=": "train: --recipe is empty: give it a value, or leave it out",
    "train --checkpoint-minutes nan": "train: --checkpoint-minutes must be a number from -4,294,967,296 to",
    "train --checkpoint-minutes inf": "train: --checkpoint-minutes must be a number",
    f"train --num-seeds {10**20}": "train: --num-seeds must be a number",
    "train --epochs 3 --epochs=4": "train: --epochs is repeated: give it once",
    "train --streaming --no-streaming": "train: --streaming and --no-streaming contradict each other: leave one out",
    "train --dataset ./small": "unknown dataset './small': to load these files, write folder:./small",
    f"summary mlp --num-classes {10**20}": "summary: --num-classes must be a number",
    "summary mlp --num-classes 4000000000": "summary: --num-classes must be from 1 to 1,000,000, got 4000000000",
    "summary mlp --num-classes 0": "summary: --num-classes must be from 1 to 1,000,000, got 0",
    "summary mlp --input-shape 1000000 1000000 1": "input_shape must have at most 2³¹ − 1 values, got (1000000,",
    "summary small": "small is not a run folder: it has no config.json",
    "train --resume run --epochs 20": "run was started with --epochs 12, not 20: leave these options out, or",
    "train --resume run --max-checkpoints 0": "train: max_checkpoints=0 should be an int of at least 1",
}


@pytest.mark.parametrize("line", MESSAGES)
def test_cli_rejects_invalid_options(jaxconv, line):
    Path("small").mkdir()
    Path("run").mkdir()
    config = {"image_shape": [8, 8, 1], "input_shape": [8, 8, 1], "class_names": ["a", "b"]}
    Path("run/config.json").write_text(json.dumps(TrainConfig().to_dict() | config))
    Path("run/result.json").write_text(json.dumps({"test_accuracy": 0.5}))
    code, _, err = jaxconv(line)
    assert code == 2 and err.startswith(f"jaxconv: error: {MESSAGES[line]}") and err.count("\n") == 1


def test_cli_rejects_empty_arguments(capsys):
    from jaxconv import cli

    for arguments in (["train", "--run-dir", ""], ["train", ""], ["predict", "run", ""]):
        assert cli.main(arguments) == 2
        assert "is empty: give it a value, or leave it out" in capsys.readouterr().err


def test_config_validate_checks_option_types():
    """No field accepts an arbitrary object."""
    for field in dataclasses.fields(TrainConfig):
        with pytest.raises(InputError):
            TrainConfig(**{field.name: object()}).validate()
