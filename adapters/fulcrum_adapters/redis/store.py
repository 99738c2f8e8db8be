"""The books on the server, as ledger and history both use them."""

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.faults import REBUILDING
from fulcrum_adapters.redis.naming import microseconds
from fulcrum_adapters.redis.server import RedisServer, Script
from fulcrum_mcp.errors import Unavailable

__all__ = ["RedisStore"]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_SEAL = 40
_BELIEVED, _FOREIGN, _ASKEW = 1, 2, 3


class RedisStore:
    """One installation's books, for any number of threads. Those of another one are neither used nor replaced."""

    def __init__(self, config: RedisConfig, installation: str = "") -> None:
        """`installation`: its id, the same for all that share these books."""
        self.config = config
        self._installation = installation
        self.server = RedisServer(config)
        self._ledger = Script("ledger.lua")
        self._rebuild = Script("rebuild.lua")
        self._bound = ""
        """The name that `state` told last: books of another one are not for us until it is asked again."""

    def read(self, operations: Sequence[Any], places: Sequence[Any] = (), rates: Sequence[Any] = ()) -> list[Any]:
        """The outcomes of operations that change nothing. Raises `Unavailable`."""
        return self._run(operations, 0, 0, places, rates)

    def write(
        self, operations: Sequence[Any], at: int, places: Sequence[Any] = (), rates: Sequence[Any] = ()
    ) -> list[Any]:
        """The outcomes of a batch, all of it applied; `at` in ns. Raises `Unavailable`."""
        return self._run(operations, microseconds(at), 1, places, rates)

    def _run(
        self, operations: Sequence[Any], at: int, writes: int, places: Sequence[Any], rates: Sequence[Any]
    ) -> list[Any]:
        request = _encode(
            (
                self._installation,
                self._bound,
                self.config.keep * 1_000,
                time.time_ns() // 1_000,
                round(self.config.skew * 1e6),
                at,
                writes,
                places,
                rates,
                operations,
            )
        )
        answer = self._answer(self._ledger, request)
        if answer[0] == 0:
            raise Unavailable(f"redis: {REBUILDING.format(place=self.config.place)}")
        if answer[0] == _FOREIGN:
            raise Unavailable(self._others())
        if answer[0] == _ASKEW:
            raise Unavailable(self._askew(answer[2] / 1e6))
        outcomes: list[Any] = answer[2]
        if len(outcomes) != len(operations):
            raise self._garbled()
        return outcomes

    def state(self) -> tuple[str, bool]:
        """The name of these books, or of those that are to be made; and whether they are made. Raises `Unavailable`."""
        self._bound, believed = self._ask("state", secrets.token_hex(8), str(self.config.keep * 1_000))
        return self._bound, believed

    def foreign(self) -> str | None:
        """Why these books are none of ours; None: they are, or there are none. Raises `Unavailable`."""
        _, believed = self._answer(self._rebuild, _encode((self._installation, ("state",))))
        return self._others() if believed == _FOREIGN else None

    def rebuild(self, *request: Any) -> bool:
        """One step of a rebuild; False where the run or the chunks are not as they were. Raises `Unavailable`."""
        return self._ask(*request)[1]

    def _ask(self, *request: Any) -> tuple[str, bool]:
        run, believed = self._answer(self._rebuild, _encode((self._installation, request)))
        if believed == _FOREIGN:
            raise Unavailable(self._others())
        return run, believed == _BELIEVED

    def _askew(self, seconds: float) -> str:
        which = "ahead of" if seconds > 0 else "behind"
        return (
            f"redis: this machine's clock is {abs(seconds):.0f} s {which} that of {self.config.place}, and budgets "
            f"need clocks that agree within {self.config.skew:.0f} s; set both by NTP"
        )

    def _others(self) -> str:
        prefix = self.config.prefix
        return (
            f'redis: {self.config.place} holds the books of another installation under the prefix "{prefix}", and both '
            "would forget each other's spending; set another redis.prefix here. If that installation is gone for good, "
            f"remove what it left: redis-cli --scan --pattern '{prefix}*' | xargs redis-cli del"
        )

    def evicts(self) -> str | None:
        """The name of a policy by which the server may throw away a part of the books; None where it keeps all."""
        said = self.server.command("INFO", "memory")
        lines = said.decode("utf-8", "replace").splitlines() if isinstance(said, bytes) else []
        known = dict(line.split(":", 1) for line in lines if ":" in line)
        policy = known.get("maxmemory_policy", "noeviction")
        return None if known.get("maxmemory", "0") == "0" or policy == "noeviction" else policy

    def _answer(self, script: Script, request: bytes) -> Any:
        """Request and answer carry a sum each, so that what was damaged on its way is seen on both ends."""
        key, prefix = f"{self.config.prefix}epoch", self.config.prefix
        seal = _sum(key.encode() + prefix.encode() + request)
        said: Any = self.server.run(script, key, prefix, request, seal)
        if not isinstance(said, bytes) or said[:_SEAL] != _sum(seal + said[_SEAL:]):
            raise self._garbled()
        try:
            answer = _decode(said[_SEAL:])
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            raise self._garbled() from fault
        return answer

    def _garbled(self) -> Unavailable:
        return Unavailable(
            f"redis: {self.config.place} answered what the ledger's script never says; check redis.url", doubtful=True
        )

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        self.server.close()


def _sum(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest().encode()
