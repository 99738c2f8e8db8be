"""Verifies an exported trail, line by line, with nothing but the public key.

The one order of an export: tenants ascending; in each, for every checkpoint the records it adds (chains ascending, seq
ascending) and then the checkpoint; then the records that are younger than the last checkpoint; at the very end one
manifest. Whoever changes a byte must break a hash, a link, the order, a signed root, or the manifest's digest. The
verifier stops at the first fault and never raises for what it reads.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from fulcrum_mcp.core.audit import GENESIS, RecordHead, parse_record
from fulcrum_mcp.core.checkpoint import (
    CHECKPOINT,
    FORMAT,
    MANIFEST,
    ChainState,
    Sealed,
    Sign,
    forest_root,
    line_hash,
    manifest_line,
    open_sealed,
)

__all__ = ["Fault", "TrailVerifier"]

Check = Callable[[bytes, bytes], bool]

_CHECKPOINT = b'{"type":"%b"' % CHECKPOINT.encode("ascii")
_MANIFEST = b'{"type":"%b"' % MANIFEST.encode("ascii")


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong, and where."""

    line: int
    where: str
    what: str

    def __str__(self) -> str:
        return f"broken at {self.where}: {self.what}"


@dataclass(slots=True)
class _Section:
    """What one tenant's part of the export says so far."""

    tenant: str
    number: int = 0
    prev: str = GENESIS
    records: int = 0
    chain: str = ""
    """The chain whose records are being read since the last checkpoint."""


class TrailVerifier:
    """Feed it every line, then `finish`. `check` verifies one Ed25519 signature."""

    def __init__(self, key: str, check: Check) -> None:
        self._key = key
        self._check = check
        self._states: dict[str, ChainState] = {}
        self._section = _Section("")
        self._digest = hashlib.sha256()
        self._line = 0
        self._last = ""
        self.records = 0
        self.checkpoints = 0
        self.exported_at: str | None = None
        """The manifest's time, once it was verified."""

    @property
    def chains(self) -> int:
        """How many chains were seen."""
        return len(self._states)

    def feed(self, line: bytes) -> Fault | None:
        """Check the next line, its newline included."""
        self._line += 1
        if self.exported_at is not None:
            return self._fault("something follows the signed manifest")
        if not line.endswith(b"\n"):
            return self._fault("the line is cut off")
        text = line[:-1]
        if text.startswith(_MANIFEST):
            return self._manifest(text)
        self._digest.update(line)
        if text.startswith(_CHECKPOINT):
            return self._checkpoint(text)
        return self._record(text)

    def finish(self) -> Fault | None:
        """The end of the export."""
        if self.exported_at is None:
            self._line += 1
            return self._fault("the signed manifest is missing, the tail was cut off")
        return None

    def manifest(self, time: str, sign: Sign) -> bytes:
        """The line that ends the export of what was fed so far; for the exporter."""
        states = self._states.values()
        return manifest_line(states, self.checkpoints, self._digest.hexdigest(), time=time, key=self._key, sign=sign)

    def _fault(self, what: str, where: str | None = None) -> Fault:
        if where is None:
            where = f"line {self._line}" + (f" (after {self._last})" if self._last else "")
        return Fault(self._line, where, what)

    def _record(self, text: bytes) -> Fault | None:
        record = parse_record(text)
        if record is None:
            return self._fault("not an audit record")
        where = f"chain {printable(record.chain)} seq {record.seq}"
        if not record.whole:
            return self._fault("hash differs", where)
        what = self._enter(record.tenant) or self._place(record)
        if what:
            return self._fault(what, where)
        self._states[record.chain].add(record.hash)
        self.records += 1
        self._section.records += 1
        self._last = where
        return None

    def _enter(self, tenant: str) -> str | None:
        if tenant != self._section.tenant:
            if tenant < self._section.tenant:
                return "out of order, its tenant's part of the trail is over"
            self._section = _Section(tenant)
        return None

    def _place(self, record: RecordHead) -> str | None:
        if record.chain.partition(".")[2] != record.tenant:
            return "this chain belongs to another tenant"
        section = self._section
        if record.chain < section.chain:
            return "out of order"
        section.chain = record.chain
        state = self._states.get(record.chain)
        if state is None:
            state = self._states[record.chain] = ChainState(record.chain, record.tenant)
        if record.seq > state.size + 1:
            return f"seq {state.size + 1} is missing"
        if record.seq <= state.size:
            return "it stands there twice, or out of order"
        if record.prev != state.head:
            return "prev is not the hash of the record before it, the chain was forked"
        return None

    def _signed(self, text: bytes) -> Sealed | str:
        sealed = open_sealed(text)
        if sealed is None:
            return "not in the form of a signed line"
        if sealed.fields.get("key") != self._key:
            return f"signed by key {printable(str(sealed.fields.get('key')))[:64]}, not by {self._key}"
        if not self._check(sealed.message, sealed.signature):
            return "the signature is wrong"
        if sealed.fields.get("format") != FORMAT:
            return "written in a format that this version does not know, use a newer one"
        return sealed

    def _checkpoint(self, text: bytes) -> Fault | None:
        sealed = self._signed(text)
        where = f"line {self._line}, the checkpoint" + (f" after {self._last}" if self._last else "")
        if isinstance(sealed, str):
            return self._fault(sealed, where)
        fields = sealed.fields
        tenant = str(fields.get("tenant"))
        where = f"checkpoint {fields.get('number')} of tenant {printable(tenant)}"
        what = self._enter(tenant)
        section = self._section
        if what is None and fields.get("number") != section.number + 1:
            what = f"checkpoint {section.number + 1} is missing"
        if what is None and fields.get("prev") != section.prev:
            what = "prev is not the hash of the checkpoint before it"
        if what:
            return self._fault(what, where)
        fault = self._compare(fields, where)
        if fault:
            return fault
        section.number += 1
        section.prev = line_hash(text)
        section.chain = ""
        self.checkpoints += 1
        self._last = where
        return None

    def _compare(self, fields: object, where: str) -> Fault | None:
        """Hold a checkpoint, whose signature is good, against the records before it."""
        assert isinstance(fields, dict)
        states = [state for state in self._states.values() if state.tenant == self._section.tenant]
        claims = {claim["chain"]: claim for claim in fields["chains"]}
        for state in sorted(states, key=lambda state: state.chain):
            claim = claims.pop(state.chain, None)
            if state.size == state.signed and claim is None:
                continue
            here = f"chain {printable(state.chain)} seq {state.size}"
            if claim is None:
                return self._fault(f"not covered by {where} that follows it", here)
            if claim["size"] != state.size:
                missing = f"{where} covers {claim['size']} records of the chain, {state.size} are here"
                return self._fault(missing, f"chain {printable(state.chain)} seq {min(claim['size'], state.size) + 1}")
            if claim != state.as_fields():
                span = f"seq {state.signed + 1}" + (f" to {state.size}" if state.size > state.signed + 1 else "")
                return self._fault(f"{where} signed other records", f"chain {printable(state.chain)} {span}")
            state.signed = state.size
        for chain in claims:
            return self._fault(f"{where} covers the chain, it is not here", f"chain {printable(chain)} seq 1")
        if fields["forest"] != forest_root(states) or fields["records"] != self._section.records:
            return self._fault("it does not cover the chains that are here", where)
        return None

    def _manifest(self, text: bytes) -> Fault | None:
        sealed = self._signed(text)
        where = f"line {self._line}, the manifest"
        if isinstance(sealed, str):
            return self._fault(sealed, where)
        fields = sealed.fields
        for claim in fields["chains"]:
            state = self._states.get(claim["chain"])
            size = state.size if state else 0
            here = f"chain {printable(claim['chain'])} seq {min(size, claim['size']) + 1}"
            if claim["size"] != size:
                return self._fault(f"the manifest counts {claim['size']} records of the chain, {size} are here", here)
            if state is None or claim != state.as_fields():
                return self._fault("the manifest signed other records of this chain", here)
        counts = (fields["records"], len(fields["chains"]), fields["checkpoints"])
        if counts != (self.records, self.chains, self.checkpoints):
            return self._fault(f"it counts {counts}, here are {(self.records, self.chains, self.checkpoints)}", where)
        if fields["digest"] != self._digest.hexdigest():
            return self._fault("the bytes before it are not those that were exported", where)
        self.exported_at = str(fields["time"])
        return None


def printable(text: str) -> str:
    """Text from a file that may be hostile, safe for a terminal."""
    return json.dumps(text)[1:-1]
