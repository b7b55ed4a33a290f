"""The click cookie: what it holds, who may have written it, how long it gets."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import DAY
from services.attribution.cookie import MAX_CODES, CodeClicks, CookieSigner, Visit

OLD, NEW = {"2025": "the secret of 2025, long enough to be one"}, {"2026": "the secret of 2026, long enough to be one"}
AT = 20_000 * DAY
VISIT = Visit("visitor-1").clicked("k5xw4zja", AT).clicked("m2nq7rst", AT + 5_000_000)


def test_a_value_reads_as_it_was_written() -> None:
    signer = CookieSigner(NEW)
    assert signer.read(signer.write(VISIT)) == VISIT
    assert signer.read(f' "{signer.write(VISIT)}" ') == VISIT


def test_first_and_latest_click_of_a_link_are_kept_in_milliseconds() -> None:
    visit = Visit("v").clicked("a", AT + 999).clicked("a", AT + 3_000_999).clicked("a", AT + 2_000_000)
    assert visit.clicks == (CodeClicks("a", AT, AT + 3_000_000),)
    assert visit.evidence == (("a", AT), ("a", AT + 3_000_000))


@given(st.data())
def test_a_value_with_a_flipped_bit_is_not_ours(data: st.DataObject) -> None:
    signer = CookieSigner({**OLD, **NEW})
    value = bytearray(signer.write(VISIT).encode())
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= 1 << data.draw(st.integers(0, 7))
    assert signer.read(value.decode("latin-1")) is None


def test_no_character_of_a_value_can_be_another_or_be_left_out() -> None:
    signer = CookieSigner(NEW)
    value = signer.write(VISIT)
    alphabet = string.ascii_letters + string.digits + "-_.=!"
    for place, was in enumerate(value):
        assert signer.read(value[:place]) is None
        assert signer.read(value[:place] + value[place + 1 :]) is None
        for other in alphabet.replace(was, ""):
            assert signer.read(value[:place] + other + value[place + 1 :]) is None
            assert signer.read(value[:place] + other + value[place:]) is None


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_whatever_is_made_up_is_not_ours(value: str) -> None:
    assert CookieSigner(NEW).read(value) is None


def test_the_signature_of_one_visit_signs_no_other() -> None:
    signer = CookieSigner(NEW)
    one, other = (signer.write(Visit(visitor).clicked("code", AT)) for visitor in ("v-1", "v-2"))
    assert signer.read(one.rpartition(".")[0] + "." + other.rpartition(".")[2]) is None


@pytest.mark.parametrize("value", ["", ".", "a.b", "WyJhIl0.x", "é" * 10, "x" * 10_000, "null"])
def test_a_value_that_is_none_is_none(value: str) -> None:
    assert CookieSigner(NEW).read(value) is None


def test_the_newest_secret_signs_and_all_verify() -> None:
    before, during, after = CookieSigner(OLD), CookieSigner({**OLD, **NEW}), CookieSigner(NEW)
    assert during.read(before.write(VISIT)) == VISIT
    assert after.read(during.write(VISIT)) == VISIT
    assert after.read(before.write(VISIT)) is None
    assert before.read(during.write(VISIT)) is None


def test_without_a_secret_nothing_is_signed_and_nothing_valid() -> None:
    assert CookieSigner({}).read(CookieSigner(NEW).write(VISIT)) is None
    with pytest.raises(ValueError, match="no secret"):
        CookieSigner({}).write(VISIT)


def test_a_signed_value_of_another_shape_is_no_visit() -> None:
    signer = CookieSigner(NEW)
    serializer = signer._serializer
    assert serializer is not None
    for content in ({}, [1, "v"], [2, "v", []], [1, "v", [["a"]]], [1, "v", [["a", "x", "y"]]], 5, None):
        assert signer.read(str(serializer.dumps(content))) is None


def test_the_cookie_stays_small_and_gives_up_what_was_not_clicked_for_longest() -> None:
    visit = Visit("v" * 22)
    for number in range(50):
        visit = visit.clicked(f"code-of-16-chr{number:02}", AT + number * 1000)
    visit = visit.clicked("code-of-16-chr30", AT + 10**9)
    assert len(visit.clicks) == MAX_CODES
    assert {each.code for each in visit.clicks} == {f"code-of-16-chr{number}" for number in range(30, 50)}
    assert len(CookieSigner(NEW).write(visit)) < 2000
