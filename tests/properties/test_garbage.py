"""Whatever the platform writes: one dead letter with its place and reason, or its effect, and nothing stops."""

from collections import Counter

import pytest

from tests.faults.garbage import Garbage, garbage
from tests.worlds import world

COUNT = 1_000


@pytest.mark.parametrize("seed", ["a", "b"])
def test_garbage_is_a_dead_letter_or_counts_and_stops_nothing(seed: str) -> None:
    made = world()
    where: dict[tuple[str, str, str], Garbage] = {}
    for one in garbage(seed, COUNT, made.partitions):
        log = made.log[one.topic, one.partition]
        where[one.topic, str(one.partition), str(len(log))] = one
        made.append(one.topic, one.partition, one.key, one.value, one.headers)  # type: ignore[arg-type]
    made.run()

    letters = [
        {name: value.decode() for name, value in record.headers}
        for number in range(made.partitions)
        for record in made.log["dead-letters", number]
    ]
    places = Counter((letter["topic"], letter["partition"], letter["offset"]) for letter in letters)
    assert [place for place, count in places.items() if count > 1] == []
    for letter in letters:
        one = where[letter["topic"], letter["partition"], letter["offset"]]
        assert letter["reason"] in one.dead, one
    assert [one for place, one in where.items() if one.dead and place not in places] == []
    put_back = Counter(
        record.value
        for topic in ("customers", "payments", "profiles")
        for number in range(made.partitions)
        for record in made.log[topic, number][len([1 for at in where if at[:2] == (topic, str(number))]) :]
    )
    assert put_back == Counter(one.value for one in where.values() if one.put_back)
