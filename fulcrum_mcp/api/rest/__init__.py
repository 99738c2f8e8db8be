"""The REST face of the control plane: thin, it translates only."""

from fulcrum_mcp.api.rest.app import rest_app, rest_routes
from fulcrum_mcp.api.rest.deps import AuditTrail, OAuthMetadata, RestDeps

__all__ = ["AuditTrail", "OAuthMetadata", "RestDeps", "rest_app", "rest_routes"]
