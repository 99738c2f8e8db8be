"""The ports: what the application needs from outside, said by its users.

Each docstring states the promise, the errors, idempotence and cancellation. Ports marked *quick* are called by the
journal on the event loop, one call at a time: they answer within a fraction of a millisecond or raise `Unavailable`
with `busy`. Those marked *synchronous* are called on a thread that may block; all others run on the loop and must not.
Every port has an adapter in `fulcrum_adapters.memory`, and one contract suite runs over all its adapters.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from fulcrum_mcp.core.audit import RecordDraft, RecordRef
from fulcrum_mcp.core.budget import Budget, BudgetUsage, Match, Operation, Outcome, Remaining
from fulcrum_mcp.core.call import Phase, Principal
from fulcrum_mcp.core.checkpoint import ChainState
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo

__all__ = [
    "ApiKey",
    "AuditLog",
    "AuditQuery",
    "AuditReader",
    "AuditStore",
    "BudgetLedger",
    "BudgetRepository",
    "Credentials",
    "DecisionRecord",
    "History",
    "HistoryView",
    "IdentityVerifier",
    "KeyRepository",
    "Leadership",
    "OpenCall",
    "PolicyEngine",
    "ServerSentEvent",
    "Signer",
    "SpoolChunk",
    "SpoolPosition",
    "SpoolSource",
    "StoreBatch",
    "StoreState",
    "StoredRecord",
    "Upstream",
    "UpstreamReply",
    "UpstreamRequest",
]


class PolicyEngine(Protocol):
    """One compiled set of policies. Immutable: a changed set is a new engine.

    Built on the thread that evaluates it. Building raises `Invalid` with the place of the fault.
    """

    info: PolicyInfo

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        """Judge one input document (JSON text, strictly parsed before); one verdict per policy, in a fixed order.

        Never raises for what a policy does: a policy that errs, panics or yields a wrong type has a verdict with
        `error`. Raises `Unavailable` when the engine itself does not answer. Cancellation leaves no trace.
        """
        ...


class BudgetLedger(Protocol):
    """The ledger, *quick*. Admitted reservations never exceed a hard limit, whoever else uses the store."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Apply in order, all in one transaction; each operation is atomic and idempotent per (call, leg).

        Raises `Unavailable`: then nothing was applied.
        """
        ...

    def usage(self, budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        """Every bucket that was ever used, in the window that holds `at` (ns)."""
        ...

    def peek(self, matches: Sequence[Match], at: int) -> Sequence[Remaining]:
        """What is left in the buckets of one call, cheaply; advisory, only `apply` enforces."""
        ...

    def open(self, writer: str) -> Sequence[tuple[str, int]]:
        """(call, leg) of the unsettled reservations of a writer, for replay after its death."""
        ...


class OpenCall(NamedTuple):
    """A `decided` record that was forwarded and has no `finished` one: found at replay."""

    call: str
    leg: int
    tenant: str
    data: bytes
    """The `data` member of its `decided` record."""


class AuditLog(Protocol):
    """One writer's log, *synchronous*. A record that was returned is durable as the configured mode promises."""

    writer: str

    def append(self, drafts: Sequence[RecordDraft]) -> Sequence[RecordRef]:
        """Chain and write all drafts, one durable step for all of them: `prepare`, `write` and `conclude` at once.

        Raises `Unavailable` (full, failing, closed): then none of them is in the log.
        """
        ...

    def prepare(self, drafts: Sequence[RecordDraft]) -> Any:
        """*Quick*. Chain the drafts; what is returned goes through `write` and `conclude` before the next `prepare`."""
        ...

    def write(self, block: Any) -> None:
        """*Synchronous*, on any thread. One write and one durable step. Raises as `append`."""
        ...

    def conclude(self, block: Any, *, written: bool) -> None:
        """*Quick*. The block is in the log; or it is not, and the chains stand where they stood."""
        ...

    def close(self) -> None:
        """Flush and give up the writer's lock. Idempotent."""
        ...


class Signer(Protocol):
    """Signs what the audit trail claims; the private key never leaves it."""

    key_id: str
    """The first 16 hex digits of the SHA-256 of the raw public key."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes, Ed25519 (RFC 8032)."""
        ...

    def check(self, message: bytes, signature: bytes) -> bool:
        """Is it this key's signature?"""
        ...


class SpoolPosition(NamedTuple):
    """How far a writer's segments were read."""

    segment: int
    offset: int


class Leadership(Protocol):
    """One leader among all processes that share a data folder; lost only by letting go or dying."""

    def acquire(self) -> bool:
        """Never waits; True also when it leads already. Raises `Unavailable`."""
        ...

    def release(self) -> None:
        """Idempotent."""
        ...


@dataclass(slots=True)
class SpoolChunk:
    """What was read from a spool, in the writer's order."""

    lines: list[bytes]
    inputs: list[tuple[str, bytes]]
    """(record id, call inputs)."""
    heads: list[tuple[int, Mapping[str, tuple[int, str]]]]
    """Before line n the writer's chains stood at tenant -> (seq, hash)."""
    position: SpoolPosition
    faults: list[str]
    """What could not be read, and where it is kept."""


class SpoolSource(Protocol):
    """All spools of a data folder, living writers' too, *synchronous*; for the processor."""

    def writers(self) -> Sequence[str]:
        """Who ever wrote here and is not removed."""
        ...

    def read(self, writer: str, position: SpoolPosition) -> SpoolChunk | None:
        """A piece of what was acknowledged after a position; None: nothing new. Raises `Unavailable`."""
        ...

    def release(self, writer: str, position: SpoolPosition) -> None:
        """The store durably holds everything before a position: it may be removed. Idempotent."""
        ...

    def keep(self, writer: str, position: SpoolPosition, why: str) -> None:
        """Something wrong was read there: its segment is moved aside, never removed, and the chains end."""
        ...


@dataclass(slots=True)
class StoreState:
    """What the store holds: where the processor goes on."""

    chains: dict[str, ChainState]
    broken: dict[str, str]
    """chain -> why it is not continued."""
    positions: dict[str, SpoolPosition]
    checkpoints: dict[str, tuple[int, str]]
    """tenant -> (number of the last checkpoint, its hash)."""


@dataclass(slots=True)
class StoreBatch:
    """What one transaction adds."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """(chain, seq, tenant, type, time in us, call, leg, decision, agent, tool, effect, line)."""
    inputs: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(record id, time in us, call inputs)."""
    chains: Mapping[str, ChainState] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, SpoolPosition] = field(default_factory=dict)
    checkpoints: list[tuple[str, int, bytes]] = field(default_factory=list)
    """(tenant, number, line)."""
    faults: list[tuple[str, str, bytes]] = field(default_factory=list)
    """(writer, what is wrong, the bytes if they are a record that was refused)."""


class AuditStore(Protocol):
    """Where records stay, *synchronous*; written by one processor at a time."""

    def load(self) -> StoreState:
        """What it holds. Raises `Unavailable`."""
        ...

    def add(self, batch: StoreBatch) -> None:
        """All of it in one transaction, or `Unavailable` and nothing. Idempotent per (chain, seq)."""
        ...

    def flush(self) -> None:
        """What was added survives power loss when this returns. Raises `Unavailable`."""
        ...

    def erase_inputs(self, before: int) -> int:
        """Erase call inputs older than a time (us); how many."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """What to look for; times in ns, `tool` is a glob over `<server>__<tool>`."""

    tenant: str | None = None
    tool: str | None = None
    effect: str | None = None
    agent: str | None = None
    type: str | None = None
    call: str | None = None
    decision: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int = 100
    after: int | None = None
    """Only records that arrived after this row, oldest first (for tail); else the newest first."""
    before: int | None = None
    """Only records that arrived before this row (for paging)."""


class StoredRecord(NamedTuple):
    """A record as stored: `line` is its exact bytes."""

    row: int
    line: bytes


class DecisionRecord(NamedTuple):
    """Everything about one decision."""

    decided: bytes
    inputs: bytes | None
    """The policy input with redacted arguments; None when erased or never kept."""
    finished: Sequence[bytes]


class AuditReader(Protocol):
    """Questions to the store, *synchronous*, from any process; sees whole transactions only."""

    def query(self, query: AuditQuery) -> Sequence[StoredRecord]:
        """Raises `Unavailable`."""
        ...

    def decision(self, tenant: str | None, decision_id: str) -> DecisionRecord | None:
        """None also for another tenant's decision."""
        ...

    def lines(self, tenant: str | None) -> Iterator[bytes]:
        """Every record and checkpoint in an export's order (`core.trail`), from one moment's state."""
        ...

    def counts(self, tenant: str | None) -> Mapping[str, int]:
        """`records`, `chains`, `checkpoints`, `inputs`, `faults`, and `last`: the newest row."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


class HistoryView(NamedTuple):
    """What policies may ask about the past: `history` in the policy input."""

    taints: tuple[str, ...] = ()
    calls: Mapping[str, int] = {}
    approvals: tuple[Mapping[str, Any], ...] = ()


class History(Protocol):
    """Taints and counters of an envelope (or of a key when there is none), *quick*."""

    def read(self, tenant: str, subject: str) -> HistoryView:
        """Everything about one subject (`envelope:ID` or `key:ID`) in one round trip. Raises `Unavailable`."""
        ...

    def count(self, tenant: str, subject: str, tool: str, at: int) -> None:
        """Count one admitted call of `<server>__<tool>`."""
        ...

    def taint(self, tenant: str, subject: str, labels: Sequence[str], at: int) -> None:
        """Add labels; durable when it returns. Idempotent."""
        ...


@dataclass(slots=True)
class UpstreamRequest:
    """One message to an upstream, in the terms of MCP's Streamable HTTP (stdio upstreams speak them too).

    `message` is the exact JSON text that was judged; `document` the same, parsed. `headers` are lower-case names,
    without hop-by-hop ones and without the client's credentials: `mcp-*`, `last-event-id`, `accept`, `traceparent`.
    """

    verb: str
    headers: list[tuple[bytes, bytes]]
    message: bytes = b""
    document: Mapping[str, Any] | None = None
    principal: Principal | None = None


@dataclass(slots=True)
class ServerSentEvent:
    """One SSE event: `data` is a JSON-RPC message as bytes (empty for a priming event), `retry` milliseconds."""

    data: bytes
    id: str | None = None
    event: str | None = None
    retry: int | None = None
    comment: bool = field(default=False)


class UpstreamReply(Protocol):
    """What an upstream answers: a head, then either one body or a stream of events."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names; `content-type`, `mcp-session-id`, `retry-after`, ... No credentials or challenges."""

    @property
    def streams(self) -> bool:
        """True when the body is `text/event-stream`: use `events`, else `read`."""
        ...

    async def read(self) -> bytes:
        """The whole body. Raises `UpstreamFailed` when it is cut off, stalls or exceeds the limit."""
        ...

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """Events as they come. Raises `UpstreamFailed` when the stream breaks instead of ending."""
        ...

    async def close(self) -> None:
        """Give the stream up; before its end that cancels the request upstream. Idempotent."""
        ...


class Upstream(Protocol):
    """One MCP server behind the gateway."""

    name: str

    async def send(self, request: UpstreamRequest) -> UpstreamReply:
        """Send one message and wait for the answer's head.

        Sent at most once: never retried unless not one byte was written. Raises `UpstreamFailed` with the
        upstream's name and last words; its `sent` is False only when not one byte reached the upstream. Cancelling
        the awaiting task closes the stream.
        """
        ...

    async def close(self) -> None:
        """End every connection and process. Idempotent."""
        ...


class Credentials(NamedTuple):
    """What a request carries to say who it is; values only ever pass through memory."""

    authorization: str | None = None
    api_key: str | None = None
    forwarded: bool = False
    """A proxy's forwarding header was present."""
    loopback: bool = False


class IdentityVerifier(Protocol):
    """Turns a credential into a principal."""

    async def verify(self, credentials: Credentials) -> Principal:
        """Raises `Unauthenticated` (the message never quotes the credential) or `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: never its secret, only the secret's SHA-256 (hex, left out of repr)."""

    id: str
    tenant: str
    agent: str
    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    require_envelope: bool = False
    digest: str = field(default="", repr=False)


class KeyRepository(Protocol):
    """API keys, *synchronous* (short statements; the control plane runs them in a worker thread)."""

    def add(self, key: ApiKey) -> None:
        """Raises `Conflict` when the id is taken."""
        ...

    def get(self, key_id: str) -> ApiKey | None:
        """One key of any tenant: for authentication only."""
        ...

    def list(self, tenant: str) -> Sequence[ApiKey]:
        """Newest first, revoked ones included."""
        ...

    def revoke(self, tenant: str, key_id: str, at: int) -> ApiKey:
        """Idempotent. Raises `NotFound`, also for another tenant's key."""
        ...


class BudgetRepository(Protocol):
    """Budgets made over the CLI or the API, *synchronous*; configuration files add theirs in the snapshot."""

    def add(self, budget: Budget) -> None:
        """Raises `Conflict` when the tenant has a budget of that name."""
        ...

    def list(self, tenant: str | None) -> Sequence[Budget]:
        """By name; None: of all tenants, for the snapshot."""
        ...

    def delete(self, tenant: str, budget_id: str) -> None:
        """Raises `NotFound`."""
        ...

    def revision(self) -> int:
        """Grows with every change of keys or budgets by any process that shares the store."""
        ...
