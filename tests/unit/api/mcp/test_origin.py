from itertools import product

import pytest

from fulcrum_mcp.api.mcp.origin import OriginPolicy

LOCAL = OriginPolicy("127.0.0.1")
NAMED = OriginPolicy("10.0.0.5", ("mcp.example.com:8443", "Other.example.com"), ("https://app.example.com/",))
EVERYWHERE = OriginPolicy("0.0.0.0")

GOOD_LOCAL_HOSTS = ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8080"]
BAD_HOSTS = [
    None,
    "",
    " ",
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "evil.example.localhost",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "user@localhost",
    "localhost@evil.example",
    "localhost:8080@evil.example",
    "localhost/evil",
    "localhost#evil",
    "localhost:",
    "localhost:x",
    "localhost:808080",
    "localhost:80:80",
    "localhost, evil.example",
    "localhost evil.example",
    "localhost\n",
    "localhost\x00",
    "localhost.",
    "::1",
    "[::1",
    "[::1]x",
    "[::ffff:127.0.0.1]",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "127.0.0.2",
    "locaIhost",
    "lOc\u00e4lhost",
]
GOOD_LOCAL_ORIGINS = [None, "http://127.0.0.1:8080", "http://localhost:3000", "https://[::1]", "HTTP://LOCALHOST"]
BAD_ORIGINS = [
    "",
    "null",
    "NULL",
    "*",
    "http://evil.example",
    "https://evil.example:8080",
    "http://localhost.evil.example",
    "http://127.0.0.1.nip.io",
    "http://localhost@evil.example",
    "http://user:localhost@evil.example",
    "http://localhost:80@evil.example",
    "http://localhost/",
    "http://localhost/path",
    "http://localhost#x",
    "http://localhost?x",
    "http://localhost:",
    "http://localhost:x",
    "http://localhost http://evil.example",
    "http://localhost, http://evil.example",
    "localhost",
    "//localhost",
    "ftp://localhost",
    "file://",
    "file://localhost",
    "chrome-extension://abcdef",
    "javascript:alert(1)",
    "http:localhost",
    "http://",
    "http://[::1",
    "http://localhost\n",
    "http://localhost\x00",
    "more than one",
]


@pytest.mark.parametrize(("host", "origin"), list(product(GOOD_LOCAL_HOSTS, GOOD_LOCAL_ORIGINS)))
def test_loopback_serves_loopback(host: str, origin: str | None) -> None:
    assert LOCAL.refusal(host, origin) is None


@pytest.mark.parametrize("policy", [LOCAL, NAMED], ids=["loopback", "named"])
def test_no_bad_host_is_served_with_any_origin(policy: OriginPolicy) -> None:
    accepted = [pair for pair in product(BAD_HOSTS, [*GOOD_LOCAL_ORIGINS, *BAD_ORIGINS]) if not policy.refusal(*pair)]
    assert accepted == []


@pytest.mark.parametrize("policy", [LOCAL, NAMED, EVERYWHERE], ids=["loopback", "named", "everywhere"])
def test_no_bad_origin_is_served_on_any_host(policy: OriginPolicy) -> None:
    hosts = [*GOOD_LOCAL_HOSTS, "mcp.example.com", "10.0.0.5:8080", *BAD_HOSTS]
    accepted = {pair for pair in product(hosts, BAD_ORIGINS) if not policy.refusal(*pair)}
    # On every address any name may be ours, so a page of that very name and port is one of our own.
    own = {pair for pair in accepted if pair[1].partition("://")[2] == pair[0]}
    assert accepted == (own if policy is EVERYWHERE else set())


@pytest.mark.parametrize("host", ["mcp.example.com", "MCP.example.com:9", "other.example.com", "10.0.0.5", "localhost"])
def test_own_and_allowed_hosts_are_served(host: str) -> None:
    assert NAMED.refusal(host, None) is None


@pytest.mark.parametrize(
    ("host", "origin", "served"),
    [
        ("mcp.example.com:8443", "https://mcp.example.com:8443", True),
        ("mcp.example.com:8443", "https://mcp.example.com", False),
        ("mcp.example.com", "https://mcp.example.com:443", True),
        ("mcp.example.com:443", "https://mcp.example.com", True),
        ("mcp.example.com", "https://other.example.com", False),
        ("mcp.example.com", "https://app.example.com", True),
        ("mcp.example.com", "HTTPS://APP.example.com", True),
        ("mcp.example.com", "http://app.example.com", False),
        ("mcp.example.com", "https://app.example.com:8443", False),
        ("mcp.example.com", "http://localhost:3000", False),
        ("localhost", "https://mcp.example.com", False),
    ],
)
def test_origin_is_the_same_host_and_port_or_an_allowed_one(host: str, origin: str, served: bool) -> None:
    assert (NAMED.refusal(host, origin) is None) is served


@pytest.mark.parametrize("host", ["any.example", "10.1.1.1:80", "[fe80::1]:80"])
def test_bound_everywhere_without_allowed_hosts_any_name_is_served(host: str) -> None:
    assert EVERYWHERE.refusal(host, None) is None


def test_bound_everywhere_with_allowed_hosts_only_those_are() -> None:
    policy = OriginPolicy("::", ("mcp.example.com",))
    assert policy.refusal("mcp.example.com", None) is None
    assert policy.refusal("any.example", None) is not None


def test_bound_to_an_ipv6_address_it_is_served_in_brackets() -> None:
    assert OriginPolicy("fe80::1").refusal("[FE80::1]:8080", None) is None


def test_refusal_names_the_setting_and_not_the_value() -> None:
    told = [LOCAL.refusal("evil.example", None), LOCAL.refusal("localhost", "http://evil.example")]
    assert told == ["Host not served here; see allowed_hosts", "Origin not served here; see allowed_origins"]
