import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fulcrum_adapters.signing import AuditKeys, PublicKey
from fulcrum_mcp.errors import Invalid, Unavailable


def test_keys_are_made_once_private_and_stay(tmp_path: Path) -> None:
    first = AuditKeys(tmp_path / "keys")
    again = AuditKeys(tmp_path / "keys")
    assert again.key_id == first.key_id
    assert first.mac_key("default") == again.mac_key("default")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {"audit.key": 0o600, "audit.pub": 0o644, "mac-default.key": 0o600}


def test_a_signature_is_checked_with_the_public_file_alone(tmp_path: Path) -> None:
    keys = AuditKeys(tmp_path)
    public = PublicKey.read(keys.public_path)
    signature = keys.sign(b"message")
    assert public.key_id == keys.key_id
    assert public.check(b"message", signature)
    assert not public.check(b"massage", signature)
    assert not public.check(b"message", b"short")


def test_the_public_file_is_one_that_openssl_reads(tmp_path: Path) -> None:
    keys = AuditKeys(tmp_path)
    assert keys.public_path.read_text().startswith("-----BEGIN PUBLIC KEY-----")


def test_many_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    found: list[tuple[str, bytes]] = []

    def run() -> None:
        barrier.wait(10)
        keys = AuditKeys(tmp_path)
        found.append((keys.key_id, keys.mac_key("t")))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.key", "audit.pub", "mac-t.key"]


@pytest.mark.parametrize("tenant", ["../../etc/passwd", "A", "a b", "", "ä", "x" * 200, "a/b", "x.y"])
def test_a_tenants_name_never_leaves_the_folder(tmp_path: Path, tenant: str) -> None:
    keys = AuditKeys(tmp_path)
    assert len(keys.mac_key(tenant)) == 32
    assert keys.mac_key(tenant) != keys.mac_key("default")
    assert len(list(tmp_path.iterdir())) == 4


def test_secrets_do_not_show(tmp_path: Path) -> None:
    keys = AuditKeys(tmp_path)
    key = keys.mac_key("t")
    assert key.hex() not in repr(keys)
    assert "PRIVATE" not in repr(keys)


@pytest.mark.parametrize("text", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_private_key_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "audit.key").write_bytes(text)
    with pytest.raises(Invalid, match=r"audit\.key"):
        AuditKeys(tmp_path)


def test_a_public_key_of_another_private_one_is_refused(tmp_path: Path) -> None:
    AuditKeys(tmp_path / "a")
    other = AuditKeys(tmp_path / "b").public_path.read_bytes()
    (tmp_path / "a" / "audit.pub").write_bytes(other)
    with pytest.raises(Invalid, match="not the public half"):
        AuditKeys(tmp_path / "a")


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    rsa = generate_private_key(65537, 2048)
    (tmp_path / "audit.key").write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Invalid, match="Ed25519"):
        AuditKeys(tmp_path)
    (tmp_path / "rsa.pub").write_bytes(rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(Invalid, match="Ed25519"):
        PublicKey.read(tmp_path / "rsa.pub")


def test_a_mac_key_that_was_cut_is_named(tmp_path: Path) -> None:
    (tmp_path / "mac-t.key").write_bytes(b"short")
    with pytest.raises(Invalid, match=r"mac-t\.key"):
        AuditKeys(tmp_path).mac_key("t")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"audit\.key"):
        AuditKeys(tmp_path / "file" / "keys")
