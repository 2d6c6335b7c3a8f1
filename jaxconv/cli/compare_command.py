"""``jaxconv compare``: every implementation of an op, a layer or a network side by side."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.models.comparison_cases import list_comparable_models, model_case
from jaxconv.testing import OP_CASES, OpCase, check_grads, compare_all, make_op_case
from jaxconv.utils.files import check_writable, write_json
from jaxconv.utils.terminal import console, tell

MODEL_HELP = f"Compare a whole network instead, per parameter: one of {', '.join(list_comparable_models())}."


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare values and gradients: every lowering, the gradients derived by hand, finite differences.

    Exit code 0 if rounding explains every difference (kinks apart), else 1.
    """

    op: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(OP_CASES)}.")] = "conv"
    model: Annotated[str | None, tyro.conf.arg(help=MODEL_HELP)] = None
    layer: str | None = None
    """One layer of the model, such as conv2."""
    batch_size: int = 8
    """Images for a model."""
    input_shape: tuple[int, ...] | None = None
    """Shape of x: N H W C (or N T C, N D H W C); N VALUES for dense and softmax_cross_entropy."""
    features: int = 16
    """Filters of a convolution, outputs of dense."""
    kernel_size: tuple[int, ...] = (3,)
    """Taps of the kernel or the pooling window: one number, or one a dimension."""
    stride: tuple[int, ...] | None = None
    """One number, or one a dimension; by default 1, and for pooling the window."""
    padding: tuple[str, ...] = ("VALID",)
    """VALID, SAME, SAME_LOWER, FULL, CAUSAL, or pixels on both sides: one number, or one a dimension."""
    padding_mode: str = "zeros"
    """What the padding of conv holds: zeros, circular, reflect, replicate or symmetric."""
    output_padding: tuple[int, ...] = (0,)
    """Pixels that conv_transpose keeps at the end: one number, or one a dimension."""
    dilation: tuple[int, ...] = (1,)
    """One number, or one a dimension."""
    groups: int = 1
    """Groups of channels, of convolutions and group_norm."""
    flip_kernel: bool = False
    """Mirror the kernel of conv first: convolution in the mathematician's sense."""
    p: float = 2.0
    """Order of the norm of lp_pool."""
    kinks: bool = False
    """Round x to whole numbers, so that relu meets zeros and pools meet ties."""
    dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float64"
    """What to compute in. Anything but float64 is measured against float64; whole models take no half precision."""
    fd_entries: int = 16
    """Entries of each array to check by finite differences; 0 leaves them out."""
    repeats: int = 5
    """How often to time each implementation; 0 leaves times out."""
    seed: int = 0
    """Of the random arguments."""
    json: Path | None = None
    """Also write what was found to this file."""


def run_comparison(options: Compare) -> int:
    """Run it, print the tables, and say whether all agree."""
    with jax.enable_x64(True), console(stderr=True).status("preparing") as status:
        title, asked = _contest(options)
        found = compare_all(
            asked.functions,
            *asked.args,
            names=asked.names,
            num_repeats=options.repeats,
            seed=options.seed,
            progress=lambda what: status.update(what),
        )
        reference = next(iter(asked.functions.values()))
        status.update("finite differences")
        checked = None
        if options.fd_entries:
            checked = check_grads(reference, *asked.args, names=asked.names, num_entries=options.fd_entries)
    tell(title, *str(found).split("\n"))
    if checked:
        tell(*str(checked).split("\n"))
    ok = found.ok and (checked is None or checked.ok)
    worst = max(found.rows, key=lambda row: row.max_rel_error)
    kinks = sum(row.kinks for row in found.rows)
    tell(
        ("all agree" if ok else "THEY DIFFER")
        + f": largest relative error {worst.max_rel_error:.1e} ({worst.quantity}, {worst.implementation})"
        + (f"; {kinks} entries at kinks, where more than one gradient is right" if kinks else "")
    )
    if options.json:
        report = {"title": title} | found.as_dict()
        if checked:
            report["finite_differences"] = [row._asdict() for row in checked.rows]
        write_json(options.json, report)
        tell(f"saved in {options.json}")
    return 0 if ok else 1


def _contest(options: Compare) -> tuple[str, OpCase]:
    dtype = jnp.dtype(options.dtype)
    if options.model:
        asked = model_case(
            options.model, layer=options.layer, batch_size=options.batch_size, dtype=dtype, seed=options.seed
        )
        what = f"{options.model}, layer {options.layer}" if options.layer else f"{options.model}, loss"
        return f"{what}, {options.batch_size} random images, seed {options.seed}", asked
    asked = make_op_case(
        options.op,
        options.input_shape,
        features=options.features,
        kernel_size=_one_or_each(options.kernel_size),
        stride=None if options.stride is None else _one_or_each(options.stride),
        padding=_one_or_each(tuple(map(_number, options.padding))),
        output_padding=_one_or_each(options.output_padding),
        dilation=_one_or_each(options.dilation),
        groups=options.groups,
        padding_mode=options.padding_mode,
        flip_kernel=options.flip_kernel,
        p=options.p,
        kinks=options.kinks,
        dtype=dtype,
        seed=options.seed,
    )
    shapes = ", ".join(f"{name} {arg.shape}" for name, arg in zip(asked.names, asked.args, strict=True))
    return f"{options.op} of {shapes}, seed {options.seed}", asked


ALWAYS = {"dtype", "fd_entries", "repeats", "seed", "json"}  # what every comparison looks at


def check_comparison(options: Compare) -> None:
    """Refuse an option that would be ignored, and a file that could not be written in the end."""
    if options.model:
        what, uses = options.model, {"model", "layer", "batch_size"}
    elif options.layer:
        raise InputError(f"--layer {options.layer} of which model? Give --model lenet5 or another")
    else:
        checks.one_of("op", options.op, OP_CASES)
        what, uses = options.op, {"op", "input_shape"} | OP_CASES[options.op].uses
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != field.default and field.name not in uses | ALWAYS:
            raise InputError(f"--{field.name.replace('_', '-')} means nothing to {what}: leave it out")
    checks.at_least(0, repeats=options.repeats, fd_entries=options.fd_entries)
    check_writable("--json", options.json)


def _one_or_each(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _number(word: str) -> int | str:
    """A number of pixels, or the name of a padding."""
    try:
        return int(word)
    except ValueError:
        return word
