"""Who is let in. Every token here but the good ones is one that some library or configuration has once accepted."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import APIRouter
from fastapi.testclient import TestClient

from schemas.ids import Id
from services.runtime.http import TheCaller, TheStaff, service_app
from services.runtime.http.auth import JWKS_PAUSE_SECONDS, JWKS_SECONDS
from tests.http_fakes import SECRET, FakeReader, app_over, bearer, resources_over, settings

router = APIRouter()


@router.get("/partners/{partner_id}/thing")
async def thing(partner_id: Id, who: TheCaller) -> dict[str, str]:
    return {"caller": who.name}


@router.get("/secret")
async def secret(who: TheStaff) -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app, _ = app_over("payouts", router, FakeReader())
    with TestClient(app) as client:
        yield client


def _claims(**other: Any) -> dict[str, Any]:
    whole = {"iss": "refstream", "aud": "refstream", "exp": time.time() + 86_400, "role": "partner", "sub": "p-1"}
    return {name: value for name, value in {**whole, **other}.items() if value is not None}


def _part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


WRONG: dict[str, str] = {
    "no algorithm": jwt.encode(_claims(), None, algorithm="none"),
    "no algorithm, capitals": f"{_part({'alg': 'None', 'typ': 'JWT'})}.{_part(_claims())}.",
    "no algorithm in the header": f"{_part({'typ': 'JWT'})}.{_part(_claims())}.",
    "another hash": jwt.encode(_claims(), SECRET * 2, algorithm="HS512"),
    "another secret": jwt.encode(_claims(), SECRET[::-1], algorithm="HS256"),
    "another kind of key": jwt.encode(_claims(), rsa.generate_private_key(65537, 2048), algorithm="RS256"),
    "signed by an elliptic curve": jwt.encode(_claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
    "subject as a number": jwt.api_jws.encode(json.dumps(_claims(sub=1)).encode(), SECRET),
    "signature of another token": jwt.encode(_claims(), SECRET).rsplit(".", 1)[0]
    + "."
    + jwt.encode(_claims(sub="p-2"), SECRET).rsplit(".", 1)[1],
    "no signature": jwt.encode(_claims(), SECRET).rsplit(".", 1)[0] + ".",
    "expired": jwt.encode(_claims(exp=time.time() - 1), SECRET),
    "never expires": jwt.encode(_claims(exp=None), SECRET),
    "expiry as text": jwt.encode(_claims(exp="never"), SECRET),
    "expiry is true": jwt.encode(_claims(exp=True), SECRET),
    "expiry is infinite": jwt.encode(_claims(exp=float("inf")), SECRET),
    "not yet valid": jwt.encode(_claims(nbf=time.time() + 86_400), SECRET),
    "wrong audience": jwt.encode(_claims(aud="another"), SECRET),
    "no audience": jwt.encode(_claims(aud=None), SECRET),
    "wrong issuer": jwt.encode(_claims(iss="another"), SECRET),
    "no issuer": jwt.encode(_claims(iss=None), SECRET),
    "unknown role": jwt.encode(_claims(role="owner"), SECRET),
    "no role": jwt.encode(_claims(role=None), SECRET),
    "role as a list": jwt.encode(_claims(role=["admin"]), SECRET),
    "no subject": jwt.encode(_claims(sub=None), SECRET),
    "empty subject": jwt.encode(_claims(sub=""), SECRET),
    "unknown critical header": jwt.encode(_claims(), SECRET, headers={"crit": ["exp2"], "exp2": 1}),
    "claims are a list": f"{_part({'alg': 'HS256'})}.{base64.urlsafe_b64encode(b'[]').decode()}.AAAA",
    "no token at all": "x",
    "empty parts": "..",
    "deeply nested": f"{base64.urlsafe_b64encode(b'[' * 4000).decode()}.e30.AAAA",
}


@pytest.mark.parametrize("token", WRONG.values(), ids=WRONG.keys())
def test_wrong_token_is_unauthorized(client: TestClient, token: str) -> None:
    answer = client.get("/payouts/partners/p-1/thing", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic cDpw", "Token x"])
def test_missing_token_is_unauthorized(client: TestClient, header: str | None) -> None:
    answer = client.get("/payouts/partners/p-1/thing", headers={"Authorization": header} if header is not None else {})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_wrong_token_is_unauthorized_before_anything_of_the_request_is_looked_at(client: TestClient) -> None:
    assert client.get("/payouts/partners/~/thing?unknown=1").status_code == 401


def test_good_token_passes(client: TestClient) -> None:
    answer = client.get("/payouts/partners/p-1/thing", headers=bearer(aud=["other", "refstream"]))
    assert (answer.status_code, answer.json()) == (200, {"caller": "partner:p-1"})


def test_foreign_partner_answers_like_an_absent_one(client: TestClient) -> None:
    foreign = client.get("/payouts/partners/p-2/thing", headers=bearer())
    impossible = client.get("/payouts/partners/~~/thing", headers=bearer())
    nowhere = client.get("/payouts/nothing/here", headers=bearer())
    assert foreign.status_code == 404
    assert foreign.content == impossible.content == nowhere.content


@pytest.mark.parametrize("role", ["platform", "admin"])
def test_platform_and_admin_reach_every_partner(client: TestClient, role: str) -> None:
    assert client.get("/payouts/partners/p-2/thing", headers=bearer(role, "x")).status_code == 200


def test_role_that_may_not_is_forbidden(client: TestClient) -> None:
    answer = client.get("/payouts/secret", headers=bearer())
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_expiry_follows_the_moved_clock() -> None:
    later = settings(clock_offset=3600, local=True)
    app = service_app("payouts", later, router, (), resources_over(FakeReader()))
    with TestClient(app) as client:
        fresh, stale = bearer(exp=time.time() + 3700), bearer(exp=time.time() + 3500)
        assert client.get("/payouts/partners/p-1/thing", headers=fresh).status_code == 200
        assert client.get("/payouts/partners/p-1/thing", headers=stale).status_code == 401


# --- a key set -------------------------------------------------------------------------------------------------------

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def with_key_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """An app that trusts a key set of one RSA and one EC key, and has a shared secret besides."""
    rsa_jwk = {**jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "r", "alg": "RS256"}
    ec_jwk = {**jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "e", "alg": "ES256"}
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda self: {"keys": [rsa_jwk, ec_jwk]})
    own = settings(auth_jwks_url="https://keys.example.com/jwks")
    with TestClient(service_app("payouts", own, router, (), resources_over(FakeReader()))) as client:
        yield client


def _status(client: TestClient, token: str) -> int:
    return client.get("/payouts/partners/p-1/thing", headers={"Authorization": f"Bearer {token}"}).status_code


def test_key_set_accepts_both_kinds_of_keys(with_key_set: TestClient) -> None:
    assert _status(with_key_set, jwt.encode(_claims(), RSA_KEY, algorithm="RS256", headers={"kid": "r"})) == 200
    assert _status(with_key_set, jwt.encode(_claims(), EC_KEY, algorithm="ES256", headers={"kid": "e"})) == 200


def test_public_key_is_no_shared_secret(with_key_set: TestClient) -> None:
    public = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header, claims = _part({"alg": "HS256", "kid": "r", "typ": "JWT"}), _part(_claims())
    mark = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{header}.{claims}".encode(), public)
    forged = f"{header}.{claims}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"
    assert _status(with_key_set, forged) == 401


def test_shared_secret_is_not_accepted_beside_a_key_set(with_key_set: TestClient) -> None:
    assert _status(with_key_set, jwt.encode(_claims(), SECRET, headers={"kid": "r"})) == 401


def test_token_of_an_unknown_key_or_another_algorithm_is_refused(with_key_set: TestClient) -> None:
    assert _status(with_key_set, jwt.encode(_claims(), RSA_KEY, algorithm="RS256", headers={"kid": "other"})) == 401
    assert _status(with_key_set, jwt.encode(_claims(), RSA_KEY, algorithm="RS512", headers={"kid": "r"})) == 401
    assert _status(with_key_set, jwt.encode(_claims(), RSA_KEY, algorithm="RS256", headers={"kid": "e"})) == 401


@dataclass
class Provider:
    """An identity provider whose key set changes, and a clock that moves by hand."""

    keys: dict[str, rsa.RSAPrivateKey]
    now: float = 1000.0
    fetched: int = 0

    def key_set(self) -> dict[str, Any]:
        self.fetched += 1
        as_jwk = jwt.algorithms.RSAAlgorithm.to_jwk
        return {"keys": [{**as_jwk(k.public_key(), as_dict=True), "kid": kid} for kid, k in self.keys.items()]}

    def token(self, kid: str, key: rsa.RSAPrivateKey = RSA_KEY) -> str:
        return jwt.encode(_claims(), key, algorithm="RS256", headers={"kid": kid})


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    made = Provider({"old": RSA_KEY})

    def fetch(client: jwt.PyJWKClient) -> Any:
        keys = made.key_set()
        assert client.jwk_set_cache is not None
        client.jwk_set_cache.put(keys)
        client._last_successful_fetch = made.now
        return keys

    clock = SimpleNamespace(monotonic=lambda: made.now, time=lambda: made.now)
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", fetch)
    monkeypatch.setattr("jwt.jwks_client.time", clock)
    monkeypatch.setattr("jwt.jwk_set_cache.time", clock)
    monkeypatch.setattr("jwt.api_jwk.time", clock)
    return made


@pytest.fixture
def rotating(provider: Provider) -> Iterator[TestClient]:
    own = settings(auth_jwks_url="https://keys.example.com/jwks")
    with TestClient(service_app("payouts", own, router, (), resources_over(FakeReader()))) as client:
        yield client


def test_key_that_is_new_in_the_set_is_accepted_without_a_restart(rotating: TestClient, provider: Provider) -> None:
    new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert _status(rotating, provider.token("old")) == 200
    assert _status(rotating, provider.token("new", new)) == 401
    provider.keys["new"] = new
    provider.now += JWKS_PAUSE_SECONDS + 1
    assert _status(rotating, provider.token("new", new)) == 200
    assert _status(rotating, provider.token("old")) == 200


def test_key_that_was_taken_out_of_the_set_is_refused_after_a_minute(rotating: TestClient, provider: Provider) -> None:
    assert _status(rotating, provider.token("old")) == 200
    del provider.keys["old"]
    provider.keys["new"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    provider.now += JWKS_SECONDS + 1
    assert _status(rotating, provider.token("old")) == 401
    assert _status(rotating, provider.token("new", provider.keys["new"])) == 200


def test_key_under_a_known_name_that_is_another_is_refused(rotating: TestClient, provider: Provider) -> None:
    forged = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert _status(rotating, provider.token("old", forged)) == 401


def test_made_up_keys_do_not_have_the_set_fetched_each_time(rotating: TestClient, provider: Provider) -> None:
    for number in range(50):
        assert _status(rotating, provider.token(f"made-up-{number}")) == 401
    assert provider.fetched == 1


@pytest.mark.parametrize("wrong", [{"exp": 1}, {"aud": "another"}, {"iss": "another"}, {"sub": None}, {"role": None}])
def test_claims_are_checked_of_a_token_from_the_key_set_too(with_key_set: TestClient, wrong: dict[str, Any]) -> None:
    assert _status(with_key_set, jwt.encode(_claims(**wrong), RSA_KEY, algorithm="RS256", headers={"kid": "r"})) == 401


@pytest.mark.parametrize("header", [{}, {"kid": None}, {"kid": ["r"]}, {"kid": ""}, {"jwk": {"kty": "RSA"}}])
def test_token_that_names_no_key_or_brings_its_own_is_refused(with_key_set: TestClient, header: dict[str, Any]) -> None:
    signed = jwt.encode(_claims(), RSA_KEY, algorithm="RS256", headers={"kid": "r"})
    _, claims, signature = signed.split(".")
    assert _status(with_key_set, f"{_part({'alg': 'RS256', **header})}.{claims}.{signature}") == 401


def test_unsigned_token_is_refused_beside_a_key_set(with_key_set: TestClient) -> None:
    assert _status(with_key_set, jwt.encode(_claims(), None, algorithm="none", headers={"kid": "r"})) == 401


def test_key_set_out_of_reach_is_unavailable(monkeypatch: pytest.MonkeyPatch, with_key_set: TestClient) -> None:
    def unreachable(self: jwt.PyJWKClient) -> Any:
        raise jwt.PyJWKClientConnectionError("no route")

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", unreachable)
    token = jwt.encode(_claims(), RSA_KEY, algorithm="RS256", headers={"kid": "r"})
    assert _status(with_key_set, token) == 503
