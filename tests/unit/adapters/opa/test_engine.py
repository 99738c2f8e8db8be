"""The external OPA fails closed: whatever it answers but a whole answer in time is no decision that allows."""

import json
from typing import Any

import pytest
from peers.opa_server import FakeOpa, response

from fulcrum_adapters.opa import OpaConfig, OpaEngine
from fulcrum_mcp.core.decision import combine
from fulcrum_mcp.errors import Invalid, Unavailable

anyio = pytest.mark.anyio

ALLOW = {"result": {"p": {"allow": True, "deny": []}}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def evaluate(server: FakeOpa, **options: Any) -> str:
    async with server.serve():
        settings: dict[str, Any] = {"timeout": 5.0, **options}
        engine = OpaEngine(OpaConfig(server.url, **settings))
        try:
            return combine(await engine.evaluate("call", b'{"phase":"call","n":18446744073709551617}'), "call").effect
        finally:
            await engine.close()


@anyio
async def test_a_good_answer_allows_and_the_input_is_sent_as_it_is() -> None:
    server = FakeOpa(lambda _: response(ALLOW))
    assert await evaluate(server) == "allow"
    ((line, body),) = server.requests
    assert line == "POST /v1/data/fulcrum/policies?provenance=true HTTP/1.1"
    assert body == b'{"input":{"phase":"call","n":18446744073709551617}}'


FAULTS: dict[str, bytes | None] = {
    "nothing": None,
    "status 500": response(ALLOW, "500 Internal Server Error"),
    "status 404": response({}, "404 Not Found"),
    "a redirect": b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "no JSON": response(None, raw=b"<html>allow</html>"),
    "no number": response(None, raw=b'{"result": {"p": {"allow": true, "cost": {"calls": NaN}}}}'),
    "depth": response(None, raw=b"[" * 100_000),
    "an array": response([ALLOW]),
    "an undefined document": response({}),
    "a result of null": response({"result": None}),
    "a result of true": response({"result": True}),
    "a short answer": b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"result"',
    "a long answer": response({"result": {"p": {"allow": True, "x": "y" * 3000}}}),
    "no HTTP": b"allow\r\n\r\n",
}


@pytest.mark.parametrize("fault", FAULTS)
@anyio
async def test_a_fault_is_unavailable(fault: str) -> None:
    def respond(_: bytes) -> bytes | None:
        return FAULTS[fault]

    # a short answer ends only with the time that is allowed
    with pytest.raises(Unavailable):
        await evaluate(FakeOpa(respond), max_answer=2000, timeout=0.5)


@anyio
async def test_a_slow_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"within 0\.05 s"):
        await evaluate(FakeOpa(lambda _: response(ALLOW), delay=5), timeout=0.05)


@anyio
async def test_nobody_there_is_unavailable() -> None:
    engine = OpaEngine(OpaConfig("http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match="does not answer"):
        await engine.evaluate("call", b"{}")
    await engine.close()
    await engine.close()


@pytest.mark.parametrize(
    "values",
    [
        {"p": True},
        {"p": {"allow": "true"}},
        {"p": {"allow": True, "deny": {"x": 1}}},
        {"p": {"allow": True}, "q": None},
        {"p": {}},
        {},
    ],
)
@anyio
async def test_an_answer_of_the_wrong_shape_denies(values: Any) -> None:
    assert await evaluate(FakeOpa(lambda _: response({"result": values}))) == "deny"


@anyio
async def test_a_policy_that_is_expected_and_missing_denies() -> None:
    assert await evaluate(FakeOpa(lambda _: response(ALLOW)), policies=("p", "q")) == "deny"
    assert await evaluate(FakeOpa(lambda _: response(ALLOW)), policies=("p",)) == "allow"


@anyio
async def test_the_revision_is_that_of_the_bundles() -> None:
    answer = {**ALLOW, "provenance": {"bundles": {"b": {"revision": "7"}, "a": {"revision": "3"}, "c": None}}}
    server = FakeOpa(lambda _: response(answer))
    async with server.serve():
        engine = OpaEngine(OpaConfig(server.url))
        assert (await engine.evaluate("call", b"{}"))[0].revision == "a@3 b@7"
        await engine.close()


@anyio
async def test_a_token_is_sent_and_never_shown() -> None:
    seen: list[Any] = []
    config = OpaConfig("http://127.0.0.1:1", token="very-secret")
    engine = OpaEngine(config)
    seen.append(repr(config))
    with pytest.raises(Unavailable) as caught:
        await engine.evaluate("call", b"{}")
    await engine.close()
    assert "very-secret" not in json.dumps([*seen, str(caught.value)])


@pytest.mark.parametrize(
    "url", ["opa:8181", "ftp://opa", "http://", "http://opa/?x=1", "", "http://[", "http://opa:99999"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="opa_url"):
        OpaConfig(url)


@pytest.mark.parametrize("timeout", [0, -1, 61, float("nan")])
def test_a_timeout_out_of_range_is_refused(timeout: float) -> None:
    with pytest.raises(Invalid, match="timeout"):
        OpaConfig("http://opa:8181", timeout=timeout)
