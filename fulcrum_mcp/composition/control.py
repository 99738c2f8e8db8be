"""The control plane of one data folder, put together: keys, budgets, identity, and the first keys."""

import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import NamedTuple

from fulcrum_adapters.identity import (
    AnonymousVerifier,
    ApiKeyVerifier,
    IdentityChain,
    JwtConfig,
    JwtVerifier,
    KeySet,
    jwks_fetch,
)
from fulcrum_adapters.identity.jwks import Fetch
from fulcrum_adapters.identity.lookup import KeyLookup
from fulcrum_mcp.composition.admission import FolderAdmission
from fulcrum_mcp.composition.folder import open_folder, write_once
from fulcrum_mcp.composition.repositories import Repositories, sqlite_repositories
from fulcrum_mcp.control.budgets import Budgets
from fulcrum_mcp.control.keys import Keys, make_key
from fulcrum_mcp.control.policies import Policies
from fulcrum_mcp.control.record import Record, unannounced, unrecorded
from fulcrum_mcp.control.servers import Servers, ServerView
from fulcrum_mcp.control.switches import Switches
from fulcrum_mcp.core.budget import Budget, BudgetUsage
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import digest, parse_key
from fulcrum_mcp.errors import Conflict, Invalid, Unavailable
from fulcrum_mcp.ports import ApiKey, ConfigRepository, KeyRepository
from fulcrum_mcp.settings import OAuthSettings, ServerSettings, Settings

__all__ = [
    "OPERATOR",
    "ControlPlane",
    "FirstKey",
    "admin_key",
    "client_key",
    "open_control",
    "open_ledger_usage",
    "server_views",
]

OPERATOR = Principal(tenant="default", agent="operator", key="local", scopes=frozenset({"admin", "platform"}))
"""Whoever may write the data folder."""

_ADMIN_SCOPES = ("admin", "platform")
_FROM_ENVIRONMENT = "FULCRUM_ADMIN_KEY"
_MOST = 1024

Usage = Callable[[Sequence[Budget], int], Sequence[BudgetUsage]]


@dataclass(slots=True)
class ControlPlane:
    """What the faces use. `close` gives the store back."""

    keys: Keys
    budgets: Budgets
    switches: Switches
    policies: Policies
    servers: Servers
    identity: IdentityChain
    """For REST: never anonymous."""
    mcp_identity: IdentityChain
    """For the MCP faces: with anonymous requests where the operator allowed them."""
    lookup: KeyLookup
    """How API keys are asked for."""
    key_repository: KeyRepository
    config: ConfigRepository
    """Everything that the data plane decides from."""
    close: Callable[[], None]

    def forget(self) -> None:
        """The revision has changed: believe no remembered key any longer."""
        self.identity.forget()
        self.mcp_identity.forget()


class FirstKey(NamedTuple):
    """A key that lies in a file of the data folder, or came from the environment."""

    text: str
    path: Path | None
    made: bool
    """It was made just now."""

    def __repr__(self) -> str:
        return f"FirstKey(path={self.path!r}, made={self.made!r})"


def open_control(
    settings: Settings,
    usage: Usage,
    *,
    record: Record = unrecorded,
    changed: Callable[[], None] = unannounced,
    overruled: Callable[[], str | None] | None = None,
    fetch_jwks: Fetch | None = None,
    repositories: Repositories | None = None,
) -> ControlPlane:
    """Put the use cases on `repositories`, or on `DATA/fulcrum.db`. Raises `Invalid`, `Unavailable`.

    `changed` is called after each change; `overruled` says why published policies do not count (see `Policies`).
    """
    stores = repositories or sqlite_repositories(open_folder(settings.data))
    keys, budgets = stores.keys, stores.budgets
    # Twice as many as are served at once: what is refused for its number would be refused anyway.
    verifier = ApiKeyVerifier(keys, lookup=KeyLookup(keys.get, most=2 * settings.limits.in_flight))
    tokens = _tokens(settings.oauth, fetch_jwks)
    anonymous = AnonymousVerifier(settings.anonymous) if settings.anonymous is not None else None
    views = server_views(settings.servers)

    def close() -> None:
        verifier.lookup.close()
        stores.close()

    return ControlPlane(
        keys=Keys(keys, record=record, changed=changed),
        budgets=Budgets(budgets, usage, configured=lambda: settings.budgets, record=record, changed=changed),
        switches=Switches(stores.switches, record=record, changed=changed),
        policies=Policies(
            stores.policies,
            FolderAdmission(settings.policy.data),
            owner=OPERATOR.tenant,
            overruled=overruled or (lambda: _overruled(settings)),
            record=record,
            changed=changed,
        ),
        servers=Servers(lambda: views, OPERATOR.tenant),
        identity=IdentityChain(verifier, tokens=tokens, forget=verifier.forget),
        mcp_identity=IdentityChain(verifier, tokens=tokens, anonymous=anonymous, forget=verifier.forget),
        lookup=verifier.lookup,
        key_repository=keys,
        config=stores.config,
        close=close,
    )


def _overruled(settings: Settings) -> str | None:
    """Why a gateway with these settings does not judge by published policies."""
    if settings.policy.engine == "opa":
        return "this gateway asks an external OPA; what is published here it does not judge by"
    if settings.policies is not None:
        return "this gateway was given policies of its own (--policies), and they win over what is published"
    return None


def open_ledger_usage(data: Path) -> tuple[Usage, Callable[[], None]]:
    """`BudgetLedger.usage` of a data folder, from any thread and beside its writers; and how to give it back.

    Never makes the ledger: until a gateway has, nothing is spent; and one that was lost must not come back empty.
    """
    from fulcrum_adapters.sqlite.connect import WalDatabase  # noqa: PLC0415 (commands that need no ledger)
    from fulcrum_adapters.sqlite.ledger import SqliteLedger  # noqa: PLC0415 (same)
    from fulcrum_adapters.sqlite.schema import SCHEMA, VERSION  # noqa: PLC0415 (same)

    path = data / "ledger.db"
    ledger = SqliteLedger(WalDatabase(path, SCHEMA, VERSION, create=False))
    thread = ThreadPoolExecutor(1, "usage")

    def usage(budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
        if not path.exists() and not (data / "spool").exists():
            return ()
        return thread.submit(ledger.usage, budgets, at).result()

    def close() -> None:
        thread.submit(ledger.close).result()
        thread.shutdown()

    return usage, close


def _tokens(oauth: OAuthSettings | None, fetch: Fetch | None) -> JwtVerifier | None:
    if oauth is None:
        return None
    config = JwtConfig(
        issuer=oauth.issuer,
        resource=oauth.resource,
        algorithms=oauth.algorithms,
        leeway=oauth.leeway,
        tenant=oauth.tenant,
        tenant_claim=oauth.tenant_claim,
        roles_claim=oauth.roles_claim,
        scopes=frozenset(oauth.scopes),
    )
    return JwtVerifier(config, KeySet(fetch or jwks_fetch(oauth.jwks_url)))


def server_views(servers: Sequence[ServerSettings]) -> tuple[ServerView, ...]:
    """Servers for people, without any secret."""
    return tuple(
        ServerView(
            name=server.name,
            transport="stdio" if server.command is not None else "http",
            shown=server.shown,
            origin=server.origin,
            headers=tuple(server.headers),
            env=tuple(server.env),
            labels=tuple(server.labels.items()),
        )
        for server in servers
    )


def admin_key(plane: ControlPlane, settings: Settings) -> FirstKey | None:
    """The operator's key: from `FULCRUM_ADMIN_KEY`, or in `DATA/admin.key`, made when nobody is admin yet.

    Safe for any number of processes that start at once. None when the file was taken away while somebody is admin, or
    when its key was revoked. Raises `Invalid`, `Unavailable`.
    """
    if settings.admin_key is not None:
        return _from_environment(plane.key_repository, settings.admin_key.get_secret_value())
    path = settings.data / "admin.key"
    somebody = any(_is_admin(key) for key in plane.key_repository.list("default"))
    if somebody and not path.exists():  # in this order: whoever makes the first key writes the file before the store
        return None
    return _in_file(plane.key_repository, path, agent="admin", name="admin", scopes=_ADMIN_SCOPES)


def client_key(plane: ControlPlane, settings: Settings) -> FirstKey | None:
    """A key that may only call tools, in `DATA/client.key`: what goes into the snippets for MCP clients.

    None when it was revoked. Raises `Invalid`, `Unavailable`.
    """
    path = settings.data / "client.key"
    return _in_file(plane.key_repository, path, agent="local", name="local clients", scopes=("tool:call",))


def _is_admin(key: ApiKey) -> bool:
    alive = key.revoked_at is None and (key.expires_at is None or key.expires_at > time_ns())
    return alive and "admin" in key.scopes


def _from_environment(keys: KeyRepository, text: str) -> FirstKey:
    presented = parse_key(text)
    if presented is None:
        raise Invalid(f"{_FROM_ENVIRONMENT}: not a key; use the output of `openssl rand -hex 32`")
    known = keys.get(presented.id)
    if known is None:
        for key in keys.list("default"):
            if key.name == _FROM_ENVIRONMENT and key.revoked_at is None:
                keys.revoke("default", key.id, time_ns())
    if not _store(keys, text, agent="admin", name=_FROM_ENVIRONMENT, scopes=_ADMIN_SCOPES):
        raise Invalid(f"{_FROM_ENVIRONMENT}: this key was revoked; set another one")
    return FirstKey(text, None, made=known is None)


def _in_file(keys: KeyRepository, path: Path, *, agent: str, name: str, scopes: Sequence[str]) -> FirstKey | None:
    made = False
    if not path.exists():
        new = make_key(tenant="default", agent=agent, name=name, scopes=scopes, at=time_ns())
        made = write_once(path, new.text + "\n")
    text = _read(path)
    alive = _store(keys, text, agent=agent, name=name, scopes=scopes)
    return FirstKey(text, path, made) if alive else None


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor) as file:
            if os.fstat(descriptor).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                os.fchmod(descriptor, 0o600)
            text = file.read(_MOST).strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise Unavailable(f"{path}: cannot be read; check who owns it, or remove it to have a new one made") from exc
    if parse_key(text) is None:
        raise Invalid(f"{path}: holds no key; remove it to have a new one made")
    return text


def _store(keys: KeyRepository, text: str, *, agent: str, name: str, scopes: Sequence[str]) -> bool:
    """Make sure that the store knows the key; False when it was revoked. Another process may be doing the same."""
    presented = parse_key(text)
    assert presented is not None
    known = keys.get(presented.id)
    if known is None:
        key = ApiKey(
            id=presented.id,
            tenant="default",
            agent=agent,
            name=name,
            roles=(),
            scopes=tuple(scopes),
            created_at=time_ns(),
            digest=digest(presented.secret),
        )
        try:
            keys.add(key)
        except Conflict:
            known = keys.get(presented.id)
    return known is None or (known.revoked_at is None and known.digest == digest(presented.secret))
