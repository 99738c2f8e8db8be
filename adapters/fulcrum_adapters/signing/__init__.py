"""Keys of the audit trail: what signs checkpoints and manifests, and what arguments are digested under."""

from fulcrum_adapters.signing.audit_keys import AuditKeys, PublicKey
from fulcrum_adapters.signing.given_keys import GivenKeys, nats_key

__all__ = ["AuditKeys", "GivenKeys", "PublicKey", "nats_key"]
