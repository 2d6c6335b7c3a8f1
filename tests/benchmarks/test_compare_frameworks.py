"""The comparison of frameworks: the order of turns, the arithmetic, what is saved, and workers that fail."""

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


# The turns, with workers that only keep a diary.


class Fake:
    """A worker whose steps take ``seconds`` each, and which is lost at its n-th turn."""

    def __init__(self, diary, name, seconds=0.1, chunk=1, lost_at=None):
        self.diary, self.name, self.seconds, self.chunk, self.lost_at = diary, name, seconds, chunk, lost_at
        self.turns, self.closed = 0, False

    def read_reply(self, what):
        self.diary.append((self.name, "ready"))
        if self.lost_at == 0:
            raise WorkerFailed("it fell over")
        return {"chunk": self.chunk, "sizes": [1], "first_step_s": 7.0}

    def run(self, steps):
        self.diary.append((self.name, steps))
        self.turns += 1
        if self.turns == self.lost_at:
            raise WorkerFailed("it fell over")
        return steps * self.seconds * self.turns  # the glance is its first turn

    def close(self):
        if not self.closed:
            self.diary.append((self.name, "gone"))
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def race(number=2, **fakes):
    """The race of the contestants lax, torch and so on, and who was lost on the way."""
    diary, lost = [], []
    made = {name: Fake(diary, name, **options) for name, options in fakes.items()}
    found = interleave.run_interleaved(
        [each for each in targets.TARGETS if each.name in fakes],
        lambda contestant: made[contestant.name],
        rounds=number,
        on_failure=lambda contestant, why: lost.append((contestant.name, why)),
    )
    assert all(fake.closed for fake in made.values())
    return found, diary, lost


def test_they_get_ready_one_by_one_and_then_take_turns():
    found, diary, lost = race(3, lax={"seconds": 0.1}, torch={"seconds": 0.02})
    assert diary == [
        *[("lax", "ready"), ("lax", interleave.WARMUP_STEPS), ("torch", "ready"), ("torch", interleave.WARMUP_STEPS)],
        *[("lax", 3), ("torch", 15)] * 3,
        *[("torch", "gone"), ("lax", "gone")],
    ]
    assert not lost and found["lax"].first_step_s == 7.0
    assert found["lax"].seconds == pytest.approx([0.2, 0.3, 0.4])  # seconds a step, not a turn
    assert found["torch"].seconds == pytest.approx([0.04, 0.06, 0.08])


def test_a_chunk_is_never_cut():
    _, diary, _ = race(1, lax={"seconds": 0.02, "chunk": 10})
    assert diary == [("lax", "ready"), ("lax", 10), ("lax", 20), ("lax", "gone")]


@pytest.mark.parametrize("lost_at", [0, 1, 3])
def test_who_falls_over_has_no_numbers_and_the_others_go_on(lost_at):
    found, diary, lost = race(3, lax={"lost_at": lost_at}, torch={})
    assert list(found) == ["torch"] and len(found["torch"].seconds) == 3
    assert lost == [("lax", "it fell over")]
    last = diary.index(("lax", "gone"))  # at once: a worker that hangs would be in the way of the others
    assert [name for name, _ in diary[: last + 1]].count("lax") == 2 + lost_at
    assert ("torch", 3) in diary[last:]


def test_all_are_gone_after_an_interrupt():
    diary = []
    made = {name: Fake(diary, name) for name in ("lax", "nnx")}

    def interrupted(what):
        if what == "round 2 of 9: nnx":
            raise KeyboardInterrupt

    asked = [each for each in targets.TARGETS if each.name in made]
    with pytest.raises(KeyboardInterrupt):
        interleave.run_interleaved(
            asked, lambda each: made[each.name], rounds=9, on_failure=lambda *_: None, progress=interrupted
        )
    assert made["lax"].closed and made["nnx"].closed


# The arithmetic, on made-up rows.


def row(peer, ms, mode="step", model="lenet5"):
    [contestant] = [each for each in targets.TARGETS if (each.framework, each.mode) == (peer, mode)]
    return step_timing.step_times(
        contestant.framework, mode, model, 128, [ms / 1e3, 2 * ms / 1e3, ms / 2e3], 1.0, flops=3e9
    )


def test_a_row_is_the_median_of_its_rounds():
    made = row("nnx", 20.0)
    assert made[4:] == pytest.approx((20.0, 10.0, 40.0, 6400.0, 150.0, 1.0))
    assert made[:4] == ("lenet5", "nnx", "step", 128)


def test_times_are_multiples_of_torch_in_its_better_layout():
    made = [row("jaxconv", 9.0), row("torch", 8.0), row("torch_channels_last", 6.0), row("lax", 18.0)]
    assert results.relative_times(made) == pytest.approx(
        {"jaxconv step": 1.5, "torch": 8 / 6, "torch_channels_last": 1, "lax": 3}
    )
    text = results.table(made)
    assert "× torch_channels_last" in text
    [line] = [line for line in text.splitlines() if " lax " in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]] == (
        ["lax", "step", "18.00", "9.00", "36.00", "7,111", "166.7", "3.00", "1.0"]
    )


def test_without_torch_they_are_multiples_of_the_fastest():
    made = [row("jaxconv", 9.0), row("jaxconv", 6.0, "epoch"), row("nnx", 12.0)]
    assert results.relative_times(made) == {"jaxconv step": 1.5, "jaxconv epoch": 1.0, "nnx": 2.0}


def test_the_sentences_also_say_where_it_is_slower():
    made = [row("jaxconv", 9.0), row("jaxconv", 5.0, "epoch"), row("torch", 8.0), row("torch_channels_last", 6.0)]
    made += [row("nnx", 18.0)]
    assert results.summary_lines(made) == [
        "lenet5: jaxconv's step is 2.00 times as fast as nnx, but slower: it takes 1.50 times as long as "
        "torch_channels_last",
        "lenet5: jaxconv's epoch is 3.60 times as fast as nnx, 1.20 times as fast as torch_channels_last",
    ]
    assert results.summary_lines(made[:3:2]) == [
        "lenet5: jaxconv's step is slower: it takes 1.12 times as long as torch"
    ]
    assert results.summary_lines(made[:2]) == []


def test_the_work_of_a_step():
    convs = [28 * 28 * 6 * 25, 10 * 10 * 16 * 25 * 6]  # pixels, filters, taps
    dense = [400 * 120, 120 * 84, 84 * 10]
    forward = sum(convs + dense)
    assert step_timing.flops_of_step("lenet5", 128) == 128 * 2 * (forward + forward + forward - convs[0])
    assert step_timing.sgemm_gflops(64, 2) > 0


def test_a_busy_machine_is_said(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.21, 9.0, 9.0), raising=False)
    assert "the machine is busy (3.2 processes on " in step_timing.busy_warning()
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 9.0, 9.0), raising=False)
    assert step_timing.busy_warning() is None


def test_the_figure_shows_multiples_with_milliseconds_beside_them():
    cases = {"lenet5": {"jaxconv epoch": 3.0, "torch": 4.0, "nnx": 12.0}, "vgg6": {"torch": 150.0}}
    figure = plot.step_times(cases, {"lenet5": 4.0, "vgg6": 150.0}, title="here")
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [0.75, 1.0, 3.0]
    assert [text.get_text() for text in first.texts] == ["3.00 ms, 0.75 ×", "4.00 ms, 1.00 ×", "12.0 ms, 3.00 ×"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["jaxconv epoch", "torch", "nnx"]
    ours, torch, nnx = (bar.get_facecolor() for bar in first.patches)
    assert ours != torch == nnx
    assert second.texts[0].get_text() == "150 ms, 1.00 ×" and first.get_xlim() == second.get_xlim()


# Workers that fail, as real processes.

READY = 'print(\'{"chunk": 1, "first_step_s": 0.1}\', flush=True);'


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (
            "import sys; sys.exit('RuntimeError: no memory')",
            r"its process ended \(exit code 1\): RuntimeError: no memory",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"its process ended \(killed by signal 9\)$"),
        ("import time; time.sleep(60)", "getting ready took more than 0.5 s"),
        ("print('hello', flush=True)", "it said 'hello', which is no answer"),
    ],
)
def test_a_worker_that_does_not_get_ready(program, why):
    timeout = 0.5 if "sleep" in program else 60
    with (
        WorkerProcess([sys.executable, "-c", program], timeout=timeout) as worker,
        pytest.raises(WorkerFailed, match=why),
    ):
        worker.read_reply("getting ready")
    assert worker._process.poll() is not None


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise MemoryError('too much')", r"its process ended \(exit code 1\): MemoryError: too much"),
        ("import time; time.sleep(60)", "5 steps took more than 1 s"),
    ],
)
def test_a_worker_that_fails_at_its_turn(program, why):
    with WorkerProcess([sys.executable, "-c", f"{READY}input();{program}"], timeout=60) as worker:
        worker.read_reply("getting ready")
        worker.timeout = 1 if "sleep" in program else 60
        with pytest.raises(WorkerFailed, match=why):
            worker.run(5)
        worker.timeout = 60
    assert worker._process.poll() is not None


def test_a_worker_that_is_gone_cannot_be_asked():
    with WorkerProcess([sys.executable, "-c", READY], timeout=60) as worker:
        worker.read_reply("getting ready")
        worker._process.wait()
        with pytest.raises(WorkerFailed, match=r"its process ended \(exit code 0\)"):
            worker.run(5)


@pytest.mark.frameworks
def test_a_worker_imports_its_own_library_and_answers_in_json():
    pytest.importorskip("torch", reason="the benchmarks extra is not installed")
    libraries = ("torch", "flax", "equinox", "keras", "matplotlib", "rich")
    program = (
        "import io, sys; from benchmarks import worker; sys.stdin = io.StringIO('run 2\\nrun 3\\n');"
        f"worker.main(['torch', 'lenet5', '2']); print([name for name in {libraries} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    ready, *answers = map(json.loads, done.stdout.splitlines())
    assert sum(ready["sizes"]) == 61_706 and ready["first_step_s"] > 0
    assert [answer["steps"] for answer in answers] == [2, 3] and all(answer["seconds"] > 0 for answer in answers)
    assert done.stderr.splitlines()[-1] == "['torch']"  # printing goes to stderr, out of the answers' way


# The command.


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Run the comparison in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(words):
        code = compare_frameworks.run(words.split())
        return code, *capsys.readouterr()

    return run


def test_what_is_not_installed_is_left_out_with_a_line(compare, monkeypatch, tmp_path):
    find = targets.importlib.util.find_spec
    monkeypatch.setattr(
        targets.importlib.util, "find_spec", lambda name: None if name in ("torch", "keras") else find(name)
    )
    fakes = {name: Fake([], name, seconds) for name, seconds in {"jaxconv step": 0.3, "lax": 0.6}.items()}

    def start(contestant, model, batch, timeout, tune):
        assert (model, batch, timeout, tune) == ("lenet5", 16, 300.0, False)
        return fakes.get(contestant.name) or Fake([], contestant.name, lost_at=0)

    monkeypatch.setattr(process, "start", start)
    code, out, _ = compare("--models lenet5 --batch-size 16 --rounds 3 --no-cpu-tuning --json b.json --figure c.png")
    assert code == 0
    assert 'without torch: torch is not installed: pip install -e ".[benchmarks]"\n' in out
    assert "without nnx: lenet5: it fell over\n" in out
    assert "lenet5: jaxconv's step is 2.00 times as fast as lax\n" in out
    assert "peak: " in out and out.endswith("saved in b.json and c.png\n")
    found = json.loads((tmp_path / "b.json").read_text())
    of_machine = {"device", "versions", "xla_flags", "threads", "instruction_set", "emulated", "sgemm_gflops"}
    assert set(found) == of_machine | {"rows", "left_out"}
    assert {"jax", "jaxconv"} <= set(found["versions"]) and not {"torch", "keras"} & set(found["versions"])
    assert set(found["left_out"]) == {"jaxconv epoch", "torch", "torch_channels_last", "nnx", "equinox", "keras"}
    assert found["left_out"]["nnx"] == "lenet5: it fell over"
    for each in found["rows"]:
        assert {name: type(value) for name, value in each.items()} == SCHEMA
    assert [(each["framework"], each["mode"]) for each in found["rows"]] == [("jaxconv", "step"), ("lax", "step")]
    # Turns 2 to 4 of a fake take 2 to 4 times as long a step.
    ours = found["rows"][0]
    assert [ours[f"{name}_ms"] for name in ("min", "median", "max")] == pytest.approx([600, 900, 1200])
    assert ours["images_per_second"] == pytest.approx(16 / 0.9)
    assert ours["gflops"] == pytest.approx(step_timing.flops_of_step("lenet5", 16) / 0.9e9)
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG") and len(os.listdir(tmp_path)) == 2


def test_an_interrupt_leaves_what_was_measured(compare, monkeypatch, tmp_path):
    def start(contestant, model, **_):
        if model == "vgg6":
            raise KeyboardInterrupt
        return Fake([], contestant.name)

    monkeypatch.setattr(process, "start", start)
    code, out, _ = compare("--models lenet5 vgg6 --frameworks lax --rounds 1 --json b.json")
    assert code == 130 and "saved" not in out and (tmp_path / "b.png").is_file()
    found = json.loads((tmp_path / "b.json").read_text())
    assert [(each["model"], each["framework"]) for each in found["rows"]] == [
        ("lenet5", name) for name in ("jaxconv", "jaxconv", "lax")
    ]


def test_who_was_lost_after_the_last_table_is_in_the_file(compare, monkeypatch, tmp_path):
    def start(contestant, model, **_):
        return Fake([], contestant.name, lost_at=0 if model == "vgg6" else None)

    monkeypatch.setattr(process, "start", start)
    code, _, _ = compare("--models lenet5 vgg6 --frameworks lax --rounds 1 --json b.json")
    found = json.loads((tmp_path / "b.json").read_text())
    assert code == 0 and set(found["left_out"]) == {"jaxconv step", "jaxconv epoch", "lax"}


def test_nobody_left_is_an_error_and_a_model_that_peers_lack_is_timed_alone(compare, monkeypatch):
    started = []
    monkeypatch.setattr(
        process, "start", lambda contestant, **_: started.append(contestant.name) or Fake([], "", lost_at=0)
    )
    code, out, err = compare("--models mlp --frameworks lax")
    assert code == 2 and "compare_frameworks: none of them could be timed" in err
    assert "mlp: the other frameworks have no such network; jaxconv runs alone\n" in out
    assert started == ["jaxconv step", "jaxconv epoch"]


def test_every_model_of_the_peers_is_one_of_ours():
    assert set(step_timing.BATCHES) | set(networks.NETS) <= set(models.list_models())


def test_a_race_from_end_to_end(compare, tmp_path):
    code, out, _ = compare("--models lenet5 --frameworks lax --batch-size 4 --rounds 2 --json b.json")
    assert code == 0, out
    found = json.loads((tmp_path / "b.json").read_text())
    assert [(each["framework"], each["mode"]) for each in found["rows"]] == (
        [("jaxconv", "step"), ("jaxconv", "epoch"), ("lax", "step")]
    )
    for each in found["rows"]:
        assert 0 < each["min_ms"] <= each["median_ms"] <= each["max_ms"] < 1e3 * 60
        assert {name: type(value) for name, value in each.items()} == SCHEMA
    assert found["left_out"] == {} and out.endswith("saved in b.json and b.png\n")
    assert "lenet5: a training step of 4 images" in out and "lenet5: jaxconv's epoch is " in out


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux who the children are")
def test_ctrl_c_leaves_no_worker_running():
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
        listed, deadline = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + 60
        while not (workers := listed.read_text().split()):
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
        ("--models", "compare_frameworks: --models: name at least one"),
        ("--rounds 0", "compare_frameworks: rounds=0 should be an int of at least 1"),
        ("--batch-size 0", "compare_frameworks: batch_size=0 should be an int of at least 1"),
        ("--timeout 0", "compare_frameworks: timeout=0.0 should be a number above 0"),
        ("--json nowhere/b.json", "compare_frameworks: --json nowhere/b.json: there is no folder nowhere"),
        ("--figure .", "compare_frameworks: --figure . is a folder: name a file in it"),
        ("--figure b.pgn", "compare_frameworks: --figure b.pgn: name a .png, .pdf or .svg"),
        ("--json b.png", "compare_frameworks: --json b.png is where the figure goes: name a .json"),
    ],
)
def test_bad_input_is_one_line(compare, monkeypatch, line, message):
    monkeypatch.setattr(process, "start", None)  # nothing is started
    code, out, err = compare(line)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
