"""Codes: what stands in a link, and promo codes. One key per code decides who was first: the stage `attribution.codes`.

Links and promo codes share one space of names, compared trimmed and without regard to case.
"""

import base64
import hashlib
import unicodedata

from schemas import events, internal
from schemas.events import Event
from schemas.ids import derived_id
from schemas.programs.terms import Program, destination_host
from services.attribution.state import Code
from services.runtime.stage import Answer, Change, Context, Emit, refused

PROMO_CHARACTERS = (3, 64)
MAX_KEY_CHARACTERS = 4096
"""More than any code has once it is normalised, where one character may become several."""
LINK_BYTES, PROMO_BYTES = 10, 6
"""Of a derived code: 80 bits cannot be guessed; a promo code is typed by people, so 48 bits have to do."""


def normalised(code: str) -> str:
    """The key of a code, however it was typed."""
    return unicodedata.normalize("NFKC", code).strip().casefold()


def promo_code_fault(code: str) -> str | None:
    """What is wrong with a promo code that a partner chose, or None."""
    text = code.strip()
    least, most = PROMO_CHARACTERS
    if not least <= len(text) <= most or not all(character.isalnum() or character in "-_" for character in text):
        return f"a promo code has {least} to {most} letters, digits, - or _"
    return None


def derived_code(seed: str, size_bytes: int) -> str:
    """A code that follows from its command's seed: a replay gives the same one."""
    digest = hashlib.blake2b(seed.encode(), digest_size=size_bytes, person=b"refstream.code").digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def destination_allowed(program: Program, destination: str) -> bool:
    """Whether a partner's link may lead there: http or https, to exactly one of the program's hosts."""
    return destination_host(destination) in {allowed.lower() for allowed in program.attribution.destination_hosts}


def step(context: Context[Code], state: Code, event: Event) -> Change[Code, Code]:
    """First come wins.

    Shape: one CodeRequested → one LinkCreated or PromoCodeCreated and the answer to its command.
    Errors: none; a code that is taken is refused with `code_taken`.
    """
    match event.data:
        case internal.CodeRequested() as asked:
            return _taken(asked) if state.partner_id else _given(asked, event.time)
        case _:
            return Change()


def _taken(asked: internal.CodeRequested) -> Change[Code, Code]:
    return Change(answers=(refused(asked, "code_taken", "This code belongs to somebody already."),))


def _given(asked: internal.CodeRequested, at: int) -> Change[Code, Code]:
    shown = asked.shown or asked.code
    owner = {"partner_id": asked.partner_id, "program_id": asked.program_id}
    created: events.LinkCreated | events.PromoCodeCreated
    if asked.kind == "link":
        url, destination = asked.url or "", asked.destination or ""
        created = events.LinkCreated(**owner, code=shown, url=url, destination=destination)
    else:
        created = events.PromoCodeCreated(**owner, code=shown)
    return Change(
        state=Code(kind=asked.kind, code=shown, destination=asked.destination or "", **owner),
        emits=(Emit(derived_id("code", asked.code), at, created),),
        answers=(Answer(asked, 201, created.model_dump(mode="json", exclude={"partner_id"})),),
    )
