"""What the data plane records, member by member: others read it."""

import hashlib
import hmac
import json
from typing import Any

from fulcrum_mcp.core.budget import Amounts, Budget, LedgerEvent, Match, Rate, Reserve, Scope
from fulcrum_mcp.core.call import Call, Context, Principal, Tool
from fulcrum_mcp.core.decision import Decision, Reason
from fulcrum_mcp.core.mac import mac
from fulcrum_mcp.gateway.records import (
    DECIDED,
    FINISHED,
    decided_draft,
    finished_draft,
    ledger_event_draft,
    outcome_unknown_draft,
)

WHO = Principal("acme", "ann", "k1", ("dev",), frozenset({"tool:call"}), {"sub": "human"})
CALL = Call(
    "call_1",
    WHO,
    "tools/call",
    "files",
    "echo",
    {"a": 1},
    Context(envelope="e1", client="cli"),
    Tool("echo", pin="p"),
    2,
)
DECISION = Decision(
    "allow",
    (Reason("p1", "allow", "allowed", "yes"),),
    (Reason("p1", "warn", "careful", "hm"),),
    cost={"calls": 1},
    policies=(("p1", "r1"),),
)


def data_of(draft: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(draft.data)
    return data


def test_decided_says_everything_about_the_decision_and_nothing_of_the_arguments() -> None:
    day = 86_400 * 10**9
    limited = Budget("b1", "acme", "n", Scope("agent"), {"calls": 9})
    paced = Budget("b2", "", "shared", Scope("global"), rate=Rate(1, 1, 1))
    matches = (Match(limited, "ann"), Match(paced, "global"))
    reserve = Reserve("call_1", 0, "acme", "w1", matches, Amounts(1, 0, 5), 20 * day + 7000, 90)
    draft = decided_draft(
        CALL,
        "dec_1",
        DECISION,
        at=20 * day + 7000,
        snapshot="s1",
        reserve=reserve,
        held=True,
        arguments_mac="hmac-sha256:00",
        inputs=b"{}",
        duration_us=7,
    )
    assert draft.time == 20 * day + 7000
    assert (draft.type, draft.tenant, draft.subject, draft.inputs) == (DECIDED, "acme", "call_1", b"{}")
    assert data_of(draft) == {
        "decision_id": "dec_1",
        "call_id": "call_1",
        "leg": 2,
        "method": "tools/call",
        "server": "files",
        "tool": "echo",
        "pin": "p",
        "principal": {"agent": "ann", "key": "k1", "roles": ["dev"], "on_behalf_of": {"sub": "human"}},
        "effect": "allow",
        "snapshot": "s1",
        "reasons": [{"policy": "p1", "rule": "allow", "code": "allowed", "message": "yes"}],
        "warnings": [{"policy": "p1", "rule": "warn", "code": "careful", "message": "hm"}],
        "policies": {"p1": "r1"},
        "cost": {"calls": 1},
        "budgets": [
            {"id": "b1", "bucket": "ann", "starts": 20 * day},
            {"id": "b2", "bucket": "global", "owner": ""},
        ],
        "reserved": {"calls": 1, "input_tokens": 5},
        "arguments_mac": "hmac-sha256:00",
        "context": {"envelope": "e1", "client": "cli"},
        "duration_us": 7,
    }


def test_finished_says_how_it_ended() -> None:
    draft = finished_draft(
        CALL,
        "dec_1",
        outcome="withheld",
        is_error=True,
        result_mac="m",
        size=9,
        duration_us=7,
        cost={"calls": 1},
        reasons=DECISION.warnings,
        redacted=3,
        charged=Amounts(0),
        taints=("pii",),
    )
    data = data_of(draft)
    assert (draft.type, draft.subject) == (FINISHED, "call_1")
    assert data["reasons"][0]["code"] == "careful"
    del data["reasons"]
    assert data == {
        "decision_id": "dec_1",
        "call_id": "call_1",
        "leg": 2,
        "server": "files",
        "tool": "echo",
        "principal": {"agent": "ann", "key": "k1", "roles": ["dev"], "on_behalf_of": {"sub": "human"}},
        "outcome": "withheld",
        "is_error": True,
        "result_mac": "m",
        "bytes": 9,
        "duration_us": 7,
        "cost": {"calls": 1},
        "redacted": 3,
        "charged": {},
        "taints": ["pii"],
    }


def test_end_of_a_dead_gateways_call_names_it_and_what_it_was_charged() -> None:
    draft = decided_draft(
        CALL,
        "dec_1",
        DECISION,
        at=1,
        snapshot="s",
        reserve=None,
        held=False,
        arguments_mac="",
        inputs=None,
        duration_us=0,
    )
    unknown = outcome_unknown_draft("acme", data_of(draft))
    assert (unknown.type, unknown.subject) == (FINISHED, "call_1")
    assert data_of(unknown) == {
        "decision_id": "dec_1",
        "call_id": "call_1",
        "leg": 2,
        "server": "files",
        "tool": "echo",
        "principal": {"agent": "ann", "key": "k1", "roles": ["dev"], "on_behalf_of": {"sub": "human"}},
        "outcome": "outcome_unknown",
        "is_error": True,
        "cost": {"calls": 1},
    }
    assert data_of(outcome_unknown_draft("acme", {}))["outcome"] == "outcome_unknown"


def test_event_of_a_budget_is_recorded_under_its_tenant() -> None:
    draft = ledger_event_draft(LedgerEvent("budget.threshold", "acme", "b1", "ann", {"threshold": 80}))
    assert (draft.type, draft.tenant, draft.subject) == ("dev.fulcrum.budget.threshold", "acme", "b1")
    assert data_of(draft) == {"budget": "b1", "bucket": "ann", "threshold": 80}


def test_values_are_keyed_so_that_nobody_can_guess_them() -> None:
    assert mac(b"k", b"42") == "hmac-sha256:" + hmac.new(b"k", b"42", hashlib.sha256).hexdigest()
    assert mac(b"k", b"42") != mac(b"o", b"42")
