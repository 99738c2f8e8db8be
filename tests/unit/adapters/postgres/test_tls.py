"""What libpq is told: verifying is complete where it is asked for, and what is not verified is known."""

import ssl
from pathlib import Path

import pytest
from servers.certificates import Authority

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.tls import tls_words
from fulcrum_mcp.errors import Invalid

URL = "postgresql://u:c4nary@db.example/f"


@pytest.fixture(autouse=True)
def _nothing_else_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_named_ca_means_that_all_is_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("me")
    told = PostgresConfig(URL, ca=authority.ca, cert=pair.cert, key=pair.key).parameters()
    assert told["sslmode"] == "verify-full"
    assert [told["sslrootcert"], told["sslcert"], told["sslkey"]] == [str(authority.ca), str(pair.cert), str(pair.key)]
    assert told["ssl_min_protocol_version"] == "TLSv1.2"


@pytest.mark.parametrize(
    "query", ["?sslmode=verify-full", "?sslrootcert=system", "?sslmode=verify-full&sslrootcert=system"]
)
def test_without_a_ca_the_systems_roots_are_named_where_libpq_brings_none(
    query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = Authority(tmp_path).ca
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(roots))
    told = PostgresConfig(URL + query).parameters()
    assert (told["sslmode"], told["sslrootcert"]) == ("verify-full", str(roots))


def test_roots_that_somebody_has_named_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PostgresConfig(URL + "?sslmode=verify-full&sslrootcert=x.pem").parameters()["sslrootcert"] == "x.pem"
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").touch()
    assert "sslrootcert" not in PostgresConfig(URL + "?sslmode=verify-full").parameters()
    monkeypatch.setenv("PGSSLROOTCERT", "y.pem")
    assert "sslrootcert" not in PostgresConfig(URL + "?sslmode=verify-full").parameters()


@pytest.mark.parametrize("query", ["?sslmode=disable", "?sslmode=require", "?sslmode=verify-ca", "?sslrootcert=x"])
def test_url_and_settings_that_contradict_each_other_are_refused(query: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"postgres\.url says ssl") as refused:
        PostgresConfig(URL + query, ca=Authority(tmp_path).ca)
    assert "c4nary" not in str(refused.value)


def test_old_versions_of_tls_are_refused() -> None:
    with pytest.raises(Invalid, match="ssl_min_protocol_version is too old"):
        PostgresConfig(URL + "?ssl_min_protocol_version=TLSv1.1")


def test_half_a_client_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="belong together"):
        PostgresConfig(URL, cert=Authority(tmp_path).issue("me").cert)


@pytest.mark.parametrize(
    ("url", "risk"),
    [
        (URL, "clear text where the server does not offer TLS"),
        (URL + "?sslmode=allow", "clear text"),
        (URL + "?sslmode=require", "nobody checks who answers"),
        (URL + "?sslmode=verify-ca", "of any other host"),
        ("postgresql://u@127.0.0.1,10.0.0.2/f", "clear text"),
        ("postgresql://u@localhost/f?hostaddr=10.0.0.2", "clear text"),
    ],
)
def test_a_way_that_nobody_has_chosen_is_told_with_its_risk(url: str, risk: str) -> None:
    found = PostgresConfig(url).unverified
    assert found is not None
    assert risk in found


@pytest.mark.parametrize(
    "url",
    [
        URL + "?sslmode=verify-full",
        URL + "?sslrootcert=system",
        URL + "?sslmode=disable",
        "postgresql://u@127.0.0.1/f",
        "postgresql://u@[::1],localhost/f",
        "postgresql:///f?host=/run/postgresql",
    ],
)
def test_what_is_safe_or_was_chosen_is_not_warned_about(url: str) -> None:
    assert PostgresConfig(url).unverified is None


def test_libpqs_own_variable_counts_as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    config = PostgresConfig(URL)
    assert config.unverified is None
    assert "sslrootcert" in config.parameters()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("SSL error: certificate verify failed: certificate has expired\n", "renew it on the server"),
        ("SSL error: certificate verify failed\n", "look whether it has expired, and whether its CA"),
        ('server certificate for "a" does not match host name "b"', "write the host in postgres.url"),
        ("server does not support SSL, but SSL was required", "turn it on there"),
        ("SSL error: tlsv13 alert certificate required", "FULCRUM_POSTGRES_CERT"),
        ('root certificate file "x" does not exist', "look at postgres.ca"),
        ('private key file "x" has group or world access; ...', "look at postgres.ca, cert and key"),
    ],
)
def test_what_libpq_says_has_a_remedy(said: str, words: str) -> None:
    found = tls_words(f'connection failed: connection to server at "10.0.0.2", port 5432 failed: {said}', secured=True)
    assert found is not None
    assert words in found


def test_other_failures_are_not_taken_for_tls() -> None:
    begun = 'connection failed: connection to server at "h", port 1 failed: '
    assert tls_words(begun + "Connection refused", secured=True) is None
    ended = "server closed the connection unexpectedly"
    assert tls_words(begun + ended, secured=False) is None
    assert "FULCRUM_POSTGRES_CERT" in (tls_words(begun + ended, secured=True) or "")
    assert tls_words(ended, secured=True) is None
