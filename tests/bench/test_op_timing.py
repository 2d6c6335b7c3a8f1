"""``jaxconv bench --ops``: which ops a network has, what is timed, and what is said of it."""

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
def as_it_is(monkeypatch):
    """This process is pytest's, and stays as it was set up."""
    monkeypatch.setattr(runtime, "tune_cpu", lambda: None)
    monkeypatch.setenv("JAXCONV_CPU_TUNING", "0")
    monkeypatch.setattr(step_timing, "sgemm_gflops", lambda: 100.0)


# Which ops a network has.


def test_the_convolutions_of_lenet_each_pass_once_and_no_gradient_by_the_image():
    found = op_cases.cases("lenet5", 3)
    assert [(each.op, each.direction, each.x, each.features, each.window.out_size) for each in found] == [
        *[("conv", way, (3, 32, 32, 1), 6, (28, 28)) for way in ("forward", "dk")],
        *[("conv", way, (3, 14, 14, 6), 16, (10, 10)) for way in ("forward", "dx", "dk")],
        *[("max_pool", way, (3, 28, 28, 6), 6, (14, 14)) for way in ("forward", "dx")],
        *[("max_pool", way, (3, 10, 10, 16), 16, (5, 5)) for way in ("forward", "dx")],
    ]
    assert found[3].kernel == (5, 5, 6, 16) and op_cases.cases("mlp", 3) == []


def test_blocks_that_repeat_are_one_case():
    found = {(each.x[1:], each.features) for each in op_cases.cases("resnet20", 2)}
    sizes = [(32, 3, 16), (32, 16, 16), (32, 16, 32), (16, 32, 32), (16, 32, 64), (8, 64, 64)]
    assert found == {((n, n, c), o) for n, c, o in sizes}


@pytest.mark.parametrize("model", ["small_cnn", "vgg6", "mnist_cnn"])
def test_each_pool_starts_from_what_the_layer_before_it_gives(model):
    from jaxconv.explain import summarize

    rows = summarize(models.create_model(model, 10), models.get_model(model).input_shape).rows
    pairs = [(a.shape, b.shape) for a, b in itertools.pairwise(rows) if b.kind == "max_pool"]
    pools = [each for each in op_cases.cases(model, 2) if isinstance(each, Pool) and each.direction == "forward"]
    assert pairs == [(each.x[1:], (*each.window.out_size, each.features)) for each in pools] != []


def conv_case(way="forward"):
    x, kernel = (2, 7, 6, 4), (3, 2, 2, 6)
    window = resolve_window(Window((3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2)), (7, 6))
    dtype = jnp.dtype(jnp.float32)
    return Conv(way, x, kernel, primitives.ConvSpec(window, (7, 6), 2, (dtype, dtype, dtype), None))


def test_the_work_of_a_pass_by_hand():
    case = conv_case()
    # Heights: 7 + 3 pixels, 3 taps, every second place: 4. Widths: 6 + 1 pixels, 2 taps that reach over 3: 5.
    assert case.window.out_size == (4, 5)
    products = 2 * (4 * 5) * 6 * (3 * 2) * 2  # images, places, filters, taps, channels a group
    assert case.flops == conv_case("dx").flops == conv_case("dk").flops == 2 * products
    assert case.shape == "7×6×4 → 4×5×6, 3×2, stride 2×1, dilation 1×2, pad 1+2×0+1, 2 groups"


# What is timed.


def by_lax(x, kernel):
    """Written out here, with numbers for everything."""
    return lax.conv_general_dilated(
        x, kernel, (2, 1), ((1, 2), (0, 1)), rhs_dilation=(1, 2), feature_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@pytest.mark.parametrize("way", ["forward", "dx", "dk"])
@pytest.mark.parametrize("impl", op_timing.CONV_IMPLS)
def test_what_is_timed_is_the_pass(rng, way, impl):
    case = conv_case(way)
    x, kernel, dy = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in (case.x, case.kernel, (2, 4, 5, 6)))
    y, back = jax.vjp(by_lax, x, kernel)
    dx, dk = back(dy)
    given, wanted = {"forward": ((x, kernel), y), "dx": ((kernel, dy), dx), "dk": ((x, dy), dk)}[way]
    assert [each.shape for each in given] == op_timing._given(case)
    np.testing.assert_allclose(op_timing.implementations(case)[impl](*given), wanted, rtol=1e-4, atol=1e-5)


def test_a_gradient_is_timed_without_the_forward_pass():
    for way in ("dx", "dk"):
        case = conv_case(way)
        given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in op_timing._given(case)]
        program = str(jax.make_jaxpr(op_timing.implementations(case)["auto"])(*given))
        assert "conv_y" not in program and f"conv_{op_cases.PASS_OUTPUT[way]}" in program


def test_both_pools_are_the_pool_and_its_gradient(rng):
    window = resolve_window(Window((3, 2), (2, 1), ((1, 1), (0, 0))), (7, 6))
    x = rng.permutation(2 * 7 * 6 * 3).reshape(2, 7, 6, 3).astype(np.float32)  # no ties
    dy = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for n, i, j, c in np.ndindex(y.shape):
        places = [(h, w) for h in range(2 * i - 1, 2 * i + 2) for w in (j, j + 1) if 0 <= h < 7]
        h, w = max(places, key=lambda place: x[n, *place, c])
        y[n, i, j, c] = x[n, h, w, c]
        dx[n, h, w, c] += dy[n, i, j, c]
    for impl in ("jaxconv", "reduce_window"):
        np.testing.assert_array_equal(
            op_timing.implementations(Pool("forward", x.shape, window))[impl](jnp.asarray(x)), y
        )
        back = op_timing.implementations(Pool("dx", x.shape, window))[impl]
        np.testing.assert_allclose(back(jnp.asarray(x), jnp.asarray(dy)), dx, rtol=1e-6)


def test_turns_take_long_enough_and_alternate(monkeypatch):
    clock, diary = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def run(name, seconds):
        diary.append(name)
        clock[0] += seconds

    runs = {"slow": partial(run, "slow", 0.3), "fast": partial(run, "fast", 0.04)}
    assert timing.in_turns(runs, repeats=2, least=0.1)["fast"] == pytest.approx([0.04, 0.04])
    # Once to compile and once to see how long it takes; then rounds, of 1 and of 3 calls.
    assert diary == ["slow"] * 2 + ["fast"] * 2 + ["slow", "fast", "fast", "fast"] * 2


# What is said.


def test_rows_are_medians_and_a_pool_multiplies_nothing():
    case = conv_case("dk")
    [row] = op_timing.rows(case, {"lax": [0.002, 0.001, 0.009]})
    assert set(row.to_dict()) == FIELDS and row.to_dict()["pass"] == "dk"
    assert row[5:] == pytest.approx((2.0, 1.0, 9.0, case.flops / 0.002 / 1e9))
    pool = Pool("dx", (2, 4, 4, 3), resolve_window(Window((2, 2), 2), (4, 4)))
    [row] = op_timing.rows(pool, {"jaxconv": [0.002]})
    assert row.gflops is None and row.shape == "4×4×3 → 2×2×3, 2×2, stride 2"


def test_where_jaxconv_is_slower_is_said():
    case = conv_case()
    measured = [
        op_timing.rows(case, {"auto": [auto], "lax": [0.002], "explicit": [0.0016]})
        for auto in (0.0015, 0.00165, 0.002)
    ]
    slower, summary = op_timing.summary_lines(measured)
    assert slower.startswith("conv forward, batch 2, 7×6×4 → ")
    assert slower.endswith(": slower, auto takes 1.25 times as long as explicit")
    assert summary == "jaxconv is the fastest, or within 5 % of it, in 2 of 3 passes"
    text = op_timing.table("here", measured[:1], 100.0)
    assert "1.5 (1.5–1.5)" in text and f"{case.flops / 0.0015 / 1e9:.1f} (0%)" in text


def test_the_command(jaxconv, tmp_path, monkeypatch):
    tiny = [conv_case(way) for way in ("forward", "dk")]
    tiny.append(Pool("dx", (2, 4, 4, 3), resolve_window(Window((2, 2), 2), (4, 4))))
    asked, timed, measure = [], [], op_timing.measure
    monkeypatch.setattr(op_cases, "cases", lambda model, batch: asked.append((model, batch)) or tiny)
    monkeypatch.setattr(op_timing, "measure", lambda case, **options: timed.append(case) or measure(case, **options))
    monkeypatch.setattr(op_timing, "TURN", 0.0)
    code, out, err = jaxconv("bench --ops --models lenet5 mnist_cnn --rounds 2 --no-cpu-tuning --json o.json")
    assert code == 0, err
    assert asked == [("lenet5", 128), ("mnist_cnn", 256)]
    for title in ("lenet5, batch 128: conv", "lenet5, batch 128: max_pool", "mnist_cnn, batch 256: conv"):
        assert f"{title}, medians of 2 rounds" in out
    assert timed == tiny and "of 3 passes\n" in out  # what two models share is timed once
    assert "the machine's ceiling: 100.0 GFLOP/s" in out and out.endswith("saved in o.json\n")
    found = json.loads((tmp_path / "o.json").read_text())
    assert {"device", "versions", "threads", "sgemm_gflops", "rounds"} <= set(found)
    ways = [(each["op"], each["pass"], each["impl"]) for each in found["rows"]]
    convs = [("conv", way, impl) for way in ("forward", "dk") for impl in ("auto", "lax", "im2col", "explicit")]
    assert ways == [*convs, ("max_pool", "dx", "jaxconv"), ("max_pool", "dx", "reduce_window")]
    for each in found["rows"]:
        assert set(each) == FIELDS and 0 < each["min_ms"] <= each["median_ms"] <= each["max_ms"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--ops --models mlp", "bench: --ops: nothing to time in mlp: name a model with a convolution"),
        ("--ops --models lenet", "unknown model 'lenet': did you mean 'lenet5'?"),
        ("--ops --json nowhere/o.json", "bench: --json nowhere/o.json: there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(jaxconv, line, message):
    code, _, err = jaxconv(f"bench {line}")
    assert code == 2 and message in err and err.count("\n") == 1
