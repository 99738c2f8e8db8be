"""What Fulcrum was told: read once at start, from a file, the environment and the command line."""

from fulcrum_mcp.settings.load import load
from fulcrum_mcp.settings.model import (
    AuditSettings,
    Bind,
    LimitsSettings,
    NatsSettings,
    OAuthSettings,
    PolicySettings,
    PostgresSettings,
    RedisSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)

__all__ = [
    "AuditSettings",
    "Bind",
    "LimitsSettings",
    "NatsSettings",
    "OAuthSettings",
    "PolicySettings",
    "PostgresSettings",
    "RedisSettings",
    "ServerSettings",
    "Settings",
    "TelemetrySettings",
    "load",
]
