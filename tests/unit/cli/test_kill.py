"""`fulcrum kill`."""

import json

import pytest
from conftest_cli import Run

from fulcrum_mcp.core.switch import EVERYBODY


def test_on_list_and_off(run: Run) -> None:
    run("keys", "create", "k")
    done = run("kill", "on", "agent:bot", "--reason", "runs wild")
    assert done.code == 0
    assert done.out.startswith("agent:bot is stopped from now on; fulcrum kill off ks_")
    assert "already, since" in run("kill", "on", "agent:bot", "--reason", "more").out
    listed = run("kill", "list")
    assert "agent:bot" in listed.out
    assert "runs wild" in listed.out
    assert "operator" in listed.out
    assert run("kill", "off", "agent:bot").out.startswith("agent:bot may go on")
    empty = run("kill", "list")
    assert (empty.code, empty.err) == (0, "nothing is stopped; fulcrum kill on agent:NAME --reason TEXT stops one\n")
    gone = run("kill", "off", "agent:bot")
    assert gone.code == 1
    assert "no kill switch" in gone.err


def test_for_machines_and_for_other_tenants(run: Run) -> None:
    run("keys", "create", "k")
    thrown = json.loads(run("kill", "on", "server:a", "--reason", "x", "--everybody", "--json").out)
    assert (thrown["kill_switch"]["everybody"], thrown["kill_switch"]["tenant"]) == (True, None)
    assert EVERYBODY == ""
    json.loads(run("kill", "on", "agent:b", "--reason", "x", "--tenant", "acme", "--json").out)
    listed = json.loads(run("kill", "list", "--tenant", "acme", "--json").out)["kill_switches"]
    assert [switch["target"] for switch in listed] == ["agent:b", "server:a"]
    assert json.loads(run("kill", "off", listed[0]["id"], "--tenant", "acme", "--json").out)["kill_switch"] == listed[0]
    assert run("kill", "off", "server:a").code == 0


def test_what_is_stopped_twice_wants_an_id(run: Run) -> None:
    run("keys", "create", "k")
    run("kill", "on", "server:a", "--reason", "x", "--everybody")
    run("kill", "on", "server:a", "--reason", "x")
    refused = run("kill", "off", "server:a")
    assert refused.code == 2
    assert "name one of them" in refused.err


def test_what_is_wrong_is_said(run: Run) -> None:
    assert "no Fulcrum has used this folder" in run("kill", "on", "agent:bot", "--reason", "x").err
    run("keys", "create", "k")
    assert "KIND:NAME" in run("kill", "on", "bot", "--reason", "x").err
    assert run("kill", "on", "agent:bot").code == 2
    assert "--everybody" not in run("kill", "on", "agent:bot", "--reason", "x").err


def test_names_of_others_cannot_steer_the_terminal(run: Run) -> None:
    run("keys", "create", "k")
    assert run("kill", "on", "agent:a\x1b[31m", "--reason", "x").code == 2


def test_an_installation_on_postgres_is_changed_through_a_gateway(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("keys", "create", "k")
    for name, url in (("POSTGRES", "postgresql://u@h/d"), ("REDIS", "redis://h"), ("NATS", "nats://h")):
        monkeypatch.setenv(f"FULCRUM_{name}_URL", url)
    refused = run("kill", "on", "agent:bot", "--reason", "x")
    assert refused.code == 2
    assert "name a gateway with --url" in refused.err
