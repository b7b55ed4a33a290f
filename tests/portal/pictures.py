"""Makes the pictures of docs/pages.md: `make pictures`. No test: pytest only lends it the running stack."""

from pathlib import Path

from tests.portal.conftest import Played, Visitors

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
SIZE = {"width": 960, "height": 700}


def test_pictures(visitors: Visitors, played: Played) -> None:
    PICTURES.mkdir(exist_ok=True)
    run = played.run
    partners = {
        f"{run}.partner01": ("start", "referrals", "payouts", "statistics"),
        f"{run}.proxy1": ("store",),
        f"{run}.companies1": ("companies",),
        f"{run}.messages1": ("clients",),
    }
    for sub, names in partners.items():
        partner = visitors.partner(sub, viewport=SIZE)
        program = partner.page.url.split("/")[4]
        for name in names:
            partner.look(f"/portal/{program}/{name}").screenshot(path=PICTURES / f"{name}.png")
    partner = visitors.partner(f"{run}.partner01", viewport=SIZE)
    partner.look(partner.page.url.removeprefix(played.url).replace("/start", "/referrals"))
    partner.page.locator("#payments").scroll_into_view_if_needed()
    partner.page.get_by_role("link", name="Why").last.click()
    partner.page.get_by_role("dialog").wait_for()
    partner.page.screenshot(path=PICTURES / "why.png")
    desk = visitors.admin(viewport=SIZE)
    for name, path in {
        "desk": "", "queues": "/queues", "programs": "/programs", "program": "/programs/keycrm",
        "partners": "/partners", "purchases": "/purchases?program_id=keycrm", "dead-letters": "/dead-letters",
        "health": "/health",
    }.items():  # fmt: skip
        page = desk.look(f"/admin{path}")
        page.wait_for_timeout(4000 if name in ("health", "dead-letters") else 0)
        page.screenshot(path=PICTURES / f"{name}.png")
