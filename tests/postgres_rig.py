"""Databases with the whole schema, for a user who is no superuser: migrated once, copied for every test."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from servers.postgres import PostgresServer

from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.upgrade import upgrade

__all__ = ["LOGIN", "database", "login_user", "migrated_database", "postgres_config", "postgres_database", "superuser"]

LOGIN = "fulcrum_login"
"""It may make roles, and owns its databases; no more."""


def superuser(config: PostgresConfig) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection that nothing is hidden from; close it."""
    return psycopg.connect(config.url.replace(f"{LOGIN}@", "postgres@"), autocommit=True)


def login_user(server: PostgresServer) -> str:
    """Make the user where it is missing; its name."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        known = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (LOGIN,)).fetchone()
        if known is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(sql.Identifier(LOGIN)))
    return LOGIN


def database(server: PostgresServer, template: str = "template0") -> str:
    """A new database of that user; its name."""
    name = server.create_database()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*map(sql.Identifier, (name, template, LOGIN)))
        )
    return name


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> str:
    """The name of a database to copy; nobody connects to it."""
    postgres_server.resume()
    postgres_server.start()
    login_user(postgres_server)
    name = database(postgres_server)
    upgrade(PostgresConfig(postgres_server.database_url(name, user=LOGIN)))
    return name


@pytest.fixture
def postgres_config(postgres_server: PostgresServer, migrated_database: str) -> Iterator[PostgresConfig]:
    postgres_server.resume()
    postgres_server.start()
    name = database(postgres_server, migrated_database)
    yield PostgresConfig(postgres_server.database_url(name, user=LOGIN))
    postgres_server.resume()
    postgres_server.start()
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_database(postgres_config: PostgresConfig) -> Iterator[Database]:
    database = Database(postgres_config)
    yield database
    database.close()
