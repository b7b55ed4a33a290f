"""Garbage for the platform's topics: drawn from a seed, each record with what must become of it.

What must become of a record is known by how it is made, not by asking the code that reads it. A record that counts has
ids of its own: it changes nothing beside itself.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from schemas.ids import partition_of

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
TOPICS = ("customers", "payments", "profiles")
Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Garbage:
    """A record and its fate. `dead`: the reasons that its dead letter may name; empty: it becomes none.

    `put_back`: it counts, under another key than its own. `codec`: how its batch is compressed.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    dead: frozenset[str] = frozenset()
    put_back: bool = False
    headers: tuple[Header, ...] = ()
    codec: str = "none"


def garbage(seed: str, count: int, partitions: int) -> Iterator[Garbage]:
    """So many records, the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        maker = rng.choice(MAKERS)
        made = maker(rng, _Told(rng, f"{seed}-{number}"), partitions)
        yield replace(made, codec=rng.choice(CODECS), headers=(*made.headers, *_headers(rng)))


class _Told:
    """An event that could be right, of some topic, to be spoilt."""

    def __init__(self, rng: random.Random, name: str) -> None:
        self.topic = rng.choice(TOPICS)
        self.customer = f"{name}.c"
        self.data: dict[str, Any] = {"customer_id": self.customer}
        match self.topic:
            case "customers":
                type_ = "customer.signed_up"
            case "profiles":
                type_ = "customer.profile"
                self.data["name"] = "Nobody"
            case _:
                type_ = "payment.succeeded"
                self.data |= {"payment_id": f"{name}.p", "amount": {"minor": 100, "currency": "USD"}}
        self.event: dict[str, Any] = {
            "specversion": "1.0",
            "id": name,
            "source": "/garbage",
            "type": type_,
            "time": "2026-03-01T12:00:00Z",
            "data": self.data,
        }

    def text(self) -> bytes:
        return json.dumps(self.event).encode()

    def right(self, partitions: int) -> Garbage:
        key = self.customer.encode()
        return Garbage(self.topic, partition_of(key, partitions), key, self.text())

    def spoilt(self, partitions: int, value: bytes | None, *reasons: str) -> Garbage:
        return replace(self.right(partitions), value=value, dead=frozenset(reasons))


Maker = Callable[[random.Random, _Told, int], Garbage]


def _bytes(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    """Nothing that begins like this is JSON."""
    return told.spoilt(
        partitions, rng.choice([b"\xff", b"\x00", b"}", b"<"]) + rng.randbytes(rng.randrange(2_000)), "not_json"
    )


def _no_text(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    text = told.text()
    values = (
        b"",
        b" \n",
        b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16"),
        text.replace(b"/garbage", b"/\xff\xc0\x80"),
        text.replace(b"/garbage", rb"/\ud800"),
        text.replace(b"/garbage", rb"/\udc00\ud800"),
        text[: rng.randrange(1, len(text))],
        text + b"{",
        text.replace(b'"1.0"', b"'1.0'"),
    )
    return told.spoilt(partitions, rng.choice(values), "not_json")


def _numbers(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    wrong = rng.choice(
        ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 5_000, "2.5", "01", str(10**30), "1e2"]
    )
    told.event["time"] = "@"
    return told.spoilt(partitions, told.text().replace(b'"@"', wrong.encode()), "not_json", "invalid_field")


def _amounts(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    if told.topic != "payments":
        return _types(rng, told, partitions)
    minor = rng.choice([-1, 2**53, 2**64, 10**30, 1.5, "100", True, None, [], {"minor": 1}])
    told.data["amount"] = {"minor": minor, "currency": "USD"}
    return told.spoilt(partitions, told.text(), "not_json", "invalid_field")


def _nested(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    deep = rng.choice([500, 5_000, 50_000])
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    whole = opened * deep + b"1" + closed * deep
    if rng.random() < 0.5:
        return told.spoilt(
            partitions, whole if rng.random() < 0.5 else opened * deep, "not_json", "not_cloudevent", "too_large"
        )
    told.data["unknown"] = "@"
    value = told.text().replace(b'"@"', whole)
    reasons = () if deep == 500 else ("not_json", "too_large")
    return told.spoilt(partitions, value, *reasons)


def _types(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    wrong = rng.choice(
        [None, 7, -1.5, True, [], {}, [[]], {"a": "b"}, "", "two words", "x" * 129, "é", "a\u0000b", "\u202e"]
    )
    name = rng.choice(["customer_id", "data", "id", "source", "specversion"])
    if name == "customer_id":
        told.data[name] = wrong
    elif name == "data":
        told.event["data"] = wrong if wrong != {} else []
    elif name != "specversion" and isinstance(wrong, str) and wrong:
        return told.right(partitions)  # any text is an id of an event, and a source
    else:
        told.event[name] = wrong
    return told.spoilt(partitions, told.text(), "invalid_field", "not_cloudevent")


def _times(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    wrong, reason = rng.choice(
        [
            ("2026-03-01T12:00:00", "time_without_offset"),
            ("2026-03-01", "invalid_field"),
            ("2026-02-30T12:00:00Z", "invalid_field"),
            ("0000-01-01T00:00:00Z", "invalid_field"),
            ("2026-03-01T25:00:00Z", "invalid_field"),
            ("2026-03-01T12:00:00+99:99", "invalid_field"),
            ("0001-01-01T00:00:00+14:00", "invalid_field"),
            ("9999-12-31T23:59:59-14:00", "invalid_field"),
            ("٢٠٢٦-03-01T12:00:00Z", "invalid_field"),
            ("9999-12-31T23:59:59Z", "time_in_future"),
            ("2222-01-01T00:00:00Z", "time_in_future"),
            (1, "invalid_field"),
            (None, "invalid_field"),
        ]
    )
    told.event["time"] = wrong
    return told.spoilt(partitions, told.text(), reason)


def _ages(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    """Right, and from the ends of time."""
    told.event["time"] = rng.choice(["0001-01-01T00:00:00Z", "0001-01-31T00:00:00.000001Z", "1969-12-31T23:59:59Z"])
    if told.topic == "customers":
        told.data["clicks"] = [
            {"code": "nobody", "clicked_at": rng.choice(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])}
        ]
    return told.right(partitions)


def _trials(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    if told.topic == "customers":
        told.event["type"] = rng.choice(["subscription.trial_started", "subscription.activated"])
        ends = rng.choice(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
        more = {"subscription_id": told.customer, "product_id": "x", "trial_ends_at": ends, "interval": "month"}
        told.data |= more
    return told.right(partitions)


def _strings(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    size = rng.choice([10_000, 100_000, 300_000, 900_000])
    told.data["provider" if told.topic == "payments" else "name"] = rng.choice(["x", "\u0000", "é", "😀"]) * size
    value = json.dumps(told.event, ensure_ascii=False).encode()[:1_000_000]
    if len(value) == 1_000_000 or len(value) > 262_144:
        return told.spoilt(partitions, value, "too_large")
    return told.spoilt(partitions, value)


def _twice(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    """A key that is there twice: the last one counts."""
    text = told.text()
    if rng.random() < 0.5:
        return told.spoilt(partitions, b'{"type": 7, "data": [], ' + text[1:])
    return told.spoilt(partitions, text[:-1] + b', "data": []}', "invalid_field")


def _unknown(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    told.event["type"] = rng.choice(["customer.danced", "x" * 10_000, "__class__", "payment.succeeded ", "\u0000"])
    return told.right(partitions)


def _elsewhere(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    """Of another topic, or one that only refstream writes."""
    right = told.right(partitions)
    others = [topic for topic in TOPICS if topic != told.topic]
    if rng.random() < 0.5:
        return replace(right, topic=rng.choice(others), dead=frozenset({"invalid_field"}))
    told.event["type"] = rng.choice(["tier.reached", "day.reached", "program.published", "command.verify_month"])
    return told.spoilt(partitions, told.text(), "invalid_field")


def _keys(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    right = told.right(partitions)
    wrong = rng.choice([b"", b"somebody", b"\xff\xfe", b"k" * 10_000, None, right.key])
    if wrong is None and told.topic == "profiles":
        wrong = b"\x00"  # a compacted topic takes no record without a key
    partition = rng.randrange(partitions)
    is_right = (wrong, partition) == (right.key, right.partition)
    return replace(right, key=wrong, partition=partition, put_back=not is_right)


def _nothing(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    """No value: on the compacted topic it forgets its key, elsewhere it is no JSON."""
    if told.topic != "profiles":
        return told.spoilt(partitions, None, "not_json")
    if rng.random() < 0.5:
        return told.spoilt(partitions, None)
    return replace(told.spoilt(partitions, None, "invalid_field"), key=rng.choice([b"\xff", b"two words", b"x" * 129]))


def _forged(rng: random.Random, told: _Told, partitions: int) -> Garbage:
    """The marks that refstream's own records carry, on a record that it did not write."""
    edges = (b"attribution.people:0", b"commission.sales:1", b"nobody", b"\xff")
    number = rng.choice([b"1", b"0", b"-1", b"999999999", b"x", b"", b"9" * 5_000])
    marks: list[Header] = [("refstream-edge", rng.choice(edges)), ("refstream-number", number)]
    return replace(told.right(partitions), headers=tuple(rng.sample(marks, rng.choice([1, 2]))))


def _headers(rng: random.Random) -> Iterator[Header]:
    match rng.randrange(8):
        case 0:
            yield "traceparent", rng.randbytes(20)
        case 1:
            yield "", None
        case 2:
            yield from ((f"h{n % 3}", b"x" * 100) for n in range(100))
        case 3:
            yield "reason", b"not_json"


MAKERS: tuple[Maker, ...] = (
    _bytes,
    _no_text,
    _numbers,
    _amounts,
    _nested,
    _types,
    _times,
    _ages,
    _trials,
    _strings,
    _twice,
    _unknown,
    _elsewhere,
    _keys,
    _nothing,
    _forged,
)
