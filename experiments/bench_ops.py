"""Time and memory of all lowerings: explicit convolution takes at most 3 times as long as the fastest.

Claim: as an explicit sum over kernel offsets, convolution takes at most 3 times as long as the fastest lowering,
forward and with both gradients, except for kernels as large as 11×11, where the Fourier transform is fastest. im2col
with a 1×1 kernel needs no more memory than lax.

Measured (cpu (Linux x86_64, 2 cores), jax 0.10.2, 2 min of processor time): Forward and both gradients, explicit takes
at most 3 times as long as the fastest for 13 of 14 shapes, and 5.8 times at most (8→8, 11×11); forward, explicit takes
at most 3 times as long as the fastest for 13 of 14 shapes, and 4.1 times at most (8→8, 11×11).

    python experiments/bench_ops.py              # a minute on 2 cores
    python experiments/bench_ops.py --smoke      # two small shapes, seconds

Times are medians of interleaved calls. Memory is the size of XLA's temporary buffers, without arguments and results
(``compiled.memory_analysis()``). The toeplitz lowering is left out if its matrix has too many entries.
On another machine of the same kind, the explicit forward pass with 32→32 channels on 32×32 pixels took 3.3 times as
long as lax: nine products of 4 MB are written to memory and read again.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.study import Progress, StudyOptions, StudyResult, results_table, run_study
from jaxconv import ops, plot, runtime
from jaxconv.utils.timing import medians

DIRECTIONS = {"both": "forward and both gradients", "forward": "forward"}


class Shape(NamedTuple):
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    options: dict[str, Any]


SHAPES = {
    "MNIST 1→32, 3×3": Shape((64, 28, 28, 1), (3, 3, 1, 32), {}),
    "MNIST 32→64, 3×3": Shape((64, 13, 13, 32), (3, 3, 32, 64), {}),
    "LeNet 1→6, 5×5": Shape((64, 32, 32, 1), (5, 5, 1, 6), {}),
    "LeNet 6→16, 5×5": Shape((64, 14, 14, 6), (5, 5, 6, 16), {}),
    "CIFAR 3→32, 3×3 same": Shape((32, 32, 32, 3), (3, 3, 3, 32), {"padding": "SAME"}),
    "CIFAR 32→32, 3×3 same": Shape((32, 32, 32, 32), (3, 3, 32, 32), {"padding": "SAME"}),
    "32→64, 3×3 stride 2": Shape((32, 32, 32, 32), (3, 3, 32, 64), {"padding": "SAME", "stride": 2}),
    "64→64, 1×1": Shape((32, 16, 16, 64), (1, 1, 64, 64), {}),
    "depthwise 64, 3×3": Shape((32, 16, 16, 64), (3, 3, 1, 64), {"padding": "SAME", "groups": 64}),
    "4 groups of 16, 3×3": Shape((32, 16, 16, 64), (3, 3, 16, 64), {"padding": "SAME", "groups": 4}),
    "16→16, 3×3 dilated 2": Shape((32, 32, 32, 16), (3, 3, 16, 16), {"padding": "SAME", "dilation": 2}),
    "words 100→100, 5": Shape((4, 1000, 100), (5, 100, 100), {"padding": "SAME"}),
    "video 3→8, 3×3×3": Shape((4, 8, 24, 24, 3), (3, 3, 3, 3, 8), {"padding": "SAME"}),
    "8→8, 11×11": Shape((8, 32, 32, 8), (11, 11, 8, 8), {"padding": "SAME"}),
}
SMALL = {
    "1→4, 3×3": Shape((2, 8, 8, 1), (3, 3, 1, 4), {}),
    "4→4, 1×1": Shape((2, 8, 8, 4), (1, 1, 4, 4), {}),
}
LARGEST_MATRIX = 4_000_000  # entries of the sparse matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """Time and memory of every lowering of convolution."""

    SMOKE = {"repeats": 2}

    repeats: int = 15
    """Rounds of timing; each calls every lowering once."""


def measure(config: Config, progress: Progress) -> StudyResult:
    shapes = SMALL if config.smoke else SHAPES
    results = {name: time_lowerings(shapes[name], config.repeats) for name in progress.track(list(shapes))}
    figures = {}
    for direction, title in DIRECTIONS.items():
        seconds = {name: {impl: row[direction] for impl, row in rows.items()} for name, rows in results.items()}
        name = "bench_ops" if direction == "both" else direction
        figures[name] = plot.relative_times(seconds, title=f"{title}, {runtime.device_name()}")
    return StudyResult(results, figures, [times_table(direction, results) for direction in DIRECTIONS])


def time_lowerings(shape: Shape, repeats: int) -> dict[str, dict[str, float]]:
    """Return, for each lowering, seconds and bytes of temporaries, forward and with both gradients."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in (shape.x, shape.kernel))
    y = jax.eval_shape(partial(ops.conv, **shape.options), x, kernel)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    runs, memory = {}, {}
    for impl in ops.LOWERINGS:
        if impl == "toeplitz" and math.prod(y.shape[1:]) * math.prod(kernel.shape[:-1]) > LARGEST_MATRIX:
            continue
        conv = partial(ops.conv, impl=impl, **shape.options)

        def value_and_grads(
            x: jax.Array, kernel: jax.Array, dy: jax.Array, conv: Callable[..., jax.Array] = conv
        ) -> Any:
            y, vjp = jax.vjp(conv, x, kernel)
            return y, *vjp(dy)

        for direction, function, args in (("forward", conv, (x, kernel)), ("both", value_and_grads, (x, kernel, dy))):
            compiled = jax.jit(function).lower(*args).compile()
            memory[impl, direction] = compiled.memory_analysis().temp_size_in_bytes
            runs[impl, direction] = partial(compiled, *args)
    seconds = medians(runs, repeats=repeats)
    return {
        impl: {
            "forward": seconds[impl, "forward"],
            "both": seconds[impl, "both"],
            "forward_bytes": memory[impl, "forward"],
            "both_bytes": memory[impl, "both"],
        }
        for impl in dict.fromkeys(impl for impl, _ in runs)
    }


def times_table(direction: str, results: dict[str, dict[str, dict[str, float]]]) -> Any:
    """Build the table of milliseconds, and megabytes of temporaries, of every lowering."""
    rows = [
        [
            name,
            *(
                f"{by_impl[impl][direction] * 1e3:.2f} ({by_impl[impl][direction + '_bytes'] / 1e6:.1f})"
                if impl in by_impl
                else "—"
                for impl in ops.LOWERINGS
            ),
        ]
        for name, by_impl in results.items()
    ]
    return results_table(f"{DIRECTIONS[direction]}: milliseconds (megabytes)", ["shape", *ops.LOWERINGS], rows)


def summarize_results(results: dict[str, Any]) -> str:
    clauses = []
    for direction, title in DIRECTIONS.items():
        ratios = {
            name: by_impl["explicit"][direction] / min(row[direction] for row in by_impl.values())
            for name, by_impl in results.items()
        }
        worst = max(ratios, key=lambda name: ratios[name])
        within = sum(ratio <= 3 for ratio in ratios.values())
        clauses.append(
            f"{title}, explicit takes at most 3 times as long as the fastest for {within} of {len(ratios)} shapes, "
            f"and {ratios[worst]:.1f} times at most ({worst})"
        )
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
