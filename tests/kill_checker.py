"""Holds what an upstream saw against the audit trail and the ledger, after processes were killed."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audit_trails import DECIDED, FINISHED
from peers.marking_server import read_notes

from fulcrum_adapters.signing import AuditKeys
from fulcrum_adapters.sqlite.store import SqliteStore
from fulcrum_mcp.core.budget import Budget
from fulcrum_mcp.core.mac import mac
from fulcrum_mcp.gateway.ids import now_ns
from fulcrum_mcp.gateway.wire import encode

__all__ = ["Evidence", "faults", "gather", "planted_faults"]

_OUTCOMES = {"ok", "error", "timeout", "cancelled", "outcome_unknown", "withheld"}


@dataclass(slots=True)
class Evidence:
    """All there is. A call is known by the MAC of its arguments, which hold a mark that no other call has."""

    seen: Sequence[tuple[str, str]]
    """(tool, MAC of the arguments) of each call that the upstream saw, as often as it saw it."""
    answered: Mapping[str, str]
    """MAC -> `ok` or `denied`, of the calls whose answer reached the client."""
    records: Sequence[Mapping[str, Any]]
    refused: Sequence[str] = ()
    """MACs of calls that were denied because a part failed: nobody may have seen them."""
    held: int = 0
    """Reservations that are still open."""
    spent: Mapping[str, tuple[int, int, int]] = field(default_factory=dict[str, tuple[int, int, int]])
    """budget -> (calls committed, calls reserved, limit)."""
    costing: Mapping[str, int] = field(default_factory=dict[str, int])
    """budget -> how many of the calls that were seen it covers."""


def gather(
    data: Path,
    budgets: Sequence[Budget],
    notes: Sequence[Path],
    answered: Mapping[str, str],
    lines: Sequence[bytes],
    refused: Sequence[str] = (),
) -> Evidence:
    """From a data folder that nobody uses any more. `answered` and `refused` name calls by their texts; `lines` are
    an export's. A budget covers the tool its scope names, or every call."""
    key = AuditKeys(data / "keys").mac_key("default")

    def mac_of(text: str) -> str:
        return mac(key, encode({"text": text}))

    calls = [pair for path in notes for pair in read_notes(path)]
    tools = {budget.name: (budget.scope.id or "").removeprefix("marks__") for budget in budgets}
    spent: dict[str, tuple[int, int, int]] = {}
    with closing(SqliteStore(data / "ledger.db")) as store:
        for usage in store.ledger.usage(budgets, now_ns()):
            limit = usage.budget.limits["calls"]
            spent[usage.budget.name] = (usage.committed["calls"], usage.reserved["calls"], limit)
        held = sum(len(store.ledger.open(folder.name)) for folder in (data / "spool").iterdir())
    return Evidence(
        seen=[(tool, mac_of(text)) for tool, text in calls],
        answered={mac_of(text): answer for text, answer in answered.items()},
        records=[json.loads(line) for line in lines if line.startswith(b'{"specversion"')],
        refused=[mac_of(text) for text in refused],
        held=held,
        spent=spent,
        costing={name: sum(tools[name] in ("", tool) for tool, _ in calls) for name in spent},
    )


def faults(evidence: Evidence) -> list[str]:
    """Everything that is not as promised; empty when all is well."""
    return [*_places(evidence.records), *_calls(evidence), *_ends(evidence.records), *_money(evidence)]


def _places(records: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [f"record {name} stands there {n} times" for name, n in Counter(r["id"] for r in records).items() if n > 1]
    chains: dict[str, list[int]] = {}
    for record in records:
        chains.setdefault(record["chain"], []).append(record["seq"])
    for chain, seqs in chains.items():
        if sorted(seqs) != list(range(1, len(seqs) + 1)):
            found.append(f"chain {chain}: {len(seqs)} records, up to seq {max(seqs)}, some missing or twice")
    return found


def _calls(evidence: Evidence) -> list[str]:
    decided = [record["data"] for record in evidence.records if record["type"] == DECIDED]
    allowed = Counter(data["arguments_mac"] for data in decided if data["effect"] == "allow")
    denied = {data["arguments_mac"] for data in decided if data["effect"] != "allow"}
    seen = Counter(mac for _, mac in evidence.seen)
    found = [f"the upstream saw {mac} {number} times" for mac, number in seen.items() if number > 1]
    found += [f"the upstream saw {mac}, which was not decided" for mac in seen if allowed[mac] == 0]
    found += [f"{mac} was allowed {number} times" for mac, number in allowed.items() if number > 1]
    found += [f"the upstream saw {mac}, which was denied" for mac in seen if mac in denied]
    found += [f"the upstream saw {mac}, which was refused" for mac in evidence.refused if mac in seen]
    for call, answer in evidence.answered.items():
        if answer == "ok" and call not in seen:
            found.append(f"{call} was answered, and the upstream never saw it")
        if answer == "denied" and call not in denied:
            found.append(f"{call} was denied to its client without a record")
    return found


def _ends(records: Sequence[Mapping[str, Any]]) -> list[str]:
    allowed = {
        (record["data"]["call_id"], record["data"]["leg"])
        for record in records
        if record["type"] == DECIDED and record["data"]["effect"] == "allow"
    }
    finished = [record["data"] for record in records if record["type"] == FINISHED]
    ends = Counter((data["call_id"], data["leg"]) for data in finished)
    found = [f"{call} has {ends[call]} ends" for call in sorted(allowed) if ends[call] != 1]
    found += [f"{call} ended without having been allowed" for call in sorted(ends) if call not in allowed]
    found += [f"an outcome {data['outcome']}" for data in finished if data["outcome"] not in _OUTCOMES]
    return found


def _money(evidence: Evidence) -> list[str]:
    found = [f"{evidence.held} reservations are still open"] if evidence.held else []
    for budget, (committed, reserved, limit) in evidence.spent.items():
        if reserved:
            found.append(f"budget {budget}: {reserved} calls are still reserved")
        if committed > limit:
            found.append(f"budget {budget}: {committed} calls spent of {limit}")
        if committed < evidence.costing[budget]:
            found.append(f"budget {budget}: {committed} calls spent, the upstream saw {evidence.costing[budget]}")
    return found


def planted_faults(good: Evidence) -> dict[str, Evidence]:
    """The same evidence, each time with another fault that must be found."""
    records = list(good.records)
    decided = next(r for r in records if r["type"] == DECIDED and r["data"]["effect"] == "allow")
    finished = next(r for r in records if r["type"] == FINISHED)
    denied = next(r for r in records if r["type"] == DECIDED and r["data"]["effect"] != "allow")
    mac = decided["data"]["arguments_mac"]
    name, (committed, reserved, limit) = next(iter(good.spent.items()))

    def without(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Not there, and those after it moved up, so that only what is missing can tell."""
        chain, seq = record["chain"], record["seq"]
        rest = [r for r in records if r is not record]
        return [{**r, "seq": r["seq"] - 1} if r["chain"] == chain and r["seq"] > seq else r for r in rest]

    def doubled(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        last = max(r["seq"] for r in records if r["chain"] == record["chain"])
        return [*records, {**record, "id": "another", "seq": last + 1}]

    def spending(*figures: int) -> dict[str, tuple[int, int, int]]:
        return {**good.spent, name: (figures[0], figures[1], figures[2])}

    return {
        "a decided record dropped": replace(good, records=without(decided)),
        "a finished record dropped": replace(good, records=without(finished)),
        "a denial dropped": replace(good, records=without(denied)),
        "a record missing in its chain": replace(good, records=[r for r in records if r is not decided]),
        "a decided record doubled": replace(good, records=doubled(decided)),
        "a finished record doubled": replace(good, records=doubled(finished)),
        "a record stored twice": replace(good, records=[*records, finished]),
        "a call without a record": replace(good, seen=[*good.seen, ("mark", "hmac-sha256:00")]),
        "a call forwarded twice": replace(good, seen=[*good.seen, ("mark", mac)]),
        "a denied call forwarded": replace(good, seen=[*good.seen, ("mark", denied["data"]["arguments_mac"])]),
        "a refused call forwarded": replace(good, refused=[mac]),
        "an answer out of nothing": replace(good, answered={**good.answered, "hmac-sha256:00": "ok"}),
        "a reservation left open": replace(good, held=1),
        "a reservation left in a budget": replace(good, spent=spending(committed, reserved + 1, limit)),
        "more spent than allowed": replace(good, spent=spending(limit + 1, reserved, limit)),
        "less spent than seen": replace(good, spent=spending(good.costing[name] - 1, reserved, limit)),
    }
