import time
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import json_objects, same_json
from scripted_server import ScriptedServer

from fulcrum_mcp.gateway.catalog import Catalog
from fulcrum_mcp.gateway.naming import (
    join_name,
    renamer,
    resource_server,
    shown_uri,
    split_id,
    split_name,
    uri_owners,
)
from fulcrum_mcp.gateway.wire import encode, peek_message
from fulcrum_mcp.ports import ServerSentEvent

servers = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


def catalog(name: str, *, resources: Iterable[Any] = (), templates: Iterable[Any] = (), able: bool = True) -> Catalog:
    found = Catalog(ScriptedServer(name))
    found.lists = {
        "resources": [{"uri": uri} for uri in resources],
        "resourceTemplates": [{"uriTemplate": template} for template in templates],
    }
    found.capabilities = {"resources": {}} if able else {}
    return found


@given(servers, texts)
def test_joined_name_is_split_again(server: str, name: str) -> None:
    assert split_name(join_name(server, name)) == (server, name)


@pytest.mark.parametrize("name", [None, 5, [], {}, "", "echo", "files__", "files_echo", "files"])
def test_name_without_server_or_rest_is_none(name: Any) -> None:
    assert split_name(name) is None


def test_name_may_hold_the_separator_itself() -> None:
    assert split_name("files__a__b") == ("files", "a__b")
    assert split_name("files____a") == ("files", "__a")


@given(servers, texts | st.integers(-(2**70), 2**70), json_objects())
def test_servers_request_keeps_all_but_its_id_and_that_is_found_again(server: str, own: Any, params: Any) -> None:
    message = {"jsonrpc": "2.0", "id": own, "method": "sampling/createMessage", "params": params, "x": params}
    event = ServerSentEvent(encode(message), id="7")
    renamed = renamer(server)(event, peek_message(event.data))
    sent = msgspec.json.decode(renamed.data)
    assert split_id(sent["id"]) == (server, own)
    assert same_json({**sent, "id": own}, message)
    assert renamed.id == f"{server}:7"


@given(servers, texts | st.integers(-(2**70), 2**70))
def test_cancelled_request_of_a_server_is_named_as_the_client_knows_it(server: str, own: Any) -> None:
    params = {"requestId": own, "reason": "r"}
    event = ServerSentEvent(encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
    renamed = msgspec.json.decode(renamer(server)(event, peek_message(event.data)).data)
    assert split_id(renamed["params"]["requestId"]) == (server, own)
    assert renamed["params"]["reason"] == "r"


@pytest.mark.parametrize("params", [None, [], {}, {"reason": "r"}])
def test_cancellation_of_nothing_passes_as_it_is(params: Any) -> None:
    event = ServerSentEvent(encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
    assert renamer("files")(event, peek_message(event.data)) == event


@pytest.mark.parametrize("value", [None, 5, "", "files", "files:", "files:{", "files:x", ["files:1"]])
def test_id_that_was_not_made_here_is_nobodys(value: Any) -> None:
    assert split_id(value) is None


def test_uri_is_prefixed_only_where_several_servers_have_it() -> None:
    catalogs = [catalog("a", resources=["x", "y"]), catalog("b", resources=["y", "z"])]
    owners = uri_owners(catalogs, "resources", "uri")
    assert [shown_uri("a", uri, owners) for uri in ("x", "y")] == ["x", "a+y"]
    assert [shown_uri("b", uri, owners) for uri in ("y", "z")] == ["b+y", "z"]
    for server, uri in (("a", "x"), ("a", "y"), ("b", "y"), ("b", "z")):
        assert resource_server(catalogs, shown_uri(server, uri, owners)) == (server, uri)


def test_uri_listed_twice_by_one_server_is_its_alone() -> None:
    catalogs = [catalog("a", resources=["x", "x", None, 5])]
    assert resource_server(catalogs, "x") == ("a", "x")


def test_ambiguous_uri_without_prefix_is_nobodys() -> None:
    assert resource_server([catalog("a", resources=["x"]), catalog("b", resources=["x"])], "x") is None


def test_listed_uri_wins_over_a_prefix_that_looks_like_a_server() -> None:
    catalogs = [catalog("git"), catalog("web", resources=["git+ssh://host/x"])]
    assert resource_server(catalogs, "git+ssh://host/x") == ("web", "git+ssh://host/x")


@pytest.mark.parametrize(
    ("template", "uri", "fits"),
    [
        ("file:///{name}", "file:///a", True),
        ("file:///{name}", "file:///", True),
        ("file:///{name}", "file:///a/b", False),
        ("file:///{+path}", "file:///a/b", True),
        ("file://{/path*}", "file:///a/b", True),
        ("x{#part}", "x#a/b", True),
        ("{a}-{b}", "1-2-3", True),
        ("{a}-{b}", "12", False),
        ("{+a}/x{b}", "/x/1/x2", True),
        ("{a}/x", "a/b/x", False),
        ("plain", "plain", True),
        ("plain", "plai", False),
        ("a.c", "abc", False),
        ("a(b", "a(b", True),
        ("{unclosed", "{unclosed", True),
        ("{unclosed", "x", False),
        ("", "", True),
        ("{x}\n", "a\n", True),
        ("{x}", "a\nb", True),
    ],
)
def test_template_says_what_it_expands_to(template: str, uri: str, fits: bool) -> None:
    catalogs = [catalog("a", templates=[template]), catalog("b")]
    assert resource_server(catalogs, uri) == (("a", uri) if fits else None)


def test_uri_that_fits_two_servers_templates_is_nobodys() -> None:
    assert resource_server([catalog("a", templates=["{x}"]), catalog("b", templates=["{y}"])], "z") is None


def test_only_server_with_resources_is_asked_for_unlisted_ones() -> None:
    catalogs = [catalog("a"), catalog("b", able=False)]
    assert resource_server(catalogs, "anything") == ("a", "anything")
    assert resource_server([*catalogs, catalog("c")], "anything") is None


@pytest.mark.parametrize(
    "template", ["".join(f"{{+v{number}}}/" for number in range(20)) + "x", "{a}" * 500 + "x", "{a}-" * 200 + "x"]
)
def test_hostile_template_costs_no_time(template: str) -> None:
    catalogs = [catalog("a", templates=[template]), catalog("b"), catalog("c")]
    began = time.process_time()
    for uri in ("/" * 2000, "-" * 2000, "a" * 100_000):
        assert resource_server(catalogs, uri) is None
    assert time.process_time() - began < 5
