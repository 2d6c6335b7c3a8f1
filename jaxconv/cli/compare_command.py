"""``jaxconv compare``: values and gradients of every implementation of an op, a layer or a network."""

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

MODEL_HELP = f"Model to compare in place of an op: one of {', '.join(list_comparable_models())}."


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare lowerings, hand-derived gradients and finite differences.

    Values and gradients are compared with those of lax in float64. The exit code is 1 if a difference exceeds the
    rounding bound. Entries at kinks, where several gradients are valid, do not count.
    """

    op: Annotated[str, tyro.conf.arg(help=f"Op to compare: one of {', '.join(OP_CASES)}.")] = "conv"
    model: Annotated[str | None, tyro.conf.arg(help=MODEL_HELP)] = None
    layer: str | None = None
    """Layer of --model to compare alone, such as conv2."""
    batch_size: int = 8
    """Number of random images for --model."""
    input_shape: tuple[int, ...] | None = None
    """Shape of x: N, spatial sizes, C; for dense and softmax_cross_entropy N, C."""
    features: int = 16
    """Output channels of a convolution or of dense."""
    kernel_size: tuple[int, ...] = (3,)
    """Size of the kernel or pooling window: one number, or one per dimension."""
    stride: tuple[int, ...] | None = None
    """Stride, also per dimension; by default 1, for pools the window size."""
    padding: tuple[str, ...] = ("VALID",)
    """Padding: VALID, SAME, SAME_LOWER, FULL, CAUSAL, or pixels per side (also per dimension)."""
    padding_mode: str = "zeros"
    """Padding values of conv: zeros, circular, reflect, replicate or symmetric."""
    output_padding: tuple[int, ...] = (0,)
    """Pixels added at the end by conv_transpose: one number, or one per dimension."""
    dilation: tuple[int, ...] = (1,)
    """Dilation: one number, or one per dimension."""
    groups: int = 1
    """Number of channel groups of convolutions and group_norm."""
    flip_kernel: bool = False
    """Flip the kernel of conv: mathematical convolution instead of cross-correlation."""
    p: float = 2.0
    """Order of the norm of lp_pool."""
    kinks: bool = False
    """Round x to integers, which creates zeros for relu and ties for pools."""
    dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float64"
    """Dtype of the compared functions; half precision is not available for whole models."""
    fd_entries: int = 16
    """Entries per array to check by finite differences; 0 skips the check."""
    repeats: int = 5
    """Number of timings per implementation; 0 skips timing."""
    seed: int = 0
    """Seed of the random arguments."""
    json: Path | None = None
    """File for the results."""


def run_compare(options: Compare) -> int:
    """Run the comparison, print its tables, and return 0 if all differences are within the rounding bound, else 1."""
    with jax.enable_x64(True), console(stderr=True).status("preparing") as status:
        title, case = _make_case(options)
        comparison = compare_all(
            case.functions,
            *case.args,
            names=case.names,
            num_repeats=options.repeats,
            seed=options.seed,
            progress=lambda stage: status.update(stage),
        )
        reference = next(iter(case.functions.values()))
        status.update("finite differences")
        gradient_check = None
        if options.fd_entries:
            gradient_check = check_grads(reference, *case.args, names=case.names, num_entries=options.fd_entries)
    tell(title, *str(comparison).split("\n"))
    if gradient_check:
        tell(*str(gradient_check).split("\n"))
    ok = comparison.ok and (gradient_check is None or gradient_check.ok)
    worst = max(comparison.rows, key=lambda row: row.max_rel_error)
    kinks = sum(row.kinks for row in comparison.rows)
    tell(
        ("PASS: differences are within the rounding bound" if ok else "FAIL: differences exceed the rounding bound")
        + f"; largest relative error {worst.max_rel_error:.1e} ({worst.quantity}, {worst.implementation})"
        + (f"; {kinks} entries at kinks, where several gradients are valid" if kinks else "")
    )
    if options.json:
        report = {"title": title} | comparison.as_dict()
        if gradient_check:
            report["finite_differences"] = [row._asdict() for row in gradient_check.rows]
        write_json(options.json, report)
        tell(f"saved in {options.json}")
    return 0 if ok else 1


def _make_case(options: Compare) -> tuple[str, OpCase]:
    """Return a title and the functions to compare."""
    dtype = jnp.dtype(options.dtype)
    if options.model:
        case = model_case(
            options.model, layer=options.layer, batch_size=options.batch_size, dtype=dtype, seed=options.seed
        )
        subject = f"{options.model}, layer {options.layer}" if options.layer else f"{options.model}, loss"
        return f"{subject}, {options.batch_size} random images, seed {options.seed}", case
    case = make_op_case(
        options.op,
        options.input_shape,
        features=options.features,
        kernel_size=_scalar_or_tuple(options.kernel_size),
        stride=None if options.stride is None else _scalar_or_tuple(options.stride),
        padding=_scalar_or_tuple(tuple(map(_int_or_name, options.padding))),
        output_padding=_scalar_or_tuple(options.output_padding),
        dilation=_scalar_or_tuple(options.dilation),
        groups=options.groups,
        padding_mode=options.padding_mode,
        flip_kernel=options.flip_kernel,
        p=options.p,
        kinks=options.kinks,
        dtype=dtype,
        seed=options.seed,
    )
    shapes = ", ".join(f"{name} {arg.shape}" for name, arg in zip(case.names, case.args, strict=True))
    return f"{options.op} of {shapes}, seed {options.seed}", case


COMMON_OPTIONS = {"dtype", "fd_entries", "repeats", "seed", "json"}  # of every comparison


def check_compare(options: Compare) -> None:
    """Raise InputError for an option that would be ignored, and for a JSON file that cannot be written."""
    if options.model:
        subject, uses = options.model, {"model", "layer", "batch_size"}
    elif options.layer:
        raise InputError(f"--layer {options.layer} requires a model: give --model lenet5 or another")
    else:
        checks.one_of("op", options.op, OP_CASES)
        subject, uses = options.op, {"op", "input_shape"} | OP_CASES[options.op].uses
    for field in dataclasses.fields(options):
        if getattr(options, field.name) != field.default and field.name not in uses | COMMON_OPTIONS:
            raise InputError(f"--{field.name.replace('_', '-')} does not apply to {subject}: leave it out")
    checks.at_least(0, repeats=options.repeats, fd_entries=options.fd_entries)
    check_writable("--json", options.json)


def _scalar_or_tuple(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _int_or_name(word: str) -> int | str:
    """Return a number of pixels as int, or the name of a padding unchanged."""
    try:
        return int(word)
    except ValueError:
        return word
