"""What a case of bad input is, and the damage that cases do to the folder they are tried in."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data.corpus_card import CARD_CHECKSUM, card_checksum

Damage = Callable[[], None]


class Case(NamedTuple):
    """One command line that must be refused.

    name: of the test. command: what follows `isoflop`, as in a shell. words: all of them stand in
    one line on stderr; they name the field or the file. damage: done before, in the working folder.
    num_problems: lines on stderr, one each.
    """

    name: str
    command: str
    words: tuple[str, ...]
    damage: tuple[Damage, ...] = ()
    num_problems: int = 1

    @property
    def args(self) -> list[str]:
        """The command line's arguments."""
        return shlex.split(self.command)


def case(
    name: str,
    command: str,
    *words: str,
    damage: Damage | tuple[Damage, ...] = (),
    num_problems: int = 1,
) -> Case:
    """A case with the words its line must hold."""
    assert words
    done = damage if isinstance(damage, tuple) else (damage,)
    return Case(name, command, words, done, num_problems)


def write(path: str, content: str | bytes) -> Damage:
    """A file of that content, whatever was there."""

    def damage() -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def write_records(path: str, *records: object) -> Damage:
    """A file of JSON lines."""
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def make_folder(path: str) -> Damage:
    """An empty folder."""
    return lambda: Path(path).mkdir()


def remove(pattern: str) -> Damage:
    """No longer the file or folder."""

    def damage() -> None:
        path = _one(pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(pattern: str, num_bytes: int) -> Damage:
    """Only the first bytes of the file."""

    def damage() -> None:
        path = _one(pattern)
        path.write_bytes(path.read_bytes()[:num_bytes])

    return damage


def flip(pattern: str, place: float = 0.5) -> Damage:
    """One bit is another, at a fraction of the file's length."""

    def damage() -> None:
        path = _one(pattern)
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 4
        path.write_bytes(content)

    return damage


def copy(source: str, target: str) -> Damage:
    """Another's file or folder in the place of its own."""

    def damage() -> None:
        path = _one(source)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copyfile(path, _one(target) if "*" in target else target)

    return damage


def _write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Writes a JSON file; a corpus' card gets its checksum, so that what is wrong is the field."""
    if record.pop(CARD_CHECKSUM, None):
        record[CARD_CHECKSUM] = card_checksum(record)
    path.write_text(json.dumps(record))


def edit(path: str, field: str, value: Any) -> Damage:
    """A JSON file with another value at a dotted field, which need not be there."""

    def damage() -> None:
        record = json.loads(Path(path).read_text())
        *owners, name = field.split(".")
        inner = record
        for owner in owners:
            inner = inner[owner]
        inner[name] = value
        _write_sealed(Path(path), record)

    return damage


def drop(path: str, field: str) -> Damage:
    """A JSON file without a dotted field."""

    def damage() -> None:
        record = json.loads(Path(path).read_text())
        *owners, name = field.split(".")
        inner = record
        for owner in owners:
            inner = inner[owner]
        del inner[name]
        _write_sealed(Path(path), record)

    return damage


def replace_text(path: str, old: str, new: str) -> Damage:
    """A text file with one passage replaced, where a value cannot be written as JSON."""

    def damage() -> None:
        text = Path(path).read_text()
        assert text.count(old) == 1, f"{old!r} is in {path} {text.count(old)} times"
        Path(path).write_text(text.replace(old, new))

    return damage


def _one(pattern: str) -> Path:
    """The only file that matches."""
    [path] = Path().glob(pattern)
    return path
