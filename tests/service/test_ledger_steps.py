"""Whatever is done to Valkey, at whichever message: nothing goes on without its reservation, and the books come right.

One course goes through every conversation that a gateway has with it. Without harm it tells M messages; a cell of the
grid is one of them, a place (before the server has it; after it was done and before the answer is heard) and a harm.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from servers.valkey import ValkeyServer
from steps.cell import Cell, Outcome, run
from steps.gateway import Gateway
from steps.grid import every, run_all, sample
from steps.harms import HARMS, PLACES, Step
from steps.words import KINDS

from fulcrum_adapters.redis.breaker import PAUSE
from fulcrum_adapters.rego import admission
from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.testing import Suite
from fulcrum_mcp.composition import snapshots
from fulcrum_mcp.core.books import Books
from fulcrum_mcp.core.budget import Operation, Release, Reserve, Reserved, Settled
from fulcrum_mcp.core.policy import PolicySource, source_digest
from fulcrum_mcp.errors import Unavailable

pytestmark = [pytest.mark.service, pytest.mark.parts, pytest.mark.anyio]

LANES = 6
MANY = 16
"""Cells at a time where there are thousands: each waits most of its time."""
PATIENCE = 5
"""Courses after which one was unharmed: where the machine stood still for half a second, the server was asked whether
it is there (`ping`)."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def policies_tried_once() -> Iterator[None]:
    """A trial holds up the loop for half a second, a compilation for a fifth, and they are always the same."""
    admit, compiled = admission.admit, dict[str, RegoEngine]()

    def once(source: PolicySource, suite: Suite | None = None) -> None:
        if source_digest(source) not in compiled:
            admit(source, suite)

    def engine(source: PolicySource, *, max_input: int) -> RegoEngine:
        known = compiled.get(source_digest(source)) or RegoEngine(source, max_input=max_input)
        return compiled.setdefault(source_digest(source), known)

    async def beside(source: PolicySource, max_input: int) -> RegoEngine:
        return engine(source, max_input=max_input)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "admit", once)
        patch.setattr(snapshots, "RegoEngine", engine)
        patch.setattr(snapshots, "compile_beside", beside)
        yield


@pytest.fixture(scope="module")
async def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("unharmed")
    with ValkeyServer(folder / "valkey") as server:
        for number in range(PATIENCE):
            outcome = await run(folder / f"cell{number}", server, Cell())
            if all(step.kind != "ping" for step in outcome.steps):
                return outcome
    raise AssertionError(f"the machine stood still in each of {PATIENCE} courses; it may be too busy for this")


async def test_a_course_without_harm_speaks_of_everything_and_ends_well(unharmed: Outcome) -> None:
    assert unharmed.wrong == []
    assert {step.kind for step in unharmed.steps} == KINDS


def lying(gateway: Gateway) -> None:
    """Takes a lost answer for a good one."""
    ledger: Any = gateway.installation._ledger
    apply = ledger.apply

    def lies(operations: Sequence[Operation]) -> Sequence[object]:
        try:
            return list(apply(operations))
        except Unavailable:
            time.sleep(2 * PAUSE)  # so that what follows is not refused with it
            return [Reserved() if isinstance(operation, Reserve) else Settled(0) for operation in operations]

    ledger.apply = lies


def forgetful(gateway: Gateway) -> None:
    """Never gives back what it may have."""
    ledger: Any = gateway.installation._ledger
    apply = ledger.apply

    def forgets(operations: Sequence[Operation]) -> Sequence[object]:
        kept = [operation for operation in operations if not isinstance(operation, Release)]
        outcomes = iter(apply(kept))
        return [Settled(0) if isinstance(operation, Release) else next(outcomes) for operation in operations]

    ledger.apply = forgets


def uncounting(gateway: Gateway) -> None:
    """Rebuilds books in which nothing was spent."""
    store: Any = gateway.installation._spools
    store.books = lambda _, at: Books(at)


def spotless(gateway: Gateway) -> None:
    """Remembers no taint."""
    history: Any = gateway.server.plane.stores.history
    history.taint = lambda *_: None


def slow(gateway: Gateway) -> None:
    """Waits for an answer for longer than it may."""
    history: Any = gateway.server.plane.stores.history
    read = history.read
    gateway.journal._reach._patience = 5.0

    def waits(*words: str) -> object:
        try:
            return read(*words)
        except Unavailable:
            time.sleep(1.1)
            raise

    history.read = waits


LOST = Cell(Step("reserve", 2), "after", "reset")


@pytest.mark.parametrize(
    ("plant", "cell", "complaint"),
    [
        pytest.param(lying, LOST, "no reservation was admitted", id="forwards on a lost answer"),
        pytest.param(forgetful, LOST, "still open", id="forgets the release"),
        pytest.param(uncounting, Cell(), "(ledger, trail)", id="a rebuild that counts nothing"),
        pytest.param(spotless, Cell(), "the taint is not seen", id="forgets a taint"),
        pytest.param(slow, Cell(Step("history", 2), "after", "reset"), "answered late", id="denies late"),
    ],
)
async def test_the_check_finds_a_planted_fault(
    own_valkey: ValkeyServer, tmp_path: Path, plant: Callable[[Gateway], None], cell: Cell, complaint: str
) -> None:
    outcome = await run(tmp_path / "cell", own_valkey, cell, plant)
    assert any(complaint in wrong for wrong in outcome.wrong), outcome.wrong


@pytest.mark.timeout(300)
async def test_a_sample_of_messages_places_and_harms(unharmed: Outcome, tmp_path: Path) -> None:
    cells = sample(unharmed.steps)
    assert {cell.step.kind for cell in cells if cell.step} == KINDS
    assert {(cell.place, cell.harm) for cell in cells} == {(place, harm) for place in PLACES for harm in HARMS}
    _all_well(await run_all(tmp_path, cells, LANES, aside), unharmed, aside)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("harm", HARMS)
async def test_every_message_in_both_places(
    unharmed: Outcome, tmp_path: Path, harm: str, progress: Callable[[str], None]
) -> None:
    _all_well(await run_all(tmp_path, every(unharmed.steps, harm), MANY, progress), unharmed, progress)


def aside(line: str) -> None:
    """Shown where the test fails."""
    sys.stderr.write(f"\n{line}")


def _all_well(outcomes: Sequence[Outcome], unharmed: Outcome, say: Callable[[str], None]) -> None:
    wrong = {str(outcome.cell): outcome.wrong for outcome in outcomes if outcome.wrong}
    met = Counter(step_kind(outcome) for outcome in outcomes if outcome.struck)
    say(
        f"{len(unharmed.steps)} messages, {len(outcomes)} cells, {met.total()} met, {len(wrong)} with violations; "
        f"slowest answer {max(each.slowest for each in outcomes):.2f} s, "
        f"slowest healing {max(each.healed_after for each in outcomes):.2f} s, "
        f"{sum(each.seconds for each in outcomes):.0f} s of courses"
    )
    assert wrong == {}
    assert set(met) == {step_kind(outcome) for outcome in outcomes}, "a message of each kind was met in each place"
    assert met.total() > 0.9 * len(outcomes)


def step_kind(outcome: Outcome) -> tuple[str, str, str]:
    assert outcome.cell.step is not None
    return outcome.cell.step.kind, outcome.cell.place, outcome.cell.harm
