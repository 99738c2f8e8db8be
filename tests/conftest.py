"""The real servers, for every test that asks for one."""

pytest_plugins = ["servers.fixtures", "postgres_rig"]
