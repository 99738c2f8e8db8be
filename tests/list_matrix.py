"""The list law's matrix: principals, things to list, and random policies; and who may see and call what."""

import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asgi_driver import Exchanged
from gateway_rig import Client, Rig, engine_of
from scripted_server import HANDSHAKE, MODERN, ScriptedServer, tool

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.decision import combine
from fulcrum_mcp.gateway.denial import DECISION_META

__all__ = [
    "Finding",
    "Thing",
    "called",
    "listed",
    "matrix_servers",
    "outcome",
    "people",
    "plain_policies",
    "random_policy",
    "things",
    "violations",
]

KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "tools/list": ("tools", "name", "tools/call"),
    "prompts/list": ("prompts", "name", "prompts/get"),
    "resources/list": ("resources", "uri", "resources/read"),
}
"""List method -> member, name of an entry, and the method that uses one."""

_CLIENTS: Final = ("cli-a", "cli-b")


def people(count: int) -> dict[str, Principal]:
    """Principals by key; neighbours differ in one thing only."""
    found: dict[str, Principal] = {}
    for number in range(count):
        roles = (("reader",), ("writer",), ("reader", "writer"), ())[number % 4]
        behalf = {"sub": f"user{number % 3}"} if number % 2 else None
        scopes = frozenset({"tool:call", *(("audit:read",) if number % 3 == 0 else ())})
        found[f"key{number}"] = Principal(f"t{number % 2}", f"agent{number // 4}", f"k{number}", roles, scopes, behalf)
    return found


def matrix_servers(tools: int) -> tuple[ScriptedServer, ScriptedServer]:
    """Two servers that share some names and URIs; as many tools as asked for in all."""
    hints = [{"readOnlyHint": True}, {"destructiveHint": True}, {}, {"readOnlyHint": False, "openWorldHint": True}]
    each = [
        tool(f"t{number // 2}", annotations=hints[number % 4], **({"title": "Shown"} if number % 3 else {}))
        for number in range(tools)
    ]
    prompts = [{"name": f"p{number}"} for number in range(3)]
    resources = [{"uri": f"file:///{number}", "name": "r"} for number in range(3)]
    return (
        ScriptedServer("files", tools=each[::2], prompts=prompts, resources=resources),
        ScriptedServer("web", tools=each[1::2], prompts=prompts[:2], resources=resources[1:]),
    )


_CONDITIONS: Final = (
    '"reader" in input.principal.roles',
    '"writer" in input.principal.roles',
    "count(input.principal.roles) == 0",
    'input.principal.agent == "agent0"',
    'input.principal.key in {"k0", "k3", "k5", "k9"}',
    'input.principal.tenant == "t1"',
    '"audit:read" in input.principal.scopes',
    'input.principal.on_behalf_of.sub == "user1"',
    "not input.principal.on_behalf_of",
    "input.tool.annotations.readOnlyHint == true",
    "input.tool.annotations.destructiveHint",
    "not input.tool.annotations.readOnlyHint",
    'input.tool.title == "Shown"',
    'input.tool.name in {"t0", "t2", "t5"}',
    'input.server.name == "web"',
    'input.prompt.name == "p1"',
    "input.prompt",
    'endswith(input.resource.uri, "1")',
    "input.resource",
    'input.context.client == "cli-a"',
    'input.context.protocol == "2026-07-28"',
)


def plain_policies() -> list[str]:
    """One policy for each condition."""
    return [
        f"package fulcrum.policies.plain{number}\n\nimport rego.v1\n\nallow if {{\n\t{condition}\n}}\n"
        for number, condition in enumerate(_CONDITIONS)
    ]


def random_policy(seed: int) -> str:
    """A policy whose rules look at who and what only, never at phase, arguments or the past."""
    dice = random.Random(seed)

    def rule(head: str) -> str:
        lines = "\n\t".join(dice.sample(_CONDITIONS, dice.randint(1, 2)))
        return f"{head} if {{\n\t{lines}\n}}\n"

    rules = [rule("allow") for _ in range(dice.randint(1, 3))]
    rules += [rule(f'deny contains "d{number}"') for number in range(dice.randint(0, 2))]
    rules += [rule('require_approval contains "ask"') for _ in range(dice.randint(0, 1))]
    if not seed % 3:
        rules.append("allow := true\n")
    return f"package fulcrum.policies.p{seed}\n\nimport rego.v1\n\n" + "\n".join(rules)


@dataclass(frozen=True, slots=True)
class Thing:
    """Something to list and use, under the name that a face shows it by."""

    method: str
    shown: str
    server: str
    descriptor: Mapping[str, Any]

    def document(self, principal: Principal, client: str, protocol: str) -> bytes:
        """What a policy should be asked in phase `list`, written down here once more."""
        who: dict[str, Any] = {name: getattr(principal, name) for name in ("tenant", "agent", "key", "roles")}
        who["scopes"] = sorted(principal.scopes)
        if principal.on_behalf_of is not None:
            who["on_behalf_of"] = principal.on_behalf_of
        member, named_by, _ = KINDS[self.method]
        what = {named_by: self.descriptor[named_by]}
        if member == "tools":
            what |= {name: self.descriptor[name] for name in ("title", "annotations") if name in self.descriptor}
        document = {
            "phase": "list",
            "method": self.method,
            "principal": who,
            "server": {"name": self.server, "labels": {}},
            "context": {"client": client, "protocol": protocol},
            member.removesuffix("s"): what,
        }
        return json.dumps(document).encode()


def things(servers: Iterable[ScriptedServer], *, merged: bool) -> list[Thing]:
    """Everything that these servers offer."""
    servers = list(servers)
    uris = [item["uri"] for server in servers for item in server.offers["resources"]]
    found: list[Thing] = []
    for server in servers:
        for method, (member, named_by, _) in KINDS.items():
            for item in server.offers[member]:
                own = item[named_by]
                shown = own
                if merged and member != "resources":
                    shown = f"{server.name}__{own}"
                elif merged and uris.count(own) > 1:
                    shown = f"{server.name}+{own}"
                found.append(Thing(method, shown, server.name, item))
    return found


@dataclass(frozen=True, slots=True)
class Finding:
    """One cell of the matrix where policy, list and call do not agree."""

    key: str
    shown: str
    policy: str
    wanted: bool
    listed: bool
    outcome: str


def _params(client: str, **params: Any) -> dict[str, Any]:
    return {**params, "_meta": {"io.modelcontextprotocol/clientInfo": {"name": client, "version": "1"}}}


async def listed(speaker: Client, method: str, client: str = "cli-a") -> list[str]:
    """Every name that a list shows, page by page."""
    member, named_by, _ = KINDS[method]
    found: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        result = (await speaker.request(method, _params(client, **cursor))).result
        found += [item[named_by] for item in result[member]]
        if "nextCursor" not in result:
            return found
        cursor = {"cursor": result["nextCursor"]}


def outcome(reply: Exchanged) -> str:
    """`ok`, or the decision's effect and first code; `refused` for an error without a decision."""
    message = reply.message
    if "error" in message:
        decision = (message["error"].get("data") or {}).get(DECISION_META)
        return "refused" if decision is None else _told(decision)
    decision = message["result"].get("_meta", {}).get(DECISION_META)
    return "ok" if decision is None else _told(decision)


def _told(decision: Mapping[str, Any]) -> str:
    return f"{decision['effect']} {decision['reasons'][0]['code']}"


async def called(speaker: Client, method: str, name: str, client: str = "cli-a", **params: Any) -> str:
    """What becomes of one call."""
    _, named_by, use = KINDS[method]
    return outcome(await speaker.request(use, _params(client, **{named_by: name}, **params)))


async def violations(
    rig: Rig, path: str, principals: Mapping[str, Principal], policies: Iterable[str], *, modern: bool
) -> AsyncIterator[Finding]:
    """Every cell of principals x things x policies where policy, list and call do not agree."""
    speakers = {key: rig.client(path, modern=modern, key=key) for key in principals}
    if not modern:
        for speaker in speakers.values():
            await speaker.connect()
    merged = path == "/mcp"
    offered = things([rig.servers[name] for name in rig.servers if merged or f"/{name}/" in path], merged=merged)
    for text in policies:
        engine = engine_of(text)
        rig.use(engine)
        for number, (key, speaker) in enumerate(speakers.items()):
            client = _CLIENTS[number % 2]
            shown = {method: set(await listed(speaker, method, client)) for method in KINDS}
            for thing in offered:
                document = thing.document(principals[key], client, MODERN if modern else HANDSHAKE)
                wanted = combine(engine.judge("list", document), "list").effect != "deny"
                became = await called(speaker, thing.method, thing.shown, client)
                callable_ = became == "ok" or became.startswith("require_approval")
                is_listed = thing.shown in shown[thing.method]
                if not wanted == is_listed == callable_:
                    yield Finding(key, thing.shown, text, wanted, is_listed, became)
