"""``jaxconv bench --autotune``: what is measured, which choice is made, and the file that it is written to."""

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
def as_it_is(monkeypatch):
    """This process is pytest's, and stays as it was set up."""
    monkeypatch.setattr(runtime, "tune_cpu", lambda: None)
    monkeypatch.setenv("JAXCONV_CPU_TUNING", "0")


def row(case, wanted, choice, x=(2, 5, 5, 1), kernel=(3, 3, 1, 2), groups=1):
    return {
        "case": case, "pass": wanted, "x": list(x), "kernel": list(kernel), "groups": groups,
        "milliseconds": {}, "choice": choice,
    }  # fmt: skip


ROWS = [
    row("one channel, few filters", "y", "library"),
    row("one channel, few filters", "kernel", "products"),
    row("depthwise", "x", "taps", (2, 5, 5, 4), (3, 3, 1, 4), 4),
]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A table that stands for the package's own, of another instruction set; and the file of this machine's."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(autotune, "FOLDER", folder)
    monkeypatch.setattr(autotune, "DEFAULT", "abacus")
    monkeypatch.setattr(autotuning, "TURN", 0.0)
    (folder / "abacus-jaxlib-0.1.json").write_text(json.dumps({"note": "kept", "versions": {}, "rows": ROWS}))
    return autotune.file_of(runtime.instruction_set(), jaxlib.__version__)


def test_every_row_is_measured_and_the_file_is_a_table_again(jaxconv, file, monkeypatch):
    code, out, err = jaxconv("bench --autotune --rounds 2")
    assert code == 0, err
    found = autotune.load_table()
    assert found["machine"] == runtime.device_name() and found["versions"] == runtime.versions()
    assert found["command"] == "jaxconv bench --autotune" and found["note"] == "kept"
    assert found["instruction_set"] == runtime.instruction_set() and found["emulated"] is False
    for old, new in zip(ROWS, found["rows"], strict=True):
        assert set(new["milliseconds"]) == set(autotune.supported_lowerings(old["pass"], old["case"]))
        assert all(ms == round(ms, 3) > 0 for ms in new["milliseconds"].values())
        assert new["choice"] == autotuning.choose(new["milliseconds"], old["choice"])
        assert {**new, "milliseconds": {}, "choice": old["choice"]} == old
    assert "one channel, few filters" in out and out.endswith(f"saved in {file}\n")
    assert set(os.listdir(file.parent)) == {"abacus-jaxlib-0.1.json", file.name}
    # Measured again, the choices of this machine are those that stay.
    monkeypatch.setattr(autotuning, "choose", lambda milliseconds, before: before)
    assert jaxconv("bench --autotune --rounds 1")[0] == 0
    assert [row["choice"] for row in autotune.load_table()["rows"]] == [row["choice"] for row in found["rows"]]


def test_json_leaves_the_package_alone(jaxconv, file, tmp_path):
    code, out, _ = jaxconv("bench --autotune --rounds 1 --json mine.json")
    assert code == 0 and out.endswith("saved in mine.json\n") and not file.exists()
    assert len(json.loads((tmp_path / "mine.json").read_text())["rows"]) == len(ROWS)


def test_what_is_measured_is_the_pass_by_that_lowering(monkeypatch):
    """Each program that is timed gives lax's gradient, with the shapes of its row."""
    for each in ROWS:
        programs = {}
        monkeypatch.setattr(autotuning, "in_turns", lambda runs, programs=programs, **_: programs.update(runs) or {})
        autotuning.measure(each, rounds=1)
        shapes = {"x": each["x"], "kernel": each["kernel"], "y": [2, 3, 3, each["kernel"][-1]]}
        rng = np.random.default_rng(0)
        first, second = primitives.other_operands(each["pass"])
        given = {name: jnp.asarray(rng.normal(size=shapes[name]), jnp.float32) for name in (first, second)}
        zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()} | given

        def plain(x, kernel, groups=each["groups"]):
            numbers = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=numbers, feature_group_count=groups
            )

        y, back = jax.vjp(plain, zeros["x"], zeros["kernel"])
        dx, dk = back(zeros["y"])
        wanted = {"y": y, "x": dx, "kernel": dk}[each["pass"]]
        assert set(programs) == set(autotune.supported_lowerings(each["pass"], each["case"]))
        for name, run in programs.items():
            np.testing.assert_allclose(run(), wanted, rtol=1e-4, atol=1e-5, err_msg=f"{each['case']} by {name}")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is full")])
def test_what_was_there_stays_when_it_is_interrupted(jaxconv, file, monkeypatch, error):
    before = "of an earlier day"
    file.write_text(json.dumps({"note": before, "rows": ROWS}))

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        code, out, _ = jaxconv("bench --autotune --rounds 1")
    assert code in (2, 130) and autotune.load_table()["note"] == before and "saved" not in out
    with monkeypatch.context() as patch:
        patch.setattr(autotuning, "in_turns", fail)
        code, out, _ = jaxconv("bench --autotune --rounds 1")
    assert code in (2, 130) and autotune.load_table()["note"] == before and "saved" not in out


def test_a_choice_stays_unless_another_is_clearly_faster(monkeypatch):
    planted = {
        "y": {"library": 1.2, "taps": 1.0, "products": 3.0},
        "kernel": {"library": 1.0, "products": 1.3},
        "x": {"library": 2.0, "taps": 1.0, "products": 3.0},
    }
    monkeypatch.setattr(autotuning, "measure", lambda row, **_: planted[row["pass"]])
    found = autotuning.autotune({"rows": ROWS, "other": 1}, rounds=1)
    assert [each["choice"] for each in found["rows"]] == ["library", "library", "taps"] and found["other"] == 1
    assert autotuning.changed_choices(ROWS, found["rows"]) == [
        "one channel, few filters, forward: library stays; taps is only 20.0% faster",
        "one channel, few filters, dk: library now, not products",
    ]
    again = autotuning.autotune(found, rounds=1)
    assert again["rows"] == found["rows"]
    assert autotuning.changed_choices(found["rows"], again["rows"])[-1] == "no choice changed"
    assert autotuning.choose({"taps": 1.0, "library": 1.01}, "gone") == "taps"


TABLES = sorted(autotune.FOLDER.glob("*.json"))


@pytest.mark.parametrize("table", TABLES, ids=lambda file: file.stem)
def test_the_packages_own_rows_are_of_their_cases(table):
    content = json.loads(table.read_text())
    pairs = [(each["case"], each["pass"]) for each in content["rows"]]
    assert sorted(pairs) == sorted(itertools.product(autotune.CASES, primitives.FACTORS))
    for each in content["rows"]:
        *_, c, features = each["kernel"]
        assert autotune.conv_category(c, features // each["groups"], each["groups"]) == each["case"]
        assert each["x"][-1] == c * each["groups"] and autotuning.form_of(each).groups == each["groups"]
        assert each["choice"] in autotune.supported_lowerings(each["pass"], each["case"])
        best = min(each["milliseconds"].values())
        assert (
            each["milliseconds"][each["choice"]] <= autotuning.SWITCH_RATIO * best
        )  # or it would not have been chosen
    assert autotune.file_of(content["instruction_set"], content["versions"]["jaxlib"]) == table


@pytest.mark.parametrize(
    ("instruction_set", "jaxlib", "table"),
    [
        ("avx512", "0.10.2", "avx512-jaxlib-0.10"),
        ("avx2", "0.10.0", "avx2-jaxlib-0.10"),
        ("avx512", "0.9.2", "avx512-jaxlib-0.10"),  # the oldest
        ("avx2", "0.11.3", "avx2-jaxlib-0.10"),  # the newest that is not newer
        ("avx512", "0.12.0.1", "avx512-jaxlib-0.12"),
        ("avx512", "1.0.0", "avx512-jaxlib-0.12"),
        ("other", "0.12.3", "avx2-jaxlib-0.12"),  # arm64, say
    ],
)
def test_the_nearest_table_is_read(instruction_set, jaxlib, table):
    assert autotune.nearest(instruction_set, jaxlib).stem == table


def test_only_a_cpu_has_the_table(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(
        InputError, match=r"^bench: --autotune: jax runs on a gpu, and the table is a CPU's: set JAX_PLATF"
    ):
        autotuning.autotune({"rows": ROWS}, rounds=1)


def test_a_package_that_cannot_be_written_is_said_at_once(jaxconv, file, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(autotuning, "autotune", None)  # nothing is measured
    code, _, err = jaxconv("bench --autotune")
    assert code == 2 and f"bench: --autotune: {file} cannot be written: name another file, --json FILE" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--autotune --ops", "bench: --ops means nothing to --autotune: leave it out"),
        ("--autotune --no-cpu-tuning", "bench: --no-cpu-tuning means nothing to --autotune: leave it out"),
        ("--autotune --batch-size 8", "bench: --batch-size means nothing to --autotune: leave it out"),
        ("--autotune --rounds 0", "bench: rounds=0 should be an int of at least 1"),
    ],
)
def test_bad_input_is_one_line(jaxconv, line, message):
    code, _, err = jaxconv(f"bench {line}")
    assert code == 2 and message in err and err.count("\n") == 1
