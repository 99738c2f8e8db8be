from pathlib import Path

from fulcrum_adapters.memory.audit import MemoryAuditStore
from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.core.checkpoint import ChainState, open_sealed
from fulcrum_mcp.ports import StoreState
from fulcrum_mcp.processor.checkpoints import sign_checkpoints, unsigned_records


def state_of(sizes: dict[str, int]) -> StoreState:
    state = StoreState({}, {}, {}, {})
    for chain, size in sizes.items():
        found = state.chains[chain] = ChainState(chain, chain.partition(".")[2])
        for number in range(size):
            found.add(f"{number:064x}")
    return state


def test_each_tenant_with_something_new_gets_one_checkpoint(tmp_path: Path) -> None:
    keys, state = AuditKeys(tmp_path), state_of({"w1.a": 2, "w2.a": 1, "w1.b": 3, "w9.c": 0})
    assert unsigned_records(state) == 6
    batch = sign_checkpoints(state, keys, 10**18)
    assert batch is not None
    assert [(tenant, number) for tenant, number, _ in batch.checkpoints] == [("a", 1), ("b", 1)]
    for _, _, line in batch.checkpoints:
        sealed = open_sealed(line)
        assert sealed is not None
        assert keys.check(sealed.message, sealed.signature)
    assert unsigned_records(state) == 0
    assert sign_checkpoints(state, keys, 10**18) is None


def test_what_was_signed_is_what_the_store_then_holds(tmp_path: Path) -> None:
    keys, state, store = AuditKeys(tmp_path), state_of({"w1.a": 2, "w2.a": 1}), MemoryAuditStore()
    for _ in range(2):
        batch = sign_checkpoints(state, keys, 10**18)
        assert batch is not None
        store.add(batch)
        loaded = store.load()
        assert loaded.checkpoints == state.checkpoints
        assert {name: chain.signed for name, chain in loaded.chains.items()} == {
            "w1.a": state.chains["w1.a"].size,
            "w2.a": 1,
        }
        state.chains["w1.a"].add("f" * 64)
