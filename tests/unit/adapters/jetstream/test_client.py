"""The short way out and in: one command a message, whatever is in it."""

import pytest

from fulcrum_adapters.jetstream.client import published
from fulcrum_mcp.errors import Invalid


def test_a_message_is_one_command_with_its_sizes() -> None:
    command = published("a.b", b"body\r\nPING\r\n", "_INBOX.1", {"One": "1", "Two": "zwei"})
    head, _, rest = command.partition(b"\r\n")
    assert head == b"HPUB a.b _INBOX.1 31 43"
    assert rest == b"NATS/1.0\r\nOne: 1\r\nTwo: zwei\r\n\r\nbody\r\nPING\r\n\r\n"
    assert len(rest) == 43 + 2


def test_without_headers_there_is_still_a_block() -> None:
    assert published("a", b"", "b", {}) == b"HPUB a b 12 12\r\nNATS/1.0\r\n\r\n\r\n"


@pytest.mark.parametrize(
    ("subject", "reply", "headers"),
    [
        ("a b", "r", {}),
        ("a\r\nPUB x 0", "r", {}),
        ("", "r", {}),
        ("a", "r\t1", {}),
        ("a", "r", {"Name": "x\r\nOther: y"}),
        ("a", "r", {"Name": "x\nOther: y"}),
        ("a", "r", {"Na\rme": "x"}),
    ],
)
def test_what_would_be_two_commands_or_two_headers_is_refused(
    subject: str, reply: str, headers: dict[str, str]
) -> None:
    with pytest.raises(Invalid):
        published(subject, b"", reply, headers)
