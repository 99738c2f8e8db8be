"""Hot reload: a broken change is refused and said, the old policies stay; what is swapped is swapped whole."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fulcrum_adapters.memory.config import MemoryConfig
from fulcrum_mcp.composition.snapshots import Snapshots
from fulcrum_mcp.core.budget import Budget, Scope
from fulcrum_mcp.core.decision import combine
from fulcrum_mcp.errors import Invalid, Unavailable
from fulcrum_mcp.gateway.snapshot import SnapshotHolder
from fulcrum_mcp.ports import StoredConfig
from fulcrum_mcp.settings import Settings

BUDGET = Budget("b1", "acme", "calls", Scope("tenant"), {"calls": 1})


def allowing(word: str) -> str:
    return f'package fulcrum.policies.{word}\n\nimport rego.v1\n\nallow if input.word == "{word}"\n'


class Stored(MemoryConfig):
    """A configuration with the budgets that a function says, asked anew each time."""

    def __init__(self, budgets: Callable[[], Sequence[Budget]] = tuple) -> None:
        super().__init__()
        self.now = budgets

    def revision(self) -> int:
        return super().revision() + len(self.now())

    def read(self) -> StoredConfig:
        return replace(super().read(), revision=self.revision(), budgets=tuple(self.now()))


class Folder:
    """A policy folder, its snapshots and what was said about them."""

    def __init__(self, root: Path, stored: Callable[[], Sequence[Budget]] = lambda: ()) -> None:
        self.root = root / "policies"
        self.root.mkdir()
        self.write(allowing("one"))
        settings = Settings(data=root / "data", policies=self.root)
        self.snapshots = Snapshots(settings, Stored(stored))
        self.said: list[str] = []
        self.snapshots.on_change = self.said.append
        self.holder: SnapshotHolder = self.snapshots.first()

    def write(self, text: str | bytes, name: str = "p.rego") -> None:
        path = self.root / name
        staged = path.with_suffix(".new")
        staged.write_bytes(text if isinstance(text, bytes) else text.encode())
        staged.rename(path)

    def refresh(self) -> bool:
        return asyncio.run(self._refresh())

    async def _refresh(self) -> bool:
        folder = await self.snapshots.refresh_folder(self.holder)
        return await self.snapshots.refresh_store(self.holder) or folder

    @property
    def allowed(self) -> list[str]:
        engine = self.holder.current.engine
        words = ("one", "two", "three")
        documents = [json.dumps({"phase": "call", "word": word}).encode() for word in words]
        verdicts = [asyncio.run(engine.evaluate("call", document)) for document in documents]
        return [word for word, each in zip(words, verdicts, strict=True) if combine(each, "call").effect == "allow"]


def test_saved_change_is_live_and_nothing_moves_without_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    before = folder.holder.current
    assert not folder.refresh()
    assert folder.holder.current is before
    folder.write(allowing("two"))
    assert folder.refresh()
    assert folder.allowed == ["two"]
    assert folder.holder.current.revision != before.revision
    assert folder.said == ["policies live: two"]


BROKEN = {
    "syntax": b"package fulcrum.policies.one\n\nallow if {",
    "not text": b"package fulcrum.policies.one\n\n# \xff\xfe\n",
    "nothing": b"",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_change_is_refused_said_once_and_the_old_one_stays(tmp_path: Path, broken: bytes) -> None:
    folder = Folder(tmp_path)
    before = folder.holder.current
    folder.write(broken)
    for _ in range(3):
        assert not folder.refresh()
    assert folder.holder.current is before
    assert folder.allowed == ["one"]
    assert folder.snapshots.refused
    assert len(folder.said) == 1
    assert folder.said[0].startswith("policies refused, the old ones stay:\n")
    folder.write(allowing("two"))
    assert folder.refresh()
    assert folder.snapshots.refused is None
    assert folder.allowed == ["two"]


def test_change_back_to_what_is_live_is_no_longer_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("package fulcrum.policies.one\n\nallow if {")
    folder.refresh()
    folder.write(allowing("one"))
    folder.refresh()
    assert folder.snapshots.refused is None
    assert folder.allowed == ["one"]


def test_link_out_of_the_folder_is_refused_like_any_broken_change(tmp_path: Path) -> None:
    changing: list[Budget] = []
    folder = Folder(tmp_path, lambda: list(changing))
    outside = tmp_path / "outside.rego"
    outside.write_text(allowing("two"))
    (folder.root / "q.rego").symlink_to(outside)
    for _ in range(3):
        folder.refresh()
    assert folder.snapshots.refused is not None
    assert "leads out of" in folder.snapshots.refused
    assert len(folder.said) == 1
    changing.append(BUDGET)
    assert folder.refresh(), "budgets are followed all the same"
    (folder.root / "q.rego").unlink()
    folder.refresh()
    assert folder.snapshots.refused is None


def test_folder_that_vanishes_is_refused_and_the_old_policies_stay(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.root.rename(tmp_path / "away")
    assert not folder.refresh()
    assert folder.allowed == ["one"]
    assert folder.snapshots.refused
    (tmp_path / "away").rename(folder.root)
    folder.refresh()
    assert folder.snapshots.refused is None


def test_unreadable_file_is_refused_and_the_old_policies_stay(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    os.mkfifo(folder.root / "pipe.rego")
    (folder.root / "loop.rego").symlink_to(folder.root / "loop.rego")
    assert not folder.refresh()
    assert folder.allowed == ["one"]
    assert folder.snapshots.refused


def test_policies_are_live_even_while_budgets_cannot_be_read(tmp_path: Path) -> None:
    fault: list[Exception] = []

    def stored() -> Sequence[Budget]:
        if fault:
            raise fault[0]
        return ()

    folder = Folder(tmp_path, stored)
    fault.append(Unavailable("control plane: locked"))
    folder.write(allowing("two"))
    with pytest.raises(Unavailable):
        folder.refresh()
    fault.clear()
    folder.refresh()
    assert folder.allowed == ["two"]


def test_budgets_of_the_store_join_those_of_the_file(tmp_path: Path) -> None:
    stored: list[Budget] = []
    folder = Folder(tmp_path, lambda: list(stored))
    scopes = {"global": "", "tenant": "acme"}
    assert list(folder.holder.current.matcher(scopes)) == []
    before = folder.holder.current
    stored.append(BUDGET)
    assert folder.refresh()
    assert [match.budget.id for match in folder.holder.current.matcher(scopes)] == ["b1"]
    assert folder.holder.current.engine is before.engine
    assert folder.holder.current.revision != before.revision
    assert folder.said == []


def test_gateway_does_not_start_on_broken_policies(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package fulcrum.policies.p\n\nallow if {")
    with pytest.raises(Invalid, match=r"p\.rego"):
        Snapshots(Settings(data=tmp_path, policies=tmp_path), MemoryConfig()).first()


def test_without_policies_it_observes(tmp_path: Path) -> None:
    snapshots = Snapshots(Settings(data=tmp_path), MemoryConfig())
    assert snapshots.observing
    engine = snapshots.first().current.engine
    verdicts = asyncio.run(engine.evaluate("call", b'{"phase":"call","method":"vendor/x"}'))
    assert combine(verdicts, "call").effect == "allow"
