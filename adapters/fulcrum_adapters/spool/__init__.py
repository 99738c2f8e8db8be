"""The durable audit log: append-only segments under a lock."""

from fulcrum_adapters.spool.config import SpoolConfig
from fulcrum_adapters.spool.leader import FileLeadership
from fulcrum_adapters.spool.source import SpoolReader
from fulcrum_adapters.spool.spool import Spool

__all__ = ["FileLeadership", "Spool", "SpoolConfig", "SpoolReader"]
