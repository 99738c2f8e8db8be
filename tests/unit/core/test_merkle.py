import os

import pytest

from fulcrum_mcp.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [bytes([number]) * (number % 5) for number in range(256)]


def slow_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(slow_root(leaves[:k]), slow_root(leaves[k:]))


def check_all_proofs(most: int) -> int:
    """All inclusion and consistency proofs of trees up to a size; how many were checked."""
    checked = 0
    roots = [root(LEAVES[:size]) for size in range(most + 1)]
    for size in range(1, most + 1):
        leaves = LEAVES[:size]
        for index in range(size):
            path = inclusion_proof(leaves, index)
            assert verify_inclusion(leaves[index], index, size, path, roots[size])
            assert not verify_inclusion(leaves[index] + b"x", index, size, path, roots[size])
            assert not verify_inclusion(leaves[index], index, size, [*path, b"\0" * 32], roots[size])
            assert not verify_inclusion(leaves[index], index + 1, size, path, roots[size]) or size == 1
            checked += 1
        for old in range(1, size + 1):
            path = consistency_proof(leaves, old)
            assert verify_consistency(old, size, path, roots[old], roots[size])
            assert not verify_consistency(old, size, path, roots[old], roots[old - 1])
            assert not verify_consistency(old, size, path, roots[old - 1], roots[size])
            assert not verify_consistency(old, size, [*path, b"\0" * 32], roots[old], roots[size])
            checked += 1
    return checked


def test_root_is_that_of_the_standard() -> None:
    for size in range(130):
        assert root(LEAVES[:size]) == slow_root(LEAVES[:size])


def test_known_roots_of_certificate_transparency() -> None:
    leaves = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    assert root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root(leaves[:2]).hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert root(leaves[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert root(leaves[:7]).hex() == "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"


def test_every_proof_up_to_64_leaves_holds_and_no_wrong_one_does() -> None:
    assert check_all_proofs(64) == 64 * 65


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_every_proof_up_to_256_leaves_holds_and_no_wrong_one_does() -> None:
    assert check_all_proofs(256) == 256 * 257


def test_proofs_outside_the_tree_are_refused() -> None:
    with pytest.raises(IndexError):
        inclusion_proof(LEAVES[:3], 3)
    with pytest.raises(IndexError):
        consistency_proof(LEAVES[:3], 4)
    assert not verify_inclusion(b"", 0, 0, [], EMPTY_ROOT)
    assert not verify_inclusion(b"", -1, 1, [], leaf_hash(b""))
    assert not verify_consistency(0, 3, [], EMPTY_ROOT, root(LEAVES[:3]))
    assert not verify_consistency(2, 3, [], root(LEAVES[:2]), root(LEAVES[:3]))
    assert not verify_consistency(3, 4, [], root(LEAVES[:3]), root(LEAVES[:4]))


def test_a_frontier_continues_where_it_was_packed() -> None:
    tree = Frontier()
    for size in range(100):
        tree = Frontier(tree.size, tree.pack())
        assert tree.root() == root(LEAVES[:size])
        tree.add(LEAVES[size])


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="subtrees"):
        Frontier(3, os.urandom(32))
