import hashlib
import json
import timeit

import pytest
from audit_trails import DECIDED, FINISHED, TIME, decided, finished

from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.core.books import Place
from fulcrum_mcp.core.budget import Amounts
from fulcrum_mcp.ports import ArchivedRecord, Spend
from fulcrum_mcp.processor.archived import LONGEST_ID, LONGEST_NAME, archived


def line_of(draft: RecordDraft) -> bytes:
    return ChainWriter("wabcdefg", draft.tenant).add(draft)[0]


def record(draft: RecordDraft) -> ArchivedRecord:
    found = archived(line_of(draft))
    assert isinstance(found, ArchivedRecord), found
    return found


def of_data(data: object, kind: str = DECIDED, tenant: str = "acme") -> ArchivedRecord:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return record(RecordDraft("0190-id", tenant, kind, "call_1", TIME, text))


def test_a_decision_gives_what_people_ask_for_and_its_exact_bytes() -> None:
    draft = decided("call_1", tool="read_file", effect="deny", leg=2)
    found = record(draft)
    assert (found.id, found.chain, found.seq, found.tenant) == (draft.id, "wabcdefg.default", 1, "default")
    assert (found.type, found.time, found.subject) == (DECIDED, draft.time // 1000, "call_1")
    assert (found.leg, found.decision, found.agent, found.key) == (2, "dec_1", "alice", "k")
    assert (found.server, found.tool, found.effect, found.outcome) == ("files", "read_file", "deny", None)
    assert found.line == line_of(draft)
    assert found.prev == "0" * 64


def test_an_outcome_has_its_size_cost_and_reason() -> None:
    data = {
        "decision_id": "dec_1",
        "leg": 0,
        "outcome": "withheld",
        "bytes": 12,
        "duration_us": 5,
        "cost": {"usd_micros": 7},
        "reasons": [{"policy": "p", "rule": "r", "code": "c", "message": "m"}, {"policy": "q", "code": "d"}],
    }
    found = of_data(data, FINISHED)
    assert (found.outcome, found.effect, found.size, found.duration_us) == ("withheld", None, 12, 5)
    assert (found.cost, found.policy, found.code) == ({"usd_micros": 7}, "p", "c")


def test_a_decision_says_what_it_holds_and_whose_past_it_is() -> None:
    data = {
        "principal": {"agent": "a", "key": "k1"},
        "context": {"envelope": "e1"},
        "budgets": [
            {"id": "b1", "bucket": "a", "starts": 5},
            {"id": "b2", "bucket": "", "owner": "*", "starts": 0},
            {"id": "rate-only", "bucket": "a"},
        ],
        "reserved": {"usd_micros": 9},
        "taints": ["pii"],
    }
    places = (Place("acme", "b1", "a", 5), Place("*", "b2", "", 0))
    held = Amounts(0, 9)  # a call that is not said is none
    assert of_data(data).spend == Spend("envelope:e1", places, held, None, ("pii",))
    del data["context"]
    del data["reserved"]
    assert of_data(data).spend == Spend("key:k1", places, None, None, ("pii",))


def test_an_end_says_what_was_charged_or_nothing() -> None:
    assert of_data({"charged": {"calls": 1, "bytes": 3}}, FINISHED).spend == Spend(charged=Amounts(1, bytes=3))
    assert of_data({"charged": {}}, FINISHED).spend == Spend(charged=Amounts(0))
    assert of_data({"taints": ["x"]}, FINISHED).spend == Spend(taints=("x",))
    assert record(finished("call_1")).spend is None
    assert of_data({"charged": {"calls": 1}, "reserved": {"calls": 1}}, "dev.fulcrum.budget.overrun").spend is None


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"7", b'{"principal":7,"leg":"two","tool":{"name":"x"}}'])
def test_whatever_its_data_is_a_record_is_taken(data: bytes) -> None:
    found = of_data(data, "dev.fulcrum.policy.loaded")
    assert (found.leg, found.agent, found.tool, found.decision) == (None, None, None, None)


def test_one_member_that_is_not_as_it_should_be_hides_no_other() -> None:
    data = {
        "leg": -1,
        "duration_us": 2**70,
        "bytes": 1.5,
        "cost": {"usd": 0.5},
        "effect": "allow",
        "reserved": {"calls": 1},
        "principal": {"agent": "a", "key": "k"},
        "budgets": [{"id": "b", "bucket": "x", "starts": 1}],
    }
    found = of_data(data)
    assert (found.leg, found.duration_us, found.size, found.cost) == (None, None, None, {})
    assert (found.effect, found.agent) == ("allow", "a")
    assert found.spend == Spend("key:k", (Place("acme", "b", "x", 1),), Amounts(1))


def test_text_that_a_database_refuses_is_made_fit_and_the_bytes_stay() -> None:
    data = {"tool": "a\0b", "server": "\ud800", "principal": {"agent": "x" * 5000, "key": "ä"}, "cost": {"\0": 1}}
    found = of_data(data)
    assert (found.tool, found.server) == ("a\ufffdb", "?")
    assert found.agent is not None
    assert len(found.agent) == LONGEST_NAME
    assert found.key == "ä"
    assert dict(found.cost) == {"\ufffd": 1}
    assert b"\\u0000" in found.line


def test_what_is_no_record_says_so() -> None:
    line = line_of(decided("call_1"))
    assert archived(line.replace(b"alice", b"malic")) == "its hash differs"
    for text in (b"", b"{}", b"noise", b"\xff", line[:-1], line + b" ", line[:-1] + b" }"):
        assert archived(text) == "not an audit record"


def relabelled(line: bytes, old: bytes, new: bytes) -> bytes:
    """A record whose hash is right, and which nobody of ours would have written."""
    body = line[: -len(b',"hash":"') - 66].replace(old, new)
    return body + b',"hash":"' + hashlib.sha256(body + b"}").hexdigest().encode() + b'"}'


def test_lies_under_a_right_hash_are_no_records() -> None:
    line = line_of(decided("call_1"))
    other = relabelled(line, b'"tenant":"default"', b'"tenant":"acme"')
    assert archived(other) == "its chain belongs to another tenant"
    assert archived(relabelled(line, b"2026-09-21T", b"2026-13-41T")) == "its time is not a time"
    assert archived(relabelled(line, b'"data":{', b'"data":{{')) == "its data is not JSON"
    twice = relabelled(line, b'"effect":"allow"', b'"effect":"allow"},"tenant":"acme","data":{"x":1')
    assert archived(twice) == "its data is not JSON"
    longest = relabelled(line, b'"id":"', b'"id":"' + b"x" * LONGEST_ID)
    assert archived(longest) == "its id or its chain is none of ours"
    assert archived(relabelled(line, b'"id":"', b'"id":"\\u0000')) == "its id or its chain is none of ours"
    deep = relabelled(line, b'"data":{', b'"data":{"x":' + b"[" * 200_000 + b"]" * 200_000 + b",")
    assert archived(deep) == "its data is not JSON"


def test_reading_a_record_is_fast() -> None:
    data = {
        "principal": {"agent": "a", "key": "k"},
        "budgets": [{"id": "b", "bucket": "x", "starts": 1}],
        "reserved": {"calls": 1},
        "context": {"client": "c", "envelope": "e"},
        "arguments_mac": "hmac-sha256:" + "0" * 64,
        "reasons": [{"policy": "p", "rule": "r", "code": "allowed", "message": ""}],
    }
    line = line_of(RecordDraft("0190", "t", DECIDED, "call_1", TIME, json.dumps(data).encode()))
    best = min(timeit.repeat(lambda: archived(line), number=500, repeat=10)) / 500
    assert best < 100e-6  # 17 us where it was written; loose, since tests share their machine
