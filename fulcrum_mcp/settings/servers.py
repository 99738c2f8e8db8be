"""Upstreams from `[[server]]` and from the `mcpServers` JSON that every MCP client already has."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from fulcrum_mcp.core.redact import MASK, has_secret_key, mask_secrets
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.expand import Missing, expand
from fulcrum_mcp.settings.file import ServerEntry, guess
from fulcrum_mcp.settings.model import ServerSettings
from fulcrum_mcp.settings.place import Places

__all__ = ["from_entries", "from_mcp_json"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TYPES = {"stdio": "command", "http": "url", "streamable-http": "url", "streamableHttp": "url", "sse": "", "ws": ""}
_READ = ("type", "transport", "command", "args", "env", "cwd", "url", "httpUrl", "serverUrl", "headers")
_OF_EDITORS = {
    "alwaysAllow",
    "autoApprove",
    "description",
    "dev",
    "disabled",
    "disabledTools",
    "enabled",
    "gallery",
    "icon",
    "name",
    "oauth",
    "timeout",
    "tools",
    "trust",
    "version",
}
"""Keys that clients keep for themselves; they say nothing about how to reach a server."""
_FORBIDDEN = {
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class _Builder:
    """Collects servers; every complaint names the line."""

    def __init__(self, places: Places, environ: Mapping[str, str], folder: Path | None = None) -> None:
        self.places = places
        self.environ = environ
        self.folder = folder
        self.servers: dict[str, ServerSettings] = {}
        self.warnings: list[str] = []

    def add(self, entry: ServerEntry, name: str, at: Sequence[str | int], shown: str) -> None:
        place = self.places.at(at)
        if name in self.servers:
            raise Invalid(
                f'{place}: server "{name}" exists already ({self.servers[name].origin}); give one another name'
            )
        if (entry.command is None) == (entry.url is None):
            said = "has neither command nor url" if entry.url is None else "has both command and url"
            raise Invalid(f'{place}: server "{name}" {said}; give exactly one of them')
        if entry.command is not None and not (entry.command and entry.command[0]):
            raise Invalid(f'{place}: server "{name}": command is empty; name the program to run')
        if entry.command is not None and entry.headers:
            raise Invalid(f'{place}: server "{name}": headers need a url; a command takes env')
        cwd = self._text(entry.cwd, (*at, "cwd"), name) if entry.cwd is not None else None
        url = self._url(entry.url, (*at, "url"), name) if entry.url is not None else None
        command = (
            tuple(self._text(part, (*at, "command"), name) for part in entry.command)
            if entry.command is not None
            else None
        )
        self.servers[name] = ServerSettings(
            name=name,
            command=command,
            url=url,
            headers={
                key: self._header(key, value, (*at, "headers", key), name) for key, value in entry.headers.items()
            },
            env={key: SecretStr(self._env(key, value, (*at, "env", key), name)) for key, value in entry.env.items()},
            cwd=(self._folder(at) / Path(cwd).expanduser()) if cwd is not None else None,
            labels=entry.labels,
            timeout=entry.timeout,
            client=entry.client,
            idle_timeout=entry.idle_timeout,
            max_processes=entry.max_processes,
            shown=shown,
            origin=place,
        )

    def _folder(self, at: Sequence[str | int]) -> Path:
        return self.folder or self.places.folder(at) or Path.cwd()

    def _text(self, text: str, at: Sequence[str | int], name: str) -> str:
        try:
            value = expand(text, self.environ)
        except Missing as exc:
            raise Invalid(f'{self.places.at(at)}: server "{name}": {exc}') from None
        if "\0" in value:
            raise Invalid(f'{self.places.at(at)}: server "{name}": a NUL character is not allowed; remove it')
        return value

    def _url(self, text: str, at: Sequence[str | int], name: str) -> str:
        value = self._text(text, at, name)
        fault = None
        try:
            parts = urlsplit(value)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                fault = "must begin with http:// or https:// and name a host"
            elif parts.username is not None or parts.password is not None:
                fault = "must not hold a password; put it in headers"
            elif parts.fragment or parts.port == 0 or re.search(r"[\s\x00-\x1f]", value):
                fault = "must not have a fragment, blanks or port 0"
        except ValueError:
            fault = "cannot be read as a URL"
        if fault is not None:
            raise Invalid(f'{self.places.at(at)}: server "{name}": url {fault}')
        return value

    def _header(self, key: str, text: str, at: Sequence[str | int], name: str) -> SecretStr:
        if _HEADER.match(key) is None or key.lower() in _FORBIDDEN:
            raise Invalid(f'{self.places.at(at)}: server "{name}": header "{key}" cannot be set; remove it')
        value = self._text(text, at, name).strip()
        if re.search(r"[^\x20-\x7e\x80-\xff\t]", value):
            raise Invalid(
                f'{self.places.at(at)}: server "{name}": header "{key}" holds a character that no header may hold'
            )
        return SecretStr(value)

    def _env(self, key: str, text: str, at: Sequence[str | int], name: str) -> str:
        if not key or "=" in key or "\0" in key:
            raise Invalid(f'{self.places.at(at)}: server "{name}": "{key}" cannot be a variable\'s name; rename it')
        return self._text(text, at, name)


def _shown(entry: ServerEntry) -> str:
    """The command line or URL as written, for people: without what is, or is named like, a secret."""
    text = _shown_url(entry.url or "") if entry.command is None else _shown_command(entry.command)
    shown: str = mask_secrets(text)[0]
    return shown


def _shown_url(url: str) -> str:
    place, mark, query = url.partition("?")
    pairs = [part.partition("=") for part in query.split("&")]
    return place + mark + "&".join(name + sign + _unless_named(value) for name, sign, value in pairs)


def _shown_command(command: Sequence[str]) -> str:
    parts: list[str] = []
    secret = False
    for part in command:
        name, sign, value = part.partition("=")
        tells = part.startswith("-") and has_secret_key({name.lstrip("-"): ""})
        if secret:
            parts.append(_unless_named(part))
        else:
            parts.append(name + sign + _unless_named(value) if tells and sign else part)
        secret = tells and not sign
    return " ".join(parts)


def _unless_named(value: str) -> str:
    """A value that is written out may be a secret; one that names a variable is none."""
    return value if not value or "${" in value else MASK


def from_entries(
    entries: Sequence[ServerEntry], places: Places, environ: Mapping[str, str]
) -> tuple[ServerSettings, ...]:
    """`[[server]]` tables. Relative paths are relative to the file's folder. Raises `Invalid`."""
    builder = _Builder(places, environ)
    for index, entry in enumerate(entries):
        at = ("server", index)
        if _NAME.match(entry.name) is None or "__" in entry.name:
            raise Invalid(
                f'{places.at((*at, "name"))}: server "{entry.name}": a name is 1 to 32 of a-z, 0-9, - and _, begins '
                f'with a letter or digit and has no "__" (tools are called <server>__<tool>); rename it'
            )
        if not entry.disabled:
            builder.add(entry, entry.name, at, _shown(entry))
    return tuple(builder.servers.values())


def from_mcp_json(
    document: Mapping[str, Any], key: str, places: Places, environ: Mapping[str, str], folder: Path
) -> tuple[tuple[ServerSettings, ...], list[str]]:
    """Servers and warnings from a client's configuration; `key` is `mcpServers` or `servers`. Raises `Invalid`."""
    builder = _Builder(places, environ, folder)
    table = document[key]
    if not isinstance(table, Mapping):
        raise Invalid(f'{places.at((key,))}: "{key}" must be an object of servers by name')
    for given, raw in table.items():
        at = (key, given)
        name = _normal(given)
        if name is None:
            raise Invalid(
                f'{places.at(at)}: server "{given}" cannot be made a name of a-z, 0-9, - and _; rename it in the file'
            )
        if not isinstance(raw, Mapping):
            raise Invalid(f'{places.at(at)}: server "{given}" must be an object with command or url')
        if raw.get("disabled") is True or raw.get("enabled") is False:
            builder.warnings.append(f'{places.at(at)}: server "{given}" is disabled; left out')
            continue
        if name != given:
            builder.warnings.append(f'{places.at(at)}: server "{given}" is called "{name}" here')
        for extra in raw:
            if extra not in _READ and extra not in _OF_EDITORS:
                builder.warnings.append(
                    f'{places.at((*at, extra))}: server "{given}": key "{extra}" is not read'
                    + (guess(extra, _READ) if "did you" in guess(extra, _READ) else "")
                )
        entry = _entry(given, raw, at, places)
        builder.add(entry, name, at, _shown(entry))
    return tuple(builder.servers.values()), builder.warnings


def _normal(given: str) -> str | None:
    if _NAME.match(given) and "__" not in given:
        return given
    name = re.sub(r"_{2,}", "_", re.sub(r"[^a-z0-9_-]+", "-", given.lower())).strip("-_")[:32]
    return name if _NAME.match(name) else None


class _Fail(Protocol):
    def __call__(self, key: str, said: str) -> Invalid: ...


def _entry(given: str, raw: Mapping[str, Any], at: Sequence[str], places: Places) -> ServerEntry:
    def fail(key: str, said: str) -> Invalid:
        return Invalid(f'{places.at((*at, key))}: server "{given}": {said}')

    url = _transport(raw, fail)
    if "command" not in raw and url is None:
        near = [guess(key, ("command", "url")) for key in raw if "did you" in guess(key, ("command", "url"))]
        raise Invalid(
            f'{places.at(at)}: server "{given}" has neither command nor url; give exactly one of them'
            + "".join(near[:1])
        )
    for key, shape in (("command", str), ("cwd", str), ("args", list), ("env", dict), ("headers", dict)):
        if key in raw and not isinstance(raw[key], shape):
            word = {"str": "a string", "list": "a list of strings", "dict": "an object of strings"}[shape.__name__]
            raise fail(key, f"{key} must be {word}")
    args = [_string(part, "args", fail) for part in raw.get("args", ())]
    if args and "command" not in raw:
        raise fail("args", "args need a command")
    return ServerEntry(
        name=given,
        command=(raw["command"], *args) if "command" in raw else None,
        url=url,
        headers={key: _string(value, f"headers.{key}", fail) for key, value in raw.get("headers", {}).items()},
        env={key: _string(value, f"env.{key}", fail) for key, value in raw.get("env", {}).items()},
        cwd=raw.get("cwd"),
    )


def _transport(raw: Mapping[str, Any], fail: _Fail) -> str | None:
    """The URL, if there is one, after `type` was found to agree with what is given."""
    typed = "type" if "type" in raw else "transport"
    kind = raw.get(typed)
    urls = [key for key in ("url", "httpUrl", "serverUrl") if key in raw]
    if kind is not None and (not isinstance(kind, str) or kind not in _TYPES):
        raise fail(typed, f'{typed} must be "stdio" or "http"')
    if kind in {"sse", "ws"}:
        raise fail(
            typed, f'{typed} "{kind}" is not supported: use the server\'s Streamable HTTP address with {typed} "http"'
        )
    if len(urls) > 1:
        raise fail(urls[1], f"{urls[0]} and {urls[1]} are both given; keep one")
    if kind is not None and (_TYPES[kind] == "url") != bool(urls):
        raise fail(typed, f'{typed} "{kind}" needs a {_TYPES[kind]}' + (" and no url" if urls else ""))
    url = raw[urls[0]] if urls else None
    if url is not None and not isinstance(url, str):
        raise fail(urls[0], f"{urls[0]} must be a string")
    return url


def _string(value: Any, key: str, fail: _Fail) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        head, _, tail = key.partition(".")
        raise fail(head, f"{tail or head} must be a string")
    return value
