from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from starlette.testclient import TestClient

from fulcrum_adapters.memory.budgets import MemoryBudgets
from fulcrum_adapters.memory.identity import MemoryIdentity
from fulcrum_adapters.memory.keys import MemoryKeys
from fulcrum_adapters.memory.policies import MemoryPolicies
from fulcrum_adapters.memory.switches import MemorySwitches
from fulcrum_mcp.api.health import Part, health_routes
from fulcrum_mcp.api.mcp.origin import OriginPolicy
from fulcrum_mcp.api.rest import OAuthMetadata, RestDeps, rest_app
from fulcrum_mcp.composition.admission import FolderAdmission
from fulcrum_mcp.control.access import require
from fulcrum_mcp.control.budgets import Budgets
from fulcrum_mcp.control.keys import Keys
from fulcrum_mcp.control.policies import Policies
from fulcrum_mcp.control.servers import Servers, ServerView
from fulcrum_mcp.control.switches import Switches
from fulcrum_mcp.core.budget import Budget, BudgetUsage, Scope
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import NotFound
from fulcrum_mcp.ports import AuditQuery, DecisionRecord, StoredRecord

ROOT = Principal("default", "root", "k-root", scopes=frozenset({"admin", "platform"}))
READER = Principal("default", "reader", "k-reader", scopes=frozenset({"tool:call"}))
OTHER = Principal("other", "stranger", "k-other", scopes=frozenset({"admin"}))
PEOPLE = {"root": ROOT, "reader": READER, "other": OTHER}
FILE_BUDGET = Budget("bud_cfg_1", "default", "of the file", Scope("agent"), {"calls": 10, "usd_micros": 5})


@dataclass
class Trail:
    asked: list[AuditQuery] = field(default_factory=list)
    broken: bool = False

    def query(self, principal: Principal, query: AuditQuery) -> Sequence[StoredRecord]:
        require(principal, "audit:read")
        self.asked.append(query)
        return [StoredRecord(7, b'{"n":12345678901234567890123,"hash":"a"}')][: query.limit]

    def decision(self, principal: Principal, decision_id: str) -> DecisionRecord:
        require(principal, "audit:read")
        if decision_id != "dec_1" or principal.tenant != "default":
            raise NotFound(f'no decision "{decision_id}".')
        return DecisionRecord(b'{"d":1}', None, [b'{"f":1}'])

    def export(self, principal: Principal) -> Iterator[bytes]:
        require(principal, "audit:read")
        return self._lines()

    def _lines(self) -> Iterator[bytes]:
        for number in range(1000):
            if self.broken and number == 600:
                raise OSError("the disk is gone")
            yield b'{"line":%d}\n' % number


@dataclass
class Rest:
    client: TestClient
    deps: RestDeps
    trail: Trail
    parts: dict[str, Part]


def usage(budgets: Sequence[Budget], at: int) -> Sequence[BudgetUsage]:
    start = at - 3_600 * 1_000_000_000
    return [
        BudgetUsage(budget, "ana", start, start + 86_400 * 10**9, {"calls": 4}, {"calls": 1})
        for budget in budgets
        if budget.id == FILE_BUDGET.id
    ]


@pytest.fixture
def rest() -> Iterator[Rest]:
    trail = Trail()
    parts = {"store": Part(ready=True)}
    view = ServerView("files", "stdio", "npx ${TOKEN}", "fulcrum.toml:1", env=("TOKEN",))
    deps = RestDeps(
        identity=MemoryIdentity(PEOPLE),
        keys=Keys(MemoryKeys()),
        budgets=Budgets(MemoryBudgets(), usage, configured=lambda: (FILE_BUDGET,)),
        switches=Switches(MemorySwitches()),
        policies=Policies(MemoryPolicies(), FolderAdmission(), owner="default"),
        servers=Servers(lambda: (view,)),
        audit=trail,
        refuses=OriginPolicy("127.0.0.1").refusal,
        oauth=OAuthMetadata("https://gw.example/mcp", "https://issuer.example", ("tool:call",)),
    )
    app = rest_app(deps, [*health_routes(lambda: parts)])
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield Rest(client, deps, trail, parts)
