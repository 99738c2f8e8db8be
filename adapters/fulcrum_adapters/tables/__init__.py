"""The one definition of the control plane's tables, in SQLAlchemy Core, for every database that keeps them.

SQLAlchemy takes half a second and 35 MB to import, so nothing on the way to readiness imports it: the SQLite adapter
carries the statements generated from here, and a test keeps both equal. See docs/adr.
"""

from fulcrum_adapters.tables.control import (
    METADATA,
    api_keys,
    budgets,
    kill_switches,
    policy_revisions,
    revision,
    sqlite_ddl,
)

__all__ = ["METADATA", "api_keys", "budgets", "kill_switches", "policy_revisions", "revision", "sqlite_ddl"]
