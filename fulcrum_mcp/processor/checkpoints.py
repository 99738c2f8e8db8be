"""Signs what chains hold: one checkpoint for every tenant with records that none covers. Whoever leads does it."""

from datetime import UTC, datetime

from fulcrum_mcp.core.audit import GENESIS
from fulcrum_mcp.core.checkpoint import ChainState, checkpoint_line, line_hash
from fulcrum_mcp.ports import Signer, StoreBatch, StoreState

__all__ = ["sign_checkpoints", "unsigned_records"]


def unsigned_records(state: StoreState) -> int:
    """How many records no checkpoint covers yet."""
    return sum(chain.size - chain.signed for chain in state.chains.values())


def sign_checkpoints(state: StoreState, signer: Signer, at: int) -> StoreBatch | None:
    """What must be added to the store for `state` to be true, which is as if it were stored; None: nothing to sign.

    If the store does not take it, `state` must be loaded anew. `at` in ns.
    """
    tenants = {chain.tenant for chain in state.chains.values() if chain.size != chain.signed}
    if not tenants:
        return None
    everything: dict[str, list[ChainState]] = {tenant: [] for tenant in tenants}
    for chain in state.chains.values():
        if chain.tenant in tenants:
            everything[chain.tenant].append(chain)
    batch = StoreBatch(broken=state.broken)
    touched: dict[str, ChainState] = {}
    now = datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    key, sign = signer.key_id, signer.sign
    for tenant in sorted(tenants):
        number, prev = state.checkpoints.get(tenant, (0, GENESIS))
        chains = everything[tenant]
        line = checkpoint_line(tenant, number + 1, prev, chains, time=now, key=key, sign=sign)
        batch.checkpoints.append((tenant, number + 1, line))
        state.checkpoints[tenant] = (number + 1, line_hash(line))
        for chain in chains:
            chain.signed = chain.size
            touched[chain.chain] = chain
    batch.chains = touched
    return batch
