"""Which convolutions and max pools a network's training step is made of, each once."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv import models
from jaxconv.bench.step_timing import CLASSES
from jaxconv.layers import Layer, output_shape
from jaxconv.ops.convolution import primitives
from jaxconv.shapes import ResolvedWindow, resolve_window

PASS_OUTPUT = {"forward": "y", "dx": "x", "dk": "kernel"}  # our names of the passes, and what each of them gives


class Conv(NamedTuple):
    """One pass of a convolution.

    Attributes:
        direction: ``forward``, ``dx`` or ``dk``.
        x, kernel: their shapes.
        form: the rest of what it depends on.
    """

    direction: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    form: primitives.ConvSpec

    @property
    def op(self) -> str:
        return "conv"

    @property
    def window(self) -> ResolvedWindow:
        return self.form.window

    @property
    def features(self) -> int:
        return self.kernel[-1]

    @property
    def flops(self) -> float:
        """Additions and multiplications: the same products in all three passes, only added up by another index."""
        return 2.0 * self.x[0] * math.prod(self.window.out_size) * math.prod(self.kernel)

    @property
    def shape(self) -> str:
        return _words(self) + (f", {self.form.groups} groups" if self.form.groups > 1 else "")


class Pool(NamedTuple):
    """One pass of a max pool: ``direction`` is ``forward`` or ``dx``."""

    direction: str
    x: tuple[int, ...]
    window: ResolvedWindow

    @property
    def op(self) -> str:
        return "max_pool"

    @property
    def features(self) -> int:
        return self.x[-1]

    @property
    def shape(self) -> str:
        return _words(self)


Case = Conv | Pool


def cases(model: str, batch: int) -> list[Case]:
    """The passes that a training step makes, different ones only, from the image on.

    The convolutions are those that are met when the gradient by the parameters is traced. So the first layer has no
    ``dx``, which nobody asks for.

    Args:
        model: its name.
        batch: images of a step.

    >>> [(case.direction, case.shape) for case in cases("lenet5", 1)][:3]
    [('forward', '32×32×1 → 28×28×6, 5×5'), ('dk', '32×32×1 → 28×28×6, 5×5'), ('forward', '14×14×6 → 10×10×16, 5×5')]
    """
    spec = models.get_model(model)
    net = spec.create(num_classes=CLASSES)
    params, state = jax.eval_shape(lambda key: net.init(key, spec.input_shape), jax.random.key(0))
    images = jax.ShapeDtypeStruct((batch, *spec.input_shape), jnp.float32)

    def loss(params: Any, state: Any, images: Any) -> jax.Array:
        return net.apply(params, state, images, train=True, key=jax.random.key(0))[0].sum()

    traced = jax.make_jaxpr(jax.grad(loss))(params, state, images)
    met = {wanted: way for way, wanted in PASS_OUTPUT.items()}
    convs = [Conv(met[wanted], shapes["x"], shapes["kernel"], form) for wanted, shapes, form in _passes(traced.jaxpr)]
    layers = list(dict.fromkeys((case.x, case.kernel, case.form) for case in convs))
    order = list(PASS_OUTPUT)
    convs.sort(key=lambda case: (layers.index(case[1:]), order.index(case.direction)))
    pools = [
        Pool(way, x, resolve_window(window, x[1:-1]))
        for x, window in _pools(net, params, state, (batch, *spec.input_shape))
        for way in ("forward", "dx")
    ]
    return list(dict.fromkeys([*convs, *pools]))


def _passes(jaxpr: Any) -> Iterator[tuple[str, dict[str, tuple[int, ...]], primitives.ConvSpec]]:
    """What each pass met in a jaxpr gives, the shapes of all its factors, and its form."""
    by_name = {primitive.name: wanted for wanted, primitive in primitives.PRIMITIVES.items()}
    for equation in jaxpr.eqns:
        if wanted := by_name.get(equation.primitive.name):
            shapes = [each.aval.shape for each in (*equation.invars, *equation.outvars)]
            yield (
                wanted,
                dict(zip((*primitives.other_operands(wanted), wanted), shapes, strict=True)),
                equation.params["spec"],
            )
        for inner in itertools.chain.from_iterable(map(jax.tree.leaves, equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _passes(inner)


def _pools(layer: Layer, params: Any, state: Any, x: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The max pools of a layer, with the shape of what they are given."""
    if layer.facts.pools == "max" and layer.window is not None:
        yield x, layer.window
    for name, part in layer.children:
        below = params.get(name, {}), state.get(name, {})
        yield from _pools(part, *below, x)
        if layer.merge is None:
            x = (x[0], *output_shape(part, *below, x[1:]))


def _words(case: Case) -> str:
    """``13×13×32 → 11×11×64, 3×3``, then what is not as usual."""
    window = case.window
    said = f"{_times(*case.x[1:])} → {_times(*window.out_size, case.features)}, {_times(*window.size)}"
    unusual = {"stride": window.stride, "dilation": window.dilation}
    said += "".join(f", {name} {_short(given)}" for name, given in unusual.items() if max(given) > 1)
    pads = [str(low) if low == high else f"{low}+{high}" for low, high in window.padding]
    return said + (f", pad {_short(pads)}" if any(map(any, window.padding)) else "")


def _short(numbers: Sequence[object]) -> str:
    return _times(*numbers) if len(set(numbers)) > 1 else str(numbers[0])


def _times(*numbers: object) -> str:
    return "×".join(map(str, numbers))
