"""Two spellings of one e-mail or phone are one person; two e-mails or phones are two."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from services.attribution.contacts import HASHED, email_marks, marks, phone_marks

LETTERS = st.text("abcdefghijklmnopqrstuvwxyzß0123456789", min_size=1, max_size=10)
emails = st.builds("{}.{}@{}.example".format, LETTERS, LETTERS, LETTERS)
blanks = st.text(" \t\r\n\u00a0\u3000", max_size=3)
numbers = st.text("123456789", min_size=1, max_size=1).flatmap(
    lambda first: st.text("0123456789", min_size=6, max_size=14).map(lambda rest: first + rest)
)
DIGITS = ("0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩")
noise = st.text(" -().\u00a0/", max_size=2)


@st.composite
def recased(draw: st.DrawFn, text: str) -> str:
    """The text in any mixture of cases, with blanks around it."""
    cased = "".join(each.upper() if draw(st.booleans()) else each for each in text)
    return draw(blanks) + cased + draw(blanks)


@st.composite
def written(draw: st.DrawFn, number: str) -> str:
    """The number as people write it: any prefix, any grouping, any script's digits."""
    script = draw(st.sampled_from(DIGITS))
    prefix = draw(st.sampled_from(["", "+", "00", " + ", "0 0"]))
    return draw(blanks) + prefix + "".join(script[int(each)] + draw(noise) for each in number)


@given(emails.flatmap(lambda email: st.tuples(st.just(email), recased(email), recased(email))))
def test_an_email_is_one_however_it_is_cased_and_padded(spellings: tuple[str, str, str]) -> None:
    plain, one, other = map(email_marks, spellings)
    assert plain == one == other != ()


@given(numbers.flatmap(lambda number: st.tuples(st.just(number), written(number), written(number))))
def test_a_phone_is_one_however_it_is_grouped_and_prefixed(spellings: tuple[str, str, str]) -> None:
    plain, one, other = map(phone_marks, spellings)
    assert plain == one == other != ()


@given(emails, emails)
def test_emails_that_differ_in_more_than_case_are_two_people(one: str, other: str) -> None:
    assert (email_marks(one) == email_marks(other)) == (one.casefold() == other.casefold())


def test_dots_and_plus_signs_belong_to_an_email() -> None:
    """Whether `a.b+c@` and `ab@` are one mailbox is the mail server's own business."""
    assert len({email_marks(each) for each in ("ab@x.example", "a.b@x.example", "ab+c@x.example")}) == 3


@given(emails.flatmap(recased), numbers.flatmap(written))
def test_a_digest_marks_the_same_person_as_the_value(email: str, phone: str) -> None:
    digits = "".join(str(int(each)) for each in phone if each.isdecimal()).removeprefix("00")
    hashed = [HASHED + hashlib.sha256(text.encode()).hexdigest() for text in (email.strip().casefold(), "+" + digits)]
    told = marks(email, phone)
    assert set(marks(hashed[0], hashed[1])) <= set(told)
    assert set(marks(hashed[0].upper().replace("SHA256", "sha256"), None)) <= set(told)


@given(st.none() | blanks, st.none() | blanks | noise)
def test_nothing_given_is_nobody(email: str | None, phone: str | None) -> None:
    assert marks(email, phone) == ()
