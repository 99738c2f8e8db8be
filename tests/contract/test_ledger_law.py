"""No overspend and no leak, whatever the order of things: Hypothesis against every ledger."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from contract.ledger_model import LedgerLaw, MemoryOverruns, SqliteLaw, SqliteOverruns
from contract.redis_books import REAL
from contract.redis_law import RedisLaw, RedisOverruns
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fulcrum_mcp.core.budget import Match, Operation, Outcome, Release, Reserve, Settled

LAWS = (LedgerLaw, MemoryOverruns, SqliteLaw, SqliteOverruns)
LONG = 120.0
"""Seconds of a long run of one law on one ledger: an example costs 0.1 s to 1 s, by ledger and machine."""


def run(law: type[LedgerLaw], examples: int, steps: int, *, shrink: bool = True, others: bool = False) -> int:
    """Returns how many operations were applied. `others`: other examples each time, also where a profile fixes them."""
    law.operations = 0
    checks = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=not others and settings().derandomize,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(law, settings=checks)
    return law.operations


@pytest.mark.parametrize("law", LAWS)
def test_ledger_never_overspends_and_never_leaks(law: type[LedgerLaw]) -> None:
    assert run(law, examples=110, steps=50) > 3_000


def on_server(request: pytest.FixtureRequest, server: str, law: type[RedisLaw]) -> type[RedisLaw]:
    law.url = request.getfixturevalue(server)
    return law


@pytest.mark.parametrize("server", REAL)
@pytest.mark.parametrize("law", [RedisLaw, RedisOverruns])
def test_ledger_on_a_server_never_overspends_and_never_leaks(
    request: pytest.FixtureRequest, server: str, law: type[RedisLaw]
) -> None:
    assert run(on_server(request, server, law), examples=60, steps=40) > 1_000


def run_long(law: type[LedgerLaw], examples: int, least: int, say: Callable[[str], None]) -> None:
    """Round after round of other examples. Where one fails, the round goes on until its example is small."""
    began, done, passed = time.monotonic(), 0, 0.0
    while passed < LONG:
        done += run(law, examples, steps=100, others=True)
        passed = time.monotonic() - began
        say(f"{law.__name__}: {done} operations after {passed:.0f} of {LONG:.0f} s")
    assert done > least


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", REAL)
@pytest.mark.parametrize("law", [RedisLaw, RedisOverruns])
def test_ledger_on_a_server_never_overspends_and_never_leaks_over_many_operations(
    request: pytest.FixtureRequest, server: str, law: type[RedisLaw], progress: Callable[[str], None]
) -> None:
    run_long(on_server(request, server, law), 25, 5_000, progress)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("law", LAWS)
def test_ledger_never_overspends_and_never_leaks_over_many_operations(
    law: type[LedgerLaw], progress: Callable[[str], None]
) -> None:
    run_long(law, 100, 10_000, progress)


class ForgetsRelease(LedgerLaw):
    """Planted: what is released is not given back."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        return [Settled(0)] if isinstance(operations[0], Release) else super().apply(operations)


class ForgetsIdempotence(LedgerLaw):
    """Planted: a repeated call is held again under another name."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        renamed: list[Operation] = []
        for operation in operations:
            if isinstance(operation, Reserve) and (operation.call, operation.leg) in self.held:
                renamed.append(replace(operation, leg=operation.leg + 100 + len(self.held)))
            else:
                renamed.append(operation)
        return super().apply(renamed)


class Doubles(LedgerLaw):
    """Planted: twice the limit is admitted."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        return super().apply([doubled(one) if isinstance(one, Reserve) else one for one in operations])


def doubled(operation: Reserve) -> Reserve:
    matches = [
        Match(replace(budget, limits={name: 2 * limit for name, limit in budget.limits.items()}), bucket)
        for budget, bucket in operation.matches
    ]
    return replace(operation, matches=tuple(matches))


@pytest.mark.parametrize("planted", [ForgetsRelease, ForgetsIdempotence, Doubles])
def test_law_catches_a_planted_fault(planted: type[LedgerLaw]) -> None:
    with pytest.raises((AssertionError, ExceptionGroup)):
        run(planted, examples=200, steps=40, shrink=False)
