"""Who calls: a JWT bearer token, and what each role may reach.

Algorithms are pinned by where the key comes from: the shared secret checks HS256 alone, a key set RS256 and ES256
alone, so a public key can never pass for a secret. Expiry follows the settings' clock.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import jwt
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jwt import PyJWKClient, PyJWKClientConnectionError

from services.runtime.http.problems import Problem, not_found, unavailable
from services.runtime.http.queries import refuse_unknown_query
from services.runtime.http.rates import RateLimits
from services.runtime.settings import Settings

Role = Literal["partner", "platform", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
JWKS_TIMEOUT_SECONDS = 5
JWKS_SECONDS = 60
"""How long a fetched key set is trusted: a key that was taken out of it is refused after a minute at the latest."""
JWKS_PAUSE_SECONDS = 5
"""A token with an unknown key has the set fetched again, but never more often than this, whoever makes up tokens."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token speaks for. A partner's `sub` is the partner id."""

    role: Role
    sub: str

    @property
    def name(self) -> str:
        """Like `partner:p-1`: what commands carry."""
        return f"{self.role}:{self.sub}"


def unauthorized(error: str = "") -> Problem:
    """401. `error`: RFC 6750's, empty when no token came at all."""
    challenge = 'Bearer realm="refstream"' + (f', error="{error}"' if error else "")
    return Problem(401, "unauthorized", "A valid bearer token is needed.", headers={"WWW-Authenticate": challenge})


def _key_set(address: str) -> PyJWKClient:
    return PyJWKClient(
        address, timeout=JWKS_TIMEOUT_SECONDS, lifespan=JWKS_SECONDS, cooldown_duration=JWKS_PAUSE_SECONDS
    )


class Authenticator:
    """Checks bearer tokens. Where a key set is configured, the shared secret is not accepted."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = _key_set(settings.auth_jwks_url) if settings.auth_jwks_url else None

    async def caller(self, token: str) -> Caller:
        """The caller a token speaks for.

        Errors: Problem 401 for anything wrong with the token; Problem 503 while the key set cannot be fetched.
        """
        try:
            claims = await self._claims(token)
        except PyJWKClientConnectionError:
            raise unavailable() from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # ValueError and TypeError: headers and keys so malformed that the library has no error of its own
            raise unauthorized("invalid_token") from None
        return self._checked(claims)

    async def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that is signed by us, for us. Times are left to `_checked`, for its clock."""
        key: Any
        if self._keys is not None:
            algorithms = ["RS256", "ES256"]
            key = await asyncio.to_thread(self._keys.get_signing_key_from_jwt, token)  # fetches with a blocking call
        elif self._settings.auth_secret is not None:
            algorithms = ["HS256"]
            key = self._settings.auth_secret.get_secret_value()
        else:
            raise unauthorized("invalid_token")
        return jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=self._settings.auth_audience,
            issuer=self._settings.auth_issuer,
            options={
                "require": ["exp", "iss", "aud", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )

    def _checked(self, claims: dict[str, Any]) -> Caller:
        now = self._settings.now().timestamp()
        expires_at, not_before = _seconds(claims["exp"]), _seconds(claims.get("nbf", 0))
        if expires_at is None or not_before is None or not not_before <= now < expires_at:
            raise unauthorized("invalid_token")
        role, sub = claims.get("role"), claims["sub"]
        if role not in ROLES or not isinstance(sub, str) or not sub:
            raise unauthorized("invalid_token")
        return Caller(role, sub)


def _seconds(claim: Any) -> float | None:
    """A NumericDate of a token, or None where it is none."""
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not math.isfinite(claim):
        return None
    return claim


_bearer = HTTPBearer(
    bearerFormat="JWT", scheme_name="token", auto_error=False, description="`role` partner, platform or admin; `sub`."
)


async def caller(request: Request, token: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> Caller:
    """The authenticated caller, counted. Errors: Problem 401; 429 for one who calls too often."""
    if token is None:
        raise unauthorized()
    authenticator: Authenticator = request.app.state.authenticator
    who = await authenticator.caller(token.credentials)
    rates: RateLimits | None = request.app.state.resources.rates
    if rates is not None:
        await rates.count(who.role, who.sub)
    return who


@dataclass(frozen=True)
class Door:
    """Who gets into a route: some roles, and of partners the one alone whose id is in the path.

    A dependency of every route but the public ones, so that nobody else learns what is wrong with a request. The
    platform and admins reach every partner's data where they get in at all.
    """

    roles: tuple[Role, ...]

    async def __call__(self, request: Request, who: Annotated[Caller, Depends(caller)]) -> Caller:
        """Errors: Problem 401, 429; 403 for another role; 404, the same for a foreign partner as for an absent one;
        422 for a query parameter that the route does not know."""
        if who.role not in self.roles:
            raise Problem(403, "forbidden", "Your role may not do this.")
        own_partner(who, request.path_params.get("partner_id", who.sub))
        refuse_unknown_query(request)
        return who


async def through_the_door(request: Request) -> None:
    """What a request must pass that failed before its route's dependencies did. Errors: as `Door`."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    for each in dependant.dependencies if dependant is not None else ():
        if isinstance(each.call, Door):
            await each.call(request, await caller(request, await _bearer(request)))


EVERYBODY, PARTNERS = Door(ROLES), Door(("partner",))

TheCaller = Annotated[Caller, Depends(EVERYBODY)]
"""Parameter type of a route that needs a token: `who: TheCaller`. Those below let fewer in."""
ThePartner = Annotated[Caller, Depends(PARTNERS)]
ThePlatform = Annotated[Caller, Depends(Door(("platform",)))]
TheAdmin = Annotated[Caller, Depends(Door(("admin",)))]
TheStaff = Annotated[Caller, Depends(Door(("platform", "admin")))]


def own_partner(who: Caller, partner_id: str) -> None:
    """Of what names its partner elsewhere than in the path, a partner reaches only its own.

    Errors: Problem 404, the same for a foreign partner as for an absent one.
    """
    if who.role == "partner" and who.sub != partner_id:
        raise not_found()
