"""CIFAR-10 on a CPU: the network that learns in a browser, one without pooling, and one that learns differences.

Claim (lecture rows 004-13, 001-13, 003-20): all three learn it, from images that are mirrored and moved. The network of
the ConvNetJS demo (22,466 parameters) gains from averaging over ten views of each test image; the All-Convolutional
Net (Springenberg et al., 2014; here half as wide and without dropout, 343,882 parameters) does without pooling and
dense layers; and ResNet-20 (He et al., 2015; 269,722) comes furthest. Each has so many epochs as fit into the
time and not as many as in its paper, so none reaches what that tells: an error of 7.25 % by All-CNN-C in 350 epochs, of
8.75 % by ResNet-20 in 182.

Measured with one seed (cpu (Linux x86_64, 2 cores), jax 0.10.2, 117 min of processor time): Test accuracy on CIFAR-10
whose pictures went through JPEG once: convnetjs 0.7352 after 40 epochs (over ten views 0.7728), all_cnn_c_48 0.8047
after 25 epochs, resnet20 0.8508 after 20 epochs.

    python experiments/cifar10.py                        # an hour on 2 cores
    python experiments/cifar10.py                        # again, if it was killed: it goes on from its last checkpoint
    python experiments/cifar10.py --networks convnetjs   # six minutes
    python experiments/cifar10.py --smoke                # the embedded digits, one network: seconds, and no evidence

Measured was with CIFAR-10 whose pictures went through JPEG once: the same photographs, but not the official bytes, and
harder to tell apart. A recipe that by its author's word gets 94 % of the official test images right got 90 % of these
(cifar10_speedrun.py). ``--data-note`` puts such a remark into the sentence above.

Each network's run folder, with its curves and its mistakes, is in runs/cifar10; ``jaxconv explain`` makes a page of
it. One seed tells nothing of small differences, and these networks have different recipes. That a convolution with a
stride can take a pooling's place is measured by pooling.py, and what a shortcut is for by residual.py.

The epochs are those that fit into an hour, and the rates are usual ones that were not searched for: Adam's for the two
networks without batch norm, and for ResNet-20 Nesterov's momentum, the paper's highest rate and a weight decay of
0.0005, all in one cycle. The All-Convolutional Net's dropout was left out after one trial: in four epochs of 10,000
images it learned much less with it, on validation too. The last 5,000 training images are for validation, on which the
best epoch is chosen; the test images are scored once.

On a GPU (NVIDIA H100, jax 0.11.2) ResNet-20 goes through the training images in a second: ``--networks resnet20
--epochs 182``, stopped in its 173rd epoch, got 0.890 of the validation images right by then.
"""

import dataclasses
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from common import plots
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import checks
from jaxconv.errors import error_context
from jaxconv.runs import TrainConfig, evaluate_run, load_run, train_or_resume

RECIPES: dict[str, dict[str, Any]] = {
    "convnetjs": {"epochs": 40, "batch_size": 64, "augment": ("hflip", "translate:2")},
    "all_cnn_c_48": {"epochs": 25, "batch_size": 128, "learning_rate": 1e-3},
    "resnet20": {
        "epochs": 20,
        "batch_size": 128,
        "optimizer": "nesterov",
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
    },
}
# Test-time augmentation, as far as in training.
VIEWS: dict[str, dict[str, Any]] = {"convnetjs": {"tta_flip": True, "tta_translate": 2}}
ACCURACIES = {"validation": "val_accuracy", "test accuracy": "test_accuracy", "over ten views": "views_accuracy"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """CIFAR-10."""

    SMOKE = {"networks": ("convnetjs",), "dataset": "digits", "epochs": 2}

    num_seeds: int = 1
    """Trainings of each network, from seed 0 on; what is told is their mean ± standard deviation."""
    networks: tuple[str, ...] = tuple(RECIPES)
    """What is trained, by name."""
    dataset: str = "cifar10"
    """What is learned."""
    epochs: int | None = None
    """How often each network goes through the training images; by default 40, 25 and 20: 6, 28 and 25 minutes."""
    data_note: str = ""
    """What is to be known of the images, such as that they are not the official ones."""


def measure(config: Config, progress: Progress) -> StudyResult:
    for name in config.networks:
        with error_context("cifar10"):
            checks.one_of("network", name, RECIPES)
    networks: dict[str, dict[str, Any]] = {}
    histories: dict[str, list[Any]] = {}
    runs = [(name, seed) for name in config.networks for seed in range(config.num_seeds)]
    for name, seed in progress.track(runs, "training {0[0]}, seed {0[1]}"):
        asked = config_of(config, name, seed)
        if config.smoke:
            shutil.rmtree(str(asked.run_dir), ignore_errors=True)  # which tries it anew
        folder, result = train_or_resume(asked, progress=False)
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        histories.setdefault(name, []).append([json.loads(line) for line in lines])
        found = networks.setdefault(name, {"parameters": result["num_params"]})
        found.setdefault("epochs", []).append(result["epochs_run"])
        for what in ("val_accuracy", "test_accuracy", "best_epoch", "train_seconds"):
            found.setdefault(what, []).append(result[what])
        if name in VIEWS:
            found.setdefault("views_accuracy", []).append(evaluate_run(load_run(folder), **VIEWS[name])["accuracy"])
    rows = [
        (
            name,
            f"{found['parameters']:,}",
            found["epochs"][0],
            *(mean_std(found[what]) if what in found else "" for what in ACCURACIES.values()),
            f"{statistics.fmean(found['train_seconds']) / 60:.0f} min",
        )
        for name, found in networks.items()
    ]
    kept = {name: found["best_epoch"] for name, found in networks.items()}
    figure = plots.metric_vs_epoch(histories, kept=kept, title=config.dataset)
    headings = ("network", "parameters", "epochs", *ACCURACIES, "a training")
    return StudyResult(
        {"note": config.data_note, "networks": networks}, {"cifar10": figure}, [results_table("", headings, rows)]
    )


def config_of(config: Config, name: str, seed: int) -> TrainConfig:
    """What is asked of a network, and where its run is."""
    recipe = RECIPES[name] | ({} if config.epochs is None else {"epochs": config.epochs})
    out = (config.output_dir or Path("runs/cifar10")) / f"{config.dataset}-{name}-{seed}"
    return TrainConfig(dataset=config.dataset, model=name, seed=seed, run_dir=out, **recipe)


def summarize_results(results: dict[str, Any]) -> str:
    def one(name: str, found: dict[str, Any]) -> str:
        views = f" (over ten views {mean_std(found['views_accuracy'])})" if "views_accuracy" in found else ""
        return f"{name} {mean_std(found['test_accuracy'])} after {found['epochs'][0]} epochs{views}"

    each = ", ".join(one(name, found) for name, found in results["networks"].items())
    note = f" on {results['note']}" if results["note"] else ""
    return f"Test accuracy{note}: {each}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
