"""Module classification: which part of the standard library a few lines of source are from.

The classes are subjects, each a list of modules and packages. Classes of one package each would be
simpler, but most packages have a single held-out file, and one file says little about a package.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from data.sources.text_source import Document

Record = dict[str, Any]

SUBJECTS = {
    "windows": ("idlelib", "tkinter", "turtle", "turtledemo"),
    "network": (
        *("asyncio", "cgi", "email", "ftplib", "http", "imaplib", "ipaddress", "mailbox", "netrc"),
        *("nntplib", "poplib", "smtpd", "smtplib", "socket", "socketserver", "ssl", "telnetlib"),
        *("urllib", "wsgiref", "xmlrpc"),
    ),
    "code": (
        *("ast", "bdb", "cgitb", "code", "codeop", "dis", "distutils", "doctest", "ensurepip"),
        *("importlib", "inspect", "lib2to3", "pdb", "pickletools", "pydoc", "re", "symtable"),
        *("tokenize", "trace", "traceback", "unittest", "venv", "zipimport"),
    ),
    "system": (
        *("concurrent", "crypt", "curses", "dbm", "glob", "multiprocessing", "ntpath", "os"),
        *("pathlib", "platform", "posixpath", "selectors", "shutil", "signal", "subprocess"),
        *("sysconfig", "tarfile", "tempfile", "threading", "uuid", "zipfile"),
    ),
}
MAX_CHARACTERS = 160
MIN_CHARACTERS = 60
"""Of a snippet; the most fit rows of 64 tokens."""
MAX_PER_CLASS = 1500
"""So that no class is most of the snippets."""

_SUBJECT_OF = {name: subject for subject, names in SUBJECTS.items() for name in names}


def module_class_records(documents: Iterable[Document]) -> Iterator[Record]:
    """Snippets of whole lines as {"text", "label"}, as evenly spread over a class as may be."""
    snippets: dict[str, list[str]] = {subject: [] for subject in SUBJECTS}
    for document in documents:
        module = document.id.split("/")[0].removesuffix(".py")
        if module in _SUBJECT_OF:
            snippets[_SUBJECT_OF[module]] += _snippets(document.text)
    for subject, texts in snippets.items():
        step = max(1.0, len(texts) / MAX_PER_CLASS)
        for number in range(min(len(texts), MAX_PER_CLASS)):
            yield {"text": texts[int(number * step)], "label": subject}


def _snippets(text: str) -> Iterator[str]:
    """Runs of whole lines of MIN_CHARACTERS to MAX_CHARACTERS."""
    snippet = ""
    for line in text.splitlines(keepends=True):
        if len(snippet) + len(line) > MAX_CHARACTERS:
            if len(snippet) >= MIN_CHARACTERS:
                yield snippet
            snippet = ""
        if len(line) <= MAX_CHARACTERS:
            snippet += line
    if len(snippet) >= MIN_CHARACTERS:
        yield snippet
