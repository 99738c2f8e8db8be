"""The ledger, the history and caches on Redis or Valkey: one primary, possibly behind sentinels; no cluster."""

from fulcrum_adapters.redis.cache import CachedKeys, PolicyCache
from fulcrum_adapters.redis.config import RedisConfig
from fulcrum_adapters.redis.history import RedisHistory
from fulcrum_adapters.redis.ledger import RedisLedger
from fulcrum_adapters.redis.store import RedisStore

__all__ = ["CachedKeys", "PolicyCache", "RedisConfig", "RedisHistory", "RedisLedger", "RedisStore"]
