"""How much arithmetic a step is, and how much of it this machine can do."""

import os
import time
from typing import Any

import numpy as np

from jaxconv import models, runtime
from jaxconv.bench.peers import CLASSES
from jaxconv.explain import summarize


def flops_of_step(model: str, batch: int) -> float:
    """Additions and multiplications of one training step.

    Every product of the forward pass has one for the gradient by the kernel and one for the gradient by the input,
    which the first layer does not need: ``2 · batch · (3 · multiply_adds − those of the first layer)``. What is
    neither convolution nor dense is not counted.

    >>> flops_of_step("mnist_cnn", 1) == 2 * (3 * 2794240 - 26 * 26 * 32 * 9)
    True
    """
    entry = models.find(model)
    work = [row.multiply_adds for row in summarize(entry.make(CLASSES), entry.in_shape).rows if row.multiply_adds]
    return 2.0 * batch * (3 * sum(work) - work[0])


def load() -> str | None:
    """What to say if others are using the machine now; None if it is quiet, or does not tell."""
    if not hasattr(os, "getloadavg"):
        return None
    running = os.getloadavg()[0]  # processes, on average over the last minute
    if running < 0.5:
        return None
    return f"the machine is busy ({running:.1f} processes on {runtime.cores()} cores): times may mislead"


def machine() -> dict[str, Any]:
    """What the times that are written to a file depend on."""
    return {
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "threads": runtime.cores(),
        "instruction_set": runtime.instruction_set(),
        "emulated": runtime.instruction_set_is_emulated(),
    }


def ceiling_line(gflops: float) -> str:
    """Say in words what :func:`sgemm_gflops` measured, and whether XLA is held to fewer instructions."""
    line = f"the machine's ceiling: {gflops:.1f} GFLOP/s (numpy's product of two 2048×2048 float32 matrices)"
    held = f"; XLA is held to {runtime.instruction_set()}, which is emulated"
    return line + (held if runtime.instruction_set_is_emulated() else "")


def sgemm_gflops(size: int = 2048, repeats: int = 5) -> float:
    """Billions of operations a second of numpy's float32 matrix product, the best of some: the machine's ceiling."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9
