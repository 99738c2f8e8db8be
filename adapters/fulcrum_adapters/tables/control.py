"""Keys, budgets, kill switches, policies, and the revision that grows with each change of them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.schema import CreateIndex, CreateTable

__all__ = ["METADATA", "api_keys", "budgets", "kill_switches", "policy_revisions", "revision", "sqlite_ddl"]

METADATA = MetaData()

_Big = BigInteger().with_variant(Integer(), "sqlite")
_Flag = Boolean().with_variant(Integer(), "sqlite")

api_keys = Table(
    "api_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("roles", Text, nullable=False, comment="JSON array"),
    Column("scopes", Text, nullable=False, comment="JSON array"),
    Column("created_at", _Big, nullable=False, comment="ns since the epoch"),
    Column("expires_at", _Big),
    Column("revoked_at", _Big),
    Column("require_envelope", _Flag, nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 of the secret, hex"),
    sqlite_strict=True,
)
Index("api_keys_tenant", api_keys.c.tenant, api_keys.c.created_at)

budgets = Table(
    "budgets",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text),
    Column("limits", Text, nullable=False, comment="JSON object of integers"),
    Column("period", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("thresholds", Text, nullable=False, comment="JSON array of percentages"),
    Column("timezone", Text, nullable=False),
    Column("rate_limit", _Big),
    Column("rate_period", _Big),
    Column("rate_burst", _Big),
    UniqueConstraint("tenant", "name"),
    sqlite_strict=True,
)

kill_switches = Table(
    "kill_switches",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False, comment="empty: the calls of all tenants"),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_at", _Big, nullable=False, comment="ns since the epoch"),
    UniqueConstraint("tenant", "kind", "target"),
    sqlite_strict=True,
)

policy_revisions = Table(
    "policy_revisions",
    METADATA,
    Column("number", _Big, primary_key=True, autoincrement=False, comment="1, 2, 3 without gaps; the highest counts"),
    Column("digest", Text, nullable=False, comment="SHA-256 over modules and data, hex"),
    Column("author", Text, nullable=False),
    Column("created_at", _Big, nullable=False, comment="ns since the epoch"),
    Column("name", Text, nullable=False, comment="of the set, for people"),
    Column("modules", Text, nullable=False, comment="JSON array of [path, source]"),
    Column("data", Text, nullable=False, comment="JSON object"),
    sqlite_strict=True,
)

revision = Table(
    "revision",
    METADATA,
    Column("one", Integer, CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
    Column("value", _Big, nullable=False),
    sqlite_strict=True,
)


def sqlite_ddl() -> str:
    """Every table and index as SQLite statements, in a fixed order."""
    parts: list[str] = []
    for table in METADATA.sorted_tables:
        parts.append(str(CreateTable(table, if_not_exists=True).compile(dialect=dialect())))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        parts += [str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect())) for index in indexes]
    lines = [line.rstrip().replace("\t", "  ") for part in parts for line in (*part.strip().splitlines(), ";")]
    return "\n".join(lines).replace("\n;", ";")
