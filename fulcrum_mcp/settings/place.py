"""Where in a file a setting stands, so that every complaint can name the line.

Parsers of the standard library judge the text first; the scanners here only find lines in text known to be well
formed, and never decide what a value is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as File

from fulcrum_mcp.errors import Invalid

__all__ = ["Path", "Places", "json_places", "plain_json", "toml_places"]

Path = tuple[str | int, ...]

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|[{}\[\],:]|[^\s{}\[\],:"/]+|\s+|.', re.DOTALL)
_KEY = re.compile(r"""[ \t]*(?:"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*(\.?)""")
_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)


class Places:
    """Lines by path; a path without a line of its own is where its nearest known parent is."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._labels: dict[Path, str] = {}
        self._folders: dict[Path, File] = {}

    def line(self, path: Path, number: int) -> None:
        """Remember the first line at which a path appears."""
        self._labels.setdefault(path, f"{self.source}:{number}")

    def label(self, path: Path, label: str) -> None:
        """Say that a setting comes from somewhere else: an environment variable, an option."""
        self._labels[path] = label
        self._folders.pop(path, None)

    def labels(self) -> Mapping[Path, str]:
        """All that is known."""
        return self._labels

    def adopt(self, other: "Places", shifts: Mapping[str, int], folder: File) -> None:
        """Take over another file's lines; `shifts`: how many items each of its lists comes after."""
        self.source = f"{self.source}, {other.source}" if self._folders else other.source
        for path, label in other.labels().items():
            new = path
            if len(path) > 1 and isinstance(path[1], int):
                new = (path[0], path[1] + shifts.get(str(path[0]), 0), *path[2:])
            self._labels.setdefault(new, label)
            self._folders.setdefault(new, folder)

    def folder(self, path: Sequence[str | int]) -> File | None:
        """The folder of the file that a setting stands in; None when it stands in none."""
        for length in range(len(path), 0, -1):
            found = self._folders.get(tuple(path[:length]))
            if found is not None or tuple(path[:length]) in self._labels:
                return found
        return None

    def at(self, path: Sequence[str | int]) -> str:
        """`file:line`, an environment variable or an option."""
        for length in range(len(path), 0, -1):
            label = self._labels.get(tuple(path[:length]))
            if label is not None:
                return label
        return self.source


def _lines(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    number = 1
    for token in _JSON_TOKEN.finditer(text):
        yield number, token
        number += token[0].count("\n")


def plain_json(text: str) -> str:
    """JSON with comments and trailing commas (as editors write it) as plain JSON, line for line."""
    parts: list[str] = []
    comma = -1
    for _, token in _lines(text):
        part = token[0]
        if part.startswith(("//", "/*")):
            part = re.sub(r"[^\n]", " ", part)
        elif part == ",":
            comma = len(parts)
        elif part in "}]" and comma >= 0:
            parts[comma] = " "
            comma = -1
        elif not part.isspace():
            comma = -1
        parts.append(part)
    return "".join(parts)


class _Json:
    """One pass over the tokens of a JSON text."""

    def __init__(self, source: str) -> None:
        self.places = Places(source)
        self.path: list[str | int] = []
        self.objects: list[dict[str, int] | None] = []
        self.at_key = False

    def take(self, part: str, number: int) -> None:
        if part in "{[":
            self._item(number)
            self.objects.append({} if part == "{" else None)
            self.path.append("" if part == "{" else 0)
            self.at_key = part == "{"
        elif part in "}]":
            self.objects.pop()
            self.path.pop()
            self.at_key = False
        elif part == ",":
            self.at_key = self.objects[-1] is not None
            last = self.path[-1]
            if isinstance(last, int):
                self.path[-1] = last + 1
        elif self.at_key:
            self._key(part[1:-1], number)
        elif part != ":":
            self._item(number)

    def _item(self, number: int) -> None:
        if self.path and isinstance(self.path[-1], int):
            self.places.line(tuple(self.path), number)

    def _key(self, key: str, number: int) -> None:
        seen = self.objects[-1]
        if seen is None:
            return
        if key in seen:
            place = f"{self.places.source}:{number}"
            raise Invalid(f'{place}: key "{key}" appears twice (first in line {seen[key]}); remove one')
        seen[key] = number
        self.path[-1] = key
        self.at_key = False
        self.places.line(tuple(self.path), number)


def json_places(text: str, source: str) -> Places:
    """Lines of every key and item of a JSON text that `json.loads` accepts.

    Raises `Invalid` for a key that appears twice in one object: readers of JSON disagree on which one holds.
    """
    scan = _Json(source)
    for number, token in _lines(text):
        if not token[0].isspace():
            scan.take(token[0], number)
    return scan.places


class _Toml:
    """One pass over a TOML text; each statement is a header or `key = value`."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.at = 0
        self.places = Places(source)
        self.counts: dict[Path, int] = {}

    def scan(self) -> Places:
        prefix: Path = ()
        while True:
            self.at = self._skip()
            if self.at >= len(self.text):
                return self.places
            number = self.text.count("\n", 0, self.at) + 1
            if self.text.startswith("[[", self.at):
                self.at += 2
                prefix = self._resolve(self._keys())
                index = self.counts.get(prefix, -1) + 1
                self.counts[prefix] = index
                prefix = (*prefix, index)
                self.places.line(prefix, number)
                self._end_of_line()
            elif self.text.startswith("[", self.at):
                self.at += 1
                prefix = self._resolve(self._keys())
                self.places.line(prefix, number)
                self._end_of_line()
            else:
                keys = self._keys()
                for length in range(1, len(keys) + 1):
                    self.places.line((*prefix, *keys[:length]), number)
                self._value()

    def _skip(self) -> int:
        found = _SKIP.match(self.text, self.at)
        return found.end() if found else self.at

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            found = _KEY.match(self.text, self.at)
            if found is None:
                self.at += 1
                return keys
            self.at = found.end()
            keys.append(next(group for group in found.groups()[:3] if group is not None))
            if not found[4]:
                return keys

    def _resolve(self, keys: Sequence[str]) -> Path:
        path: Path = ()
        for position, key in enumerate(keys):
            path = (*path, key)
            if path in self.counts and position < len(keys) - 1:
                path = (*path, self.counts[path])
        return path

    def _end_of_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _value(self) -> None:
        depth = 0
        text = self.text
        while self.at < len(text):
            character = text[self.at]
            if character in "\"'":
                found = _STRING.match(text, self.at)
                self.at = found.end() if found else self.at + 1
                continue
            if character == "#":
                self._end_of_line()
                continue
            if character == "\n" and depth == 0:
                return
            depth += (character in "[{") - (character in "]}")
            self.at += 1


def toml_places(text: str, source: str) -> Places:
    """Lines of every key and table of a TOML text that `tomllib` accepts."""
    return _Toml(text, source).scan()
