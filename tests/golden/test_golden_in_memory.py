"""Every golden journey, in memory: over several interleavings, with and without owners that die."""

import pytest

from schemas.moments import parse_instant
from services.runtime.simulate import World
from tests.journey import GOLDEN, Journey, journeys, matches, missing
from tests.worlds import balance, examples, told, verify_asked, wallet, world


def _play(journey: Journey, made: World) -> World:
    for phase in journey.phases():
        made.publish(*phase)
        verify_asked(made.run())
    return made


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
@pytest.mark.parametrize(("seed", "crashes"), [(0, 0.0), (1, 0.0), (2, 0.3)])
def test_journey_gives_what_the_rule_promises(journey: Journey, seed: int, crashes: float) -> None:
    made = _play(journey, world(seed, partitions=3, crashes=crashes, programs=examples()))
    events = told(made)
    assert missing(journey.expected("out"), events) == []
    for unwanted in journey.expected("none"):
        assert [event for event in events if matches(unwanted, event)] == []
    for letter in journey.expected("dead"):
        assert any(matches(letter, headers) for headers in _dead_letters(made)), letter
    for wanted in journey.expected("balance"):
        _check_balance(made, dict(wanted))
    for wanted in journey.expected("wallet"):
        as_of = None if "as_of" not in wanted else parse_instant(wanted["as_of"])
        assert wallet(made, wanted["partner_id"], as_of) == wanted["credits"]


def test_what_a_journey_expects_names_an_id_of_its_own() -> None:
    """Over Kafka all journeys are played at once, and one must not see what another brings about."""
    lines = [(path.name, line) for path in GOLDEN.glob("*/*.jsonl") for line in path.read_text().splitlines()]
    expected = [
        (name, line) for name, line in lines if line.startswith(('{"out"', '{"none"', '{"balance"', '{"wallet"'))
    ]
    assert [(name, line) for name, line in expected if "~" not in line] == []


def _check_balance(made: World, wanted: dict[str, object]) -> None:
    partner_id, program_id, currency = (str(wanted.pop(name)) for name in ("partner_id", "program_id", "currency"))
    as_of = wanted.pop("as_of", None)
    got = balance(made, partner_id, program_id, currency, None if as_of is None else parse_instant(as_of))
    assert got is not None
    assert {name: got[name] for name in wanted} == wanted


def _dead_letters(made: World) -> list[dict[str, str]]:
    letters = [record for number in range(made.partitions) for record in made.log["dead-letters", number]]
    return [{name: value.decode() for name, value in record.headers} for record in letters]
