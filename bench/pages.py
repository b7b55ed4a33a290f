"""How soon each page's first byte comes, and how much goes over the wire, from a running stack with a demo's data.

    refstream demo && python bench/pages.py

Prints one line per page: the median and the longest of TIMES requests, and the bytes of a first visit with an empty
cache. Exits with 1 where a page is over the limits.
"""

import re
import statistics
import sys
import time

import httpx

from services.cli.state import running_settings
from services.cli.token import Role, sign_in_link, signed

TIMES = 40
MOST_MS, MOST_BYTES = 50.0, 150_000
PARTNER = ("start", "referrals", "payouts", "statistics", "store", "companies", "clients")
DESK = ("", "/queues", "/programs", "/programs/keycrm", "/partners", "/purchases", "/dead-letters", "/health")


def main() -> None:
    settings = running_settings()
    base = settings.public_url or f"http://127.0.0.1:{settings.port}"
    bearer = {"authorization": f"Bearer {signed(settings, Role.admin, 'admin')}"}
    slow = False
    with httpx.Client(base_url=base, timeout=30, trust_env=False) as api:
        partners = api.get("/attribution/partners", params={"limit": 100}, headers=bearer).json()["items"]
    by_program = {each["programs"][0]: each["partner_id"] for each in partners}
    for program_id, partner_id in sorted(by_program.items()):
        with _signed_in(base, sign_in_link(settings, Role.partner, partner_id)) as browser:
            menu = browser.get(f"/portal/{program_id}/start").text
            for name in PARTNER:
                if f'href="/portal/{program_id}/{name}"' in menu:
                    slow |= _measured(browser, f"/portal/{program_id}/{name}")
    with _signed_in(base, sign_in_link(settings, Role.admin, "admin")) as browser:
        for path in DESK:
            slow |= _measured(browser, f"/admin{path}")
    sys.exit(slow)


def _signed_in(base: str, link: str) -> httpx.Client:
    return httpx.Client(base_url=base, timeout=30, trust_env=False, cookies=_cookies(link))


def _cookies(link: str) -> httpx.Cookies:
    return httpx.get(link, timeout=30, trust_env=False).cookies


def _measured(browser: httpx.Client, path: str) -> bool:
    """Measure one page; answers whether it is over a limit."""
    taken, page = [], ""
    for _ in range(TIMES):
        began = time.perf_counter()
        with browser.stream("GET", path) as answer:
            taken.append((time.perf_counter() - began) * 1000)
            page = answer.read().decode()
        answer.raise_for_status()
    files = sorted(set(re.findall(r'(?:href|src)="(/portal/static/[^"]*)"', page)))
    size = len(page.encode()) + sum(len(browser.get(file).content) for file in files)
    median = statistics.median(taken)
    print(f"{path:<50} p50 {median:6.1f} ms  max {max(taken):7.1f} ms  {size:>8,} bytes")
    return median > MOST_MS or size > MOST_BYTES


if __name__ == "__main__":
    main()
