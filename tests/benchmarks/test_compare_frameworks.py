"""``benchmarks/compare_frameworks.py``: interleaving, arithmetic, saved files, and failing workers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import compare_frameworks, interleave, networks, process, results, targets
from benchmarks.process import WorkerFailed, WorkerProcess
from jaxconv import models, plot
from jaxconv.bench import step_timing

ROOT = Path(compare_frameworks.__file__).parents[1]
SCHEMA = {
    "model": str,
    "framework": str,
    "mode": str,
    "batch": int,
    "median_ms": float,
    "min_ms": float,
    "max_ms": float,
    "images_per_second": float,
    "gflops": float,
    "first_step_s": float,
}


# Interleaving, with fake workers that log their calls.


class Fake:
    """A worker whose steps take ``seconds``, and which fails in its round ``fails_at``."""

    def __init__(self, log, name, seconds=0.1, chunk=1, fails_at=None):
        self.log, self.name, self.seconds, self.chunk, self.fails_at = log, name, seconds, chunk, fails_at
        self.turns, self.closed = 0, False

    def read_reply(self, description):
        self.log.append((self.name, "ready"))
        if self.fails_at == 0:
            raise WorkerFailed("out of memory")
        return {"chunk": self.chunk, "sizes": [1], "first_step_s": 7.0}

    def run(self, steps):
        self.log.append((self.name, steps))
        self.turns += 1
        if self.turns == self.fails_at:
            raise WorkerFailed("out of memory")
        return steps * self.seconds * self.turns  # the warm-up is the first turn

    def close(self):
        if not self.closed:
            self.log.append((self.name, "closed"))
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def run_fakes(rounds=2, **fakes):
    """Run the interleaved rounds of fake targets; return timings, log and failures."""
    log, failures = [], []
    workers = {name: Fake(log, name, **options) for name, options in fakes.items()}
    timings = interleave.run_interleaved(
        [target for target in targets.TARGETS if target.name in fakes],
        lambda target: workers[target.name],
        rounds=rounds,
        on_failure=lambda target, reason: failures.append((target.name, reason)),
    )
    assert all(fake.closed for fake in workers.values())
    return timings, log, failures


def test_run_interleaved_starts_all_before_rounds():
    timings, log, failures = run_fakes(3, lax={"seconds": 0.1}, torch={"seconds": 0.02})
    assert log == [
        *[("lax", "ready"), ("lax", interleave.WARMUP_STEPS), ("torch", "ready"), ("torch", interleave.WARMUP_STEPS)],
        *[("lax", 3), ("torch", 15)] * 3,
        *[("torch", "closed"), ("lax", "closed")],
    ]
    assert not failures and timings["lax"].first_step_s == 7.0
    assert timings["lax"].seconds == pytest.approx([0.2, 0.3, 0.4])  # seconds a step, not a turn
    assert timings["torch"].seconds == pytest.approx([0.04, 0.06, 0.08])


def test_run_interleaved_steps_are_multiples_of_chunk():
    _, log, _ = run_fakes(1, lax={"seconds": 0.02, "chunk": 10})
    assert log == [("lax", "ready"), ("lax", 10), ("lax", 20), ("lax", "closed")]


@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_run_interleaved_excludes_failed_worker(fails_at):
    timings, log, failures = run_fakes(3, lax={"fails_at": fails_at}, torch={})
    assert list(timings) == ["torch"] and len(timings["torch"].seconds) == 3
    assert failures == [("lax", "out of memory")]
    closed_at = log.index(("lax", "closed"))  # closed at once: a hanging worker would block the others
    assert [name for name, _ in log[: closed_at + 1]].count("lax") == 2 + fails_at
    assert ("torch", 3) in log[closed_at:]


def test_run_interleaved_interrupt_closes_all_workers():
    log = []
    workers = {name: Fake(log, name) for name in ("lax", "nnx")}

    def interrupted(stage):
        if stage == "round 2 of 9: nnx":
            raise KeyboardInterrupt

    selected = [target for target in targets.TARGETS if target.name in workers]
    with pytest.raises(KeyboardInterrupt):
        interleave.run_interleaved(
            selected, lambda target: workers[target.name], rounds=9, on_failure=lambda *_: None, progress=interrupted
        )
    assert workers["lax"].closed and workers["nnx"].closed


# The arithmetic, on synthetic rows.


def row(framework, ms, mode="step", model="lenet5"):
    [target] = [t for t in targets.TARGETS if (t.framework, t.mode) == (framework, mode)]
    return step_timing.step_times(
        target.framework, mode, model, 128, [ms / 1e3, 2 * ms / 1e3, ms / 2e3], 1.0, flops=3e9
    )


def test_step_times_is_median_of_rounds():
    result = row("nnx", 20.0)
    assert result[4:] == pytest.approx((20.0, 10.0, 40.0, 6400.0, 150.0, 1.0))
    assert result[:4] == ("lenet5", "nnx", "step", 128)


def test_relative_times_baseline_is_faster_torch_layout():
    rows = [row("jaxconv", 9.0), row("torch", 8.0), row("torch_channels_last", 6.0), row("lax", 18.0)]
    assert results.relative_times(rows) == pytest.approx(
        {"jaxconv step": 1.5, "torch": 8 / 6, "torch_channels_last": 1, "lax": 3}
    )
    text = results.table(rows)
    assert "× torch_channels_last" in text
    [line] = [line for line in text.splitlines() if " lax " in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]] == (
        ["lax", "step", "18.00", "9.00", "36.00", "7,111", "166.7", "3.00", "1.0"]
    )


def test_relative_times_without_torch_baseline_is_fastest():
    rows = [row("jaxconv", 9.0), row("jaxconv", 6.0, "epoch"), row("nnx", 12.0)]
    assert results.relative_times(rows) == {"jaxconv step": 1.5, "jaxconv epoch": 1.0, "nnx": 2.0}


def test_summary_lines_list_faster_and_slower():
    rows = [row("jaxconv", 9.0), row("jaxconv", 5.0, "epoch"), row("torch", 8.0), row("torch_channels_last", 6.0)]
    rows += [row("nnx", 18.0)]
    assert results.summary_lines(rows) == [
        "lenet5: jaxconv step is 2.00x faster than nnx, 1.50x slower than torch_channels_last",
        "lenet5: jaxconv epoch is 3.60x faster than nnx, 1.20x faster than torch_channels_last",
    ]
    assert results.summary_lines(rows[:3:2]) == ["lenet5: jaxconv step is 1.12x slower than torch"]
    assert results.summary_lines(rows[:2]) == []


def test_flops_of_step_lenet5():
    convs = [28 * 28 * 6 * 25, 10 * 10 * 16 * 25 * 6]  # pixels, filters, kernel entries
    dense = [400 * 120, 120 * 84, 84 * 10]
    forward = sum(convs + dense)
    assert step_timing.flops_of_step("lenet5", 128) == 128 * 2 * (forward + forward + forward - convs[0])
    assert step_timing.sgemm_gflops(64, 2) > 0


def test_busy_warning_reports_load(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.21, 9.0, 9.0), raising=False)
    assert "the machine is busy (3.2 processes on " in step_timing.busy_warning()
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 9.0, 9.0), raising=False)
    assert step_timing.busy_warning() is None


def test_step_times_figure_shows_ratios_and_milliseconds():
    cases = {"lenet5": {"jaxconv epoch": 3.0, "torch": 4.0, "nnx": 12.0}, "vgg6": {"torch": 150.0}}
    figure = plot.step_times(cases, {"lenet5": 4.0, "vgg6": 150.0}, title="here")
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [0.75, 1.0, 3.0]
    assert [text.get_text() for text in first.texts] == ["3.00 ms, 0.75 ×", "4.00 ms, 1.00 ×", "12.0 ms, 3.00 ×"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["jaxconv epoch", "torch", "nnx"]
    jaxconv, torch, nnx = (bar.get_facecolor() for bar in first.patches)
    assert jaxconv != torch == nnx
    assert second.texts[0].get_text() == "150 ms, 1.00 ×" and first.get_xlim() == second.get_xlim()


# Failing workers, as real processes.

READY = 'print(\'{"chunk": 1, "first_step_s": 0.1}\', flush=True);'


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import sys; sys.exit('RuntimeError: no memory')",
            r"the worker process ended \(exit code 1\): RuntimeError: no memory",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            r"the worker process ended \(killed by signal 9\)$",
        ),
        ("import time; time.sleep(60)", "startup took more than 0.5 s"),
        ("print('hello', flush=True)", "expected a JSON reply, got 'hello'"),
    ],
)
def test_worker_startup_failure_raises(program, reason):
    timeout = 0.5 if "sleep" in program else 60
    with (
        WorkerProcess([sys.executable, "-c", program], timeout=timeout) as worker,
        pytest.raises(WorkerFailed, match=reason),
    ):
        worker.read_reply("startup")
    assert worker._process.poll() is not None


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise MemoryError('too much')", r"the worker process ended \(exit code 1\): MemoryError: too much"),
        ("import time; time.sleep(60)", "5 steps took more than 1 s"),
    ],
)
def test_worker_failure_in_round_raises(program, reason):
    with WorkerProcess([sys.executable, "-c", f"{READY}input();{program}"], timeout=60) as worker:
        worker.read_reply("startup")
        worker.timeout = 1 if "sleep" in program else 60
        with pytest.raises(WorkerFailed, match=reason):
            worker.run(5)
        worker.timeout = 60
    assert worker._process.poll() is not None


def test_ended_worker_run_raises():
    with WorkerProcess([sys.executable, "-c", READY], timeout=60) as worker:
        worker.read_reply("startup")
        worker._process.wait()
        with pytest.raises(WorkerFailed, match=r"the worker process ended \(exit code 0\)"):
            worker.run(5)


@pytest.mark.frameworks
def test_worker_imports_one_library_and_replies_in_json():
    pytest.importorskip("torch", reason="the benchmarks extra is not installed")
    libraries = ("torch", "flax", "equinox", "keras", "matplotlib", "rich")
    program = (
        "import io, sys; from benchmarks import worker; sys.stdin = io.StringIO('run 2\\nrun 3\\n');"
        f"worker.main(['torch', 'lenet5', '2']); print([name for name in {libraries} if name in sys.modules])"
    )
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    ready, *replies = map(json.loads, completed.stdout.splitlines())
    assert sum(ready["sizes"]) == 61_706 and ready["first_step_s"] > 0
    assert [reply["steps"] for reply in replies] == [2, 3] and all(reply["seconds"] > 0 for reply in replies)
    assert completed.stderr.splitlines()[-1] == "['torch']"  # printing is redirected to stderr


# The command.


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Run the comparison in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(line):
        code = compare_frameworks.run(line.split())
        return code, *capsys.readouterr()

    return run


def test_missing_package_is_skipped_with_message(compare, monkeypatch, tmp_path):
    find_spec = targets.importlib.util.find_spec
    monkeypatch.setattr(
        targets.importlib.util, "find_spec", lambda name: None if name in ("torch", "keras") else find_spec(name)
    )
    fakes = {name: Fake([], name, seconds) for name, seconds in {"jaxconv step": 0.3, "lax": 0.6}.items()}

    def start(target, model, batch, timeout, tune):
        assert (model, batch, timeout, tune) == ("lenet5", 16, 300.0, False)
        return fakes.get(target.name) or Fake([], target.name, fails_at=0)

    monkeypatch.setattr(process, "start", start)
    code, out, _ = compare("--models lenet5 --batch-size 16 --rounds 3 --no-cpu-tuning --json b.json --figure c.png")
    assert code == 0
    assert 'skipped torch: torch is not installed: pip install -e ".[benchmarks]"\n' in out
    assert "skipped nnx: lenet5: out of memory\n" in out
    assert "lenet5: jaxconv step is 2.00x faster than lax\n" in out
    assert "peak: " in out and out.endswith("saved in b.json and c.png\n")
    report = json.loads((tmp_path / "b.json").read_text())
    machine_keys = {"device", "versions", "xla_flags", "threads", "instruction_set", "emulated", "sgemm_gflops"}
    assert set(report) == machine_keys | {"rows", "left_out"}
    assert {"jax", "jaxconv"} <= set(report["versions"]) and not {"torch", "keras"} & set(report["versions"])
    assert set(report["left_out"]) == {"jaxconv epoch", "torch", "torch_channels_last", "nnx", "equinox", "keras"}
    assert report["left_out"]["nnx"] == "lenet5: out of memory"
    for row in report["rows"]:
        assert {name: type(value) for name, value in row.items()} == SCHEMA
    assert [(row["framework"], row["mode"]) for row in report["rows"]] == [("jaxconv", "step"), ("lax", "step")]
    # In turns 2 to 4, a step of a fake worker takes 2 to 4 times as long.
    jaxconv_row = report["rows"][0]
    assert [jaxconv_row[f"{name}_ms"] for name in ("min", "median", "max")] == pytest.approx([600, 900, 1200])
    assert jaxconv_row["images_per_second"] == pytest.approx(16 / 0.9)
    assert jaxconv_row["gflops"] == pytest.approx(step_timing.flops_of_step("lenet5", 16) / 0.9e9)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG") and len(os.listdir(tmp_path)) == 2


def test_interrupt_keeps_saved_results(compare, monkeypatch, tmp_path):
    def start(target, model, **_):
        if model == "vgg6":
            raise KeyboardInterrupt
        return Fake([], target.name)

    monkeypatch.setattr(process, "start", start)
    code, out, _ = compare("--models lenet5 vgg6 --frameworks lax --rounds 1 --json b.json")
    assert code == 130 and "saved" not in out and (tmp_path / "b.png").is_file()
    report = json.loads((tmp_path / "b.json").read_text())
    assert [(row["model"], row["framework"]) for row in report["rows"]] == [
        ("lenet5", name) for name in ("jaxconv", "jaxconv", "lax")
    ]


def test_late_failures_are_saved_in_left_out(compare, monkeypatch, tmp_path):
    def start(target, model, **_):
        return Fake([], target.name, fails_at=0 if model == "vgg6" else None)

    monkeypatch.setattr(process, "start", start)
    code, _, _ = compare("--models lenet5 vgg6 --frameworks lax --rounds 1 --json b.json")
    report = json.loads((tmp_path / "b.json").read_text())
    assert code == 0 and set(report["left_out"]) == {"jaxconv step", "jaxconv epoch", "lax"}


def test_all_failed_exits_2_and_mlp_runs_jaxconv_alone(compare, monkeypatch):
    started = []
    monkeypatch.setattr(process, "start", lambda target, **_: started.append(target.name) or Fake([], "", fails_at=0))
    code, out, err = compare("--models mlp --frameworks lax")
    assert code == 2 and "compare_frameworks: no framework could be timed" in err
    assert "mlp: only jaxconv is timed; the other frameworks do not implement this network\n" in out
    assert started == ["jaxconv step", "jaxconv epoch"]


def test_benchmark_networks_are_jaxconv_models():
    assert set(step_timing.BATCHES) | set(networks.NETS) <= set(models.list_models())


def test_compare_frameworks_end_to_end(compare, tmp_path):
    code, out, _ = compare("--models lenet5 --frameworks lax --batch-size 4 --rounds 2 --json b.json")
    assert code == 0, out
    report = json.loads((tmp_path / "b.json").read_text())
    assert [(row["framework"], row["mode"]) for row in report["rows"]] == (
        [("jaxconv", "step"), ("jaxconv", "epoch"), ("lax", "step")]
    )
    for row in report["rows"]:
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"] < 1e3 * 60
        assert {name: type(value) for name, value in row.items()} == SCHEMA
    assert report["left_out"] == {} and out.endswith("saved in b.json and b.png\n")
    assert "lenet5: a training step of 4 images" in out and "lenet5: jaxconv epoch is " in out


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="child processes are listed by Linux only")
def test_ctrl_c_ends_all_workers():
    command = [
        sys.executable,
        "-m",
        "benchmarks.compare_frameworks",
        "--models",
        "lenet5",
        "--frameworks",
        "lax",
        "--batch-size",
        "4",
    ]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        children_file, deadline = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + 60
        while not (workers := children_file.read_text().split()):
            assert parent.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        parent.send_signal(signal.SIGINT)
        _, err = parent.communicate(timeout=60)
    finally:
        parent.kill()
    assert parent.returncode == 130 and err.endswith("interrupted\n") and "Traceback" not in err
    for worker in workers:
        with contextlib.suppress(FileNotFoundError):
            raise AssertionError(Path(f"/proc/{worker}/cmdline").read_text())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--models lenet", "unknown model 'lenet': did you mean 'lenet5'?"),
        ("--frameworks torchh", "compare_frameworks: unknown framework 'torchh': did you mean 'torch'?"),
        ("--models", "compare_frameworks: --models: give at least one network"),
        ("--rounds 0", "compare_frameworks: rounds=0 should be an int of at least 1"),
        ("--batch-size 0", "compare_frameworks: batch_size=0 should be an int of at least 1"),
        ("--timeout 0", "compare_frameworks: timeout=0.0 should be a number above 0"),
        ("--json nowhere/b.json", "compare_frameworks: --json nowhere/b.json: there is no folder nowhere"),
        ("--figure .", "compare_frameworks: --figure . is a folder: name a file in it"),
        ("--figure b.pgn", "compare_frameworks: --figure b.pgn must be a .png, .pdf or .svg"),
        ("--json b.png", "compare_frameworks: --json b.png is also the file of the figure: use a .json"),
    ],
)
def test_invalid_options_exit_2_with_one_line(compare, monkeypatch, line, message):
    monkeypatch.setattr(process, "start", None)  # nothing is started
    code, out, err = compare(line)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
