"""May this principal do this? Asked first by every use case of the control plane."""

from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import allows
from fulcrum_mcp.errors import Unprivileged

__all__ = ["require", "require_of_operator"]


def require(principal: Principal, scope: str) -> None:
    """Raises `Unprivileged`, naming the scope."""
    if not allows(principal, scope):
        raise Unprivileged(f'this needs the scope "{scope}"; use a key that has it, or ask an admin for one.')


def require_of_operator(principal: Principal, scope: str, operator: str) -> None:
    """For what belongs to the whole installation: other tenants than the operator's also need `platform`."""
    require(principal, scope)
    if principal.tenant != operator:
        require(principal, "platform")
