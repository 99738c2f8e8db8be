"""What redis-py raises, in our words: what, where, what to do. Never a password, never a guess that it went well."""

from redis import exceptions

from fulcrum_mcp.errors import Unavailable
from fulcrum_mcp.ports.tls import tls_fault

__all__ = ["REBUILDING", "translated"]

REBUILDING = "the budgets' books are being rebuilt after {place} lost them or was replaced; try again in a few seconds"

_REMEDIES = {
    "READONLY": "is a replica; point redis.url at the primary, or at the sentinels (redis+sentinel://)",
    "LOADING": "is still loading its data; wait for it",
    "BUSY": "is kept busy by a script; end it with SCRIPT KILL",
    "OOM": "has no memory left; raise its maxmemory",
    "NOAUTH": "wants a password; put it into redis.url",
    "WRONGPASS": "does not accept the user and password of redis.url",
    "NOPERM": "does not permit the user of redis.url what the ledger needs (EVALSHA, SCRIPT, INFO and our keys)",
    "NOSCRIPT": "forgets its scripts as soon as they are loaded; see who sends it SCRIPT FLUSH",
    "WRONGTYPE": "holds other things under our keys; choose another redis.prefix",
    "MISCONF": "cannot write its data to its disk; see its log",
    "MASTERDOWN": "is a replica without its primary; point redis.url at the primary",
    "NOREPLICAS": "has fewer replicas than it demands (min-replicas-to-write)",
    "MOVED": "is a cluster; the ledger needs one primary",
    "CROSSSLOT": "is a cluster; the ledger needs one primary",
    "CLUSTERDOWN": "is a cluster; the ledger needs one primary",
    "DAMAGED": "received what had been damaged on the way to it; check the network",
    "MAXCLIENTS": "has no connection left; raise its maxclients",
}
_CLASSES = (
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.NoScriptError, "NOSCRIPT"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.MovedError, "MOVED"),
    (exceptions.ClusterCrossSlotError, "CROSSSLOT"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "WRONGPASS"),
)
_PHRASES = (("max number of clients", "MAXCLIENTS"), ("previous master", "READONLY"))
_FIRST = 8
"""Words of an answer among which its code stands; a script's error begins with where it was."""


def translated(fault: Exception, place: str, *, sent: bool) -> Unavailable:
    """`sent`: the request had been sent when it happened, so that it may have been done."""
    code = _code(fault)
    if code is not None:
        return Unavailable(f"redis: {place} {_REMEDIES[code]}")
    insecure = tls_fault(fault, "redis")
    if insecure is not None:
        return Unavailable(f"redis: {place}: {insecure}", doubtful=sent)
    if isinstance(fault, exceptions.ResponseError):
        said = str(fault).partition(", with args")[0][:200]
        what = f"{place} refused: {said}; see the server's log"
    elif isinstance(fault, exceptions.TimeoutError | TimeoutError):
        what = f"{place} does not answer in time; check the server and the way to it"
    elif isinstance(fault, exceptions.InvalidResponse):
        what = f"{place} does not speak the protocol; check redis.url"
    elif sent:
        what = f"the connection to {place} broke; check the server"
    else:
        what = f"{place} cannot be reached; check that it runs, and redis.url"
    return Unavailable(f"redis: {what}", doubtful=sent)


def _code(fault: Exception) -> str | None:
    """The server's word for what was certainly not done; None where that is not known."""
    found = next((code for kind, code in _CLASSES if isinstance(fault, kind)), None)
    text = str(fault)
    if found is None and isinstance(fault, exceptions.ConnectionError):
        found = next((code for phrase, code in _PHRASES if phrase in text), None)
    if found is None and isinstance(fault, exceptions.AuthenticationError):
        found = "NOAUTH" if "required" in text else "WRONGPASS"
    if found is None and isinstance(fault, exceptions.ResponseError):
        words = {word.strip("-:,.") for word in text.split()[:_FIRST]}
        found = next((code for code in _REMEDIES if code in words), None)
    return found
