"""What the network made of an image, layer by layer."""

import jax

from jaxconv.explain import feature_maps
from jaxconv.layers import Layer
from jaxconv.layers.traversal import named_layers
from jaxconv.plot import rgb
from jaxconv.report.context import Subject, spread
from jaxconv.report.images import tile
from jaxconv.report.page import Block, Folded, Section

MOST_LAYERS, MOST_CHANNELS = 14, 64
UNSEEN = ("flatten", "dropout", "spatial_dropout")  # which show nothing that the layer before does not


def shown_layers(model: Layer) -> tuple[str, ...]:
    """The layers whose outputs are worth a look; of a deep network some, from the first to the last."""
    layers = named_layers(model)
    seen = [name for name, layer in layers.items() if layer.kind not in UNSEEN]
    if len(seen) > MOST_LAYERS:  # the sums of its blocks tell more than what is within them
        seen = [name for name in seen if "/" not in name]
    return tuple(spread(seen, MOST_LAYERS))


def features_section(subject: Subject) -> Section:
    """The feature maps of each image, to be opened one image at a time."""
    (model, params, state), (images, _, names, said) = subject.network, subject.examples
    layers = shown_layers(model)
    maps = jax.device_get(jax.jit(lambda x: feature_maps(model, params, state, x, layers=layers))(images))
    folded = []
    for i, (name, answer) in enumerate(zip(names, said, strict=True)):
        shown = []
        for layer in layers:
            y = maps[layer][i]
            shown.append((heading(layer, y.shape), tile(rgb.feature_maps(y, MOST_CHANNELS), f"{layer} of {name}")))
        folded.append(Folded(f"{name} → {answer}", tile(rgb.picture(images[i]), name), shown))
    lead = (
        "One small picture for each filter: bright is where it answers. Where a layer's numbers have both signs, red "
        "is above zero and blue below. All of a layer share one scale: a filter that stays dark has little to say here."
    )
    return Section("features", "Feature maps", [lead], [Block(folded=folded)])


def heading(layer: str, shape: tuple[int, ...]) -> str:
    """What stands above a layer's feature maps: its name, its shape, and how many are left out."""
    size = "×".join(map(str, shape))
    hidden = shape[-1] - MOST_CHANNELS
    return f"{layer} ({size})" + (f", the first {MOST_CHANNELS} maps" if hidden > 0 and len(shape) > 1 else "")
