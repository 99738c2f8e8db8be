"""No overspend and no leak, whatever the order of things: Hypothesis against every ledger."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from contract.ledger_model import LedgerLaw, MemoryOverruns, SqliteLaw, SqliteOverruns
from contract.redis_books import REAL
from contract.redis_law import RedisLaw, RedisOverruns
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fulcrum_mcp.core.budget import Match, Operation, Outcome, Release, Reserve, Settled

LAWS = (LedgerLaw, MemoryOverruns, SqliteLaw, SqliteOverruns)


def run(law: type[LedgerLaw], examples: int, steps: int, *, shrink: bool = True) -> int:
    """Returns how many operations were applied."""
    law.operations = 0
    checks = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
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


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("server", REAL)
@pytest.mark.parametrize("law", [RedisLaw, RedisOverruns])
def test_ledger_on_a_server_never_overspends_and_never_leaks_over_many_operations(
    request: pytest.FixtureRequest, server: str, law: type[RedisLaw]
) -> None:
    assert run(on_server(request, server, law), examples=1_500, steps=100) > 100_000


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("law", LAWS)
def test_ledger_never_overspends_and_never_leaks_over_many_operations(law: type[LedgerLaw]) -> None:
    assert run(law, examples=3_000, steps=100) > 250_000


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
