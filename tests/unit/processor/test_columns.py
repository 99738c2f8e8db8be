import json

from audit_trails import DECIDED, decided, finished

from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.processor.columns import Record, read_record, row_of


def line_of(draft: RecordDraft) -> bytes:
    return ChainWriter("w", draft.tenant).add(draft)[0]


def row(draft: RecordDraft) -> tuple[object, ...]:
    line = line_of(draft)
    record = read_record(line)
    assert isinstance(record, Record)
    return row_of(record, line, {})


def test_a_decision_gives_what_people_ask_for() -> None:
    draft = decided("call_1", tool="read_file", effect="deny", leg=2)
    found = row(draft)
    assert found[:6] == ("w.default", 1, "default", DECIDED, draft.time // 1000, "call_1")
    assert found[6:-1] == (2, "dec_1", "alice", "files__read_file", "deny")


def test_an_outcome_stands_where_the_effect_stands() -> None:
    assert row(finished("call_1", outcome="timeout"))[5:-1] == ("call_1", 0, "dec_1", None, None, "timeout")


def test_any_other_record_is_taken_whatever_its_data() -> None:
    for data in (b"[]", b"null", b'{"tool":{"name":"x"},"leg":"two"}', b'{"principal":7}'):
        assert row(RecordDraft("1", "t", "dev.fulcrum.policy.loaded", "s", 10**18, data))[5:-1] == ("s", *[None] * 5)


def test_what_is_no_record_says_so() -> None:
    line = line_of(decided("call_1"))
    assert read_record(line[:-1] + b" }") == "its hash differs"
    assert read_record(line.replace(b"alice", b"malic")) == "its hash differs"
    for text in (b"", b"{}", b"noise", b"\xff", json.dumps({"id": 1}).encode()):
        assert str(read_record(text)).startswith("not an audit record")
