"""The page: sections go in, one HTML file with everything in it comes out."""

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
    """Headings, and as many cells in each row."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


class Pictures(NamedTuple):
    """A table of pictures: headings, and rows of a name and pictures."""

    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[ImageTile]]]


class Details(NamedTuple):
    """What is shown when it is opened: for each name a picture."""

    title: str
    picture: ImageTile
    maps: Sequence[tuple[str, ImageTile]]


@dataclasses.dataclass(frozen=True)
class Block:
    """A part of a section. What it has is shown, in this order."""

    heading: str = ""
    text: str = ""
    tone: str = ""  # of the text: "", "soft", "warning" or "good"
    charts: Sequence[tuple[str, str]] = ()  # what it shows, and the JSON of jaxconv.report.figures
    tiles: Sequence[ImageTile] = ()
    size: str = "small"  # of the tiles: "filters", "small" or "large"
    table: Table | None = None
    pictures: Pictures | None = None
    pre: str = ""
    folded: Sequence[Details] = ()


class Section(NamedTuple):
    """A heading, some words on how to read what follows, and that; and figures to be saved beside the page."""

    id: str
    title: str
    lead: Sequence[str]
    blocks: Sequence[Block]
    figures: Mapping[str, "Figure"] = {}


def write_page(
    path: Path, title: str, facts: Sequence[tuple[str, str]], notes: Sequence[str], sections: Sequence[Section]
) -> None:
    """Write the page, beside and renamed, so that a crash leaves the one that was there.

    It asks nothing of a network: styles, pictures and plotly's script, compressed, are in it.

    Raises:
        InputError: it cannot be written.
    """
    import jinja2
    import plotly

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_shown
    )
    script = resources.files(plotly).joinpath("package_data", "plotly.min.js").read_bytes()
    page = environment.from_string(_file("page.html.j2")).render(
        title=title,
        facts=facts,
        notes=notes,
        sections=sections,
        css=_file("page.css"),
        js=_file("page.js"),
        plotly=base64.b64encode(gzip.compress(script, 9, mtime=0)).decode(),
    )
    write_file(path, page)


def _shown(value: object) -> object:
    """A value as the page shows it: names may hold characters that reorder a line, or that UTF-8 has not."""
    return printable(value, keep="\n\t") if type(value) is str else value  # what is marked as safe is our own


def _file(name: str) -> str:
    return resources.files("jaxconv.report").joinpath(name).read_text(encoding="utf-8")
