"""Taking text out of a JSON value: what policy asks for, and secrets that nobody may read in an audit trail.

Nothing here changes its argument: what has to change is copied, the rest is shared. Patterns of policies are never
run by Python's own `re`, which an attacker's text can stall: the caller passes a linear-time `Substitute`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from fulcrum_mcp.core.decision import Redaction

__all__ = ["MASK", "Substitute", "has_secret_key", "mask_secrets", "may_hold_secret", "redact"]

Substitute = Callable[[str, Sequence[str], str], Sequence[str]]
"""(pattern, texts, replacement) -> texts, in linear time; the replacement is literal. Raises `Invalid`: bad pattern."""

MASK = "[redacted]"

_FEW = 16
"""Up to so many removed strings are looked for one after the other."""

_MOST_COMPARED = 2_000_000
"""Comparisons with removed strings, in one value."""

_SHORTEST_ECHO = 6
"""A redacted string of at least this length is also looked for in the text parts of a result."""

_SECRET = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
    r"|(?<![A-Za-z0-9_-])(?:"
    r"sk-[A-Za-z0-9_-]{16,256}|sk_(?:live|test)_[A-Za-z0-9]{16,128}|rk_(?:live|test)_[A-Za-z0-9]{16,128}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_-]{16,128}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,255}|A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[A-Za-z0-9_-]{35}"
    r"|flcrm_sk_[A-Za-z0-9_-]{16,256}|npm_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_-]{30,512}|hf_[A-Za-z0-9]{30,64}"
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{0,2048}"
    r"|(?:Bearer|Basic) [A-Za-z0-9._~+/=-]{12,4096})"
    r"|(?<=://)[^\s/@:]{1,128}:[^\s/@]{1,256}(?=@)"
)
"""Well-known secrets. Every repetition is bounded and behind a literal, so that no text makes it slow."""

_SECRET_KEY = re.compile(
    r"(?:pass(?:word|wd|phrase)|secret|credential|authorization|api[_-]?key|private[_-]?key|access[_-]?key"
    r"|(?:access|refresh|auth|bearer|id|session|csrf)[_-]?token|cookie)s?\Z",
    re.IGNORECASE,
)
_LONGEST_KEY = 64
"""Only a key's end tells; so no caller's text is kept that is longer."""

_TOKEN_KEYS = frozenset(("token", "otp", "cvv", "cvc", "pwd"))

_DASHED = (b"sk-", b"pat-", b"pypi-", b"xox", b"-----BEGIN ")
_JOINED = (b"sk_", b"rk_", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"_pat_", b"npm_", b"hf_")
_SPACED = (b"Bearer ", b"Basic ")
_CAPITAL = (b"AKIA", b"ASIA", b"AIza")
"""What every secret of a known form holds, by the rare byte that is looked for first."""

_SHORTEST = 8
"""No known form of a secret is shorter."""


def may_hold_secret(text: bytes) -> bool:
    """False when JSON text surely holds no string that `mask_secrets` would mask: a cheap look before the walk.

    Says nothing of secrets that only their key gives away: see `has_secret_key`.
    """
    return (
        (b"-" in text and any(map(text.__contains__, _DASHED)))
        or (b"_" in text and any(map(text.__contains__, _JOINED)))
        or (b" " in text and any(map(text.__contains__, _SPACED)))
        or (b"A" in text and any(map(text.__contains__, _CAPITAL)))
        or (b"J" in text and b"eyJ" in text)
        or (b"@" in text and b"://" in text)
        or (b"\\" in text and (b"\\u" in text or b"\\/" in text))
    )


def has_secret_key(value: Any) -> bool:
    """True when a JSON value has a key, at any depth, whose scalar `mask_secrets` would mask."""
    if isinstance(value, dict):
        return any(_is_secret_key(key) for key in value) or any(map(has_secret_key, value.values()))
    return isinstance(value, list) and any(map(has_secret_key, value))


def mask_secrets(value: Any) -> tuple[Any, int]:
    """A copy of `value` without well-known secrets, and how many places were masked.

    A secret is a string of a known form (API keys, JSON Web Tokens, private keys, passwords in URLs), wherever it
    stands, and any scalar under a key that says so (`password`, `authorization`, ...).
    """
    if isinstance(value, str):
        return _SECRET.subn(MASK, value) if len(value) >= _SHORTEST else (value, 0)
    count = 0
    if isinstance(value, dict):
        masked: dict[Any, Any] = {}
        for key, item in value.items():
            name, hits = mask_secrets(key)
            if _is_secret_key(key) and _is_scalar(item):
                masked[_free(name, masked)] = MASK
                count += 1
                continue
            new, inner = mask_secrets(item)
            masked[_free(name, masked)] = new
            count += hits + inner
        return (masked, count) if count else (value, 0)
    if isinstance(value, list):
        pairs = [mask_secrets(item) for item in value]
        count = sum(hits for _, hits in pairs)
        return ([item for item, _ in pairs], count) if count else (value, 0)
    return value, 0


def _is_secret_key(key: str) -> bool:
    return _tells(key) if len(key) <= _LONGEST_KEY else _tells(key[-_LONGEST_KEY:])


@lru_cache(maxsize=4096)
def _tells(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None or key.lower() in _TOKEN_KEYS


def _is_scalar(item: Any) -> bool:
    return isinstance(item, str | int | float) and not isinstance(item, bool) and item != ""


def redact(value: Any, redactions: Sequence[Redaction], substitute: Substitute) -> tuple[Any, int]:
    """Apply `redactions` to a JSON value; returns the new value and how many places changed.

    A pointer (RFC 6901) replaces what it names by `replacement`; one that names nothing does nothing. A pattern is
    replaced in every string, keys included. The text twin of a result is redacted with it: JSON inside a `text` of
    `content` is redacted as JSON, and a string that a pointer removed does not survive in any other string. Raises what
    `substitute` raises; the caller must then withhold the whole value.
    """
    if not redactions:
        return value, 0
    removed: list[tuple[str, str]] = []
    value, count = _redact_pointers(value, [target for target in redactions if target.pointer is not None], removed)
    for new in dict.fromkeys(new for _, new in removed):
        value, hits = _rewrite(value, _Echoes([text for text, by in removed if by == new], new))
        count += hits
    for target in redactions:
        if target.pattern is not None:
            value, hits = _rewrite(value, partial(_match, substitute, target.pattern, target.replacement))
            count += hits
    return value, count


class _Echoes:
    """Takes strings that were removed out of other texts, the longest first; however many, in bounded time.

    An upstream that writes texts to make this slow gets texts replaced whole.
    """

    def __init__(self, removed: Sequence[str], new: str) -> None:
        self._removed = sorted(set(removed), key=len, reverse=True)
        self._new = new
        self._known = set(self._removed)
        self._lengths: dict[str, list[int]] = {}
        self._left = _MOST_COMPARED
        if len(self._removed) > _FEW:
            for text in self._removed:
                lengths = self._lengths.setdefault(text[:_SHORTEST_ECHO], [])
                if not lengths or lengths[-1] != len(text):
                    lengths.append(len(text))

    def __call__(self, texts: Sequence[str]) -> list[str]:
        return [self._without(text) for text in texts]

    def _without(self, text: str) -> str:
        if not self._lengths:
            for old in self._removed:
                text = text.replace(old, self._new)
            return text
        pieces: list[str] = []
        start = at = 0
        end = len(text) - _SHORTEST_ECHO + 1
        lengths = self._lengths
        while at < end:
            found = lengths.get(text[at : at + _SHORTEST_ECHO])
            if found is not None:
                if self._left < 0:
                    return self._new
                length = self._match(text, at, found)
                if length:
                    pieces += (text[start:at], self._new)
                    start = at = at + length
                    continue
            at += 1
        return "".join((*pieces, text[start:])) if pieces else text

    def _match(self, text: str, at: int, lengths: Sequence[int]) -> int:
        for length in lengths:
            self._left -= 1 + length // 64
            if text[at : at + length] in self._known:
                return length
        return 0


def _match(substitute: Substitute, pattern: str, replacement: str, texts: Sequence[str]) -> Sequence[str]:
    return substitute(pattern, texts, replacement)


def _redact_pointers(value: Any, targets: list[Redaction], removed: list[tuple[str, str]]) -> tuple[Any, int]:
    """Replace what the pointers name, in the text parts that repeat `structuredContent` too."""
    twins = _twins(value) if targets else []
    count = 0
    for target in targets:
        tokens = [part.replace("~1", "/").replace("~0", "~") for part in (target.pointer or "").split("/")[1:]]
        value, hits = _replace_at(value, tokens, target.replacement, removed)
        count += hits
    if twins and count:
        parts = list(value["content"])
        for index in twins:
            if isinstance(parts[index], dict) and _parse(parts[index].get("text")) is not None:
                parts[index] = {**parts[index], "text": _dump(value.get("structuredContent"))}
        value = {**value, "content": parts}
    return value, count


def _twins(value: Any) -> list[int]:
    """Places in `content` whose text says the same as `structuredContent`."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), list) or "structuredContent" not in value:
        return []
    return [
        index
        for index, part in enumerate(value["content"])
        if isinstance(part, dict) and _parse(part.get("text")) == value["structuredContent"]
    ]


def _replace_at(value: Any, tokens: list[str], new: str, removed: list[tuple[str, str]]) -> tuple[Any, int]:
    if not tokens:
        if value == new:
            return value, 0
        _collect(value, new, removed)
        return new, 1
    head, rest = tokens[0], tokens[1:]
    if isinstance(value, dict) and head in value:
        item, hits = _replace_at(value[head], rest, new, removed)
        return ({**value, head: item}, hits) if hits else (value, 0)
    if isinstance(value, list) and head.isascii() and head.isdigit() and (head == "0" or head[0] != "0"):
        index = int(head) if len(head) < 10 else len(value)  # noqa: PLR2004 - beyond any array
        if index < len(value):
            item, hits = _replace_at(value[index], rest, new, removed)
            return ([*value[:index], item, *value[index + 1 :]], hits) if hits else (value, 0)
    return value, 0


def _collect(value: Any, new: str, removed: list[tuple[str, str]]) -> None:
    """Remember the strings of what is removed, raw and as JSON writes them."""
    if isinstance(value, str):
        if len(value) >= _SHORTEST_ECHO and value not in new:
            forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
            removed.extend((form, new) for form in forms)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, new, removed)
    elif isinstance(value, list):
        for item in value:
            _collect(item, new, removed)


def _rewrite(value: Any, change: Callable[[Sequence[str]], Sequence[str]]) -> tuple[Any, int]:
    """Apply `change` to all strings at once, JSON inside text parts included."""
    value, hits = _rewrite_twins(value, change)
    texts: list[str] = []
    _strings(value, texts)
    new = change(texts)
    changed = {old: fresh for old, fresh in zip(texts, new, strict=True) if old != fresh}
    return (_exchange(value, changed), hits + len(changed)) if changed else (value, hits)


def _rewrite_twins(value: Any, change: Callable[[Sequence[str]], Sequence[str]]) -> tuple[Any, int]:
    parts = value.get("content") if isinstance(value, dict) else None
    if not isinstance(parts, list):
        return value, 0
    count = 0
    fresh: list[Any] = []
    for part in parts:
        twin = _parse(part.get("text")) if isinstance(part, dict) else None
        if twin is not None:
            new, hits = _rewrite(twin, change)
            if hits:
                fresh.append({**part, "text": _dump(new)})
                count += hits
                continue
        fresh.append(part)
    return ({**value, "content": fresh}, count) if count else (value, 0)


def _parse(text: Any) -> Any:
    """The array or object that a text is, or None."""
    if not isinstance(text, str) or not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _dump(value: Any) -> str:
    """JSON text again; a number that Python cannot hold is not worth a wrong one."""
    text = json.dumps(value, ensure_ascii=False)
    return text if all(math.isfinite(number) for number in _floats(value)) else MASK


def _floats(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    if isinstance(value, dict):
        return [number for item in value.values() for number in _floats(item)]
    if isinstance(value, list):
        return [number for item in value for number in _floats(item)]
    return []


def _strings(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            found.append(key)
            _strings(item, found)
    elif isinstance(value, list):
        for item in value:
            _strings(item, found)


def _exchange(value: Any, changed: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return changed.get(value, value)
    if isinstance(value, dict):
        renamed: dict[str, Any] = {}
        for key, item in value.items():
            renamed[_free(changed.get(key, key), renamed)] = _exchange(item, changed)
        return renamed
    if isinstance(value, list):
        return [_exchange(item, changed) for item in value]
    return value


def _free(key: str, taken: dict[str, Any]) -> str:
    """`key`, or `key (2)`, ... when two keys became the same: no member may vanish."""
    name, number = key, 1
    while name in taken:
        number += 1
        name = f"{key} ({number})"
    return name
