"""The ports: what the application needs from outside, said by its users; one module an owner.

Each docstring states the promise, the errors, idempotence and cancellation. Ports marked *quick* are called by the
journal on the event loop, one call at a time: they answer within a fraction of a millisecond or raise `Unavailable`
with `busy`. Those marked *synchronous* are called on a thread that may block; all others run on the loop and must not.
Every port has an adapter in `fulcrum_adapters.memory`, and one contract suite runs over all its adapters.
"""

from fulcrum_mcp.ports.archive import Archive, ArchivedRecord, Chains, DeadLetter, Link, Spend
from fulcrum_mcp.ports.audit import AuditLog, DistantLog, Leadership, OpenCall, Signer
from fulcrum_mcp.ports.config import (
    BudgetRepository,
    ConfigRepository,
    PolicyRepository,
    StoredConfig,
    StoredPolicies,
    SwitchRepository,
)
from fulcrum_mcp.ports.identity import ApiKey, Credentials, IdentityVerifier, KeyRepository
from fulcrum_mcp.ports.ledger import BudgetLedger, History, HistoryView, SharedLedger, WriterRegistry
from fulcrum_mcp.ports.policy import PolicyEngine
from fulcrum_mcp.ports.reading import AuditQuery, AuditReader, DecisionRecord, StoredRecord
from fulcrum_mcp.ports.spool import SpoolChunk, SpoolPosition, SpoolSource
from fulcrum_mcp.ports.store import AuditStore, StoreBatch, StoreState
from fulcrum_mcp.ports.stream import AuditFeed, AuditStream, ConfigFeed, Delivery, Parcel, Seen, StreamLag, StreamView
from fulcrum_mcp.ports.takeover import OpenPage, StoredPlace, Takeover
from fulcrum_mcp.ports.telemetry import Buckets, Metric, Point, Span, SpanSink
from fulcrum_mcp.ports.upstream import ServerSentEvent, Upstream, UpstreamReply, UpstreamRequest

__all__ = [
    "ApiKey",
    "Archive",
    "ArchivedRecord",
    "AuditFeed",
    "AuditLog",
    "AuditQuery",
    "AuditReader",
    "AuditStore",
    "AuditStream",
    "Buckets",
    "BudgetLedger",
    "BudgetRepository",
    "Chains",
    "ConfigFeed",
    "ConfigRepository",
    "Credentials",
    "DeadLetter",
    "DecisionRecord",
    "Delivery",
    "DistantLog",
    "History",
    "HistoryView",
    "IdentityVerifier",
    "KeyRepository",
    "Leadership",
    "Link",
    "Metric",
    "OpenCall",
    "OpenPage",
    "Parcel",
    "Point",
    "PolicyEngine",
    "PolicyRepository",
    "Seen",
    "ServerSentEvent",
    "SharedLedger",
    "Signer",
    "Span",
    "SpanSink",
    "Spend",
    "SpoolChunk",
    "SpoolPosition",
    "SpoolSource",
    "StoreBatch",
    "StoreState",
    "StoredConfig",
    "StoredPlace",
    "StoredPolicies",
    "StoredRecord",
    "StreamLag",
    "StreamView",
    "SwitchRepository",
    "Takeover",
    "Upstream",
    "UpstreamReply",
    "UpstreamRequest",
    "WriterRegistry",
]
