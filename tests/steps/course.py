"""One course of a gateway through every conversation that it has with Valkey, from its start to its successor's end.

Nothing in it depends on how a call ends, so that it goes its way whatever is done to the server meanwhile.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from servers.steps import StepProxy
from servers.valkey import ValkeyServer
from steps.books import difference
from steps.dead import die
from steps.gateway import Answer, Gateway, until
from steps.harms import Trigger, tell
from steps.pulse import Pulse
from steps.rules import settings_of
from steps.store import SpoolStore
from steps.upstream import Asked
from steps.words import admitted

from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.mac import mac
from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.gateway.records import DECIDED
from fulcrum_mcp.gateway.wire import encode
from fulcrum_mcp.ports import ArchivedRecord
from fulcrum_mcp.settings import Settings

__all__ = ["Course"]

HEALED: Final = 6.0
"""Seconds after healing within which calls are admitted again."""
START: Final = 2.5
"""Seconds for which the course waits for a ledger that does not serve, before it goes on without."""
LOST: Final = 2.5


class Course:
    """Everything of one cell but its judgement. `wrong` are complaints that arose on the way."""

    def __init__(self, folder: Path, server: ValkeyServer, proxy: StepProxy, trigger: Trigger) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.server = server
        self.proxy = proxy
        self.trigger = trigger
        self.wrong: list[str] = []
        self.answers: list[Answer] = []
        self.healed_after = 0.0
        self.writers: set[str] = set()
        self.budgets: list[Budget] = []
        self.settings = Settings(data=self.data)
        self.store = SpoolStore(self.data)
        self.spoil: Callable[[Gateway], None] = lambda _: None
        """Plants a fault into each gateway of the course."""
        self.asked = Asked(self._complaint)
        self.pulse = Pulse()
        self._numbers = itertools.count(1)
        self._gateway: Gateway | None = None
        self._secret = False

    def know_budgets(self) -> list[Budget]:
        """All that there are now."""
        assert self._gateway is not None
        self.budgets = list(self._gateway.installation._budgets())
        return self.budgets

    def mac_of(self, text: str) -> str:
        """How the trail names a call."""
        assert self._gateway is not None
        return mac(self._gateway.server.plane.stores.keys.mac_key("default"), encode({"text": text}))

    def _complaint(self, text: str) -> str:
        """Asked by the upstream as a call arrives: what is missing for it to be here."""
        wanted = self.mac_of(text)
        records = [record for record in self.store.written() if record.type == DECIDED and record.effect == "allow"]
        decided = [record for record in records if json.loads(record.line)["data"]["arguments_mac"] == wanted]
        if not decided:
            return "no durable decision"
        call = decided[-1].subject
        first = next((record for record in records if record.subject == call and record.leg == 0), None)
        if first is None or first.spend is None or first.spend.reserved is None:
            return "its decision holds nothing"
        return "" if call in admitted(self.proxy.messages) else "no reservation was admitted"

    async def run(self, url: str) -> None:
        """The whole course; `url` is where `asked` listens."""
        self.settings = settings_of(self.folder, url, self.proxy.through(self.server.url))
        async with self.pulse:
            await self._run()

    async def _run(self) -> None:
        gateway = await self._open()
        try:
            await self._know_a_key(gateway)
            await self._spend(gateway)
            await self._taint(gateway)
            await self._part(gateway)
            await self._change(gateway)
            await self._bury(gateway)
            await self._right_again(gateway)
            await self._lose(gateway)
            await self._right_again(gateway)
            self.asked.let_go.clear()
            held, text = gateway.begin("slow")
            await self._there(lambda: self.asked.times(text) > 0 or held.task.done())
        finally:
            await self._close(gateway)
        successor = await self._open()
        try:
            await self._right_again(successor)
            await self._export(successor)
        finally:
            await self._close(successor)

    async def _there(self, condition: Callable[[], bool], seconds: float = 1.2) -> bool:
        return await until(condition, seconds)

    async def _open(self) -> Gateway:
        gateway = await Gateway.open(self.settings, self.store, self._numbers, self.pulse)
        gateway.answers = self.answers
        self._gateway = gateway
        self.writers.add(gateway.journal.writer)
        self.asked.let_go.clear()
        self.spoil(gateway)
        await until(lambda: gateway.serves, START)
        return gateway

    @staticmethod
    async def _close(gateway: Gateway) -> None:
        await gateway.close()

    async def _know_a_key(self, gateway: Gateway) -> None:
        """Keys are read through the cache, and dropped from it when they are revoked."""
        made = await gateway.make("/api/v1/keys", {"name": "bot", "agent": "bot"})
        gone = await gateway.ask("DELETE", f"/api/v1/keys/{made['key']['id']}")
        assert gone.status in (200, 204, 503), gone.body

    async def _spend(self, gateway: Gateway) -> None:
        """Reserved, committed at what it cost, refused."""
        await gateway.call("mark")
        await gateway.settled()
        await asyncio.gather(gateway.call("mark"), gateway.call("dear"))
        for tool in ("scarce", "paced"):
            for _ in range(2):
                await gateway.call(tool)
        await gateway.settled()

    async def _taint(self, gateway: Gateway) -> None:
        """What a result taints is seen by later calls of the same envelope."""
        self._secret |= (await gateway.call("secret", envelope="e1")).kind == "ok"
        await self._export(gateway)

    async def _export(self, gateway: Gateway) -> None:
        answer = await gateway.call("export", envelope="e1")
        if self._secret and answer.kind not in ("tainted", "unavailable"):
            self.wrong.append(f"the taint is not seen: {answer}")

    async def _part(self, gateway: Gateway) -> None:
        """Two legs; a call whose record fails; a call whose client goes."""
        asked = await gateway.call("ask")
        if asked.kind == "asked":
            again = {"text": asked.text, "requestState": asked.state}
            await gateway.call("ask", **again, inputResponses={"q": {"action": "accept", "content": {}}})
        await gateway.settled()
        gateway.installation.log.fails = True
        failed = await gateway.call("mark")
        if failed.kind != "unavailable":
            self.wrong.append(f"its record failed: {failed}")
        gateway.installation.log.fails = False
        left, text = gateway.begin("slow")
        await self._there(lambda: self.asked.times(text) > 0 or left.task.done())
        left.disconnect()
        with suppress(AssertionError):  # whatever it is told, nobody hears it
            await left.end()
        await gateway.settled()

    async def _change(self, gateway: Gateway) -> None:
        """Another budget counts from the next call on."""
        budget = {"name": "added", "scope": "tool:marks__added", "calls": 1, "period": "infinite"}
        await gateway.make("/api/v1/budgets", {**budget, "action": "hard"})
        listed = await gateway.ask("GET", "/api/v1/budgets")
        assert listed.status in (200, 503), listed.body
        await gateway.call("added")
        await gateway.call("added")

    async def _bury(self, gateway: Gateway) -> None:
        """What dead processes held is committed: when it has run out, and when their spools are found."""
        for ttl in (0, 90):
            self.writers.add(await asyncio.to_thread(die, self.server.url, self.data, self.know_budgets(), ttl))
            gateway.journal._renewal.renew()
            await gateway.settled()
        await gateway.recover()

    async def _lose(self, gateway: Gateway) -> None:
        """The server is emptied while a call is on its way; the books are made anew."""
        self.asked.let_go.clear()
        held, text = gateway.begin("slow")
        began = self.pulse.now
        await self._there(lambda: self.asked.times(text) > 0 or held.task.done())
        await gateway.call("mark")
        await gateway.settled()
        with suppress(Exception):  # it may be down
            await asyncio.to_thread(tell, self.server, "FLUSHALL")
        await gateway.call("mark")
        await until(lambda: not gateway.serves, LOST)
        await until(lambda: gateway.serves, LOST)
        self.asked.let_go.set()
        gateway.note("slow", text, await held.end(), self.pulse.now - began)
        await self._export(gateway)
        await gateway.settled()

    async def _right_again(self, gateway: Gateway) -> None:
        """Once all harm is over: calls are admitted, nothing waits, and the books are right."""
        while True:
            struck_at = self.trigger.struck_at
            if struck_at is not None:
                await until(lambda: self.trigger.done.is_set() and not self.proxy.under_way, 12.0)
            found = [wrong async for wrong in self._not_right(gateway)]
            if struck_at == self.trigger.struck_at:
                self.wrong += found
                return

    async def _not_right(self, gateway: Gateway) -> AsyncIterator[str]:
        began = self.pulse.now
        while (await gateway.call("mark")).kind != "ok" or not gateway.serves:
            if self.pulse.now - began > HEALED:
                yield f"not right again within {HEALED:g} s: {gateway.installation.keeper.waiting}"
                return
            await asyncio.sleep(0.05)
        await gateway.recover()
        self.healed_after = max(self.healed_after, self.pulse.now - began)
        waiting = await gateway.settled(HEALED)
        if waiting:
            yield f"the journal does not come to rest: {waiting}"
        budgets, different = self.know_budgets(), ""
        while different := await asyncio.to_thread(self._difference, budgets):
            if self.pulse.now - began > HEALED:
                yield different
                return
            await asyncio.sleep(0.05)

    def _difference(self, budgets: list[Budget]) -> str:
        try:
            return difference(self.server.url, self.records(), budgets, self.writers)
        except Unavailable as fault:
            return str(fault)

    def records(self) -> list[ArchivedRecord]:
        """The whole trail."""
        return self.store.written()
