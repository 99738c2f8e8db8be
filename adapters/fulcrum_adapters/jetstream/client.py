"""nats-py's client with a short way out and in, for what calls wait for.

What nats-py publishes is written by a task of its own, and what it hears passes a queue and a task of each
subscription: several turns of the loop for each message. Here what is said is written at once, and what is heard is
told from where it is read. Nothing else about the client is different.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from fulcrum_mcp.errors import Invalid

__all__ = ["Client", "Heard", "published"]

Heard: TypeAlias = Callable[[str, Mapping[str, str] | None, bytes], None]
"""Subject, headers, body; must be quick, and raise nothing."""


class Client(NatsClient):
    """One connection, as nats-py has it."""

    def __init__(self) -> None:
        super().__init__()
        self._hearing: dict[int, Heard] = {}

    async def hear(self, subject: str, heard: Heard) -> None:
        """Subscribe for as long as the connection lasts; `heard` is told each message while it is read."""
        made = await self.subscribe(subject, cb=_unheard)
        self._hearing[next(sid for sid, each in self._subs.items() if each is made)] = heard

    def say(self, commands: Sequence[bytes]) -> None:
        """Write commands, behind what waits to be written; never waits. Raises `OSError`, `RuntimeError`."""
        if self._transport is None:
            raise ConnectionError("there is no connection")
        waiting, self._pending, self._pending_data_size = self._pending, [], 0
        self._transport.writelines([*waiting, *commands])

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        heard = self._hearing.get(sid)
        if heard is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            heard(subject.decode(), await self._process_headers(headers) if headers else None, data)


async def _unheard(_: Msg) -> None:
    """What `hear` has subscribed to does not come here."""


def published(subject: str, body: bytes, reply: str, headers: Mapping[str, str]) -> bytes:
    """A message with headers, as a command of the protocol. Raises `Invalid` for what would be read as two."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    lines = len(headers)
    if len(f"{subject} {reply}".split()) != 2 or (head.count("\n"), head.count("\r")) != (lines, lines):  # noqa: PLR2004 - two words
        raise Invalid("a message for NATS whose subject or headers are none")
    block = b"NATS/1.0\r\n%b\r\n" % head.encode()
    size = len(block)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), size, size + len(body), block, body)
