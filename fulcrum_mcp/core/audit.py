"""Audit records: their exact bytes and the hash chain of one writer and tenant.

A record is one line of JSON in CloudEvents 1.0 form. Its last member, `hash`, is the SHA-256 of the line without that
member; `prev` is the hash before it in the chain. The bytes are what is signed, stored and exported, so nothing here
may ever parse a record and write it anew.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quote
from typing import NamedTuple

__all__ = ["GENESIS", "ChainWriter", "RecordDraft", "RecordHead", "RecordRef", "parse_record", "record_hash"]

GENESIS = "0" * 64
"""`prev` of a chain's first record."""

_MARK = b',"hash":"'
_TAIL = len(_MARK) + 64 + len(b'"}')
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class RecordDraft:
    """A record before it has its place in a chain.

    `data` is the JSON text of the record's `data` member; `inputs` is the redacted, readable copy of a call's
    arguments that lies beside the record (JSON text) and is no part of it.
    """

    id: str
    """UUIDv7, the CloudEvents `id`."""
    tenant: str
    type: str
    """For example `dev.fulcrum.tool_call.decided`."""
    subject: str
    """The call's id, or the id of what the record is about."""
    time: int
    """Nanoseconds since the Unix epoch."""
    data: bytes
    inputs: bytes | None = None


class RecordRef(NamedTuple):
    """Where a record stands: its chain, its sequence number there and its hash (hex)."""

    id: str
    chain: str
    seq: int
    hash: str


class ChainWriter:
    """Gives the records of one writer and tenant their place. Not thread-safe: it belongs to the journal."""

    __slots__ = ("_fixed", "chain", "hash", "seq", "tenant")

    def __init__(self, writer: str, tenant: str, seq: int = 0, head: str = GENESIS) -> None:
        self.tenant = tenant
        self.chain = f"{writer}.{tenant}"
        self.seq = seq
        self.hash = head
        self._fixed = (
            f',"source":{_quote(f"/fulcrum/{writer}")},"type":',
            f',"tenant":{_quote(tenant)},"chain":{_quote(self.chain)},"seq":',
        )

    @property
    def place(self) -> tuple[int, str]:
        """(seq, hash) of the last record; set back when a write was refused."""
        return self.seq, self.hash

    @place.setter
    def place(self, place: tuple[int, str]) -> None:
        self.seq, self.hash = place

    def add(self, draft: RecordDraft) -> tuple[bytes, RecordRef]:
        """The record's line (without a newline) and its place; the chain's head moves on."""
        data = draft.data
        if b"\n" in data:  # outside a JSON string white space means nothing; inside one it cannot stand
            data = data.replace(b"\n", b" ")
        seconds, rest = divmod(draft.time, _NANOSECONDS)
        source, place = self._fixed
        seq = self.seq + 1
        body = (
            f'{{"specversion":"1.0","id":{_quote(draft.id)}{source}{_quote(draft.type)},"subject":{_quote(draft.subject)}'
            f',"time":"{_second(seconds)}.{rest // 1000:06d}Z"{place}{seq},"prev":"{self.hash}","data":'
        ).encode("ascii") + data
        digest = hashlib.sha256(body + b"}").hexdigest()
        self.seq = seq
        self.hash = digest
        return b'%b,"hash":"%b"}' % (body, digest.encode("ascii")), RecordRef(draft.id, self.chain, seq, digest)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class RecordHead(NamedTuple):
    """What a line says about its place. `whole`: its hash is the hash of its bytes."""

    id: str
    type: str
    tenant: str
    chain: str
    seq: int
    prev: str
    hash: str
    whole: bool
    subject: str
    time: str
    """`YYYY-MM-DDThh:mm:ss.uuuuuuZ`; digits are where digits must be, more is not known of it."""
    data: tuple[int, int]
    """Where in the line its `data` stands; not looked at."""


_STRING = rb'"([ !#-\[\]-~]*(?:\\["\\/bfnrtu][ !#-\[\]-~]*)*)"'
_HEAD = re.compile(
    rb'\{"specversion":"1\.0","id":'
    + _STRING
    + rb',"source":'
    + _STRING
    + rb',"type":'
    + _STRING
    + rb',"subject":'
    + _STRING
    + rb',"time":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)","tenant":'
    + _STRING
    + rb',"chain":'
    + _STRING
    + rb',"seq":'
    + rb'([1-9][0-9]{0,17}),"prev":"([0-9a-f]{64})","data":'
)
_FOOT = re.compile(rb',"hash":"([0-9a-f]{64})"\}')


def record_hash(line: bytes) -> str:
    """What a line's `hash` must be: SHA-256 (hex) of its bytes without that member."""
    return hashlib.sha256(line[:-_TAIL] + b"}").hexdigest()


def _unquoted(parts: Sequence[bytes]) -> list[str]:
    """Strings of `_STRING`; as one text where nothing is escaped, since no line ends in one. ValueError: no digits."""
    text = b"\n".join(parts).decode("ascii")
    if "\\" not in text:
        return text.split("\n")
    return [str(json.loads(f'"{part}"')) for part in text.split("\n")]


def parse_record(line: bytes) -> RecordHead | None:
    """Read a record's fixed members; None when the line is not in a record's one form.

    `data` is not looked at: its bytes are under the hash.
    """
    head = _HEAD.match(line)
    if head is None or len(line) < head.end() + _TAIL:
        return None
    foot = _FOOT.fullmatch(line, len(line) - _TAIL)
    if foot is None:
        return None
    found = foot[1].decode("ascii")
    *strings, seq, prev = head.groups()
    try:
        record_id, _source, record_type, subject, time, tenant, chain = _unquoted(strings)
    except ValueError:  # a \\u without its digits
        return None
    whole = record_hash(line) == found
    data = (head.end(), len(line) - _TAIL)
    before = prev.decode("ascii")
    return RecordHead(record_id, record_type, tenant, chain, int(seq), before, found, whole, subject, time, data)
