"""An installation whose every dependency stands behind a fault proxy, the upstream too, and what its clients saw.

Tools of the upstream: `tight` and `scarce` have a hard budget (of a million and of two calls), `paced` a rate,
`halted` a kill switch; nothing matches `mark` and `spare`.
"""

import asyncio
import contextlib
import itertools
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import redis
from governed_processes import SERVER, VERSION, tool_call, until
from installation_rig import ADMIN, Installation, Replica
from kill_checker import Evidence, faults
from servers.process import HOST, Server
from servers.proxy import FaultProxy

from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.trail import TrailVerifier

__all__ = ["Answer", "Marks", "Site", "open_site"]

CONFIG = """\
anonymous = "dev"

[[server]]
name = "marks"
url = "{url}"
timeout = 1.0

[[budget]]
name = "tight"
scope = "tool:marks__tight"
calls = 1000000
period = "infinite"
action = "hard"

[[budget]]
name = "scarce"
scope = "tool:marks__scarce"
calls = 2
period = "infinite"
action = "hard"

[[rate]]
name = "paced"
scope = "tool:marks__paced"
limit = "100000/minute"
"""
SMALL_SPOOL = "\n[audit]\nmax_spool = 131072\n"
PAST = """\
package fulcrum.policies.past

import rego.v1

allow := true

deny contains "often" if {
	input.phase == "call"
	input.history.calls.by_tool["marks__mark"] > 1000000
}
"""
_NOTICED = 0.5
"""Seconds after which it is looked what of them the machine took."""
BLIND = "fulcrum_forwarded_without_decision_total"


class Marks(Server):
    """The upstream as a server that can be killed, paused and started again."""

    def __init__(self, folder: Path, notes: Path) -> None:
        super().__init__(folder)
        self._notes = notes

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/mcp"

    def command(self) -> Sequence[str]:
        return [sys.executable, str(SERVER), "http", str(self.port), str(self._notes)]

    def answers(self, seconds: float = 1.0) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=seconds):
            return True
        return False


@dataclass(frozen=True)
class Answer:
    """What became of one call."""

    kind: str
    """`ok`, `upstream` (a tool error of its own making), the code of the decision's first reason, or `HTTP STATUS`."""
    seconds: float
    """Without what the machine took (`stalls`)."""
    text: str
    retry_after: int | None = None

    @property
    def refused(self) -> bool:
        """Denied because a part failed."""
        return self.kind == "unavailable"


class Site:
    """`proxies` by part: `postgres`, `redis`, `nats`, `upstream`."""

    def __init__(
        self, installation: Installation, marks: Marks, upstream: FaultProxy, http: aiohttp.ClientSession
    ) -> None:
        self.installation = installation
        self.marks = marks
        self.proxies = {**installation.proxies, "upstream": upstream}
        self.servers: dict[str, Server] = {**installation.parts, "upstream": marks}
        self.http = http
        self.key = ""
        """An API key that is known to every replica."""
        self._known_at = time.monotonic()
        self.answered: dict[str, str] = {}
        self.refused: list[str] = []
        self.slowest = 0.0
        """Seconds of the longest refusal."""
        self._numbers = itertools.count(1)

    @property
    def pair(self) -> Sequence[Replica]:
        """The two replicas that are like each other."""
        return self.installation.replicas[:2]

    @property
    def odd(self) -> Replica:
        """The third, which has policies or a spool of its own."""
        return self.installation.replicas[2]

    async def know(self) -> None:
        """Make a key, and have every replica read it."""
        self._known_at = time.monotonic()
        status, text = await self.ask(self.pair[0], "POST", "/api/v1/keys", {"name": "known", "agent": "known"})
        assert status == 201, text
        self.key = json.loads(text)["key_secret"]

        async def agreed() -> bool:  # a change forgets keys: they are to be known after it
            return len({await self.metric(replica, "fulcrum_config_revision") for replica in self.pair}) == 1

        await until(agreed, "both replicas know of the new key")
        for replica in self.pair:
            assert (await self.call(replica, "mark", key=self.key)).kind == "ok"

    @property
    def known_for(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._known_at

    async def forward_past_the_gateway(self, text: str) -> None:
        """A planted fault: what the gateway has refused reaches the upstream."""
        async with self.http.post(self.marks.url, json=tool_call(0, "tight", text)) as reply:
            assert reply.status == 200

    async def call(self, replica: Replica, tool: str, *, key: str = "", patience: float = 15.0) -> Answer:
        """Call a tool once; the answer is noted for the evidence."""
        number = next(self._numbers)
        text = f"{replica.name}-{number}"
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": VERSION}
        headers |= {"mcp-method": "tools/call", "mcp-name": tool} | ({"x-api-key": key} if key else {})
        began = time.monotonic()
        async with (
            asyncio.timeout(patience),
            self.http.post(
                f"{replica.url}/servers/marks/mcp", json=tool_call(number, tool, text), headers=headers
            ) as reply,
        ):
            body = await reply.read()
        seconds = (now := time.monotonic()) - began
        if seconds > _NOTICED:
            seconds = self.installation.stalls.own(began, now)
        answer = (
            read_answer(body, seconds) if reply.status == 200 else Answer(f"HTTP {reply.status}", seconds, str(body))
        )
        if answer.kind == "ok":
            self.answered[text] = "ok"
        elif answer.refused:
            self.refused.append(text)
            self.slowest = max(self.slowest, answer.seconds)
        elif answer.kind in {"budget_exceeded", "rate_limited"} or (answer.kind, tool) == ("stopped", "halted"):
            self.answered[text] = "denied"  # what is stopped while it is judged ends as cancelled instead
        return answer

    async def ask(
        self, replica: Replica, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, str]:
        """One question to the control plane: status and text."""
        async with (
            asyncio.timeout(20),
            self.http.request(method, f"{replica.url}{path}", json=body, headers={"x-api-key": ADMIN}) as reply,
        ):
            return reply.status, (await reply.read()).decode()

    async def throw(self, replica: Replica, target: str) -> tuple[int, str]:
        """Throw a kill switch."""
        return await self.ask(replica, "POST", "/api/v1/kill-switches", {"target": target, "reason": "it runs wild"})

    async def lift(self, replica: Replica, target: str) -> None:
        """Lift what stops a target."""
        _, text = await self.ask(replica, "GET", "/api/v1/kill-switches")
        for switch in json.loads(text)["kill_switches"]:
            if switch["target"] == target:
                status, said = await self.ask(replica, "DELETE", f"/api/v1/kill-switches/{switch['id']}")
                assert status == 200, said

    async def blind(self) -> float:
        """Calls that were forwarded without a decision, over all replicas."""
        total = 0.0
        for replica in self.installation.replicas:
            status, text = await self.ask(replica, "GET", "/metrics")
            assert status == 200, text
            values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(BLIND)]
            assert values, f"{replica.name} does not say {BLIND}"
            total += sum(map(float, values))
        return total

    async def metric(self, replica: Replica, line: str) -> float:
        """The value behind a name with its labels."""
        _, text = await self.ask(replica, "GET", "/metrics")
        return next(float(said.rpartition(" ")[2]) for said in text.splitlines() if said.startswith(line))

    def heal(self) -> None:
        """Everything works again, whatever was done to it."""
        for server in self.servers.values():
            server.resume()
            server.start()
        with contextlib.closing(redis.Redis.from_url(self.installation.valkey.url)) as valkey:
            valkey.replicaof("no", "one")
        for proxy in self.proxies.values():
            proxy.heal()

    async def serves(self, seconds: float) -> float:
        """Seconds until every tool is answered as it should be again, on every replica."""
        began = time.monotonic()
        wanted = {"mark": "ok", "tight": "ok", "paced": "ok", "scarce": "budget_exceeded", "halted": "stopped"}
        for replica in self.installation.replicas:
            for tool, kind in wanted.items():

                async def right(replica: Replica = replica, tool: str = tool, kind: str = kind) -> bool:
                    return (await self.call(replica, tool)).kind == kind

                left = seconds - (time.monotonic() - began)
                await until(right, f"{replica.name} answers {tool} with {kind}", max(left, 0.1))
        return time.monotonic() - began

    def evidence(self) -> Evidence:
        """Of everything since the beginning."""
        return self.installation.evidence(dict(self.answered), list(self.refused))

    async def settled(self, seconds: float) -> Evidence:
        """The evidence once all is stored and nothing is wrong with it; fails with what is wrong."""
        deadline = time.monotonic() + seconds
        while True:
            evidence = await asyncio.to_thread(self.evidence)
            found = faults(evidence)
            if not found:
                return evidence
            assert time.monotonic() < deadline, found[:10]
            await asyncio.sleep(0.25)

    def verdict(self) -> str | None:
        """What `fulcrum audit verify` says of the whole trail; None: it verifies."""
        keys = self.installation.keys()
        verifier = TrailVerifier(keys.key_id, keys.check)
        with self.installation.reader() as reader:
            for line in export_trail(reader, keys, None, "2026-11-24T12:00:00Z"):
                fault = verifier.feed(line)
                if fault is not None:
                    return str(fault)
        fault = verifier.finish()
        return None if fault is None else str(fault)


def read_answer(body: bytes, seconds: float) -> Answer:
    """What an answer says; one that its upstream has garbled is a tool error."""
    message = json.loads(body)
    result = message.get("result")
    if result is None:
        return Answer("error", seconds, json.dumps(message.get("error")))
    content = result.get("content") or [{}]
    text = str(content[0].get("text", ""))
    if not result.get("isError"):
        return Answer("ok", seconds, text)
    decision = (result.get("_meta") or {}).get("dev.fulcrum/decision") or {}
    reasons = decision.get("reasons")
    if not reasons:
        return Answer("upstream", seconds, text)
    return Answer(reasons[0]["code"], seconds, text, decision.get("retry_after"))


@contextlib.asynccontextmanager
async def open_site(folder: Path, part: str) -> AsyncIterator[Site]:
    """Start it; with a third replica where a part's cells need one."""
    async with contextlib.AsyncExitStack() as stack:
        marks = Marks(folder / "marks", folder / "http.notes")
        stack.callback(marks.kill)
        await asyncio.to_thread(marks.start)
        upstream = FaultProxy(marks.port).start()
        stack.callback(upstream.stop)
        url = upstream.through(marks.url)
        installation = Installation(folder, url, direct=False, tight=0)
        installation.config.write_text(CONFIG.format(url=url))
        stack.push_async_callback(installation.close)
        await asyncio.to_thread(installation.open)
        installation.environ |= {"FULCRUM_POSTGRES_TIMEOUT": "2.0", "FULCRUM_NATS_TIMEOUT": "2.0"}
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await installation.add(2, 1)
        await _add_odd(installation, part)
        await installation.serving()
        site = Site(installation, marks, upstream, http)
        assert (await site.throw(site.pair[0], "tool:marks__halted"))[0] == 201
        for replica in site.pair:

            async def spent(replica: Replica = replica) -> bool:
                return (await site.call(replica, "scarce")).kind == "ok"

            await until(spent, "one of two calls is spent")
        await site.serves(20)
        yield site


async def _add_odd(installation: Installation, part: str) -> None:
    if part == "redis":
        policies = installation.folder / "past"
        policies.mkdir()
        (policies / "past.rego").write_text(PAST)
        await installation.add(1, 0, ("--policies", str(policies)))
    elif part == "nats":
        usual = installation.config
        installation.config = installation.folder / "small.toml"
        installation.config.write_text(usual.read_text() + SMALL_SPOOL)
        await installation.add(1, 0)
        installation.config = usual
