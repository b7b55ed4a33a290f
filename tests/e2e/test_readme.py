"""The README's first payment and the page about an own program, word for word, against a running stack."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Running

pytestmark = pytest.mark.infra
ROOT = Path(__file__).parents[2]


def _played(running: Running, page: str, begins: str) -> str:
    """What the commands of a page print: its shell blocks from the one that begins so, run as one script."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    first = next(number for number, block in enumerate(blocks) if block.startswith(begins))
    played = subprocess.run(
        ["bash", "-eu", "-c", "".join(blocks[first:])],
        env={**running.environment, "API": running.url, "NO_PROXY": "*"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    return played.stdout


def _usd(minor: int) -> dict[str, object]:
    return {"minor": minor, "currency": "USD"}


def test_the_first_payment_of_the_readme_earns_what_it_says(running: Running) -> None:
    said = _played(running, "README.md", "R=")
    (book,) = running.get("/payouts/partners/anna/balance")["balances"]
    assert (book["accrued"], book["available"]) == (_usd(400), _usd(400))
    assert "10" in said.split("p-1")[-1]


def test_the_program_of_the_page_about_an_own_program_is_published_and_pays_what_it_says(running: Running) -> None:
    known = any(program["program_id"] == "saas-affiliates" for program in running.get("/attribution/programs")["items"])
    said = _played(running, "docs/your-own-program.md", "R=")
    if known:  # the journeys have published it on the same servers
        assert "saas-affiliates version 1 says the same: nothing to publish" in said
    else:
        assert "published saas-affiliates version 1: in force from the beginning" in said
    (then,) = running.get("/payouts/partners/vera/balance", as_of="2026-03-01T00:00:00Z")["balances"]
    assert (then["accrued"], then["pending"], then["available"]) == (_usd(1225), _usd(1225), _usd(0))
    (later,) = running.get("/payouts/partners/vera/balance", as_of="2026-03-04T12:00:00Z")["balances"]
    assert (later["pending"], later["available"]) == (_usd(0), _usd(1225))
    assert "49.00 USD × 0.25 = 12.25 USD" in said
    assert re.search(r"^ *vera +commissions +USD +12\.25 +14\.70 +\+2\.45", said, re.MULTILINE), said
