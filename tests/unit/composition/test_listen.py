"""The address on which clients come."""

import socket

import pytest

from fulcrum_mcp.composition.listen import listen, shown
from fulcrum_mcp.errors import Unavailable


@pytest.mark.parametrize(
    ("host", "reached"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
def test_bound_address_is_shown_as_a_client_here_reaches_it(host: str, reached: str) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert shown(listener) == f"{reached}:{port}"
        with socket.create_connection((reached.strip("[]"), port), timeout=5):
            pass


def test_address_that_is_taken_is_said_with_a_remedy() -> None:
    with (
        listen("127.0.0.1", 0) as listener,
        pytest.raises(Unavailable, match=r"cannot listen there .*--http HOST:PORT"),
    ):
        listen("127.0.0.1", listener.getsockname()[1])
