"""The durable audit log: append-only segments under a lock."""
