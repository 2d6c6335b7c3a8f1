"""``jaxconv bench --autotune``: the timed functions, the choices, and the file of the table."""

import itertools
import json
import os

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax import lax

from jaxconv import runtime
from jaxconv.bench import autotuning
from jaxconv.errors import InputError
from jaxconv.ops.convolution import primitives
from jaxconv.ops.convolution.cpu import autotune


@pytest.fixture(autouse=True)
def no_tuning(monkeypatch):
    """Keep the settings of the pytest process."""
    monkeypatch.setattr(runtime, "tune_cpu", lambda: None)
    monkeypatch.setenv("JAXCONV_CPU_TUNING", "0")


def row(case, output, choice, x=(2, 5, 5, 1), kernel=(3, 3, 1, 2), groups=1):
    return {
        "case": case, "pass": output, "x": list(x), "kernel": list(kernel), "groups": groups,
        "milliseconds": {}, "choice": choice,
    }  # fmt: skip


ROWS = [
    row("one channel, few filters", "y", "library"),
    row("one channel, few filters", "kernel", "products"),
    row("depthwise", "x", "taps", (2, 5, 5, 4), (3, 3, 1, 4), 4),
]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Replace the package's tables by one of another instruction set; return the path for this machine's table."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(autotune, "FOLDER", folder)
    monkeypatch.setattr(autotune, "DEFAULT_INSTRUCTION_SET", "abacus")
    monkeypatch.setattr(autotuning, "MIN_ROUND_SECONDS", 0.0)
    (folder / "abacus-jaxlib-0.1.json").write_text(json.dumps({"note": "kept", "versions": {}, "rows": ROWS}))
    return autotune.file_of(runtime.instruction_set(), jaxlib.__version__)


def test_autotune_writes_a_complete_table(jaxconv, file, monkeypatch):
    code, out, err = jaxconv("bench --autotune --rounds 2")
    assert code == 0, err
    table = autotune.load_table()
    assert table["machine"] == runtime.device_name() and table["versions"] == runtime.versions()
    assert table["command"] == "jaxconv bench --autotune" and table["note"] == "kept"
    assert table["instruction_set"] == runtime.instruction_set() and table["emulated"] is False
    for old, new in zip(ROWS, table["rows"], strict=True):
        assert set(new["milliseconds"]) == set(autotune.supported_lowerings(old["pass"], old["case"]))
        assert all(ms == round(ms, 3) > 0 for ms in new["milliseconds"].values())
        assert new["choice"] == autotuning.choose(new["milliseconds"], old["choice"])
        assert {**new, "milliseconds": {}, "choice": old["choice"]} == old
    assert "one channel, few filters" in out and out.endswith(f"saved in {file}\n")
    assert set(os.listdir(file.parent)) == {"abacus-jaxlib-0.1.json", file.name}
    # A second measurement starts from the choices of this machine's table.
    monkeypatch.setattr(autotuning, "choose", lambda milliseconds, previous: previous)
    assert jaxconv("bench --autotune --rounds 1")[0] == 0
    assert [row["choice"] for row in autotune.load_table()["rows"]] == [row["choice"] for row in table["rows"]]


def test_json_option_leaves_the_package_unchanged(jaxconv, file, tmp_path):
    code, out, _ = jaxconv("bench --autotune --rounds 1 --json mine.json")
    assert code == 0 and out.endswith("saved in mine.json\n") and not file.exists()
    assert len(json.loads((tmp_path / "mine.json").read_text())["rows"]) == len(ROWS)


def test_measured_functions_match_lax(monkeypatch):
    """Each timed function computes lax's value or gradient, with the shapes of its row."""
    for row in ROWS:
        timed = {}
        monkeypatch.setattr(autotuning, "in_turns", lambda calls, timed=timed, **_: timed.update(calls) or {})
        autotuning.measure(row, rounds=1)
        shapes = {"x": row["x"], "kernel": row["kernel"], "y": [2, 3, 3, row["kernel"][-1]]}
        rng = np.random.default_rng(0)
        lhs, rhs = primitives.other_operands(row["pass"])
        operands = {name: jnp.asarray(rng.normal(size=shapes[name]), jnp.float32) for name in (lhs, rhs)}
        arrays = {name: jnp.zeros(shape) for name, shape in shapes.items()} | operands

        def lax_conv(x, kernel, groups=row["groups"]):
            dimension_numbers = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=dimension_numbers, feature_group_count=groups
            )

        y, vjp = jax.vjp(lax_conv, arrays["x"], arrays["kernel"])
        dx, dk = vjp(arrays["y"])
        expected = {"y": y, "x": dx, "kernel": dk}[row["pass"]]
        assert set(timed) == set(autotune.supported_lowerings(row["pass"], row["case"]))
        for name, function in timed.items():
            np.testing.assert_allclose(function(), expected, rtol=1e-4, atol=1e-5, err_msg=f"{row['case']} by {name}")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is full")])
def test_interrupted_autotune_keeps_the_previous_table(jaxconv, file, monkeypatch, error):
    note = "previous table"
    file.write_text(json.dumps({"note": note, "rows": ROWS}))

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        code, out, _ = jaxconv("bench --autotune --rounds 1")
    assert code in (2, 130) and autotune.load_table()["note"] == note and "saved" not in out
    with monkeypatch.context() as patch:
        patch.setattr(autotuning, "in_turns", fail)
        code, out, _ = jaxconv("bench --autotune --rounds 1")
    assert code in (2, 130) and autotune.load_table()["note"] == note and "saved" not in out


def test_choice_changes_only_beyond_the_switch_ratio(monkeypatch):
    milliseconds = {
        "y": {"library": 1.2, "taps": 1.0, "products": 3.0},
        "kernel": {"library": 1.0, "products": 1.3},
        "x": {"library": 2.0, "taps": 1.0, "products": 3.0},
    }
    monkeypatch.setattr(autotuning, "measure", lambda row, **_: milliseconds[row["pass"]])
    table = autotuning.autotune({"rows": ROWS, "other": 1}, rounds=1)
    assert [row["choice"] for row in table["rows"]] == ["library", "library", "taps"] and table["other"] == 1
    assert autotuning.changed_choices(ROWS, table["rows"]) == [
        "one channel, few filters, forward: kept library; taps is only 20.0% faster",
        "one channel, few filters, dk: changed from products to library",
    ]
    again = autotuning.autotune(table, rounds=1)
    assert again["rows"] == table["rows"]
    assert autotuning.changed_choices(table["rows"], again["rows"])[-1] == "no choice changed"
    assert autotuning.choose({"taps": 1.0, "library": 1.01}, "gone") == "taps"


TABLES = sorted(autotune.FOLDER.glob("*.json"))


@pytest.mark.parametrize("table", TABLES, ids=lambda file: file.stem)
def test_package_tables_have_rows_of_their_cases(table):
    content = json.loads(table.read_text())
    pairs = [(row["case"], row["pass"]) for row in content["rows"]]
    assert sorted(pairs) == sorted(itertools.product(autotune.CASES, primitives.FACTORS))
    for row in content["rows"]:
        *_, c, features = row["kernel"]
        assert autotune.conv_category(c, features // row["groups"], row["groups"]) == row["case"]
        assert row["x"][-1] == c * row["groups"] and autotuning.form_of(row).groups == row["groups"]
        assert row["choice"] in autotune.supported_lowerings(row["pass"], row["case"])
        assert row["milliseconds"][row["choice"]] <= autotuning.SWITCH_RATIO * min(row["milliseconds"].values())
    assert autotune.file_of(content["instruction_set"], content["versions"]["jaxlib"]) == table


@pytest.mark.parametrize(
    ("instruction_set", "jaxlib", "table"),
    [
        ("avx512", "0.10.2", "avx512-jaxlib-0.10"),
        ("avx2", "0.10.0", "avx2-jaxlib-0.10"),
        ("avx512", "0.9.2", "avx512-jaxlib-0.10"),  # older than all tables: the oldest
        ("avx2", "0.11.3", "avx2-jaxlib-0.10"),  # the newest one that is not newer
        ("avx512", "0.12.0.1", "avx512-jaxlib-0.12"),
        ("avx512", "1.0.0", "avx512-jaxlib-0.12"),
        ("other", "0.12.3", "avx2-jaxlib-0.12"),  # such as arm64
    ],
)
def test_nearest_table_is_selected(instruction_set, jaxlib, table):
    assert autotune.nearest(instruction_set, jaxlib).stem == table


def test_autotune_on_a_gpu_raises(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(
        InputError, match=r"^bench: --autotune: the table is for CPUs, but jax runs on a gpu: set JAX_PLATFORMS=cpu"
    ):
        autotuning.autotune({"rows": ROWS}, rounds=1)


def test_unwritable_package_fails_before_timing(jaxconv, file, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(autotuning, "autotune", None)  # nothing is measured
    code, _, err = jaxconv("bench --autotune")
    assert code == 2 and f"bench: --autotune: {file} cannot be written: name another file with --json FILE" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--autotune --ops", "bench: --ops cannot be combined with --autotune"),
        ("--autotune --no-cpu-tuning", "bench: --no-cpu-tuning cannot be combined with --autotune"),
        ("--autotune --batch-size 8", "bench: --batch-size cannot be combined with --autotune"),
        ("--autotune --rounds 0", "bench: rounds=0 should be an int of at least 1"),
    ],
)
def test_invalid_autotune_options_print_one_line(jaxconv, line, message):
    code, _, err = jaxconv(f"bench {line}")
    assert code == 2 and message in err and err.count("\n") == 1
