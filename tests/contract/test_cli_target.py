"""`cli.target.Target`: a data folder and a running gateway give the same answers to the same commands."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.api.rest import RestDeps, rest_app
from fulcrum_mcp.cli.remote import RemoteTarget
from fulcrum_mcp.cli.target import Target
from fulcrum_mcp.composition.control import ControlPlane, admin_key, open_control, open_ledger_usage
from fulcrum_mcp.composition.local import LocalTarget
from fulcrum_mcp.errors import Conflict, Invalid, NotFound, Unauthenticated, Unavailable, Unprivileged
from fulcrum_mcp.settings import load

pytestmark = pytest.mark.service
NOTHING: Any = None


class Serving:
    """A REST face in a thread, on a port of its own."""

    def __init__(self, plane: ControlPlane) -> None:
        deps = RestDeps(
            identity=plane.identity,
            keys=plane.keys,
            budgets=plane.budgets,
            switches=plane.switches,
            policies=plane.policies,
            servers=plane.servers,
            audit=NOTHING,
            refuses=OriginPolicy("127.0.0.1").refusal,
        )
        config = uvicorn.Config(rest_app(deps), port=0, log_config=None, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < until, "the server did not start"
            self._thread.join(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    file = tmp_path / "fulcrum.toml"
    file.write_text(
        '[[server]]\nname = "a"\ncommand = ["x", "${T:-t}"]\n[[budget]]\nname = "f"\nscope = "agent"\ncalls = 5\n'
    )
    settings = load(file, environ={}, overrides={"data": str(tmp_path / "data")})
    usage, close = open_ledger_usage(settings.data)
    opened = open_control(settings, usage)
    yield opened
    opened.close()
    close()


@pytest.fixture
def serving(plane: ControlPlane) -> Iterator[Serving]:
    found = Serving(plane)
    yield found
    found.close()


@pytest.fixture(params=["local", "remote"])
def target(request: pytest.FixtureRequest, plane: ControlPlane, tmp_path: Path) -> Iterator[Target]:
    if request.param == "local":
        yield LocalTarget(plane)
        return
    settings = load(None, environ={}, overrides={"data": str(tmp_path / "data")})
    key = admin_key(plane, settings)
    assert key is not None
    served = Serving(plane)
    yield RemoteTarget(served.url, key.text)
    served.close()


def test_keys_live_and_die(target: Target) -> None:
    made = target.create_key({"name": "ci", "roles": ["r"], "scopes": ["tool:call"], "expires_in_seconds": 60})
    assert set(made) == {"key", "key_secret"}
    assert made["key_secret"].startswith(f"flcrm_sk_{made['key']['id']}_")
    assert "ci" in [key["name"] for key in target.list_keys()]
    assert target.revoke_key(made["key"]["id"])["revoked_at"]


def test_budgets_live_and_die(target: Target) -> None:
    made = target.create_budget({"scope": "tool:a__b", "usd": "0.5", "thresholds": "50,80"})
    assert made["limits"] == {"usd_micros": 500_000}
    assert [(one["name"], one["source"]) for one in target.list_budgets()] == [("f", "file"), (made["name"], "api")]
    target.delete_budget(made["id"])
    assert len(target.list_budgets()) == 1


def test_kill_switches_are_thrown_once_and_lifted(target: Target) -> None:
    thrown = target.throw_switch({"target": "agent:bot", "reason": "runs wild"})
    switch = thrown["kill_switch"]
    assert thrown["made"]
    assert (switch["target"], switch["tenant"], switch["reason"]) == ("agent:bot", "default", "runs wild")
    again = target.throw_switch({"target": "agent:bot", "reason": "again"})
    assert again == {"kill_switch": switch, "made": False}
    everybodys = target.throw_switch({"target": "server:a", "reason": "x", "everybody": True})["kill_switch"]
    theirs = target.throw_switch({"target": "agent:bot", "reason": "x", "tenant": "acme"})["kill_switch"]
    assert target.list_switches(None) == [switch, everybodys]
    assert target.list_switches("acme") == [theirs, everybodys]
    assert target.lift_switch(theirs["id"], "acme") == theirs
    assert target.lift_switch(everybodys["id"], None) == everybodys
    assert target.lift_switch(switch["id"], None) == switch
    with pytest.raises(NotFound):
        target.lift_switch(switch["id"], None)
    for fields in ({"target": "bot", "reason": "x"}, {"target": "agent:bot", "reason": " "}):
        with pytest.raises(Invalid):
            target.throw_switch(fields)
    with pytest.raises(Invalid, match="one of them"):
        target.throw_switch({"target": "agent:bot", "reason": "x", "tenant": "acme", "everybody": True})


def test_policies_are_published_shown_and_put_back(target: Target) -> None:
    def policy(name: str) -> dict[str, str]:
        return {"p.rego": f"package fulcrum.policies.{name}\n\nallow := true\n"}

    assert target.list_policies() == {"policies": [], "overruled": None}
    with pytest.raises(NotFound):
        target.show_policies(None)
    first = target.publish_policies("mine", policy("one"))
    assert (first["made"], first["overruled"], first["policies"]["number"]) == (True, None, 1)
    assert not target.publish_policies("mine", policy("one"))["made"]
    target.publish_policies("mine", policy("two"))
    back = target.restore_policies(1)
    assert (back["policies"]["number"], back["policies"]["digest"]) == (3, first["policies"]["digest"])
    assert [each["number"] for each in target.list_policies()["policies"]] == [3, 2, 1]
    assert target.show_policies(2)["modules"] == [{"path": "p.rego", "source": policy("two")["p.rego"]}]
    assert target.show_policies(None)["number"] == 3
    with pytest.raises(Invalid, match=r"p\.rego:3"):
        target.publish_policies("mine", {"p.rego": "package fulcrum.policies.p\n\nallow if {"})
    with pytest.raises(NotFound):
        target.restore_policies(9)
    assert len(target.list_policies()["policies"]) == 3


def test_servers_are_as_configured(target: Target) -> None:
    (server,) = target.list_servers()
    assert (server["name"], server["transport"], server["target"]) == ("a", "stdio", "x ${T:-t}")


def test_refusals_are_the_same_kind_of_error(target: Target) -> None:
    with pytest.raises(Invalid, match="period"):
        target.create_budget({"scope": "agent", "calls": 1, "period": "dayly"})
    with pytest.raises(Invalid, match="scopes"):
        target.create_key({"name": "x", "scopes": ["nope"]})
    with pytest.raises(Conflict):
        target.create_budget({"scope": "agent", "calls": 1, "name": "f"})
    for act in (lambda: target.revoke_key("nobody"), lambda: target.delete_budget("a/../b")):
        with pytest.raises(NotFound):
            act()


def test_a_server_refuses_strangers_and_weak_keys(plane: ControlPlane, serving: Serving) -> None:
    weak = LocalTarget(plane).create_key({"name": "weak"})
    with pytest.raises(Unprivileged, match="api_key:read"):
        RemoteTarget(serving.url, weak["key_secret"]).list_keys()
    with pytest.raises(Unauthenticated):
        RemoteTarget(serving.url, "x" * 40).list_keys()


def test_what_is_no_fulcrum_is_said_to_be_none(serving: Serving) -> None:
    with pytest.raises(NotFound):
        RemoteTarget(serving.url + "/elsewhere", "x" * 40).list_keys()
    with pytest.raises(Unavailable, match="is a gateway running there"):
        RemoteTarget("http://127.0.0.1:1", "x" * 40).list_keys()
