"""Run two writers and ten readers on one run folder: ``python readers.py --seconds 60``.

The first writer trains; the second tries to resume the same run. The readers load the best network repeatedly, as
``predict``, ``eval`` and ``explain`` do. It prints the number of failed reads and the output of the second writer.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

READER = """
import sys, time
from pathlib import Path
from jaxconv.runs import load_run
until, reads, failures = time.monotonic() + float(sys.argv[2]), 0, []
while time.monotonic() < until:
    try:
        load_run(Path(sys.argv[1]))
    except Exception as error:
        failures.append(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
    reads += 1
print(reads, *failures, sep="\\n")
"""


def wait_for_checkpoint(run: Path, writer: subprocess.Popen[str], seconds: float) -> None:
    start_time = time.monotonic()
    while not any(path.name.isdecimal() for path in run.glob("checkpoints/*")):
        if writer.poll() is not None or time.monotonic() - start_time > seconds:
            raise SystemExit(f"the first writer saved nothing: {writer.communicate()[0]}")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--readers", type=int, default=10)
    args = parser.parse_args()
    command = [sys.executable, "-m", "jaxconv.cli", "train"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = ["--model", "mlp", "--epochs", "1000000", "--max-checkpoints", "1", "--run-dir", str(run)]
        first = subprocess.Popen([*command, *options], **pipes)  # type: ignore[call-overload]
        second, readers = None, []
        try:
            wait_for_checkpoint(run, first, 120)
            second = subprocess.Popen([*command, "--resume", str(run)], **pipes)  # type: ignore[call-overload]
            line = [sys.executable, "-c", READER, str(run), str(args.seconds)]
            readers = [subprocess.Popen(line, **pipes) for _ in range(args.readers)]  # type: ignore[call-overload]
            outputs = [reader.communicate(timeout=args.seconds + 120)[0].splitlines() for reader in readers]
        finally:
            state = {name: "still running" if writer and writer.poll() is None else "ended"
                     for name, writer in (("first", first), ("second", second))}  # fmt: skip
            for process in [first, *([second] if second else []), *readers]:
                process.kill()
            second_output = second.communicate()[0] if second else ""
            first.communicate()
    reads = sum(int(lines[0]) if lines and lines[0].isdecimal() else 0 for lines in outputs)
    failures = Counter(line for lines in outputs for line in (lines[1:] if lines and lines[0].isdecimal() else lines))
    print(f"{reads} reads by {args.readers} readers, {failures.total()} failed")
    for failure, count in failures.most_common():
        print(f"  {count:5} times {failure}")
    print(f"the first writer: {state['first']}; the second: {state['second']}")
    print("\n".join(line for line in second_output.splitlines() if line.strip())[-1000:])
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
