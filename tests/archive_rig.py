"""Records as gateways write them, for whoever stores them, and a leader in a few lines."""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fulcrum_mcp.core.audit import ChainWriter, RecordDraft
from fulcrum_mcp.core.checkpoint import checkpoint_line, line_hash
from fulcrum_mcp.ports import Archive, ArchivedRecord, Chains, Signer, StoreBatch
from fulcrum_mcp.processor.archived import archived

__all__ = ["Author", "call_drafts", "hour_start", "lead", "now_us", "put", "record_of"]

DECIDED = "dev.fulcrum.tool_call.decided"
FINISHED = "dev.fulcrum.tool_call.finished"
_RANDOM = random.Random()  # of its own: Hypothesis sets the common one back
Inputs = list[tuple[str, str, int, bytes]]


def now_us() -> int:
    return time.time_ns() // 1000


def hour_start() -> int:
    """The begin (us) of the hour before the last full one: over, and never split by a test."""
    hour = 3_600_000_000
    return (now_us() // hour - 2) * hour


def record_of(line: bytes) -> ArchivedRecord:
    record = archived(line)
    assert isinstance(record, ArchivedRecord), record
    return record


def call_drafts(
    *,
    tenant: str = "default",
    agent: str = "alice",
    tool: str = "read",
    effect: str = "allow",
    outcome: str = "ok",
    at: int | None = None,
    duration_us: int = 1500,
    charged: Mapping[str, int] | None = None,
    cost: Mapping[str, int] | None = None,
    budgets: Sequence[Mapping[str, Any]] = (),
    inputs: bytes | None = b'{"arguments":{}}',
    filler: str = "",
) -> list[RecordDraft]:
    """One call: its decision and, if that allows it, its end 1 ms later; `at` in us."""
    moment = (now_us() if at is None else at) * 1000
    call = f"call_{uuid.UUID(int=_RANDOM.getrandbits(128))}"
    about = {
        "decision_id": call.replace("call_", "dec_"),
        "call_id": call,
        "leg": 0,
        "server": "files",
        "tool": tool,
        "principal": {"agent": agent, "key": "k1", "roles": ["dev"]},
    }
    decided = {
        **about,
        "effect": effect,
        "reasons": [] if effect == "allow" else [{"policy": "guard", "rule": "r", "code": "no", "message": "not so"}],
        "cost": dict(cost or {"calls": 1}),
        "budgets": list(budgets),
        "arguments_mac": filler or "hmac-sha256:" + "0" * 64,
        "duration_us": 70,
    }
    if effect != "allow":
        return [_draft(tenant, DECIDED, call, moment, decided, inputs)]
    if charged is not None:
        decided["reserved"] = dict(charged)
    finished = {
        **about,
        "outcome": outcome,
        "bytes": 100,
        "duration_us": duration_us,
        "cost": dict(cost or {"calls": 1}),
    }
    if charged is not None:
        finished["charged"] = dict(charged)
    return [
        _draft(tenant, DECIDED, call, moment, decided, inputs),
        _draft(tenant, FINISHED, call, moment + 1_000_000, finished, None),
    ]


def _draft(tenant: str, kind: str, subject: str, at: int, data: Mapping[str, Any], inputs: bytes | None) -> RecordDraft:
    text = json.dumps(data, separators=(",", ":")).encode()
    return RecordDraft(str(uuid.UUID(int=_RANDOM.getrandbits(128))), tenant, kind, subject, at, text, inputs)


class Author:
    """One writer and its chains."""

    def __init__(self, writer: str = "w1") -> None:
        self.writer = writer
        self._chains: dict[str, ChainWriter] = {}

    def write(self, drafts: Iterable[RecordDraft]) -> tuple[list[ArchivedRecord], Inputs]:
        """The records and inputs of these drafts, in order."""
        records: list[ArchivedRecord] = []
        inputs: Inputs = []
        for draft in drafts:
            chain = self._chains.setdefault(draft.tenant, ChainWriter(self.writer, draft.tenant))
            records.append(record_of(chain.add(draft)[0]))
            if draft.inputs is not None:
                inputs.append((draft.id, draft.tenant, draft.time // 1000, draft.inputs))
        return records, inputs

    def calls(self, number: int, **options: Any) -> tuple[list[ArchivedRecord], Inputs]:
        return self.write(draft for _ in range(number) for draft in call_drafts(**options))


def put(archive: Archive, written: tuple[list[ArchivedRecord], Inputs]) -> list[ArchivedRecord]:
    """Store what fits, and nothing else; the records."""
    assert archive.store(*written) == []
    return written[0]


class Led(NamedTuple):
    """What a leader did."""

    records: int
    checkpoints: int


def lead(
    chains: Chains, signer: Signer | None = None, *, at: Callable[[], str] = lambda: "2026-08-01T12:00:00Z"
) -> Led:
    """Take in every record that continues its chain; sign if there is a signer."""
    state = chains.load()
    taken = 0
    while links := chains.links({name: chain.size for name, chain in state.chains.items()}, 7):
        before = taken
        for link in links:
            chain = state.chains[link.chain]
            if link.seq == chain.size + 1 and link.prev == chain.head:
                chain.add(link.hash)
                taken += 1
        if taken == before:
            break
        chains.add(StoreBatch(chains=state.chains))
    lines: list[tuple[str, int, bytes]] = []
    if signer is not None:
        for tenant in sorted({chain.tenant for chain in state.chains.values() if chain.size != chain.signed}):
            number, prev = state.checkpoints.get(tenant, (0, "0" * 64))
            states = [chain for chain in state.chains.values() if chain.tenant == tenant]
            line = checkpoint_line(tenant, number + 1, prev, states, time=at(), key=signer.key_id, sign=signer.sign)
            state.checkpoints[tenant] = (number + 1, line_hash(line))
            lines.append((tenant, number + 1, line))
        for chain in state.chains.values():
            chain.signed = chain.size
        if lines:
            chains.add(StoreBatch(chains=state.chains, checkpoints=lines))
    return Led(taken, len(lines))


def batches(number: int, size: int, at: int) -> list[tuple[list[ArchivedRecord], Inputs]]:
    """The same in every process: so many batches of so many records, of two tenants, with money."""
    _RANDOM.seed(number * 1000 + size)
    author = Author("shared")
    budgets = [{"id": "b1", "bucket": "alice", "starts": 1_700_000_000_000_000_000}]
    made: list[tuple[list[ArchivedRecord], Inputs]] = []
    for _ in range(number):
        drafts: list[RecordDraft] = []
        while len(drafts) < size:
            tenant = "other" if len(drafts) % 4 else "default"
            drafts += call_drafts(tenant=tenant, at=at, charged={"calls": 1, "usd_micros": 2}, budgets=budgets)
        made.append(author.write(drafts))
    return made
