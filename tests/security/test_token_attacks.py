"""Access tokens that must not be accepted (RFC 8725, RFC 9068). OWASP MCP07, ASI03."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from fulcrum_adapters.identity import JwtConfig, JwtVerifier, KeySet
from fulcrum_mcp.core.call import Principal
from fulcrum_mcp.errors import Unauthenticated, Unavailable
from fulcrum_mcp.ports import Credentials

ISSUER = "https://issuer.example"
RESOURCE = "https://gateway.example/mcp"
OURS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
THEIRS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
PEM = OURS.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
JWK: dict[str, Any] = RSAAlgorithm.to_jwk(OURS.public_key(), as_dict=True) | {"kid": "one", "use": "sig"}
EC_JWK: dict[str, Any] = ECAlgorithm.to_jwk(CURVE.public_key(), as_dict=True) | {"kid": "two", "alg": "ES256"}
CONFIG = JwtConfig(ISSUER, RESOURCE)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def b64(data: bytes | Mapping[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    fields = {"iss": ISSUER, "aud": RESOURCE, "sub": "ana", "exp": now + 300, "iat": now, "scope": "tool:call admin"}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def signed(payload: Mapping[str, Any] | None = None, *, key: Any = OURS, alg: str = "RS256", **header: Any) -> str:
    headers = {name: value for name, value in ({"kid": "one"} | header).items() if value is not None}
    return jwt.encode(dict(payload or claims()), key, alg, headers)


def raw(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], key: Any = OURS) -> str:
    """Any header over any payload, with a genuine RS256 signature."""
    text = f"{b64(header)}.{b64(payload)}"
    signature = jwt.get_algorithm_by_name("RS256").sign(text.encode(), key)
    return f"{text}.{b64(signature)}"


def hmacced(secret: bytes, alg: str = "HS256") -> str:
    text = f"{b64({'alg': alg, 'kid': 'one', 'typ': 'JWT'})}.{b64(claims())}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def flipped(part: int) -> str:
    parts = signed().split(".")
    parts[part] = ("B" if parts[part][0] == "A" else "A") + parts[part][1:]
    return ".".join(parts)


def spare_bits(token: str) -> str:
    """The same bytes in another spelling: the last character's unused bits set."""
    return token[:-1] + chr(ord(token[-1]) + 1)


def nested_act(depth: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "last"}
    for number in range(depth):
        act = {"sub": f"a{number}", "act": act}
    return act


RS = {"alg": "RS256", "kid": "one"}
EMBEDDED = RSAAlgorithm.to_jwk(THEIRS.public_key(), as_dict=True)

ATTACKS: dict[str, Callable[[], str]] = {
    "alg none": lambda: f"{b64({'alg': 'none', 'kid': 'one'})}.{b64(claims())}.",
    "alg none with a signature": lambda: f"{b64({'alg': 'none'})}.{b64(claims())}.{b64(b'x')}",
    "alg nOnE": lambda: f"{b64({'alg': 'nOnE'})}.{b64(claims())}.{b64(b'x')}",
    "alg missing": lambda: raw({"kid": "one"}, claims()),
    "alg a list": lambda: raw({"alg": ["RS256"], "kid": "one"}, claims()),
    "alg rs256 in lower case": lambda: raw({"alg": "rs256", "kid": "one"}, claims()),
    "HMAC with the public key's PEM": lambda: hmacced(PEM),
    "HMAC with the public key's JWK": lambda: hmacced(json.dumps(JWK).encode()),
    "HMAC with the modulus": lambda: hmacced(base64.urlsafe_b64decode(JWK["n"] + "==")),
    "HMAC with nothing": lambda: hmacced(b""),
    "HMAC called RS256": lambda: hmacced(PEM, "RS256"),
    "RS512, which is not on the list": lambda: signed(alg="RS512"),
    "PS256 called RS256": lambda: (
        signed(alg="PS256").replace(b64({"alg": "PS256"}), b64({"alg": "RS256"}), 1)[:-9] + "x" * 9
    ),
    "signed by a stranger": lambda: signed(key=THEIRS),
    "EC key under the RSA key's id": lambda: signed(key=CURVE, alg="ES256"),
    "RSA signature under the EC key's id": lambda: signed(kid="two"),
    "unknown kid": lambda: signed(kid="nine"),
    "kid a path": lambda: signed(kid="../../../../dev/null"),
    "kid SQL": lambda: signed(kid="one' OR '1'='1"),
    "kid a shell": lambda: signed(kid="one|id"),
    "kid a number": lambda: raw({"alg": "RS256", "kid": 1}, claims()),
    "kid huge": lambda: signed(kid="k" * 5000),
    "kid with NUL": lambda: signed(kid="one\0"),
    "crit": lambda: signed(crit=["exp"]),
    "crit empty": lambda: signed(crit=[]),
    "b64 false": lambda: raw(RS | {"b64": False, "crit": ["b64"]}, claims()),
    "embedded jwk": lambda: signed(key=THEIRS, jwk=EMBEDDED),
    "embedded jwk, genuine signature": lambda: signed(jwk=JWK),
    "jku": lambda: signed(key=THEIRS, jku="https://evil.example/jwks"),
    "x5u": lambda: signed(key=THEIRS, x5u="https://evil.example/cert"),
    "x5c": lambda: signed(key=THEIRS, x5c=["MIIB"]),
    "zip": lambda: signed(zip="DEF"),
    "enc": lambda: signed(enc="A128GCM"),
    "an ID token by type": lambda: signed(typ="id+jwt"),
    "a logout token": lambda: signed(typ="logout+jwt"),
    "typ a list": lambda: raw(RS | {"typ": ["JWT"]}, claims()),
    "audience of another service": lambda: signed(claims(aud="https://other.example")),
    "audience with our name as a prefix": lambda: signed(claims(aud=RESOURCE + ".evil.example")),
    "audience our host only": lambda: signed(claims(aud="https://gateway.example")),
    "audience in another case": lambda: signed(claims(aud=RESOURCE.upper())),
    "no audience": lambda: signed(claims(aud=None)),
    "audience an object": lambda: signed(claims(aud={RESOURCE: True})),
    "audience an empty list": lambda: signed(claims(aud=[])),
    "another issuer": lambda: signed(claims(iss="https://evil.example")),
    "issuer with a slash more": lambda: signed(claims(iss=ISSUER + "/")),
    "issuer a list": lambda: raw(RS, claims(iss=[ISSUER])),
    "no issuer": lambda: signed(claims(iss=None)),
    "ended": lambda: signed(claims(exp=int(time.time()) - 31)),
    "no end": lambda: signed(claims(exp=None)),
    "end a text": lambda: raw(RS, claims(exp="9999999999")),
    "end true": lambda: raw(RS, claims(exp=True)),
    "end 1e400": lambda: raw(RS, json.dumps(claims()).replace('"exp": ', '"exp": 1e400, "e": ').encode()),
    "end NaN": lambda: raw(RS, json.dumps(claims(exp=float("nan"))).encode()),
    "end never": lambda: raw(RS, claims(exp=2**63)),
    "not yet": lambda: signed(claims(nbf=int(time.time()) + 300)),
    "issued tomorrow": lambda: signed(claims(iat=int(time.time()) + 86_400)),
    "nbf a text": lambda: raw(RS, claims(nbf="0")),
    "a claim twice": lambda: raw(RS, json.dumps(claims())[:-1].encode() + b', "sub": "root"}'),
    "a header name twice": lambda: raw(b'{"alg":"none","alg":"RS256","kid":"one"}', claims()),
    "payload a list": lambda: raw(RS, b"[1]"),
    "payload not JSON": lambda: raw(RS, b"{"),
    "payload not UTF-8": lambda: raw(RS, b'{"sub":"\xff"}'),
    "payload nested deep": lambda: raw(RS, b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    "nobody": lambda: signed(claims(sub=None)),
    "nobody's name is empty": lambda: signed(claims(sub="")),
    "name an object": lambda: raw(RS, claims(sub={"a": 1})),
    "name with a line break": lambda: signed(claims(sub="ana\nadmin")),
    "actors too deep": lambda: signed(claims(act=nested_act(12))),
    "actor without a name": lambda: signed(claims(act={"iss": "x"})),
    "actor a text": lambda: signed(claims(act="root")),
    "huge": lambda: signed(claims(x="y" * 10_000)),
    "two parts": lambda: signed().rpartition(".")[0],
    "four parts": lambda: signed() + ".x",
    "five parts": lambda: "ey.ey.ey.ey.ey",
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "padding": lambda: signed() + "==",
    "white space inside": lambda: signed()[:50] + "\n" + signed()[50:],
    "standard base64": lambda: f"{b64(RS)}.{b64(claims())}.+/+/",
    "header changed": lambda: flipped(0),
    "payload changed": lambda: flipped(1),
    "signature changed": lambda: flipped(2),
    "signature's spare bits": lambda: spare_bits(signed()),
    "null": lambda: "null.null.null",
    "Unicode": lambda: "eyé." + signed().partition(".")[2],
}


def verifier(config: JwtConfig = CONFIG, keys: Any = None) -> JwtVerifier:
    async def fetch() -> Mapping[str, Any]:
        return (
            keys
            if keys is not None
            else {"keys": [JWK, EC_JWK, "rubbish", {"kty": "oct", "k": "AAAA", "kid": "three"}]}
        )

    return JwtVerifier(config, KeySet(fetch))


async def ask(token: str, judge: JwtVerifier | None = None) -> Principal:
    return await (judge or verifier()).verify(Credentials(f"Bearer {token}"))


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) > 60


async def test_the_checker_lets_genuine_tokens_through() -> None:
    assert (await ask(signed())).agent == "ana"
    assert (await ask(signed(typ="at+jwt"))).agent == "ana"
    assert (await ask(signed(key=CURVE, alg="ES256", kid="two"))).agent == "ana"
    assert (await ask(signed(kid=None))).agent == "ana"
    assert (await ask(raw(RS, claims(aud=["x", RESOURCE])))).agent == "ana"
    assert (await ask(signed(alg="PS256"))).agent == "ana"


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attack_is_refused_and_not_quoted(attack: str) -> None:
    token = ATTACKS[attack]()
    with pytest.raises(Unauthenticated) as caught:
        await ask(token)
    assert token not in str(caught.value)


async def test_scopes_beyond_what_tokens_may_carry_grant_nothing() -> None:
    assert (await ask(signed(claims(scope="tool:call admin platform bogus")))).scopes == {"tool:call"}
    assert (await ask(raw(RS, claims(scope=["admin"])))).scopes == set()
    config = JwtConfig(ISSUER, RESOURCE, scopes=frozenset({"tool:call", "audit:read"}))
    assert (await ask(signed(claims(scope="audit:read")), verifier(config))).scopes == {"audit:read"}


async def test_nested_actors_become_on_behalf_of() -> None:
    token = signed(claims(act={"sub": "bot", "act": {"sub": "planner", "secret": "x"}}, roles=["reader", 5]))
    principal = await ask(token)
    assert (principal.agent, principal.roles, principal.key) == ("bot", ("reader",), "jwt:ana")
    assert principal.on_behalf_of == {"sub": "ana", "iss": ISSUER, "act": {"sub": "planner"}}
    client = await ask(signed(claims(client_id="app")))
    assert (client.agent, client.on_behalf_of) == ("app", {"sub": "ana", "iss": ISSUER})
    assert (await ask(signed())).on_behalf_of is None


async def test_tenant_claim_must_be_there_when_it_is_asked_for() -> None:
    config = JwtConfig(ISSUER, RESOURCE, tenant_claim="org")
    assert (await ask(signed(claims(org="acme")), verifier(config))).tenant == "acme"
    with pytest.raises(Unauthenticated):
        await ask(signed(), verifier(config))
    assert (await ask(signed(claims(tenant="acme")))).tenant == "default"


async def test_a_small_rsa_key_is_not_believed() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    keys = {"keys": [RSAAlgorithm.to_jwk(small.public_key(), as_dict=True) | {"kid": "one"}]}
    with pytest.raises(Unauthenticated):
        await ask(raw(RS, claims(), small), verifier(keys=keys))


@pytest.mark.parametrize(
    "keys", [{}, {"keys": 1}, {"keys": [1, None]}, {"keys": [{"kid": "one", "kty": "RSA"}]}, {"keys": [JWK, JWK]}]
)
async def test_rubbish_from_the_issuer_is_nobodys_key(keys: Any) -> None:
    with pytest.raises(Unauthenticated):
        await ask(signed(), verifier(keys=keys))


async def test_unknown_kids_do_not_hammer_the_issuer_and_outages_are_survived() -> None:
    now = [0.0]
    asked = [0]
    down = [False]

    async def fetch() -> Mapping[str, Any]:
        asked[0] += 1
        if down[0]:
            raise Unavailable("no answer")
        return {"keys": [JWK]}

    keys = KeySet(fetch, monotonic=lambda: now[0])
    for _ in range(20):
        with pytest.raises(Unauthenticated):
            await keys.find("nine", "RS256")
    assert asked[0] == 1
    down[0] = True
    now[0] = 3_000.0
    assert (await keys.find("one", "RS256"))["kid"] == "one"
    now[0] = 3_601.0
    with pytest.raises(Unauthenticated):
        await keys.find("one", "RS256")
    down[0] = False
    now[0] += 31
    assert (await keys.find("one", "RS256"))["kid"] == "one"


def test_shared_secrets_cannot_be_configured() -> None:
    for algorithms in (("HS256",), ("none",), ()):
        with pytest.raises(ValueError, match="public key"):
            JwtConfig(ISSUER, RESOURCE, algorithms=algorithms)
