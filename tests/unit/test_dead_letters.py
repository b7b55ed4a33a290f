"""Dead letters on the command line: what a list shows, and where a replay puts a record."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.dead_letters import Letter, LetterRefused, again, mended
from services.cli.main import app
from services.runtime.topic_log import Entry

SIGNUP = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "shop",
    "type": "customer.signed_up",
    "time": "2026-01-01T00:00:00",
    "data": {"customer_id": "c-1", "name": "Customer 1", "email": "customer1@shop.example"},
}


def _letter(
    value: Any,
    *,
    key: bytes | None = b"old",
    topic: str = "customers",
    partition: str = "3",
    reason: str = "time_without_offset",
) -> Letter:
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    told = {"reason": reason, "field": "time", "service": "attribution"}
    told |= {"topic": topic, "partition": partition, "offset": "17"}
    headers = tuple((name, text.encode()) for name, text in told.items())
    return Letter(Entry("dead-letters", 1, 5, 1_767_225_600_000, key, raw, headers))


def test_a_row_tells_why_and_where_from_but_nothing_personal() -> None:
    row = _letter(SIGNUP).row()
    assert row == {
        "position": "1:5",
        "dead_since": "2026-01-01T00:00:00Z",
        "reason": "time_without_offset",
        "field": "time",
        "service": "attribution",
        "topic": "customers",
        "partition": "3",
        "offset": "17",
        "about": "customer.signed_up c-1",
    }


@pytest.mark.parametrize(
    "value", [b"", b"no json", b"[1]", b"\xff\xfe", None, {"type": 3, "data": "x"}, {"data": {"customer_id": "a b"}}]
)
def test_a_record_that_cannot_be_read_still_has_a_row(value: Any) -> None:
    assert "a b" not in _letter(value).row()["about"]


def test_what_a_record_says_of_itself_cannot_move_the_cursor() -> None:
    assert "\x1b" not in _letter({"type": "\x1b[2Jx", "data": {}}).row()["about"]


def test_a_record_that_was_too_large_is_not_replayed_from_an_empty_letter() -> None:
    large = _letter(None, key=None, reason="too_large")
    with pytest.raises(LetterRefused, match="customers 3:17"):
        again(large)


def test_a_replay_keeps_the_record_and_takes_the_key_from_its_id() -> None:
    record = again(_letter(SIGNUP))
    assert (record.topic, record.key, record.value) == ("customers", b"c-1", json.dumps(SIGNUP).encode())


@pytest.mark.parametrize(
    "value", [b"no json", SIGNUP | {"data": {"customer_id": "a b"}}, SIGNUP | {"type": "new.kind"}]
)
def test_without_a_readable_id_the_old_key_stays(value: Any) -> None:
    assert again(_letter(value)).key == b"old"


def test_without_any_key_it_goes_where_it_stood() -> None:
    record = again(_letter(b"no json", key=None))
    assert (record.key, record.partition) == (None, 3)


@pytest.mark.parametrize("topic", ["sales", "commands.payouts", "referrals", "", "nowhere"])
def test_what_refstream_alone_writes_is_not_replayed(topic: str) -> None:
    with pytest.raises(LetterRefused):
        again(_letter(SIGNUP, topic=topic))


def test_a_mended_record_is_checked_and_published_under_its_own_key(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(SIGNUP | {"time": "2026-01-01T00:00:00Z"}, indent=1))
    assert mended(_letter(SIGNUP), file).key == b"c-1"
    file.write_text(json.dumps(SIGNUP))
    with pytest.raises(LetterRefused, match="time: a time needs an offset"):
        mended(_letter(SIGNUP), file)
    file.write_text(json.dumps(SIGNUP | {"time": "2026-01-01T00:00:00Z"}))
    with pytest.raises(LetterRefused, match="belongs on customers, but the record came from payments"):
        mended(_letter(SIGNUP, topic="payments"), file)
    with pytest.raises(LetterRefused, match="No such file"):
        mended(_letter(SIGNUP), tmp_path / "absent")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "name positions, or --all"),
        (("0:1", "--all"), "name positions, or --all"),
        (("0:1", "--reason", "not_json"), "go with --all"),
        (("--all", "--file", "x"), "mends exactly one"),
    ],
)
def test_a_replay_that_is_not_clear_is_refused(arguments: tuple[str, ...], fault: str) -> None:
    result = CliRunner().invoke(app, ["dead-letters", "replay", *arguments])
    assert result.exit_code == 2
    assert fault in " ".join(result.stderr.replace("│", " ").split())


def test_a_position_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REFSTREAM_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["dead-letters", "show", "seven"])
    assert result.exit_code == 1
    assert "'seven' is no position" in result.stderr
