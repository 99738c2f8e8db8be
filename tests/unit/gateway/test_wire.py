import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_values import HOSTILE, json_objects, json_values, same_json, spelled, strict_loads
from msgspec import UNSET, Raw

from fulcrum_mcp.gateway.wire import (
    Message,
    ResultPeek,
    WireError,
    decode_strict,
    encode,
    error_message,
    parse_message,
    peek_message,
    peek_result,
    refuse_folded,
    result_message,
    same_id,
)

PARSE_ERROR, INVALID_REQUEST = -32700, -32600

BASE = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {}}}


def refusal(text: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        parse_message(text)
    return caught.value


@given(spelled(json_values(huge=True)))
def test_every_value_survives_in_every_spelling(case: tuple[Any, bytes]) -> None:
    value, text = case
    decoded, canonical = decode_strict(text)
    assert same_json(decoded, value)
    assert same_json(strict_loads(canonical), value)


@given(spelled(json_values(huge=True)))
def test_canonical_text_is_its_own_canonical_text(case: tuple[Any, bytes]) -> None:
    _, canonical = decode_strict(case[1])
    assert decode_strict(canonical)[1] == canonical


@given(spelled(json_objects(huge=True)), st.data())
@settings(max_examples=300)
def test_mangled_text_is_accepted_only_where_the_strict_oracle_reads_the_same(
    case: tuple[Any, bytes], data: st.DataObject
) -> None:
    text = bytearray(case[1])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        piece = data.draw(
            st.sampled_from([b"", b'"', b"{", b"}", b"\\", b",", b"0", b"e9", b"\\ud800", b"\x00", b"\xed"])
        )
        text[place : place + data.draw(st.integers(0, 2))] = piece
    try:
        expected = strict_loads(bytes(text))
    except (ValueError, RecursionError):
        with pytest.raises(WireError):
            decode_strict(bytes(text))
        return
    assert same_json(decode_strict(bytes(text))[0], expected)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_refused_with_the_protocols_own_code(text: bytes) -> None:
    assert refusal(text).code in (PARSE_ERROR, INVALID_REQUEST)


def test_duplicate_member_is_named_and_cut_short() -> None:
    fault = refusal(b'{"' + b"k" * 500 + b'":1, "' + b"k" * 500 + b'":2}')
    assert fault.code == INVALID_REQUEST
    assert "kkk" in fault.message
    assert len(fault.message) < 120


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}',
        '{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}',
        '{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}',
        '{"jsonrpc":"2.0","id":1,"ID":2,"method":"ping"}',
        '{"JSONRPC":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","Name":"y"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","argument\u017f":{}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","Arguments":{}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","ta\u017f\u212a":{}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_META":{}}}',
        '{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x","URI":"y"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","requeststate":"y"}}',
    ],
)
def test_member_that_another_reader_could_fold_into_ours_is_refused(text: str) -> None:
    fault = refusal(text.encode())
    assert fault.code == INVALID_REQUEST
    assert fault.request_id == 1


@pytest.mark.parametrize("folded", [False, True])
def test_names_inside_arguments_and_meta_are_nobody_elses_business(folded: bool) -> None:
    inner = {"Name": 1, "name": 2, "PARAMS": 3} if folded else {"name": 2}
    message = parse_message(
        encode({**BASE, "params": {"name": "x", "arguments": inner, "_meta": inner, "vendor": inner}})
    )
    assert message.params["arguments"] == inner


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([BASE], "batches"),
        ([], "batches"),
        ("text", "object"),
        (None, "object"),
        ({}, "jsonrpc"),
        ({**BASE, "jsonrpc": "1.0"}, "jsonrpc"),
        ({**BASE, "jsonrpc": 2.0}, "jsonrpc"),
        ({**BASE, "id": None}, "id"),
        ({**BASE, "id": True}, "id"),
        ({**BASE, "id": 1.5}, "id"),
        ({**BASE, "id": [1]}, "id"),
        ({**BASE, "method": None}, "method"),
        ({**BASE, "method": 5}, "method"),
        ({**BASE, "result": {}}, "result"),
        ({**BASE, "error": {}}, "result or error"),
        ({**BASE, "params": []}, "params"),
        ({**BASE, "params": None}, "params"),
        ({"jsonrpc": "2.0", "id": 1}, "neither"),
        ({"jsonrpc": "2.0", "result": {}}, "neither"),
        ({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}, "neither"),
        ({"jsonrpc": "2.0", "id": 1, "result": {}, "params": {}}, "neither"),
    ],
)
def test_message_of_a_wrong_shape_is_refused_with_the_reason(document: Any, why: str) -> None:
    fault = refusal(encode(document))
    assert fault.code == INVALID_REQUEST
    assert why in fault.message


@pytest.mark.parametrize("request_id", [1, "a", "", 0, -1, 2**70, "\u0000"])
def test_refusal_names_the_request_it_refuses(request_id: Any) -> None:
    assert refusal(encode({**BASE, "id": request_id, "params": 1})).request_id == request_id


@pytest.mark.parametrize("bad", [None, True, 1.5, [], {}])
def test_refusal_never_echoes_an_id_that_is_none(bad: Any) -> None:
    assert refusal(encode({**BASE, "id": bad})).request_id is None


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"id": 1, "method": "m"}, "request"),
        ({"id": "", "method": ""}, "request"),
        ({"method": "m", "params": {}}, "notification"),
        ({"id": 1, "result": None}, "response"),
        ({"id": 1, "error": {"code": 1}}, "response"),
    ],
)
def test_kinds_of_messages(members: dict[str, Any], kind: str) -> None:
    message = parse_message(encode({"jsonrpc": "2.0", "x": [1], **members}))
    assert message.kind == kind
    assert message.document["x"] == [1]


def test_depth_is_bounded_exactly() -> None:
    nested: Any = 1
    for _ in range(7):
        nested = [nested]
    text = encode({**BASE, "params": {"arguments": {"a": nested}}})  # message, params, arguments, seven arrays
    assert parse_message(text, 10).id == 1
    with pytest.raises(WireError, match="nested deeper than 9") as caught:
        parse_message(text, 9)
    assert caught.value.code == INVALID_REQUEST


@given(json_objects())
def test_changed_params_leave_the_rest_as_it_was(params: dict[str, Any]) -> None:
    message = parse_message(encode({**BASE, "vendor": 2**70}))
    changed = message.with_params(params)
    assert changed.document == {**message.document, "params": params}
    assert strict_loads(changed.raw) == changed.document
    assert message.params == BASE["params"]


@pytest.mark.parametrize("meta", [None, [], "x", 5])
def test_meta_that_is_no_object_is_none(meta: Any) -> None:
    assert Message({"method": "m", "params": {"_meta": meta}}, b"", "notification").meta == {}


@given(json_values())
def test_peek_finds_the_answer_without_reading_it(value: Any) -> None:
    peek = peek_message(encode({"jsonrpc": "2.0", "id": "i", "result": value, "x": value}))
    assert peek.is_response
    assert isinstance(peek.result, Raw)
    assert same_json(json.loads(bytes(peek.result)), value)
    assert peek.error is UNSET


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b'{"method":5}', b"\xff", b"[" * 5000, b'{"id":'])
def test_peek_refuses_what_is_no_message(text: bytes) -> None:
    with pytest.raises(WireError, match="not a JSON-RPC message"):
        peek_message(text)


@pytest.mark.parametrize("text", [b"null", b"[]", b"5", b'"x"', b"{", b"[" * 5000])
def test_result_without_members_has_nothing_to_see(text: bytes) -> None:
    assert peek_result(text) == ResultPeek()


@pytest.mark.parametrize(
    ("text", "request_id", "same"),
    [
        (b"1", 1, True),
        (b"1.0", 1, False),
        (b'"1"', 1, False),
        (b"1", "1", False),
        (b"true", 1, False),
        (b"null", 1, False),
        (b'"\\u0061"', "a", True),
        (b"1180591620717411303424", 2**70, True),
        (b"{", 1, False),
    ],
)
def test_ids_are_compared_with_their_type(text: bytes, request_id: Any, same: bool) -> None:
    assert same_id(Raw(text), request_id) is same


def test_no_id_is_no_id() -> None:
    assert not same_id(UNSET, 1)


@pytest.mark.parametrize("name", ["Result", "ERROR", "re\u017fult", "Id"])
def test_answer_with_a_twin_of_our_members_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        refuse_folded({"id": 1, "result": {}, name: {}})


def test_unknown_members_of_an_answer_are_no_twins() -> None:
    refuse_folded({"id": 1, "result": {}, "results": {}, "vendor": 1})


def test_own_messages_are_json_rpc() -> None:
    assert json.loads(error_message(None, 5, "m")) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": 5, "message": "m"},
    }
    assert json.loads(error_message("a", 5, "m", [1]))["error"]["data"] == [1]
    assert json.loads(result_message(2**70, Raw(b'{"a":1}'))) == {"jsonrpc": "2.0", "id": 2**70, "result": {"a": 1}}


@pytest.mark.parametrize(
    "part", [b'{"a":"' + b"x" * 20 + b'"}', b"[" * 40 + b"]" * 40, b"1234567890"], ids=["objects", "nested", "numbers"]
)
def test_large_text_of_very_many_values_is_refused_and_one_of_few_is_not(part: bytes) -> None:
    crowded = b"[" + b",".join([part] * (500_000 if part[:1] != b"[" else 60_000)) + b"]"
    assert len(crowded) > 4 << 20
    with pytest.raises(WireError, match="more than 400000 values"):
        decode_strict(crowded)
    text = b'{"text":"' + b"x" * (6 << 20) + b'"}'
    assert decode_strict(text)[1] == text
