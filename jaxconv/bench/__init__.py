"""Benchmarks of jaxconv: training steps, single ops, and the lowerings that conv selects from on a CPU.

``benchmarks/``, outside the package, compares with other frameworks.
"""

from jaxconv.bench.step_timing import StepTimes, flops_of_step, sgemm_gflops, time_steps, times_table

__all__ = ["StepTimes", "flops_of_step", "sgemm_gflops", "time_steps", "times_table"]
