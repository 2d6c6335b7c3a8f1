"""``jaxconv bench``: training steps of jaxconv's models."""

import itertools
import json

import pytest

from jaxconv.bench import step_timing

pytestmark = pytest.mark.usefixtures("promoting")


def test_time_steps_interleaves_modes_and_divides_by_steps(monkeypatch):
    calls, clock = [], itertools.count()

    def build(model, batch, *, mode):
        chunk = {"step": 1, "epoch": 10}[mode]
        return step_timing.Runner([1], lambda count: calls.append((mode, count)), chunk)

    monkeypatch.setattr(step_timing, "build", build)
    monkeypatch.setattr(step_timing.time, "perf_counter", lambda: next(clock) * 0.06)  # each call takes 0.06 s
    step, epoch = step_timing.time_steps("lenet5", 8, rounds=3)
    warmup = [("step", 1), ("epoch", 10)] + [("step", 1)] * 2 + [("epoch", 10)] * 2
    assert calls == [*warmup, *[*[("step", 1)] * 5, *[("epoch", 10)] * 5] * 3]
    assert step.median_ms == pytest.approx(60 / 5) and epoch.median_ms == pytest.approx(60 / 50)
    assert step.images_per_second == pytest.approx(8 * 5 / 0.06) and step.first_step_s == pytest.approx(0.06)
    assert step.gflops == pytest.approx(step_timing.flops_of_step("lenet5", 8) / 12e-3 / 1e9)


def test_bench_prints_a_table_and_saves_json(jaxconv, monkeypatch, tmp_path):
    monkeypatch.setattr(step_timing, "sgemm_gflops", lambda: 1.0)
    code, out, _ = jaxconv("bench --models mlp --batch-size 4 --rounds 2 --no-cpu-tuning --json b.json")
    assert code == 0 and "mlp: a training step of 4 images" in out and out.endswith("saved in b.json\n")
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [(row["model"], row["framework"], row["mode"]) for row in rows] == [
        ("mlp", "jaxconv", "step"),
        ("mlp", "jaxconv", "epoch"),
    ]
    assert all(0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"] for row in rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--models lenet", "unknown model 'lenet': did you mean 'lenet5'?"),
        ("--models", "bench: --models is empty: name at least one model"),
        ("--rounds 0", "bench: rounds=0 should be an int of at least 1"),
        ("--batch-size 0", "bench: batch_size=0 should be an int of at least 1"),
        ("--autotune --batch-size 3", "bench: --batch-size cannot be combined with --autotune"),
        ("--json nowhere/b.json", "bench: --json nowhere/b.json: there is no folder nowhere"),
        ("--round 3", "unknown jaxconv bench option '--round': did you mean '--rounds'?"),
    ],
)
def test_invalid_bench_options_print_one_line(jaxconv, line, message):
    code, out, err = jaxconv(f"bench {line}")
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
