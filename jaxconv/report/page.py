"""Rendering of sections as one self-contained HTML file."""

import base64
import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxconv.report.figures import ImageTile
from jaxconv.utils.files import write_file
from jaxconv.utils.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Table(NamedTuple):
    """A table of text: headings, and rows with one cell per heading."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class ImageTable(NamedTuple):
    """A table of images: headings, and rows of a name and images."""

    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ImageTile]]]


class Details(NamedTuple):
    """A collapsible block: an image in its title, and images with headings inside."""

    title: str
    image: ImageTile
    maps: Sequence[tuple[str, ImageTile]]


@dataclasses.dataclass(frozen=True)
class Block:
    """A part of a section. Nonempty fields are shown in this order."""

    heading: str = ""
    text: str = ""
    severity: str = ""  # of the text: "", "muted", "warning" or "good"
    charts: Sequence[tuple[str, str]] = ()  # description, and the JSON of jaxconv.report.figures
    tiles: Sequence[ImageTile] = ()
    size: str = "small"  # of the tiles: "filters", "small" or "large"
    table: Table | None = None
    images: ImageTable | None = None
    pre: str = ""
    details: Sequence[Details] = ()


class Section(NamedTuple):
    """A section of the page, and figures that are saved as files beside the page."""

    id: str
    title: str
    intro: Sequence[str]  # paragraphs on how to read the section
    blocks: Sequence[Block]
    figures: Mapping[str, "Figure"] = {}


def write_page(
    path: Path, title: str, key_figures: Sequence[tuple[str, str]], notes: Sequence[str], sections: Sequence[Section]
) -> None:
    """Write the page atomically, so that a crash leaves the previous file.

    The page is self-contained: it includes its styles, images and plotly's compressed script.

    Raises:
        InputError: if the file cannot be written.
    """
    import jinja2
    import plotly

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_printable
    )
    script = resources.files(plotly).joinpath("package_data", "plotly.min.js").read_bytes()
    page = environment.from_string(_file("page.html.j2")).render(
        title=title,
        key_figures=key_figures,
        notes=notes,
        sections=sections,
        css=_file("page.css"),
        js=_file("page.js"),
        plotly=base64.b64encode(gzip.compress(script, 9, mtime=0)).decode(),
    )
    write_file(path, page)


def _printable(value: object) -> object:
    """Escape characters of names that reorder a line or cannot be encoded in UTF-8."""
    return printable(value, keep="\n\t") if type(value) is str else value  # a Markup string is this page's own


def _file(name: str) -> str:
    return resources.files("jaxconv.report").joinpath(name).read_text(encoding="utf-8")
