"""Index of the old and new location of every name, from ``moves.tsv``, ``names.tsv`` and the current code."""

import ast
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOTS = {"jaxconv": "", "common": "experiments", "benchmarks": ""}  # top-level packages and their parent folders


class Symbol(NamedTuple):
    """Name in its defining module; ``name`` is empty for the module itself, ``rest`` are attributes of the symbol."""

    module: str
    name: str = ""
    rest: tuple[str, ...] = ()


class Module(NamedTuple):
    """Top-level names of a module: those that it defines, and those that it imports, with their dotted paths."""

    package: bool
    defined: frozenset[str]
    imported: dict[str, str]


def path_of(module: str, package: bool = False) -> Path:
    """Return the path of a module, relative to the root of the repository."""
    root, _, _ = module.partition(".")
    path = Path(ROOTS[root]) / module.replace(".", "/")
    return path / "__init__.py" if package else path.with_suffix(".py")


def module_of(path: Path) -> str | None:
    """Return the dotted name of the module in a file, or None for a test or a script."""
    for root, folder in ROOTS.items():
        top = Path(folder) / root
        if path.suffix == ".py" and path.is_relative_to(top):
            return ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    return None


def defined_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement defines."""
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.If() | ast.Try():
            for inner in ast.iter_child_nodes(statement):
                if isinstance(inner, ast.stmt):
                    yield from defined_names(inner)


def read_module(path: Path) -> Module:
    """Read the names of one file."""
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.col_offset == 0
        for alias in node.names
    }
    defined = frozenset(name for statement in tree.body for name in defined_names(statement))
    return Module(path.name == "__init__.py", defined, imported)


class Index:
    """Modules of a checkout and the tables: defining module and new name of every dotted name."""

    def __init__(self, root: Path, moves: Path, names: Path, select: str = "") -> None:
        paths = [path for top, folder in ROOTS.items() for path in (root / folder / top).rglob("*.py")]
        found = {module_of(path.relative_to(root)): path for path in paths}
        self.modules = {name: read_module(path) for name, path in found.items() if name}
        for name in list(self.modules):  # folders without __init__.py are packages as well
            while name := name.rpartition(".")[0]:
                self.modules.setdefault(name, Module(True, frozenset(), {}))
        self.moves: dict[Symbol, str] = {}
        self.renames: dict[Symbol, str] = {}
        self.keywords: dict[Symbol, dict[str, str]] = {}
        for row in read_table(moves):
            if row["old"].startswith(select) or row["new"].startswith(select):
                for name in row["names"].split(",") if row["names"] else [""]:
                    self.moves[Symbol(row["old"], name.strip())] = row["new"]
        for row in read_table(names):
            symbol = self.resolve(row["old"]) if row["old"].startswith(select) else None
            if symbol is None:  # of another package, or already renamed
                continue
            symbol = Symbol(symbol.module, ".".join([symbol.name, *symbol.rest]))
            if row["keyword"]:
                self.keywords.setdefault(symbol, {})[row["keyword"]] = row["new"]
            else:
                self.renames[symbol] = row["new"]
            if symbol.name.count(".") == 1 and not row["keyword"]:  # a field is also a keyword of the class
                owner, _, field = symbol.name.partition(".")
                self.keywords.setdefault(Symbol(symbol.module, owner), {})[field] = row["new"]

    def words(self) -> set[str]:
        """Return words, of which every file with a changed name has at least one; empty if modules move as well."""
        if self.moves:
            return set()
        names = {(symbol.name or symbol.module).rpartition(".")[2] for symbol in self.renames}
        return names | {name for keywords in self.keywords.values() for name in keywords}

    def resolve(self, dotted: str) -> Symbol | None:
        """Resolve a dotted path through imports to its symbol; None if it is not of this project."""
        root, *parts = dotted.split(".")
        return self._follow(root, tuple(parts)) if root in self.modules or root in ROOTS else None

    def _follow(self, module: str, parts: tuple[str, ...]) -> Symbol | None:
        if not parts:
            return Symbol(module)
        here, (part, *rest) = self.modules.get(module), parts
        inner = f"{module}.{part}"
        if inner in self.modules:  # a function may hide the module of its name: the module is meant if more follows
            child = self.modules[inner]
            follows = bool(rest) and (
                rest[0] in child.defined or rest[0] in child.imported or f"{inner}.{rest[0]}" in self.modules
            )
            hidden = here is not None and (part in here.defined or here.imported.get(part, inner) != inner)
            if follows or not hidden:
                return self._follow(inner, tuple(rest))
        if here is None:
            return None
        if part in here.defined:
            return Symbol(module, part, tuple(rest))
        if part in here.imported and self.resolve(here.imported[part]):
            return self.resolve(".".join([here.imported[part], *rest]))
        return None

    def new_module(self, symbol: Symbol) -> str:
        """Return the new module of the symbol; for a whole module, the one that gets most of it."""
        whole = self.moves.get(Symbol(symbol.module), symbol.module)
        return self.moves.get(Symbol(symbol.module, symbol.name), whole)

    def new_name(self, symbol: Symbol) -> str:
        """Return the new name of the symbol."""
        return self.renames.get(Symbol(symbol.module, symbol.name), symbol.name)

    def public_place(self, module: str, name: str) -> Symbol | None:
        """Return the new symbol of ``from module import name``: in the exporting package, or in its module."""
        symbol = self.resolve(f"{module}.{name}")
        if symbol is None:
            return None
        place = self.new_module(symbol)
        if not symbol.name:
            return Symbol(place)
        here = self.modules.get(module)
        exported = here is not None and here.package and name in here.imported
        package = self.new_module(Symbol(module))
        if exported and (place + ".").startswith(package + ".") and self.stays_package(module):
            return Symbol(package, self.new_name(symbol))
        return Symbol(place, self.new_name(symbol))

    def stays_package(self, module: str) -> bool:
        """Return True if the new module of this package is a package as well."""
        new = self.new_module(Symbol(module))
        targets = {*self.modules, *self.moves.values()}
        return any(target.startswith(new + ".") for target in targets)

    def new_path(self, dotted: str) -> str | None:
        """Return the new dotted path, or None if the path is unknown."""
        symbol = self.resolve(dotted)
        if symbol is None:
            return None
        if not symbol.name:
            return self.new_module(symbol)
        module, _, name = dotted.removesuffix("".join(f".{part}" for part in symbol.rest)).rpartition(".")
        while module not in self.modules and module:
            module = module.rpartition(".")[0]
        place = self.public_place(module, name) or symbol
        rest = [self.renames.get(Symbol(symbol.module, f"{symbol.name}.{part}"), part) for part in symbol.rest[:1]]
        return ".".join([place.module, place.name, *rest, *symbol.rest[1:]])


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a tab-separated table; empty cells at the end of a line may be omitted."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", restval=""))
    return [{key: value.strip() for key, value in row.items()} for row in rows if not row["old"].startswith("#")]
