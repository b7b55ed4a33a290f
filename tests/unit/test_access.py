"""Who may do what follows from the contract: nobody has more than that, and everything has somebody."""

import re
import stat
from pathlib import Path

import pytest

from schemas.topics import DEAD_LETTERS, JOURNALS, TOPICS, Topic
from services.cli.access import KAFKA_ACLS, LOOKING, PAGE, REDIS_ACL, principals
from services.runtime import redis_reader
from services.runtime.settings import Settings

EVERYBODY = {principal.name: principal for principal in principals()}
WORKERS = {name: principal for name, principal in EVERYBODY.items() if name.endswith("-worker")}
INSIDE = {name: principal for name, principal in EVERYBODY.items() if name.endswith(("-worker", "-api"))}


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_is_written_by_its_one_writer_and_those_who_put_its_records_back(topic: Topic) -> None:
    writers = {name for name, principal in INSIDE.items() if topic.name in principal.may("Write")}
    if topic is DEAD_LETTERS:
        assert writers == set(WORKERS)
    elif topic.from_outside:
        assert writers == {f"{topic.first_reader.split('.')[0]}-worker"}
    else:
        role = "api" if topic.first_reader else "worker"
        assert writers == {f"{topic.writer}-{role}"}


def test_a_journal_is_read_by_its_own_worker_and_the_operator_alone() -> None:
    for stage, journal in JOURNALS.items():
        readers = {name for name, principal in EVERYBODY.items() if journal.name in principal.may("Read")}
        assert readers == {f"{stage.split('.')[0]}-worker", "operator"}


def test_an_api_changes_no_state_and_reads_no_topic_but_the_programs() -> None:
    for name, principal in INSIDE.items():
        if name.endswith("-api"):
            assert principal.may("Read") == ["programs"]
            assert principal.may("Read", "group") == []
            on_cells = " ".join(rule for rule in principal.redis if not rule.startswith("("))
            assert not re.search(r"\+(hset|hdel|set|del|unlink|evalsha|script)", on_cells)
            assert f"%R~{{{name.removesuffix('-api')}.*}}:*" in principal.redis


def test_an_api_may_ask_for_whatever_its_reader_asks_for() -> None:
    source = Path(redis_reader.__file__).read_text(encoding="utf-8")
    asked = set(re.findall(r'"(H[A-Z]+)"', source))
    assert "HGET" in asked
    assert asked <= {command.upper() for command in LOOKING}


def test_no_user_has_a_category_of_commands_or_one_that_looks_through_all_keys_but_who_empties_cells() -> None:
    for principal in EVERYBODY.values():
        rules = " ".join(principal.redis)
        assert "@" not in rules
        assert not re.search(r"\+(keys|flush|config|acl)", rules)
        assert ("+scan" in rules) == (principal.name == "operator" or principal.name.endswith("-worker"))


def test_the_shipped_files_hold_no_password_and_the_script_runs() -> None:
    assert ">" not in REDIS_ACL.read_text()
    assert "password" not in KAFKA_ACLS.read_text().replace("Users and passwords", "")
    assert KAFKA_ACLS.stat().st_mode & stat.S_IXUSR


def test_the_page_names_every_principal_and_only_settings_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in EVERYBODY:
        assert f"| `{name}` |" in page
    known = {f"REFSTREAM_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"REFSTREAM_[A-Z_]+", page)) <= known
