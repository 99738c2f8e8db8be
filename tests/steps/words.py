"""What a gateway says to Valkey, by kind; and which reservations it was told that it holds."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from servers.steps import Message

from fulcrum_adapters.redis.server import Script

__all__ = ["KINDS", "admitted", "kind_of"]

_LEDGER: Final = Script("ledger.lua").sha.encode()
_REBUILD: Final = Script("rebuild.lua").sha.encode()
_OPERATIONS: Final = {
    1: "reserve",
    3: "release",
    2: "commit",
    4: "renew",
    5: "renew",
    7: "taint",
    6: "count",
    8: "history",
    9: "usage",
    10: "peek",
    11: "open",
}
"""By the number that the script knows an operation by; what a batch holds that stands first here names it."""
KINDS: Final = frozenset(
    {*_OPERATIONS.values(), "state", "stage", "flip", "memory", "load", "key read", "key kept", "key dropped"}
)
"""All that a gateway says without being harmed; `ping` comes after harm."""
_PLAIN: Final = {
    b"GET": "key read",
    b"SET": "key kept",
    b"DEL": "key dropped",
    b"INFO": "memory",
    b"SCRIPT": "load",
    b"PING": "ping",
}
_REQUEST: Final = 5
"""Which word of an EVALSHA is the request."""
_SEAL: Final = 40
_unpack = msgspec.msgpack.decode


def kind_of(words: tuple[bytes, ...]) -> str:
    """The message's kind."""
    if words[0] != b"EVALSHA":
        return _PLAIN[words[0]]
    if words[1] == _REBUILD:
        return str(_unpack(words[_REQUEST])[1][0])
    numbers = {operation[0] for operation in _operations(words)}
    return next(kind for number, kind in _OPERATIONS.items() if number in numbers)


def admitted(messages: Iterable[Message]) -> set[str]:
    """The calls whose reservation the server has admitted, as their gateway was told."""
    return {call for message in messages if message.delivered for call in _admissions(message)}


def _operations(words: tuple[bytes, ...]) -> list[Any]:
    operations: list[Any] = _unpack(words[_REQUEST])[-1]
    return operations


def _admissions(message: Message) -> Iterator[str]:
    words, answer = message.words, message.answer or b""
    if words[0] != b"EVALSHA" or words[1] != _LEDGER or answer[:1] != b"$":
        return
    said = _unpack(answer.partition(b"\r\n")[2][_SEAL:-2])
    if said[0] != 1:
        return
    for operation, outcome in zip(_operations(words), said[-1], strict=True):
        if operation[0] == 1 and outcome[0] == 1:
            yield operation[1].partition(":")[2]
