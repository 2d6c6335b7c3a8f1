"""A study: a script that measures one claim. What all of them share is here: options, progress, what is left behind.

A script in ``experiments/`` has a docstring (the claim, its lecture rows, the commands), options, and two functions:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Study):                            # or StudyOptions, if it trains nothing
        SMOKE = {"dataset": "digits"}               # what --smoke makes of the options
        dataset: str = "mnist"

    def measure(config, progress) -> StudyResult:   # the work
    def summarize_results(results) -> str:          # one sentence, made of the results alone

    if __name__ == "__main__":
        run_study(Config, measure, summarize_results)

It leaves ``runs/NAME/NAME.json`` and its figures; ``--record`` puts the JSON and the first figure into
``experiments/results/`` too, from which ``experiments/common/render_tables.py`` makes the table of all studies.
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
COLORS = 128  # of a recorded figure: what is kept in the repository is small


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options that every study has; one that trains nothing has no more."""

    SMOKE: ClassVar[Mapping[str, Any]] = {}

    smoke: bool = False
    """Seconds instead of minutes, to see that it runs: no evidence."""
    record: bool = False
    """Put the results and the first figure into experiments/results too."""
    output_dir: Path | None = None
    """Folder for what is found; by default runs/ and the script's name."""

    def reduced(self) -> Self:
        """What ``--smoke`` makes of the options.

        Raises:
            InputError: options that cannot go together.
        """
        if self.smoke and self.record:
            raise InputError("--smoke is no evidence, so there is nothing to --record: leave one out")
        return dataclasses.replace(self, **self.SMOKE) if self.smoke else self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(StudyOptions):
    """Options of a study that trains networks."""

    num_seeds: int = 3
    """Trainings of each kind, from seed 0 on; what is told is their mean ± standard deviation."""

    def reduced(self) -> Self:
        """What ``--smoke`` makes of the options.

        Raises:
            InputError: options that cannot go together, or no seed.
        """
        if self.num_seeds < 1:
            raise InputError(f"num_seeds={self.num_seeds} should be at least 1")
        return super().reduced()


class StudyResult(NamedTuple):
    """What a study found."""

    results: dict[str, Any]  # what JSON can hold
    figures: "Mapping[str, Figure]"  # by name; the first is the study's picture
    tables: "Sequence[Table]" = ()  # for people, printed


class Progress:
    """How many of the things there are to do are done, which one is under way, and how far it is.

    >>> with Progress() as progress:
    ...     for name in progress.track(["a", "b"], "training {}"):
    ...         progress.set_fraction(0.5)
    """

    def __enter__(self) -> Self:
        self._bar = progress_bar("elapsed", stderr=True)
        self._task = self._bar.add_task("", total=None)
        self._begun, self._total = 0, 0
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, count: int) -> None:
        """There are so many more things to do."""
        self._total += count
        self._bar.update(self._task, total=self._total)

    def __call__(self, what: str) -> None:
        """The thing before is done, and this one begins."""
        self._begun += 1
        if self._begun > self._total:
            self.expect(1)
        self._bar.update(self._task, description=what, completed=self._begun - 1)

    def set_fraction(self, done: float) -> None:
        """So much of the thing that is under way is done, from 0 to 1."""
        self._bar.update(self._task, completed=max(0, self._begun - 1) + done)

    def track(self, items: Sequence[Item], what: str = "{}") -> Iterator[Item]:
        """Every item, told as it begins: ``what`` with the item in it."""
        self.expect(len(items))
        for item in items:
            self(what.format(item))
            yield item


def run_study(
    options: type[StudyOptions],
    measure: Callable[..., StudyResult],
    summarize_results: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Read the command line, measure, write what was found, and tell it.

    Args:
        options: of the study, a frozen dataclass.
        measure: ``(config, progress) -> StudyResult``; ``progress`` is a :class:`Progress`. It stands in the study's
            script, whose docstring is the help.
        summarize_results: ``(results) -> str``, one sentence from nothing but what the JSON holds.

    Returns:
        What was written. Bad input ends the process with one line and exit code 2, and Ctrl-C with 130.
    """
    import tyro

    script = sys.modules[measure.__module__]
    path = Path(str(script.__file__))
    config = tyro.cli(options, prog=path.name, description=script.__doc__)
    try:
        runtime.tune_cpu()
        with suppress(InputError):  # no home folder: nothing is kept
            runtime.enable_compilation_cache(cache_dir())
        if config.smoke:
            runtime.enable_fast_compile()
        return _run(path, config.reduced(), measure, summarize_results)
    except InputError as error:
        terminal.tell_error(f"error: {error}", program=path.name)
        sys.exit(2)
    except KeyboardInterrupt:
        terminal.tell_error("interrupted", program=path.name)
        sys.exit(terminal.INTERRUPTED)


def _run(
    path: Path, config: Any, measure: Callable[..., StudyResult], summarize_results: Callable[..., str]
) -> dict[str, Any]:
    name = path.stem
    folder = config.output_dir or Path("runs") / name
    make_folder(folder)
    started = time.perf_counter(), time.process_time()
    with Progress() as progress:
        found = measure(config, progress)
    # As JSON has them, so that the sentence is the same when it is made of the file.
    results = from_dict(to_json(found.results, default=_plain), name="the results")
    report = {
        "name": name,
        "summary": "",
        "num_seeds": getattr(config, "num_seeds", 1),
        "seconds": round(time.perf_counter() - started[0], 1),
        "cpu_seconds": round(time.process_time() - started[1], 1),
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "command": shlex.join([path.name, *_without_output_dir(sys.argv[1:])]),
        "config": dataclasses.asdict(config) | {"output_dir": str(folder)},
        "results": results,
    }
    write_json(folder / f"{name}.json", report)  # first: a mistake in a sentence or a picture should not cost the work
    report["summary"] = summarize_results(results)
    write_json(folder / f"{name}.json", report)
    for title, figure in found.figures.items():
        save_figure(figure, folder / f"{title}.png")
    for table in found.tables:
        terminal.console().print(table)
    terminal.tell("", report["summary"])
    terminal.tell(f"{report['seconds']:.0f} s, {report['cpu_seconds']:.0f} s of processor time, on {report['device']}")
    saved = [f"{folder}: {', '.join(sorted(each.name for each in folder.iterdir()))}"]
    if config.record:
        saved.append(str(_record(path, folder, report, next(iter(found.figures), None))))
    terminal.tell(*(f"saved in {place}" for place in saved))
    return report


def _plain(value: Any) -> Any:
    """Numbers of numpy and jax as JSON has them, and what else there is as its name."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _without_output_dir(arguments: Sequence[str]) -> list[str]:
    """A command line without where its results go.

    >>> _without_output_dir(["--output-dir", "/home/me/found", "--smoke", "--output-dir=here"])
    ['--smoke']
    """
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--output-dir" and not argument.startswith("--output-dir="):
            kept.append(argument)
        skip = argument == "--output-dir"
    return kept


def _record(script: Path, folder: Path, report: dict[str, Any], figure: str | None) -> Path:
    """Put the results where the repository keeps them, with the study's picture in few colours."""
    results = script.parent / "results"
    make_folder(results)
    # Where it was written, and by whom, is nobody's business.
    write_json(results / f"{script.stem}.json", report | {"config": report["config"] | {"output_dir": None}})
    if figure is not None:
        from PIL import Image

        with open_image(folder / f"{figure}.png") as image:
            few = image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        with writing(results / f"{script.stem}.png") as file:
            few.save(file, "PNG", optimize=True)
    return results / f"{script.stem}.json"


def mean_std(values: Sequence[float], digits: int = 4) -> str:
    """The mean of several trainings ± their standard deviation; of one, its value.

    >>> mean_std([0.5, 0.75, 1.0], 2), mean_std([0.98765])
    ('0.75 ± 0.25', '0.9877')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def results_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> "Table":
    """What people are shown: the first column is a name, the others are numbers, to the right.

    >>> results_table("", ["network", "accuracy"], [("cnn", "0.99")]).row_count
    1
    """
    made = new_table(title, headings[0], numbers=headings[1:])
    for row in rows:
        made.add_row(*map(str, row))
    return made
