"""Neural style transfer with a small network: content from feature maps, style from Gram matrices.

Claim (lecture rows 002-01, 001-26): the feature maps of a convnet represent the content of an image, and their Gram
matrices its style. Pixels optimized to match the features of one image and the Gram matrices of another combine the
content of the first with the style of the second (Gatys et al., 2015, https://arxiv.org/abs/1508.06576). A small
network trained here is sufficient; an untrained network is the control, and represents part of the style as well
(Ustyuzhaninov et al., 2016, https://arxiv.org/abs/1606.00021).

Measured with one seed (cpu (Linux x86_64, 2 cores), jax 0.10.2, 3 min of processor time): Distance from the style, from
the photograph to the painting, by the features of a network with validation accuracy 0.66: astronaut in tissue 1.83 →
0.007 (and 0.40 from the content); cat in gravel 1.16 → 0.021 (and 0.65 from the content).

    python experiments/style_transfer.py             # 3 minutes of processor time
    python experiments/style_transfer.py --smoke     # the embedded digits and patterns: seconds, not evidence
    python experiments/style_transfer.py --pictures cup bricks     # another content and style

Distances are squared, relative to the squared norm of the content features or of the style's Gram matrices. Each
network is measured with its own features, so distances of different networks are not comparable. Layers, weights, size
and the number of scales were chosen by eye. The images are included in scikit-image.
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

PICTURES = {  # name in scikit-image, and the cropped square: left, top and side
    "cat": ("chelsea", (75, 0, 300)),
    "cup": ("coffee", (120, 0, 400)),
    "astronaut": ("astronaut", (70, 0, 320)),
    "tissue": ("immunohistochemistry", (0, 0, 256)),
    "gravel": ("gravel", (0, 0, 256)),
    "bricks": ("brick", (0, 0, 256)),
}
PATTERNS = {  # functions of rows and columns from 0 to 1
    "rings": lambda y, x: np.stack([x, y, np.hypot(y - 0.5, x - 0.5) < 0.3], -1),
    "stripes": lambda y, x: 0.5 + 0.5 * np.sin(40 * np.stack([x + y, x + y + 0.03, x - y], -1)),
}
CONTENT_LAYER = "relu4"
PARTS = {"style_before": "photograph to style", "style": "painting to style", "content": "painting to content"}
STYLE_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5", "relu6")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Render images in the style of others."""

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
    """Number of networks, from seed 0 on."""
    dataset: str = "cifar10"
    """Dataset on which the network is trained."""
    samples: int = 20000
    """Maximum number of training images."""
    epochs: int = 3
    """Training epochs of the network."""
    learning_rate: float = 3e-3
    """Peak learning rate of Adam, for training the network."""
    pictures: tuple[tuple[str, str], ...] = (("astronaut", "tissue"), ("cat", "gravel"))
    """Pairs of content and style: cat, cup, astronaut, tissue, gravel, bricks, rings, stripes."""
    side: int = 160
    """Height and width of the images."""
    style_weight: float = 8.0
    """Weight of the style relative to the content."""
    smoothing: float = 3.0
    """Weight of the smoothness term."""
    scales: int = 3
    """Number of resolutions, each half of the next."""
    steps: int = 150
    """Steps of Adam at every scale."""
    control: bool = True
    """Also use an untrained network."""


def features() -> Layer:
    """Build six convolutions, for images of any size, with average pooling as recommended by Gatys et al."""
    conv = partial(Conv, kernel_size=3, padding="SAME")
    stages = [[conv(n), relu, conv(n), relu] for n in (32, 64, 128)]
    return serial(*stages[0], AvgPool(2), *stages[1], AvgPool(2), *stages[2], name="features")


def load_picture(name: str, side: int, channels: int) -> np.ndarray:
    """Load an image ``(side, side, channels)`` from 0 to 1."""
    if name in PATTERNS:
        pixels = PATTERNS[name](*np.mgrid[:side, :side] / side)
    else:
        try:
            from skimage import data as skimage_data
        except ImportError:
            raise InputError(
                f"{name} needs scikit-image: pip install 'jaxconv[experiments]', or use one of {', '.join(PATTERNS)}"
            ) from None
        source, (left, top, size) = PICTURES[name]
        image = Image.fromarray(getattr(skimage_data, source)()).convert("RGB")
        crop = (left, top, left + size, top + size)
        pixels = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, crop)) / 255
    return (pixels if channels == 3 else pixels.mean(axis=-1, keepdims=True)).astype(np.float32)


def measure(config: Config, progress: Progress) -> StudyResult:
    for name in (name for pair in config.pictures for name in pair):
        with error_context("style_transfer"):
            checks.one_of("picture", name, [*PICTURES, *PATTERNS])
    dataset = data.load(config.dataset)
    feature_network, seeds = features(), range(config.num_seeds)
    progress("training the network")
    trained = train_networks(
        serial(feature_network, AvgPool(2), flatten, Dense(len(dataset.class_names))),
        dataset.train.subset(slice(config.samples)),
        dataset.validation,
        seeds=seeds,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        on_progress=progress.set_fraction,
    )
    networks = {"trained": [params["features"] for params, _ in trained.variables]}
    if config.control:
        networks["untrained"] = [feature_network.init(jax.random.key(seed), dataset.image_shape)[0] for seed in seeds]
    results: dict[str, Any] = {"val_accuracy": trained.val_accuracy, "paintings": {}}
    images, titles = [], []
    for pair in progress.track(config.pictures, "optimizing: {0[0]} in {0[1]}"):
        content, style = (load_picture(name, config.side, dataset.image_shape[-1]) for name in pair)
        painting = results["paintings"][" in ".join(pair)] = {}
        images += [content, style]
        titles += pair
        for name, params_by_seed in networks.items():
            transfers = [transfer_style(config, feature_network, params, content, style) for params in params_by_seed]
            painting[name] = {part: [getattr(transfer, part) for transfer in transfers] for part in PARTS}
            images.append(transfers[0].image)
            titles.append(f"by the {name} network")
    figure = plot.image_grid([plot.rgb.to_rgb(image) for image in images], titles, columns=2 + len(networks), size=2.0)
    rows = [
        (title, name, *(mean_std(painting[name][part]) for part in PARTS))
        for title, painting in results["paintings"].items()
        for name in networks
    ]
    return StudyResult(
        results, {"style_transfer": figure}, [results_table("", ("painting", "network", *PARTS.values()), rows)]
    )


def transfer_style(
    config: Config, feature_network: Layer, params: Any, content: Any, style: Any
) -> style_transfer.StyleTransferResult:
    """Run style transfer with the features of a network."""
    return style_transfer.style_transfer(
        feature_network,
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
    clauses = [
        f"{title} {mean_std(distances['trained']['style_before'], 2)} → {mean_std(distances['trained']['style'], 3)} "
        f"(and {mean_std(distances['trained']['content'], 2)} from the content)"
        for title, distances in results["paintings"].items()
    ]
    return (
        f"Distance from the style, from the photograph to the painting, by the features of a network with validation "
        f"accuracy {mean_std(results['val_accuracy'], 2)}: {'; '.join(clauses)}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
