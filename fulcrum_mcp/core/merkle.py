"""The Merkle tree of RFC 6962 section 2.1 over the hashes of a chain's records.

A leaf's data is a record's hash (32 bytes), which stands for the record's bytes. `Frontier` grows a tree without
keeping its leaves; the proof functions need all of them.
"""

import hashlib
from collections.abc import Sequence

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()
_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows: the roots of its perfect subtrees, widest first."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: bytes = b"") -> None:
        """Continue from `size` and what `pack` gave. Raises ValueError when they do not belong together."""
        if size < 0 or len(nodes) != 32 * size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} subtrees")
        self.size = size
        self.nodes = [nodes[at : at + 32] for at in range(0, len(nodes), 32)]

    def add(self, data: bytes) -> None:
        """Append one leaf."""
        node = _sha256(b"\x00" + data).digest()
        size = self.size
        nodes = self.nodes
        while size & 1:
            node = _sha256(b"\x01" + nodes.pop() + node).digest()
            size >>= 1
        nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self.nodes:
            return EMPTY_ROOT
        node = self.nodes[-1]
        for left in reversed(self.nodes[:-1]):
            node = node_hash(left, node)
        return node

    def pack(self) -> bytes:
        """The subtrees, to continue from."""
        return b"".join(self.nodes)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaves given as data."""
    tree = Frontier()
    for data in leaves:
        tree.add(data)
    return tree.root()


def _split(size: int) -> int:
    """The largest power of two below size."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of one leaf, RFC 6962 section 2.1.1. Raises IndexError."""
    size = len(leaves)
    if not 0 <= index < size:
        raise IndexError(index)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(root(leaves[middle:end]))
            end = middle
        else:
            path.append(root(leaves[start:middle]))
            start = middle
    path.reverse()
    return path


def verify_inclusion(data: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> bool:
    """Does the path lead from this leaf to the root of a tree of `size`? RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    result = leaf_hash(data)
    for step in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(step, result)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = node_hash(result, step)
        node >>= 1
        last >>= 1
    return last == 0 and result == expected


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Proof that the first `old` leaves are a prefix of all, RFC 6962 section 2.1.2. Raises IndexError."""
    if not 0 < old <= len(leaves):
        raise IndexError(old)
    path: list[bytes] = []
    start, end, whole = 0, len(leaves), True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(root(leaves[middle:end]))
            end = middle
        else:
            path.append(root(leaves[start:middle]))
            start, whole = middle, False
    if not whole:
        path.append(root(leaves[start:end]))
    path.reverse()
    return path


def verify_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Is the tree of size `old` a prefix of the tree of size `new`? RFC 9162 section 2.1.4.2."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    steps = list(path)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first = node_hash(step, first)
            second = node_hash(step, second)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            second = node_hash(second, step)
        node >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root
