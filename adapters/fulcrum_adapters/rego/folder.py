"""A folder of policies as source, and a cheap mark of its state for watchers.

Taken: every `*.rego` at any depth except `*_test.rego`; `data.json`, `data.yaml` and `data.yml` at any depth, merged at
the root of `data`; and each `data/<name>.json|yaml|yml` as `data.<name>`. Names that begin with a dot are passed over.
"""

import difflib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fulcrum_adapters.rego.documents import merge, read_document, read_text
from fulcrum_adapters.rego.library import MAX_MODULE, library, policies_root, starter_names
from fulcrum_mcp.core.policy import PolicyModule, PolicySource, Problem
from fulcrum_mcp.errors import Invalid

__all__ = ["MAX_DATA", "files", "fingerprint", "passed_over", "read_folder", "read_policies", "starter"]

MAX_DATA = 8 << 20
"""Bytes of one data document."""

_MAX_FILES = 2000
_SUFFIXES = (".rego", ".json", ".yaml", ".yml")
_ALLOWING = "allow_all"
_ALLOWS = re.compile(r"^allow\b", re.MULTILINE)
_DATA_NAMES = frozenset(("data.json", "data.yaml", "data.yml"))


def files(folder: Path) -> Iterator[Path]:
    """Every file of a policy folder that may matter, in a fixed order. Raises `Invalid` for one that leads outside."""
    root = folder.resolve()
    count = 0
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*names, *folders]):
            path = Path(base, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise Invalid(f"{path}: a link that leads out of {folder}; copy the file into the folder")
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                count += 1
                if count > _MAX_FILES:
                    raise Invalid(f"{folder}: more than {_MAX_FILES} files; is this the policy folder?")
                yield Path(base, name)


def read_folder(path: Path) -> PolicySource:
    """The policies of a folder, or of one `.rego` file, with the library. Raises `Invalid`."""
    if path.is_file():
        return _source([path], path, path.stem)
    if not path.is_dir():
        raise Invalid(f"{path}: no such folder or file; name a folder of policies, a .rego file or a starter policy")
    return _source(files(path), path, path.resolve().name)


def passed_over(folder: Path) -> list[Problem]:
    """Warnings of documents in a policy folder that are neither data nor cases, so that nothing reads them."""
    if not folder.is_dir():
        return []
    return [
        Problem(
            str(path),
            0,
            0,
            "nothing reads this file",
            f"as data.{path.stem} it belongs in a folder named data; else name it data{path.suffix}, or take it away",
            "warning",
        )
        for path in files(folder)
        if path.suffix != ".rego" and path.parent.name not in {"data", "cases"} and path.name not in _DATA_NAMES
    ]


def starter(name: str) -> PolicySource:
    """A policy that comes with Fulcrum, such as `observe` or `allow_all`. Raises `Invalid`.

    One that only denies comes together with `allow_all`: alone it would allow nothing.
    """
    if name not in starter_names():
        close = difflib.get_close_matches(name, starter_names(), n=1)
        guess = f"did you mean {close[0]}?" if close else f"there are {', '.join(starter_names())}"
        raise Invalid(f"{name}: neither a folder nor a starter policy; {guess}")
    source = _starter(name)
    if name == _ALLOWING or any(_ALLOWS.search(module.source) for module in source.modules[len(library()) :]):
        return source
    allowing = _starter(_ALLOWING)
    return PolicySource((*source.modules, *allowing.modules[len(library()) :]), source.data, name)


def _starter(name: str) -> PolicySource:
    folder = policies_root() / "starter" / name
    return _source(files(folder), folder, name, shown=f"starter/{name}")


def read_policies(where: str | Path) -> PolicySource:
    """What `--policies` names: a folder or file if there is one, else a starter policy. Raises `Invalid`."""
    return read_folder(Path(where)) if Path(where).exists() else starter(str(where))


def fingerprint(path: Path) -> str:
    """Changes whenever a file that matters may have changed; reads no file. A missing folder has one too."""
    digest = hashlib.sha256()
    waiting = [os.fspath(path)]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.name.endswith(_SUFFIXES):
                        state = entry.stat()
                        digest.update(f"{entry.path}\0{state.st_ino}.{state.st_size}.{state.st_mtime_ns}\n".encode())
        except NotADirectoryError:
            state = os.stat(place)  # noqa: PTH116 - the fast one
            digest.update(f"{place}\0{state.st_ino}.{state.st_size}.{state.st_mtime_ns}\n".encode())
        except OSError as exc:
            digest.update(f"{place}\0{exc.errno}\n".encode())
    return digest.hexdigest()


def _source(paths: Iterator[Path] | list[Path], folder: Path, name: str, shown: str = "") -> PolicySource:
    modules: list[PolicyModule] = []
    data: dict[str, Any] = {}
    known = {module.digest for module in library()}
    for path in paths:
        if path.suffix == ".rego":
            label = f"{shown}/{path.relative_to(folder).as_posix()}" if shown else str(path)
            module = PolicyModule(label, read_text(path, MAX_MODULE))
            if not path.name.endswith("_test.rego") and module.digest not in known:
                modules.append(module)
        elif path.parent.name == "data" and "cases" not in path.parts:
            merge(data, {path.stem: read_document(path, MAX_DATA)}, path)
        elif path.name in _DATA_NAMES:
            document = read_document(path, MAX_DATA)
            if not isinstance(document, dict):
                raise Invalid(f"{path}: not an object; a data document is an object of named values")
            merge(data, document, path)
    return PolicySource((*library(), *modules), data, name)
