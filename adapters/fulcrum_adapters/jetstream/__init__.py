"""NATS JetStream: records from gateways to processors, and the news of changes."""

from fulcrum_adapters.jetstream.config import JetStreamConfig
from fulcrum_adapters.jetstream.config_feed import JetStreamConfigFeed
from fulcrum_adapters.jetstream.connection import Connection
from fulcrum_adapters.jetstream.feed import JetStreamAuditFeed
from fulcrum_adapters.jetstream.log import JetStreamLog
from fulcrum_adapters.jetstream.seal import Seal
from fulcrum_adapters.jetstream.stream import JetStreamAuditStream
from fulcrum_adapters.jetstream.streams import check_streams, ensure_streams
from fulcrum_adapters.jetstream.subjects import tenant_of
from fulcrum_adapters.jetstream.view import JetStreamView

__all__ = [
    "Connection",
    "JetStreamAuditFeed",
    "JetStreamAuditStream",
    "JetStreamConfig",
    "JetStreamConfigFeed",
    "JetStreamLog",
    "JetStreamView",
    "Seal",
    "check_streams",
    "ensure_streams",
    "tenant_of",
]
