"""Rename in Markdown pages and their examples, notebooks and configuration files."""

import re
from pathlib import Path

import nbformat
from source import dotted, rename_examples
from tables import Index, Symbol, module_of, path_of

FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"\b(?:jaxconv|benchmarks|experiments)/[\w/]+\.py\b")


def rename_page(text: str, index: Index) -> str:
    """Rewrite the examples, the dotted paths and the file names of a page."""
    blocks = [block for block in FENCE.findall(text) if ">>>" not in block]
    new = dict(zip(blocks, rename_examples(blocks, index), strict=True)) if blocks else {}
    text = FENCE.sub(lambda match: match[0].replace(match[1], new.get(match[1], match[1])), text)
    return rename_files(dotted(text, index), index)


def rename_files(text: str, index: Index) -> str:
    """Rewrite the paths of modules' files."""
    return FILE.sub(lambda match: _new_file(match[0], index), text)


def _new_file(path: str, index: Index) -> str:
    module = module_of(Path(path))
    if module is None or module not in index.modules:
        return path
    new = index.new_module(Symbol(module))
    return path if new == module else str(path_of(new))


def rename_notebook(text: str, index: Index) -> str:
    """Rewrite the cells of a notebook."""
    notebook = nbformat.reads(text, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    plain = [cell for cell in code if not re.search(r"^\s*[%!]", cell.source, re.MULTILINE)]
    for cell, source in zip(plain, rename_examples([cell.source for cell in plain], index), strict=True):
        cell.source = source.rstrip("\n")
    for cell in notebook.cells:
        cell.source = rename_files(dotted(cell.source, index), index)
    return nbformat.writes(notebook) + "\n"
