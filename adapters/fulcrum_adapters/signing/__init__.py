"""Keys of the audit trail: what signs checkpoints and manifests, and what arguments are digested under."""

from fulcrum_adapters.signing.audit_keys import AuditKeys, PublicKey

__all__ = ["AuditKeys", "PublicKey"]
