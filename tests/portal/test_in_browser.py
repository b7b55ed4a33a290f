"""Each page's main path in a real Chromium, against a running refstream with the demo's data."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from services.cli.token import Role, sign_in_link
from tests.portal.conftest import PATIENCE_MS, Played, Visitor, Visitors

pytestmark = [pytest.mark.infra, pytest.mark.browser]

SECONDS_TO_SHOW = 2.0
expect.set_options(timeout=PATIENCE_MS)


def _new(name: str) -> str:
    return f"{name}-{os.urandom(4).hex()}"


def _arrives(page: Page, text: str) -> float:
    """Seconds until a text stands in a page's figures."""
    began = time.monotonic()
    expect(page.locator("[data-live]")).to_contain_text(text)
    return time.monotonic() - began


def _activate(page: Page, program: str) -> None:
    """Take part in the program whose card says a text."""
    card = page.locator("section", has_text=program)
    card.get_by_role("checkbox").check()
    card.get_by_role("button", name="Activate").click()


def _create_code(page: Page, code: str) -> None:
    page.get_by_label("The code you wish for").fill(code)
    page.get_by_role("button", name="Create the code").click()
    expect(page.locator(".codes")).to_contain_text(code)


def test_from_activation_to_a_paid_withdrawal(visitors: Visitors, played: Played) -> None:
    anna, bob = _new("anna"), _new("bob")
    played.person(anna)
    partner = visitors.partner(anna)
    page = partner.page
    _activate(page, "Tiered share")
    expect(page.get_by_role("status").filter(has_text="You take part now")).to_be_visible()
    page.get_by_role("button", name="Create the link").click()
    expect(page.locator("svg.qr")).to_be_visible()
    link = page.locator("#link-1").inner_text()
    partner.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == link
    page.get_by_label("The code you wish for").fill(bob.upper())
    page.get_by_role("button", name="Create the code").click()
    expect(page.locator(".codes")).to_contain_text(bob.upper())

    token = visitors.somebody().follow(link)

    partner.look("/portal/keycrm/referrals")
    played.person(bob, "Bob the Builder", click_token=token)
    _arrives(page, "Bob the Builder")
    partner.look("/portal/keycrm/payouts")
    page.wait_for_timeout(1500)  # the stream is open
    played.publish(
        "payment.succeeded", payment_id=f"{bob}-p1", customer_id=bob, amount={"minor": 100_000, "currency": "USD"}
    )
    assert _arrives(page, "100.00") < SECONDS_TO_SHOW

    page.get_by_label("Amount").first.fill("60")
    page.get_by_label("To which bank account").fill("UA903052992990004149")
    page.get_by_label("Comment").fill("for <b>coffee</b>")
    page.get_by_role("button", name="Ask for the money").click()
    expect(page.locator("[data-live]")).to_contain_text("being processed")
    expect(page.locator("[data-live]")).to_contain_text("for <b>coffee</b>")
    page.get_by_label("Amount").first.fill("60")
    page.get_by_label("To which bank account").fill("UA903052992990004149")
    page.get_by_role("button", name="Ask for the money").click()
    expect(page.get_by_role("alert")).to_contain_text("not enough money")
    assert "409" in partner.faults.pop()  # Chromium notes every refused form in its console

    desk = visitors.admin()
    desk.look("/admin/queues")
    desk.page.locator("li", has_text=anna).get_by_role("checkbox").check()
    desk.page.get_by_role("button", name="The chosen ones are paid").click()
    expect(desk.page.get_by_role("status").filter(has_text="They are paid")).to_be_visible()
    expect(page.locator(".state.paid")).to_be_visible()  # it follows by itself


def test_why_is_told_in_a_dialogue_that_the_keyboard_opens_and_closes(visitors: Visitors, played: Played) -> None:
    partner = visitors.partner(f"{played.run}.partner01")
    page = partner.page
    page.get_by_role("link", name="Referrals").click()
    page.locator("#payments").wait_for()
    page.get_by_role("link", name="Why").last.focus()
    page.keyboard.press("Enter")
    dialogue = page.get_by_role("dialog")
    expect(dialogue).to_contain_text("Money was earned")
    expect(dialogue).to_contain_text("×")
    assert partner.violations() == []
    page.keyboard.press("Escape")
    expect(dialogue).to_be_hidden()


def test_statistics_count_a_click_of_today(visitors: Visitors, played: Played) -> None:
    partner = visitors.partner(f"{played.run}.partner01")
    page = partner.page
    link = page.locator("#link-1").inner_text()
    partner.look(page.url.removeprefix(played.url).replace("/start", "/statistics"))
    row = page.get_by_role("row", name="Clicks", exact=False).first
    before = int(row.locator("td").first.inner_text().replace(",", ""))
    visitors.somebody().follow(link)
    expect(row.locator("td").first).to_have_text(f"{before + 1}")
    page.get_by_label("From").fill("2026-01-01")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#period")).to_contain_text("1 Jan 2026")


def test_money_is_worth_more_in_the_own_account(visitors: Visitors, played: Played) -> None:
    anna, bob = _new("anna"), _new("bob")
    played.person(anna)
    partner = visitors.partner(anna)
    page = partner.page
    _activate(page, "Tiered share")
    _create_code(page, bob)
    played.person(bob, promo_code=bob)
    partner.look("/portal/keycrm/payouts")
    played.publish(
        "payment.succeeded", payment_id=f"{bob}-p1", customer_id=bob, amount={"minor": 10_000, "currency": "USD"}
    )
    _arrives(page, "10.00")
    page.locator("#topup-amount").fill("10")
    expect(page.locator("#worth")).to_contain_text("30.00")  # 10 % and 20 points of 100.00
    page.get_by_role("button", name="Top up").click()
    expect(page.get_by_role("status").filter(has_text="topped up")).to_be_visible()
    page.get_by_role("link", name="Statement", exact=True).click()
    expect(page.get_by_role("row", name="topped up")).to_contain_text("−10.00")


def test_credits_are_claimed_and_the_data_is_given(visitors: Visitors, played: Played) -> None:
    anna, bob = _new("anna"), _new("bob")
    played.person(anna)
    partner = visitors.partner(anna)
    page = partner.page
    _activate(page, "residential")
    page.get_by_role("button", name="Create the link").click()
    token = visitors.somebody().follow(page.locator("#link-1").inner_text())
    played.person(bob, "Bob", click_token=token)
    partner.look("/portal/proxy-credits/store")
    button = page.locator("form.row").first.get_by_role("button", name="Claim")
    expect(button).to_be_disabled()
    bought = {"product_family": "residential", "provider": "packetstream", "quantity_gb": "20"}
    amount = {"minor": 5_000, "currency": "USD"}
    played.publish("payment.succeeded", payment_id=f"{bob}-p1", customer_id=bob, amount=amount, **bought)
    _arrives(page, "credits earned")
    page.reload()
    expect(page.locator("form.row button:enabled").first).to_be_visible()
    page.locator("form.row button:enabled").first.click()
    expect(page.locator("[data-live]")).to_contain_text("data claimed")

    desk = visitors.admin()
    desk.look("/admin/queues")
    desk.page.locator("#claims ~ ul li", has_text=anna).locator("button[value=fulfilled]").click()
    expect(desk.page.get_by_role("status").filter(has_text="settled")).to_be_visible()
    _arrives(page, "data given")


def test_the_picture_follows_the_order_by_keyboard_and_by_dragging(visitors: Visitors, played: Played) -> None:
    partner = visitors.partner(f"{played.run}.companies1")
    page = partner.page
    page.get_by_role("link", name="Companies").click()
    names = page.locator(".order .name")
    rows = page.locator("#picture tbody th")
    before = names.all_inner_texts()
    assert len(before) > 1 and rows.all_inner_texts() == before
    page.locator("[data-move='1']").first.focus()
    page.keyboard.press("Enter")
    moved = [before[1], before[0], *before[2:]]
    expect(names).to_have_text(moved)
    expect(rows).to_have_text(moved)
    page.locator(".order li").nth(0).drag_to(page.locator(".order li").nth(1), target_position={"x": 40, "y": 40})
    expect(names).to_have_text(before)
    expect(rows).to_have_text(before)
    page.locator("[data-move='1']").first.click()
    page.get_by_role("button", name="Save the order").click()
    expect(page.get_by_role("status").filter(has_text="saved")).to_be_visible()
    page.wait_for_timeout(500)
    page.reload()
    expect(names).to_have_text(moved)
    expect(page.locator("[aria-labelledby=past]")).to_contain_text("discount assigned")


def test_a_partner_pays_in_pays_for_a_client_and_claims_one(visitors: Visitors, played: Played) -> None:
    anna, client, old = _new("anna"), _new("client"), _new("old")
    for each in (anna, client, old):
        played.person(each)
    partner = visitors.partner(anna)
    page = partner.page
    _activate(page, "integrators")
    partner.look("/portal/message-help/clients")
    _arrives(page, "Welcome bonus left")
    page.locator("#deposit").fill("500")
    page.get_by_label("By invoice").check()
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".printed")).to_contain_text("500.00")
    assert partner.violations() == []
    page.get_by_role("link", name="Clients", exact=True).click()
    page.locator("#deposit").fill("20")
    page.get_by_label("By card").check()
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="with the test card").click()
    expect(page.get_by_role("status").filter(has_text="charged")).to_be_visible()

    desk = visitors.admin()
    desk.look("/admin/queues")
    desk.page.locator("#deposits ~ ul li", has_text=anna).get_by_role("button").click()
    _arrives(page, "520.00")

    page.locator("#customer").fill(client)
    page.locator("#list-price").fill("432")
    expect(page.locator("#price")).to_contain_text("280.80")  # 35 % off for the first client
    page.get_by_role("button", name="Pay", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="paid for")).to_be_visible()
    _arrives(page, "239.20")

    page.locator("#client").fill(old)
    page.get_by_label("How you support").fill("We set it up. <script>alert(1)</script>")
    page.get_by_role("button", name="Send the claim").click()
    expect(page.get_by_role("status").filter(has_text="sent")).to_be_visible()
    desk.look("/admin/queues")
    claim = desk.page.locator("#retention ~ ul li", has_text=anna)
    expect(claim).to_contain_text("<script>alert(1)</script>")
    claim.get_by_role("button", name="Approve").click()
    expect(desk.page.get_by_role("status").filter(has_text="partner's now")).to_be_visible()


def test_a_program_is_switched_off_and_a_new_rate_published(visitors: Visitors, played: Played) -> None:
    desk = visitors.admin()
    page = desk.look("/admin/programs/jupsoft")
    version = int(page.locator("[data-live] dd").last.inner_text())
    page.get_by_role("button", name="Switch it off").click()
    expect(page.locator("[data-live]")).to_contain_text("off")
    page.get_by_role("button", name="Switch it on").click()
    expect(page.locator("[data-live] dd").last).to_have_text(f"{version + 2}")
    rate = page.locator("[name='terms.0.tiers.0.rate']")
    wished = "0.06" if rate.input_value() == "0.05" else "0.05"
    rate.fill(wished)
    page.get_by_role("button", name="Show the difference").click()
    expect(page.get_by_role("row", name="rate")).to_contain_text(wished)
    assert desk.violations() == []
    page.get_by_role("button", name="Publish version").click()
    expect(page.locator("[data-live] dd").last).to_have_text(f"{version + 3}")


def test_dead_letters_are_played_again(visitors: Visitors, played: Played) -> None:
    desk = visitors.admin()
    page = desk.look("/admin/dead-letters")
    page.get_by_role("row", name="a repeat with other content").first.get_by_role("checkbox").check()
    before = page.locator("tbody tr").count()
    page.get_by_role("button", name="Play the chosen ones again").click()
    expect(page.get_by_role("status").filter(has_text="published again")).to_be_visible()
    _arrives(page, f"Dead letters now: {before + 1}")  # it contradicts still


def test_health_tells_lag_and_speed(visitors: Visitors, played: Played) -> None:
    desk = visitors.admin()
    page = desk.look("/admin/health")
    for service in ("attribution", "commission", "rewards", "payouts"):
        expect(page.get_by_role("region", name="Services").get_by_role("rowheader", name=service)).to_be_visible()
    expect(page.locator("#verified ~ div tbody")).to_contain_text("-")
    played.refstream("verify", "--service", "rewards")
    run = page.locator("#runs ~ div tbody tr", has_text="rewards")
    expect(run.locator("td").last).to_have_text("0")
    assert int(run.locator("td").nth(2).inner_text().replace(",", "")) > 0


def test_purchases_and_partners_lead_to_their_decisions(visitors: Visitors, played: Played) -> None:
    desk = visitors.admin()
    page = desk.look("/admin/purchases?program_id=keycrm&outcome=accrued")
    page.locator("tbody th a").first.click()
    expect(page.locator("main")).to_contain_text("Money was earned")
    page.get_by_role("link", name="Partner ").last.click()
    expect(page.locator("#balances")).to_be_visible()
    desk.look("/admin").get_by_label("Search by any id").fill(f"{played.run}.partner01")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="partner01").first).to_be_visible()


# --- everything that is true of every page --------------------------------------------------------------------------


def _partners_pages(played: Played) -> list[tuple[str, str]]:
    run = played.run
    return [
        (f"{run}.partner01", "/portal?choose"),
        *((f"{run}.messages1", f"/portal/message-help/{name}") for name in PAGES_OF_SHARES),
        (f"{run}.messages1", "/portal/message-help/clients"),
        (f"{run}.messages1", "/portal/message-help/payouts/statement"),
        (f"{run}.proxy1", "/portal/proxy-credits/store"),
        (f"{run}.companies1", f"/portal/{run}.active-referrals/companies"),
    ]


PAGES_OF_SHARES = ("start", "referrals", "payouts", "statistics")
DESK = ("", "/queues", "/programs", "/programs/message-help", "/partners", "/purchases", "/dead-letters", "/health")


def _looked_at(visitors: Visitors, played: Played, **context: Any) -> Iterator[tuple[Visitor, str]]:
    """A browser on each page in turn, and the page's path."""
    signed_in: dict[str, Visitor] = {}
    for sub, path in _partners_pages(played):
        if sub not in signed_in:
            signed_in[sub] = visitors.partner(sub, **context)
        signed_in[sub].look(path)
        yield signed_in[sub], path
        if path.endswith("/referrals"):
            why = signed_in[sub].page.locator("a[data-why]").first.get_attribute("href")
            signed_in[sub].look(f"{why}")
            yield signed_in[sub], "why"
    desk, partner = visitors.admin(**context), f"{played.run}.partner01"
    decision = desk.look("/admin/purchases?program_id=keycrm").locator("tbody th a").first.get_attribute("href")
    for path in (*DESK, f"/partners/{partner}", f"/search?q={partner}", f"{decision}".removeprefix("/admin")):
        desk.look(f"/admin{path}")
        yield desk, f"/admin{path}"
    for visitor, path in ((visitors.somebody(**context), "/portal/enter?token=old"), (desk, "/admin/nothing")):
        visitor.look(path)
        visitor.faults.clear()  # 401 and 404, which are meant
        yield visitor, path


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-GB"), ("dark", "uk-UA")])
def test_axe_finds_nothing_on_any_page(visitors: Visitors, played: Played, scheme: str, locale: str) -> None:
    found = {
        path: violations
        for visitor, path in _looked_at(visitors, played, color_scheme=scheme, locale=locale)
        if (violations := visitor.violations())
    }
    assert found == {}


def test_every_page_fits_into_360_pixels(visitors: Visitors, played: Played) -> None:
    widths = {
        path: visitor.page.evaluate("document.documentElement.scrollWidth")
        for visitor, path in _looked_at(visitors, played, viewport={"width": 360, "height": 700})
    }
    assert {path: width for path, width in widths.items() if width > 360} == {}


def test_the_keyboard_reaches_the_content_at_once(visitors: Visitors, played: Played) -> None:
    page = visitors.partner(f"{played.run}.messages1").page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_the_language_is_the_browsers_until_another_is_chosen(visitors: Visitors, played: Played) -> None:
    partner = visitors.partner(f"{played.run}.messages1", locale="uk-UA")
    page = partner.look("/portal/message-help/statistics?from=2026-01-01&to=2026-01-31")
    expect(page.locator("h1")).to_have_text("Статистика")
    page.get_by_role("link", name="English").click()
    expect(page.locator("h1")).to_have_text("Statistics")
    assert page.url.endswith("?from=2026-01-01&to=2026-01-31")


HOSTILE = ["<script>document.title='x'</script>", "\u202eevil\u202c name", "👩‍👩‍👧‍👦 🇺🇦", "long " * 2000]


def test_hostile_names_are_text(visitors: Visitors, played: Played) -> None:
    """A name may hold markup, turn the direction of writing, or never end."""
    anna = _new("anna")
    played.person(anna)
    partner = visitors.partner(anna)
    page = partner.page
    _activate(page, "Tiered share")
    _create_code(page, anna)
    partner.look("/portal/keycrm/referrals")
    for number, name in enumerate(HOSTILE):
        played.person(f"{anna}-{number}", name, promo_code=anna)
    for name in HOSTILE:
        _arrives(page, name.strip()[:200])
    assert page.title() == "Referrals · refstream"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert partner.violations() == []
    desk = visitors.admin()
    shown = desk.look(f"/admin/partners/{anna}").locator("[aria-labelledby=referrals]")
    for name in HOSTILE:
        expect(shown).to_contain_text(name.strip()[:200])
    assert desk.page.title() == "Partner · refstream"
    assert desk.violations() == []


def test_a_script_that_got_in_would_not_run_and_no_page_is_shown_in_a_frame(visitors: Visitors, played: Played) -> None:
    partner = visitors.partner(f"{played.run}.messages1")
    page = partner.page
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "document.title = 'run'";
        document.body.append(script);
        const image = document.createElement("img");
        image.setAttribute("onerror", "document.title = 'run'");
        image.src = "data:,";
        document.body.append(image);
    }""")
    with page.expect_event("console", lambda said: "frame" in said.text):
        page.evaluate("""() => {
            const frame = document.createElement("iframe");
            frame.src = "/portal?choose";
            document.body.append(frame);
        }""")
    assert "run" not in page.title().split()
    assert page.frames[-1].locator("main").count() == 0
    assert partner.faults and all("Content Security Policy" in fault for fault in partner.faults)
    partner.faults.clear()


def test_a_sign_in_link_stands_in_no_log(visitors: Visitors, played: Played) -> None:
    link = sign_in_link(played.settings, Role.partner, _new("logged"))
    page = visitors.somebody().page
    page.goto(link)
    expect(page.locator("h1")).to_be_visible()
    token = link.partition("token=")[2]
    assert token not in page.content() and token not in page.url
    told = {path.name: path.read_text(errors="replace") for path in played.logs.iterdir()}
    assert told.keys() >= {"api.log"}
    assert [name for name, text in told.items() if token in text] == []
