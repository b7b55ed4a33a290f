"""`refstream programs`: documents in files, and the real publication behind the real API."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from schemas.programs import SHIPPED, shipped
from schemas.programs import differences as program_diff
from schemas.programs.terms import Program
from services.attribution.api import create_app
from services.cli import programs
from services.cli.main import app as refstream
from services.cli.program_file import DocumentRefused, read_program
from services.runtime.http import Commands, Resources
from services.runtime.metrics import Metrics
from tests.attribution_bench import Bench
from tests.http_fakes import bearer, settings
from tests.journey import GOLDEN
from tests.worlds import EXAMPLES

ROOT = Path(__file__).parents[2]
(EXAMPLE,) = EXAMPLES
DOCUMENT: dict[str, Any] = json.loads(EXAMPLE.read_text())
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Attribution in memory, with the shipped programs published, for the commands to speak with."""
    made, own = Bench(), settings()
    spoken = Commands("attribution", own, made.reader, made.write, Metrics("api"), wait_seconds=0.3)
    api = create_app(own, Resources(own, made.reader, made.feed, spoken), made.write)

    def connect(url: str | None, token: str | None) -> TestClient:
        return TestClient(api, headers=bearer(token or "admin", "admin"))

    monkeypatch.setattr(programs, "connect", connect)
    with TestClient(api, headers=bearer("admin", "admin")) as client:
        for program in shipped():
            put = client.put(f"/attribution/programs/{program.program_id}", json=program.as_document())
            assert put.status_code == 200
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.json"


def run(*arguments: str | Path, stdin: str = "") -> Any:
    return CliRunner().invoke(refstream, ["programs", *map(str, arguments)], input=stdin)


def written(file: Path, change: Change = lambda document: None, of: dict[str, Any] = DOCUMENT) -> Path:
    document = json.loads(json.dumps(of))
    change(document)
    file.write_text(json.dumps(document, indent=2))
    return file


def faults(file: Path, text: str) -> list[tuple[int, str]]:
    """Line and field of everything that is wrong with a text."""
    file.write_text(text)
    with pytest.raises(DocumentRefused) as refused:
        read_program(file)
    return [(fault.line, fault.field) for fault in refused.value.faults]


def _set(*path: str | int, to: Any) -> Change:
    def change(document: Any) -> None:
        *steps, last = path
        for step in steps:
            document = document[step]
        document[last] = to

    return change


# --- the documents there are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_valid_is_named_after_its_program_and_has_a_journey(path: Path) -> None:
    checked = run("validate", path)
    assert checked.exit_code == 0, checked.output
    assert read_program(path).program.program_id == path.stem
    assert path.stem not in SHIPPED
    assert (GOLDEN / "examples" / f"{path.stem}.jsonl").exists()


def test_the_page_about_an_own_program_shows_the_document_and_its_journey_as_they_are() -> None:
    page = (ROOT / "docs" / "your-own-program.md").read_text()
    assert EXAMPLE.read_text().strip() in page
    journey = (GOLDEN / "examples" / f"{EXAMPLE.stem}.jsonl").read_text().splitlines()
    quoted = [line for line in page.splitlines() if line.startswith(('{"in"', '{"out"', '{"balance"'))]
    assert len(quoted) > 5
    assert [line for line in quoted if line not in journey] == []
    tiers = [*DOCUMENT["terms"][0]["tiers"], {"from_clients": 10, "rate": "0.30"}]
    next_version = program_diff.differences(_with(), _with(_set("terms", 0, "tiers", to=tiers)))
    assert "\n".join(program_diff.told(next_version)) in page


# --- validate -------------------------------------------------------------------------------------------------------


def test_every_fault_names_its_line_its_field_and_a_cure(file: Path) -> None:
    file.write_text(
        """{
  "program_id": "my program",
  "enabld": true,
  "timezone": "UTC",
  "currency": "usd",
  "attribution": {
    "model": "last_klick"
  },
  "terms": [
    {
      "kind": "share",
      "tiers": [
        {"from_clients": 1, "rate": 0.25},
        {"from_clients": 5, "rate": "1.5"}
      ],
      "windw": {"months": 24}
    },
    {"kind": "shares"},
    {}
  ],
  "payouts": {"minimums": [
    {"minor": 0, "currency": "USD"}
  ]}
}"""
    )
    checked = run("validate", file)
    assert checked.exit_code == 1
    says = [line.removeprefix(f"{file}:") for line in checked.stderr.splitlines()]
    assert says == [
        "1: enabled: is missing: add it",
        '2: program_id: "my program" will not do: write 1 to 128 of letters, digits and ._:@-',
        "3: enabld: no such field here: did you mean enabled?",
        '5: currency: "usd" will not do: write an ISO 4217 code in capitals, like "USD"',
        "6: attribution.default_destination: is missing: "
        "add it (where a link leads when the partner names nothing else)",
        "7: attribution.model: \"last_klick\" will not do: write 'first_click' or 'last_click'",
        '13: terms.0.tiers.0.rate: write a decimal as text, like "0.20"',
        '14: terms.0.tiers.1.rate: "1.5" will not do: write 1 or less',
        "16: terms.0.windw: no such field here: did you mean window?",
        "18: terms.1: 'shares' is no kind of terms: did you mean share?",
        '19: terms.2: say which "kind" of terms this is: credits, integrator_account, monthly_discount, retention, '
        "share, signup_bonus, welcome_bonus",
        "22: payouts.minimums.0.minor: 0 will not do: write 1 or more",
        "1 of 1 documents are wrong",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{\n  "enabled": true,\n}', "3:1: is no JSON here: write the name of a field in double quotes"),
        ("{\n  'enabled': true}", "2:3: is no JSON here: write the name of a field in double quotes"),
        ('{\n  "enabled" true}', "2:13: is no JSON here: put a colon between"),
        ('{"a": 1\n "b": 2}', "2:2: is no JSON here: put a comma between"),
        ('{"a": [1,\n]}', "write a value"),
        ('{"a":\n yes}', "2:2: is no JSON here: write a value: text in double quotes"),
        ('{"a": "b\n"}', "1:9: is no JSON here: end the text with a double quote"),
        ("{} {}", "1:4: is no JSON here: the document ends before this"),
        ('{"a": NaN}', "holds what is no JSON: NaN"),
        ("[]", "1: write one JSON object"),
        ("[" * 100_000, "nested too deep"),
        ("", "1:1: is no JSON here: write a value"),
    ],
)
def test_what_is_no_json_is_shown_by_line_and_column_with_a_cure(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    checked = run("validate", file)
    assert checked.exit_code == 1
    # Python 3.13 points at the comma itself.
    assert says in checked.stderr or "no comma after the last one" in checked.stderr


def test_a_file_that_cannot_be_read_is_a_fault_and_no_traceback(file: Path) -> None:
    assert "cannot be read: No such file" in run("validate", file).stderr
    file.write_bytes(b'{"name":\n "\xff"}')
    assert f"{file}:2: is no UTF-8 text" in run("validate", file).stderr


def test_a_field_that_stands_twice_is_refused_at_its_second_line(file: Path) -> None:
    text = EXAMPLE.read_text().replace('"enabled": true,', '"enabled": true,\n  "enabled": false,')
    assert faults(file, text) == [(5, "enabled")]


def test_a_fault_of_the_whole_document_is_shown_at_the_field_it_is_about(file: Path) -> None:
    twice = json.dumps({**DOCUMENT, "terms": DOCUMENT["terms"] * 2}, indent=1)
    stands = next(number for number, line in enumerate(twice.splitlines(), 1) if '"terms"' in line)
    assert faults(file, twice) == [(stands, "terms")]


def test_lines_are_found_behind_escapes_and_brackets_inside_of_text(file: Path) -> None:
    text = r"""{"program_id": "x", "name": "a \"quoted\" {name}, [really]: \\",
"enabled": true, "currency": "EUR", "attribution": {"model": "last_click", "default_destination": "https://x.example"},
"terms": [{"kind": "share", "tiers": [{"from_clients": 1, "rate": "0.1"}], "window": null},
{"kind": "retention"},
{"kind": "signup_bonus", "methods": [], "amount": {"minor": 1, "currency": "EUR"}}], "payouts": {},
"time\u007aone": "Mars"}"""
    assert faults(file, text) == [(6, "timezone")]


def test_one_wrong_document_among_several_is_an_error_and_the_others_are_told(file: Path) -> None:
    written(file, _set("enabled", to="perhaps"))
    checked = run("validate", EXAMPLE, file)
    assert checked.exit_code == 1
    assert "a valid program, saas-affiliates (share, signup_bonus)" in checked.stdout
    assert 'enabled: "perhaps" will not do: write true or false' in checked.stderr


def test_a_version_in_the_file_is_not_looked_at(file: Path) -> None:
    assert run("validate", written(file, _set("version", to=0))).exit_code == 0


# --- diff -----------------------------------------------------------------------------------------------------------


def _with(*changes: Change) -> Program:
    document = json.loads(json.dumps(DOCUMENT))
    for change in changes:
        change(document)
    return Program.model_validate(document)


def test_a_tier_put_in_between_changes_nothing_else() -> None:
    def tiers(*steps: tuple[int, str]) -> Change:
        return _set("terms", 0, "tiers", to=[{"from_clients": n, "rate": rate} for n, rate in steps])

    found = program_diff.differences(
        _with(tiers((1, "0.25"), (50, "0.40"))), _with(tiers((1, "0.25"), (10, "0.30"), (50, "0.40")))
    )
    assert [each.told() for each in found] == [
        'terms[kind=share].tiers[from_clients=10].rate  nothing → "0.30"',
    ]


def test_terms_in_another_order_and_defaults_written_out_are_no_difference() -> None:
    turned = _set("terms", to=DOCUMENT["terms"][::-1])
    assert program_diff.differences(_with(), _with(turned, _set("payouts", "withdrawals", to=True))) == []
    assert program_diff.differences(_with(), _with(_set("version", to=7))) == []


def test_terms_that_come_and_go_are_shown_field_by_field() -> None:
    found = program_diff.differences(_with(), _with(_set("terms", to=[DOCUMENT["terms"][0], {"kind": "retention"}])))
    assert [each.told() for each in found] == [
        'terms[kind=retention].kind  nothing → "retention"',
        "terms[kind=signup_bonus].amount.minor  1000 → nothing",
        'terms[kind=signup_bonus].amount.currency  "USD" → nothing',
        'terms[kind=signup_bonus].methods  ["promo_code"] → nothing',
    ]


def test_two_files_are_compared_without_a_stack(file: Path) -> None:
    written(file, _set("attribution", "window_days", to=90))
    shown = run("diff", file, EXAMPLE)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [f"{EXAMPLE} → {file}", "  attribution.window_days  60 → 90"]
    assert run("diff", file, EXAMPLE, "--exit-code").exit_code == 1
    assert "say the same" in run("diff", EXAMPLE, EXAMPLE, "--exit-code").stdout


def test_versions_and_files_are_compared_with_what_is_published(bench: Bench, file: Path) -> None:
    keycrm: dict[str, Any] = json.loads(run("show", "keycrm").stdout)
    for months in (18, 24):
        written(file, _set("terms", 0, "window", "months", to=months), keycrm)
        assert run("publish", file, "--yes").exit_code == 0
    line = "  terms[kind=share].window.months  {} → {}"
    assert run("diff", "keycrm").stdout.splitlines() == ["keycrm version 2 → keycrm version 3", line.format(18, 24)]
    assert line.format(12, 24) in run("diff", "keycrm", "--version", "1").stdout
    assert line.format(12, 18) in run("diff", "keycrm", "--version", "1", "--to", "2").stdout
    assert line.format(12, 24) in run("diff", file, "--version", "1").stdout
    assert "say the same" in run("diff", file).stdout
    assert '"keycrm"' in run("diff", file, "jupsoft").stdout
    told = json.loads(run("diff", "keycrm", "--json").stdout)
    assert told == [{"field": "terms[kind=share].window.months", "old": 18, "new": 24}]


def test_what_cannot_be_compared_is_told(bench: Bench, file: Path) -> None:
    assert "jupsoft has one version" in run("diff", "jupsoft").stderr
    assert "no program saas-affiliates is published" in run("diff", EXAMPLE).stderr
    assert run("diff", EXAMPLE, "--to", "1").exit_code == 2
    assert "cannot be read" in run("diff", file).stderr


# --- list, show -----------------------------------------------------------------------------------------------------


def test_list_shows_every_program_with_version_and_terms(bench: Bench) -> None:
    rows = json.loads(run("list", "--json").stdout)
    assert [row["program_id"] for row in rows] == sorted(SHIPPED)
    assert rows[-1] == {
        "program_id": "proxy-credits",
        "version": 1,
        "enabled": True,
        "currency": "USD",
        "effective_at": None,
        "terms": ["credits"],
    }
    table = run("list").stdout
    assert "share, signup_bonus, integrator_account, welcome_bonus, retention" in table
    assert "the beginning" in table


def test_show_gives_a_document_that_can_be_edited_and_published(bench: Bench, file: Path) -> None:
    file.write_text(run("show", "jupsoft").stdout)
    assert run("validate", file).exit_code == 0
    again = run("publish", file, "--yes")
    assert "jupsoft version 1 says the same: nothing to publish" in again.stdout
    assert json.loads(run("show", "jupsoft", "--version", "1").stdout)["version"] == 1


def test_a_program_or_version_that_is_not_there_is_told_with_what_is(bench: Bench) -> None:
    for arguments, says in (
        (("show", "keycm"), "no program keycm is published; did you mean keycrm?"),
        (("show", "zzz"), "there are active-referrals, jupsoft, keycrm, message-help, proxy-credits"),
        (("show", "keycrm", "--version", "9"), "keycrm has no version 9; the latest is 1"),
        (("list", "--token", "platform"), "GET /attribution/programs was answered 403 forbidden"),
    ):
        answer = run(*arguments)
        assert answer.exit_code == 1
        assert says in answer.stderr
        assert answer.stdout == ""


def test_without_a_stack_there_is_nobody_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSTREAM_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("REFSTREAM_URL", raising=False)
    asked = run("list")
    assert asked.exit_code == 1
    assert "nobody to ask: start the local stack" in asked.stderr


# --- publish --------------------------------------------------------------------------------------------------------


def test_a_new_program_is_shown_asked_about_and_published(bench: Bench) -> None:
    asked = run("publish", EXAMPLE, stdin="y\n")
    assert asked.exit_code == 0, asked.output
    assert "saas-affiliates is a new program" in asked.stdout
    assert 'nothing → "0.25"' in asked.stdout
    assert "Publish version 1?" in asked.stdout
    assert "published saas-affiliates version 1: in force from the beginning" in asked.stdout
    latest = bench.programs.latest("saas-affiliates")
    assert latest == read_program(EXAMPLE).program


def test_a_next_version_tells_for_whom_it_holds(bench: Bench, file: Path) -> None:
    assert run("publish", EXAMPLE, "--yes").exit_code == 0
    written(file, _set("terms", 0, "window", "months", to=12))
    published = run("publish", file, "--yes").stdout
    assert "terms[kind=share].window.months  24 → 12" in published
    assert "version 2: it prices referrals made from now on; earlier ones keep their version" in published
    written(file, _set("effective_at", to="2099-01-01T00:00:00Z"))
    assert "referrals made from 2099-01-01T00:00:00Z on" in run("publish", file, "-y").stdout
    credits_off = {**shipped()[1].as_document(), "enabled": False}
    published = run("publish", written(file, of=credits_off), "--yes").stdout
    assert "it prices what happens from now on, also of earlier referrals" in published


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_nothing_is_published_without_a_yes(bench: Bench, answer: str) -> None:
    asked = run("publish", EXAMPLE, stdin=answer)
    assert asked.exit_code == 1
    assert "nothing published" in asked.stderr
    assert bench.programs.latest("saas-affiliates") is None


def test_a_wrong_document_is_told_before_anybody_is_asked(file: Path) -> None:
    answer = run("publish", written(file, _set("currency", to="usd")), "--yes")
    assert answer.exit_code == 1
    assert f"{file}:6: currency:" in answer.stderr


def test_what_only_the_publication_can_refuse_is_shown_at_its_line(bench: Bench, file: Path) -> None:
    written(file, _set("effective_at", to="2020-01-01T00:00:00Z"))
    stands = next(n for n, line in enumerate(file.read_text().splitlines(), 1) if "effective_at" in line)
    answer = run("publish", file, "--yes")
    assert answer.exit_code == 1
    assert f"{file}:{stands}: effective_at: A version cannot take effect in the past." in answer.stderr


def test_a_refusal_of_the_api_is_found_in_the_file() -> None:
    asked = read_program(EXAMPLE)
    refused = asked.refused([{"field": "terms.0.window.months", "message": "no"}, {"field": "body", "message": "no"}])
    lines = EXAMPLE.read_text().splitlines()
    assert [(fault.field, fault.line) for fault in refused.faults] == [("terms.0.window.months", 19), ("body", 1)]
    assert '"months"' in lines[18]


def _answering(*answers: httpx.Response) -> tuple[programs.Api, list[str]]:
    """An API that gives these answers one after the other, and what it was asked."""
    left, asked = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        return left.pop(0)

    return programs.Api(lambda: httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer))), asked


def test_a_decision_that_takes_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PAUSE_SECONDS", 0)
    pending = httpx.Response(202, headers={"location": "/attribution/commands/cmd_1"})
    api, asked = _answering(pending, pending, httpx.Response(200, json={**DOCUMENT, "version": 4}))
    assert api.publish(read_program(EXAMPLE))["version"] == 4
    assert asked == ["PUT /attribution/programs/saas-affiliates", *["GET /attribution/commands/cmd_1"] * 2]
    monkeypatch.setattr(programs, "DECISION_SECONDS", -1)
    with pytest.raises(programs.ProgramsRefused, match="has not decided yet, and will"):
        _answering(pending)[0].publish(read_program(EXAMPLE))


def test_an_api_in_trouble_is_told_with_its_own_words() -> None:
    problem = httpx.Response(503, json={"code": "rebuilding", "detail": "The state is being rebuilt."})
    with pytest.raises(
        programs.ProgramsRefused, match=r"GET /attribution/programs was answered 503 rebuilding The state"
    ):
        _answering(problem)[0].programs()
    with pytest.raises(programs.ProgramsRefused, match="answered 502"):
        _answering(httpx.Response(502, text="<html>"))[0].find("keycrm")


def test_all_pages_of_a_list_are_read() -> None:
    pages = [
        {"items": [{"program_id": "b"}], "next_cursor": "c"},
        {"items": [{"program_id": "a"}], "next_cursor": None},
    ]
    api, asked = _answering(*(httpx.Response(200, json=page) for page in pages))
    assert [document["program_id"] for document in api.programs()] == ["a", "b"]
    assert len(asked) == 2
