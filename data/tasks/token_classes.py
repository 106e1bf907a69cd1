"""Named entities of Python source: what each name in a snippet is, as its syntax tree says.

An analogue of named entity recognition that needs no download. A snippet is a few lines out of the
middle of a file, so what a name is has to be seen from how it is used, and often from knowing
Python: whether `path` in `path.join(a)` is a module was said some hundred lines before.

MODULE: the name of an imported module, where it is imported and where it is used.
CLASS: a class of the file, or of the builtins.
FUNCTION: a function of the file's top level, of a class body, or of the builtins.
PARAMETER: a parameter of an enclosing function, `self` excepted.
VARIABLE: any other name that an enclosing function assigns.
"""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from data.sources.text_source import Document

Record = dict[str, Any]

MAX_CHARACTERS = 160
"""Of a snippet, so that it fits rows of 64 tokens."""

_ARGUMENTS = ("posonlyargs", "args", "vararg", "kwonlyargs", "kwarg")
_BUILTINS = {
    name: "CLASS" if isinstance(value, type) else "FUNCTION"
    for name, value in vars(builtins).items()
    if callable(value) and not name.startswith("_")
}


class Entity(NamedTuple):
    """A name in a text, in characters from its start on; the stop excluded."""

    start: int
    end: int
    label: str


def token_class_records(documents: Iterable[Document]) -> Iterator[Record]:
    """Snippets of files with the names in them, as {"text", "spans"}; those without any left out.

    Files that this Python cannot parse are passed over.
    """
    for document in documents:
        text = document.text
        try:
            names = entities(text)
        except (SyntaxError, ValueError):
            continue
        for start, end in _snippets(text):
            spans = [
                {"start": e.start - start, "end": e.end - start, "label": e.label}
                for e in names
                if start <= e.start and e.end <= end
            ]
            if spans:
                yield {"text": text[start:end], "spans": spans}


def entities(source: str) -> list[Entity]:
    """Every name of a source that is of one of the classes, in order, none within another.

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found))


def _snippets(text: str) -> Iterator[tuple[int, int]]:
    """Runs of whole lines of at most MAX_CHARACTERS, as (start, stop); longer lines left out."""
    start = end = 0
    for line in text.splitlines(keepends=True):
        if end + len(line) - start > MAX_CHARACTERS:
            if end > start:
                yield start, end
            start = end
        end += len(line)
        if len(line) > MAX_CHARACTERS:
            start = end
    if end > start:
        yield start, end


class _Finder(ast.NodeVisitor):
    """Walks a tree with the scopes around each node: name -> label, the innermost last.

    A function within a class does not see the names of the class's body, as in Python.
    """

    def __init__(self, source: str):
        self.source, self.found = source, []
        # As the parser counts: only these end a line, and columns are bytes of UTF-8.
        self.lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", source)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.scopes: list[dict[str, str]] = [_BUILTINS]
        self.is_class: list[bool] = [False]

    def visit_Module(self, node: ast.Module) -> None:
        self._in_scope(_bound(node.body), node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._after(node, r"class\s+", node.name, "CLASS")
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        self._in_scope(_bound(node.body), node.body, is_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._after(node, r"(?:async\s+)?def\s+", node.name, "FUNCTION")
        for part in (*node.decorator_list, *filter(None, [node.returns])):
            self.visit(part)
        self._visit_function(node, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_function(node, [node.body])

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._at(alias, alias.name, "MODULE")
            if alias.asname:
                begin = self._offset(alias.end_lineno, alias.end_col_offset) - len(alias.asname)
                self._add(begin, alias.asname, "MODULE")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module:
            self._after(node, r"from\s+[.\s]*", node.module, "MODULE")

    def visit_Name(self, node: ast.Name) -> None:
        for depth, scope in enumerate(reversed(self.scopes)):
            if node.id in scope and (depth == 0 or not self.is_class[-1 - depth]):
                if scope[node.id]:
                    self._at(node, node.id, scope[node.id])
                return

    def _visit_function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, body: list[Any]
    ) -> None:
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        scope = {name: label or "VARIABLE" for name, label in _bound(body).items()}
        for argument in _arguments(node.args):
            scope[argument.arg] = "" if argument.arg == "self" else "PARAMETER"
            if scope[argument.arg]:
                self._at(argument, argument.arg, "PARAMETER")
            if argument.annotation:
                self.visit(argument.annotation)
        self._in_scope(scope, body)

    def _in_scope(self, scope: dict[str, str], nodes: list[Any], *, is_class: bool = False) -> None:
        self.scopes.append(scope)
        self.is_class.append(is_class)
        for node in nodes:
            self.visit(node)
        self.scopes.pop()
        self.is_class.pop()

    def _after(self, node: ast.stmt, opening: str, name: str, label: str) -> None:
        """Adds `name` where it follows `opening` at the node's place."""
        begin = self._offset(node.lineno, node.col_offset)
        if match := re.compile(opening).match(self.source, begin):
            self._add(match.end(), name, label)

    def _at(self, node: Any, name: str, label: str) -> None:
        self._add(self._offset(node.lineno, node.col_offset), name, label)

    def _add(self, begin: int, name: str, label: str) -> None:
        # Names within f-strings have places of their own making in some versions of Python.
        if self.source.startswith(name, begin):
            self.found.append(Entity(begin, begin + len(name), label))

    def _offset(self, line: Any, column: Any) -> int:
        before = self.lines[line - 1].encode()[:column].decode(errors="ignore")
        return self.starts[line - 1] + len(before)


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    for name in _ARGUMENTS:
        value = getattr(arguments, name)
        yield from [value] if isinstance(value, ast.arg) else value or []


def _bound(body: list[Any]) -> dict[str, str]:
    """Names that a scope's body binds, and what each is; "" where it is none of the classes.

    Bodies of functions and classes within are scopes of their own.
    """
    bound: dict[str, str] = {}
    waiting = list(reversed(body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef):
            bound[node.name] = "CLASS"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            bound[node.name] = "FUNCTION"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                bound[alias.asname or alias.name.split(".")[0]] = "MODULE"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound.setdefault(alias.asname or alias.name, "")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.setdefault(node.id, "")
        elif not isinstance(node, ast.Lambda):
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))
    return bound
