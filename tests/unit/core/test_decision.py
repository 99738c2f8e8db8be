"""How verdicts combine, over every mixture of them."""

import itertools

import pytest

from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Effect, Reason, Redaction, Verdict, combine

WHY = Reason("p", "r", "c", "m")
ALLOW = Verdict("allow", "1", allow=True)
SILENT = Verdict("silent", "1")
DENY = Verdict("deny", "1", deny=(WHY,))
DENY_AND_ALLOW = Verdict("both", "1", allow=True, deny=(WHY,))
ASK = Verdict("ask", "1", require_approval=(WHY,))
FAILED = Verdict("failed", "1", error="it failed")
ALL = (ALLOW, SILENT, DENY, DENY_AND_ALLOW, ASK, FAILED)
MIXTURES = [mix for size in range(4) for mix in itertools.combinations_with_replacement(ALL, size)]


def wanted(mix: tuple[Verdict, ...], phase: Phase) -> Effect:
    if any(verdict.deny or verdict.error for verdict in mix):
        return "deny"
    asked, allowed = ASK in mix, any(verdict.allow for verdict in mix)
    if phase == "result":
        return "allow"
    if phase == "call" and asked:
        return "require_approval"
    return "allow" if allowed or (asked and phase == "list") else "deny"


@pytest.mark.parametrize("phase", ["list", "call", "result"])
def test_deny_beats_approval_beats_allow_and_silence_denies(phase: Phase) -> None:
    for mix in MIXTURES:
        for order in itertools.permutations(mix):
            assert combine(order, phase).effect == wanted(mix, phase), order


def test_an_error_is_a_reason_with_its_policy() -> None:
    (reason,) = combine((ALLOW, FAILED), "call").reasons
    assert (reason.policy, reason.code, reason.message) == ("failed", "policy_error", "it failed")


def test_no_allow_says_so() -> None:
    (reason,) = combine((SILENT,), "call").reasons
    assert reason.code == "no_allow"


def test_the_reasons_of_an_allow_name_the_policies_that_allowed() -> None:
    assert [reason.policy for reason in combine((SILENT, ALLOW), "call").reasons] == ["allow"]


def test_costs_combine_by_maximum_and_labels_once() -> None:
    first = Verdict("a", "1", allow=True, cost={"calls": 1, "bytes": 9}, taint=("x", "y"), warn=(WHY,))
    second = Verdict("b", "2", cost={"calls": 3}, taint=("y", "z"), redact=(Redaction("/a"),))
    decision = combine((first, second), "call")
    assert decision.cost == {"calls": 3, "bytes": 9}
    assert decision.taints == ("x", "y", "z")
    assert decision.redactions == (Redaction("/a"),)
    assert decision.warnings == (WHY,)
    assert decision.policies == (("a", "1"), ("b", "2"))
