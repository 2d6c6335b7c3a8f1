"""A cat painted in gravel: a network that learned to name things knows what is in a picture, and what it is made of.

Claim (lecture rows 002-01, 001-26): the features of a convnet hold the content of a picture, by where each of them is,
and its style, by which are there together (the Gram matrix); so pixels that are moved until they have the features of
one picture and the Gram matrices of another paint the one in the style of the other (Gatys et al., 2015,
https://arxiv.org/abs/1508.06576). A small network trained here will do; one that has learned nothing is the control,
and holds some of the style already (Ustyuzhaninov et al., 2016, https://arxiv.org/abs/1606.00021).

Measured with one seed (cpu (Linux x86_64, 2 cores), jax 0.10.2, 3 min of processor time): Distance from the style, from
the photograph to the painting, by the features of a network with validation accuracy 0.66: astronaut in tissue 1.83 →
0.007 (and 0.40 from the content); cat in gravel 1.16 → 0.021 (and 0.65 from the content).

    python experiments/style_transfer.py             # 3 minutes of processor time
    python experiments/style_transfer.py --smoke     # the embedded digits and patterns: seconds, and no evidence
    python experiments/style_transfer.py --pictures cup bricks     # another content, and another style

Distances are squared and shares: of the content's features, and of the style's Gram matrices; 0 where they are the
same. Each network is asked by its own features, so the distances of two networks are not to be compared. Layers,
weights, size and the number of scales were chosen by eye. The pictures are scikit-image's, which brings them with it.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from PIL import Image

from common import style_transfer
from common.networks import train_networks
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import AvgPool, Conv, Dense, checks, data, flatten, plot, relu, serial
from jaxconv.errors import InputError, error_context
from jaxconv.layers import Layer

PICTURES = {  # by their names in scikit-image, which brings them, and the square that is shown: left, top and side
    "cat": ("chelsea", (75, 0, 300)),
    "cup": ("coffee", (120, 0, 400)),
    "astronaut": ("astronaut", (70, 0, 320)),
    "tissue": ("immunohistochemistry", (0, 0, 256)),
    "gravel": ("gravel", (0, 0, 256)),
    "bricks": ("brick", (0, 0, 256)),
}
MADE = {  # of rows and columns from 0 to 1
    "rings": lambda y, x: np.stack([x, y, np.hypot(y - 0.5, x - 0.5) < 0.3], -1),
    "stripes": lambda y, x: 0.5 + 0.5 * np.sin(40 * np.stack([x + y, x + y + 0.03, x - y], -1)),
}
CONTENT_LAYER = "relu4"
PARTS = {"style_before": "photograph to style", "style": "painting to style", "content": "painting to content"}
STYLE_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5", "relu6")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """A cat painted in gravel."""

    SMOKE = {
        "dataset": "digits",
        "samples": 200,
        "epochs": 1,
        "pictures": (("rings", "stripes"),),
        "side": 24,
        "scales": 1,
        "steps": 10,
        "control": False,
    }

    num_seeds: int = 1
    """Networks that paint, from seed 0 on."""
    dataset: str = "cifar10"
    """What the network that paints has learned to tell apart."""
    samples: int = 20000
    """Its training images, at most."""
    epochs: int = 3
    """How often it goes through them."""
    learning_rate: float = 3e-3
    """Adam's highest, while it learns."""
    pictures: tuple[tuple[str, str], ...] = (("astronaut", "tissue"), ("cat", "gravel"))
    """Pairs of a content and a style: cat, cup, astronaut, tissue, gravel, bricks, rings, stripes."""
    side: int = 160
    """Height and width of the painting."""
    style_weight: float = 8.0
    """Of the style against the content."""
    smoothing: float = 3.0
    """Against speckles."""
    scales: int = 3
    """The painting begins with pictures so often halved, less one."""
    steps: int = 150
    """Of Adam, at every scale."""
    control: bool = True
    """Paint with a network that has learned nothing, too."""


def features() -> Layer:
    """Six convolutions, for pictures of any size. It pools by means, which Gatys et al. found to paint smoother."""
    conv = partial(Conv, kernel_size=3, padding="SAME")
    stages = [[conv(n), relu, conv(n), relu] for n in (32, 64, 128)]
    return serial(*stages[0], AvgPool(2), *stages[1], AvgPool(2), *stages[2], name="features")


def picture(name: str, side: int, channels: int) -> np.ndarray:
    """A picture, ``(side, side, channels)`` from 0 to 1."""
    if name in MADE:
        pixels = MADE[name](*np.mgrid[:side, :side] / side)
    else:
        try:
            from skimage import data as pictures
        except ImportError:
            raise InputError(
                f"{name} is scikit-image's: pip install 'jaxconv[experiments]', or take one of {', '.join(MADE)}"
            ) from None
        source, (left, top, size) = PICTURES[name]
        image = Image.fromarray(getattr(pictures, source)()).convert("RGB")
        box = (left, top, left + size, top + size)
        pixels = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box)) / 255
    return (pixels if channels == 3 else pixels.mean(axis=-1, keepdims=True)).astype(np.float32)


def measure(config: Config, progress: Progress) -> StudyResult:
    for name in (name for pair in config.pictures for name in pair):
        with error_context("style_transfer"):
            checks.one_of("picture", name, [*PICTURES, *MADE])
    dataset = data.load(config.dataset)
    painter, seeds = features(), range(config.num_seeds)
    progress("training the network that paints")
    trained = train_networks(
        serial(painter, AvgPool(2), flatten, Dense(len(dataset.class_names))),
        dataset.train.subset(slice(config.samples)),
        dataset.validation,
        seeds=seeds,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        on_progress=progress.set_fraction,
    )
    networks = {"trained": [params["features"] for params, _ in trained.variables]}
    if config.control:
        networks["untrained"] = [painter.init(jax.random.key(seed), dataset.image_shape)[0] for seed in seeds]
    results: dict[str, Any] = {"val_accuracy": trained.val_accuracy, "paintings": {}}
    shown, titles = [], []
    for pair in progress.track(config.pictures, "painting: {0[0]} in {0[1]}"):
        content, style = (picture(name, config.side, dataset.image_shape[-1]) for name in pair)
        found = results["paintings"][" in ".join(pair)] = {}
        shown += [content, style]
        titles += pair
        for name, each in networks.items():
            made = [paint(config, painter, params, content, style) for params in each]
            found[name] = {part: [getattr(one, part) for one in made] for part in PARTS}
            shown.append(made[0].image)
            titles.append(f"by the {name} network")
    figure = plot.image_grid([plot.rgb.to_rgb(image) for image in shown], titles, columns=2 + len(networks), size=2.0)
    rows = [
        (painting, name, *(mean_std(found[name][part]) for part in PARTS))
        for painting, found in results["paintings"].items()
        for name in networks
    ]
    return StudyResult(
        results, {"style_transfer": figure}, [results_table("", ("painting", "network", *PARTS.values()), rows)]
    )


def paint(config: Config, painter: Layer, params: Any, content: Any, style: Any) -> style_transfer.Styled:
    """The content in the style, by the features of a network."""
    return style_transfer.style_transfer(
        painter,
        params,
        {},
        content,
        style,
        content_layer=CONTENT_LAYER,
        style_layers=STYLE_LAYERS,
        style_weight=config.style_weight,
        smoothing=config.smoothing,
        scales=config.scales,
        steps=config.steps,
    )


def summarize_results(results: dict[str, Any]) -> str:
    said = [
        f"{painting} {mean_std(found['trained']['style_before'], 2)} → {mean_std(found['trained']['style'], 3)} "
        f"(and {mean_std(found['trained']['content'], 2)} from the content)"
        for painting, found in results["paintings"].items()
    ]
    return (
        f"Distance from the style, from the photograph to the painting, by the features of a network with validation "
        f"accuracy {mean_std(results['val_accuracy'], 2)}: {'; '.join(said)}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
