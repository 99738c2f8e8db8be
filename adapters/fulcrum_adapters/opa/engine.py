"""The policy engine over an external OPA server: `POST /v1/data/fulcrum/policies`.

It fails closed: what is not a well-formed answer in time is `Unavailable` or a verdict with `error`, both of which
deny. An OPA does not say when its policies change, so everything is assumed of them: they read all of the input.
"""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from fulcrum_adapters.opa.config import OpaConfig
from fulcrum_mcp.core.call import Phase
from fulcrum_mcp.core.decision import Verdict
from fulcrum_mcp.core.policy import PolicyInfo
from fulcrum_mcp.core.verdict import verdict_of
from fulcrum_mcp.errors import Unavailable

if TYPE_CHECKING:
    import aiohttp

__all__ = ["OpaEngine"]

_OK = 200


class OpaEngine:
    """`PolicyEngine` over one OPA server. Its connections belong to the event loop that first evaluates."""

    info: PolicyInfo

    def __init__(self, config: OpaConfig) -> None:
        self._config = config
        self._url = f"{config.url.rstrip('/')}/v1/data/fulcrum/policies?provenance=true"
        self._session: aiohttp.ClientSession | None = None
        self.info = PolicyInfo(
            names=tuple(sorted(config.policies)),
            revision="opa",
            judges_results=True,
            reads_history=True,
            reads_budget=True,
            list_reads_time=True,
        )

    async def evaluate(self, phase: Phase, document: bytes) -> tuple[Verdict, ...]:
        """One verdict per policy, by name. Raises `Unavailable` when OPA gives no whole answer in time."""
        answer = await self._ask(b'{"input":' + document + b"}")
        result = answer.get("result")
        if not isinstance(result, dict):
            raise Unavailable("the OPA server holds no package fulcrum.policies; is its bundle loaded?")
        revision = _revision(answer)
        verdicts = [
            verdict_of(name, revision, values, phase)
            if isinstance(values, dict)
            else Verdict(name, revision, error="OPA's answer for this policy is no object")
            for name, values in result.items()
        ]
        verdicts.extend(
            Verdict(name, revision, error="OPA's answer lacks this policy; is its bundle loaded?")
            for name in self._config.policies
            if name not in result
        )
        return tuple(sorted(verdicts, key=lambda verdict: verdict.policy))

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, body: bytes) -> dict[str, Any]:
        import aiohttp  # noqa: PLC0415 - 100 ms that only users of OPA pay

        try:
            async with asyncio.timeout(self._config.timeout):
                raw = await self._post(body)
            answer = json.loads(raw, parse_constant=_no_constant)
        except TimeoutError as exc:
            raise Unavailable(f"the OPA server gave no answer within {self._config.timeout:g} s") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise Unavailable(f"the OPA server does not answer: {type(exc).__name__}") from exc
        except (ValueError, RecursionError) as exc:
            raise Unavailable("the OPA server's answer is no JSON") from exc
        if not isinstance(answer, dict):
            raise Unavailable("the OPA server's answer is no object")
        return answer

    async def _post(self, body: bytes) -> bytes:
        async with self._open().post(self._url, data=body, allow_redirects=False) as response:
            if response.status != _OK:
                raise Unavailable(f"the OPA server answers with status {response.status}")
            raw = await response.content.read(self._config.max_answer + 1)
            while len(raw) <= self._config.max_answer and not response.content.at_eof():
                raw += await response.content.read(self._config.max_answer + 1 - len(raw))
        if len(raw) > self._config.max_answer:
            raise Unavailable(f"the OPA server's answer is larger than {self._config.max_answer} bytes")
        return raw

    def _open(self) -> "aiohttp.ClientSession":
        import aiohttp  # noqa: PLC0415 - see `_ask`

        if self._session is None:
            headers = {"content-type": "application/json"}
            if self._config.token:
                headers["authorization"] = f"Bearer {self._config.token}"
            self._session = aiohttp.ClientSession(headers=headers, trust_env=False)
        return self._session


def _revision(answer: dict[str, Any]) -> str:
    """The revisions of OPA's bundles, as it gives them."""
    provenance = answer.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if not isinstance(bundles, dict):
        return "opa"
    names = [f"{name}@{bundle['revision']}" for name, bundle in sorted(bundles.items()) if "revision" in (bundle or {})]
    return " ".join(names)[:200] or "opa"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
