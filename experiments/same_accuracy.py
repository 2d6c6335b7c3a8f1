"""Whether the choice of convolutions costs accuracy: the same seeds trained by ``impl="auto"`` and by ``impl="lax"``.

Claim: none is lost. Both compute the same sums in another order, so that from the first step on they differ by
rounding, and training makes two different networks of that; over seeds their test accuracies differ by no more than
chance has them differ. Measured on 2 CPU cores with jax 0.10.2, seeds 0 to 4: small_cnn on the digits gets the same
0.9872 both ways, seed by seed; mnist_cnn on MNIST 0.9932 ± 0.0009 by auto and 0.9931 ± 0.0007 by lax, which differ by
+0.0001 with a standard error of 0.0003. (MNIST's before the last change of how a step is compiled, which rounds
otherwise and moves single networks by as much.)

    python experiments/same_accuracy.py                    # two to three minutes on 2 cores
    python experiments/same_accuracy.py --dataset mnist    # mnist_cnn by --recipe fast: an hour, nearly all of it lax
    python experiments/same_accuracy.py --smoke            # two seeds, two epochs: seconds, and no evidence

The test images are scored once a network, and nothing is chosen by them.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from jaxconv import data, models, runtime, train
from jaxconv.errors import InputError
from jaxconv.experiment import RECIPES, TrainConfig, write_json

IMPLS = ("auto", "lax")


@dataclasses.dataclass(frozen=True)
class Config:
    """Whether the choice of convolutions costs accuracy."""

    seeds: int = 5
    """Networks of each kind, from seed 0 on."""
    dataset: Literal["digits", "mnist"] = "digits"
    """What to train on: the digits as jaxconv train does, or MNIST by the fast recipe."""
    smoke: bool = False
    """Two seeds and two epochs, to see that it runs."""
    out: Path = Path("runs/same_accuracy")
    """Folder for same_accuracy.json."""


def main(config: Config) -> None:
    runtime.tune()
    asked = TrainConfig() if config.dataset == "digits" else TrainConfig(dataset="mnist", **RECIPES["fast"])
    if config.smoke:
        config, asked = dataclasses.replace(config, seeds=2), dataclasses.replace(asked, epochs=2)
    if config.seeds < 2:
        raise InputError(f"same_accuracy: seeds={config.seeds} has no deviation: give 2 or more")
    dataset = data.load(asked.dataset)
    rows: list[dict[str, Any]] = []
    report = {"device": runtime.device_name(), "versions": runtime.versions(), "rows": rows}
    config.out.mkdir(parents=True, exist_ok=True)
    with Console(stderr=True).status("") as status:
        for seed in range(config.seeds):
            for impl in IMPLS:
                status.update(f"{asked.dataset}, {asked.model}: seed {seed} of {config.seeds}, {impl}")
                rows.append({"seed": seed, "impl": impl, **trained(asked, dataset, impl, seed)})
                write_json(config.out / "same_accuracy.json", report)  # a run of an hour may be stopped
    by_impl = {impl: [row["test_accuracy"] for row in rows if row["impl"] == impl] for impl in IMPLS}
    differences = [auto - lax for auto, lax in zip(*by_impl.values(), strict=True)]
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    table = Table(title=f"test accuracy of {asked.model} on {asked.dataset}", title_justify="left")
    for heading in ("seed", *IMPLS, "difference"):
        table.add_column(heading, justify="right")
    for seed, (auto, lax) in enumerate(zip(*by_impl.values(), strict=True)):
        table.add_row(str(seed), f"{auto:.4f}", f"{lax:.4f}", f"{auto - lax:+.4f}")
    Console().print(table)
    for impl, each in by_impl.items():
        seconds = statistics.median(row["train_seconds"] for row in rows if row["impl"] == impl)
        print(
            f"{impl}: {statistics.fmean(each):.4f} ± {statistics.stdev(each):.4f}, training in {seconds:.1f} s (median)"
        )
    print(f"auto − lax: {mean:+.4f}, with a standard error of {error:.4f}")
    write_json(config.out / "same_accuracy.json", report | {"difference": mean, "standard_error": error})
    print(f"saved in {config.out / 'same_accuracy.json'}")


def trained(asked: TrainConfig, dataset: data.Dataset, impl: str, seed: int) -> dict[str, Any]:
    """The test accuracy of one network, and how long its training took."""
    entry = models.find(asked.model)
    parts = dataset.at_least(entry.in_shape)
    model = entry.make(len(dataset.classes), impl=impl)
    fitted = train.fit(
        model,
        parts.train,
        parts.validation,
        optimizer=asked.make_optimizer(-(-len(parts.train.labels) // asked.batch_size)),
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        seed=seed,
        **asked.step_options(),
    )
    scored = train.evaluate(model, fitted.params, fitted.state, *parts.test)
    return {"test_accuracy": scored["accuracy"], "train_seconds": fitted.train_seconds}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
