"""``jaxconv compare``: tables, exit codes, options and one-line errors."""

import json

import jax.numpy as jnp
import pytest

from jaxconv import ops, testing
from jaxconv.ops.convolution import lowerings
from jaxconv.testing import OP_CASES

pytestmark = pytest.mark.usefixtures("promoting")


def test_conv_lowerings_agree_to_12_digits(jaxconv, tmp_path):
    line = "compare --op conv --input-shape 2 9 8 3 --features 4 --kernel-size 3 --stride 2 "
    line += "--repeats 1 --fd-entries 4 --json report.json"
    code, out, _ = jaxconv(line)
    assert (
        code == 0
        and "PASS: differences are within the rounding bound; largest relative error" in out
        and "saved in report.json" in out
    )
    implementations = (*list(ops.LOWERINGS)[1:], "auto", "manual")
    for name in (*implementations, "d kernel", "medians of compiled calls", "finite differences"):
        assert name in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ok"] and max(row["max_rel_error"] for row in report["rows"]) <= 1e-12
    assert {row["quantity"] for row in report["rows"]} == {"value", "d x", "d kernel", "d bias"}
    assert report["title"] == "conv of x (2, 9, 8, 3), kernel (3, 3, 3, 4), bias (4,), seed 0"
    assert {row["name"] for row in report["finite_differences"]} == {"x", "kernel", "bias"}


def test_wrong_lowering_is_named_and_exits_1(jaxconv, monkeypatch):
    def flipped(x, kernel, window, *, groups, precision):
        return lowerings.im2col_conv(x, jnp.flip(kernel, 0), window, groups=groups, precision=precision)

    monkeypatch.setitem(ops.LOWERINGS, "im2col", flipped)
    code, out, _ = jaxconv("compare --input-shape 1 6 5 2 --features 2 --repeats 0 --fd-entries 0")
    assert code == 1 and "FAIL: differences exceed the rounding bound" in out
    assert sorted({line.split("│")[2].strip() for line in out.splitlines() if "DIFFERS" in line}) == ["im2col"]


def test_max_pool_kinks_are_counted(jaxconv):
    code, out, _ = jaxconv(
        "compare --op max_pool --input-shape 2 8 8 2 --kernel-size 2 --kinks --repeats 0 --fd-entries 8"
    )
    assert code == 0 and "entries at kinks, where several gradients are valid" in out


def test_model_layer_is_compared_with_lax(jaxconv):
    code, out, _ = jaxconv(
        "compare --model small_cnn --layer conv1 --batch-size 2 --dtype float32 --repeats 0 --fd-entries 0"
    )
    assert code == 0 and out.startswith(
        "small_cnn, layer conv1, 2 random images, seed 0\nfloat32 on cpu, against lax in float64"
    )
    assert "d params/kernel" in out


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "--op conv --padding-mode circular --flip-kernel --padding 1 2",
            {"padding": (1, 2), "padding_mode": "circular", "flip_kernel": True},
        ),
        ("--op conv_transpose --stride 2 --output-padding 1 0", {"stride": 2, "output_padding": (1, 0)}),
        ("--op lp_pool --p 3 --padding same", {"padding": "same", "p": 3.0}),
        ("--op max_pool --padding 1 --stride 2 1", {"padding": 1, "stride": (2, 1)}),
    ],
)
def test_options_reach_the_op(jaxconv, monkeypatch, line, expected):
    passed = {}

    def make_case(op, input_shape, **options):
        passed.update(options)
        return testing.make_op_case("relu", (2, 3))

    monkeypatch.setattr("jaxconv.cli.compare_command.make_op_case", make_case)
    assert jaxconv(f"compare {line} --repeats 0 --fd-entries 0")[0] == 0
    assert {name: passed[name] for name in expected} == expected


def test_help_lists_every_op(jaxconv):
    text = " ".join(jaxconv("compare --help")[1].replace("│", " ").split())
    assert f"Op to compare: one of {', '.join(OP_CASES)}." in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compare --op convv", "compare: unknown op 'convv': did you mean 'conv'?"),
        ("compare --model lenet", "unknown model 'lenet': did you mean 'lenet5'?"),
        ("compare --model mlp", "model 'mlp' has no convolution, so it has no lowerings to compare"),
        ("compare --model lenet5 --dtype float16", "lenet5: a whole network cannot be compared in float16"),
        ("compare --layer conv1", "compare: --layer conv1 requires a model: give --model lenet5 or another"),
        ("compare --model lenet5 --layer convv1", "unknown layer of lenet5 'convv1': did you mean 'conv1'?"),
        ("compare --input-shape 8 28", "conv: input_shape (8, 28) should be (N, *spatial, C), every size at least 1"),
        ("compare --input-shape 2 2 2 3 --kernel-size 3", "conv: window (3, 3) on an input of (2, 2)"),
        ("compare --kernel-size 3 3 3", "conv: kernel_size (3, 3, 3): give an int of at least 1, or 2 of them"),
        ("compare --groups 2", "conv: groups=2 does not divide the 3 channels"),
        ("compare --padding SAMEE", "conv: unknown padding 'SAMEE': did you mean 'SAME'?"),
        ("compare --padding -1", "conv: padding -1 is negative: crop the input instead"),
        ("compare --padding 1 2 3", "conv: padding (1, 2, 3) has 3 entries for 2 dimensions: give one each"),
        ("compare --padding-mode mirror --padding 1", "conv: unknown padding_mode 'mirror'"),
        ("compare --op conv_transpose --output-padding 1", "conv_transpose: output_padding 1 should be less than"),
        ("compare --op lp_pool --p 0.5", "lp_pool: p must be a number >= 1, got 0.5"),
        (
            "compare --op conv_transpose --padding-mode reflect",
            "compare: --padding-mode does not apply to conv_transpose",
        ),
        ("compare --op max_pool --flip-kernel", "compare: --flip-kernel does not apply to max_pool: leave it out"),
        ("compare --op conv --output-padding 1", "compare: --output-padding does not apply to conv: leave it out"),
        ("compare --op avg_pool --p 3", "compare: --p does not apply to avg_pool: leave it out"),
        ("compare --op batch_norm --groups 2", "compare: --groups does not apply to batch_norm: leave it out"),
        ("compare --op relu --stride 2", "compare: --stride does not apply to relu: leave it out"),
        ("compare --op conv --kinks", "compare: --kinks does not apply to conv: leave it out"),
        ("compare --model lenet5 --input-shape 1 2 3", "compare: --input-shape does not apply to lenet5: leave it out"),
        ("compare --json nowhere/report.json", "compare: --json nowhere/report.json: there is no folder nowhere"),
        ("compare --json .", "compare: --json . is a folder: name a file in it"),
        ("compare --seed -1", "conv: seed=-1 should be an int of at least 0"),
        ("compare --repeats -1", "compare: repeats=-1 should be an int of at least 0"),
        ("compare --fd-entries -1", "compare: fd_entries=-1 should be an int of at least 0"),
        ("compare --dtype float8", "float8"),
        ("compare --features 0", "conv: features=0 should be an int of at least 1"),
    ],
)
def test_invalid_input_prints_one_line(jaxconv, line, message):
    code, out, err = jaxconv(line)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
