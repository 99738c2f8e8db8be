"""Files of certificates are checked before anything is connected; what TLS says is said with its remedy."""

import re
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from servers.certificates import Authority

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.ports.tls import Certificates, after_handshake, tls_fault


def test_chain_and_host_are_verified_whatever_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("me")
    for certificates in (
        Certificates("redis"),
        Certificates("redis", ca=authority.ca),
        Certificates("redis", cert=pair.cert, key=pair.key),
        Certificates("redis", ca=authority.ca, cert=pair.cert, key=pair.key),
    ):
        certificates.check()
        context = certificates.context()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_named_ca_is_the_only_one(tmp_path: Path) -> None:
    ca = Authority(tmp_path).ca
    assert Certificates("nats", ca=ca).context().cert_store_stats()["x509"] == 1


def test_files_are_read_anew_for_each_context(tmp_path: Path) -> None:
    ca = Authority(tmp_path).ca
    certificates = Certificates("nats", ca=ca)
    before = certificates.context().get_ca_certs()
    ca.write_bytes(Authority(tmp_path, "next").ca.read_bytes())
    assert certificates.context().get_ca_certs() != before


@pytest.mark.parametrize("missing", ["cert", "key"])
def test_a_certificate_and_its_key_belong_together(tmp_path: Path, missing: str) -> None:
    pair = Authority(tmp_path).issue("me")
    named = {"cert": pair.cert, "key": pair.key} | {missing: None}
    with pytest.raises(Invalid, match=r"redis\.cert and redis\.key belong together"):
        Certificates("redis", **named).check()


def test_files_that_are_not_what_they_should_be_are_named_with_their_setting(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("me")
    other = Authority(tmp_path).issue("other")
    nothing = tmp_path / "nothing.pem"
    (tmp_path / "words.pem").write_text("no certificate\n")
    with pytest.raises(Invalid, match=r"postgres\.ca \(FULCRUM_POSTGRES_CA\): .*nothing\.pem cannot be read \(No such"):
        Certificates("postgres", ca=nothing).check()
    with pytest.raises(Invalid, match=r"nats\.ca \(FULCRUM_NATS_CA\): .*words\.pem holds no certificates"):
        Certificates("nats", ca=tmp_path / "words.pem").check()
    with pytest.raises(Invalid, match=r"nats\.cert \(FULCRUM_NATS_CERT\) and key: .* are not a certificate and its"):
        Certificates("nats", cert=pair.cert, key=other.key).check()
    with pytest.raises(Invalid, match="cannot be read"):
        Certificates("nats", cert=pair.cert, key=nothing).check()


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("me")
    key = ec.generate_private_key(ec.SECP256R1())
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cret")))
    with pytest.raises(Invalid, match="without a passphrase"):
        Certificates("redis", cert=pair.cert, key=pair.key).check()


def _handshake(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] told (_ssl.c:1)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "if it demands a client certificate, name one"),
        ("TLSV1_ALERT_UNKNOWN_CA", r"redis\.cert \(FULCRUM_REDIS_CERT\) and key"),
        ("WRONG_VERSION_NUMBER", r"does not speak TLS there; .* redis\.url"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", r"have it speak TLS 1\.2 or 1\.3"),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", r"TLS failed \(decryption failed or bad record mac\)"),
    ],
)
def test_what_a_handshake_says_has_a_remedy(reason: str, says: str) -> None:
    found = tls_fault(_handshake(reason), "redis")
    assert found is not None
    assert re.search(says, found)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("certificate has expired", "renew it on the server"),
        ("self-signed certificate in certificate chain", r"nats\.ca \(FULCRUM_NATS_CA\)"),
        ("Hostname mismatch, certificate is not valid for 'n'.", r"write the host in nats\.url"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_said_even_from_a_text_of_others(said: str, remedy: str) -> None:
    packed = RuntimeError(f"Error 1 connecting to n:1. [SSL] certificate verify failed: {said} (_ssl.c:1).")
    outer = ConnectionError("broken")
    outer.__cause__ = packed
    found = tls_fault(outer, "nats")
    assert found is not None
    assert f"its certificate is not accepted ({said.rstrip('.')})" in found
    assert re.search(remedy, found)


def test_other_failures_are_not_taken_for_tls_and_a_bad_file_is_told_as_it_is() -> None:
    assert tls_fault(ConnectionResetError("reset"), "redis") is None
    wrapped = ConnectionError("x")
    wrapped.__cause__ = Invalid("redis.ca (FULCRUM_REDIS_CA): gone")
    assert tls_fault(wrapped, "redis") == "redis.ca (FULCRUM_REDIS_CA): gone"
    assert "FULCRUM_NATS_CERT" in after_handshake("nats")
