"""The README's first payment, word for word, against a running stack."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Running

pytestmark = pytest.mark.infra
ROOT = Path(__file__).parents[2]


def test_the_first_payment_of_the_readme_earns_what_it_says(running: Running) -> None:
    (script,) = re.findall(r"```bash\n(R=.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    played = subprocess.run(
        ["bash", "-eu", "-c", script],
        env={**running.environment, "API": running.url, "NO_PROXY": "*"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    (book,) = running.get("/payouts/partners/anna/balance")["balances"]
    assert (book["accrued"], book["available"]) == (
        {"minor": 400, "currency": "USD"},
        {"minor": 400, "currency": "USD"},
    )
    assert "10" in played.stdout.split("p-1")[-1]
