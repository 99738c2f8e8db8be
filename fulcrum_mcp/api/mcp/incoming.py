"""From one message and its headers to what the gateway judges: era, context, and the headers that go on upstream."""

from collections.abc import Mapping, Sequence
from typing import Final

from fulcrum_mcp.api.mcp.ladder import Era, client_name
from fulcrum_mcp.core.call import Context, Principal
from fulcrum_mcp.gateway.incoming import Incoming
from fulcrum_mcp.gateway.sessions import Session
from fulcrum_mcp.gateway.wire import Message, WireError

__all__ = ["ENVELOPE_KEYS", "context_of", "incoming_of", "strip_envelope"]

ENVELOPE_KEYS: Final = ("envelope", "workflow", "execution")
_PREFIX: Final = "dev.fulcrum/"
_MAX_NAME: Final = 256
_INVALID_PARAMS: Final = -32602


def strip_envelope(message: Message) -> tuple[Message, dict[str, str]]:
    """Take `_meta["dev.fulcrum/..."]` out of a message: it is ours and never goes upstream.

    Raises:
        WireError: a value is no short string, or holds U+0000: Postgres cannot, so what it spent would be forgotten.
    """
    meta = message.meta
    ours = [key for key in meta if key.startswith(_PREFIX)]
    if not ours:
        return message, {}
    names: dict[str, str] = {}
    for key in ENVELOPE_KEYS:
        value = meta.get(_PREFIX + key)
        if value is None:
            continue
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or "\0" in value:
            text = (
                f"params._meta[{_PREFIX + key!r}] must be a string of 1 to {_MAX_NAME} characters, none of them U+0000"
            )
            raise WireError(_INVALID_PARAMS, text, message.id)
        names[key] = value
    kept = {key: value for key, value in meta.items() if not key.startswith(_PREFIX)}
    params = {**message.params, "_meta": kept}
    if not kept:
        del params["_meta"]
    return message.with_params(params), names


def context_of(message: Message | None, era: Era, names: Mapping[str, str], session: Session | None) -> Context:
    """Where the call comes from."""
    client = client_name(message) if message is not None else None
    if client is None and session is not None:
        client = session.client
    return Context(
        envelope=names.get("envelope"),
        workflow=names.get("workflow"),
        execution=names.get("execution"),
        client=None if client is None else client[:_MAX_NAME],
        protocol=era.version,
    )


def incoming_of(
    verb: str,
    principal: Principal,
    message: Message | None,
    era: Era,
    *,
    headers: list[tuple[bytes, bytes]],
    values: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
    session: Session | None,
    over_http: bool = True,
) -> Incoming:
    """Everything the gateway needs of one message of a client; the envelope is taken out of the message.

    `names` are the envelope's headers. Where headers and `_meta` both name one they must agree.

    Raises:
        WireError: the envelope's names are malformed or contradict each other.
    """
    stated: Mapping[str, str] = names
    for key in ENVELOPE_KEYS:
        if key in names and not 0 < len(names[key]) <= _MAX_NAME:
            text = f"the header X-Fulcrum-{key.title()} must come once, with 1 to {_MAX_NAME} characters"
            raise WireError(_INVALID_PARAMS, text, None if message is None else message.id)
    if message is not None and message.kind != "response":
        message, inside = strip_envelope(message)
        if inside:
            for key, value in inside.items():
                if names.get(key, value) != value:
                    text = f"the header X-Fulcrum-{key.title()} contradicts params._meta[{_PREFIX + key!r}]"
                    raise WireError(_INVALID_PARAMS, text, message.id)
            stated = {**names, **inside}
    return Incoming(
        verb=verb,
        principal=principal,
        context=context_of(message, era, stated, session),
        modern=era.modern,
        version=era.version,
        headers=headers,
        message=message,
        session=session,
        values=values,
        over_http=over_http,
    )
