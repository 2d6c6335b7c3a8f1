"""From a run folder to its page and pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxconv import plot
from jaxconv.report.attribution_sections import attention_section, feature_visualization_section
from jaxconv.report.context import ReportContext, load_context
from jaxconv.report.diagnostic_sections import geometry_section, health_section, robustness_section
from jaxconv.report.model_sections import arithmetic_section, features_section, filters_section, network_section
from jaxconv.report.page import Section, write_page
from jaxconv.report.training_sections import curves_section, mistakes_section
from jaxconv.utils.files import make_folder, refuse_link
from jaxconv.utils.progress import progress_bar

# In the order of the page; one that has nothing to show of a network is left out.
SECTIONS: dict[str, Callable[[ReportContext], Section | None]] = {
    "how training went": curves_section,
    "mistakes": mistakes_section,
    "filters": filters_section,
    "feature maps": features_section,
    "what it looked at": attention_section,
    "what the filters wait for": feature_visualization_section,
    "health": health_section,
    "where it looks": geometry_section,
    "what it withstands": robustness_section,
    "the network": network_section,
    "the arithmetic of a pixel": arithmetic_section,
}


class Report(NamedTuple):
    """What was written, and what is worth saying."""

    page: Path
    pictures: list[Path]
    notes: list[str]


def write_report(
    folder: Path,
    *,
    images: Sequence[Path] = (),
    invert: bool = False,
    layer: str | None = None,
    output_dir: Path | None = None,
    progress: bool = True,
) -> Report:
    """Write a run's page, ``index.html``, and its pictures as PNG files.

    Args:
        folder: the run's.
        images: files to look at too; they are resized to what the network takes.
        invert: swap dark and bright in these.
        layer: whose feature maps Grad-CAM weighs; by default the last one's that has places.
        output_dir: where to; by default the folder ``explain`` in the run's, which must not be a symbolic link.
        progress: show a progress bar.

    Raises:
        InputError: no run, or one whose training did not end; a layer that the network has not; a file that is no
            picture; a folder that cannot be written.
    """
    own = output_dir is None
    target = Path(folder) / "explain" if output_dir is None else Path(output_dir)
    with progress_bar("elapsed", disable=not progress) as bar:
        task = bar.add_task("reading the run and the test images", total=len(SECTIONS) + 2)
        subject = load_context(Path(folder), files=images, invert=invert, layer=layer)
        if own:
            refuse_link(target)
        make_folder(target)
        sections, pictures = [], []
        for title, write in SECTIONS.items():
            bar.update(task, advance=1, description=title)
            section = write(subject)
            if section is not None:
                sections.append(section)
                for name, figure in section.figures.items():
                    if plot.save(target / name, figure):
                        pictures.append(target / name)
        bar.update(task, advance=1, description="the page")
        title = f"{subject.run.config['model']} on {subject.run.config['dataset']}"
        write_page(target / "index.html", title, _facts(subject), subject.notes, sections)
    return Report(target / "index.html", pictures, subject.notes)


def _facts(subject: ReportContext) -> list[tuple[str, str]]:
    result, summary = subject.result, subject.summary
    right = (subject.probabilities.argmax(axis=1) == subject.labels).mean()
    return [
        ("test accuracy", f"{right:.4f}"),
        ("parameters", f"{summary.params:,}"),
        ("MACs per image", f"{summary.macs:,}"),
        ("epochs", f"{result['epochs_run']}"),
        ("trained in", f"{result['train_seconds']:.0f} s"),
        ("seed", f"{result['seed']}"),
        ("device", f"{result['device']}"),
        ("jax", f"{result['versions'].get('jax', '')}"),
    ]
