"""`FULCRUM_*` and `FULCRUM_*_FILE`, and the options of the command line, laid over a file's settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.file import guess
from fulcrum_mcp.settings.place import Places

__all__ = ["SECRETS", "lay_over", "read_variable", "read_variables"]

_MOST = 1 << 20


def _text(value: str) -> str:
    return value


def _path(value: str) -> str:
    if value.lstrip().startswith("-----BEGIN"):
        raise ValueError(
            "must be the path of a PEM file, not what it holds; set the variable without _FILE to the path"
        )
    return value


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise ValueError("must be a whole number")
    return int(value)


def _seconds(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("must be a number of seconds") from None


def _share(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("must be a number from 0 to 1") from None


def _truth(value: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if found is None:
        raise ValueError("must be true or false")
    return found


def _several(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


_VARIABLES: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "FULCRUM_DATA": (("data",), _text),
    "FULCRUM_POLICIES": (("policies",), _text),
    "FULCRUM_HTTP": (("http",), _text),
    "FULCRUM_GRPC": (("grpc",), _text),
    "FULCRUM_ANONYMOUS": (("anonymous",), _text),
    "FULCRUM_WORKERS": (("workers",), _whole),
    "FULCRUM_WATCHDOG_SECONDS": (("watchdog_seconds",), _seconds),
    "FULCRUM_DENY_AS": (("deny_as",), _text),
    "FULCRUM_ALLOWED_HOSTS": (("allowed_hosts",), _several),
    "FULCRUM_ALLOWED_ORIGINS": (("allowed_origins",), _several),
    "FULCRUM_AUDIT_DURABILITY": (("audit", "durability"), _text),
    "FULCRUM_AUDIT_INPUTS": (("audit", "inputs"), _text),
    "FULCRUM_AUDIT_INPUTS_DAYS": (("audit", "inputs_days"), _whole),
    "FULCRUM_AUDIT_MAX_SPOOL": (("audit", "max_spool"), _whole),
    "FULCRUM_POLICY_ENGINE": (("policy", "engine"), _text),
    "FULCRUM_POLICY_OPA_URL": (("policy", "opa_url"), _text),
    "FULCRUM_POLICY_TIMEOUT": (("policy", "timeout"), _seconds),
    "FULCRUM_POLICY_MAX_INPUT": (("policy", "max_input"), _whole),
    "FULCRUM_POLICY_DATA": (("policy", "data"), _text),
    "FULCRUM_LIMITS_MAX_REQUEST": (("limits", "max_request"), _whole),
    "FULCRUM_LIMITS_MAX_RESPONSE": (("limits", "max_response"), _whole),
    "FULCRUM_LIMITS_MAX_DEPTH": (("limits", "max_depth"), _whole),
    "FULCRUM_LIMITS_IN_FLIGHT": (("limits", "in_flight"), _whole),
    "FULCRUM_LIMITS_IN_FLIGHT_PER_KEY": (("limits", "in_flight_per_key"), _whole),
    "FULCRUM_OAUTH_ISSUER": (("oauth", "issuer"), _text),
    "FULCRUM_OAUTH_RESOURCE": (("oauth", "resource"), _text),
    "FULCRUM_OAUTH_JWKS_URL": (("oauth", "jwks_url"), _text),
    "FULCRUM_POSTGRES_URL": (("postgres", "url"), _text),
    "FULCRUM_POSTGRES_POOL": (("postgres", "pool"), _whole),
    "FULCRUM_POSTGRES_TIMEOUT": (("postgres", "timeout"), _seconds),
    "FULCRUM_POSTGRES_MIGRATE": (("postgres", "migrate"), _truth),
    "FULCRUM_POSTGRES_CA": (("postgres", "ca"), _path),
    "FULCRUM_POSTGRES_CERT": (("postgres", "cert"), _path),
    "FULCRUM_POSTGRES_KEY": (("postgres", "key"), _path),
    "FULCRUM_REDIS_URL": (("redis", "url"), _text),
    "FULCRUM_REDIS_PREFIX": (("redis", "prefix"), _text),
    "FULCRUM_REDIS_TIMEOUT": (("redis", "timeout"), _seconds),
    "FULCRUM_REDIS_CA": (("redis", "ca"), _path),
    "FULCRUM_REDIS_CERT": (("redis", "cert"), _path),
    "FULCRUM_REDIS_KEY": (("redis", "key"), _path),
    "FULCRUM_NATS_URL": (("nats", "url"), _text),
    "FULCRUM_NATS_CREDENTIALS": (("nats", "credentials"), _text),
    "FULCRUM_NATS_REPLICAS": (("nats", "replicas"), _whole),
    "FULCRUM_NATS_MAX_BYTES": (("nats", "max_bytes"), _whole),
    "FULCRUM_NATS_SYNC_ALWAYS": (("nats", "sync_always"), _truth),
    "FULCRUM_NATS_TIMEOUT": (("nats", "timeout"), _seconds),
    "FULCRUM_NATS_CA": (("nats", "ca"), _path),
    "FULCRUM_NATS_CERT": (("nats", "cert"), _path),
    "FULCRUM_NATS_KEY": (("nats", "key"), _path),
    "FULCRUM_TELEMETRY_OTLP_ENDPOINT": (("telemetry", "otlp_endpoint"), _text),
    "FULCRUM_TELEMETRY_TRACES": (("telemetry", "traces"), _share),
    "FULCRUM_TELEMETRY_METRICS": (("telemetry", "metrics"), _text),
}
SECRETS = ("FULCRUM_ADMIN_KEY", "FULCRUM_AUDIT_MAC_KEY", "FULCRUM_AUDIT_SIGNING_KEY", "FULCRUM_STATE_KEYS")
_ELSEWHERE = ("FULCRUM_CONFIG", "FULCRUM_API_KEY", "FULCRUM_URL", "FULCRUM_DEBUG")
"""Read by the command line, not part of the settings."""


def read_variable(name: str, environ: Mapping[str, str]) -> str | None:
    """`NAME`, or the contents of the file that `NAME_FILE` names (its last line break removed). Raises `Invalid`."""
    file = environ.get(f"{name}_FILE") or None
    value = environ.get(name) or None
    if file is None:
        return value
    if value is not None:
        raise Invalid(f"{name}: both {name} and {name}_FILE are set; unset one of them")
    try:
        with Path(file).open("rb") as handle:
            content = handle.read(_MOST + 1)
        text = content.decode()
    except OSError as exc:
        raise Invalid(
            f"{name}_FILE: {file} cannot be read ({exc.strerror}); check the path and its permissions"
        ) from exc
    except UnicodeDecodeError as exc:
        raise Invalid(f"{name}_FILE: {file} is not UTF-8 text; write the value as plain text") from exc
    text = text.removesuffix("\n").removesuffix("\r")
    if len(content) > _MOST or not text:
        raise Invalid(f"{name}_FILE: {file} is {'too large' if text else 'empty'}; put the value alone into it")
    return text


def read_variables(environ: Mapping[str, str], raw: dict[str, Any], places: Places) -> list[str]:
    """Lay every known variable over `raw`; warnings about those that look like ours and are not. Raises `Invalid`."""
    for name, (path, convert) in _VARIABLES.items():
        text = read_variable(name, environ)
        if text is None:
            continue
        label = f"{name}_FILE" if environ.get(f"{name}_FILE") else name
        try:
            lay_over(raw, path, convert(text), label, places)
        except ValueError as exc:
            raise Invalid(f"{label}: {exc}") from None
    known = (*_VARIABLES, *SECRETS, *_ELSEWHERE)
    return [
        f"{name}: no such setting{guess(name, known) if 'did you' in guess(name, known) else ''}"
        for name in sorted(environ)
        if name.startswith("FULCRUM_") and name.removesuffix("_FILE") not in known
    ]


def lay_over(raw: dict[str, Any], path: tuple[str, ...], value: Any, label: str, places: Places) -> None:
    """Set one value, and remember where it came from."""
    here = raw
    for part in path[:-1]:
        inner = here.get(part)
        here[part] = dict(inner) if isinstance(inner, Mapping) else {}
        here = here[part]
    here[path[-1]] = value
    places.label(path, label)
