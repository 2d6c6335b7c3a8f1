"""Generate the pages of the site that are not in docs/.

- ``notebooks/`` and ``experiments/``, from the folders of these names; CONTRIBUTING and CHANGELOG;
- ``api/``, one page per package, with its public names;
- ``models.md``, a table of the registered models;
- ``source/``, the files of the repository that pages link to, so that these links work from the disk too.

Pages, also those in docs/, link to files by their path in the repository: ``../jaxconv/ops/pooling.py``. These hooks
replace each link with the page of that file.
"""

import ast
import contextlib
import functools
import io
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from docstrings import LECTURE_ROWS, ROOT, Name, docstring_of, inline, modules_of, names_of, packages, readable, tree_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from jaxconv.runtime import versions
from notebooks import offline, without_mathjax

# Files of the repository that are pages, by the path of the page.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "experiments/README.md": "experiments/index.md",
    "experiments/LECTURES.md": "experiments/lectures.md",
}
PICTURES = {".png", ".svg", ".jpg", ".gif"}
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")
ATTRIBUTE = re.compile(r'(?<=href="| src=")(?!https?:|#|mailto:|data:)([^"#]+)(#[^"]*)?(?=")')
IN_TABLE = re.compile(r"(?<=<code>)\w{24,}(::\w+)?(?=</code>)|(?<=<code>)\w+::\w+(?=</code>)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> None:
    """Replace each folder in the navigation with its pages, and name the versions in the footer."""
    config.nav = [_expand(item) for item in config.nav or []]
    config.copyright = "Built with " + ", ".join(f"{name} {number}" for name, number in versions().items())


@event_priority(100)  # before mkdocs-jupyter
def on_files(files: Files, config: MkDocsConfig) -> None:
    for uri, text in {**_documents(), **_scripts(), **_reference(), "models.md": _models()}.items():
        files.append(File.generated(config, uri, content=text))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File(f"notebooks/{path.name}", str(ROOT), config.site_dir, config.use_directory_urls))
    for path in sorted(_linked(files)):
        if path.suffix in PICTURES:
            file = File.generated(config, _uri_of(path), abs_src_path=str(path))
        else:
            file = File.generated(config, _uri_of(path), content=_source(path), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(file)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return _relinked(markdown, page.file.src_uri)


@event_priority(-100)  # after mkdocs-jupyter
def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Allow line breaks in long names, exclude sources from the search, and make notebooks work offline."""
    html = IN_TABLE.sub(lambda match: re.sub(r"(_|::)", r"\1<wbr>", match.group()), html)
    html = html.replace(
        '<details class="mkdocstrings-source"', '<details class="mkdocstrings-source" data-search-exclude'
    )
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def relinked(match: re.Match[str]) -> str:
        path = _linked_file(match.group(1), page.file.src_uri)
        file = files.get_file_from_path(_uri_of(path)) if path else None
        return file.url_relative_to(page.file) + (match.group(2) or "") if file else match.group()

    return ATTRIBUTE.sub(relinked, offline(html))


@event_priority(-100)  # after mkdocs-jupyter
def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return without_mathjax(output)


def _expand(item: Any) -> Any:
    if isinstance(item, dict):
        [(title, target)] = item.items()
        if isinstance(target, list):
            return {title: [_expand(entry) for entry in target]}
        if target.endswith("/"):
            return {title: _pages_in(target.rstrip("/"))}
    return item


def _pages_in(name: str) -> list[Any]:
    if name == "api":
        return ["api/index.md", *({package: f"api/{package}.md"} for package in packages())]
    if name == "notebooks":
        return [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    return list(_scripts())


def _documents() -> dict[str, str]:
    pages = {uri: (ROOT / path).read_text() for path, uri in PAGES.items()}
    title, rest = pages["experiments/lectures.md"].split("\n", 1)
    return pages | {"experiments/lectures.md": f"{title} {{#{LECTURE_ROWS}}}\n{rest}"}


@functools.cache
def _scripts() -> dict[str, str]:
    """Return one page per experiment: claim, figure, source."""
    pages = {}
    for path in sorted((ROOT / "experiments").glob("*.py")):
        code = path.read_text()
        title, _, body = docstring_of_file(path).partition("\n")
        picture = f"results/{path.stem}.png"
        figure = f"![{title}]({picture})\n\n" if (path.parent / picture).is_file() else ""
        head = f"# {path.name}\n\n{inline(title)}\n{{.doc-lead}}\n\n{figure}"
        pages[f"experiments/scripts/{path.stem}.md"] = f"{head}{readable(body)}\n## Source\n\n{_fenced(code)}"
    return pages


def docstring_of_file(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@functools.cache
def _reference() -> dict[str, str]:
    pages = {f"api/{package}.md": _package(package) for package in packages()}
    rows = [
        f"| [{package}]({package}.md) | {inline(_lead(f'jaxconv.{package}'), f'jaxconv.{package}')} |"
        for package in packages()
    ]
    pages["api/index.md"] = "\n".join(
        [
            "# Reference",
            "",
            "One page per package. A package imports only packages above it. `import jaxconv` loads `ops`, `layers`,",
            "`models` and `shapes`; the others load on first use.",
            "",
            "| package | contents |",
            "|---|---|",
            *rows,
        ]
    )
    return pages


def _package(package: str) -> str:
    module = f"jaxconv.{package}"
    parts = [f"# {module} {{#{module}}}\n\n{readable(docstring_of(module), module)}"]
    if package == "cli":
        return "\n".join([*parts, _commands()])
    names = list(names_of(module))
    if len(names) > 1:
        parts.append(_overview(names, module))
    parts += _by_file(names, module)
    for inner in modules_of(package):
        short = inner.removeprefix("jaxconv.")
        parts.append(f"## {short} {{#{inner}}}\n\n{readable(docstring_of(inner), inner)}")
        parts += [_entry(name) for name in names_of(inner)]
    return "\n".join(parts)


@functools.cache
def _models() -> str:
    """Return a table of the registered models, each linked to its function."""
    from jaxconv import explain, models

    rows = []
    for spec in map(models.get_model, models.list_models()):
        function, options = getattr(spec.create, "func", spec.create), getattr(spec.create, "keywords", {})
        arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
        text = inline(spec.description) + (f" Here with `{arguments}`." if arguments else "")
        shape = "×".join(map(str, spec.input_shape))
        params = explain.summarize(spec.create(), spec.input_shape).params
        rows.append(f"| [`{spec.name}`][jaxconv.models.{function.__name__}] | {text} | {shape} | {params:,} |")
    return "\n".join(
        [
            "# Models",
            "",
            "The registered models, with their number of parameters at their default input shape.",
            "`models.create_model(name, num_classes)` creates one, `jaxconv summary NAME` shows its layers, and",
            "`jaxconv train --model NAME` trains it.",
            "",
            "| name | description | input shape | parameters |",
            "|---|---|---:|---:|",
            *rows,
        ]
    )


def _lead(module: str) -> str:
    return docstring_of(module).partition("\n\n")[0].replace("\n", " ")


def _overview(names: list[Name], module: str) -> str:
    rows = [f"| [`{name.name}`][{name.public}] | {inline(name.summary, module)} |" for name in names]
    return "\n".join(["| | |", "|---|---|", *rows, "{.doc-overview}", ""])


def _by_file(names: list[Name], module: str) -> list[str]:
    """Group names by file, with a heading per file other than the package's own."""
    by_file: dict[Path, list[Name]] = {}
    for name in sorted(names, key=lambda name: name.path.rpartition(".")[0]):
        by_file.setdefault(name.file, []).append(name)
    parts = []
    for file, members in by_file.items():
        module_of_file = members[0].path.rpartition(".")[0]
        link = f"[`{file.relative_to(ROOT)}`](../../{file.relative_to(ROOT)}){{.doc-file}}"
        if module_of_file == module:
            parts.append(f"{link}\n" if len(by_file) == 1 else f"## {module.removeprefix('jaxconv.')}\n\n{link}\n")
        else:
            title, text = _split_title(docstring_of(module_of_file))
            parts.append(
                f"{_jax_anchors(module_of_file)}## {inline(title)}\n\n{link}\n\n{readable(text, module_of_file)}"
            )
        parts += [_entry(name) for name in members]
    return parts


def _split_title(docstring: str) -> tuple[str, str]:
    """Split a docstring into a heading (its first sentence, up to a colon) and the rest."""
    first, dot, rest = docstring.partition(".\n")
    if not dot:
        first, _, rest = docstring.rstrip(".").partition(". ")
    title, colon, more = first.replace("\n", " ").partition(": ")
    more = f"{more[0].upper()}{more[1:]}." if colon else ""
    return title, f"{more}\n{rest}"


def _entry(name: Name) -> str:
    """Return the entry of one name, with an anchor for its public path if that differs."""
    anchor = "" if name.public == name.path else f"[](){{#{name.public}}}\n\n"
    return f"{anchor}::: {name.path}\n"


def _jax_anchors(module: str) -> str:
    """Return anchors of the names that a module re-exports from jax.nn and documents in its docstring."""
    names = (node for node in tree_of(module).body if isinstance(node, ast.ImportFrom) and node.module == "jax.nn")
    anchors = [f"[](){{#jaxconv.ops.{alias.name}}}" for node in names for alias in node.names]
    return f"{''.join(anchors)}\n\n" if anchors else ""


def _commands() -> str:
    """Return the --help text of each command."""
    os.environ |= {"COLUMNS": "86", "NO_COLOR": "1", "TERM": "dumb"}
    from jaxconv.cli import app

    parts = []
    for name in app.COMMANDS:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            app.main([name, "--help"])
        text = "\n".join(line.rstrip() for line in output.getvalue().strip().splitlines())
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _source(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    text = "\n".join(sorted(entry.name for entry in path.iterdir())) if path.is_dir() else path.read_text()
    return f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n# {name}\n\n{_fenced(text, path.suffix[1:] or 'text')}"


def _fenced(code: str, language: str = "py") -> str:
    return f"~~~~~~~~{language}\n{code.strip()}\n~~~~~~~~\n"


def _origin(uri: str) -> str:
    """Return the repository path of a page's source, to which its links are relative."""
    for path, page in PAGES.items():
        if page == uri:
            return path
    if uri.startswith("experiments/scripts/"):
        return f"experiments/{posixpath.basename(uri)}"
    return uri if uri.startswith("notebooks/") else f"docs/{uri}"


def _linked_file(link: str, uri: str) -> Path | None:
    """Return the repository file that a link points to, or None if the link is left to mkdocs."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(_origin(uri)), link))
    if path.startswith(("docs/", "..")) or not (ROOT / path).exists():
        return None
    return ROOT / path


def _uri_of(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES:
        return PAGES[name]
    if path.suffix == ".ipynb":
        return name
    if path.parent == ROOT / "experiments" and path.suffix == ".py":
        return f"experiments/scripts/{path.stem}.md"
    if path.suffix in PICTURES:
        return f"pictures/{path.parent.name.removeprefix('.')}-{path.name}"
    return f"source/{name.replace('/', '-')}.md"


def _linked(files: Files) -> set[Path]:
    """Return the repository files that pages link to and that have no page yet."""
    linked = set()
    for file in files:
        if file.src_uri.endswith(".ipynb"):
            text = _cells(Path(file.abs_src_path or ""))
        elif not file.is_documentation_page():
            continue
        else:
            text = file.content_string
        text = FENCED.sub("", text)
        links = LINK.findall(text) + ATTRIBUTE.findall(text)
        paths = (_linked_file(link, file.src_uri) for link, _ in links)
        linked |= {path for path in paths if path and files.get_file_from_path(_uri_of(path)) is None}
    return linked


def _cells(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _relinked(markdown: str, uri: str) -> str:
    """Replace links to repository files with links to their pages; in raw HTML, to the built pages."""

    def relinked(match: re.Match[str], built: bool = False) -> str:
        path = _linked_file(match.group(1), uri)
        if path is None:
            return match.group()
        target = re.sub(r"\.(md|ipynb)$", ".html", _uri_of(path)) if built else _uri_of(path)
        return posixpath.relpath(target, posixpath.dirname(uri) or ".") + (match.group(2) or "")

    return ATTRIBUTE.sub(functools.partial(relinked, built=True), LINK.sub(relinked, markdown))
