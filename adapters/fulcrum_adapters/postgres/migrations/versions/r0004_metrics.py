"""Metrics: what records say, in tables for counting, and sums of them by minute and hour.

With TimescaleDB these are hypertables and continuous aggregates under its policies; without, partitions by day and
views. Names, columns, functions and answers are the same. Nobody but `fulcrum_ingest` may touch the tables, and it may
only add; tenants read through functions that ask for their own rows.
"""

from typing import Any, NamedTuple

from fulcrum_adapters.postgres.migrations.statements import driver, run

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0004"
down_revision = "0003"

_TABLES = """
CREATE SCHEMA metrics;
REVOKE ALL ON SCHEMA metrics FROM PUBLIC;

-- One row a record about a call: its decision, or its end.
CREATE TABLE metrics.tool_calls (
  time timestamptz NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  finished boolean NOT NULL,
  call text COLLATE "C" NOT NULL,
  leg bigint NOT NULL,
  agent text COLLATE "C",
  key text COLLATE "C",
  server text COLLATE "C",
  tool text COLLATE "C",
  effect text COLLATE "C",
  policy text COLLATE "C",
  code text COLLATE "C",
  duration_us bigint,
  size bigint
) {by_day};
CREATE INDEX tool_calls_tenant ON metrics.tool_calls (tenant, time);

-- One row a call that cost something, when it ended.
CREATE TABLE metrics.cost_events (
  time timestamptz NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  call text COLLATE "C" NOT NULL,
  agent text COLLATE "C",
  key text COLLATE "C",
  server text COLLATE "C",
  tool text COLLATE "C",
  calls bigint NOT NULL,
  usd_micros bigint NOT NULL,
  input_tokens bigint NOT NULL,
  output_tokens bigint NOT NULL,
  bytes bigint NOT NULL,
  seconds bigint NOT NULL
) {by_day};
CREATE INDEX cost_events_tenant ON metrics.cost_events (tenant, time);

-- One row a record about anything else.
CREATE TABLE metrics.events (
  time timestamptz NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  record text COLLATE "C" NOT NULL
) {by_day};
CREATE INDEX events_tenant ON metrics.events (tenant, time);

GRANT USAGE ON SCHEMA metrics TO fulcrum_app, fulcrum_ingest;
GRANT INSERT ON metrics.tool_calls, metrics.cost_events, metrics.events TO fulcrum_ingest;
"""

_EDGES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000)
"""Milliseconds; calls of the last bucket took longer. `metrics.latency_edges` says the same."""


def _durations() -> str:
    parts = list[str]()
    for low, high in zip((None, *_EDGES), (*_EDGES, None), strict=True):
        tests = ["finished"]
        tests += [] if low is None else [f"duration_us >= {low * 1000}"]
        tests += ["duration_us IS NOT NULL" if high is None else f"duration_us < {high * 1000}"]
        parts.append(f"count(*) FILTER (WHERE {' AND '.join(tests)})")
    return f"ARRAY[{', '.join(parts)}]"


class _Sum(NamedTuple):
    """What is counted over a table."""

    table: str
    name: str
    by: tuple[tuple[str, str], ...]
    sums: tuple[tuple[str, str, str], ...]
    """(name, type, expression)."""


def _count(test: str) -> str:
    return f"count(*) FILTER (WHERE {test})"


_TEXT = "text"
_BY_TOOL = (("agent", _TEXT), ("server", _TEXT), ("tool", _TEXT))
_SUMS = (
    _Sum(
        "tool_calls",
        "calls",
        _BY_TOOL,
        (
            ("calls", "bigint", _count("NOT finished AND leg = 0")),
            ("decisions", "bigint", _count("NOT finished")),
            ("allowed", "bigint", _count("NOT finished AND effect = 'allow'")),
            ("denied", "bigint", _count("NOT finished AND effect = 'deny'")),
            ("held", "bigint", _count("NOT finished AND effect = 'require_approval'")),
            ("ended", "bigint", _count("finished AND effect IS DISTINCT FROM 'input_required'")),
            ("ok", "bigint", _count("finished AND effect = 'ok'")),
            ("errors", "bigint", _count("finished AND effect IN ('error', 'timeout', 'outcome_unknown')")),
            ("withheld", "bigint", _count("finished AND effect = 'withheld'")),
            ("cancelled", "bigint", _count("finished AND effect = 'cancelled'")),
            ("decision_us", "numeric", "coalesce(sum(duration_us) FILTER (WHERE NOT finished), 0)"),
            ("duration_us", "numeric", "coalesce(sum(duration_us) FILTER (WHERE finished), 0)"),
            ("bytes", "numeric", "coalesce(sum(size) FILTER (WHERE finished), 0)"),
            ("durations", "bigint[]", _durations()),
        ),
    ),
    _Sum(
        "cost_events",
        "costs",
        _BY_TOOL,
        (
            ("charges", "bigint", "count(*)"),
            *(
                (name, "numeric", f"sum({name})")
                for name in ("calls", "usd_micros", "input_tokens", "output_tokens", "bytes", "seconds")
            ),
        ),
    ),
    _Sum("events", "events", (("type", _TEXT),), (("events", "bigint", "count(*)"),)),
)
_STEPS = ("minute", "hour")


def _select(what: _Sum, bucket: str, where: str = "") -> str:
    by = ", ".join(f"t.{name}" for name, _ in what.by)
    sums = ", ".join(f"{expression} AS {name}" for name, _, expression in what.sums)
    return (
        f"SELECT {bucket} AS time, t.tenant, {by}, {sums} FROM metrics.{what.table} AS t {where} "  # noqa: S608 (names of this module)
        f"GROUP BY {bucket}, t.tenant, {by}"
    )


def _function(what: _Sum, queries: tuple[str, str]) -> str:
    """Sums of the session's tenant: of the buckets that begin in [since, until)."""
    columns = ", ".join(f'"{name}" {kind}' for name, kind in (*what.by, *((n, k) for n, k, _ in what.sums)))
    return f"""
CREATE FUNCTION metrics.tenant_{what.name}(step text, since timestamptz, until timestamptz)
RETURNS TABLE ("time" timestamptz, {columns})
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  mine text := nullif(fulcrum.current_tenant(), '');
BEGIN
  IF step = 'minute' THEN
    RETURN QUERY {queries[0]};
  ELSIF step = 'hour' THEN
    RETURN QUERY {queries[1]};
  ELSE
    RAISE EXCEPTION 'step % is neither minute nor hour', step USING ERRCODE = 'invalid_parameter_value';
  END IF;
END $$;
REVOKE ALL ON FUNCTION metrics.tenant_{what.name}(text, timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION metrics.tenant_{what.name}(text, timestamptz, timestamptz) TO fulcrum_app;
"""


_LATENCY = f"""
CREATE FUNCTION metrics.latency_edges() RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN ARRAY[{", ".join(str(edge * 1000) for edge in _EDGES)}]::bigint[];

-- Where a share of counted durations lies, in microseconds, as straight lines through the buckets; the last is open.
CREATE FUNCTION metrics.quantile(durations bigint[], share double precision) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  edges bigint[] := metrics.latency_edges();
  wanted double precision;
  before double precision := 0;
  low double precision := 0;
BEGIN
  SELECT share * sum(n) INTO wanted FROM unnest(durations) AS n;
  IF wanted IS NULL OR (SELECT sum(n) FROM unnest(durations) AS n) = 0 THEN
    RETURN NULL;
  END IF;
  FOR i IN 1 .. array_length(edges, 1) LOOP
    IF durations[i] > 0 AND before + durations[i] >= wanted THEN
      RETURN low + (edges[i] - low) * (wanted - before) / durations[i];
    END IF;
    before := before + durations[i];
    low := edges[i];
  END LOOP;
  RETURN low;
END $$;

-- How long the session's tenant's calls took, by tool.
CREATE FUNCTION metrics.tenant_latency(step text, since timestamptz, until timestamptz)
RETURNS TABLE (server text, tool text, ended bigint, p50_us double precision, p95_us double precision,
               p99_us double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.server, s.tool, sum(s.n)::bigint,
         metrics.quantile(array_agg(s.n ORDER BY s.place), 0.5),
         metrics.quantile(array_agg(s.n ORDER BY s.place), 0.95),
         metrics.quantile(array_agg(s.n ORDER BY s.place), 0.99)
    FROM (SELECT c.server, c.tool, d.place, sum(d.n)::bigint AS n
            FROM metrics.tenant_calls(step, since, until) AS c, unnest(c.durations) WITH ORDINALITY AS d (n, place)
            GROUP BY c.server, c.tool, d.place) AS s
    GROUP BY s.server, s.tool HAVING sum(s.n) > 0 ORDER BY s.server, s.tool;
$$;
REVOKE ALL ON FUNCTION metrics.latency_edges(), metrics.quantile(bigint[], double precision),
  metrics.tenant_latency(text, timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION metrics.latency_edges(), metrics.quantile(bigint[], double precision),
  metrics.tenant_latency(text, timestamptz, timestamptz) TO fulcrum_app;
"""  # noqa: S608 (names of this module)

_MAINTAIN_PARTITIONS = """
-- Makes the partitions of the days to come, and drops those older than 90 days; how many were made and dropped. Rows
-- of days without a partition wait in <table>_rest and move when theirs is made. Gives up, until it is called again,
-- where it would have to wait for others.
CREATE FUNCTION metrics.maintain() RETURNS TABLE (made integer, dropped integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
SET lock_timeout = '300ms' AS $$
DECLARE
  parent text;
  day date;
  part text;
  old record;
BEGIN
  made := 0;
  dropped := 0;
  IF pg_try_advisory_xact_lock(18006::bigint << 48) THEN
    FOREACH parent IN ARRAY ARRAY['tool_calls', 'cost_events', 'events'] LOOP
      FOR ahead IN -1 .. 7 LOOP
        day := (now() AT TIME ZONE 'UTC')::date + ahead;
        part := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        CONTINUE WHEN to_regclass(format('metrics.%I', part)) IS NOT NULL;
        BEGIN
          EXECUTE format('CREATE TABLE metrics.%I (LIKE metrics.%I INCLUDING ALL)', part, parent);
          EXECUTE format('LOCK TABLE metrics.%I IN ACCESS EXCLUSIVE MODE', parent || '_rest');
          EXECUTE format('WITH moved AS (DELETE FROM metrics.%I WHERE time >= %L AND time < %L RETURNING *)'
                         ' INSERT INTO metrics.%I SELECT * FROM moved', parent || '_rest', day, day + 1, part);
          EXECUTE format('ALTER TABLE metrics.%I ATTACH PARTITION metrics.%I FOR VALUES FROM (%L) TO (%L)',
                         parent, part, day, day + 1);
          made := made + 1;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
          EXIT;
        END;
      END LOOP;
      FOR old IN SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
          WHERE i.inhparent = format('metrics.%I', parent)::regclass
            AND c.relname ~ ('^' || parent || '_[0-9]{8}$')
            AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - 90 LOOP
        BEGIN
          EXECUTE format('DROP TABLE metrics.%I', old.relname);
          dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
          EXIT;
        END;
      END LOOP;
      BEGIN
        EXECUTE format('DELETE FROM metrics.%I WHERE time < now() - interval ''90 days''', parent || '_rest');
      EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        NULL;
      END;
    END LOOP;
  END IF;
  RETURN NEXT;
END $$;
"""

_MAINTAIN_NOTHING = """
-- TimescaleDB makes and drops its chunks by itself.
CREATE FUNCTION metrics.maintain() RETURNS TABLE (made integer, dropped integer)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS 'SELECT 0, 0';
"""

_MAINTAIN_RIGHTS = """
REVOKE ALL ON FUNCTION metrics.maintain() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION metrics.maintain() TO fulcrum_ingest;
"""

_EXTENSION = """
DO $$
BEGIN
  -- Without its loader it would not only fail but end this connection.
  IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL)
     AND current_setting('timescaledb.disable_load', true) IS NOT NULL THEN
    CREATE EXTENSION timescaledb;
  END IF;
EXCEPTION WHEN OTHERS THEN
  NULL;  -- not allowed, or not able: partitions do
END $$
"""


def _timescale(connection: Any) -> str | None:
    """The quoted schema of TimescaleDB, if it is there with all that its community licence allows."""
    connection.execute(_EXTENSION)
    row = connection.execute(
        "SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'timescaledb' AND current_setting('timescaledb.license', true) = 'timescale'"
    ).fetchone()
    return None if row is None else str(row[0])


def _with_timescale(schema: str) -> None:
    run(_TABLES.format(by_day=""))
    for what in _SUMS:
        table = f"metrics.{what.table}"
        run(
            f"SELECT {schema}.create_hypertable('{table}', 'time', chunk_time_interval => interval '1 day',"
            " create_default_indexes => false);"
            f"ALTER TABLE {table} SET (timescaledb.compress, timescaledb.compress_segmentby = 'tenant',"
            " timescaledb.compress_orderby = 'time DESC');"
            f"SELECT {schema}.add_compression_policy('{table}', interval '7 days');"
            f"SELECT {schema}.add_retention_policy('{table}', interval '90 days');"
        )
        for step in _STEPS:
            view = f"metrics.{what.name}_by_{step}"
            bucket = f"{schema}.time_bucket('1 {step}'::interval, t.time)"
            run(
                f"CREATE MATERIALIZED VIEW {view} WITH (timescaledb.continuous, timescaledb.materialized_only = false)"
                f" AS {_select(what, bucket)} WITH NO DATA"
            )
            run(
                f"SELECT {schema}.add_continuous_aggregate_policy('{view}', start_offset => interval '90 days',"
                f" end_offset => interval '1 {step}', schedule_interval => interval '1 {step}');"
                f"SELECT {schema}.add_retention_policy('{view}', interval '90 days');"
            )
        names = ", ".join(f"v.{name}" for name in ("time", *(n for n, _ in what.by), *(n for n, _, _ in what.sums)))
        where = "v.tenant = mine AND v.time >= since AND v.time < until ORDER BY v.time"
        minute, hour = (f"SELECT {names} FROM metrics.{what.name}_by_{step} AS v WHERE {where}" for step in _STEPS)  # noqa: S608 (same)
        run(_function(what, (minute, hour)))
    run(_MAINTAIN_NOTHING)


def _with_partitions() -> None:
    run(_TABLES.format(by_day="PARTITION BY RANGE (time)"))
    for what in _SUMS:
        run(f"CREATE TABLE metrics.{what.table}_rest PARTITION OF metrics.{what.table} DEFAULT")
        queries = list[str]()
        for step in _STEPS:
            bucket = f"date_bin('1 {step}', t.time, timestamptz '2000-01-01 00:00:00+00')"
            run(f"CREATE VIEW metrics.{what.name}_by_{step} AS {_select(what, bucket)}")
            # the bounds again in terms of the table's own column, so that only their partitions are read
            near = f"t.tenant = mine AND t.time >= since AND t.time < until + interval '1 {step}'"
            names = ", ".join(f"v.{name}" for name in ("time", *(n for n, _ in what.by), *(n for n, _, _ in what.sums)))
            queries.append(
                f"SELECT {names} FROM ({_select(what, bucket, f'WHERE {near}')}) AS v"  # noqa: S608 (same)
                " WHERE v.time >= since AND v.time < until ORDER BY v.time"
            )
        run(_function(what, (queries[0], queries[1])))
    run(_MAINTAIN_PARTITIONS)


def upgrade() -> None:
    """From 0003."""
    schema = _timescale(driver())
    if schema is None:
        _with_partitions()
    else:
        _with_timescale(schema)
    run(_LATENCY)
    run(_MAINTAIN_RIGHTS)
    if schema is None:
        run("SELECT metrics.maintain()")
