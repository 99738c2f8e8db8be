"""Published policies admitted as a folder is: their files are laid out, read, compiled and tried like any folder."""

import re
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fulcrum_mcp.core.policy import PolicyModule, PolicySource
from fulcrum_mcp.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from fulcrum_adapters.rego.testing import Suite

__all__ = ["FolderAdmission"]

_PART: Final = r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}"
_PATH: Final = re.compile(rf"(?:{_PART}/){{0,8}}{_PART}\.(?:rego|json|yaml|yml)\Z")
_MOST: Final = 500
_PATIENCE: Final = 10.0


class FolderAdmission:
    """`control.policies.Admission`. `data`: the documents that this process's configuration adds to all policies."""

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        self._data = dict(data or {})
        self._one = threading.Lock()

    def files(self, name: str, files: Mapping[str, str]) -> PolicySource:
        """See `Admission`."""
        from fulcrum_adapters.rego.folder import read_folder  # noqa: PLC0415 - loads the engine
        from fulcrum_adapters.rego.library import library  # noqa: PLC0415 - same
        from fulcrum_adapters.rego.testing import read_suite  # noqa: PLC0415 - same

        if not files or len(files) > _MOST:
            raise Invalid(f"policies: give 1 to {_MOST} files, the *.rego among them")
        for path in files:
            if _PATH.match(path) is None:
                raise Invalid(
                    f"policies: {path:.200} is no path of a policy folder; write names of letters, digits, _, . and -, "
                    "with / between folders, ending in .rego, .json, .yaml or .yml"
                )
        with tempfile.TemporaryDirectory(prefix="fulcrum-policies-") as folder:
            root = Path(folder).resolve()
            try:
                _lay_out(root, files)
                source, suite = read_folder(root), read_suite(root)
            except Invalid as fault:
                raise Invalid(str(fault).replace(f"{root}/", "").replace(str(root), "policies")) from None
        provided = {module.digest for module in library()}
        own = [_beneath(root, module) for module in source.modules if module.digest not in provided]
        kept = PolicySource(tuple(own), source.data, name)
        tests = tuple(_beneath(root, module) for module in suite.modules)
        cases = tuple(replace(case, path=case.path.removeprefix(f"{root}/")) for case in suite.cases)
        self._try(kept, replace(suite, modules=tests, cases=cases))
        return kept

    def again(self, source: PolicySource) -> None:
        """See `Admission`."""
        self._try(source, None)

    def _try(self, source: PolicySource, suite: "Suite | None") -> None:
        """One set at a time: each takes a process of its own and up to a gigabyte."""
        if not self._one.acquire(timeout=_PATIENCE):
            raise Unavailable("policies: another set is being tried; try again when it is done")
        try:
            self._tried(source, suite)
        finally:
            self._one.release()

    def _tried(self, source: PolicySource, suite: "Suite | None") -> None:
        from fulcrum_adapters.rego.admission import admit  # noqa: PLC0415 - loads the engine
        from fulcrum_adapters.rego.engine import RegoEngine  # noqa: PLC0415 - same
        from fulcrum_mcp.composition.snapshots import with_library  # noqa: PLC0415 - same

        whole = with_library(PolicySource(source.modules, {**source.data, **self._data}, source.name))
        admit(whole, suite)
        if not RegoEngine(whole).info.names:
            raise Invalid(
                "policies: no policy in it, so every call would be denied; add a .rego file with "
                "`package fulcrum.policies.NAME`"
            )


def _lay_out(root: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        place = root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())
        except UnicodeEncodeError:
            raise Invalid(f"{path}: not text that can be written in UTF-8") from None
        except OSError as exc:  # one path is a folder of another, or the disk is full
            raise Invalid(f"{path}: cannot be laid out ({exc.strerror}); give it another name") from None


def _beneath(root: Path, module: PolicyModule) -> PolicyModule:
    return PolicyModule(module.path.removeprefix(f"{root}/"), module.source)
