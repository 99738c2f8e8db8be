import hashlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from fulcrum_mcp.core.audit import GENESIS, ChainWriter, RecordDraft, parse_record
from fulcrum_mcp.core.mac import mac

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
TIMES = st.integers(0, 4_000_000_000_000_000_000)


def draft(data: bytes = b"{}", **changes: object) -> RecordDraft:
    fields = {"id": "1", "tenant": "t", "type": "x.y", "subject": "s", "time": 1_790_000_000_123_456_789, "data": data}
    return RecordDraft(**(fields | changes))  # type: ignore[arg-type]


def test_a_record_is_a_cloud_event_with_its_place_in_the_chain() -> None:
    line, ref = ChainWriter("w1", "acme").add(draft(b'{"a":1}', tenant="acme"))
    assert line == (
        b'{"specversion":"1.0","id":"1","source":"/fulcrum/w1","type":"x.y","subject":"s",'
        b'"time":"2026-09-21T14:13:20.123456Z","tenant":"acme","chain":"w1.acme","seq":1,"prev":"' + b"0" * 64 + b'",'
        b'"data":{"a":1},"hash":"' + ref.hash.encode() + b'"}'
    )
    assert (ref.id, ref.chain, ref.seq) == ("1", "w1.acme", 1)


def test_the_hash_covers_every_byte_but_itself() -> None:
    line, ref = ChainWriter("w", "t").add(draft())
    without = re.sub(rb',"hash":"[0-9a-f]{64}"\}$', b"}", line)
    assert hashlib.sha256(without).hexdigest() == ref.hash


def test_each_record_names_the_hash_before_it() -> None:
    chain = ChainWriter("w", "t")
    refs = [chain.add(draft()) for _ in range(3)]
    heads = [parse_record(line) for line, _ in refs]
    assert [head and head.prev for head in heads] == [GENESIS, refs[0][1].hash, refs[1][1].hash]
    assert [head and head.seq for head in heads] == [1, 2, 3]


@given(st.tuples(TEXT, TEXT, TEXT, TEXT), TIMES, JSON)
def test_any_content_comes_back_as_it_was(names: tuple[str, str, str, str], time: int, value: object) -> None:
    record_id, tenant, kind, subject = names
    data = json.dumps(value).encode()
    line, ref = ChainWriter("w", tenant).add(RecordDraft(record_id, tenant, kind, subject, time, data))
    assert b"\n" not in line
    event = json.loads(line)
    assert (event["id"], event["tenant"], event["type"], event["subject"]) == (record_id, tenant, kind, subject)
    assert event["data"] == json.loads(data)
    head = parse_record(line)
    assert head is not None
    assert (head.whole, head.hash, head.chain, head.tenant) == (True, ref.hash, ref.chain, tenant)


@given(JSON)
def test_line_breaks_between_the_members_of_data_do_not_break_the_line(value: object) -> None:
    line, _ = ChainWriter("w", "t").add(draft(json.dumps(value, indent=1).encode()))
    assert b"\n" not in line
    assert json.loads(line)["data"] == value


@given(st.data())
def test_no_changed_byte_leaves_a_record_whole(data: st.DataObject) -> None:
    line, _ = ChainWriter("w", "t").add(draft(b'{"some":"thing","n":12}'))
    place = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != line[place]))
    changed = line[:place] + bytes([byte]) + line[place + 1 :]
    head = parse_record(changed)
    assert head is None or not head.whole


@given(st.binary(max_size=400))
def test_anything_else_is_no_record(raw: bytes) -> None:
    assert parse_record(raw) is None


def test_a_broken_escape_is_no_record() -> None:
    line, _ = ChainWriter("w", "t").add(draft())
    assert parse_record(line.replace(b'"id":"1"', b'"id":"\\u12"')) is None


def test_mac_is_keyed_sha256() -> None:  # RFC 4231, test case 2
    assert mac(b"Jefe", b"what do ya want for nothing?") == (
        "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
