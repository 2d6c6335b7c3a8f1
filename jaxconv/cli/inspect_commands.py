"""Commands that inspect: a network (summary), the data sets on this machine (data), and the machine (doctor)."""

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

MOST_CLASSES = 1_000_000
MODEL_HELP = f"One of {', '.join(models.list_models())}; or the folder of a run, as jaxconv train made it."


@dataclasses.dataclass(frozen=True)
class Summary:
    """Print a network as a table: shapes, parameters, work, receptive fields."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=MODEL_HELP)]
    input_shape: tuple[int, int, int] | None = None
    """Height, width and channels of one image; by default the size that the model is meant for."""
    num_classes: int | None = None
    """Number of outputs; by default 10."""
    format: Literal["terminal", "text", "markdown", "json"] = "terminal"
    """How to write it."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Look at the data sets on this machine; nothing is downloaded."""

    action: tyro.conf.Positional[Literal["check"]]
    """check: every file against its official size and SHA-256."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sets; all of them by default."""


def check_summary(options: Summary) -> None:
    """Refuse options that do not go together, or too many classes."""
    if Path(options.model).is_dir():
        if options.input_shape is not None or options.num_classes is not None:
            raise InputError("of a run --input-shape and --num-classes are known: leave them out")
    elif options.num_classes is not None and not 1 <= options.num_classes <= MOST_CLASSES:
        raise InputError(f"--num-classes {options.num_classes} should be from 1 to {MOST_CLASSES:,}")


def summary(options: Summary) -> None:
    name, input_shape, classes = _network(options)
    shown = summarize(models.create_model(name, classes), input_shape)
    title = f"{name} on {'×'.join(map(str, shown.input_shape))}"
    tell(*format_summary(shown, options.format, title=title, width=console().width).split("\n"))
    if options.format in ("terminal", "text"):
        size = f"{4 * shown.params / 1024:,.0f} KiB in float32"
        tell(f"trainable parameters {shown.params:,} ({size}): {shown.weights:,} weights and {shown.biases:,} biases")
        tell(f"running statistics {shown.state:,}")


def _network(options: Summary) -> tuple[str, tuple[int, ...], int]:
    """Name, image shape and number of classes of the model, or of the run, that is to be summarised."""
    if Path(options.model).is_dir():
        config = read_config(Path(options.model))
        return config["model"], tuple(config["input_shape"]), len(config["class_names"])
    classes = 10 if options.num_classes is None else options.num_classes
    return options.model, options.input_shape or models.get_model(options.model).input_shape, classes


def check_data(options: Data) -> None:
    bad = []
    for report in verify_files(options.names):
        tell(report.name, *(f"  {line}" for line in report.lines))
        # A file that nobody asked about may well be missing; it is fetched when it is needed.
        if report.damaged or (report.missing and report.name in options.names):
            bad.append(report.name)
    if bad:
        raise InputError(f"{', '.join(bad)}: damaged or missing files, named above with what to do")


# One for each way that convolutions are compiled: x, kernel, options.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one channel": ((4, 12, 12, 1), (3, 3, 1, 8), {}),
    "many": ((4, 12, 12, 16), (3, 3, 16, 32), {"padding": "SAME"}),
    "stride 2": ((4, 12, 12, 8), (3, 3, 8, 16), {"padding": 1, "stride": 2}),
    "dilation 2": ((4, 12, 12, 8), (3, 3, 8, 8), {"dilation": 2}),
    "depthwise": ((4, 12, 12, 16), (3, 3, 1, 16), {"padding": "SAME", "groups": 16}),
    "two groups": ((4, 12, 12, 16), (3, 3, 8, 16), {"groups": 2}),
}

CLOSE = 1e-5  # as a share of the largest number


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Tell what jaxconv runs on and how it was set up, and check its convolutions on this device."""


def examine(options: Doctor) -> int:
    """Print it all; the exit code is 1 where a convolution differs by more than rounding."""
    tuned = runtime.cpu_tuning()
    lines = {"device": runtime.device_name(), "versions": ", ".join(map(" ".join, runtime.versions().items()))}
    lines |= tuned._asdict() if tuned else {"set up": "no (--no-cpu-tuning)"}
    lines |= runtime.compiler_report()
    emulated = " (emulated: --xla_cpu_max_isa)" if runtime.instruction_set_is_emulated() else ""
    lines |= {"vectors": f"{runtime.instruction_set()}{emulated}, table {autotune.file_in_use().stem}"}
    lines |= {"XLA_FLAGS": os.environ.get("XLA_FLAGS", ""), "programs": runtime.compilation_cache_dir() or "not kept"}
    for name, value in lines.items():
        tell(f"{name:<10} {value}")
    bad = [name for name in SHAPES if not _correct(name)]
    tell(f"{'conv':<10} {'DIFFERS: ' + ', '.join(bad) if bad else 'is the sum over taps: ' + ', '.join(SHAPES)}")
    return int(bool(bad))


def _correct(name: str) -> bool:
    """Whether value and gradients of one shape are those of the sum over taps, but for rounding."""
    size, kernel_size, given = SHAPES[name]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=each), jnp.float32) for each in (size, kernel_size))

    def three(impl: str) -> list[jax.Array]:
        conv = partial(ops.conv, impl=impl, precision="highest", **given)
        y, vjp = jax.vjp(conv, x, kernel)
        return [y, *vjp(jnp.cos(y))]

    pairs = zip(jax.jit(three, static_argnums=0)("auto"), jax.jit(three, static_argnums=0)("explicit"), strict=True)
    return all(float(jnp.abs(got - want).max()) <= CLOSE * float(jnp.abs(want).max()) for got, want in pairs)
