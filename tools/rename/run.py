"""Apply the moves and renames of ``moves.tsv`` and ``names.tsv`` to this checkout.

Examples:
    python tools/rename/run.py --select jaxconv.ops --first     # move each module of a package to its new file
    python tools/rename/run.py --select jaxconv.ops             # then move the symbols that join it
    python tools/rename/run.py --names --select jaxconv.ops     # rename without moving
"""

import argparse
import ast
import functools
import multiprocessing
import re
import subprocess
from collections import defaultdict
from pathlib import Path

from pages import rename_notebook, rename_page
from source import rename_source
from tables import Index, Symbol, defined_names, module_of, path_of, read_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = ("jaxconv", "tests", "experiments", "benchmarks", "docs/hooks")
PAGES = ("README.md", "CONTRIBUTING.md", "mkdocs.yml", ".ci/run", "docs/*.md", "experiments/*.md", "pyproject.toml")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--select", default="", help="prefix of the dotted paths to process")
    parser.add_argument("--first", action="store_true", help="move only the first source of each new module")
    parser.add_argument("--names", action="store_true", help="apply names.tsv instead of moves.tsv")
    options = parser.parse_args()
    index = Index(ROOT, HERE / "moves.tsv", HERE / "names.tsv", options.select)
    if options.names:
        index.moves.clear()
    else:
        index.renames.clear()
        index.keywords.clear()
        if options.first:
            index.moves = first_sources(index)
    paths = [Path(line) for line in git("ls-files", *PYTHON).split() if line.endswith(".py")]
    with multiprocessing.get_context("fork").Pool() as pool:
        texts = dict(zip(paths, pool.map(functools.partial(renamed, index), paths, chunksize=8), strict=True))
    write_modules(texts, index)
    for page in git("ls-files", *PAGES).split():
        (ROOT / page).write_text(rename_page((ROOT / page).read_text(), index))
    for notebook in git("ls-files", "notebooks/*.ipynb").split():
        (ROOT / notebook).write_text(rename_notebook((ROOT / notebook).read_text(), index))
    git("add", "--all")


def renamed(index: Index, path: Path) -> str:
    text = (ROOT / path).read_text()
    words = index.words()
    if words and not words.intersection(re.findall(r"\w+", text)):  # parsing is slow
        return text
    return rename_source(text, index, module_of(path) or "")


def first_sources(index: Index) -> dict[Symbol, str]:
    """Return the moves of a module to a file that does not exist yet."""
    first: dict[str, Symbol] = {}
    for row in read_table(HERE / "moves.tsv"):
        symbol = Symbol(row["old"])
        if not row["names"] and index.moves.get(symbol) == row["new"]:
            first.setdefault(row["new"], symbol)
    return {symbol: new for new, symbol in first.items() if new not in index.modules}


def write_modules(texts: dict[Path, str], index: Index) -> None:
    """Write every file to its new path; statements of several modules are joined in the order of the table."""
    joined: dict[str, list[tuple[str, list[str], list[str]]]] = defaultdict(list)
    order = {symbol.module: k for k, symbol in enumerate(index.moves)}
    moving = sorted((p for p in texts if module_of(p) in order), key=lambda p: order[module_of(p) or ""])
    staying = set(index.moves.values())
    for path in [p for p in texts if p not in moving and module_of(p) in staying] + moving:
        module = module_of(path) or ""
        main = index.new_module(Symbol(module))
        docstring, imports, bodies = split_module(
            texts[path], lambda name, m=module: index.new_module(Symbol(m, name)), main
        )
        for target in {main, *bodies}:
            joined[target].append((docstring if target == main else "", imports, bodies.get(target, [])))
        if module != main:
            destination = path_of(main, any(other.startswith(main + ".") for other in index.moves.values()))
            (ROOT / destination).parent.mkdir(parents=True, exist_ok=True)
            git("rm", "-q", "--cached", str(path)) if (ROOT / destination).exists() else git(
                "mv", str(path), str(destination)
            )
            if (ROOT / path).exists() and path != destination:
                (ROOT / path).unlink()
    done = set()
    for target, parts in joined.items():
        path = path_of(target, any(other.startswith(target + ".") for other in index.moves.values()))
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(join_modules(target, parts))
        done.add(path)
    for path, text in texts.items():
        if path not in moving and path not in done and (ROOT / path).read_text() != text:
            (ROOT / path).write_text(text)


def split_module(text: str, target_of, main: str) -> tuple[str, list[str], dict[str, list[str]]]:
    """Return the docstring, the imports, and the other statements by their new module."""
    tree, lines = ast.parse(text), text.split("\n")
    docstring, imports, bodies, end = "", [], defaultdict(list), 0
    for statement in tree.body:
        segment = "\n".join(lines[end : statement.end_lineno])  # with the comments above it
        if statement is tree.body[0] and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            docstring = segment
        elif isinstance(statement, ast.Import | ast.ImportFrom) or ast.unparse(statement).startswith(
            "if TYPE_CHECKING"
        ):
            imports.append(segment)
        else:
            names = list(defined_names(statement))
            bodies[target_of(names[0]) if names else main].append(segment)
        end = statement.end_lineno
    return docstring, imports, dict(bodies)


def join_modules(target: str, parts: list[tuple[str, list[str], list[str]]]) -> str:
    """Return the text of one file; docstrings other than the first become comments."""
    docstring = next((part[0] for part in parts if part[0]), '"""To be written."""')
    imports = [line for part in parts for line in part[1] if f"from {target} import" not in line]
    bodies = []
    for other, _, body in parts:
        if other and other != docstring:
            bodies.append("\n".join(f"# DOC {line}".rstrip() for line in other.split("\n")))
        bodies += body
    return "\n".join([docstring, *imports, *bodies]).strip("\n") + "\n"


if __name__ == "__main__":
    main()
