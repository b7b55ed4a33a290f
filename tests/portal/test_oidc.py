"""Signing in at an OpenID Connect provider: the code flow against one in memory, and everything that it refuses."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient

from services.portal.app import create_app
from services.portal.session import COOKIE, Sessions
from services.runtime.settings import SettingsRefused
from tests.http_fakes import settings

ISSUER, CLIENT, URL = "https://login.example.com", "refstream", "https://refer.example.com"
KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
OIDC = {"oidc_issuer": ISSUER, "oidc_client_id": CLIENT, "oidc_client_secret": "s" * 32, "public_url": URL}


class Identity:
    """The provider. `claims`: what it says beside what it must, `key`: what it signs with."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.key, self.nonce, self.issuer, self.is_away = KEY, "", ISSUER, False
        self.asked: dict[str, list[str]] = {}

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("away")
        match request.url.path:
            case "/.well-known/openid-configuration":
                names = {"authorization_endpoint": "login", "token_endpoint": "token", "jwks_uri": "keys"}
                told = {name: f"{ISSUER}/{path}" for name, path in names.items()}
                return httpx.Response(200, json={"issuer": self.issuer, **told})
            case "/keys":
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
                return httpx.Response(200, json={"keys": [{**public, "kid": "k1", "use": "sig", "alg": "RS256"}]})
            case "/token":
                self.asked = parse_qs(request.content.decode())
                now = int(time.time())
                usual = {"iss": ISSUER, "aud": CLIENT, "sub": "anna", "nonce": self.nonce, "iat": now, "exp": now + 60}
                claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
                token = jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "k1"})
                return httpx.Response(200, json={"id_token": token})
            case _:
                return httpx.Response(404)


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture
def browser(identity: Identity) -> Iterator[TestClient]:
    app = create_app(settings(**OIDC), identity=httpx.MockTransport(identity.answer))
    with TestClient(app, base_url=URL, follow_redirects=False) as opened:
        yield opened


def _begun(browser: TestClient, identity: Identity) -> str:
    """The browser has been sent to the provider: the state that comes back."""
    sent = browser.get("/portal/oidc")
    assert sent.status_code == 303
    asked = parse_qs(urlsplit(sent.headers["location"]).query)
    assert (asked["redirect_uri"], asked["code_challenge_method"]) == ([f"{URL}/portal/oidc/back"], ["S256"])
    identity.nonce = asked["nonce"][0]
    return asked["state"][0]


@pytest.mark.parametrize(
    ("claims", "role", "first"), [({}, "partner", "/portal"), ({"role": "admin"}, "admin", "/admin")]
)
def test_who_comes_back_from_the_provider_is_signed_in(
    browser: TestClient, identity: Identity, claims: dict[str, Any], role: str, first: str
) -> None:
    identity.claims = claims
    back = browser.get("/portal/oidc/back", params={"state": _begun(browser, identity), "code": "c"})
    assert (back.status_code, back.headers["location"]) == (303, first)
    session = Sessions(settings()).read(browser.cookies[COOKIE])
    assert session is not None
    assert (session.role, session.sub) == (role, "anna")
    assert identity.asked["code"] == ["c"]
    assert len(identity.asked["code_verifier"][0]) >= 43  # PKCE's least


@pytest.mark.parametrize(
    "claims",
    [{"aud": "another"}, {"iss": "https://evil.example.com"}, {"exp": 1}, {"nonce": "another"}, {"nonce": None},
     {"sub": None}, {"sub": ""}, {"exp": None}],
)  # fmt: skip
def test_a_token_that_is_not_for_us_signs_nobody_in(
    browser: TestClient, identity: Identity, claims: dict[str, Any]
) -> None:
    identity.claims = claims
    back = browser.get("/portal/oidc/back", params={"state": _begun(browser, identity), "code": "c"})
    assert back.status_code == 401
    assert COOKIE not in browser.cookies


def test_a_token_of_another_key_signs_nobody_in(browser: TestClient, identity: Identity) -> None:
    identity.key = OTHER_KEY
    assert browser.get("/portal/oidc/back", params={"state": _begun(browser, identity), "code": "c"}).status_code == 401


def test_an_answer_to_a_question_that_this_browser_did_not_ask_signs_nobody_in(
    browser: TestClient, identity: Identity
) -> None:
    state = _begun(browser, identity)
    assert browser.get("/portal/oidc/back", params={"state": "another", "code": "c"}).status_code == 401
    browser.cookies.clear()
    assert browser.get("/portal/oidc/back", params={"state": state, "code": "c"}).status_code == 401


def test_a_provider_that_is_away_or_calls_itself_otherwise_signs_nobody_in(
    browser: TestClient, identity: Identity
) -> None:
    identity.issuer = "https://evil.example.com"
    assert browser.get("/portal/oidc").status_code == 401
    identity.is_away = True
    assert browser.get("/portal/oidc").status_code == 401


def test_the_page_offers_it_where_it_is_set_alone(browser: TestClient) -> None:
    assert 'href="/portal/oidc"' in browser.get("/portal").text
    plain = TestClient(create_app(settings()), follow_redirects=False)
    assert 'href="/portal/oidc"' not in plain.get("/portal").text
    assert plain.get("/portal/oidc").status_code == 401


@pytest.mark.parametrize("lacking", ["oidc_client_id", "oidc_client_secret", "public_url"])
def test_half_of_the_settings_are_refused(lacking: str) -> None:
    with pytest.raises(SettingsRefused):
        create_app(settings(**{name: value for name, value in OIDC.items() if name != lacking}))
