"""All lowerings of convolution, and the hand-derived gradients, equal those of lax to 12 digits.

Claim (lecture rows 001-20, 001-21, 001-22): every lowering, and the hand-derived gradients, have the same value and the
same gradients as ``lax.conv_general_dilated``, to 1e-12 of the largest entry in float64, for one convolution and for
every parameter of LeNet-5 and of the MNIST network.

Measured (cpu (Linux x86_64, 2 cores), jax 0.10.2, 64 s of processor time): Of 7 implementations on one convolution,
LeNet-5, the MNIST network, all agree: the largest relative error is 4.1e-15.

    python experiments/compare_gradients.py              # a minute of processor time
    python experiments/compare_gradients.py --smoke      # one small convolution, seconds
    python experiments/compare_gradients.py --docs       # also update the table and the figure of docs/gradients.md

``jaxconv compare`` does the same for one op, layer or network, and shows every parameter. On a GPU (NVIDIA H100, jax
0.11.2) the largest relative error was 1.5e-15.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax

from common.study import Progress, StudyOptions, StudyResult, results_table, run_study
from jaxconv import plot
from jaxconv.models.comparison_cases import model_case
from jaxconv.testing import Comparison, OpCase, compare_all, make_op_case

PROJECT = Path(__file__).resolve().parents[1]
MARKS = ("<!-- compare_gradients -->", "<!-- end -->")
PICTURE = Path(".github/pictures/compare-gradients.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """Compare every lowering and the hand-derived gradients."""

    SMOKE = {"repeats": 2}

    repeats: int = 15
    """Rounds of timing."""
    docs: bool = False
    """Update the table and the figure of docs/gradients.md."""


def measure(config: Config, progress: Progress) -> StudyResult:
    comparisons: dict[str, Comparison] = {}
    with jax.enable_x64(True):
        cases = make_cases(config.smoke)
        for title in progress.track(list(cases)):
            functions, args, names = cases[title].functions, cases[title].args, cases[title].names
            comparisons[title] = compare_all(functions, *args, names=names, num_repeats=config.repeats)
    results = {title: summarize(comparison) for title, comparison in comparisons.items()}
    headings = ("", *(f"{title}: {quantity}" for title in comparisons for quantity in ("error", "time")))
    return StudyResult(
        results,
        {"compare_gradients": plot.implementation_errors(comparisons)},
        [results_table("", headings, table_rows(results))],
    )


def make_cases(smoke: bool) -> dict[str, OpCase]:
    if smoke:
        return {"one convolution": make_op_case("conv", (1, 6, 5, 2), features=3)}
    return {
        "one convolution": make_op_case("conv", (8, 28, 28, 3), features=16, kernel_size=3, stride=2),
        "LeNet-5": model_case("lenet5"),
        "the MNIST network": model_case("mnist_cnn"),
    }


def summarize(comparison: Comparison) -> dict[str, Any]:
    """Return the largest error of value and gradients, and the forward and backward time, of each implementation."""
    names = dict.fromkeys([*comparison.seconds, *(row.implementation for row in comparison.rows)])
    return {
        "agree": comparison.ok,
        "error": {
            name: max((row.max_rel_error for row in comparison.rows if row.implementation == name), default=None)
            for name in names
        },
        "milliseconds": {name: timing.forward_backward * 1e3 for name, timing in comparison.seconds.items()},
    }


def table_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return one table row per implementation, with error and time for each case."""
    names = dict.fromkeys(name for case_results in results.values() for name in case_results["error"])
    rows = []
    for name in names:
        row = [name]
        for case_results in results.values():
            error, time = case_results["error"].get(name), case_results["milliseconds"].get(name)
            row += ["reference" if error is None else f"{error:.0e}", "" if time is None else f"{time:.1f} ms"]
        rows.append(row)
    return rows


def markdown(results: dict[str, Any]) -> str:
    """Return the table of docs/gradients.md."""
    lines = [["", *(f"{title}: error | time" for title in results)], *table_rows(results)]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * (1 + 2 * len(results)) + "|", *body])


def update_docs(table: str, picture: Path) -> None:
    """Replace the table between the marks of docs/gradients.md, and copy the figure to its pictures."""
    page = PROJECT / "docs/gradients.md"
    before, rest = page.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")
    shutil.copy(picture, PROJECT / PICTURE)


def summarize_results(results: dict[str, Any]) -> str:
    max_error = max(
        error for case_results in results.values() for error in case_results["error"].values() if error is not None
    )
    differing = [title for title, case_results in results.items() if not case_results["agree"]]
    num_implementations = len(next(iter(results.values()))["error"])
    verdict = f"they differ for {', '.join(differing)}" if differing else "all agree"
    return (
        f"Of {num_implementations} implementations on {', '.join(results)}, {verdict}: "
        f"the largest relative error is {max_error:.1e}."
    )


if __name__ == "__main__":
    report = run_study(Config, measure, summarize_results)
    if report["config"]["docs"]:
        update_docs(markdown(report["results"]), Path(report["config"]["output_dir"]) / "compare_gradients.png")
