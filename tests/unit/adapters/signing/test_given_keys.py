import hashlib
import hmac
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fulcrum_adapters.signing import AuditKeys, GivenKeys, PublicKey, nats_key
from fulcrum_mcp.errors import Invalid

MASTER = "0123456789abcdef0123456789abcdef"


def pem() -> str:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_given_keys_are_the_same_everywhere_and_nothing_is_written(tmp_path: Path) -> None:
    text = pem()
    one, two = GivenKeys(text, MASTER, tmp_path / "a"), GivenKeys(text, MASTER, tmp_path / "b")
    assert one.key_id == two.key_id
    assert two.check(b"message", one.sign(b"message"))
    assert not two.check(b"massage", one.sign(b"message"))
    assert one.mac_key("acme") == two.mac_key("acme")
    assert list(tmp_path.iterdir()) == []


def test_each_tenant_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys = GivenKeys(pem(), MASTER, tmp_path)
    found = [keys.mac_key(tenant) for tenant in ("", "a", "b", "default", "ä", "../x")]
    assert len(set(found)) == len(found)
    assert {len(key) for key in found} == {32}
    other = GivenKeys(pem(), MASTER[::-1], tmp_path)
    assert other.mac_key("a") != keys.mac_key("a")


def test_mac_keys_are_those_of_rfc_5869(tmp_path: Path) -> None:
    """Worked out by hand: changing them would make every digest in the trail unprovable."""
    extracted = hmac.digest(b"\0" * 32, MASTER.encode(), hashlib.sha256)
    expected = hmac.digest(extracted, b"fulcrum audit mac\0acme\x01", hashlib.sha256)
    assert GivenKeys(pem(), MASTER, tmp_path).mac_key("acme") == expected


def test_what_is_not_given_comes_from_the_folder(tmp_path: Path) -> None:
    kept = AuditKeys(tmp_path)
    keys = GivenKeys(None, None, tmp_path)
    assert keys.key_id == kept.key_id
    assert kept.check(b"x", keys.sign(b"x"))
    assert keys.mac_key("t") == kept.mac_key("t")
    assert GivenKeys(None, MASTER, tmp_path).mac_key("t") != kept.mac_key("t")
    assert GivenKeys(pem(), None, tmp_path).mac_key("t") == kept.mac_key("t")


def test_the_public_half_can_be_handed_out(tmp_path: Path) -> None:
    keys = GivenKeys(pem(), MASTER, tmp_path)
    (tmp_path / "audit.pub").write_bytes(keys.public_pem)
    public = PublicKey.read(tmp_path / "audit.pub")
    assert public.key_id == keys.key_id
    assert public.check(b"x", keys.sign(b"x"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret-words",
        pem()[:-40],
        generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    ],
)
def test_a_key_that_is_none_is_refused_and_never_quoted(text: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="FULCRUM_AUDIT_SIGNING_KEY") as caught:
        GivenKeys(text, MASTER, tmp_path)
    assert "secret-words" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_short_master_is_refused_and_never_quoted(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="FULCRUM_AUDIT_MAC_KEY") as caught:
        GivenKeys(pem(), "short-secret", tmp_path)
    assert "short-secret" not in str(caught.value)
    assert MASTER not in repr(GivenKeys(pem(), MASTER, tmp_path))


def test_the_key_for_nats_is_another_than_any_tenant_s(tmp_path: Path) -> None:
    found = nats_key(MASTER, tmp_path / "a")
    assert found == nats_key(MASTER, tmp_path / "b") != nats_key(MASTER[::-1], tmp_path)
    extracted = hmac.digest(b"\0" * 32, MASTER.encode(), hashlib.sha256)
    assert found == hmac.digest(extracted, b"fulcrum nats\0\x01", hashlib.sha256)
    assert found not in [GivenKeys(pem(), MASTER, tmp_path).mac_key(tenant) for tenant in ("", "nats", "default")]
    assert list(tmp_path.iterdir()) == []


def test_the_key_for_nats_is_made_in_the_folder_where_no_master_is_given(tmp_path: Path) -> None:
    found = nats_key(None, tmp_path / "keys")
    assert (len(found), nats_key(None, tmp_path / "keys")) == (32, found)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["nats.key"]
    assert (tmp_path / "keys" / "nats.key").stat().st_mode & 0o077 == 0
    (tmp_path / "keys" / "nats.key").write_bytes(b"short")
    with pytest.raises(Invalid, match=r"nats\.key is not 32 bytes"):
        nats_key(None, tmp_path / "keys")
    with pytest.raises(Invalid, match="FULCRUM_AUDIT_MAC_KEY"):
        nats_key("short-secret", tmp_path)
