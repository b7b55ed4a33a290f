"""A partner's pages over the real APIs in memory: what they show, what their forms do, and what they refuse."""

import csv
import html
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest

from schemas import events
from schemas.moments import DAY, format_instant, micros
from schemas.money import Money
from services.portal.client import ApiRefused
from services.portal.partner import ORDER
from services.portal.partner import PAGES as PAGES_BY_NAME
from services.portal.referrals import ROWS
from services.portal.visit import Form
from services.portal.words import NARROW, Words
from tests.four_apis import FOREIGN, OWN
from tests.http_fakes import settings
from tests.portal.in_memory import Browser, Pages
from tests.portal.in_memory import pages as in_memory

PAGES = [
    ("keycrm", "start"), ("keycrm", "referrals"), ("keycrm", "payouts"), ("keycrm", "statistics"),
    ("jupsoft", "payouts"), ("message-help", "payouts"), ("message-help", "clients"),
    ("proxy-credits", "store"), ("active-referrals", "companies"),
]  # fmt: skip


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with in_memory() as opened:
        yield opened


@pytest.mark.parametrize(("program_id", "name"), PAGES)
@pytest.mark.parametrize("language", ["en", "uk"])
def test_every_page_is_shown(pages: Pages, program_id: str, name: str, language: str) -> None:
    shown = pages.browser(OWN, language=language).get(f"/portal/{program_id}/{name}")
    assert shown.status_code == 200
    assert f'<html lang="{language}">' in shown.text
    assert shown.text.count("<h1>") == 1


def test_the_menu_holds_what_the_program_has_in_order(pages: Pages) -> None:
    assert set(ORDER) == set(PAGES_BY_NAME)
    browser = pages.browser(OWN)
    for program_id, names in {
        "keycrm": ["start", "referrals", "payouts", "statistics"],
        "proxy-credits": ["start", "referrals", "statistics", "store"],
        "message-help": ["start", "referrals", "payouts", "statistics", "clients"],
        "active-referrals": ["start", "referrals", "statistics", "companies"],
    }.items():
        menu = re.findall(r'<nav class="menu".*?</nav>', browser.get(f"/portal/{program_id}/start").text, re.DOTALL)[0]
        assert re.findall(rf'href="/portal/{program_id}/(\w+)"', menu) == names


@pytest.fixture
def own(pages: Pages) -> Browser:
    return pages.browser(OWN)


def test_a_link_and_a_code_are_made(own: Browser) -> None:
    before = own.get("/portal/keycrm/start").text.count("data-copy")
    made = own.post("/portal/keycrm/start/links", destination="https://crm.example.com/pricing")
    assert made.status_code == 200
    assert made.text.count("data-copy") == before + 1
    assert "https://crm.example.com/pricing" in made.text
    assert "OWN-CODE" in own.post("/portal/keycrm/start/promo-codes", code="OWN-CODE").text
    taken = own.post("/portal/keycrm/start/promo-codes", code="own-code")
    assert taken.status_code == 409
    assert "This code is taken already" in taken.text
    elsewhere = own.post("/portal/keycrm/start/links", destination="https://elsewhere.example.com/")
    assert elsewhere.status_code == 422
    assert 'value="https://elsewhere.example.com/"' in elsewhere.text  # what was filled in is not lost


def test_a_form_that_is_sent_twice_is_one_command(own: Browser) -> None:
    shown = own.get("/portal/keycrm/payouts").text
    hidden = dict(re.findall(r'name="(form_token|key)" value="([^"]*)"', shown))
    sent = {**hidden, "amount": "1", "currency": "USD", "destination": "UA90 3052"}
    before = own.get("/portal/keycrm/payouts").text.count("withdrawals/wd_")
    for _ in range(2):
        assert own.http.post("/portal/keycrm/payouts/withdrawals", data=sent).status_code == 200
    assert own.get("/portal/keycrm/payouts").text.count("withdrawals/wd_") == before + 1


def test_a_withdrawal_is_asked_for_and_taken_back(own: Browser) -> None:
    asked = own.post("/portal/keycrm/payouts/withdrawals", amount="2,50", currency="USD", destination="UA90 3052")
    assert asked.status_code == 200
    cancel = re.findall(r'action="(/portal/keycrm/payouts/withdrawals/[^"]*/cancel)"', asked.text)[0]
    assert "taken back" in own.post(cancel, "/portal/keycrm/payouts").text
    too_much = own.post("/portal/keycrm/payouts/withdrawals", amount="999999", currency="USD", destination="UA90 3052")
    assert too_much.status_code == 409
    assert "There is not enough money" in too_much.text


def test_why_is_told_in_words_with_and_without_a_script(own: Browser) -> None:
    path = f"/portal/keycrm/payments/{OWN}-payment/why"
    part = own.get(path, headers={"hx-request": "true"}).text
    assert "5000.00 USD × 0.10 = 500.00 USD" in part
    assert "<html" not in part
    page = own.get(path).text
    assert "5000.00 USD × 0.10 = 500.00 USD" in page
    assert "<html" in page
    assert FOREIGN not in page
    signup = own.get(f"/portal/keycrm/referrals/{OWN}-client/why").text
    assert "First click within 7 days" in signup


def test_why_is_told_to_a_ukrainian_in_no_english(pages: Pages) -> None:
    payment, customer, now = f"{FOREIGN}-payment", f"{FOREIGN}-client", micros(settings().now())
    amount = Money(minor=100_000, currency="USD")
    back = events.PaymentRefunded(refund_id="r-1", payment_id=payment, customer_id=customer, amount=amount)
    pages.apis.happened(back, at=now - DAY // 4)
    partner, own, desk = f"partners/{FOREIGN}", "/portal/keycrm", "/admin"
    for role, api, page in (
        ("partner", f"/commission/{partner}/payments/{payment}/decision", f"{own}/payments/{payment}/why"),
        (
            "partner",
            f"/attribution/{partner}/referrals/{customer}/decision",
            f"/portal/keycrm/referrals/{customer}/why",
        ),
        ("admin", f"/commission/payments/{FOREIGN}-purchase/decision", f"{desk}/payments/{FOREIGN}-purchase"),
        ("admin", f"/attribution/customers/{customer}/decision", f"{desk}/customers/{customer}"),
    ):
        decision = pages.apis.call("GET", api, role, FOREIGN).json()
        assert decision["arithmetic"]
        shown = pages.browser(FOREIGN, role, "uk").get(page).text
        shown = shown[shown.index("<h2>") : shown.index("</dl>")]
        text = html.unescape(re.sub(r"<[^>]*>", " ", shown))
        assert set(re.findall(r"[A-Za-z]{2,}", text)) <= {*_names(decision)}, text


def _names(told: Any) -> Iterator[str]:
    """The words of every id, currency and time in a decision: what a platform called something is not translated."""
    if isinstance(told, dict):
        said = {"rule", "arithmetic", "reason", "reasons", "outcome", "method", "taken_as", "click_token"}
        for name, each in told.items():
            yield from () if name in said else _names(each)
    elif isinstance(told, list):
        for each in told:
            yield from _names(each)
    else:
        yield from re.findall(r"[A-Za-z]{2,}", str(told))


def test_lists_are_searched_and_saved_as_csv(own: Browser) -> None:
    assert f"{OWN}-client" in own.get("/portal/keycrm/referrals?search=CLIENT").text
    assert f"{OWN}-client/why" not in own.get("/portal/keycrm/referrals?search=nobody").text
    rows = list(csv.DictReader(io.StringIO(own.get("/portal/keycrm/payments.csv").text)))
    assert [(row["payment_id"], row["amount"], row["currency"]) for row in rows] == [
        (f"{OWN}-payment", "500.00", "USD")
    ]
    rows = list(csv.DictReader(io.StringIO(own.get("/portal/keycrm/referrals.csv").text)))
    assert [row["customer_id"] for row in rows] == [f"{OWN}-client"]
    assert own.get("/portal/keycrm/payouts/statement.csv").text.startswith("occurred_at,kind,program_id")


def test_older_referrals_are_a_page_further_and_no_cell_of_the_csv_is_a_formula(pages: Pages) -> None:
    browser, now = pages.browser(FOREIGN), micros(settings().now())
    browser.post("/portal/keycrm/start/promo-codes", code="MANY")
    many = {f"many-{number:02}" for number in range(ROWS + 2)}
    for each in many:
        signup = events.CustomerSignedUp(customer_id=each, name="=1+1", promo_code="MANY")
        pages.apis.happened(signup, at=now - DAY // 8)
    first = browser.get("/portal/keycrm/referrals?search=many-").text
    older = re.search(r'href="(\?after=[^"]*)"', first)
    assert older is not None
    second = browser.get(f"/portal/keycrm/referrals{html.unescape(older[1])}").text
    shown = [set(re.findall(r"referrals/(many-\d\d)/why", text)) for text in (first, second)]
    assert [len(each) for each in shown] == [ROWS, 2]
    assert shown[0] | shown[1] == many
    rows = csv.DictReader(io.StringIO(browser.get("/portal/keycrm/referrals.csv?search=many-").text))
    assert {row["customer_id"]: row["name"] for row in rows} == dict.fromkeys(many, "'=1+1")


def test_payouts_tell_the_way_to_the_next_rate(own: Browser) -> None:
    shown = html.unescape(own.get("/portal/keycrm/payouts").text)
    assert f"More clients to 20{NARROW}%: 5" in shown  # one of 6
    assert '<progress max="6" value="1"' in shown


def test_payouts_tell_when_pending_money_comes(pages: Pages) -> None:
    browser, customer, paid_at = pages.browser(FOREIGN), "held-client", micros(settings().now()) - DAY // 8
    browser.post("/portal/jupsoft/start/promo-codes", code="HELD")
    pages.apis.happened(events.CustomerSignedUp(customer_id=customer, promo_code="HELD"), at=paid_at - DAY // 8)
    pages.apis.happened(events.AccountCreated(customer_id=customer, account_id="held-a1"), at=paid_at - DAY // 8)
    amount = Money(minor=10_000, currency="USD")
    payment = events.PaymentSucceeded(payment_id="held-p1", customer_id=customer, account_id="held-a1", amount=amount)
    pages.apis.happened(payment, at=paid_at)
    shown = browser.get("/portal/jupsoft/payouts").text
    coming = shown[shown.index("When pending money comes") :]
    assert Words("en").day(format_instant(paid_at + 90 * DAY)) in coming[: coming.index("</ul>")]


def test_a_top_up_shows_what_it_is_worth_before(own: Browser) -> None:
    worth = own.get("/portal/keycrm/payouts/worth", params={"amount": "10", "currency": "USD"}).text
    assert "30.00" in worth  # 10 % and 20 points of the payment
    assert "not enough" in own.get("/portal/keycrm/payouts/worth", params={"amount": "9999", "currency": "USD"}).text
    done = own.post("/portal/keycrm/payouts/topups", amount="10", currency="USD", account_id=f"{OWN}-account")
    assert "Your account is topped up." in done.text


def test_a_test_card_is_charged_on_a_local_stack_alone(pages: Pages, own: Browser) -> None:
    page = "/portal/message-help/clients"
    made = own.post(f"{page}/deposits", page, deposit="20", currency="EUR", method="card")
    assert made.status_code == 200
    path = made.url.path
    assert "/deposits/" in path
    assert "test card" not in made.text
    assert own.post(f"{path}/test-card", path).status_code == 404
    pages.app.state.settings = settings(local=True)
    foreign = f"{page}/deposits/{pages.ids[FOREIGN]['deposit_id']}/test-card"
    assert own.post(foreign, path).status_code == 404
    charged = own.post(f"{path}/test-card", path)
    assert "The card was charged." in charged.text
    assert "received" in charged.text


def test_the_streams_first_word_is_what_has_changed_since_the_page(own: Browser) -> None:
    shown = own.get("/portal/keycrm/start").text
    address = re.findall(r'data-live="([^"]*)"', shown)[0]
    assert re.fullmatch(r"/portal/keycrm/start/live\?seen=[0-9a-f]{16}", address)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("50", "USD", 5000), ("49.90", "USD", 4990), ("49,9", "USD", 4990), ("1 234,50", "USD", 123450),
        ("1,234.50", "USD", 123450), ("1.234.567,8", "EUR", 123456780), ("1'000", "USD", 100000), ("1250", "JPY", 1250),
        ("1.234", "KWD", 1234), ("0.01", "USD", 1),
    ],
)  # fmt: skip
def test_amounts_are_read_as_people_write_them(text: str, currency: str, minor: int) -> None:
    assert Form({"amount": text}, {}).money("amount", currency) == {"minor": minor, "currency": currency}


@pytest.mark.parametrize(
    ("text", "currency"),
    [("", "USD"), ("1,234", "USD"), ("1.2.3", "USD"), ("-5", "USD"), ("5 USD", "USD"), ("1e3", "USD"), ("٣", "USD"),
     ("12.5", "JPY"), ("1,23,4.50", "USD"), ("12.345", "USD")],
)  # fmt: skip
def test_an_amount_that_could_mean_two_things_is_refused(text: str, currency: str) -> None:
    with pytest.raises(ApiRefused):
        Form({"amount": text}, {}).money("amount", currency)
