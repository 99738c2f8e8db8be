"""Which key signs a trail is asked for until it is known, and then it is known for good."""

import pytest

from fulcrum_adapters.memory.archive import MemoryArchive
from fulcrum_mcp.errors import Invalid, Unavailable
from fulcrum_mcp.processor.trail_key import TrailKey


class Signed(MemoryArchive):
    def __init__(self) -> None:
        super().__init__()
        self.by: str | None = None
        self.asked = 0
        self.down = False

    def signer(self) -> str | None:
        self.asked += 1
        if self.down:
            raise Unavailable("down")
        return self.by


class Ticks:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_it_asks_now_and_then_until_something_is_signed_and_never_again() -> None:
    chains, ticks = Signed(), Ticks()
    key = TrailKey(chains, "own", 30.0, ticks)
    for _ in range(3):
        key.check()
    assert chains.asked == 1
    key.check(now=True)
    assert chains.asked == 2
    chains.by = "own"
    key.check()
    ticks.now += 30
    for _ in range(3):
        key.check()
        key.check(now=True)
    assert chains.asked == 3


def test_another_key_is_refused_each_time_with_both_and_the_remedy() -> None:
    chains = Signed()
    chains.by = "theirs"
    key = TrailKey(chains, "own", 30.0)
    for _ in range(2):
        with pytest.raises(Invalid, match="signed with the key theirs, and this process has own; set FULCRUM_AUDIT_S"):
            key.check()
    assert chains.asked == 1


def test_a_store_that_does_not_answer_is_asked_again_at_once() -> None:
    chains = Signed()
    chains.down = True
    key = TrailKey(chains, "own", 30.0)
    for _ in range(2):
        with pytest.raises(Unavailable):
            key.check()
    chains.down, chains.by = False, "theirs"
    with pytest.raises(Invalid):
        key.check()
