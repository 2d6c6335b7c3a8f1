"""Worker process of one benchmark target: ``python benchmarks/worker.py FRAMEWORK MODEL BATCH [--mode epoch]``.

It builds the network, runs the first call and reports that it is ready. Then it replies to each line ``run N`` of stdin
with the seconds of N steps. Every reply is a line of JSON:

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
    # Appended, so that an installed jaxconv takes precedence over this checkout.
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
    # Redirect the output of libraries to stderr, so that stdout has only replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**content: object) -> None:
        print(json.dumps(content), file=replies, flush=True)

    [target] = [t for t in TARGETS if (t.framework, t.mode) == (options.framework, options.mode)]
    if target.framework == JAXCONV:
        runtime.configure(cpu_tuning=not options.no_cpu_tuning)
    network = importlib.import_module(target.module)
    runner = network.build(options.model, options.batch, **target.options)
    start_time = time.perf_counter()
    runner.steps(runner.chunk)
    reply(sizes=runner.sizes, chunk=runner.chunk, first_step_s=time.perf_counter() - start_time)
    for line in sys.stdin:
        steps = int(line.removeprefix("run "))
        start_time = time.perf_counter()
        runner.steps(steps)
        reply(steps=steps, seconds=time.perf_counter() - start_time)


if __name__ == "__main__":
    main()
