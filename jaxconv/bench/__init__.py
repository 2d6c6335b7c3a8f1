"""How long a training step takes, here and in other libraries, on this machine.

Each contestant trains in a process of its own (:mod:`jaxconv.bench.worker`), which imports that library alone beside
jaxconv's own imports. The processes wait while one of them works, and they take turns, so that a slow moment of the
machine meets them all.

Beside that: how long single ops take (:mod:`jaxconv.bench.op_timing`), and the table by which conv chooses its
lowerings on a CPU (:mod:`jaxconv.bench.autotuning`).
"""

from jaxconv.bench.contestants import BATCHES, CONTESTANTS, PEERS, Contestant, chosen
from jaxconv.bench.process import Lost, Process
from jaxconv.bench.rounds import Measured, race
from jaxconv.bench.rows import Row, make_row, sentences, table, times
from jaxconv.bench.step_timing import flops_of_step, sgemm_gflops

__all__ = [
    "BATCHES",
    "CONTESTANTS",
    "PEERS",
    "Contestant",
    "Lost",
    "Measured",
    "Process",
    "Row",
    "chosen",
    "flops_of_step",
    "make_row",
    "race",
    "sentences",
    "sgemm_gflops",
    "table",
    "times",
]
