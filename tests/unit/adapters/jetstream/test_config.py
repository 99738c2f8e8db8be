"""Where NATS is; what is secret about it never shows."""

from pathlib import Path

import pytest
from servers.certificates import Authority

from fulcrum_adapters.jetstream import JetStreamConfig
from fulcrum_adapters.jetstream.config import Address
from fulcrum_mcp.errors import Invalid


def test_servers_users_and_tokens_are_read_from_the_url() -> None:
    config = JetStreamConfig("nats://us%40er:p%3Aw@one:1, nats://t0ken@two,[::1]:5,three")
    assert config.addresses() == (
        Address("nats://one:1", tls=False, user="us@er", password="p:w"),
        Address("nats://two:4222", tls=False, token="t0ken"),
        Address("nats://[::1]:5", tls=False),
        Address("nats://three:4222", tls=False),
    )
    assert config.place == "one:1, two:4222, [::1]:5, three:4222"


def test_tls_is_asked_of_all_servers_or_of_none() -> None:
    assert JetStreamConfig("tls://a,tls://b:5").addresses()[1] == Address("tls://b:5", tls=True)
    with pytest.raises(Invalid, match="before all of them"):
        JetStreamConfig("tls://a,nats://b")
    with pytest.raises(Invalid, match="before all of them"):
        JetStreamConfig("tls://a,b")


def test_certificates_are_for_tls_only_and_checked_at_once(tmp_path: Path) -> None:
    ca = Authority(tmp_path).ca
    assert JetStreamConfig("tls://h", ca=ca).certificates.ca == ca
    with pytest.raises(Invalid, match="does not ask for TLS"):
        JetStreamConfig("nats://h", ca=ca)
    with pytest.raises(Invalid, match=r"nats\.ca \(FULCRUM_NATS_CA\)"):
        JetStreamConfig("tls://h", ca=tmp_path / "none.pem")


def test_no_secret_shows() -> None:
    config = JetStreamConfig("nats://user:s3cret@one,nats://t0ken@two")
    said = f"{config!r} {config.place} {config.addresses()!r}"
    assert all(secret not in said for secret in ("s3cret", "t0ken", "user"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        ",",
        "http://s3cret@h",
        "nats://s3cret@h:99999",
        "nats://",
        "nats://s3cret@h/path",
        "nats://h?s3cret=1",
        "nats://[s3cret",
    ],
)
def test_what_is_no_server_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(Invalid, match=r"nats\.url") as caught:
        JetStreamConfig(url)
    assert "s3cret" not in str(caught.value)


def test_a_credentials_file_must_be_there_and_numbers_in_bounds(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="credentials"):
        JetStreamConfig("nats://h", credentials=tmp_path / "none.creds")
    with pytest.raises(Invalid, match="replicas"):
        JetStreamConfig("nats://h", replicas=0)
    with pytest.raises(Invalid, match="max_bytes"):
        JetStreamConfig("nats://h", max_bytes=1)
