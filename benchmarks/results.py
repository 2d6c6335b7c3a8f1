"""Results of a comparison: relative times, a table, and sentences."""

from collections.abc import Sequence

from jaxconv.bench.step_timing import JAXCONV, StepTimes, times_table

TORCH = ("torch", "torch_channels_last")  # its two memory layouts, of which the better one stands for it


def baseline(rows: Sequence[StepTimes]) -> StepTimes:
    """Whom the others are compared with: torch in its better layout or, without torch, the fastest."""
    torch = [row for row in rows if row.framework in TORCH]
    return min(torch or rows, key=lambda row: row.median_ms)


def relative_times(rows: Sequence[StepTimes]) -> dict[str, float]:
    """By name, how many times as long as the baseline's each contestant's step takes.

    Args:
        rows: of one model.
    """
    against = baseline(rows).median_ms
    return {row.name: row.median_ms / against for row in rows}


def summary_lines(rows: Sequence[StepTimes]) -> list[str]:
    """Where jaxconv stands among the frameworks, in a line for each of its modes; torch is taken in its better layout.

    Args:
        rows: of one model.
    """
    ours = [row for row in rows if row.framework == JAXCONV]
    others = [row for row in rows if row.framework != JAXCONV and row.framework not in TORCH]
    if any(row.framework in TORCH for row in rows):
        others.append(baseline(rows))
    said = []
    for row in ours if others else []:
        ratios = sorted(((other.median_ms / row.median_ms, other.name) for other in others), reverse=True)
        faster = [f"{ratio:.2f} times as fast as {name}" for ratio, name in ratios if ratio >= 1]
        slower = [f"{1 / ratio:.2f} times as long as {name}" for ratio, name in reversed(ratios) if ratio < 1]
        clauses = [", ".join(faster)] if faster else []
        clauses += [f"slower: it takes {', '.join(slower)}"] if slower else []
        said.append(f"{row.model}: jaxconv's {row.mode} is {', but '.join(clauses)}")
    return said


def table(rows: Sequence[StepTimes]) -> str:
    """Table of the times of one model, relative to the baseline's."""
    return times_table(rows, relative_times(rows), baseline(rows).name)
