"""What platforms write by mistake or by malice: everything ten times and shuffled, and garbage of every kind."""

import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import orjson
import pytest

from schemas.events import Event
from services.runtime.settings import Settings
from tests.faults.checks import BEFORE, FOLDED_SECONDS, Witness, all_is_right, the_rest_is_right
from tests.faults.flood import publish_garbage, publish_ten_times
from tests.faults.garbage import Garbage, garbage
from tests.faults.playground import Playground
from tests.faults.rounds import KINDS, LONG, machine, rounds_of
from tests.journey import Journey, journeys
from tests.over_kafka import Played, check, play

pytestmark = [pytest.mark.infra, pytest.mark.kill]

TIMES = 10
GARBAGE_A_ROUND = 50_000
SETS_A_ROUND = 12
PATIENCE_SECONDS = 1_800 if LONG else FOLDED_SECONDS
SETS_BY_HTTP = 1
Place = tuple[str, int, int]


def test_garbage_is_a_dead_letter_each_and_stops_nothing(ground: Playground) -> None:
    for round_ in rounds_of(KINDS["garbage"], machine(ground.valkey_version), GARBAGE_A_ROUND):
        placed: dict[Place, Garbage] = {}

        def note(one: Garbage, place: Place, placed: dict[Place, Garbage] = placed) -> None:
            placed[place] = one

        records = list(garbage(round_.seed.replace(" ", "-"), round_.times, ground.settings.partitions))
        writing = threading.Thread(target=publish_garbage, args=(ground.settings, records, note))
        own = journeys(f"garbage.{round_.number}.")
        with Witness(ground) as seen:
            writing.start()
            play(ground.settings, own, PATIENCE_SECONDS)
            writing.join()
        assert len(placed) == round_.times, round_.seed
        assert seen == set(), round_.seed
        ground.forged |= {place for place, one in placed.items() if one.headers}
        _each_met_its_fate(placed, all_is_right(ground, own, round_))
        round_.events += round_.times


def _each_met_its_fate(placed: dict[Place, Garbage], played: Played) -> None:
    letters = Counter[Place]()
    for record in played.records["dead-letters"]:
        told = {name: value.decode() for name, value in record.headers}
        place = (told["topic"], int(told["partition"]), int(told["offset"]))
        if place in placed:
            letters[place] += 1
            assert told["reason"] in placed[place].dead, placed[place]
    assert letters == Counter({place: 1 for place, one in placed.items() if one.dead})
    written_back = Counter(
        record.value
        for topic in ("customers", "payments", "profiles")
        for record in played.records[topic]
        if (topic, record.partition, record.offset) not in placed
    )
    assert [one for one in placed.values() if one.put_back and not written_back[one.value]] == []


def test_everything_ten_times_and_shuffled_is_as_once(ground: Playground) -> None:
    a_set = TIMES * sum(len(phase) for journey in journeys() for phase in journey.phases())
    for round_ in rounds_of(
        KINDS["input duplicated and shuffled"], machine(ground.valkey_version), a_set * SETS_A_ROUND
    ):
        sets = [journeys(f"ten.{round_.number}.{number}.") for number in range(-(-round_.times // a_set))]
        rng, published = random.Random(round_.seed), 0

        def send(settings: Settings, phases: Sequence[Sequence[Event]], rng: random.Random = rng) -> None:
            nonlocal published
            published += publish_ten_times(settings, phases, rng)

        with Witness(ground) as seen:
            play(ground.settings, [journey for own in sets for journey in own], PATIENCE_SECONDS, send)
        assert seen == set(), round_.seed
        assert published >= round_.times
        played = play(ground.settings, [], PATIENCE_SECONDS)
        _each_came_out_right(ground, sets, played)
        assert _books(ground, f"ten.{round_.number}.0.") == _books(ground, BEFORE), round_.seed
        the_rest_is_right(ground, played, round_)
        round_.events = published


def _each_came_out_right(ground: Playground, sets: Sequence[Sequence[Journey]], played: Played) -> None:
    """Every journey by what is on the log, those of the first sets by HTTP as well."""
    of = _by_journey(played)
    for number, own in enumerate(sets):
        for journey in own:
            if number >= SETS_BY_HTTP:
                told = tuple(line for line in journey.lines if not {"balance", "wallet"} & line.keys())
                journey = replace(journey, lines=told)
            check(journey, of[journey.name], ground.get)


def _by_journey(played: Played) -> dict[str, Played]:
    """What the log holds of each journey: the events and dead letters that name it."""
    name = re.compile(rb"ten\.\d+\.\d+\.[a-z0-9-]+")
    found: dict[str, Played] = defaultdict(lambda: Played({"dead-letters": []}, []))
    for event in played.events:
        for journey in set(name.findall(orjson.dumps(event))):
            found[journey.decode()].events.append(event)
    for letter in played.records["dead-letters"]:
        for journey in set(name.findall(letter.value or b"")):
            found[journey.decode()].records["dead-letters"].append(letter)
    return found


def _books(ground: Playground, tag: str) -> dict[str, object]:
    """The balances of every partner that the journeys look at, without the tag that makes their ids others."""
    partners = {str(line["partner_id"]) for journey in journeys(tag) for line in journey.expected("balance")}
    return {
        partner.removeprefix(tag): ground.get(f"/payouts/partners/{partner}/balance")["balances"]
        for partner in sorted(partners)
    }
