"""Several networks that differ in nothing but their seed know more together than one; and which one: a random search.

Claim (lecture row 004-16): convnets have many hyper-parameters, and ensembles improve. Learning rate, width and dropout
are drawn at random, each drawing is judged on validation images, and the best is taken. Networks with these, from
several seeds and trained at once by ``jax.vmap``, are averaged: the mean of their probabilities is right more often
than they are one by one, and its loss is below theirs (which it must be: −log is convex).

Measured with 8 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 5 min of processor time): 8 networks get 0.8903 ± 0.0037
on test one by one and 0.8985 together: the error decreases by 8%; two together get 0.8959. Loss: 0.317, together 0.281.
The 8 settings got from 0.8280 to 0.8961 on validation. At once, a network took 1.7 times as long as by itself.

    python experiments/ensemble.py             # about 5 minutes on 2 cores
    python experiments/ensemble.py --smoke     # the embedded digits, one epoch: seconds, and no evidence

Every drawing is trained once, from seed 0, as long as the networks of the ensemble are. Test images are scored once, at
the end, by the networks of the ensemble alone. Trained at once is simple and not fast: on a CPU a convolution with a
kernel for each network is slower than as many convolutions, so both are timed.
"""

import dataclasses
import itertools
import statistics
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from common import plots
from common.networks import train_networks
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import Conv, Dense, Dropout, MaxPool, data, flatten, relu, serial, train
from jaxconv.errors import InputError
from jaxconv.layers import Layer

WIDTHS = 8, 16, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """A search among hyper-parameters, and an ensemble of what it finds."""

    SMOKE = {"dataset": "digits", "samples": 500, "epochs": 1, "num_seeds": 3, "draws": 2, "alone": 1}

    num_seeds: int = 8
    """Networks of the ensemble, from seed 0 on."""
    draws: int = 8
    """Settings that are tried, drawn at random."""
    alone: int = 2
    """Networks that are trained one after the other too, for their time."""
    dataset: str = "fashion_mnist"
    """What is learned."""
    samples: int = 12000
    """Training images."""
    epochs: int = 5
    """How often each network goes through them."""
    batch_size: int = 64
    """Images a step."""


class Setting(NamedTuple):
    """Hyper-parameters: of many, these three."""

    learning_rate: float
    width: int
    dropout: float

    def __str__(self) -> str:
        return f"rate {self.learning_rate:.4f}, width {self.width}, dropout {self.dropout:.2f}"


def drawn(rng: np.random.Generator) -> Setting:
    """At random: the learning rate evenly by its logarithm, from 0.0003 to 0.03."""
    return Setting(
        learning_rate=round(float(3e-4 * 100 ** rng.random()), 5),
        width=int(rng.choice(WIDTHS)),
        dropout=round(float(rng.uniform(0, 0.5)), 2),
    )


def network(setting: Setting, classes: int) -> Layer:
    """Two convolutions, and two dense layers with dropout between them."""
    conv = partial(Conv, kernel_size=3, padding="SAME")
    body = [conv(setting.width), relu, MaxPool(2), conv(2 * setting.width), relu, MaxPool(2)]
    return serial(*body, flatten, Dense(64), relu, Dropout(setting.dropout), Dense(classes))


def measure(config: Config, progress: Progress) -> StudyResult:
    if config.draws < 1 or config.alone < 1:
        raise InputError(f"ensemble: draws={config.draws} and alone={config.alone} should be at least 1")
    dataset = data.load(config.dataset)
    examples, classes = dataset.train.subset(slice(config.samples)), len(dataset.class_names)
    given = {"epochs": config.epochs, "batch_size": config.batch_size}
    one_after_the_other = partial(
        train_networks, examples=examples, validation=dataset.validation, on_progress=progress.set_fraction, **given
    )
    rng = np.random.default_rng(0)
    tried = {}
    for setting in progress.track([drawn(rng) for _ in range(config.draws)], "trying {}"):
        model = network(setting, classes)
        trained = one_after_the_other(model, seeds=[0], learning_rate=setting.learning_rate)
        tried[setting] = trained.val_accuracy[0]
    chosen = max(tried, key=lambda setting: tried[setting])
    model, rate = network(chosen, classes), chosen.learning_rate

    progress(f"training {config.alone} one after the other")
    alone = one_after_the_other(model, seeds=range(config.alone), learning_rate=rate)
    progress(f"training {config.num_seeds} at once")
    steps = config.epochs * -(-len(examples[1]) // config.batch_size)
    at_once = train.fit_seeds(
        model,
        examples,
        dataset.validation,
        optimizer=train.make_optimizer("adam", rate, "one_cycle", steps),
        seeds=range(config.num_seeds),
        on_epoch_end=lambda record, snapshot, better: progress.set_fraction(record["epoch"] / config.epochs),
        **given,
    )
    images, labels = dataset.test
    probabilities = np.stack([train.predict(model, each.params, each.state, images) for each in at_once.members])
    together = by_members(probabilities, labels)
    results = {
        "search": [{**setting._asdict(), "val_accuracy": accuracy} for setting, accuracy in tried.items()],
        "chosen": chosen._asdict(),
        "val_accuracy": [max(each) for each in zip(*epochs_of(at_once), strict=True)],
        "test_accuracy": together[1],
        "test_loss": [log_loss(each, labels) for each in probabilities],
        "together": together,
        "loss_together": log_loss(probabilities.mean(axis=0), labels),
        "seconds_each": {
            "one after the other": alone.seconds / config.alone,
            "at once": at_once.train_seconds / config.num_seeds,
        },
    }
    searched = sorted(tried.items(), key=lambda item: -item[1])
    figure = plots.accuracy_vs_ensemble_size(
        together, title=f"{dataset.name}: {config.num_seeds} networks that differ in their seed"
    )
    tables = [
        results_table(
            "tried, on validation", ("setting", "validation"), [(s, f"{accuracy:.4f}") for s, accuracy in searched]
        ),
        results_table(
            "on test",
            ("networks together", "accuracy, mean of all choices", "the worst", "the best"),
            [
                (count, *(f"{of(found):.4f}" for of in (statistics.fmean, min, max)))
                for count, found in together.items()
            ],
        ),
    ]
    return StudyResult(results, {"ensemble": figure}, tables)


def epochs_of(fitted: train.SeedsResult) -> list[list[float]]:
    """The validation accuracy of each network, epoch by epoch."""
    return [[each["val_accuracy"] for each in record["per_seed"]] for record in fitted.history]


def by_members(probabilities: np.ndarray, labels: np.ndarray) -> dict[int, list[float]]:
    """The accuracy of the mean of the probabilities ``(members, N, classes)``, for every choice of 1, 2, … members."""
    members = range(len(probabilities))
    return {
        count: [
            float(np.mean(probabilities[list(chosen)].mean(axis=0).argmax(axis=-1) == labels))
            for chosen in itertools.combinations(members, count)
        ]
        for count in range(1, len(probabilities) + 1)
    }


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of −log of what the true class was given."""
    given = probabilities[np.arange(len(labels)), labels].astype(float)
    return float(-np.log(given.clip(1e-30)).mean())


def summarize_results(results: dict[str, Any]) -> str:
    together = {int(count): found for count, found in results["together"].items()}
    single, most = together[1], max(together)
    error, ensemble = 1 - statistics.fmean(single), 1 - together[most][0]
    two = statistics.fmean(together[min(2, most)])
    validation = [each["val_accuracy"] for each in results["search"]]
    seconds = results["seconds_each"]
    return (
        f"{most} networks get {mean_std(single)} on test one by one and {together[most][0]:.4f} together: the error "
        f"decreases by {(error - ensemble) / error:.0%}; two together get {two:.4f}. "
        f"Loss: {statistics.fmean(results['test_loss']):.3f}, together {results['loss_together']:.3f}. The "
        f"{len(validation)} settings got from {min(validation):.4f} to {max(validation):.4f} on validation. At once, a "
        f"network took {seconds['at once'] / seconds['one after the other']:.1f} times as long as by itself."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
