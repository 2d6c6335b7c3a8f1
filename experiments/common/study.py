"""Run an experiment: command-line options, progress, results and figures.

An experiment is a script in ``experiments/`` that measures one claim. It has a docstring (the claim, its lecture rows,
the commands), options, and two functions:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Study):                            # or StudyOptions, if nothing is trained
        SMOKE = {"dataset": "digits"}               # options that --smoke overrides
        dataset: str = "mnist"

    def measure(config, progress) -> StudyResult:   # run the experiment
    def summarize_results(results) -> str:          # one sentence, computed from the results alone

    if __name__ == "__main__":
        run_study(Config, measure, summarize_results)

A run writes ``runs/NAME/NAME.json`` and the figures. ``--record`` also copies the JSON and the first figure to
``experiments/results/``, from which ``experiments/common/render_tables.py`` renders the table of all experiments.
"""

import dataclasses
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

from jaxconv import runtime
from jaxconv.data.download import cache_dir
from jaxconv.data.images import open_image
from jaxconv.errors import InputError
from jaxconv.plot.figures import save_figure
from jaxconv.utils import terminal
from jaxconv.utils.files import from_dict, make_folder, to_json, write_json, writing
from jaxconv.utils.progress import progress_bar
from jaxconv.utils.tables import new_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

Item = TypeVar("Item")
COLORS = 128  # palette size of a recorded figure, which keeps the repository small


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of every experiment."""

    SMOKE: ClassVar[Mapping[str, Any]] = {}

    smoke: bool = False
    """Run for seconds instead of minutes, to check the script; the numbers are not evidence."""
    record: bool = False
    """Also save the results and the first figure in experiments/results."""
    output_dir: Path | None = None
    """Output folder; by default runs/ and the script's name."""

    def reduced(self) -> Self:
        """Return the options with the ``SMOKE`` overrides if ``smoke`` is set.

        Raises:
            InputError: if ``smoke`` and ``record`` are both set.
        """
        if self.smoke and self.record:
            raise InputError("--smoke and --record cannot be combined: a smoke run is not evidence")
        return dataclasses.replace(self, **self.SMOKE) if self.smoke else self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(StudyOptions):
    """Options of an experiment that trains networks."""

    num_seeds: int = 3
    """Number of seeds per network, from 0 on; results are means ± standard deviations."""

    def reduced(self) -> Self:
        """Return the options with the ``SMOKE`` overrides if ``smoke`` is set.

        Raises:
            InputError: if ``smoke`` and ``record`` are both set, or ``num_seeds < 1``.
        """
        if self.num_seeds < 1:
            raise InputError(f"num_seeds={self.num_seeds} should be at least 1")
        return super().reduced()


class StudyResult(NamedTuple):
    """Results, figures and tables of an experiment."""

    results: dict[str, Any]  # JSON-serializable
    figures: "Mapping[str, Figure]"  # by name; the first is the one that --record saves
    tables: "Sequence[Table]" = ()  # printed to the terminal


class Progress:
    """Progress bar over the items of an experiment, with the fraction of the current item.

    >>> with Progress() as progress:
    ...     for name in progress.track(["a", "b"], "training {}"):
    ...         progress.set_fraction(0.5)
    """

    def __enter__(self) -> Self:
        self._bar = progress_bar("elapsed", stderr=True)
        self._task = self._bar.add_task("", total=None)
        self._num_started, self._total = 0, 0
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, count: int) -> None:
        """Increase the total by ``count`` items."""
        self._total += count
        self._bar.update(self._task, total=self._total)

    def __call__(self, description: str) -> None:
        """Finish the current item and start the next one, with this description."""
        self._num_started += 1
        if self._num_started > self._total:
            self.expect(1)
        self._bar.update(self._task, description=description, completed=self._num_started - 1)

    def set_fraction(self, fraction: float) -> None:
        """Set the completed fraction of the current item, from 0 to 1."""
        self._bar.update(self._task, completed=max(0, self._num_started - 1) + fraction)

    def track(self, items: Sequence[Item], description: str = "{}") -> Iterator[Item]:
        """Yield each item and show ``description.format(item)`` while it is processed."""
        self.expect(len(items))
        for item in items:
            self(description.format(item))
            yield item


def run_study(
    options: type[StudyOptions],
    measure: Callable[..., StudyResult],
    summarize_results: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Parse the command line, run the experiment, save its results and print a summary.

    Args:
        options: frozen dataclass of the options.
        measure: ``(config, progress) -> StudyResult``; ``progress`` is a :class:`Progress`. The docstring of the module
            that defines it is the help text.
        summarize_results: ``(results) -> str``, one sentence computed from the JSON results alone.

    Returns:
        The saved report. Bad input ends the process with one line and exit code 2, Ctrl-C with exit code 130.
    """
    import tyro

    script = sys.modules[measure.__module__]
    path = Path(str(script.__file__))
    config = tyro.cli(options, prog=path.name, description=script.__doc__)
    try:
        runtime.tune_cpu()
        with suppress(InputError):  # without a home folder nothing is cached
            runtime.enable_compilation_cache(cache_dir())
        if config.smoke:
            runtime.enable_fast_compile()
        return _measure_and_write(path, config.reduced(), measure, summarize_results)
    except InputError as error:
        terminal.tell_error(f"error: {error}", program=path.name)
        sys.exit(2)
    except KeyboardInterrupt:
        terminal.tell_error("interrupted", program=path.name)
        sys.exit(terminal.INTERRUPTED)


def _measure_and_write(
    path: Path, config: Any, measure: Callable[..., StudyResult], summarize_results: Callable[..., str]
) -> dict[str, Any]:
    name = path.stem
    folder = config.output_dir or Path("runs") / name
    make_folder(folder)
    wall_start, cpu_start = time.perf_counter(), time.process_time()
    with Progress() as progress:
        result = measure(config, progress)
    # Round-trip through JSON, so that the summary can be recomputed from the file.
    results = from_dict(to_json(result.results, default=_to_json_value), name="the results")
    report = {
        "name": name,
        "summary": "",
        "num_seeds": getattr(config, "num_seeds", 1),
        "seconds": round(time.perf_counter() - wall_start, 1),
        "cpu_seconds": round(time.process_time() - cpu_start, 1),
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "command": shlex.join([path.name, *_without_output_dir(sys.argv[1:])]),
        "config": dataclasses.asdict(config) | {"output_dir": str(folder)},
        "results": results,
    }
    write_json(folder / f"{name}.json", report)  # first: an error in the summary or a figure must not lose the results
    report["summary"] = summarize_results(results)
    write_json(folder / f"{name}.json", report)
    for title, figure in result.figures.items():
        save_figure(figure, folder / f"{title}.png")
    for table in result.tables:
        terminal.console().print(table)
    terminal.tell("", report["summary"])
    terminal.tell(f"{report['seconds']:.0f} s, {report['cpu_seconds']:.0f} s of processor time, on {report['device']}")
    saved = [f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}"]
    if config.record:
        saved.append(str(_record(path, folder, report, next(iter(result.figures), None))))
    terminal.tell(*(f"saved in {line}" for line in saved))
    return report


def _to_json_value(value: Any) -> Any:
    """Convert numpy and jax arrays to JSON values, and other objects to strings."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _without_output_dir(arguments: Sequence[str]) -> list[str]:
    """Remove ``--output-dir`` from a command line.

    >>> _without_output_dir(["--output-dir", "/home/me/out", "--smoke", "--output-dir=here"])
    ['--smoke']
    """
    remaining, skip = [], False
    for argument in arguments:
        if not skip and argument != "--output-dir" and not argument.startswith("--output-dir="):
            remaining.append(argument)
        skip = argument == "--output-dir"
    return remaining


def _record(script: Path, folder: Path, report: dict[str, Any], figure: str | None) -> Path:
    """Save the report and the figure, reduced to ``COLORS`` colors, in ``experiments/results``."""
    results = script.parent / "results"
    make_folder(results)
    # Leave the output folder out: it may contain a user name.
    write_json(results / f"{script.stem}.json", report | {"config": report["config"] | {"output_dir": None}})
    if figure is not None:
        from PIL import Image

        with open_image(folder / f"{figure}.png") as image:
            quantized = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        with writing(results / f"{script.stem}.png") as file:
            quantized.save(file, "PNG", optimize=True)
    return results / f"{script.stem}.json"


def mean_std(values: Sequence[float], digits: int = 4) -> str:
    """Format mean ± sample standard deviation; a single value is formatted alone.

    >>> mean_std([0.5, 0.75, 1.0], 2), mean_std([0.98765])
    ('0.75 ± 0.25', '0.9877')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def results_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> "Table":
    """Build a table whose first column holds names and whose other columns hold right-aligned numbers.

    >>> results_table("", ["network", "accuracy"], [("cnn", "0.99")]).row_count
    1
    """
    table = new_table(title, headings[0], numbers=headings[1:])
    for row in rows:
        table.add_row(*map(str, row))
    return table
