"""API keys: made, listed, revoked. A key's text is given out once, when it is made; only its hash is kept."""

import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from fulcrum_mcp.control.access import require
from fulcrum_mcp.control.record import KEY_CREATED, KEY_REVOKED, Record, unannounced, unrecorded
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.core.credential import PREFIX, SCOPES, allows, digest, format_key
from fulcrum_mcp.errors import Invalid, Unprivileged
from fulcrum_mcp.ports import ApiKey, KeyRepository

__all__ = ["DEFAULT_SCOPES", "Keys", "NewKey", "key_document", "make_key"]

DEFAULT_SCOPES = ("tool:call",)
_SECOND = 1_000_000_000
_LONGEST_LIFE = 10 * 366 * 86_400
_LONGEST_TEXT = 128
_MOST_ROLES = 32
_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40
"""Characters of 62 kinds: 238 bits."""


class NewKey(NamedTuple):
    """A key just made; `text` is what the client presents and is shown this once."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"NewKey(key={self.key!r})"


class Keys:
    """The use cases. The tenant is always the caller's own.

    What changes is recorded first, and `changed` is called once it is stored.
    """

    def __init__(
        self,
        repository: KeyRepository,
        *,
        record: Record = unrecorded,
        changed: Callable[[], None] = unannounced,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._repository = repository
        self._record = record
        self._changed = changed
        self._now = now

    def create(
        self,
        principal: Principal,
        *,
        name: str,
        agent: str | None = None,
        roles: Sequence[str] = (),
        scopes: Sequence[str] = DEFAULT_SCOPES,
        expires_in: int | None = None,
        require_envelope: bool = False,
    ) -> NewKey:
        """Make a key; `expires_in` in seconds, `agent` defaults to the name.

        Nobody gives away a scope that they lack. Raises `Unprivileged`, `Invalid`, `Unavailable`.
        """
        require(principal, "api_key:write")
        given = tuple(dict.fromkeys(scopes))
        for scope in given:
            if scope not in SCOPES:
                near = get_close_matches(scope, SCOPES, 1)
                hint = f' Did you mean "{near[0]}"?' if near else ""
                raise Invalid(f'scopes: "{scope}" is not one of {", ".join(SCOPES)}.{hint}')
            if not allows(principal, scope):
                raise Unprivileged(f'you cannot give away the scope "{scope}", because you do not have it.')
        if expires_in is not None and not 0 < expires_in <= _LONGEST_LIFE:
            raise Invalid(
                f"expires_in: must be 1 to {_LONGEST_LIFE} seconds; leave it out for a key that does not end."
            )
        if len(roles) > _MOST_ROLES:
            raise Invalid(f"roles: at most {_MOST_ROLES}; give fewer.")
        name = _text("name", name)
        now = self._now()
        made = make_key(
            tenant=principal.tenant,
            agent=_text("agent", agent) if agent is not None else name,
            name=name,
            roles=tuple(dict.fromkeys(_text("roles", role) for role in roles)),
            scopes=given,
            at=now,
            expires_at=None if expires_in is None else now + expires_in * _SECOND,
            require_envelope=require_envelope,
        )
        self._record(principal, KEY_CREATED, made.key.id, {"key": key_document(made.key)})
        self._repository.add(made.key)
        self._changed()
        return made

    def list(self, principal: Principal) -> Sequence[ApiKey]:
        """Newest first, revoked ones included. Raises `Unprivileged`."""
        require(principal, "api_key:read")
        return self._repository.list(principal.tenant)

    def get(self, principal: Principal, key_id: str) -> ApiKey | None:
        """One key of the caller's tenant. Raises `Unprivileged`."""
        require(principal, "api_key:read")
        key = self._repository.get(key_id)
        return key if key is not None and key.tenant == principal.tenant else None

    def revoke(self, principal: Principal, key_id: str) -> ApiKey:
        """Idempotent; no call with it is admitted once the revision has been seen.

        Raises `Unprivileged`, `NotFound`, `Unavailable`.
        """
        require(principal, "api_key:write")
        key = self._repository.get(key_id)
        if key is not None and key.tenant == principal.tenant and key.revoked_at is None:
            self._record(principal, KEY_REVOKED, key.id, {"key": key_document(key)})
        revoked = self._repository.revoke(principal.tenant, key_id, self._now())
        self._changed()
        return revoked


def make_key(
    *,
    tenant: str,
    agent: str,
    name: str,
    scopes: Sequence[str],
    at: int,
    roles: Sequence[str] = (),
    expires_at: int | None = None,
    require_envelope: bool = False,
) -> NewKey:
    """A key with a fresh id and secret; stores nothing."""
    key_id = secrets.token_hex(8)
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    key = ApiKey(
        id=key_id,
        tenant=tenant,
        agent=agent,
        name=name,
        roles=tuple(roles),
        scopes=tuple(scopes),
        created_at=at,
        expires_at=expires_at,
        require_envelope=require_envelope,
        digest=digest(secret),
    )
    return NewKey(key, format_key(key_id, secret))


def key_document(key: ApiKey) -> dict[str, Any]:
    """A key for people and programs, without anything that could prove it."""
    return {
        "id": key.id,
        "name": key.name,
        "agent": key.agent,
        "roles": list(key.roles),
        "scopes": list(key.scopes),
        "key_hint": f"{PREFIX}{key.id}_..." if not key.id.startswith("x") else "(brought by the operator)",
        "require_envelope": key.require_envelope,
        **_times(key),
    }


def _times(key: ApiKey) -> Mapping[str, str | None]:
    return {
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
    }


def _iso(at: int | None) -> str | None:
    return None if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at // _SECOND))


def _text(field: str, value: str) -> str:
    text = value.strip()
    if not text or len(text) > _LONGEST_TEXT or not text.isprintable():
        raise Invalid(f"{field}: must be 1 to {_LONGEST_TEXT} printable characters; write another one.")
    return text
