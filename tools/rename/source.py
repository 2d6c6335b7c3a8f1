"""Rename imports, names and keywords in Python source and its doctests."""

import re
from collections.abc import Mapping

import libcst as cst
from libcst.metadata import MetadataWrapper, QualifiedNameProvider, QualifiedNameSource
from tables import Index, Symbol

DOTTED = re.compile(r"\bjaxconv(?:\.\w+)+")
EXAMPLE = re.compile(r"^( *)>>> .*\n(?: *\.\.\..*\n)*", re.MULTILINE)
MARK = "# %%example "


def dotted(text: str, index: Index) -> str:
    """Rewrite the dotted paths in a comment, a string or a page."""
    return DOTTED.sub(lambda match: index.new_path(match[0]) or match[0], text)


class Rename(cst.CSTTransformer):
    """Rewrite one module. ``module`` is its old dotted name, empty for a script; ``known`` maps names from outside."""

    METADATA_DEPENDENCIES = (QualifiedNameProvider,)

    def __init__(self, index: Index, module: str = "", known: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.index, self.module, self.known = index, module, known or {}
        self.here = ""  # the new module of the statement that is being rewritten
        self.added: set[tuple[str, str]] = set()
        self.aliases: set[str] = set()  # local names that an import gives with "as"
        self.functions: list[str] = []
        self.annotating = False  # within an annotation
        self.exporting = False  # within the assignment of __all__

    # Qualified names

    def qualified(self, node: cst.CSTNode) -> str | None:
        """Return the dotted path of an expression, or None if it is local, a builtin or of another library."""
        names = list(self.get_metadata(QualifiedNameProvider, node, ()))
        if names:
            name = names[0]
            if name.source is QualifiedNameSource.IMPORT:
                return name.name
            if name.source is QualifiedNameSource.LOCAL and self.module and "<locals>" not in name.name:
                return f"{self.module}.{name.name}"
            return None
        text = _chain(node)
        if text and text.split(".")[0] in self.known:
            first, *rest = text.split(".")
            return ".".join([self.known[first], *rest])
        return None

    def visit_Module(self, node: cst.Module) -> None:
        self.here = self.index.new_module(Symbol(self.module)) if self.module else ""

    def on_visit(self, node: cst.CSTNode) -> bool:
        if self.module and isinstance(node, cst.FunctionDef | cst.ClassDef) and not self.functions:
            self.here = self.index.new_module(Symbol(self.module, node.name.value))
        return super().on_visit(node)

    # Imports

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        if not isinstance(node.names, cst.ImportStar):
            self.aliases |= {_chain(alias.asname.name) or "" for alias in node.names if alias.asname}
        return False

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        statement = original_node.body[0]
        if not isinstance(statement, cst.ImportFrom) or isinstance(statement.names, cst.ImportStar):
            return updated_node
        source = _chain(statement.module) if statement.module else None
        if source is None or self.index.resolve(source) is None:
            return updated_node
        wanted: dict[str, list[cst.ImportAlias]] = {}
        for alias in statement.names:
            place = self.index.public_place(source, str(alias.name.value))
            if place is None:
                wanted.setdefault(self.index.new_module(Symbol(source)), []).append(alias)
                continue
            target, name = (place.module, place.name) if place.name else place.module.rpartition(".")[::2]
            wanted.setdefault(target, []).append(alias.with_changes(name=cst.Name(name)))
        lines = []
        for target, aliases in wanted.items():
            tail = aliases[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            names = [alias.with_changes(comma=cst.MaybeSentinel.DEFAULT) for alias in aliases[:-1]] + [tail]
            line = statement.with_changes(module=_parse(target), names=names)
            if len(aliases) < len(statement.names):  # only some of the names: drop the parentheses
                line = line.with_changes(lpar=None, rpar=None)
            lines.append(
                updated_node.with_changes(body=[line], leading_lines=[] if lines else updated_node.leading_lines)
            )
        return cst.FlattenSentinel(lines) if len(lines) > 1 else lines[0]

    # Names

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        if original_node.value in self.aliases:
            return updated_node
        if parameter := self._parameter(original_node):
            return updated_node.with_changes(value=parameter)
        path = self.qualified(original_node)
        symbol = self.index.resolve(path) if path else None
        if symbol is None or path is None:
            return updated_node
        if not symbol.name:  # a module, whose last name may have changed
            new = self.index.new_module(symbol).rpartition(".")[2]
            return (
                updated_node.with_changes(value=new) if original_node.value == path.rpartition(".")[2] else updated_node
            )
        if symbol.rest or path.rpartition(".")[2] != original_node.value:
            member = Symbol(symbol.module, ".".join([symbol.name, *symbol.rest]))
            return updated_node.with_changes(value=self.index.renames.get(member, original_node.value))
        return updated_node.with_changes(value=self.index.new_name(symbol))

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        text, path = _chain(original_node), self.qualified(original_node)
        symbol = self.index.resolve(path) if path else None
        if text is None or path is None or symbol is None or symbol.rest:
            return updated_node
        base = text.split(".")[0]
        depth = text.count(".")
        start = ".".join(path.split(".")[: len(path.split(".")) - depth])  # what the first name stands for
        owner = self.index.resolve(start)
        if owner is None or owner.name:  # an attribute of an object
            return updated_node
        place = self.index.public_place(path.rpartition(".")[0], original_node.attr.value)
        if place is None:
            return updated_node
        root = self.index.new_module(owner)
        if place.module == self.here and place.name:
            return cst.parse_expression(place.name)
        full = ".".join(filter(None, [place.module, place.name]))
        if (full + ".").startswith(root + "."):
            new = base if base in self.aliases else root.rpartition(".")[2]
            return cst.parse_expression(new + full[len(root) :])
        parent, _, last = place.module.rpartition(".")
        self.added.add((parent, last))
        return cst.parse_expression(".".join(filter(None, [last, place.name])))

    # Keywords, and the parameters that they name

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        function = original_node.func
        if original_node.args and self.qualified(function) == "functools.partial":
            function = original_node.args[0].value
        renames = self._keywords(function)
        if not renames:
            return updated_node
        args = [
            arg.with_changes(keyword=cst.Name(renames.get(arg.keyword.value, arg.keyword.value)))
            if arg.keyword
            else arg
            for arg in updated_node.args
        ]
        return updated_node.with_changes(args=args)

    def _parameter(self, node: cst.Name) -> str | None:
        """Return the new name of a parameter of the enclosing function, or None."""
        for name in self.get_metadata(QualifiedNameProvider, node, ()):
            function, _, parameter = name.name.partition(".<locals>.")
            if name.source is QualifiedNameSource.LOCAL and parameter == node.value and self.module:
                return self.index.keywords.get(Symbol(self.module, function), {}).get(parameter)
        return None

    def _keywords(self, function: cst.CSTNode) -> dict[str, str]:
        path = self.qualified(function)
        symbol = self.index.resolve(path) if path else None
        return self.index.keywords.get(symbol, {}) if symbol else {}

    # Text

    def visit_Annotation(self, node: cst.Annotation) -> None:
        self.annotating = True

    def leave_Annotation(self, original_node: cst.Annotation, updated_node: cst.Annotation) -> cst.Annotation:
        self.annotating = False
        return updated_node

    def visit_Assign(self, node: cst.Assign) -> None:
        self.exporting = any(_chain(target.target) == "__all__" for target in node.targets)

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        self.exporting = False
        return updated_node

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.functions.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self.functions.pop()
        return updated_node

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.functions.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        self.functions.pop()
        return updated_node

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        value = original_node.value
        if self.exporting and self.module:
            symbol = self.index.resolve(f"{self.module}.{value[1:-1]}")
            if symbol is None:
                return updated_node
            name = self.index.new_name(symbol) if symbol.name else self.index.new_module(symbol).rpartition(".")[2]
            return updated_node.with_changes(value=f'"{name}"')
        if self.annotating and self.module:  # a class that is defined below
            return updated_node.with_changes(value=re.sub(r"\b[A-Z]\w+", self._forward, value))
        if self.module and value.startswith('"""') and self.functions:
            for old, new in self.index.keywords.get(Symbol(self.module, ".".join(self.functions)), {}).items():
                value = re.sub(rf"(?m)^( +(?:\w+, )*){old}(?=[:,])", rf"\1{new}", value)
                value = re.sub(rf"\b{old}(?==)|(?<=``){old}(?=``)", new, value)
        if ">>>" in value:
            value = rename_doctest(value, self.index, self._known_here())
        return updated_node.with_changes(value=dotted(value, self.index))

    def _forward(self, match: re.Match[str]) -> str:
        symbol = self.index.resolve(f"{self.module}.{match[0]}")
        return self.index.new_name(symbol) if symbol and symbol.name else match[0]

    def leave_Comment(self, original_node: cst.Comment, updated_node: cst.Comment) -> cst.Comment:
        return updated_node.with_changes(value=dotted(original_node.value, self.index))

    def _known_here(self) -> dict[str, str]:
        module = self.index.modules.get(self.module)
        if module is None:
            return dict(self.known)
        return {**module.imported, **{name: f"{self.module}.{name}" for name in module.defined}}


def rename_source(source: str, index: Index, module: str = "", known: Mapping[str, str] | None = None) -> str:
    """Rewrite a module's source."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    transformer = Rename(index, module, known)
    tree = wrapper.visit(transformer)
    if not transformer.added:
        return tree.code
    lines = [cst.parse_statement(f"from {parent} import {last}") for parent, last in sorted(transformer.added)]
    body = list(tree.body)
    first = next((k for k, line in enumerate(body) if _imports(line)), 0)
    if isinstance(body[first], cst.SimpleStatementLine) and first:
        lines[0] = lines[0].with_changes(leading_lines=body[first].leading_lines)
    return tree.with_changes(body=[*body[:first], *lines, *body[first:]]).code


def rename_examples(sources: list[str], index: Index, known: Mapping[str, str] | None = None) -> list[str]:
    """Rewrite consecutive pieces of source: examples of a docstring, blocks of a page, cells of a notebook."""
    joined = "".join(f"{MARK}{k}\n{source.rstrip()}\n" for k, source in enumerate(sources))
    code = rename_source(joined, index, known=known)
    pieces = re.split(rf"^{MARK}(\d+)\n", code, flags=re.MULTILINE)
    new = dict(zip(map(int, pieces[1::2]), pieces[2::2], strict=True))
    if added := pieces[0].strip():  # imports that the renaming needs
        new[0] = f"{added}\n{new[0]}"
    return [new[k].rstrip("\n") + "\n" for k in range(len(sources))]


def rename_doctest(text: str, index: Index, known: Mapping[str, str]) -> str:
    """Rewrite the examples of a docstring; their output and the text between them stay unchanged."""
    examples = list(EXAMPLE.finditer(text))
    sources = [re.sub(r"^ *(>>>|\.\.\.) ?", "", match[0], flags=re.MULTILINE) for match in examples]
    try:
        new = rename_examples(sources, index, known)
    except cst.ParserSyntaxError:
        return text
    for match, old, source in reversed(list(zip(examples, sources, new, strict=True))):
        if old.rstrip("\n") != source.rstrip("\n"):
            lines = source.rstrip("\n").split("\n")
            shown = [
                f"{match[1]}{'>>>' if _starts(lines, k) else '...'} {line}".rstrip() for k, line in enumerate(lines)
            ]
            text = text[: match.start()] + "\n".join(shown) + "\n" + text[match.end() :]
    return text


def _starts(lines: list[str], k: int) -> bool:
    return k == 0 or (lines[k].startswith(("from ", "import ")) and not lines[k - 1].startswith("("))


def _imports(line: cst.CSTNode) -> bool:
    return isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], cst.Import | cst.ImportFrom)


def _chain(node: cst.CSTNode | None) -> str | None:
    """Return the dotted text of names and attributes, or None for any other expression."""
    match node:
        case cst.Name(value=value):
            return value
        case cst.Attribute(value=value, attr=attr) if (text := _chain(value)) is not None:
            return f"{text}.{attr.value}"
    return None


def _parse(path: str) -> cst.Name | cst.Attribute:
    expression = cst.parse_expression(path)
    assert isinstance(expression, cst.Name | cst.Attribute)
    return expression
