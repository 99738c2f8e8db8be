"""Read everything Fulcrum was told, once: file, then environment, then options; the later wins."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.budgets import from_tables
from fulcrum_mcp.settings.environment import lay_over, read_variable, read_variables
from fulcrum_mcp.settings.file import FileSettings, PolicyEntry, validate
from fulcrum_mcp.settings.layers import Layer, merge, read_json, read_layer, read_text
from fulcrum_mcp.settings.model import (
    Bind,
    NatsSettings,
    PolicySettings,
    PostgresSettings,
    RedisSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)
from fulcrum_mcp.settings.place import Places, json_places, plain_json
from fulcrum_mcp.settings.servers import from_entries, from_mcp_json

__all__ = ["load"]

_OPTIONS = ("data", "policies", "http", "grpc", "anonymous", "deny_as", "workers")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
_BUILT_IN = re.compile(r"[a-z][a-z0-9_]*\Z")
_MIN_KEY = 32
_SCHEMES = {
    "postgres": ("postgresql", "postgres"),
    "redis": ("redis", "rediss", "redis+sentinel", "rediss+sentinel"),
    "nats": ("nats", "tls"),
}
_FILES = ("ca", "cert", "key", "credentials")

Remote = TypeVar("Remote", PostgresSettings, RedisSettings, NatsSettings)


def load(
    config: Path | Sequence[Path] | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    port_host: str = "127.0.0.1",
) -> Settings:
    """Settings from `config` (fulcrum.toml, or a client's JSON with `mcpServers` or `servers`), `environ`, `overrides`.

    Several files are taken together: see `layers.merge`. `overrides` are options by name (`data`, `policies`, `http`,
    `grpc`, `anonymous`, `deny_as`, `workers`); None is not given. Without `config`, `FULCRUM_CONFIG` names the file.
    `port_host`: where it listens when a platform's `PORT` alone says the port.
    Raises `Invalid`; every line of its message is `place: what; remedy`.
    """
    files = _files(config, environ)
    layers = [read_layer(file) for file in files]
    raw, places = merge(layers)
    warnings = read_variables(environ, raw, places)
    for name, value in (overrides or {}).items():
        if name not in _OPTIONS:
            raise TypeError(f"no option {name}")
        if value is not None:
            lay_over(
                raw, (name,), value if isinstance(value, int) else str(value), f"--{name.replace('_', '-')}", places
            )
    file = validate(raw, places)
    servers, odd = _servers(file, places, layers, environ)
    warnings = odd + warnings
    folder = Path.cwd()
    http = _http(file, places, environ, port_host)
    _check_anonymous(file, http, places)
    return Settings(
        data=_data(file, places, environ, folder),
        policies=_policies(file, places, folder),
        http=http,
        grpc=_bind(file.grpc or "127.0.0.1:50051", places.at(("grpc",))),
        anonymous=file.anonymous,
        servers=servers,
        budgets=from_tables(file.budget, file.rate, places),
        audit=file.audit,
        policy=_policy(file.policy, places, folder),
        limits=file.limits,
        oauth=_oauth(file, places),
        postgres=_server(file.postgres, "postgres", places, folder),
        redis=_server(file.redis, "redis", places, folder),
        nats=_server(file.nats, "nats", places, folder),
        telemetry=_telemetry(file, places),
        audit_mac_key=_secret("FULCRUM_AUDIT_MAC_KEY", environ),
        audit_signing_key=_pem("FULCRUM_AUDIT_SIGNING_KEY", environ),
        workers=file.workers,
        watchdog_seconds=file.watchdog_seconds,
        deny_as=file.deny_as,
        allowed_hosts=file.allowed_hosts,
        allowed_origins=file.allowed_origins,
        admin_key=_secret("FULCRUM_ADMIN_KEY", environ),
        state_keys=_state_keys(environ),
        config=files[0] if files else None,
        warnings=tuple(warnings),
    )


def _files(config: Path | Sequence[Path] | None, environ: Mapping[str, str]) -> list[Path]:
    given = [config] if isinstance(config, Path) else list(config or ())
    if not given:
        named = read_variable("FULCRUM_CONFIG", environ)
        given = [Path(named).expanduser()] if named else []
    return list(dict.fromkeys(given))


def _servers(
    file: FileSettings, places: Places, layers: Sequence[Layer], environ: Mapping[str, str]
) -> tuple[tuple[ServerSettings, ...], list[str]]:
    """Those of all files, and warnings; a name may come again only with the same meaning."""
    found: dict[str, ServerSettings] = {}
    warnings: list[str] = []
    several = [from_entries(file.server, places, environ)]
    for layer in layers:
        if layer.document is not None:
            servers, odd = from_mcp_json(layer.document, layer.key, layer.places, environ, layer.folder)
            several.append(servers)
            warnings += odd
    for server in (server for servers in several for server in servers):
        known = found.setdefault(server.name, server)
        if known.model_copy(update={"origin": server.origin, "shown": server.shown}) != server:
            raise Invalid(
                f'{server.origin}: server "{server.name}" exists already ({known.origin}), and differs; give one of '
                "them another name"
            )
    return tuple(found.values()), warnings


def _http(file: FileSettings, places: Places, environ: Mapping[str, str], port_host: str) -> Bind:
    if file.http is not None:
        return _bind(file.http, places.at(("http",)))
    port = environ.get("PORT")
    return _bind(f"{port_host}:{port}", "PORT") if port else Bind(host="127.0.0.1", port=8080)


def _bind(text: str, place: str) -> Bind:
    """`HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT`."""
    host, colon, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if colon and ":" in host and not text.strip().startswith("["):
        raise Invalid(f'{place}: "{text}": write an IPv6 address in brackets, for example [::1]:8080')
    known = not host or _HOST.match(host) is not None or re.fullmatch(r"[0-9A-Fa-f:.]+", host) is not None
    if not (known and port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):  # noqa: PLR2004
        raise Invalid(f'{place}: "{text}" is not HOST:PORT; write for example 127.0.0.1:8080')
    return Bind(host=host or "127.0.0.1", port=int(port))


def _check_anonymous(file: FileSettings, http: Bind, places: Places) -> None:
    if file.anonymous is None:
        return
    place = places.at(("anonymous",))
    if _ROLE.match(file.anonymous) is None:
        raise Invalid(f'{place}: "{file.anonymous}" is not a role; write one word, for example reader')
    if not http.loopback:
        raise Invalid(
            f"{place}: requests without a key are only possible on loopback, and http is {http}; "
            "listen on 127.0.0.1, or leave it out and give out keys (fulcrum keys create)"
        )


def _data(file: FileSettings, places: Places, environ: Mapping[str, str], folder: Path) -> Path:
    if file.data is None:
        base = environ.get("XDG_DATA_HOME") or ""
        home = Path(base) if Path(base).is_absolute() else Path(environ.get("HOME") or Path.home()) / ".local" / "share"
        return home / "fulcrum"
    path = _path(file.data, "data", places, folder)
    if path.exists() and not path.is_dir():
        raise Invalid(f"{places.at(('data',))}: {path} is a file; name a folder")
    return path


def _policies(file: FileSettings, places: Places, folder: Path) -> Path | str | None:
    if file.policies is None:
        return None
    path = _path(file.policies, "policies", places, folder)
    if path.exists():
        return path
    if _BUILT_IN.match(file.policies):
        return file.policies
    raise Invalid(
        f"{places.at(('policies',))}: {path} does not exist; name a folder of .rego files, or a starter policy"
    )


def _path(given: str, key: str | tuple[str, ...], places: Places, folder: Path) -> Path:
    """A path as written: relative to the file that names it, else to where the command runs."""
    keys = (key,) if isinstance(key, str) else key
    place = places.at(keys)
    if not given or "\0" in given:
        raise Invalid(f"{place}: the path is empty or holds a NUL character; write a path")
    written_in_file = not place.startswith(("--", "FULCRUM_"))
    try:
        path = Path(given).expanduser()
    except RuntimeError:
        raise Invalid(f"{place}: {given}: no home folder is known; write the whole path") from None
    return (places.folder(keys) or folder) / path if written_in_file else path


def _policy(entry: PolicyEntry, places: Places, folder: Path) -> PolicySettings:
    place = places.at(("policy", "opa_url"))
    if entry.engine == "opa" and entry.opa_url is None:
        raise Invalid(f'{places.at(("policy", "engine"))}: engine "opa" needs opa_url; add opa_url = "http://..."')
    if entry.opa_url is not None:
        _web(entry.opa_url, f"{place}: opa_url", secure=False)
    data = entry.data
    if isinstance(data, str):
        source = (places.folder(("policy", "data")) or folder) / Path(data).expanduser()
        text = read_text(source, str(source))
        data = read_json(text, str(source))
        json_places(plain_json(text), str(source))
    return PolicySettings(
        engine=entry.engine, opa_url=entry.opa_url, timeout=entry.timeout, max_input=entry.max_input, data=data
    )


def _web(url: str, place: str, *, secure: bool) -> None:
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and (not secure or parts.hostname in {"localhost", "127.0.0.1", "::1"})
        good = (
            (parts.scheme == "https" or plain)
            and bool(parts.hostname)
            and not parts.fragment
            and "@" not in parts.netloc
        )
    except ValueError:
        good = False
    if not good or not url.isprintable() or " " in url:
        raise Invalid(f"{place} is not a {'https' if secure else 'http(s)'} URL; write the whole address")


def _oauth(file: FileSettings, places: Places) -> Any:
    oauth = file.oauth
    if oauth is None:
        return None
    for key in ("issuer", "resource", "jwks_url"):
        _web(getattr(oauth, key), f"{places.at(('oauth', key))}: [oauth] {key}", secure=True)
    safe = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
    for algorithm in oauth.algorithms:
        if algorithm not in safe:
            raise Invalid(
                f'{places.at(("oauth", "algorithms"))}: [oauth] algorithm "{algorithm}" is not one of '
                f"{', '.join(sorted(safe))}; shared secrets and none are never accepted"
            )
    return oauth


def _server(given: Remote | None, key: str, places: Places, folder: Path) -> Remote | None:
    """A service's settings, its address checked and its files found; the address holds a password: never shown."""
    if given is None:
        return None
    place, schemes = places.at((key, "url")), _SCHEMES[key]
    url = given.url.get_secret_value()
    for part in [url] if key == "postgres" else url.split(","):  # there one scheme stands before all hosts
        scheme, separator, rest = part.strip().partition("://")
        if (not separator and key == "redis") or (separator and scheme in schemes and rest):
            continue
        raise Invalid(f"{place}: [{key}] url must begin with {' or '.join(f'{known}://' for known in schemes)}")
    named = {name: path for name in _FILES if (path := getattr(given, name, None)) is not None}
    return given.model_copy(
        update={name: _path(str(path), (key, name), places, folder) for name, path in named.items()}
    )


def _telemetry(file: FileSettings, places: Places) -> TelemetrySettings:
    entry = file.telemetry
    if entry.otlp_endpoint is not None:
        _web(
            entry.otlp_endpoint, f"{places.at(('telemetry', 'otlp_endpoint'))}: [telemetry] otlp_endpoint", secure=False
        )
    metrics = None if entry.metrics is None else _bind(entry.metrics, places.at(("telemetry", "metrics")))
    return TelemetrySettings(otlp_endpoint=entry.otlp_endpoint, traces=entry.traces, metrics=metrics)


def _pem(name: str, environ: Mapping[str, str]) -> SecretStr | None:
    value = read_variable(name, environ)
    if value is None:
        return None
    text = value.replace("\\n", "\n").strip()
    if not text.startswith("-----BEGIN PRIVATE KEY-----"):
        raise Invalid(
            f"{name}: not a private key in PEM form; use the output of `openssl genpkey -algorithm ed25519`, "
            f"for example in a file that {name}_FILE names"
        )
    return SecretStr(text + "\n")


def _secret(name: str, environ: Mapping[str, str]) -> SecretStr | None:
    value = read_variable(name, environ)
    if value is None:
        return None
    if len(value) < _MIN_KEY or len(set(value)) < 10 or not value.isascii() or re.search(r"\s", value):  # noqa: PLR2004
        raise Invalid(
            f"{name}: too weak to be a key; use at least {_MIN_KEY} random characters, for example the output of "
            "`openssl rand -hex 32`"
        )
    return SecretStr(value)


def _state_keys(environ: Mapping[str, str]) -> tuple[SecretStr, ...]:
    value = read_variable("FULCRUM_STATE_KEYS", environ)
    keys = [part.strip() for part in (value or "").split(",") if part.strip()]
    if any(len(key) < _MIN_KEY for key in keys):
        raise Invalid(f"FULCRUM_STATE_KEYS: each key needs at least {_MIN_KEY} random characters; make new ones")
    return tuple(SecretStr(key) for key in keys)
