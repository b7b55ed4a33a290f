"""The click cookie: a visitor's own clicks, signed, so that the platform can hand them on and nobody can invent one.

Value: itsdangerous' URL-safe JSON of `[1, visitor id, [[code, first click, latest click], …]]`, clicks in milliseconds
since 1970 UTC (rounded down, so that no click lies after the signup that follows it). The last of the secrets signs,
all verify: a new one is added, and the old one taken out when the longest window has passed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.encoding import base64_decode, base64_encode
from msgspec import Struct

NAME = "ref"
MAX_CODES = 20
MAX_CHARACTERS = 4096
MAX_AGE_DAYS = 400
"""What browsers keep at most; the life of the cookie where a program names no window."""

_FORMAT = 1
_MILLISECOND = 1000


class CodeClicks(Struct, frozen=True):
    """The first and the latest click on one link; microseconds since 1970 UTC."""

    code: str
    first_at: int
    latest_at: int


class Visit(Struct, frozen=True):
    """What the cookie says: who clicked, and on which links."""

    visitor_id: str
    clicks: tuple[CodeClicks, ...] = ()

    def clicked(self, code: str, at: int) -> "Visit":
        """The visit with one more click. Beyond MAX_CODES links the one not clicked for longest is given up."""
        at -= at % _MILLISECOND
        before = next((known for known in self.clicks if known.code == code), CodeClicks(code, at, at))
        now = CodeClicks(code, min(before.first_at, at), max(before.latest_at, at))
        others = sorted((known for known in self.clicks if known.code != code), key=lambda known: -known.latest_at)
        return Visit(self.visitor_id, (now, *others[: MAX_CODES - 1]))

    @property
    def evidence(self) -> tuple[tuple[str, int], ...]:
        """Every click that the cookie knows of: (code, time)."""
        return tuple((each.code, at) for each in self.clicks for at in dict.fromkeys((each.first_at, each.latest_at)))


class CookieSigner:
    """Signs and reads cookie values. `secrets`: key id → secret, the newest last."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        keys: Sequence[str] = tuple(secrets.values())
        options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
        self._serializer = URLSafeSerializer(keys, salt="refstream.click", signer_kwargs=options) if keys else None

    def write(self, visit: Visit) -> str:
        """The cookie's value. Errors: ValueError without any secret."""
        if self._serializer is None:
            raise ValueError("there is no secret to sign click cookies with")
        clicks = [[c.code, c.first_at // _MILLISECOND, c.latest_at // _MILLISECOND] for c in visit.clicks]
        value = self._serializer.dumps([_FORMAT, visit.visitor_id, clicks])
        return value if isinstance(value, str) else value.decode()

    def read(self, value: str) -> Visit | None:
        """What a value says, or None for one that we did not sign (or that is not whole any more)."""
        text = value.strip().strip('"')
        if self._serializer is None or len(text) > MAX_CHARACTERS:
            return None
        signature = text.rpartition(".")[2]
        try:
            if base64_encode(base64_decode(signature)).decode() != signature:
                return None  # the same signature spelt otherwise: base64 has spare bits, and skips strange characters
            return _visit(self._serializer.loads(text))
        except (BadData, ValueError, TypeError):
            return None


def _visit(told: Any) -> Visit | None:
    version, visitor_id, clicks = told
    if version != _FORMAT:
        return None
    known = (CodeClicks(code, int(first) * _MILLISECOND, int(latest) * _MILLISECOND) for code, first, latest in clicks)
    return Visit(visitor_id, tuple(known))
