"""One contestant, in a process of its own: ``python benchmarks/worker.py PEER MODEL BATCH [--mode epoch]``.

It builds the network, makes the first step, and says so; then it answers each line ``run N`` with how long N steps
took, until there are no more lines. Every answer is a line of JSON:

    {"sizes": [150, 6, …], "chunk": 1, "first_step_s": 1.4}
    {"steps": 20, "seconds": 0.41}
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    # Last, so that the jaxconv of this environment is timed, and not that of this checkout.
    sys.path.append(str(Path(__file__).parents[1]))
    from benchmarks.targets import TARGETS
    from jaxconv import runtime
    from jaxconv.bench.step_timing import JAXCONV

    parser = argparse.ArgumentParser(prog="python benchmarks/worker.py")
    parser.add_argument("framework")
    parser.add_argument("model")
    parser.add_argument("batch", type=int)
    parser.add_argument("--mode", default="step")
    parser.add_argument("--no-cpu-tuning", action="store_true")
    options = parser.parse_args(arguments)
    # What a library prints goes to stderr; the answers alone go where the parent reads.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: object) -> None:
        print(json.dumps(content), file=answers, flush=True)

    [contestant] = [each for each in TARGETS if (each.framework, each.mode) == (options.framework, options.mode)]
    if contestant.framework == JAXCONV:
        runtime.configure(cpu_tuning=not options.no_cpu_tuning)
    network = importlib.import_module(contestant.module)
    runner = network.build(options.model, options.batch, **contestant.options)
    started = time.perf_counter()
    runner.steps(runner.chunk)
    answer(sizes=runner.sizes, chunk=runner.chunk, first_step_s=time.perf_counter() - started)
    for line in sys.stdin:
        steps = int(line.removeprefix("run "))
        started = time.perf_counter()
        runner.steps(steps)
        answer(steps=steps, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
