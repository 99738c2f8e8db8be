"""What docs/TRUTH_MAP.md speaks of, read from the files that are its truth.

Each reader gives name -> `Truth`; an empty result is a reader that reads nothing, and a test says so.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from fulcrum_adapters.jetstream.streams import CONSUMER, STREAMS
from fulcrum_adapters.postgres.migrations.statements import ROLES

__all__ = ["READERS", "ROOT", "Row", "Truth", "problems", "tables_of"]

ROOT: Final = Path(__file__).parents[1]
_COMPOSE: Final = "docker-compose.yml"
_MIGRATIONS: Final = "adapters/fulcrum_adapters/postgres/migrations/versions"
_SQLITE: Final = "adapters/fulcrum_adapters/sqlite"


@dataclass
class Truth:
    """Where a name stands, and what the map has to say about it, by the name of a column."""

    files: set[str] = field(default_factory=set[str])
    facts: dict[str, str] = field(default_factory=dict[str, str])


Truths = Mapping[str, Truth]
Row = Mapping[str, str]
"""Cells by the name of their column."""


def _text(file: str) -> str:
    return (ROOT / file).read_text()


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_text(_COMPOSE))
    return found


def _dockerfiles() -> Iterator[str]:
    for path in sorted((ROOT / "infra").rglob("Dockerfile*")):
        yield str(path.relative_to(ROOT))


def _published(service: Mapping[str, Any]) -> list[str]:
    return [str(port) for port in service.get("ports", [])]


def services() -> Truths:
    """Of docker-compose.yml: what each runs, and what of it can be reached from the machine."""
    found = dict[str, Truth]()
    for name, service in _compose()["services"].items():
        build = service.get("build")
        runs = f"{build['context']}/{build['dockerfile']}".removeprefix("./") if build else service["image"]
        ports = ", ".join(port.removeprefix("127.0.0.1:").partition(":")[0] for port in _published(service))
        found[name] = Truth({_COMPOSE}, {"runs": runs, "published": ports or "-"})
    return found


def images() -> Truths:
    """What is pulled: by services, and by the stages of our own images."""
    found = defaultdict[str, Truth](Truth)
    for service in _compose()["services"].values():
        if "build" not in service:
            found[service["image"]].files.add(_COMPOSE)
    for file in _dockerfiles():
        for image in re.findall(r"^FROM (\S+)", _text(file), re.MULTILINE):
            found[image].files.add(file)
    return found


def ports() -> Truths:
    """On which something of ours listens, inside a container or on the machine."""
    found = defaultdict[str, Truth](Truth)
    for service in _compose()["services"].values():
        for port in _published(service):
            for number in re.findall(r":(\d+)", port):
                found[number].files.add(_COMPOSE)
    for file in _dockerfiles():
        for line in re.findall(r"^EXPOSE (.+)$", _text(file), re.MULTILINE):
            for number in line.split():
                found[number].files.add(file)
    patterns = {
        "infra/nats/nats.conf": r"^(?:listen|http): \"[^\"]*:(\d+)\"",
        "infra/redis/redis.conf": r"^port (\d+)",
        "infra/prometheus/prometheus.yml": r"(?:port: |localhost:)(\d+)",
        _COMPOSE: r"@postgres:(\d+)/",
    }
    for file, pattern in patterns.items():
        for number in re.findall(pattern, _text(file), re.MULTILINE):
            found[number].files.add(file)
    return found


def volumes() -> Truths:
    """Named volumes, and the service each belongs to."""
    found = dict[str, Truth]()
    for name in _compose()["volumes"]:
        owners = [
            service
            for service, body in _compose()["services"].items()
            if any(str(volume).startswith(f"{name}:") for volume in body.get("volumes", []))
        ]
        found[name] = Truth({_COMPOSE}, {"of": ", ".join(owners)})
    return found


def _constants(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def variables() -> Truths:
    """Of the environment: what Fulcrum reads, and what the files of the deployment read."""
    found = defaultdict[str, Truth](Truth)
    for folder in ("settings", "cli", "composition"):
        for path in sorted((ROOT / "fulcrum_mcp" / folder).rglob("*.py")):
            for value in _constants(path):
                if re.fullmatch(r"FULCRUM_[A-Z0-9_]+|PORT|XDG_DATA_HOME", value):
                    found[value].files.add(str(path.relative_to(ROOT)))
    patterns = {
        _COMPOSE: r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)",
        "infra/nats/nats.conf": r"\$([A-Z][A-Z0-9_]*)",
        "infra/postgres/init/50-fulcrum.sh": r"\$\{([A-Z][A-Z0-9_]*)",
    }
    for file, pattern in patterns.items():
        for name in re.findall(pattern, _text(file)):
            found[name].files.add(file)
    return found


def streams() -> Truths:
    """JetStream's, with their subjects, and the consumer that the processors share."""
    file = "adapters/fulcrum_adapters/jetstream/streams.py"
    found = {
        name: Truth({file}, {"subjects": ", ".join(settings["subjects"]), "kept": settings["retention"]})
        for name, settings in STREAMS.items()
    }
    found[CONSUMER] = Truth({file}, {"subjects": "-", "kept": "-"})
    return found


def _migrations() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / _MIGRATIONS).glob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text()
    upgrade = "adapters/fulcrum_adapters/postgres/upgrade.py"
    yield upgrade, _text(upgrade)


def schemas() -> Truths:
    """Of the database."""
    found = defaultdict[str, Truth](Truth)
    for file, text in _migrations():
        for name in re.findall(r"CREATE SCHEMA (?:IF NOT EXISTS )?([a-z_]+)", text):
            found[name].files.add(file)
    return found


def roles() -> Truths:
    """As which statements run; nobody logs in as them."""
    return {name: Truth({"adapters/fulcrum_adapters/postgres/migrations/statements.py"}) for name in ROLES}


def tables() -> Truths:
    """That migrations make by name; tests/service/test_truth_map_postgres.py asks the database itself."""
    found = defaultdict[str, Truth](Truth)
    for file, text in _migrations():
        pattern = r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?((?:fulcrum|metrics)\.[a-z_]+)(?![a-z_%{])"
        for name in re.findall(pattern, text):
            found[name].files.add(file)
        for name in re.findall(r'^_TABLE = "([a-z_]+)"', text, re.MULTILINE):
            found[f"fulcrum.{name}"].files.add(file)
    return found


def embedded_tables() -> Truths:
    """Of the SQLite files of a data folder."""
    found = defaultdict[str, Truth](Truth)
    for path in sorted((ROOT / _SQLITE).glob("*.py")):
        for name in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?([a-z_]+)", path.read_text()):
            found[name].files.add(str(path.relative_to(ROOT)))
    return found


READERS: Final[Mapping[str, Callable[[], Truths]]] = {
    "Services": services,
    "Images": images,
    "Ports": ports,
    "Volumes": volumes,
    "Variables": variables,
    "Streams": streams,
    "Schemas": schemas,
    "Roles": roles,
    "Tables": tables,
    "Tables of a data folder": embedded_tables,
}
"""By heading of the map."""


def tables_of(text: str) -> dict[str, list[Row]]:
    """The tables of a Markdown page by the heading they stand under."""
    found = dict[str, list[Row]]()
    heading, columns = "", list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            heading, columns = line.lstrip("# "), []
        elif line.startswith("|"):
            cells = [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not columns:
                columns = cells
            elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                found.setdefault(heading, []).append(dict(zip(columns, cells, strict=True)))
    return found


def problems(heading: str, rows: Sequence[Row], truths: Truths) -> list[str]:
    """What a table says that is not so, and what it does not say."""
    found = [] if truths else [f"{heading}: nothing was read"]
    names = [next(iter(row.values())) for row in rows]
    found += [f"{heading}: {name} stands twice" for name in sorted({name for name in names if names.count(name) > 1})]
    found += [f"{heading}: {name} has no row" for name in truths if name not in names]
    for name, row in zip(names, rows, strict=True):
        truth = truths.get(name)
        if truth is None:
            found.append(f"{heading}: {name} is nowhere; remove its row, or the map's reader is wrong")
            continue
        if row["truth"] not in truth.files:
            found.append(f"{heading}: {name} does not stand in {row['truth']}, but in {', '.join(sorted(truth.files))}")
        for column, fact in truth.facts.items():
            if row[column].replace("`", "") != fact:
                found.append(f"{heading}: {name}: {column} is {fact}, not {row[column]}")
    return found
