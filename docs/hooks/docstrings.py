"""Convert docstrings to Markdown, for mkdocstrings.

Docstrings are written for an editor: sections ``Args:``, ``Returns:``, ``Raises:``; examples that start with ``>>>``;
indented formulas; ``:func:`` roles; text tables. All of these become Markdown.

mkdocs loads this module with ``pages.py``, and Griffe loads it as an extension. It imports nothing of jaxconv: it reads
public names from the source files.
"""

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import griffe

ROOT = Path(__file__).resolve().parents[2]
LECTURE_ROWS = "lecture-rows"  # the anchor of their table
# Public modules that their package does not import.
ALSO = {
    "layers": ["traversal"],
    "models": ["manual_backprop"],
    "ops": ["convolution.primitives", "convolution.cpu.autotune"],
}

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
ITEM = re.compile(r"([\w*`., ]+?): +(?=\S)|([\w*`., ]+?):$")
RULER = re.compile(r"=+(?: +=+)+$")
CODE = re.compile(r"(:\w+:`[^`]+`|``.+?``|`[^`]+`)", re.DOTALL)
ADDRESS = re.compile(r"https?://[^\s)&]*[^\s)&.,;:]")


class Name(NamedTuple):
    """Public name."""

    public: str  # the import path of users: jaxconv.ops.conv
    path: str  # the path of its definition: jaxconv.ops.convolution.api.conv
    file: Path
    summary: str  # the first line of its docstring

    @property
    def name(self) -> str:
        return self.public.rpartition(".")[2]


def packages() -> list[str]:
    """Return the names of the packages in the order of CONTRIBUTING's table, others last."""
    folder = ROOT / "jaxconv"
    existing = {path.name.removesuffix(".py") for path in folder.iterdir() if file_of(f"jaxconv.{path.stem}")}
    existing = {name for name in existing if not name.startswith("_")}
    cells = re.findall(r"^\| (`.+?`) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    listed = re.findall(r"`(\w+)(?:\.py|/)`", " ".join(cells))
    return [name for name in listed if name in existing] + sorted(existing - set(listed))


def file_of(module: str) -> Path | None:
    """Return the file of a module or package, or None."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@functools.cache
def tree_of(module: str) -> ast.Module:
    file = file_of(module)
    assert file is not None, module
    return ast.parse(file.read_text())


def docstring_of(module: str) -> str:
    return ast.get_docstring(tree_of(module)) or ""


@functools.cache
def names_of(module: str) -> tuple[Name, ...]:
    """Return the public names of a module: ``__all__``, or its functions and classes without a leading underscore."""
    tree = tree_of(module)
    listed = next(
        (node.value for node in tree.body if isinstance(node, ast.Assign) and _targets(node) == ["__all__"]), None
    )
    if isinstance(listed, ast.List):
        names = [name for item in listed.elts if isinstance(item, ast.Constant) and (name := str(item.value))]
    else:
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    located = [_locate(module, name) for name in names if not name.startswith("_")]
    return tuple(name for name in located if name is not None)


def modules_of(package: str) -> list[str]:
    """Return the public modules of a package."""
    module = f"jaxconv.{package}"
    inner = [
        f"{node.module}.{alias.name}"
        for node in tree_of(module).body
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
        if file_of(f"{module}.{alias.name}")
    ]
    return inner + [f"{module}.{name}" for name in ALSO.get(package, [])]


@functools.cache
def published() -> dict[str, Name]:
    """Return every name of the reference, by the path of its definition."""
    modules = [module for package in packages() for module in (f"jaxconv.{package}", *modules_of(package))]
    return {name.path: name for module in reversed(modules) for name in names_of(module)}


def _targets(node: ast.AST) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _locate(public: str, name: str, module: str | None = None) -> Name | None:
    """Follow imports to the definition of a name; None for modules and names of other libraries."""
    module = module or public
    file, tree = file_of(module), tree_of(module)
    assert file is not None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            docstring = ast.get_docstring(node) or ""
            return Name(f"{public}.{name}", f"{module}.{name}", file, docstring.split("\n")[0])
        if name in _targets(node):
            return Name(f"{public}.{name}", f"{module}.{name}", file, _comment_of(file, node))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxconv"):
            for alias in node.names:
                if (alias.asname or alias.name) == name and not (node.module == module and file_of(f"{module}.{name}")):
                    return _locate(public, alias.name, node.module)
    return None


def _comment_of(file: Path, node: ast.stmt) -> str:
    """Return the comment on the line of an assignment, or on the lines before it."""
    lines = file.read_text().splitlines()
    if match := re.search(r"  # (.*)", lines[node.lineno - 1]):
        return match.group(1)
    above = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.startswith("# "):
            break
        above.insert(0, line[2:])
    return " ".join(above)


def readable(text: str, module: str = "jaxconv") -> str:
    """Convert a docstring to Markdown.

    Args:
        text: docstring.
        module: module of the docstring, to resolve the names in it.
    """
    return "\n".join(_blocks(inspect.cleandoc(text).splitlines(), module)).strip() + "\n"


def _blocks(lines: list[str], module: str) -> Iterator[str]:
    i = 0
    while i < len(lines):
        line = lines[i]
        end = i + 1
        if (match := SECTION.match(line)) and _indented(lines, end):
            while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
                end += 1
            yield from _section(match.group(1), lines[i + 1 : end], module)
        elif line.startswith(">>>"):
            while end < len(lines) and (lines[end] or (end + 1 < len(lines) and lines[end + 1].startswith(">>>"))):
                end += 1
            yield from ("", "```pycon", *lines[i:end], "```", "")
        elif RULER.match(line):
            end = max(j for j in range(i, len(lines)) if RULER.match(lines[j])) + 1
            yield from _table(lines[i:end], module)
        elif line.startswith("    "):
            while end < len(lines) and (
                lines[end].startswith("    ") or (not lines[end] and _indented(lines, end + 1))
            ):
                end += 1
            code = [line[4:] for line in lines[i:end]]
            yield from ("", "```python" if _is_code(code) else "```text", *code, "```", "")
        elif not line:
            yield ""
        else:
            is_list = line.startswith("- ")
            while end < len(lines) and lines[end] and not (lines[end].startswith(("    ", ">>>", "- "))):
                end += 1
            paragraph = inline("\n".join(lines[i:end]), module)
            yield from ("", paragraph) if not is_list or (i and not lines[i - 1]) else (paragraph,)
        i = end


def _indented(lines: list[str], i: int) -> bool:
    return i < len(lines) and lines[i].startswith("    ")


def _is_code(lines: list[str]) -> bool:
    """Return True if the lines are Python and not a formula."""
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Assign | ast.Call | ast.ImportFrom | ast.Import) for node in ast.walk(tree))


def _section(title: str, lines: list[str], module: str) -> Iterator[str]:
    """Format ``Args:`` and similar sections as a list, ``Returns:`` as a paragraph."""
    yield from ("", f"**{title}**{{.doc-section}}", "")
    items: list[list[str]] = []
    for line in lines:
        if line.startswith("    ") and not line.startswith("     ") and title not in ("Returns", "Yields"):
            items.append([line.strip()])
        elif line.strip():
            items = items or [[]]
            items[-1].append(line.strip())
    for item in items:
        text = "\n".join(item)
        if title in ("Returns", "Yields"):
            yield inline(text, module)
        elif match := ITEM.match(text):
            names = re.sub(r"[\w*.]+", r"`\g<0>`", (match.group(1) or match.group(2)).replace("`", ""))
            yield f"- {names}: {inline(text[match.end() :], module)}".replace("\n", "\n    ")
        else:
            yield f"- {inline(text, module)}".replace("\n", "\n    ")
    yield ""


def _table(lines: list[str], module: str) -> Iterator[str]:
    """Format a text table: rulers of ``===`` above the headings, below them and at the end."""
    starts = [match.start() for match in re.finditer(r"=+", lines[0])]
    ends = [*starts[1:], None]

    def row(line: str) -> str:
        cells = [inline(line[a:b].strip(), module).replace("|", r"\|") for a, b in zip(starts, ends, strict=True)]
        return f"| {' | '.join(cells)} |"

    heading, *rows = [line for line in lines if not RULER.match(line)]
    yield from ("", row(heading), "|" + "---|" * len(starts), *map(row, rows), "")


def inline(text: str, module: str = "jaxconv") -> str:
    """Format a paragraph: link names and addresses, and escape Markdown's characters."""
    parts = CODE.split(text)
    return "".join(_code(part, module) if i % 2 else _plain(part) for i, part in enumerate(parts))


def _plain(text: str) -> str:
    text = re.sub(r"([*\[\]])", r"\\\1", text).replace("<", "&lt;")
    text = ADDRESS.sub(lambda match: f"<{match.group()}>", text)
    return re.sub(r"\b([Ll]ecture rows?)\b", rf"[\1][{LECTURE_ROWS}]", text)


def _code(text: str, module: str) -> str:
    if not text.startswith(":"):
        return text
    name = text.split("`")[1]
    shown = name if name.startswith("jaxconv.") else name.removeprefix("~")
    target = link_of(name, module)
    return f"[`{shown}`][{target}]" if target else f"`{shown}`"


def link_of(name: str, module: str) -> str | None:
    """Return the anchor of a name in a docstring, or None if the reference does not have it."""
    if name.startswith("jaxconv."):
        path, _, last = name.rpartition(".")
        if path == "jaxconv" and last in packages():
            return name
        definition = _locate(path, last) if file_of(path) else None
        if definition and definition.path in published():
            return published()[definition.path].public
        public = {entry.public: entry.public for entry in published().values()}
        top_level = {f"jaxconv.{entry.name}": entry.public for entry in published().values()}
        return public.get(name) or top_level.get(name)
    package = module.split(".")[1] if "." in module else ""
    same = [entry for entry in published().values() if entry.name == name]
    same.sort(key=lambda entry: (not entry.path.startswith(f"{module}."), f".{package}." not in entry.path))
    return same[0].public if same else None


class Readable(griffe.Extension):
    """Griffe extension that converts every docstring, and turns a field's comment into its docstring."""

    def on_object(self, *, obj: griffe.Object, loader: Any, **kwargs: Any) -> None:
        if obj.is_attribute and obj.docstring is None and obj.parent is not None and obj.parent.is_class:
            match = re.search(r"  # (.+)$", obj.source.rstrip())
            if match:
                obj.docstring = griffe.Docstring(match.group(1)[0].upper() + match.group(1)[1:] + ".", parent=obj)
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value, obj.module.path)
