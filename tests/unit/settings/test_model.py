import pytest
from pydantic import SecretStr, ValidationError

from fulcrum_mcp.settings.model import Bind, ServerSettings


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil", False),
    ],
)
def test_loopback_is_told_apart(host: str, loopback: bool) -> None:
    assert Bind(host=host, port=1).loopback is loopback


def test_an_address_is_written_as_urls_need_it() -> None:
    assert (str(Bind(host="::1", port=1)), str(Bind(host="a", port=2))) == ("[::1]:1", "a:2")


def test_settings_do_not_change_and_do_not_tell() -> None:
    server = ServerSettings(name="a", url="https://x/?key=s3cret", headers={"A": SecretStr("s3cret")})
    assert "s3cret" not in repr(server)
    with pytest.raises(ValidationError):
        server.name = "b"
