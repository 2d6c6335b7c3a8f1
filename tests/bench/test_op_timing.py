"""``jaxconv bench --ops``: the ops of a model, the timed functions, and the printed summary."""

import itertools
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxconv import models, runtime
from jaxconv.bench import op_cases, op_timing, step_timing
from jaxconv.bench.op_cases import Conv, Pool
from jaxconv.ops.convolution import primitives
from jaxconv.shapes import Window, resolve_window
from jaxconv.utils import timing

FIELDS = {"op", "pass", "impl", "batch", "shape", "median_ms", "min_ms", "max_ms", "gflops"}


@pytest.fixture(autouse=True)
def no_tuning(monkeypatch):
    """Keep the settings of the pytest process; skip the measurement of the peak."""
    monkeypatch.setattr(runtime, "tune_cpu", lambda: None)
    monkeypatch.setenv("JAXCONV_CPU_TUNING", "0")
    monkeypatch.setattr(step_timing, "sgemm_gflops", lambda: 100.0)


# The ops of a model.


def test_lenet5_cases_omit_dx_of_the_first_layer():
    cases = op_cases.cases("lenet5", 3)
    assert [(case.op, case.direction, case.x, case.features, case.window.out_size) for case in cases] == [
        *[("conv", direction, (3, 32, 32, 1), 6, (28, 28)) for direction in ("forward", "dk")],
        *[("conv", direction, (3, 14, 14, 6), 16, (10, 10)) for direction in ("forward", "dx", "dk")],
        *[("max_pool", direction, (3, 28, 28, 6), 6, (14, 14)) for direction in ("forward", "dx")],
        *[("max_pool", direction, (3, 10, 10, 16), 16, (5, 5)) for direction in ("forward", "dx")],
    ]
    assert cases[3].kernel == (5, 5, 6, 16) and op_cases.cases("mlp", 3) == []


def test_repeated_blocks_are_one_case():
    shapes = {(case.x[1:], case.features) for case in op_cases.cases("resnet20", 2)}
    sizes = [(32, 3, 16), (32, 16, 16), (32, 16, 32), (16, 32, 32), (16, 32, 64), (8, 64, 64)]
    assert shapes == {((n, n, c), o) for n, c, o in sizes}


@pytest.mark.parametrize("model", ["small_cnn", "vgg6", "mnist_cnn"])
def test_pool_input_is_the_previous_layers_output(model):
    from jaxconv.explain import summarize

    rows = summarize(models.create_model(model, 10), models.get_model(model).input_shape).rows
    pairs = [(a.shape, b.shape) for a, b in itertools.pairwise(rows) if b.kind == "max_pool"]
    pools = [case for case in op_cases.cases(model, 2) if isinstance(case, Pool) and case.direction == "forward"]
    assert pairs == [(pool.x[1:], (*pool.window.out_size, pool.features)) for pool in pools] != []


def conv_case(direction="forward"):
    x, kernel = (2, 7, 6, 4), (3, 2, 2, 6)
    window = resolve_window(Window((3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2)), (7, 6))
    dtype = jnp.dtype(jnp.float32)
    return Conv(direction, x, kernel, primitives.ConvSpec(window, (7, 6), 2, (dtype, dtype, dtype), None))


def test_flops_and_shape_of_a_pass():
    case = conv_case()
    # Height: 7 + 3 padded pixels, window 3, stride 2: 4 positions. Width: 6 + 1 pixels, dilated window 3: 5 positions.
    assert case.window.out_size == (4, 5)
    products = 2 * (4 * 5) * 6 * (3 * 2) * 2  # images, positions, filters, kernel offsets, channels per group
    assert case.flops == conv_case("dx").flops == conv_case("dk").flops == 2 * products
    assert case.shape == "7×6×4 → 4×5×6, 3×2, stride 2×1, dilation 1×2, pad 1+2×0+1, 2 groups"


# The timed functions.


def by_lax(x, kernel):
    """Convolution of ``conv_case`` by lax, with literal options."""
    return lax.conv_general_dilated(
        x, kernel, (2, 1), ((1, 2), (0, 1)), rhs_dilation=(1, 2), feature_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@pytest.mark.parametrize("direction", ["forward", "dx", "dk"])
@pytest.mark.parametrize("impl", op_timing.CONV_IMPLS)
def test_conv_implementations_match_lax(rng, direction, impl):
    case = conv_case(direction)
    x, kernel, dy = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (case.x, case.kernel, (2, 4, 5, 6)))
    y, vjp = jax.vjp(by_lax, x, kernel)
    dx, dk = vjp(dy)
    args, expected = {"forward": ((x, kernel), y), "dx": ((kernel, dy), dx), "dk": ((x, dy), dk)}[direction]
    assert [arg.shape for arg in args] == op_timing._argument_shapes(case)
    np.testing.assert_allclose(op_timing.implementations(case)[impl](*args), expected, rtol=1e-4, atol=1e-5)


def test_timed_gradient_has_no_forward_pass():
    for direction in ("dx", "dk"):
        case = conv_case(direction)
        args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in op_timing._argument_shapes(case)]
        jaxpr = str(jax.make_jaxpr(op_timing.implementations(case)["auto"])(*args))
        assert "conv_y" not in jaxpr and f"conv_{op_cases.PASS_OUTPUT[direction]}" in jaxpr


def test_pool_implementations_match_loops(rng):
    window = resolve_window(Window((3, 2), (2, 1), ((1, 1), (0, 0))), (7, 6))
    x = rng.permutation(2 * 7 * 6 * 3).reshape(2, 7, 6, 3).astype(np.float32)  # no ties
    dy = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for n, i, j, c in np.ndindex(y.shape):
        positions = [(h, w) for h in range(2 * i - 1, 2 * i + 2) for w in (j, j + 1) if 0 <= h < 7]
        h, w = max(positions, key=lambda position: x[n, *position, c])
        y[n, i, j, c] = x[n, h, w, c]
        dx[n, h, w, c] += dy[n, i, j, c]
    for impl in ("jaxconv", "reduce_window"):
        np.testing.assert_array_equal(
            op_timing.implementations(Pool("forward", x.shape, window))[impl](jnp.asarray(x)), y
        )
        gradient = op_timing.implementations(Pool("dx", x.shape, window))[impl]
        np.testing.assert_allclose(gradient(jnp.asarray(x), jnp.asarray(dy)), dx, rtol=1e-6)


def test_rounds_interleave_and_last_the_minimum(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def run(name, seconds):
        calls.append(name)
        clock[0] += seconds

    runs = {"slow": partial(run, "slow", 0.3), "fast": partial(run, "fast", 0.04)}
    assert timing.in_turns(runs, repeats=2, least=0.1)["fast"] == pytest.approx([0.04, 0.04])
    # One call to compile and one to estimate the time; then rounds of 1 and 3 calls.
    assert calls == ["slow"] * 2 + ["fast"] * 2 + ["slow", "fast", "fast", "fast"] * 2


# Rows and summary.


def test_rows_have_medians_and_pools_no_gflops():
    case = conv_case("dk")
    [row] = op_timing.rows(case, {"lax": [0.002, 0.001, 0.009]})
    assert set(row.to_dict()) == FIELDS and row.to_dict()["pass"] == "dk"
    assert row[5:] == pytest.approx((2.0, 1.0, 9.0, case.flops / 0.002 / 1e9))
    pool = Pool("dx", (2, 4, 4, 3), resolve_window(Window((2, 2), 2), (4, 4)))
    [row] = op_timing.rows(pool, {"jaxconv": [0.002]})
    assert row.gflops is None and row.shape == "4×4×3 → 2×2×3, 2×2, stride 2"


def test_summary_lists_slower_passes():
    case = conv_case()
    rows_by_pass = [
        op_timing.rows(case, {"auto": [auto], "lax": [0.002], "explicit": [0.0016]})
        for auto in (0.0015, 0.00165, 0.002)
    ]
    slower, summary = op_timing.summary_lines(rows_by_pass)
    assert slower.startswith("conv forward, batch 2, 7×6×4 → ")
    assert slower.endswith(": auto is 1.25x slower than explicit")
    assert summary == "jaxconv is fastest or within 5% of the fastest in 2 of 3 passes"
    text = op_timing.table("here", rows_by_pass[:1], 100.0)
    assert "1.5 (1.5–1.5)" in text and f"{case.flops / 0.0015 / 1e9:.1f} (0%)" in text


def test_bench_ops_prints_tables_and_saves_json(jaxconv, tmp_path, monkeypatch):
    tiny = [conv_case(direction) for direction in ("forward", "dk")]
    tiny.append(Pool("dx", (2, 4, 4, 3), resolve_window(Window((2, 2), 2), (4, 4))))
    requested, timed, measure = [], [], op_timing.measure
    monkeypatch.setattr(op_cases, "cases", lambda model, batch: requested.append((model, batch)) or tiny)
    monkeypatch.setattr(op_timing, "measure", lambda case, **options: timed.append(case) or measure(case, **options))
    monkeypatch.setattr(op_timing, "MIN_ROUND_SECONDS", 0.0)
    code, out, err = jaxconv("bench --ops --models lenet5 mnist_cnn --rounds 2 --no-cpu-tuning --json o.json")
    assert code == 0, err
    assert requested == [("lenet5", 128), ("mnist_cnn", 256)]
    for title in ("lenet5, batch 128: conv", "lenet5, batch 128: max_pool", "mnist_cnn, batch 256: conv"):
        assert f"{title}, medians of 2 rounds" in out
    assert timed == tiny and "of 3 passes\n" in out  # a case of two models is timed once
    assert "peak: 100.0 GFLOP/s" in out and out.endswith("saved in o.json\n")
    report = json.loads((tmp_path / "o.json").read_text())
    assert {"device", "versions", "threads", "sgemm_gflops", "rounds"} <= set(report)
    keys = [(row["op"], row["pass"], row["impl"]) for row in report["rows"]]
    impls = ("auto", "lax", "im2col", "explicit")
    convs = [("conv", direction, impl) for direction in ("forward", "dk") for impl in impls]
    assert keys == [*convs, ("max_pool", "dx", "jaxconv"), ("max_pool", "dx", "reduce_window")]
    for row in report["rows"]:
        assert set(row) == FIELDS and 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ops --models mlp", "bench: --ops: nothing to time in mlp: name a model with a convolution"),
        ("--ops --models lenet", "unknown model 'lenet': did you mean 'lenet5'?"),
        ("--ops --json nowhere/o.json", "bench: --json nowhere/o.json: there is no folder nowhere"),
    ],
)
def test_invalid_ops_options_print_one_line(jaxconv, line, message):
    code, _, err = jaxconv(f"bench {line}")
    assert code == 2 and message in err and err.count("\n") == 1
