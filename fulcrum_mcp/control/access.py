"""May this principal do this? Asked first by every use case of the control plane."""

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import allows
from fulcrum_mcp.errors import Unprivileged

__all__ = ["require"]


def require(principal: Principal, scope: str) -> None:
    """Raises `Unprivileged`, naming the scope."""
    if not allows(principal, scope):
        raise Unprivileged(f'this needs the scope "{scope}"; use a key that has it, or ask an admin for one.')
