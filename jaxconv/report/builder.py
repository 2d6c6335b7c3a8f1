"""Generation of a run's report: the HTML page and the PNG files."""

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

# In the order of the page; a section that returns None is omitted.
SECTIONS: dict[str, Callable[[ReportContext], Section | None]] = {
    "training curves": curves_section,
    "misclassified images": mistakes_section,
    "filters": filters_section,
    "feature maps": features_section,
    "attribution": attention_section,
    "feature visualization": feature_visualization_section,
    "layer diagnostics": health_section,
    "receptive fields": geometry_section,
    "robustness": robustness_section,
    "model summary": network_section,
    "arithmetic of one output": arithmetic_section,
}


class Report(NamedTuple):
    """Files of a report, and notes for the user."""

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
    """Write a run's report: ``index.html`` and the figures as PNG files.

    Args:
        folder: run folder.
        images: further image files to analyze; they are resized to the input size of the network.
        invert: swap dark and bright in these files.
        layer: layer of Grad-CAM; by default the last one whose output has spatial positions.
        output_dir: folder to write; by default ``explain`` in the run folder, which must not be a symbolic link.
        progress: show a progress bar.

    Raises:
        InputError: if there is no finished run, the layer is unknown, a file is not an image, or the folder cannot be
            written.
    """
    is_default = output_dir is None
    target = Path(folder) / "explain" if output_dir is None else Path(output_dir)
    with progress_bar("elapsed", disable=not progress) as bar:
        task = bar.add_task("reading the run and the test images", total=len(SECTIONS) + 2)
        context = load_context(Path(folder), files=images, invert=invert, layer=layer)
        if is_default:
            refuse_link(target)
        make_folder(target)
        sections, pictures = [], []
        for description, build_section in SECTIONS.items():
            bar.update(task, advance=1, description=description)
            section = build_section(context)
            if section is not None:
                sections.append(section)
                for name, figure in section.figures.items():
                    if plot.save(target / name, figure):
                        pictures.append(target / name)
        bar.update(task, advance=1, description="HTML page")
        title = f"{context.run.config['model']} on {context.run.config['dataset']}"
        write_page(target / "index.html", title, _key_figures(context), context.notes, sections)
    return Report(target / "index.html", pictures, context.notes)


def _key_figures(context: ReportContext) -> list[tuple[str, str]]:
    result, summary = context.result, context.summary
    accuracy = (context.probabilities.argmax(axis=1) == context.labels).mean()
    return [
        ("test accuracy", f"{accuracy:.4f}"),
        ("parameters", f"{summary.params:,}"),
        ("MACs per image", f"{summary.macs:,}"),
        ("epochs", f"{result['epochs_run']}"),
        ("training time", f"{result['train_seconds']:.0f} s"),
        ("seed", f"{result['seed']}"),
        ("device", f"{result['device']}"),
        ("jax", f"{result['versions'].get('jax', '')}"),
    ]
