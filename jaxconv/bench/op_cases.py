"""Distinct convolutions and max pools of a model's training step."""

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

PASS_OUTPUT = {"forward": "y", "dx": "x", "dk": "kernel"}  # output of each pass of a convolution


class Conv(NamedTuple):
    """One pass of a convolution.

    Attributes:
        direction: ``forward``, ``dx`` or ``dk``.
        x, kernel: shapes.
        form: window, groups and dtypes.
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
        """Additions and multiplications; all three passes have the same products, summed over other indices."""
        return 2.0 * self.x[0] * math.prod(self.window.out_size) * math.prod(self.kernel)

    @property
    def shape(self) -> str:
        return _shape_text(self) + (f", {self.form.groups} groups" if self.form.groups > 1 else "")


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
        return _shape_text(self)


Case = Conv | Pool


def cases(model: str, batch: int) -> list[Case]:
    """Return the distinct passes of a training step, in the order of the layers.

    The convolutions are taken from the traced gradient with respect to the parameters, so the first layer has no
    ``dx``.

    Args:
        model: name of a model.
        batch: images per step.

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
    direction_of = {output: direction for direction, output in PASS_OUTPUT.items()}
    convs = [
        Conv(direction_of[output], shapes["x"], shapes["kernel"], form)
        for output, shapes, form in _passes(traced.jaxpr)
    ]
    layers = list(dict.fromkeys((case.x, case.kernel, case.form) for case in convs))
    order = list(PASS_OUTPUT)
    convs.sort(key=lambda case: (layers.index(case[1:]), order.index(case.direction)))
    pools = [
        Pool(direction, x, resolve_window(window, x[1:-1]))
        for x, window in _pools(net, params, state, (batch, *spec.input_shape))
        for direction in ("forward", "dx")
    ]
    return list(dict.fromkeys([*convs, *pools]))


def _passes(jaxpr: Any) -> Iterator[tuple[str, dict[str, tuple[int, ...]], primitives.ConvSpec]]:
    """Yield the output, the shapes of the arrays and the spec of each pass of a convolution in a jaxpr."""
    by_name = {primitive.name: output for output, primitive in primitives.PRIMITIVES.items()}
    for equation in jaxpr.eqns:
        if output := by_name.get(equation.primitive.name):
            shapes = [atom.aval.shape for atom in (*equation.invars, *equation.outvars)]
            yield (
                output,
                dict(zip((*primitives.other_operands(output), output), shapes, strict=True)),
                equation.params["spec"],
            )
        for inner in itertools.chain.from_iterable(map(jax.tree.leaves, equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _passes(inner)


def _pools(layer: Layer, params: Any, state: Any, x: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Yield the input shape and the window of each max pool of a layer."""
    if layer.facts.pools == "max" and layer.window is not None:
        yield x, layer.window
    for name, child in layer.children:
        variables = params.get(name, {}), state.get(name, {})
        yield from _pools(child, *variables, x)
        if layer.merge is None:
            x = (x[0], *output_shape(child, *variables, x[1:]))


def _shape_text(case: Case) -> str:
    """Format shapes as ``13×13×32 → 11×11×64, 3×3``, followed by options other than the defaults."""
    window = case.window
    text = f"{_join_sizes(*case.x[1:])} → {_join_sizes(*window.out_size, case.features)}, {_join_sizes(*window.size)}"
    options = {"stride": window.stride, "dilation": window.dilation}
    text += "".join(f", {name} {_collapse(values)}" for name, values in options.items() if max(values) > 1)
    pads = [str(low) if low == high else f"{low}+{high}" for low, high in window.padding]
    return text + (f", pad {_collapse(pads)}" if any(map(any, window.padding)) else "")


def _collapse(values: Sequence[object]) -> str:
    """Format one value per dimension; equal values are written once."""
    return _join_sizes(*values) if len(set(values)) > 1 else str(values[0])


def _join_sizes(*sizes: object) -> str:
    return "×".join(map(str, sizes))
