"""The keys of an installation's trail: those that were given, else the data folder's, and never another signing key."""

import structlog

from fulcrum_adapters.jetstream import Seal
from fulcrum_adapters.postgres.chains import PostgresChains
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.installation import rekey
from fulcrum_adapters.postgres.upgrade import check
from fulcrum_adapters.signing import GivenKeys, nats_key
from fulcrum_mcp.composition.database import postgres_config
from fulcrum_mcp.composition.folder import open_folder
from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.processor.trail_key import TrailKey
from fulcrum_mcp.settings import Settings

__all__ = ["audit_keys", "check_signing_key", "nats_seal", "rekey_installation"]

_log = structlog.get_logger("fulcrum.signing")


def audit_keys(settings: Settings, *, signs: bool = True) -> GivenKeys:
    """`signs`: checkpoints or exports. Raises `Invalid`, `Unavailable`."""
    pem, master = settings.audit_signing_key, settings.audit_mac_key
    folder = settings.data / "keys"
    if pem is None:
        open_folder(settings.data)
    if pem is None and signs:
        said = "FULCRUM_AUDIT_SIGNING_KEY is not set: the key in this folder signs, and on other hosts nobody has it"
        _log.warning("audit.key.local", folder=str(folder), reason=said)
    return GivenKeys(
        None if pem is None else pem.get_secret_value(), None if master is None else master.get_secret_value(), folder
    )


def check_signing_key(keys: GivenKeys, database: Database) -> None:
    """Raises `Invalid` when the trail is signed with another key, and `Unavailable`."""
    TrailKey(PostgresChains(database), keys.key_id).check()


def nats_seal(settings: Settings) -> Seal:
    """What servers and processors believe each other by. Raises `Invalid`, `Unavailable`."""
    master = settings.audit_mac_key
    if master is None:
        open_folder(settings.data)
    return Seal(nats_key(None if master is None else master.get_secret_value(), settings.data / "keys"))


def rekey_installation(settings: Settings) -> bool:
    """The key given here is the installation's from now on; False: it was before. Raises `Invalid`, `Unavailable`."""
    if settings.audit_mac_key is None:
        raise Invalid("FULCRUM_AUDIT_MAC_KEY is not set; set the new one here, and in every server and processor")
    config, seal = postgres_config(settings), nats_seal(settings)
    check(config)
    database = Database(config)
    try:
        return rekey(database, seal.check)
    finally:
        database.close()
