"""The audit trail as the REST face asks for it: the principal's own tenant only."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from fulcrum_mcp.control.access import require
from fulcrum_mcp.control.audit import export_trail, query_records
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import NotFound, Unavailable
from fulcrum_mcp.ports import AuditQuery, AuditReader, DecisionRecord, Signer, StoredRecord

__all__ = ["StoredTrail"]


class StoredTrail:
    """Implements `api.rest.AuditTrail`; `open_reader` gives a reader for one question."""

    def __init__(self, open_reader: Callable[[], AuditReader], signer: Signer, drain: Callable[[], bool]) -> None:
        self._open = open_reader
        self._signer = signer
        self._drain = drain

    def query(self, principal: Principal, query: AuditQuery) -> Sequence[StoredRecord]:
        """See `AuditTrail`."""
        require(principal, "audit:read")
        with closing(self._open()) as reader:
            return query_records(reader, replace(query, tenant=principal.tenant))

    def decision(self, principal: Principal, decision_id: str) -> DecisionRecord:
        """See `AuditTrail`."""
        require(principal, "audit:read")
        with closing(self._open()) as reader:
            found = reader.decision(principal.tenant, decision_id)
        if found is None:
            raise NotFound(f"decision {decision_id} is not in the audit trail; list the decisions to see their ids.")
        return found

    def export(self, principal: Principal) -> Iterator[bytes]:
        """See `AuditTrail`."""
        require(principal, "audit:read")
        if not self._drain():
            raise Unavailable("the audit store is behind its spools; try again in a moment")
        with closing(self._open()) as reader:
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            yield from export_trail(reader, self._signer, principal.tenant, moment)
