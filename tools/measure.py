"""Measure the checks of the redesign: value before it, value now, and target.

python tools/measure.py            # prints a table; exits with 1 if a rule is violated
"""

import ast
import importlib
import pkgutil
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxconv"
QUESTION = re.compile(r"(What|How|Which|Who|Whose|Where|When|Whether|Why)\b")


class Check(NamedTuple):
    """Line of the table; ``rule=False`` is reported without failing."""

    name: str
    before: str
    now: int
    target: int  # maximum; minimum for a median
    rule: bool = True

    @property
    def ok(self) -> bool:
        return self.now >= self.target if self.name.startswith("median") else self.now <= self.target


def hidden_modules() -> list[str]:
    """Return the modules that are shadowed by an attribute of the same name."""
    import jaxconv

    names = [info.name for info in pkgutil.walk_packages(jaxconv.__path__, "jaxconv.") if "__main__" not in info.name]
    modules = {name: importlib.import_module(name) for name in names}
    parents = {name: sys.modules[name.rpartition(".")[0]] for name in names}
    return [name for name, module in modules.items() if getattr(parents[name], name.rpartition(".")[2]) is not module]


def kinds_compared() -> list[str]:
    """Return the lines outside ``layers/`` that compare the kind of a layer; printing it is fine."""
    return [
        f"{path}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "layers"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and ".kind" in re.sub(r"(dtype|p)\.kind", "", ast.unparse(node))
    ]


def prose() -> tuple[int, int]:
    """Count docstrings that open with a question word, and literals of the name of their function."""
    questions = literals = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                questions += bool(QUESTION.match(ast.get_docstring(node) or ""))
            if isinstance(node, ast.FunctionDef):
                own = re.compile(rf"f?['\"](backward\.)?{re.escape(node.name)}(: |['\"]$)")
                calls = (call for call in ast.walk(node) if isinstance(call, ast.Call) and call.args)
                literals += sum(bool(own.match(ast.unparse(call.args[0]))) for call in calls)
    return questions, literals


def lines_of(pattern: str, *options: str) -> int:
    """Count the lines of the package that match an extended regular expression."""
    command = ["git", "grep", "-nE", *options, pattern, "--", "jaxconv"]
    return len(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines())


def checks() -> list[Check]:
    """Return all checks."""
    questions, literals = prose()
    files = [path for path in PACKAGE.rglob("*.py")]
    readme = (ROOT / "README.md").read_text()
    first_python_line = readme.split("```python")[0].count("\n") + 2
    tracked_files = subprocess.run(
        ["git", "ls-files", "jaxconv"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    names = {path.name for path in files}
    words = r"contest|contestant|racer|glance|stamp|ink|rooms?"
    return [
        Check("hidden modules", "32", len(hidden_modules()), 0),
        Check("comparisons of kinds outside layers/", "13", len(kinds_compared()), 0),
        Check("docstrings that open with a question word", "219", questions, 0),
        Check("literals of the function's own name", "374", literals, 39),
        Check(
            "assignments to found, each, asked …", "102", lines_of(r"\b(found|each|asked|wanted|said|whole|told) ="), 0
        ),
        Check("lines with contest, racer, stamp, ink …", "144", lines_of(words, "-w"), 0),
        Check("files named given, asked, norms", "8", len(names & {"given.py", "asked.py", "norms.py"}), 0),
        Check("imports of rich's Table", "9", lines_of("rich.table import Table"), 2),
        Check("imports of rich's progress bars", "6", lines_of("rich.progress import|rich import progress"), 1),
        Check("lists of models typed by hand", "3", lines_of("small_cnn, lenet5"), 1),
        Check("package files", "238", len(files), 165, rule=False),
        Check(
            "median lines of a file", "91", int(statistics.median(p.read_text().count("\n") for p in files)), 130, False
        ),
        Check("words of the README", "3,082", len(readme.split()), 1100),
        Check("lines of the README", "383", readme.count("\n"), 150),
        Check("line of the README's first Python", "39", first_python_line, 40),
        Check(
            "files of peers, audio, synthetic, style, study",
            "14",
            sum(bool(re.search("peers|audio|synthetic|style|study", name)) for name in tracked_files),
            0,
        ),
    ]


def main() -> int:
    rows = checks()
    width = max(len(row.name) for row in rows)
    print(f"{'check':{width}}  {'before':>7}  {'now':>7}  {'target':>7}")
    for row in rows:
        target = f"≥ {row.target}" if row.name.startswith("median") else f"≤ {row.target}" if row.target else "0"
        print(f"{row.name:{width}}  {row.before:>7}  {row.now:>7}  {target:>7}{'' if row.ok else '  FAIL'}")
    return int(any(row.rule and not row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(main())
