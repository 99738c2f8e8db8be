"""The three roles: made where they are missing, refused where they could see past row-level security."""

from typing import Any

from psycopg import sql

from fulcrum_adapters.postgres.migrations.statements import ROLES
from fulcrum_mcp.errors import Unavailable

__all__ = ["prepare_roles"]

_NAMES = ", ".join(ROLES)
_MAKE = """\
DO $$
BEGIN
  CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;  -- made at this moment for another database of the server
END $$
"""


def prepare_roles(connection: Any) -> None:
    """Afterwards the connected user may act as each of them. Raises `Unavailable` with what a superuser has to run."""
    user, may_make = connection.execute(
        "SELECT current_user, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    known = connection.execute(
        "SELECT rolname, rolsuper OR rolbypassrls, pg_has_role(current_user, oid, 'SET') FROM pg_roles"
        " WHERE rolname = ANY (%s)",
        [list(ROLES)],
    ).fetchall()
    unsafe = sorted(name for name, powerful, _ in known if powerful)
    if unsafe:
        raise Unavailable(
            f"role {unsafe[0]} sees past row-level security; as a superuser run: "
            f"ALTER ROLE {unsafe[0]} NOSUPERUSER NOBYPASSRLS"
        )
    missing = [name for name in ROLES if name not in {row[0] for row in known}]
    if missing and not may_make:
        commands = "; ".join(f"CREATE ROLE {name} NOLOGIN" for name in missing)
        raise Unavailable(
            f'user "{user}" may not make the role {missing[0]}; as a superuser run: '
            f'{commands}; GRANT {_NAMES} TO "{user}"'
        )
    for name in missing:
        connection.execute(sql.SQL(_MAKE).format(role=sql.Identifier(name)))
    for name in ROLES:
        _join(connection, name, user)


def _join(connection: Any, name: str, user: str) -> None:
    may_act, may_grant = connection.execute(
        "SELECT pg_has_role(current_user, %(role)s, 'SET'),"
        " pg_has_role(current_user, %(role)s, 'MEMBER WITH ADMIN OPTION')",
        {"role": name},
    ).fetchone()
    if may_act:
        return
    if not may_grant:
        raise Unavailable(f'user "{user}" may not act as {name}; as a superuser run: GRANT {_NAMES} TO "{user}"')
    connection.execute(
        sql.SQL("GRANT {role} TO {user} WITH INHERIT FALSE, SET TRUE").format(
            role=sql.Identifier(name), user=sql.Identifier(user)
        )
    )
