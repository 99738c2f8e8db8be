from pathlib import Path

import pytest
from servers.certificates import Authority

from fulcrum_adapters.redis import RedisConfig
from fulcrum_mcp.errors import Invalid


@pytest.mark.parametrize(
    ("url", "place", "hosts"),
    [
        ("redis://h", "redis://h:6379/0", (("h", 6379),)),
        ("rediss://u:p%40x@h:1/3", "rediss://h:1/3", (("h", 1),)),
        ("redis+sentinel://u:p@a:1,b/svc/2", "redis+sentinel://a:1,b:26379/svc/2", (("a", 1), ("b", 26379))),
        ("redis://[::1]:7/0", "redis://[::1]:7/0", (("::1", 7),)),
    ],
)
def test_url_is_read_and_shown_without_its_password(url: str, place: str, hosts: tuple[tuple[str, int], ...]) -> None:
    config = RedisConfig(url)
    assert (config.place, config.hosts) == (place, hosts)
    assert "p%40x" not in repr(config)


def test_sentinels_service_and_database_are_read() -> None:
    config = RedisConfig("redis+sentinel://a:1,b:2/svc/2")
    assert (config.sentinel, config.service, config.database) == (True, "svc", "2")
    assert RedisConfig("redis+sentinel://a/svc").database == "0"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://secret@h", "the scheme is none of"),
        ("redis://", "names no host"),
        ("redis+sentinel://h:1", "names no service"),
        ("redis://:secret@h/x", "the database is not a number"),
        ("redis://:secret@h:x/0", "port is not a number"),
        ("redis://:secret@h?socket_timeout=900", 'option "socket_timeout"'),
        ("redis://:secret@[::1/0", "cannot be read"),
        ("rediss://:secret@h?ssl_cert_reqs=none", "ssl_cert_reqs cannot be weakened"),
        ("rediss://:secret@h?ssl_check_hostname=false", "ssl_check_hostname cannot be weakened"),
        ("rediss://:secret@h?ssl_check_hostname=", "ssl_check_hostname cannot be weakened"),
        ("rediss://:secret@h?ssl_ca_certs=/nowhere.pem", "/nowhere.pem cannot be read"),
        ("redis://:secret@h?ssl_ca_certs=/nowhere.pem", "/nowhere.pem cannot be read"),
        ("rediss://:secret@h?ssl_certfile=/nowhere.pem", "belong together"),
    ],
)
def test_wrong_url_says_what_without_quoting_it(url: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        RedisConfig(url)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_timeout_must_be_positive() -> None:
    with pytest.raises(Invalid, match="more than 0"):
        RedisConfig("redis://h", timeout=0)


def test_certificates_are_named_by_settings_or_by_the_url_not_by_both(tmp_path: Path) -> None:
    ca = Authority(tmp_path).ca
    url = f"rediss+sentinel://h/svc?ssl_ca_certs={ca}&ssl_cert_reqs=required"
    assert RedisConfig(url).certificates == RedisConfig("rediss://h", ca=ca).certificates
    with pytest.raises(Invalid, match="take one of them away"):
        RedisConfig(url, ca=ca)
    with pytest.raises(Invalid, match="does not ask for TLS"):
        RedisConfig("redis://h", ca=ca)
