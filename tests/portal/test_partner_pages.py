"""A partner's pages over the real APIs in memory: what they show, what their forms do, and what they refuse."""

from collections.abc import Iterator

import pytest

from tests.four_apis import OWN
from tests.portal.in_memory import Pages
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
