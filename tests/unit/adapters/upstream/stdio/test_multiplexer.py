import json
from collections.abc import Hashable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum_adapters.upstream.stdio.modern import ModernProcess
from fulcrum_adapters.upstream.stdio.multiplexer import Exchange
from fulcrum_adapters.upstream.stdio.process import ServerProcess

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé\u2028"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé"), inner, max_size=3),
    max_leaves=12,
)
ids = st.integers() | st.text('01a"\\é')


class FakeProcess:
    """What the multiplexer needs of a process: everything written is kept."""

    name = "files"

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.words = self

    def write(self, message: bytes) -> None:
        self.written.append(json.loads(message))

    def stray(self, line: bytes) -> None:
        self.written.append(line)


def multiplexer() -> tuple[ModernProcess, FakeProcess]:
    process = FakeProcess()
    made = ModernProcess(1000, 5.0)
    made.process = cast("ServerProcess", process)
    return made, process


def ask(to: ModernProcess, document: dict[str, Any], owner: Hashable = "one") -> Exchange:
    return to.ask(json.dumps(document, ensure_ascii=False).encode(), document, owner)


def call(number: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def received(exchange: Exchange) -> list[Any]:
    return [json.loads(exchange.stream.at(place)[0]) for place in range(exchange.stream.end)]


@given(ids, values, values, values)
def test_only_ids_and_tokens_differ_on_the_way_and_the_client_gets_its_own_back(
    number: Any, token: Any, arguments: Any, result: Any
) -> None:
    to, process = multiplexer()
    document = call(number, {"arguments": arguments, "_meta": {"progressToken": token, "other": arguments}, "x": 1})
    exchange = ask(to, document)
    (written,) = process.written
    assert written == {
        **document,
        "id": 1,
        "params": {**document["params"], "_meta": {"progressToken": 1, "other": arguments}},
    }
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "extra": result}}
    to.receive(json.dumps(progress).encode())
    to.receive(json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"r": result}, "unknown": result}).encode())
    told = {**progress, "params": {"progressToken": token, "extra": result}}
    assert received(exchange) == [told, {"jsonrpc": "2.0", "id": number, "result": {"r": result}, "unknown": result}]
    assert exchange.stream.done


def test_token_behind_an_escaped_key_is_replaced_too() -> None:
    to, process = multiplexer()
    text = rb'{"jsonrpc":"2.0","id":9,"method":"x","params":{"_m\u0065ta":{"progress\u0054oken":"t"}}}'
    to.ask(text, json.loads(text), "one")
    assert process.written[0]["params"]["_meta"] == {"progressToken": 1}


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":99,"result":{}}',
        b'{"jsonrpc":"2.0","id":"1","result":{}}',
        b'{"jsonrpc":"2.0","id":1.0,"result":{}}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":[1]}',
        b'{"jsonrpc":"2.0","method":"notifications/progress"}',
        b'{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}',
    ],
)
def test_message_that_belongs_to_no_request_reaches_none(line: bytes) -> None:
    to, _ = multiplexer()
    exchange = ask(to, call(5, {}))
    to.receive(line)
    assert received(exchange) == []
    assert to.strays == 1
    assert list(to.exchanges) == [1]


def test_second_answer_to_one_request_is_dropped() -> None:
    to, _ = multiplexer()
    exchange = ask(to, call(5, {}))
    for _ in range(2):
        to.receive(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert len(received(exchange)) == 1
    assert to.strays == 1


def test_notification_of_unknown_kind_reaches_nobody_while_two_principals_wait() -> None:
    to, _ = multiplexer()
    one, two = ask(to, call(1, {}), "one"), ask(to, call(1, {}), "two")
    line = b'{"jsonrpc":"2.0","method":"vendor/secret","params":{}}'
    to.receive(line)
    assert received(one) == received(two) == []
    to.receive(b'{"jsonrpc":"2.0","id":2,"result":{}}')
    to.receive(line)
    assert received(one) == []


def test_notification_of_unknown_kind_reaches_the_newest_request_of_the_only_principal() -> None:
    to, _ = multiplexer()
    one, two = ask(to, call(1, {})), ask(to, call(2, {}))
    to.receive(b'{"jsonrpc":"2.0","method":"vendor/news","params":{}}')
    assert received(one) == []
    assert [m.get("method") for m in received(two)] == ["vendor/news"]


def test_late_notification_of_a_cancelled_request_does_not_reach_another_principal() -> None:
    to, _ = multiplexer()
    gone, stays = ask(to, call(1, {}), "one"), ask(to, call(1, {}), "two")
    to.closed(gone, gone.stream.read())
    to.receive(b'{"jsonrpc":"2.0","method":"vendor/secret","params":{}}')
    assert received(stays) == []
