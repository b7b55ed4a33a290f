"""What others wrote and we ship: unchanged, with its licence beside it."""

import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "name", "script"),
    [("services/portal/static", "htmx", "htmx.min.js"), ("tests/portal", "axe", "axe.min.js")],
)
def test_a_vendored_script_is_as_it_came(folder: str, name: str, script: str) -> None:
    digest, named = (ROOT / folder / f"{name}.sha256").read_text().split()
    assert named == script
    assert hashlib.sha256((ROOT / folder / script).read_bytes()).hexdigest() == digest
    assert len((ROOT / folder / f"{name}.LICENSE").read_text()) > 500
