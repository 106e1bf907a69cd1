"""Docstring summarization: the source of a function to the first line of its docstring."""

import ast
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from data.sources.text_source import Document

Record = dict[str, Any]

MAX_CHARACTERS = 700
"""Of a function's source without its docstring; longer functions are left out."""
MIN_SUMMARY = 10
PROMPT_END = "\n# In one sentence:"
"""What ends a prompt for a decoder: there it is to go on with the summary."""


def docstring_records(documents: Iterable[Document]) -> Iterator[Record]:
    """Functions and methods with a docstring as {"input": source without it, "target": summary}.

    Before:
        class Reader:
            def close(self):
                '''Close the file.

                Twice is no error.
                '''
                self._file.close()
    After:
        input   "def close(self):\\n    self._file.close()\\n"
        target  "Close the file."
    """
    for document in documents:
        try:
            tree = ast.parse(document.text)
        except (SyntaxError, ValueError):
            continue
        lines = document.text.split("\n")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _record(node, lines)


def docstring_prompts(documents: Iterable[Document]) -> Iterator[Record]:
    """The same records as prompts for a decoder, and answers that begin with a space."""
    for record in docstring_records(documents):
        yield {"input": record["input"] + PROMPT_END, "target": " " + record["target"]}


def _record(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> Iterator[Record]:
    documentation, first = ast.get_docstring(node), node.body[0]
    if not documentation or len(node.body) < 2:
        return
    summary = documentation.split("\n")[0].strip()
    assert first.end_lineno is not None
    kept = lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]
    source = textwrap.dedent("\n".join(kept)) + "\n"
    is_alone = first.lineno > node.lineno and not lines[first.end_lineno - 1].rstrip().endswith(";")
    if is_alone and len(source) <= MAX_CHARACTERS and len(summary) >= MIN_SUMMARY:
        yield {"input": source, "target": summary}
