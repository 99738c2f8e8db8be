"""What the server or the driver says, in our errors: what, where, what to do; never a URL or a value."""

from psycopg import DataError, Error, IntegrityError, errors

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.tls import tls_words
from fulcrum_mcp.errors import Conflict, FulcrumError, Invalid, Unavailable

__all__ = ["translated"]

_UPGRADE = "The schema is older than this Fulcrum, or is not there: run fulcrum db upgrade."
_RIGHTS = "Its user may not do that: connect as the one that ran fulcrum db upgrade, or grant it Fulcrum's roles."
_AGAIN = "Trying again may help; nothing was changed."
_REMEDIES: tuple[tuple[tuple[type[Error], ...], str], ...] = (
    ((errors.ReadOnlySqlTransaction,), "This is a standby: let the URL lead to the primary."),
    ((errors.InsufficientPrivilege,), _RIGHTS),
    ((errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction, errors.UndefinedObject), _UPGRADE),
    ((errors.InvalidSchemaName, errors.InvalidParameterValue), _UPGRADE),
    ((errors.TooManyConnections,), "Raise max_connections there, or lower [postgres] pool here."),
    ((errors.DiskFull,), "Make room on the server's disk."),
)
_RIVALS = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)


def translated(
    error: Error,
    config: PostgresConfig,
    *,
    silent: bool = False,
    committing: bool = False,
    patience: float | None = None,
) -> FulcrumError:
    """Our error for one of psycopg's.

    `silent`: the server said nothing within `patience` seconds; `committing`: it was asked to commit.
    """
    where = f"postgres {config.place}"
    doubtful = committing and not isinstance(error, IntegrityError | errors.SerializationFailure)
    if silent or isinstance(error, errors.QueryCanceled):
        said = f"no answer within {patience or config.timeout:g} s"
        remedy = "Look at the server's load and locks, or raise [postgres] timeout."
        return Unavailable(f"{where}: {said}. {remedy}", doubtful=doubtful)
    said = _said(error, config)
    if isinstance(error, errors.UniqueViolation | errors.ForeignKeyViolation | errors.ExclusionViolation):
        return Conflict(f"{where}: {said}; it exists already, or somebody was faster.")
    if isinstance(error, _RIVALS):
        return Unavailable(f"{where}: {said}. {_AGAIN}", busy=True)
    for kinds, remedy in _REMEDIES:
        if isinstance(error, kinds):
            return Unavailable(f"{where}: {said}. {remedy}", doubtful=doubtful)
    if isinstance(error, DataError | IntegrityError):
        return Invalid(f"{where}: {said}; this cannot be stored.")
    insecure = None if error.diag.message_primary else tls_words(str(error), secured=config.secured)
    remedy = "Check that the server runs and accepts connections, and [postgres] url (FULCRUM_POSTGRES_URL)."
    what = f"{said}. {remedy}" if insecure is None else f"{_hidden(insecure, config)}."
    return Unavailable(f"{where}: {what}", doubtful=doubtful)


def _said(error: Error, config: PostgresConfig) -> str:
    text = error.diag.message_primary or str(error) or type(error).__name__
    return _hidden(text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__, config)


def _hidden(text: str, config: PostgresConfig) -> str:
    for secret in config.secrets:
        text = text.replace(secret, "...")
    return text
