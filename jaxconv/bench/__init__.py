"""Benchmarks of jaxconv: training steps, single operations, and the table by which conv chooses on a CPU.

The comparison with other frameworks is in ``benchmarks/``, outside of the package.
"""

from jaxconv.bench.step_timing import StepTimes, flops_of_step, sgemm_gflops, time_steps, times_table

__all__ = ["StepTimes", "flops_of_step", "sgemm_gflops", "time_steps", "times_table"]
