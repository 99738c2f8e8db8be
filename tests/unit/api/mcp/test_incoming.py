from typing import Any

import pytest
from hypothesis import given
from json_values import json_objects, same_json, strict_loads

from fulcrum_mcp.api.mcp.incoming import context_of, incoming_of, strip_envelope
from fulcrum_mcp.api.mcp.ladder import Era
from fulcrum_mcp.core.call import Context, Principal
from fulcrum_mcp.gateway.incoming import Incoming
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.wire import Message, WireError, encode, parse_message

ERA = Era(modern=True, version="2026-07-28")
ANN = Principal("acme", "ann", "k1")


def message_of(**params: Any) -> Message:
    return parse_message(encode({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params, "x": 2**70}))


def incoming(message: Message | None, **names: str) -> Incoming:
    return incoming_of("POST", ANN, message, ERA, headers=[], values={}, names=names, session=None)


@given(json_objects())
def test_own_names_are_taken_out_and_the_rest_stays(meta: dict[str, Any]) -> None:
    kept = {key: value for key, value in meta.items() if not key.startswith("dev.fulcrum/")}
    whole = message_of(name="x", _meta={**kept, "dev.fulcrum/envelope": "e", "dev.fulcrum/unknown": meta})
    message, names = strip_envelope(whole)
    assert names == {"envelope": "e"}
    assert same_json(message.meta, kept)
    assert ("_meta" in message.params) == bool(kept)
    assert same_json(strict_loads(message.raw), message.document)
    assert message.document["x"] == 2**70


def test_message_without_our_names_is_the_same_object() -> None:
    message = message_of(_meta={"other": 1})
    assert strip_envelope(message) == (message, {})


@pytest.mark.parametrize("value", ["", "x" * 257, "a\0b", 5, True, [], {}])
@pytest.mark.parametrize("key", ["envelope", "workflow", "execution"])
def test_name_in_meta_that_is_none_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(WireError, match=f"dev.fulcrum/{key}") as caught:
        strip_envelope(message_of(_meta={f"dev.fulcrum/{key}": value}))
    assert (caught.value.code, caught.value.request_id) == (-32602, 7)


@pytest.mark.parametrize("value", ["", "x" * 257])
@pytest.mark.parametrize("key", ["envelope", "workflow", "execution"])
def test_name_in_a_header_that_is_none_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(WireError, match=f"X-Fulcrum-{key.title()}") as caught:
        incoming(message_of(), **{key: value})
    assert (caught.value.code, caught.value.request_id) == (-32602, 7)
    with pytest.raises(WireError):
        incoming(None, **{key: value})


def test_header_and_meta_must_agree() -> None:
    inside = message_of(_meta={"dev.fulcrum/envelope": "a"})
    assert incoming(inside, envelope="a").context.envelope == "a"
    assert incoming(inside, workflow="w").context == Context("a", "w", protocol="2026-07-28")
    with pytest.raises(WireError, match="contradicts"):
        incoming(inside, envelope="b")


def test_names_that_nobody_knows_are_nothing() -> None:
    assert incoming(message_of(), tenant="evil", envelope="e").context == Context("e", protocol="2026-07-28")


def test_client_is_the_one_of_the_message_or_of_its_session() -> None:
    session = Session("t", {}, "from-session")
    named = message_of(_meta={"io.modelcontextprotocol/clientInfo": {"name": "n" * 999}})
    assert context_of(named, ERA, {}, session).client == "n" * 256
    assert context_of(message_of(), ERA, {}, session).client == "from-session"
    assert context_of(None, ERA, {}, None).client is None
