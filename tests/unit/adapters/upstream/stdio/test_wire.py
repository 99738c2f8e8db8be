import json

import msgspec
import pytest

from fulcrum_adapters.upstream.stdio.wire import dump, error, members, messages, scalar, with_member

ODD = b'{"id": 7,"result":{"n":123456789012345678901234567890, "f":1.10,"x":"\\u00e9","_meta":{"a":1e2, "t" : 7}}}'


def test_replacing_a_deep_member_leaves_every_other_byte() -> None:
    (message,) = messages(ODD)
    with_member(message, ("result", "_meta", "t"), "mine")
    with_member(message, ("id",), "client")
    assert dump(message) == (
        b'{"id":"client","result":{"n":123456789012345678901234567890,"f":1.10,"x":"\\u00e9",'
        b'"_meta":{"a":1e2,"t":"mine"}}}'
    )


def test_two_replacements_in_one_object_both_hold() -> None:
    (message,) = messages(ODD)
    with_member(message, ("result", "_meta", "t"), 1)
    with_member(message, ("result", "_meta", "a"), 2)
    assert json.loads(dump(message))["result"]["_meta"] == {"a": 2, "t": 1}


@pytest.mark.parametrize(
    "line", [b"Starting", b"{", b"[1]", b'"text"', b"{}", b'{"jsonrpc":"2.0"}', b'{"id":1,"result":"\xff"}', b"null"]
)
def test_what_is_no_message_is_none(line: bytes) -> None:
    assert messages(line) == []


def test_batch_gives_its_messages() -> None:
    assert len(messages(b' [{"id":1,"result":{}},{"method":"x"}]')) == 2


@pytest.mark.parametrize(
    ("text", "value"), [(b"1", 1), (b'"1"', "1"), (b"1.0", None), (b"true", None), (b"null", None), (b"[1]", None)]
)
def test_only_strings_and_integers_are_ids(text: bytes, value: object) -> None:
    assert scalar(msgspec.Raw(text)) == value


def test_members_of_something_else_are_none() -> None:
    assert members(msgspec.Raw(b"[1]")) == members(None) == {}


def test_error_repeats_the_id_of_its_request() -> None:
    assert json.loads(error(-32600, "no", {"id": "x"}))["id"] == "x"
    assert json.loads(error(-32600, "no", None))["id"] is None
