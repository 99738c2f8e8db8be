"""Finds what one tenant could read or write of another's, in any table, view or function: asked of the catalog.

Rows full of `alpha` and of `bravo` are put into every table with a tenant. Then everything that the application's role
may use is used for tenant alpha, and for none.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["BOUNDARY", "Session", "leaks", "plant"]

Session = psycopg.Connection[tuple[Any, ...]]
Rows = Sequence[tuple[Any, ...]]

BOUNDARY = ("fulcrum", "metrics")
_OF_NO_TENANT = {"fulcrum.revision", "fulcrum.schema_revision"}
"""Numbers that every tenant may know."""
_APP = "fulcrum_app"

_RELATIONS = """
SELECT n.nspname, c.relname, c.relkind, c.relrowsecurity AND c.relforcerowsecurity,
  EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped),
  c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY 1, 2
"""
_FUNCTIONS = """
SELECT p.oid::regprocedure::text, p.prosecdef,
  EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s LIKE 'search_path=%%'),
  has_function_privilege('public', p.oid, 'EXECUTE'),
  has_function_privilege(%s, p.oid, 'EXECUTE') AND p.prorettype <> 'trigger'::regtype,
  ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n) ORDER BY n)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (%s) AND p.prokind IN ('f', 'p') ORDER BY 1
"""
_COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attidentity <> 'a' AND attgenerated = ''
"""
_ARGUMENTS = {
    "text": ["minute", "hour", "x_bravo", "bravo"],
    "timestamp with time zone": ["-infinity", "infinity"],
    "bigint": ["0", "9223372036854775807"],
    "bigint[]": ["{1,2}"],
    "integer": ["0", "1000"],
    "boolean": ["true", "false"],
    "double precision": ["0.5"],
}


def leaks(connection: Session) -> list[str]:
    """Everything found, one sentence each; a superuser's connection, on which it plants its rows first."""
    relations = connection.execute(_RELATIONS, (list(BOUNDARY),)).fetchall()
    functions = connection.execute(_FUNCTIONS, (_APP, list(BOUNDARY))).fetchall()
    found = [*_walls(relations), *_loose(functions), *_public(connection)]
    for name in _owned(relations):
        plant(connection, name)
    for tenant in ("alpha", ""):
        for schema, name, _, _, owned, _ in relations:
            found += _seen(connection, tenant, f"{schema}.{name}", owned=owned)
        for shown, _, _, _, usable, types in functions:
            if usable:
                found += _told(connection, tenant, shown, types)
    for name in _owned(relations):
        found += _changed(connection, name)
    return sorted(set(found))


def _owned(relations: Rows) -> list[str]:
    """Tables whose rows belong to tenants; parts are used through their whole."""
    return [
        f"{schema}.{name}" for schema, name, kind, _, owned, part in relations if kind in "rp" and owned and not part
    ]


def _walls(relations: Rows) -> Iterator[str]:
    for schema, name, kind, walled, _, _ in relations:
        if kind in "rp" and schema == "fulcrum" and not walled and f"{schema}.{name}" not in _OF_NO_TENANT:
            yield f"table {schema}.{name} has no row-level security, or not for its owner"


def _loose(functions: Rows) -> Iterator[str]:
    for shown, definer, pinned, everybody, _, _ in functions:
        if everybody:
            yield f"function {shown} may be used by everybody"
        if definer and not pinned:
            yield f"function {shown} acts as its owner without a search path of its own"


def _text(name: Any) -> sql.SQL:
    """A name from the catalog, as it stands."""
    return sql.SQL(name)


def plant(connection: Session, table: str) -> None:
    """A row of each tenant; what they hold says whose it is."""
    columns = connection.execute(_COLUMNS, (table,)).fetchall()
    names = sql.SQL(", ").join([sql.Identifier(name) for name, _ in columns])
    for tenant in ("alpha", "bravo"):
        values = _cast((_value(name, kind, tenant), kind) for name, kind in columns)
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(_text(table), names, values))


def _value(name: str, kind: str, tenant: str) -> str:
    number = "1" if tenant == "alpha" else "2"
    values = {
        "text": tenant if name == "tenant" else f"x_{tenant}",
        "jsonb": f'["x_{tenant}"]',
        "bigint[]": f"{{{','.join([number] * 6)}}}",
        "boolean": "true",
        "timestamp with time zone": "now",
        "bytea": f"x_{tenant}",
    }
    return values.get(kind, number)


def _as_app(connection: Session, tenant: str, query: sql.Composed) -> tuple[str, int] | None:
    """All the rows that the application gets, as text, and how many it touched; None where it has no right to ask."""
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config('fulcrum.tenant_id', %s, true)", (tenant,))
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(_APP)))
        try:
            with connection.transaction():
                done = connection.execute(query)
                rows = done.fetchall() if done.description else []
                return "\n".join(str(row[0]) for row in rows), done.rowcount
        except psycopg.errors.InsufficientPrivilege:
            return None


def _seen(connection: Session, tenant: str, name: str, *, owned: bool) -> Iterator[str]:
    answer = _as_app(connection, tenant, sql.SQL("SELECT t::text FROM {} AS t").format(_text(name)))
    if answer is None:
        return
    text, count = answer
    if "bravo" in text:
        yield f"{name} shows another tenant's rows"
    if not tenant and "alpha" in text:
        yield f"{name} shows a tenant's rows to nobody in particular"
    if owned and tenant and "alpha" not in text:
        yield f"{name} does not show a tenant its own row: nothing was tried"
    if not owned and count and name not in _OF_NO_TENANT:
        yield f"{name} has no tenant and shows rows"


def _told(connection: Session, tenant: str, shown: str, types: list[str]) -> Iterator[str]:
    unknown = [kind for kind in types if kind not in _ARGUMENTS]
    if unknown:
        yield f"function {shown} takes {unknown[0]}, of which no values are known here: nothing was tried"
        return
    name = _text(shown.partition("(")[0])
    for arguments in itertools.islice(itertools.product(*[_ARGUMENTS[kind] for kind in types]), 200):
        query = sql.SQL("SELECT t::text FROM {}({}) AS t").format(name, _cast(zip(arguments, types, strict=True)))
        try:
            answer = _as_app(connection, tenant, query)
        except psycopg.Error:  # values that it does not take
            continue
        text = answer[0] if answer is not None else ""
        said = {mark for mark in ("alpha", "bravo") if mark in text and not any(mark in each for each in arguments)}
        if "bravo" in said:
            yield f"function {shown} tells of another tenant"
        if not tenant and "alpha" in said:
            yield f"function {shown} tells of a tenant to nobody in particular"


def _cast(values: Iterable[tuple[str, str]]) -> sql.Composed:
    return sql.SQL(", ").join([sql.SQL("{}::{}").format(sql.Literal(value), _text(kind)) for value, kind in values])


def _changed(connection: Session, table: str) -> Iterator[str]:
    """Without conditions and answers, which only rows that may also be seen would pass. There is one row of each."""
    columns = connection.execute(_COLUMNS, (table,)).fetchall()
    names = sql.SQL(", ").join([sql.Identifier(name) for name, _ in columns])
    foreign = _cast((_fresh(name, kind), kind) for name, kind in columns)
    adding = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(_text(table), names, foreign)
    added = _as_app(connection, "alpha", adding)
    if added is not None and added[1]:
        yield f"a tenant adds another tenant's rows to {table}"
    removed = _as_app(connection, "alpha", sql.SQL("DELETE FROM {}").format(_text(table)))
    if removed is not None and removed[1] > 1:
        yield f"a tenant removes another tenant's rows from {table}"
    for name, _ in columns:
        column = sql.Identifier(name)
        changing = sql.SQL("UPDATE {} SET {} = {}").format(_text(table), column, column)
        changed = _as_app(connection, "alpha", changing)
        if changed is not None and changed[1] > 1:
            yield f"a tenant changes {name} of another tenant's rows in {table}"


def _fresh(name: str, kind: str) -> str:
    """Of another row of bravo's, which clashes with none."""
    if kind == "text" and name != "tenant":
        return "y_bravo"
    return "3" if kind in {"bigint", "integer"} else _value(name, kind, "bravo")


def _public(connection: Session) -> Iterator[str]:
    rows = connection.execute(
        "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = ANY (%(in)s) AND ("
        "  has_schema_privilege('public', oid, 'USAGE') OR has_schema_privilege('public', oid, 'CREATE'))"
        " UNION ALL SELECT 'relation ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = ANY (%(in)s) AND EXISTS (SELECT FROM aclexplode(c.relacl) AS a WHERE a.grantee = 0)",
        {"in": list(BOUNDARY)},
    ).fetchall()
    for (what,) in rows:
        yield f"{what} is open to everybody"
