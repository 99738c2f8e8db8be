"""Rego by regorus, in process."""

from fulcrum_adapters.rego.engine import RegoEngine
from fulcrum_adapters.rego.folder import fingerprint, read_folder, read_policies, starter
from fulcrum_adapters.rego.loading import InvalidPolicy

__all__ = ["InvalidPolicy", "RegoEngine", "fingerprint", "read_folder", "read_policies", "starter"]
