"""The audit trail for those who ask: query, one decision, export. Each face binds the tenant; None is all of them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fulcrum_mcp.core.trail import Fault, TrailVerifier
from fulcrum_mcp.errors import Invalid, NotFound
from fulcrum_mcp.ports import AuditQuery, AuditReader, Signer, StoredRecord

__all__ = ["MAX_LIMIT", "export_trail", "get_decision", "query_records", "record_document"]

MAX_LIMIT = 1000


def query_records(reader: AuditReader, query: AuditQuery) -> Sequence[StoredRecord]:
    """Records that match, newest first (oldest first with `after`). Raises `Invalid`, `Unavailable`."""
    if not 1 <= query.limit <= MAX_LIMIT:
        raise Invalid(f"limit {query.limit} is not between 1 and {MAX_LIMIT}")
    return reader.query(query)


def record_document(record: StoredRecord) -> dict[str, Any]:
    """A stored record as a JSON document: `row` for paging, `record` as it was written."""
    return {"row": record.row, "record": json.loads(record.line)}


def get_decision(reader: AuditReader, tenant: str | None, decision_id: str) -> Mapping[str, Any]:
    """`decision` (the decided record), `inputs` (what policy saw, redacted, or None), `finished` (records).

    Raises `NotFound`, also for another tenant's decision, and `Unavailable`.
    """
    found = reader.decision(tenant, decision_id)
    if found is None:
        raise NotFound(f"decision {decision_id} is not in the audit trail; `fulcrum audit query` lists what is")
    return {
        "decision": json.loads(found.decided),
        "inputs": None if found.inputs is None else json.loads(found.inputs),
        "finished": [json.loads(line) for line in found.finished],
    }


def export_trail(
    reader: AuditReader, signer: Signer, tenant: str | None, time: str, on_fault: Callable[[Fault], None] | None = None
) -> Iterator[bytes]:
    """Every line of an export, newlines included, the signed manifest at the end.

    Verifies what it writes: from the first fault on it signs nothing more, so that a trail that was changed in the
    store is not made good by its export; the rest follows all the same, without a manifest, and `on_fault` is told.
    Blocks (run it in a thread). `time` is RFC 3339.
    """
    verifier = TrailVerifier(signer.key_id, signer.check)
    fault: Fault | None = None
    for line in reader.lines(tenant):
        text = line + b"\n"
        if fault is None:
            fault = verifier.feed(text)
            if fault is not None and on_fault is not None:
                on_fault(fault)
        yield text
    if fault is None:
        yield verifier.manifest(time, signer.sign) + b"\n"
