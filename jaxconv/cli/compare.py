"""``jaxconv compare``: every implementation of an op, a layer or a network side by side."""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from jaxconv.compare import CONTESTS, Contest, check_gradients, compare_all, contest
from jaxconv.errors import InputError, known
from jaxconv.experiment import write_json
from jaxconv.models.contest import model_contest


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare values and gradients: every lowering, the gradients derived by hand, finite differences.

    Exit code 0 if rounding explains every difference (kinks apart), else 1.
    """

    op: str = "conv"
    """conv, conv_transpose, max_pool, avg_pool, lp_pool, relu, tanh, sigmoid, dense or softmax_cross_entropy."""
    model: str | None = None
    """Compare a whole network instead, per parameter: lenet5, mnist_cnn or small_cnn."""
    layer: str | None = None
    """One layer of the model, such as conv2."""
    batch: int = 8
    """Images for a model."""
    shape: tuple[int, ...] | None = None
    """Shape of x: N H W C (or N T C, N D H W C); N VALUES for dense and softmax_cross_entropy."""
    features: int = 16
    """Filters of a convolution, outputs of dense."""
    kernel: tuple[int, ...] = (3,)
    """Taps of the kernel or the pooling window: one number, or one a dimension."""
    stride: tuple[int, ...] | None = None
    """One number, or one a dimension; by default 1, and for pooling the window."""
    padding: str = "VALID"
    """VALID, SAME, SAME_LOWER, FULL, CAUSAL or a number of pixels."""
    dilation: tuple[int, ...] = (1,)
    """One number, or one a dimension."""
    groups: int = 1
    """Groups of channels."""
    kinks: bool = False
    """Round x to whole numbers, so that relu meets zeros and pools meet ties."""
    dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float64"
    """What to compute in. Anything but float64 is measured against float64."""
    entries: int = 16
    """Entries of each array to check by finite differences; 0 leaves them out."""
    repeats: int = 5
    """How often to time each implementation; 0 leaves times out."""
    seed: int = 0
    """Of the random arguments."""
    json: Path | None = None
    """Also write what was found to this file."""


def run_comparison(options: Compare) -> int:
    """Run it, print the tables, and say whether all agree."""
    from rich.console import Console

    console = Console(stderr=True)
    with jax.enable_x64(True), console.status("preparing") as status:
        title, asked = _contest(options)
        found = compare_all(
            asked.functions,
            *asked.args,
            names=asked.names,
            repeats=options.repeats,
            seed=options.seed,
            progress=lambda what: status.update(what),
        )
        reference = next(iter(asked.functions.values()))
        status.update("finite differences")
        checked = None
        if options.entries:
            checked = check_gradients(reference, *asked.args, names=asked.names, entries=options.entries)
    print(title)
    print(found)
    if checked:
        print(checked)
    ok = found.ok and (checked is None or checked.ok)
    worst = max(found.rows, key=lambda row: row.relative)
    kinks = sum(row.kinks for row in found.rows)
    print(
        ("all agree" if ok else "THEY DIFFER")
        + f": largest relative error {worst.relative:.1e} ({worst.quantity}, {worst.implementation})"
        + (f"; {kinks} entries at kinks, where more than one gradient is right" if kinks else "")
    )
    if options.json:
        report = {"title": title} | found.as_dict()
        if checked:
            report["finite_differences"] = [row._asdict() for row in checked.rows]
        write_json(options.json, report)
        print(f"saved in {options.json}")
    return 0 if ok else 1


def _contest(options: Compare) -> tuple[str, Contest]:
    dtype = jnp.dtype(options.dtype)
    _check(options)
    if options.repeats < 0 or options.entries < 0:
        raise InputError("compare: --repeats and --entries should be at least 0")
    if options.model:
        asked = model_contest(options.model, layer=options.layer, batch=options.batch, dtype=dtype, seed=options.seed)
        what = f"{options.model}, layer {options.layer}" if options.layer else f"{options.model}, loss"
        return f"{what}, {options.batch} random images, seed {options.seed}", asked
    if options.layer:
        raise InputError(f"compare: --layer {options.layer} of which model? Give --model lenet5 or another")
    shape = options.shape or ((64, 10) if options.op in ("dense", "softmax_cross_entropy") else (8, 28, 28, 3))
    asked = contest(
        options.op,
        shape,
        features=options.features,
        kernel=_one_or_each(options.kernel),
        stride=None if options.stride is None else _one_or_each(options.stride),
        padding=int(options.padding) if options.padding.isdigit() else options.padding,
        dilation=_one_or_each(options.dilation),
        groups=options.groups,
        kinks=options.kinks,
        dtype=dtype,
        seed=options.seed,
    )
    shapes = ", ".join(f"{name} {arg.shape}" for name, arg in zip(asked.names, asked.args, strict=True))
    return f"{options.op} of {shapes}, seed {options.seed}", asked


# What each contest looks at; to be told something else is a mistake of whoever asks.
ALWAYS = {"dtype", "entries", "repeats", "seed", "json"}
CONVOLUTION = {"op", "shape", "features", "kernel", "stride", "padding", "dilation", "groups"}
POOLING = {"op", "shape", "kernel", "stride", "padding", "dilation", "kinks"}
USES = {
    "conv": CONVOLUTION,
    "conv_transpose": CONVOLUTION,
    "max_pool": POOLING,
    "avg_pool": POOLING,
    "lp_pool": POOLING,
    "dense": {"op", "shape", "features"},
}


def _check(options: Compare) -> None:
    """Refuse an option that would be ignored, and a file that could not be written in the end."""
    if not options.model:
        known("op", options.op, CONTESTS)
    what = options.model or options.op
    uses = {"model", "layer", "batch"} if options.model else USES.get(options.op, {"op", "shape", "kinks"})
    for field in dataclasses.fields(options):
        given = getattr(options, field.name) != field.default
        if given and field.name not in uses | ALWAYS | {"model", "layer"}:
            raise InputError(f"compare: --{field.name} means nothing to {what}: leave it out")
    if options.json and not options.json.absolute().parent.is_dir():
        raise InputError(f"compare: --json {options.json}: there is no folder {options.json.parent}")


def _one_or_each(numbers: tuple[int, ...]) -> int | tuple[int, ...]:
    return numbers[0] if len(numbers) == 1 else numbers
