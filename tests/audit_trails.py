"""Makes records and trails for the audit tests."""

import json
import uuid
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from fulcrum_adapters.memory.audit import MemoryAuditLog, MemoryAuditStore
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.control.audit import export_trail
from fulcrum_mcp.core.audit import RecordDraft
from fulcrum_mcp.core.trail import Fault, TrailVerifier
from fulcrum_mcp.processor import Intake

DECIDED = "dev.fulcrum.tool_call.decided"
FINISHED = "dev.fulcrum.tool_call.finished"
TIME = 1_790_000_000_123_456_789

_numbers = count(1)


def new_id(prefix: str = "") -> str:
    return prefix + str(uuid.UUID(int=(0x0190_0000_0000_7000 << 64) | (1 << 63) | next(_numbers)))


def decided(
    call: str, *, effect: str = "allow", leg: int = 0, tenant: str = "default", agent: str = "alice", tool: str = "read"
) -> RecordDraft:
    data = {
        "decision_id": call.replace("call_", "dec_"),
        "call_id": call,
        "leg": leg,
        "server": "files",
        "tool": tool,
        "principal": {"agent": agent, "key": "k", "roles": []},
        "effect": effect,
        "duration_us": 321,
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    return RecordDraft(new_id(), tenant, DECIDED, call, TIME + next(_numbers) * 1_000_000, text, b'{"arguments":{}}')


def finished(call: str, *, outcome: str = "ok", leg: int = 0, tenant: str = "default") -> RecordDraft:
    data = {"decision_id": call.replace("call_", "dec_"), "call_id": call, "leg": leg, "outcome": outcome}
    text = json.dumps(data, separators=(",", ":")).encode()
    return RecordDraft(new_id(), tenant, FINISHED, call, TIME + next(_numbers) * 1_000_000, text)


def calls(number: int, *, tenant: str = "default") -> list[RecordDraft]:
    """So many calls, each decided and finished."""
    drafts: list[RecordDraft] = []
    for _ in range(number):
        call = new_id("call_")
        drafts += [decided(call, tenant=tenant), finished(call, tenant=tenant)]
    return drafts


def intake_all(intake: Intake) -> list[str]:
    """Step until nothing is new; the faults."""
    faults: list[str] = []
    while (found := intake.step()) is not None:
        faults += found
    return faults


def exported(store: MemoryAuditStore, keys: AuditKeys, tenant: str | None = None) -> list[bytes]:
    return list(export_trail(store, keys, tenant, "2026-08-01T12:00:00Z"))


def small_trail(keys: AuditKeys) -> list[bytes]:
    """Two tenants, three chains, five checkpoints, and a tail that no checkpoint covers."""
    store = MemoryAuditStore()
    first, second = MemoryAuditLog("w1"), MemoryAuditLog("w2")
    for log, parts in ((first, (4, 3, 2)), (second, (2, 0, 1))):
        intake = Intake(log, store, keys, breath=0.0)
        for number in parts:
            log.append([*calls(number), *(calls(1, tenant="other") if log is first and number == 3 else [])])
            intake_all(intake)
            if number != 1:
                intake.sign()
    return exported(store, keys)


def verdict(lines: Iterable[bytes], keys: AuditKeys) -> Fault | None:
    verifier = TrailVerifier(keys.key_id, keys.check)
    for line in lines:
        fault = verifier.feed(line)
        if fault is not None:
            return fault
    return verifier.finish()


def split_file(raw: bytes) -> list[bytes]:
    """Lines as a reader of the file sees them."""
    return raw.splitlines(keepends=True) if b"\r" not in raw else _split(raw)


def _split(raw: bytes) -> list[bytes]:
    parts = raw.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def folder_lines(paths: Sequence[Path]) -> list[bytes]:
    return [line for path in paths for line in split_file(path.read_bytes())]
