"""``jaxconv summary`` of a model, ``jaxconv data`` for local datasets, and ``jaxconv doctor`` for this machine."""

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxconv import models, ops, runtime
from jaxconv.data import verify_files
from jaxconv.errors import InputError
from jaxconv.explain import format_summary, summarize
from jaxconv.ops.convolution.cpu import autotune
from jaxconv.runs import read_config
from jaxconv.utils.terminal import console, tell

MAX_CLASSES = 1_000_000
MODEL_HELP = f"Run folder, or one of {', '.join(models.list_models())}."


@dataclasses.dataclass(frozen=True)
class Summary:
    """Print the shapes, parameters, MACs and receptive fields of a model."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=MODEL_HELP)]
    input_shape: tuple[int, int, int] | None = None
    """Height, width and channels of one image; by default the model's."""
    num_classes: int | None = None
    """Number of outputs; by default 10."""
    format: Literal["terminal", "text", "markdown", "json"] = "terminal"
    """Format of the table."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Verify local dataset files against their checksums.

    Nothing is downloaded.
    """

    action: tyro.conf.Positional[Literal["check"]]
    """check: compare each file with its official size and SHA-256."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Names of datasets; by default all."""


def check_summary(options: Summary) -> None:
    """Raise InputError for options that cannot be combined, and for a number of classes out of range."""
    if Path(options.model).is_dir():
        if options.input_shape is not None or options.num_classes is not None:
            raise InputError("--input-shape and --num-classes do not apply to a run folder: leave them out")
    elif options.num_classes is not None and not 1 <= options.num_classes <= MAX_CLASSES:
        raise InputError(f"--num-classes must be from 1 to {MAX_CLASSES:,}, got {options.num_classes}")


def run_summary(options: Summary) -> None:
    """Print the summary of a model."""
    name, input_shape, num_classes = _model_arguments(options)
    summary = summarize(models.create_model(name, num_classes), input_shape)
    title = f"{name} on {'×'.join(map(str, summary.input_shape))}"
    tell(*format_summary(summary, options.format, title=title, width=console().width).split("\n"))
    if options.format in ("terminal", "text"):
        size = f"{4 * summary.params / 1024:,.0f} KiB in float32"
        parts = f"{summary.weights:,} weights and {summary.biases:,} biases"
        tell(f"trainable parameters: {summary.params:,} ({size}), {parts}")
        tell(f"running statistics: {summary.state:,}")


def _model_arguments(options: Summary) -> tuple[str, tuple[int, ...], int]:
    """Return name, input shape and number of classes of the model, or of the model in a run folder."""
    if Path(options.model).is_dir():
        config = read_config(Path(options.model))
        return config["model"], tuple(config["input_shape"]), len(config["class_names"])
    num_classes = 10 if options.num_classes is None else options.num_classes
    return options.model, options.input_shape or models.get_model(options.model).input_shape, num_classes


def run_data(options: Data) -> None:
    """Print the state of each dataset's files; raise InputError if a file is damaged or a named dataset is missing."""
    invalid = []
    for report in verify_files(options.names):
        tell(report.name, *(f"  {line}" for line in report.lines))
        # A dataset that was not named may be missing: it is downloaded at its first use.
        if report.damaged or (report.missing and report.name in options.names):
            invalid.append(report.name)
    if invalid:
        raise InputError(f"{', '.join(invalid)}: damaged or missing files: see the lines above")


# Shapes of x and kernel, and options: one entry per code path of the lowerings.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one channel": ((4, 12, 12, 1), (3, 3, 1, 8), {}),
    "16 channels": ((4, 12, 12, 16), (3, 3, 16, 32), {"padding": "SAME"}),
    "stride 2": ((4, 12, 12, 8), (3, 3, 8, 16), {"padding": 1, "stride": 2}),
    "dilation 2": ((4, 12, 12, 8), (3, 3, 8, 8), {"dilation": 2}),
    "depthwise": ((4, 12, 12, 16), (3, 3, 1, 16), {"padding": "SAME", "groups": 16}),
    "two groups": ((4, 12, 12, 16), (3, 3, 8, 16), {"groups": 2}),
}

RELATIVE_TOLERANCE = 1e-5  # of the largest entry


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Print device and settings; verify convolution on this device."""


def run_doctor(options: Doctor) -> int:
    """Print the report, and return 1 if a convolution differs by more than rounding, else 0."""
    tuning = runtime.cpu_tuning()
    lines = {"device": runtime.device_name(), "versions": ", ".join(map(" ".join, runtime.versions().items()))}
    lines |= tuning._asdict() if tuning else {"tuning": "none (--no-cpu-tuning)"}
    lines |= runtime.compiler_report()
    emulated = " (emulated: --xla_cpu_max_isa)" if runtime.instruction_set_is_emulated() else ""
    lines |= {"SIMD": f"{runtime.instruction_set()}{emulated}, table {autotune.file_in_use().stem}"}
    lines |= {"XLA_FLAGS": os.environ.get("XLA_FLAGS", ""), "cache": runtime.compilation_cache_dir() or "none"}
    for name, value in lines.items():
        tell(f"{name:<10} {value}")
    failing = [name for name in SHAPES if not _matches_explicit(name)]
    verdict = f"DIFFERS: {', '.join(failing)}" if failing else f"matches the explicit sum: {', '.join(SHAPES)}"
    tell(f"{'conv':<10} {verdict}")
    return int(bool(failing))


def _matches_explicit(name: str) -> bool:
    """Return True if value and gradients of ``impl="auto"`` equal those of ``impl="explicit"`` up to rounding."""
    x_shape, kernel_shape, options = SHAPES[name]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x_shape, kernel_shape))

    def value_and_gradients(impl: str) -> list[jax.Array]:
        conv = partial(ops.conv, impl=impl, precision="highest", **options)
        y, vjp = jax.vjp(conv, x, kernel)
        return [y, *vjp(jnp.cos(y))]

    compiled = jax.jit(value_and_gradients, static_argnums=0)
    pairs = zip(compiled("auto"), compiled("explicit"), strict=True)
    return all(
        float(jnp.abs(actual - expected).max()) <= RELATIVE_TOLERANCE * float(jnp.abs(expected).max())
        for actual, expected in pairs
    )
