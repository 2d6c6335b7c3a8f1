"""What was measured, as rows, as a table, and as sentences."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from jaxconv.bench.contestants import OURS, Contestant, label
from jaxconv.bench.rounds import Measured
from jaxconv.utils.tables import as_text

TORCH = ("torch", "torch_channels_last")  # its two memory layouts, of which the better one stands for it


class Row(NamedTuple):
    """A contestant's steps with one model; times are of one step, medians and extremes over rounds."""

    model: str
    peer: str
    mode: str
    batch: int
    median_ms: float
    min_ms: float
    max_ms: float
    images_per_second: float
    gflops: float  # a second
    first_step_s: float

    @property
    def name(self) -> str:
        return label(self.peer, self.mode)


def make_row(contestant: Contestant, model: str, batch: int, measured: Measured, flops: float) -> Row:
    """A row, where a step is so many operations."""
    median = statistics.median(measured.seconds)
    return Row(
        model,
        contestant.peer,
        contestant.mode,
        batch,
        median_ms=median * 1e3,
        min_ms=min(measured.seconds) * 1e3,
        max_ms=max(measured.seconds) * 1e3,
        images_per_second=batch / median,
        gflops=flops / median / 1e9,
        first_step_s=measured.first_step_s,
    )


def baseline(rows: Sequence[Row]) -> Row:
    """Whom the others are compared with: torch in its better layout or, without torch, the fastest."""
    torch = [row for row in rows if row.peer in TORCH]
    return min(torch or rows, key=lambda row: row.median_ms)


def times(rows: Sequence[Row]) -> dict[str, float]:
    """By name, how many times as long as the baseline's each contestant's step takes.

    Args:
        rows: of one model.
    """
    against = baseline(rows).median_ms
    return {row.name: row.median_ms / against for row in rows}


def sentences(rows: Sequence[Row]) -> list[str]:
    """Where jaxconv stands among the peers, in a line for each of its modes; torch is taken in its better layout.

    Args:
        rows: of one model.
    """
    ours = [row for row in rows if row.peer == OURS]
    peers = [row for row in rows if row.peer != OURS and row.peer not in TORCH]
    if any(row.peer in TORCH for row in rows):
        peers.append(baseline(rows))
    said = []
    for row in ours if peers else []:
        ratios = sorted(((peer.median_ms / row.median_ms, peer.name) for peer in peers), reverse=True)
        faster = [f"{ratio:.2f} times as fast as {name}" for ratio, name in ratios if ratio >= 1]
        slower = [f"{1 / ratio:.2f} times as long as {name}" for ratio, name in reversed(ratios) if ratio < 1]
        clauses = [", ".join(faster)] if faster else []
        clauses += [f"slower: it takes {', '.join(slower)}"] if slower else []
        said.append(f"{row.model}: jaxconv's {row.mode} is {', but '.join(clauses)}")
    return said


def table(rows: Sequence[Row]) -> str:
    """One model's rows, as a table that a terminal shows."""
    from rich.table import Table

    against, compared = baseline(rows), times(rows)
    title = f"{rows[0].model}: a training step of {rows[0].batch} images"
    made = Table(title=title, title_justify="left")
    for heading in ("peer", "mode"):
        made.add_column(heading)
    for heading in ("median ms", "min", "max", "images/s", "GFLOP/s", f"× {against.name}", "first step s"):
        made.add_column(heading, justify="right")
    for row in rows:
        milliseconds = (f"{ms:.2f}" for ms in (row.median_ms, row.min_ms, row.max_ms))
        rates = f"{row.images_per_second:,.0f}", f"{row.gflops:.1f}", f"{compared[row.name]:.2f}"
        made.add_row(row.peer, row.mode, *milliseconds, *rates, f"{row.first_step_s:.1f}")
    return as_text(made)
