#!/bin/sh
# Run once by the image, as the superuser, when the volume is empty: one user and one database for Fulcrum.
# Tables, views, functions and the roles fulcrum_app, fulcrum_gateway and fulcrum_ingest are made by its migrations.
set -eu
: "${FULCRUM_DB_PASSWORD:?FULCRUM_DB_PASSWORD is not set: the password of the database user fulcrum}"

psql --set ON_ERROR_STOP=1 --no-psqlrc --quiet --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv password FULCRUM_DB_PASSWORD
-- May make its own three roles and act as them; is no superuser, so row-level security holds for it too.
CREATE ROLE fulcrum LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOBYPASSRLS PASSWORD :'password';
CREATE DATABASE fulcrum_metrics OWNER fulcrum;
REVOKE CONNECT, TEMPORARY ON DATABASE fulcrum_metrics FROM PUBLIC;
\connect fulcrum_metrics
-- Only a superuser may install TimescaleDB. Where there is none, plain partitions take its place.
SELECT count(*) > 0 AS there FROM pg_available_extensions WHERE name = 'timescaledb' \gset
\if :there
CREATE EXTENSION IF NOT EXISTS timescaledb;
\endif
SQL
