"""The SDK's `classify_inbound_request` is the oracle: the same verdict and code, but for what a test here names."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import (
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
)

from fulcrum_mcp.api.mcp.ladder import Era, classify, client_name
from fulcrum_mcp.gateway.param_headers import encode_header
from fulcrum_mcp.gateway.wire import HANDSHAKE_VERSIONS, Message, WireError, encode, parse_message

MODERN = "2026-07-28"
HEADER_MISMATCH, UNSUPPORTED, INVALID_PARAMS = -32020, -32022, -32602
VERSION, CAPABILITIES = "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"
META = {VERSION: MODERN, CAPABILITIES: {}}

Values = Mapping[str, list[str]]


def message_of(method: str, params: Any, **members: Any) -> Message:
    return parse_message(encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params, **members}))


def verdict(message: Message, values: Values | None) -> int | Era:
    try:
        return classify(message, values)
    except WireError as fault:
        return fault.code


def oracle(message: Message, values: Values) -> int | None:
    """The SDK's code for a request on its modern path; None where it accepts."""
    lines = [(name, value) for name, many in values.items() for value in many]
    if find_duplicated_routing_header(lines) is not None:
        return HEADER_MISMATCH
    found = classify_inbound_request(message.document, headers={name: many[0] for name, many in values.items()})
    return found.code if isinstance(found, InboundLadderRejection) else None


_VERSIONS = st.sampled_from([MODERN, "2099-01-01", "", "DRAFT", "2026-07-28 "])
_METHODS = st.sampled_from(["tools/call", "prompts/get", "resources/read", "tools/list", "vendor/x", "tools/Call", ""])
_NAMES = st.sampled_from(["x", "é", " x", "=?base64?eA==?=", "", 5, None, True])
_HEADER_NAMES = st.sampled_from(
    ["x", "=?base64?eA==?=", "=?base64?eB==?=", "X", "", "5", "=?base64?w6k=?=", "None", "True"]
)
_BAD_META: st.SearchStrategy[Any] = st.sampled_from(
    [None, [], "x", {}, {VERSION: MODERN}, {CAPABILITIES: {}}, {VERSION: None, CAPABILITIES: 1}]
)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[Message, Values]:
    method = draw(_METHODS)
    version = draw(_VERSIONS)
    meta = draw(st.just({VERSION: draw(st.just(version) | _VERSIONS), CAPABILITIES: {}}) | _BAD_META)
    params: dict[str, Any] = {"_meta": meta}
    name = draw(_NAMES)
    for member in ("name", "uri"):
        if draw(st.booleans()):
            params[member] = name
    values = {"mcp-protocol-version": [version]}
    if draw(st.integers(0, 5)):
        values["mcp-method"] = [draw(st.just(method) | _METHODS)]
    if draw(st.integers(0, 3)):
        values["mcp-name"] = [draw(st.just(encode_header(str(name))) | _HEADER_NAMES)]
    if not draw(st.integers(0, 9)):
        twice = draw(st.sampled_from(sorted(values)))
        values[twice] = values[twice] * 2
    return message_of(method, params), values


@given(_requests())
@settings(max_examples=600)
@example((message_of("tools/call", {"_meta": META, "name": "x"}), {"mcp-protocol-version": [MODERN]}))
def test_modern_requests_get_the_sdks_verdict(case: tuple[Message, Values]) -> None:
    message, values = case
    ours, theirs = verdict(message, values), oracle(message, values)
    member = "uri" if message.method == "resources/read" else "name"
    named = message.method in ("tools/call", "prompts/get", "resources/read")
    if theirs in (None, UNSUPPORTED) and named and message.params.get(member) is None and "mcp-name" in values:
        assert ours == HEADER_MISMATCH  # stricter: a name in the header that the body does not have at all
    else:
        assert ours == (Era(modern=True, version=MODERN) if theirs is None else theirs)


def good(method: str = "tools/call", **params: Any) -> tuple[Message, dict[str, list[str]]]:
    values = {"mcp-protocol-version": [MODERN], "mcp-method": [method]}
    return message_of(method, {"_meta": META, **params}), values


@pytest.mark.parametrize(
    "value", ["y", "X", "x ", "=?base64?eQ==?=", "=?base64?eB==?=", "=?base64?eA?=", "=?base64?*?=", ""]
)
def test_name_header_must_say_the_name(value: str) -> None:
    message, values = good(name="x")
    assert verdict(message, {**values, "mcp-name": [value]}) == HEADER_MISMATCH


@pytest.mark.parametrize("value", ["x", "=?base64?eA==?="])
def test_name_header_may_be_encoded(value: str) -> None:
    message, values = good(name="x")
    assert verdict(message, {**values, "mcp-name": [value]}) == Era(modern=True, version=MODERN)


def test_malformed_name_header_does_not_equal_a_missing_name() -> None:
    """Stricter than the SDK, which leaves it to the method."""
    message, values = good()
    assert verdict(message, {**values, "mcp-name": ["=?base64?*?="]}) == HEADER_MISMATCH


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
def test_task_id_is_held_to_the_name_header_if_there_is_one(method: str) -> None:
    """Stricter than the SDK, which does not know the tasks extension."""
    message, values = good(method, taskId="t1")
    assert verdict(message, values) == Era(modern=True, version=MODERN)
    assert verdict(message, {**values, "mcp-name": ["t1"]}) == Era(modern=True, version=MODERN)
    assert verdict(message, {**values, "mcp-name": ["t2"]}) == HEADER_MISMATCH


@pytest.mark.parametrize("stated", [MODERN, "2099-01-01", None, 5, [], {}])
@pytest.mark.parametrize("header", [None, *HANDSHAKE_VERSIONS])
def test_modern_body_without_its_header_is_refused(header: str | None, stated: Any) -> None:
    """Stricter than the SDK, which would read it as an older message: what hides there must not pass."""
    message = message_of("tools/call", {"name": "x", "_meta": {VERSION: stated}})
    values = {} if header is None else {"mcp-protocol-version": [header]}
    expected = Era(modern=False, version=header or "") if stated is None else HEADER_MISMATCH
    assert verdict(message, values) == expected


@pytest.mark.parametrize("header", [None, *HANDSHAKE_VERSIONS])
def test_older_message_is_of_the_handshake_era(header: str | None) -> None:
    message = message_of("tools/call", {"name": "x"})
    values = {} if header is None else {"mcp-protocol-version": [header]}
    assert verdict(message, values) == Era(modern=False, version=header or "")


@pytest.mark.parametrize(
    "lie",
    [
        {"mcp-method": ["tools/list"]},
        {"mcp-method": ["tools/Call"]},
        {"mcp-method": [""]},
        {"mcp-name": ["y"]},
        {"mcp-name": [""]},
        {"mcp-name": ["=?base64?eB==?="]},
        {"mcp-name": ["x", "x"]},
        {"mcp-method": ["tools/call", "tools/list"]},
        {"mcp-protocol-version": ["2025-11-25", "2025-11-25"]},
    ],
)
def test_headers_must_not_lie_in_the_handshake_era_either(lie: dict[str, list[str]]) -> None:
    """Stricter than the SDK: they would go on upstream, and whoever routes by them would be misled."""
    message = message_of("tools/call", {"name": "x"})
    assert verdict(message, {"mcp-protocol-version": ["2025-11-25"], **lie}) == HEADER_MISMATCH


def test_headers_that_tell_the_truth_are_welcome_in_the_handshake_era() -> None:
    values = {"mcp-method": ["tools/call"], "mcp-name": ["x"]}
    assert verdict(message_of("tools/call", {"name": "x"}), values) == Era(modern=False, version="")


def test_unsupported_version_is_told_what_is_supported() -> None:
    message = message_of("tools/list", {"_meta": {VERSION: "2099-01-01", CAPABILITIES: {}}})
    with pytest.raises(WireError) as caught:
        classify(message, {"mcp-protocol-version": ["2099-01-01"], "mcp-method": ["tools/list"]})
    assert caught.value.code == UNSUPPORTED
    assert caught.value.data == {"supported": [MODERN], "requested": "2099-01-01"}
    assert caught.value.request_id == 1


def test_notification_needs_no_meta_but_must_not_lie_about_its_method() -> None:
    message = parse_message(encode({"jsonrpc": "2.0", "method": "notifications/x"}))
    assert verdict(message, {"mcp-protocol-version": [MODERN]}) == Era(modern=True, version=MODERN)
    lie = {"mcp-protocol-version": [MODERN], "mcp-method": ["notifications/y"]}
    assert verdict(message, lie) == HEADER_MISMATCH


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, Era(modern=False, version="")),
        (META, Era(modern=True, version=MODERN)),
        ({VERSION: "2025-06-18"}, Era(modern=False, version="2025-06-18")),
        ({VERSION: "2099-01-01", CAPABILITIES: {}}, UNSUPPORTED),
        ({VERSION: MODERN}, INVALID_PARAMS),
        ({VERSION: 5, CAPABILITIES: {}}, INVALID_PARAMS),
    ],
)
def test_without_headers_the_body_alone_says_the_era(meta: dict[str, Any], expected: Any) -> None:
    assert verdict(message_of("tools/list", {"_meta": meta}), None) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (message_of("initialize", {"clientInfo": {"name": "a"}}), "a"),
        (message_of("tools/list", {"clientInfo": {"name": "a"}}), None),
        (message_of("tools/list", {"_meta": {"io.modelcontextprotocol/clientInfo": {"name": "a"}}}), "a"),
        (message_of("tools/list", {"_meta": {"io.modelcontextprotocol/clientInfo": {"name": 5}}}), None),
        (message_of("tools/list", {"_meta": {"io.modelcontextprotocol/clientInfo": []}}), None),
        (message_of("tools/list", {"_meta": []}), None),
    ],
)
def test_client_is_named_by_what_it_says_of_itself(message: Message, expected: str | None) -> None:
    assert client_name(message) == expected
