"""What is personal lies sealed in Redis: unreadable, unforgeable, in its place, and the same bytes each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payouts import LEDGER
from services.payouts.state import AccrualRow, Person, WithdrawalRow
from services.runtime.codec import SEALED, Codec, Unsealable
from services.runtime.profiles import PERSONS, Contact, Profile
from services.runtime.settings import SettingsRefused

OLD, NEW = "an old secret of 32 characters or more", "a new secret of 32 characters or more"
PLACE = ("{attribution.profiles:3}", "bob")
BOB = Profile(Contact("Bob Yellowfeather", "bob@example.com", "380671112233"), accounts={"b-1": "Bob's shop"})
codec = Codec({"2025": OLD})


def test_nothing_of_a_person_can_be_read_in_the_bytes() -> None:
    blob = codec.encode(PERSONS, BOB, *PLACE)
    assert blob.startswith(SEALED)
    for text in (b"Yellowfeather", b"bob@", b"3806", b"shop"):
        assert text not in blob
    assert codec.decode(blob, Profile, *PLACE) == BOB


def test_only_the_types_that_a_stage_names_are_sealed() -> None:
    withdrawal = WithdrawalRow("w", "keycrm", "USD", 5000, "UA9030529", 0, "March")
    accrual = AccrualRow("p", "keycrm", "USD", 0, 100, 10, 0)
    assert b"UA9030529" not in codec.encode(LEDGER, withdrawal, "{payouts.ledger:0}", "anna", "withdrawal:w")
    for plain in (accrual, Person(("keycrm",))):
        assert b"keycrm" in codec.encode(LEDGER, plain, "{payouts.ledger:0}", "anna", "accrual:p")


def test_the_same_gives_the_same_bytes_and_another_place_gives_others() -> None:
    blob = codec.encode(PERSONS, BOB, *PLACE)
    assert Codec({"2025": OLD}).encode(PERSONS, BOB, *PLACE) == blob
    assert codec.encode(PERSONS, BOB, PLACE[0], "carl") != blob
    with pytest.raises(Unsealable, match="REFSTREAM_DATA_SECRETS"):
        codec.decode(blob, Profile, PLACE[0], "carl")


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(where: int, bit: int) -> None:
    blob = bytearray(codec.encode(PERSONS, BOB, *PLACE))
    start = len(SEALED) + 1 + len("2025")
    blob[start + where % (len(blob) - start)] ^= 1 << bit
    with pytest.raises(Unsealable):
        codec.decode(bytes(blob), Profile, *PLACE)


def test_secrets_are_rotated_the_last_one_seals_and_all_open() -> None:
    before = codec.encode(PERSONS, BOB, *PLACE)
    both = Codec({"2025": OLD, "2026": NEW})
    assert both.decode(before, Profile, *PLACE) == BOB
    after = both.encode(PERSONS, BOB, *PLACE)
    assert Codec({"2026": NEW}).decode(after, Profile, *PLACE) == BOB
    with pytest.raises(Unsealable, match=r"'2025'.*refstream rebuild"):
        Codec({"2026": NEW}).decode(before, Profile, *PLACE)


def test_a_wrong_secret_under_a_known_key_id_is_refused() -> None:
    with pytest.raises(Unsealable):
        Codec({"2025": NEW}).decode(codec.encode(PERSONS, BOB, *PLACE), Profile, *PLACE)


def test_without_a_secret_nothing_personal_is_written() -> None:
    with pytest.raises(SettingsRefused, match="REFSTREAM_DATA_SECRETS"):
        Codec().encode(PERSONS, BOB, *PLACE)
    with pytest.raises(Unsealable):
        Codec().decode(codec.encode(PERSONS, BOB, *PLACE), Profile, *PLACE)


@given(st.binary(max_size=300))
def test_answers_of_a_stage_that_knows_people_are_sealed(answer: bytes) -> None:
    sealed = codec.answer(LEDGER, answer, "{payouts.ledger:0}", "cmd-1")
    assert sealed.startswith(SEALED)
    assert codec.plain(sealed, "{payouts.ledger:0}", "cmd-1") == answer
