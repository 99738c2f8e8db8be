"""What infra/, docker-compose.yml and their pages promise: no default secret, nothing open, names that exist."""

import fnmatch
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from composed import composed, composed_environment, made_secrets
from truths import ROOT, tables_of

from fulcrum_mcp.settings import load

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
CHECK = ROOT / "tests" / "compose.env"
DOCKERFILES = sorted((ROOT / "infra" / "docker").glob("Dockerfile.*"))
RAILWAY = sorted((ROOT / "infra" / "railway").glob("*/railway.json"))
METRICS = (ROOT / "docs" / "reference" / "metrics.md").read_text()
RULES: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "prometheus" / "rules.yml").read_text())
DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))


def wanted_secrets() -> list[str]:
    return sorted(set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+):\?", (ROOT / "docker-compose.yml").read_text())))


def test_compose_starts_nothing_without_each_secret(tmp_path: Path) -> None:
    assert composed(CHECK, "config", "--quiet").returncode == 0
    names = wanted_secrets()
    assert {line.partition("=")[0] for line in CHECK.read_text().splitlines() if "=" in line} == set(names)
    for name in names:
        lines = [line for line in CHECK.read_text().splitlines() if not line.startswith(f"{name}=")]
        for given in (lines, [*lines, f"{name}="]):  # not there, and empty
            (tmp_path / "env").write_text("\n".join(given) + "\n")
            ran = composed(tmp_path / "env", "config", "--quiet")
            assert ran.returncode != 0, name
            assert name in ran.stderr
            assert "CREDENTIALS.md" in ran.stderr


def test_no_default_of_compose_is_a_secret() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    defaults = dict(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+):-([^}]*)\}", text))
    assert defaults == {
        "FULCRUM_TELEMETRY_OTLP_ENDPOINT": "",
        "GRAFANA_ADMIN_USER": "admin",
        "IMAGE_TAG": "local",
        "GATEWAY_TOML": "./infra/fulcrum.toml",
    }
    plain = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)\}", text))
    assert plain <= set(wanted_secrets())  # what is used without a check is checked elsewhere in the file


def test_nothing_is_published_beyond_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", ["postgres", "redis", "nats"])
def test_databases_have_no_way_out(name: str) -> None:
    assert SERVICES[name]["networks"] == ["parts"]
    assert COMPOSE["networks"]["parts"]["internal"] is True
    assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_a_health_check_a_pinned_image_and_no_way_to_more_rights(name: str) -> None:
    service = SERVICES[name]
    built = ROOT / service["build"]["dockerfile"] if "build" in service else None
    assert "healthcheck" in service or (built is not None and "HEALTHCHECK" in built.read_text())
    assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.${}:-]+", service["image"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name != "postgres":
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_files_that_compose_mounts_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0] if not volume.startswith("${") else "./infra/fulcrum.toml"
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume


def test_settings_file_of_compose_is_valid(tmp_path: Path) -> None:
    settings = load([ROOT / "infra" / "fulcrum.toml"], environ={"FULCRUM_DATA": str(tmp_path)}, overrides={})
    assert settings.warnings == ()


def test_secrets_made_as_the_guide_says_reach_the_gateway_and_are_good_ones(tmp_path: Path) -> None:
    made_secrets(tmp_path)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    for name in ("fulcrum-server", "event-processor"):
        given = composed_environment(tmp_path / ".env", name)
        given.pop("FULCRUM_CONFIG", None)
        settings = load(None, environ={**given, "FULCRUM_DATA": str(tmp_path)}, overrides={})
        assert settings.warnings == ()
        assert settings.postgres is not None
        assert settings.redis is not None
        assert settings.nats is not None
        assert settings.nats.sync_always
        assert settings.audit_mac_key is not None
        assert settings.audit_signing_key is not None
        assert settings.audit_signing_key.get_secret_value().startswith("-----BEGIN PRIVATE KEY-----\n")
        assert (settings.admin_key is not None) == (name == "fulcrum-server")
        assert bool(settings.state_keys) == (name == "fulcrum-server")
        assert str(settings.telemetry.metrics) == "0.0.0.0:9464"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_is_built_in_stages_with_hashes_and_runs_as_nobody_in_particular(path: Path) -> None:
    text = path.read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(":" in stage and not stage.endswith(":latest") for stage in stages)
    assert text.count("--require-hashes") == 3  # uv itself, what Fulcrum needs, what builds it
    assert "USER 10001:10001" in text
    assert "HEALTHCHECK" in text
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for source in (word for word in copied if not word.startswith("--") and word != "."):
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in kept), source
    assert "*" in ignored
    for secret in (".env", ".git/config", "tests/compose.env"):
        assert not any(fnmatch.fnmatch(secret, f"{each}*") for each in kept), secret


def test_both_images_are_built_alike() -> None:
    first, second = (path.read_text().split("FROM python")[1] for path in DOCKERFILES)
    assert first == second


@pytest.mark.parametrize("path", RAILWAY, ids=lambda path: path.parent.name)
def test_railway_names_files_and_paths_that_exist(path: Path) -> None:
    config = json.loads(path.read_text())
    assert (ROOT / config["build"]["dockerfilePath"]).is_file()
    for pattern in config["build"]["watchPatterns"]:
        assert (ROOT / pattern.removeprefix("/").removesuffix("/**")).exists(), pattern
    if "startCommand" in config["deploy"]:
        assert re.search(r"fulcrum (server|processor)\"$", config["deploy"]["startCommand"])
        assert config["deploy"]["healthcheckPath"] == "/readyz"


def named_metrics() -> set[str]:
    rows = [row for rows in tables_of(METRICS).values() for row in rows]
    return {row["name"] for row in rows if row.get("name", "").startswith("fulcrum_")}


def used_metrics(text: str) -> set[str]:
    return {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bfulcrum_[a-z_]+\b", text)}


def test_rules_and_dashboards_use_metrics_that_are_documented_and_all_of_them_are_used() -> None:
    expressions = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            expressions += [target["expr"] for target in panel["targets"]]
    used = set[str]().union(*map(used_metrics, expressions))
    assert used - named_metrics() == set()
    assert named_metrics() - used == set()
    asked = {name for expression in expressions for name in re.findall(r"\bfulcrum:[a-z0-9_:]+", expression)}
    assert asked - recorded == set()
    assert len(DASHBOARDS) == 2


def test_alerts_are_documented_and_tested_each_for_firing_and_for_silence() -> None:
    alerts = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
    rows = tables_of(METRICS)["What to watch"]
    assert {name for row in rows for name in row["alert"].split(", ")} == alerts
    tests = yaml.safe_load((ROOT / "infra" / "prometheus" / "rules_test.yml").read_text())["tests"]
    asked = [each for test in tests for each in test.get("alert_rule_test", ())]
    checked = [(each["alertname"], bool(each.get("exp_alerts"))) for each in asked]
    assert {name for name, fires in checked if fires} == alerts
    assert {name for name, fires in checked if not fires} == alerts


def test_panels_ask_the_provisioned_data_source() -> None:
    source = yaml.safe_load((ROOT / "infra/grafana/provisioning/datasources/prometheus.yml").read_text())
    (only,) = source["datasources"]
    assert only["url"] == "http://prometheus:9090"
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            assert panel["datasource"]["uid"] == only["uid"]
    provider = yaml.safe_load((ROOT / "infra/grafana/provisioning/dashboards/fulcrum.yml").read_text())["providers"][0]
    assert any(volume.split(":")[1] == provider["options"]["path"] for volume in SERVICES["grafana"]["volumes"])
