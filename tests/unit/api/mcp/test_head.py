from typing import Any

import pytest

from fulcrum_mcp.api.mcp.head import Head
from fulcrum_mcp.errors import Unauthenticated


def head(*headers: tuple[str, str], client: Any = ("127.0.0.1", 5)) -> Head:
    return Head({"headers": [(name.encode(), value.encode("latin-1")) for name, value in headers], "client": client})


def test_only_named_headers_go_on_upstream() -> None:
    found = head(
        ("mcp-method", "tools/call"),
        ("mcp-param-x", " a "),
        ("accept", "text/event-stream"),
        ("traceparent", "t"),
        ("last-event-id", "e1"),
        ("mcp-session-id", "secret"),
        ("authorization", "Bearer secret"),
        ("x-api-key", "secret"),
        ("cookie", "secret"),
        ("proxy-authorization", "secret"),
        ("host", "h"),
        ("content-length", "5"),
        ("connection", "close"),
        ("x-fulcrum-envelope", "secret"),
        ("x-other", "secret"),
    )
    assert found.forwarded == [
        (b"mcp-method", b"tools/call"),
        (b"mcp-param-x", b"a"),
        (b"accept", b"text/event-stream"),
        (b"traceparent", b"t"),
        (b"last-event-id", b"e1"),
    ]
    assert "secret" not in repr(found.forwarded)


def test_values_are_kept_in_their_order_and_number() -> None:
    found = head(("mcp-name", "a"), ("mcp-name", "b"), ("mcp-param-x", "\t\xe9 "))
    assert found.values == {"mcp-name": ["a", "b"], "mcp-param-x": ["\xe9"]}


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
def test_credential_that_comes_twice_is_none(name: str) -> None:
    with pytest.raises(Unauthenticated, match="twice") as caught:
        head((name, "Bearer secret-a"), (name, "Bearer secret-a"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        (" APPLICATION/json ;x", True),
        ("", False),
        ("application/json5", False),
        ("application/ld+json", False),
        ("text/json", False),
        (";application/json", False),
    ],
)
def test_type_is_json_or_not(value: str, json: bool) -> None:
    assert head(("content-type", value)).json is json


def test_no_type_and_two_types_are_no_json() -> None:
    assert not head().json
    assert not head(("content-type", "application/json"), ("content-type", "application/json")).json


@pytest.mark.parametrize(
    ("value", "atleast"), [("5", 5), ("9" * 5000, 10**17), ("", 0), ("-5", 0), ("5.0", 0), ("x", 0)]
)
def test_length_is_a_number_or_nothing(value: str, atleast: int) -> None:
    found = head(("content-length", value)).length
    assert found >= atleast
    assert found < 10**18


@pytest.mark.parametrize(
    ("headers", "session"),
    [
        ([], None),
        ([("mcp-session-id", " s1 ")], "s1"),
        ([("mcp-session-id", "")], ""),
        ([("mcp-session-id", "s1"), ("mcp-session-id", "s1")], ""),
    ],
)
def test_session_that_comes_twice_is_no_session(headers: list[tuple[str, str]], session: str | None) -> None:
    assert head(*headers).session == session


def test_names_of_an_envelope_that_come_twice_or_too_long_show_it() -> None:
    found = head(("x-fulcrum-envelope", "a"), ("x-fulcrum-workflow", "w" * 999), ("x-fulcrum-envelope", "a"))
    assert found.names["envelope"] == ""
    assert len(found.names["workflow"]) == 257


@pytest.mark.parametrize(
    ("client", "loopback"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1), True),
        (("::ffff:127.0.0.1", 1), True),
        (None, False),
        (("10.0.0.1", 1), False),
        (("128.0.0.1", 1), False),
        (("::2", 1), False),
    ],
)
def test_loopback_is_where_the_connection_comes_from(client: Any, loopback: bool) -> None:
    assert head(client=client).credentials.loopback is loopback


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"])
def test_proxy_is_seen_by_its_headers(name: str) -> None:
    assert head((name, "")).credentials.forwarded
    assert not head(("x-other", "")).credentials.forwarded
