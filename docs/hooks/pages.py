"""The pages of the site that are not written in docs/, made anew each time it is built.

- ``notebooks/`` and ``experiments/``, from the folders of these names; CONTRIBUTING and CHANGELOG;
- ``api/``, a page for each package, with its public names;
- ``models.md``, a table of the registered models;
- ``source/``, the files of the repository that some page links to, so that a link to a source works on the disk too.

All pages, also those in docs/, link to files as they lie in the repository: ``../jaxconv/ops/pool.py``. Here each link
is turned to the page that there is for the file. A line ``<!-- README: Speed -->`` is replaced by that section.
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

# Files of the repository that are pages, and where.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "experiments/README.md": "experiments/index.md",
    "experiments/LECTURES.md": "experiments/lectures.md",
}
PICTURES = {".png", ".svg", ".jpg", ".gif"}
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")
ATTRIBUTE = re.compile(r'(?<=href="| src=")(?!https?:|#|mailto:|data:)([^"#]+)(#[^"]*)?(?=")')
IN_TABLE = re.compile(r"(?<=<code>)\w{24,}(::\w+)?(?=</code>)|(?<=<code>)\w+::\w+(?=</code>)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """A folder in the navigation stands for all pages in it. The footer says which versions the reference is of."""
    config.nav = [_opened(item) for item in config.nav or []]
    config.copyright = "Built with " + ", ".join(f"{name} {number}" for name, number in versions().items())


@event_priority(100)  # before the plugin that makes pages of notebooks
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
    return _relinked(_with_sections(markdown), page.file.src_uri)


@event_priority(-100)  # after that plugin
def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Long names in tables break where words end, and the sources are not searched; notebooks are made for the disk."""
    html = IN_TABLE.sub(lambda found: re.sub(r"(_|::)", r"\1<wbr>", found.group()), html)
    html = html.replace(
        '<details class="mkdocstrings-source"', '<details class="mkdocstrings-source" data-search-exclude'
    )
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def relinked(found: re.Match[str]) -> str:
        path = _linked_file(found.group(1), page.file.src_uri)
        file = files.get_file_from_path(_uri_of(path)) if path else None
        return file.url_relative_to(page.file) + (found.group(2) or "") if file else found.group()

    return ATTRIBUTE.sub(relinked, offline(html))


@event_priority(-100)  # after that plugin
def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return without_mathjax(output)


def _opened(item: Any) -> Any:
    if isinstance(item, dict):
        [(title, where)] = item.items()
        if isinstance(where, list):
            return {title: [_opened(each) for each in where]}
        if where.endswith("/"):
            return {title: _folder(where.rstrip("/"))}
    return item


def _folder(name: str) -> list[Any]:
    if name == "api":
        return ["api/index.md", *({package: f"api/{package}.md"} for package in packages())]
    if name == "notebooks":
        return [f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    return list(_scripts())


def _documents() -> dict[str, str]:
    made = {uri: (ROOT / path).read_text() for path, uri in PAGES.items() if path != "README.md"}
    title, rest = made["experiments/lectures.md"].split("\n", 1)
    return made | {"experiments/lectures.md": f"{title} {{#{LECTURE_ROWS}}}\n{rest}"}


@functools.cache
def _scripts() -> dict[str, str]:
    """Each experiment: what it claims, its picture, its source."""
    made = {}
    for path in sorted((ROOT / "experiments").glob("*.py")):
        code = path.read_text()
        title, _, said = docstring_of_file(path).partition("\n")
        picture = f"results/{path.stem}.png"
        figure = f"![{title}]({picture})\n\n" if (path.parent / picture).is_file() else ""
        head = f"# {path.name}\n\n{inline(title)}\n{{.doc-lead}}\n\n{figure}"
        made[f"experiments/scripts/{path.stem}.md"] = f"{head}{readable(said)}\n## The script\n\n{_fenced(code)}"
    return made


def docstring_of_file(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@functools.cache
def _reference() -> dict[str, str]:
    made = {f"api/{package}.md": _package(package) for package in packages()}
    rows = [
        f"| [{package}]({package}.md) | {inline(_lead(f'jaxconv.{package}'), f'jaxconv.{package}')} |"
        for package in packages()
    ]
    made["api/index.md"] = "\n".join(
        [
            "# Reference",
            "",
            "One page for each package. A package imports only packages above it; `import jaxconv` loads `ops`,",
            "`layers`, `models` and `shapes`, and the others when they are first used.",
            "",
            "| package | what is in it |",
            "|---|---|",
            *rows,
        ]
    )
    return made


def _package(package: str) -> str:
    module = f"jaxconv.{package}"
    parts = [f"# {module} {{#{module}}}\n\n{readable(docstring_of(module), module)}"]
    if package == "cli":
        return "\n".join([*parts, _commands()])
    names = list(names_of(module))
    if len(names) > 1:
        parts.append(_overview(names, module))
    parts += _by_file(names, module)
    for each in modules_of(package):
        short = each.removeprefix("jaxconv.")
        parts.append(f"## {short} {{#{each}}}\n\n{readable(docstring_of(each), each)}")
        parts += [_entry(name) for name in names_of(each)]
    return "\n".join(parts)


@functools.cache
def _models() -> str:
    """Table of the registered models, each linked to its function."""
    from jaxconv import explain, models

    rows = []
    for spec in map(models.get_model, models.list_models()):
        function, options = getattr(spec.create, "func", spec.create), getattr(spec.create, "keywords", {})
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        text = inline(spec.description) + (f" Here with `{given}`." if given else "")
        shape = "×".join(map(str, spec.input_shape))
        params = explain.summarize(spec.create(), spec.input_shape).params
        rows.append(f"| [`{spec.name}`][jaxconv.models.{function.__name__}] | {text} | {shape} | {params:,} |")
    return "\n".join(
        [
            "# Models",
            "",
            "The registered models, with their parameters at the smallest image that each is meant for.",
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
    """Names under a heading for the file they are written in, where that is not the package's own."""
    by_file: dict[Path, list[Name]] = {}
    for name in sorted(names, key=lambda name: name.path.rpartition(".")[0]):
        by_file.setdefault(name.file, []).append(name)
    parts = []
    for file, members in by_file.items():
        where = members[0].path.rpartition(".")[0]
        link = f"[`{file.relative_to(ROOT)}`](../../{file.relative_to(ROOT)}){{.doc-file}}"
        if where == module:
            parts.append(f"{link}\n" if len(by_file) == 1 else f"## {module.removeprefix('jaxconv.')}\n\n{link}\n")
        else:
            title, text = _titled(docstring_of(where))
            parts.append(f"{_of_jax(where)}## {inline(title)}\n\n{link}\n\n{readable(text, where)}")
        parts += [_entry(name) for name in members]
    return parts


def _titled(docstring: str) -> tuple[str, str]:
    """The first sentence as a heading, up to its colon if it has one, and the rest."""
    first, dot, rest = docstring.partition(".\n")
    if not dot:
        first, _, rest = docstring.rstrip(".").partition(". ")
    title, colon, more = first.replace("\n", " ").partition(": ")
    more = f"{more[0].upper()}{more[1:]}." if colon else ""
    return title, f"{more}\n{rest}"


def _entry(name: Name) -> str:
    """One name; where a module has the same path as a function in it, as ops.conv, its short path leads there too."""
    anchor = "" if name.public == name.path else f"[](){{#{name.public}}}\n\n"
    return f"{anchor}::: {name.path}\n"


def _of_jax(module: str) -> str:
    """Anchors of what a module has from jax.nn, and says in its docstring."""
    names = (node for node in tree_of(module).body if isinstance(node, ast.ImportFrom) and node.module == "jax.nn")
    anchors = [f"[](){{#jaxconv.ops.{alias.name}}}" for node in names for alias in node.names]
    return f"{''.join(anchors)}\n\n" if anchors else ""


def _commands() -> str:
    """What each command says with --help."""
    os.environ |= {"COLUMNS": "86", "NO_COLOR": "1", "TERM": "dumb"}
    from jaxconv.cli import app

    parts = []
    for name in app.COMMANDS:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            app.main([name, "--help"])
        text = "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _source(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    text = "\n".join(sorted(each.name for each in path.iterdir())) if path.is_dir() else path.read_text()
    return f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n# {name}\n\n{_fenced(text, path.suffix[1:] or 'text')}"


def _fenced(code: str, language: str = "py") -> str:
    return f"~~~~~~~~{language}\n{code.strip()}\n~~~~~~~~\n"


def _with_sections(markdown: str) -> str:
    """Sections of the README in the place of their names."""

    def section(found: re.Match[str]) -> str:
        text = (ROOT / "README.md").read_text()
        body = re.search(rf"^##+ {re.escape(found.group(1))}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert body is not None, f"README.md has no section {found.group(1)!r}"
        return LINK.sub(lambda link: f"../{link.group()}", body.group(1).strip())

    return INCLUDED.sub(section, markdown)


def _origin(uri: str) -> str:
    """Where a page's text comes from: what its links are relative to."""
    for path, page in PAGES.items():
        if page == uri and path != "README.md":
            return path
    if uri.startswith("experiments/scripts/"):
        return f"experiments/{posixpath.basename(uri)}"
    return uri if uri.startswith("notebooks/") else f"docs/{uri}"


def _linked_file(link: str, uri: str) -> Path | None:
    """The file of the repository that a page's link leads to, or None if mkdocs will find it (or not) by itself."""
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
    """The files of the repository that pages link to and that are no pages yet."""
    linked = set()
    for file in files:
        if file.src_uri.endswith(".ipynb"):
            text = _cells(Path(file.abs_src_path or ""))
        elif not file.is_documentation_page():
            continue
        else:
            text = _with_sections(file.content_string)
        text = FENCED.sub("", text)
        links = LINK.findall(text) + ATTRIBUTE.findall(text)
        paths = (_linked_file(link, file.src_uri) for link, _ in links)
        linked |= {path for path in paths if path and files.get_file_from_path(_uri_of(path)) is None}
    return linked


def _cells(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _relinked(markdown: str, uri: str) -> str:
    """Every link to a file of the repository as one to its page; in HTML, where mkdocs leaves it, to what is built."""

    def relinked(found: re.Match[str], built: bool = False) -> str:
        path = _linked_file(found.group(1), uri)
        if path is None:
            return found.group()
        target = re.sub(r"\.(md|ipynb)$", ".html", _uri_of(path)) if built else _uri_of(path)
        return posixpath.relpath(target, posixpath.dirname(uri) or ".") + (found.group(2) or "")

    return ATTRIBUTE.sub(functools.partial(relinked, built=True), LINK.sub(relinked, markdown))
