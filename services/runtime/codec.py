"""What Redis holds, to bytes and back: plain MessagePack, or sealed where it tells of a person.

A stage names the types that are personal (`Stage.personal`). Their bytes are sealed with AES-SIV: deterministic, so
that a rebuild gives the same bytes again, and authenticated together with their place, so that nobody can change them
or put one person's in another's place. A sealed blob names its key:

    0xC1 (in MessagePack never used)   length of the key id   key id   ciphertext

The last of the secrets seals, all of them open: so they can be rotated, and `refstream rebuild` seals all anew.
See docs/decisions/0014.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from services.runtime.settings import Settings, SettingsRefused
from services.runtime.stage import Stage

SEALED = b"\xc1"

_encode = msgspec.msgpack.Encoder().encode


class Unsealable(Exception):
    """Sealed bytes that the secrets do not open: of a key that is not given any more, or not what was written."""


class Codec:
    """Encodes and decodes states, rows and answers. `secrets`: key id → secret, in order of age.

    `place` is where the bytes lie: the cell's tag, the key and, of a row, its id. Without secrets there is nothing
    personal to be written or read.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._ciphers = {
            key_id.encode(): AESSIV(hashlib.blake2b(secret.encode(), digest_size=64, person=b"refstream data").digest())
            for key_id, secret in (secrets or {}).items()
        }
        self._latest = next(reversed(self._ciphers), None)

    @classmethod
    def of(cls, settings: Settings) -> "Codec":
        """With DATA_SECRETS."""
        return cls({key_id: secret.get_secret_value() for key_id, secret in settings.data_secrets.items()})

    def encode(self, stage: Stage[Any, Any], value: Any, *place: str) -> bytes:
        """A state or row to bytes. Errors: SettingsRefused for something personal without a secret."""
        blob = _encode(value)
        return self._seal(blob, place) if isinstance(value, stage.personal) else blob

    def decode(self, blob: bytes, kind: Any, *place: str) -> Any:
        """A state or row again. Errors: Unsealable."""
        return msgspec.msgpack.decode(self.plain(blob, *place), type=kind)

    def answer(self, stage: Stage[Any, Any], blob: bytes, *place: str) -> bytes:
        """The bytes of an answer, sealed where the stage knows anything personal: an answer may repeat it."""
        return self._seal(blob, place) if stage.personal else blob

    def plain(self, blob: bytes, *place: str) -> bytes:
        """The bytes as they were before they were sealed, if they were. Errors: Unsealable."""
        if not blob.startswith(SEALED):
            return blob
        start = 2 + blob[1]
        cipher = self._ciphers.get(blob[2:start])
        if cipher is None:
            raise Unsealable(
                f"{place[0]} is sealed with the key {blob[2:start].decode('utf-8', 'replace')!r}, which "
                f"REFSTREAM_DATA_SECRETS lacks: give it, or run `refstream rebuild`"
            )
        try:
            return cipher.decrypt(blob[start:], [_placed(place)])
        except InvalidTag:
            raise Unsealable(
                f"{place[0]} holds bytes at {place[1]} that were not sealed there with this secret: give the right one "
                f"in REFSTREAM_DATA_SECRETS, or run `refstream rebuild`"
            ) from None

    def _seal(self, blob: bytes, place: tuple[str, ...]) -> bytes:
        if self._latest is None:
            raise SettingsRefused("REFSTREAM_DATA_SECRETS is not set, and there is something personal to keep")
        sealed = self._ciphers[self._latest].encrypt(blob, [_placed(place)])
        return b"%b%c%b%b" % (SEALED, len(self._latest), self._latest, sealed)


def _placed(place: tuple[str, ...]) -> bytes:
    return "\0".join(place).encode()
