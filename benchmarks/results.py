"""Relative times, table and summary lines of a comparison."""

from collections.abc import Sequence

from jaxconv.bench.step_timing import JAXCONV, StepTimes, times_table

TORCH = ("torch", "torch_channels_last")  # two memory layouts, of which the faster one is compared


def baseline(rows: Sequence[StepTimes]) -> StepTimes:
    """Return the reference row: torch in its faster memory layout or, without torch, the fastest target."""
    torch = [row for row in rows if row.framework in TORCH]
    return min(torch or rows, key=lambda row: row.median_ms)


def relative_times(rows: Sequence[StepTimes]) -> dict[str, float]:
    """Return the step times relative to the baseline, by target name.

    Args:
        rows: rows of one model.
    """
    reference_ms = baseline(rows).median_ms
    return {row.name: row.median_ms / reference_ms for row in rows}


def summary_lines(rows: Sequence[StepTimes]) -> list[str]:
    """Compare jaxconv with the other frameworks, one line per mode; torch has its faster memory layout.

    Args:
        rows: rows of one model.
    """
    jaxconv_rows = [row for row in rows if row.framework == JAXCONV]
    others = [row for row in rows if row.framework != JAXCONV and row.framework not in TORCH]
    if any(row.framework in TORCH for row in rows):
        others.append(baseline(rows))
    lines = []
    for row in jaxconv_rows if others else []:
        ratios = sorted(((other.median_ms / row.median_ms, other.name) for other in others), reverse=True)
        faster = [f"{ratio:.2f}x faster than {name}" for ratio, name in ratios if ratio >= 1]
        slower = [f"{1 / ratio:.2f}x slower than {name}" for ratio, name in reversed(ratios) if ratio < 1]
        lines.append(f"{row.model}: jaxconv {row.mode} is {', '.join(faster + slower)}")
    return lines


def table(rows: Sequence[StepTimes]) -> str:
    """Format the times of one model, relative to the baseline, as a table."""
    return times_table(rows, relative_times(rows), baseline(rows).name)
