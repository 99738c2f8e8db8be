from typing import Any

import pytest

from fulcrum_adapters.upstream.config import HttpUpstreamConfig
from fulcrum_adapters.upstream.http import HttpUpstream
from fulcrum_adapters.upstream.target import parse_target, public_url
from fulcrum_mcp.errors import Invalid


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("http://example.com", "example.com", "/"),
        ("HTTPS://Example.COM:443/mcp", "example.com", "/mcp"),
        ("https://example.com:8443/a%20b;c=d/?k=v&l=[1]", "example.com:8443", "/a%20b;c=d/?k=v&l=[1]"),
        ("http://[::1]:80/mcp#part", "[::1]", "/mcp"),
        ("http://[0:0::1]:8080/", "[::1]:8080", "/"),
        ("http://my_server:1/", "my_server:1", "/"),
        ("http://bücher.example/", "xn--bcher-kva.example", "/"),
        ("http://localhost./", "localhost.", "/"),
    ],
)
def test_url_is_parsed(url: str, authority: str, path: str) -> None:
    target = parse_target("x", url)
    assert (target.authority, target.path) == (authority, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/mcp",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http:///mcp",
        "http://",
        "http://user@example.com/",
        "http://user:canary@example.com/",
        "http://canary@127.0.0.1@example.com/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:/",
        "http://example.com:8o/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nx: y",
        "http://example.com/\t",
        "http://example.com/ä",
        "http://example.com/?ä",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://[v1.x]/",
        "http://-example.com/",
        "http://exam..ple/",
        "http://exa%6dple.com/",
        "http://a" + "b" * 70 + ".com/",
    ],
)
def test_url_that_two_parsers_could_read_differently_is_refused_unquoted(url: str) -> None:
    with pytest.raises(Invalid, match=r"^upstream files: url ") as caught:
        parse_target("files", url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h.example:1/a?k=v#f", "https://h.example:1/a"),
        ("/other?k=v", "/other"),
        ("http://[bad", "an address that is not a URL"),
        ("http://h/\x1b[31m", "http://h/?[31m"),
    ],
)
def test_foreign_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert public_url(url) == shown


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "canary\r\nx: y"},
        {"x y": "canary"},
        {"Host": "canary"},
        {"Content-Length": "9"},
        {"Connection": "x"},
        {"x": "canary€"},
    ],
)
def test_operator_header_that_cannot_be_sent_is_refused_unquoted(headers: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"^upstream files: headers: ") as caught:
        HttpUpstreamConfig(name="files", url="http://h/", headers=headers)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("options", [{"head_seconds": 0}, {"idle_seconds": float("nan")}, {"max_connections": 0}])
def test_limit_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="is not above 0"):
        HttpUpstreamConfig(name="files", url="http://h/", **options)


def test_nothing_secret_is_in_a_repr() -> None:
    config = HttpUpstreamConfig(name="files", url="http://h/p?key=canary", headers={"Authorization": "canary"})
    assert "canary" not in repr(config)
    assert repr(HttpUpstream(config)) == "HttpUpstream('files', 'http://h:80/p')"
