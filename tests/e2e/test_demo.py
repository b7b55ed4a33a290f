"""The demo as a user runs it: a whole stack, every figure as promised, and what the other commands then tell of it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.infra]

Refstream = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def refstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refstream]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
    environment |= {"REFSTREAM_DATA_DIR": str(tmp_path_factory.mktemp("demo")), "REFSTREAM_PORT": "0"}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    yield run
    run("down")


@pytest.fixture(scope="module")
def played(refstream: Refstream, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a small demo printed. It starts the stack, and leaves it running."""
    file = tmp_path_factory.mktemp("data") / "events.jsonl"
    result = refstream("demo", "--customers", "150", "--seed", "4", "--data", str(file))
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(file.read_text().splitlines()) > 500
    return result.stdout


def _run_of(printed: str) -> str:
    found = re.search(r"refstream explain (\w+)\.", printed)
    assert found is not None
    return found[1]


def test_every_figure_is_as_promised(played: str) -> None:
    assert "Every figure is as promised, to the cent." in played
    assert "differs" not in played.lower()
    assert "events/s" in played
    programs = ("keycrm", "jupsoft", "proxy-credits", "message-help", "active-referrals")
    assert [name for name in programs if re.search(rf"^{name}\b.*, partners", played, re.MULTILINE)] == list(programs)
    assert "\x1b" not in played  # no terminal: plain lines


def test_it_ends_with_links_that_sign_in(played: str) -> None:
    links = re.findall(r"http://\S+/portal/enter\?token=\S+", played)
    shown = [httpx.get(link, follow_redirects=False, trust_env=False).headers["location"] for link in links]
    assert shown == ["/portal", "/admin"]
    partner = httpx.Client(follow_redirects=True, trust_env=False).get(links[0])
    assert partner.status_code == 200
    assert "/portal/keycrm/start" in str(partner.url) or "/portal/jupsoft/start" in str(partner.url)


def test_it_runs_again_on_the_same_stack_with_ids_of_its_own(played: str, refstream: Refstream) -> None:
    again = refstream("demo", "--customers", "100", "--seed", "4")
    assert again.returncode == 0, again.stdout + again.stderr
    assert _run_of(again.stdout) != _run_of(played)


def test_what_it_tells_to_explain_can_be_explained(played: str, refstream: Refstream) -> None:
    names = re.findall(r"refstream explain (\S+)", played)
    assert len(names) == 9
    result = refstream("explain", names[0])
    assert result.returncode == 0, result.stderr
    assert "Records\n" in result.stdout
    for name in names:
        result = refstream("explain", name, "--json")
        assert result.returncode == 0, result.stderr
        assert "@" not in result.stdout
        told = json.loads(result.stdout)
        assert told["id"] == name
        assert told["found"][0]["records"]


def test_ids_of_commissions_withdrawals_and_refunds_are_found_on_the_log(played: str, refstream: Refstream) -> None:
    payment_id = re.findall(r"refstream explain (\S+\.p\d+)", played)[0]
    decision = json.loads(refstream("explain", payment_id, "--json").stdout)["found"][0]["facts"]["decision"]
    for name in (decision["commission_id"], decision["inputs"]["refunds"][0]["refund_id"]):
        assert payment_id in refstream("explain", name).stdout
    partner_id = re.findall(r"(\S+) withdrew", played)[0]
    records = json.loads(refstream("explain", partner_id, "--json").stdout)["found"][0]["records"]
    withdrawal_id = next(r["data"]["withdrawal_id"] for r in records if r["type"] == "withdrawal.requested")
    assert "paid." in refstream("explain", withdrawal_id).stdout


def test_an_unknown_id_is_an_error(played: str, refstream: Refstream) -> None:
    result = refstream("explain", "nobody-has-this-id")
    assert result.returncode == 1
    assert "names nothing that is known here" in result.stderr


def test_another_document_is_compared_with_what_was_earned(played: str, refstream: Refstream, tmp_path: Path) -> None:
    file = tmp_path / "keycrm.json"
    file.write_text(refstream("programs", "show", "keycrm").stdout)
    assert refstream("whatif", "--program", str(file)).stdout.endswith("nobody would have more or less\n")
    document = json.loads(file.read_text())
    for tier in document["terms"][0]["tiers"]:
        tier["rate"] = "0.5"
    file.write_text(json.dumps(document))
    rows = json.loads(refstream("whatif", "--program", str(file), "--json").stdout)["partners"]
    assert all(0 < row["had"] < row["would_have"] for row in rows)
    for row in rows:
        found = json.loads(refstream("explain", row["partner_id"], "--no-records", "--json").stdout)["found"]
        balances = next(each["facts"]["balances"] for each in found if "balances" in each["facts"])
        (balance,) = (each for each in balances if each["program_id"] == "keycrm")
        assert balance["accrued"]["minor"] - balance["reversed"]["minor"] == row["had"], row


def test_dead_letters_are_listed_shown_and_replayed(played: str, refstream: Refstream, tmp_path: Path) -> None:
    rows = json.loads(refstream("dead-letters", "list", "--json").stdout)
    own = [row for row in rows if _run_of(played) in row["about"]]
    assert [row["reason"] for row in own] == ["conflicting_repeat"] * 3
    position = own[0]["position"]
    shown = json.loads(refstream("dead-letters", "show", position, "--json").stdout)
    file = tmp_path / "record.json"
    file.write_text(refstream("dead-letters", "show", position, "--raw").stdout)
    assert file.read_text() == shown["value"]
    assert refstream("dead-letters", "replay", position).stdout == "published 1 records again\n"
    assert refstream("dead-letters", "replay", position, "--file", str(file)).returncode == 0
    assert refstream("dead-letters", "replay", "--all", "--reason", "not_json").stdout == "published 0 records again\n"
    assert refstream("dead-letters", "show", "0:999999").returncode == 1
