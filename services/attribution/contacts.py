"""E-mail and phone as marks: what tells that two people are one, without keeping who they are.

A mark is `e:` or `p:` and the SHA-256 hex of the normalised value. A platform that must be able to forget people sends
`sha256:` + that hex instead of the value, so both spellings give the same mark.
Source: programs.md, Binding; contract.md, customer.profile.
"""

import hashlib
import unicodedata

HASHED = "sha256:"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def email_marks(email: str | None) -> tuple[str, ...]:
    """The mark of an e-mail: trimmed, case-folded. None for a blank one."""
    text = (email or "").strip().casefold()
    if text.startswith(HASHED):
        return (f"e:{text.removeprefix(HASHED).strip()}",)
    return (f"e:{_sha256(text)}",) if text else ()


def phone_marks(phone: str | None) -> tuple[str, ...]:
    """The marks of a phone: its digits, a leading `00` standing for `+`.

    Two marks, with and without the `+`: a sender of digests may have hashed either spelling.
    """
    text = (phone or "").strip().lower()
    if text.startswith(HASHED):
        return (f"p:{text.removeprefix(HASHED).strip()}",)
    # of any script: full-width or Arabic digits are the same number
    digits = "".join(str(unicodedata.decimal(each)) for each in text if each.isdecimal()).removeprefix("00")
    return (f"p:{_sha256(digits)}", f"p:{_sha256('+' + digits)}") if digits else ()


def marks(email: str | None, phone: str | None) -> tuple[str, ...]:
    """All marks of a person's e-mail and phone."""
    return (*email_marks(email), *phone_marks(phone))


def shown(value: str | None) -> str | None:
    """What a page may show of an e-mail or phone: a digest tells a reader nothing."""
    return None if value is None or value.strip().lower().startswith(HASHED) else value
