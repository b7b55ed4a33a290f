"""What holds the design together, read from the source: who may import whom, and what a rule may not touch."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOUR = frozenset({"attribution", "commission", "rewards", "payouts"})
RULES = {"rules", "binding", "codes", "clicks", "ledger", "terms", "saying", "sales", "partners"}
RULES |= {"retention", "bonuses", "clients", "client_payments", "deciding", "allocation", "purchases", "claims"}
RULES |= {"activity", "calendar", "discounts", "people", "verifications"}
IMPURE = {
    *("time", "random", "secrets", "uuid", "os", "socket", "asyncio", "threading", "subprocess", "pathlib", "logging"),
    *("redis", "aiokafka", "faust", "mode", "httpx", "fastapi", "starlette", "importlib"),
}
CLOCKS = {"now", "utcnow", "today"}

PRODUCTION = sorted([*(ROOT / "schemas").rglob("*.py"), *(ROOT / "services").rglob("*.py")])
PURE = sorted(path for path in (ROOT / "services").glob("*/*.py") if path.parent.name in FOUR and path.stem in RULES)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _package(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).parent.parts)


def _imports(path: Path, tree: ast.AST | None = None) -> Iterator[str]:
    """Every module that a file imports, inside functions too; `from a import b` gives a and a.b."""
    for node in ast.walk(tree or _tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = _package(path)
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _of_ours(path: Path) -> set[str]:
    """The packages of ours that a file imports: `schemas`, `services.runtime`, …"""
    found = set()
    for module in _imports(path):
        first, *rest = module.split(".")
        if first in ("schemas", "tests"):
            found.add(first)
        elif first == "services" and rest:
            found.add(f"services.{rest[0]}")
    return found


def _allowed(path: Path) -> set[str]:
    top, *rest = _package(path)
    if top == "schemas":
        return {"schemas"}
    service = rest[0] if rest else ""
    shared = {"schemas", "services.runtime"}
    if service in FOUR:
        return {*shared, f"services.{service}"}
    if service == "runtime":
        return shared
    if service == "local":
        return {*shared, "services.local", *(f"services.{each}" for each in FOUR)}
    if service == "portal":
        return {*shared, "services.portal"}
    if service == "cli":
        return {*shared, "services.local", "services.portal", "services.cli", *(f"services.{each}" for each in FOUR)}
    return set()


# --- arrows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PRODUCTION, ids=_name)
def test_imports_follow_the_arrows(path: Path) -> None:
    """cli → local → the four services → runtime → schemas, cli → portal → runtime; a service imports no other."""
    assert _of_ours(path) - _allowed(path) == set()


def test_modules_are_imported_by_name_only_where_a_service_is_chosen_at_run_time() -> None:
    by_name = {_name(path) for path in PRODUCTION if "importlib" in set(_imports(path))}
    outside_cli = {name for name in by_name if not name.startswith(("services/cli/", "services/local/"))}
    assert outside_cli == {"schemas/generate.py", "services/runtime/stages.py"}


def test_schemas_import_a_service_only_while_a_document_is_generated() -> None:
    tree = _tree(ROOT / "schemas" / "generate.py")
    inside = {
        call
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "importlib.import_module"
    }
    everywhere = {node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "import_module"}
    assert len(inside) == len(everywhere) > 0


def test_arrows_see_every_form_of_import() -> None:
    path = ROOT / "services" / "payouts" / "invented.py"
    for line in (
        "import services.rewards.state",
        "from services.rewards import state",
        "from services import rewards",
        "from ..rewards import state",
        "from .. import rewards",
        "def f():\n    from services.rewards.state import Wallet",
    ):
        modules = list(_imports(path, ast.parse(line)))
        assert any(module.startswith("services.rewards") for module in modules), line


# --- purity ---------------------------------------------------------------------------------------------------------


def _impurities(path: Path, tree: ast.AST | None = None) -> list[str]:
    """What makes a rule depend on anything but its arguments, or money on a float."""
    tree = tree or _tree(path)
    found = [f"imports {module}" for module in _imports(path, tree) if module.split(".")[0] in IMPURE]
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if name in CLOCKS:
                found.append(f"line {node.lineno} reads the clock: {name}")
            case ast.Constant(value=float() | complex()):
                found.append(f"line {node.lineno} has a float: {node.value!r}")
            case ast.Name(id="float"):
                found.append(f"line {node.lineno} speaks of float")
            case ast.Name(id="open" | "print" | "input" | "eval" | "exec" | "globals" as name):
                found.append(f"line {node.lineno} uses {name}")
            case ast.Global():
                found.append(f"line {node.lineno} changes a global")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", PURE, ids=_name)
def test_rules_read_no_clock_no_network_and_no_float(path: Path) -> None:
    assert _impurities(path) == []


@pytest.mark.parametrize("path", [ROOT / "schemas" / f"{name}.py" for name in ("money", "moments")], ids=_name)
def test_money_and_time_read_no_clock_and_no_float(path: Path) -> None:
    assert _impurities(path) == []


@pytest.mark.parametrize("path", PRODUCTION, ids=_name)
def test_digits_of_a_pattern_are_those_of_ascii(path: Path) -> None:
    """`\\d` is a digit of any script: one day, written twice, would be two."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if r"\d" in line and "re.ASCII" not in line] == []


def test_purity_looks_at_rules_of_every_service_there_is() -> None:
    there = {path.parent.name for path in (ROOT / "services").glob("*/state.py")} & FOUR
    assert {path.parent.name for path in PURE} >= there
    assert {path.stem for path in PURE} >= {"rules", "binding", "sales", "partners"}


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from random import random",
        "import os.path",
        "from redis.asyncio import Redis",
        "x = datetime.now(UTC)",
        "x = date.today()",
        "x = 0.2",
        "x = float('1')",
        "def f(x: float): ...",
        "def f():\n    global x\n    x = 1",
    ],
)
def test_purity_sees(line: str) -> None:
    assert _impurities(ROOT / "services" / "payouts" / "rules.py", ast.parse(line))


# --- the repository speaks of the project alone ---------------------------------------------------------------------

# In pieces, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(
    "|".join(f"{re.escape('/' + root)}/[a-z0-9_.]" for root in ("work", "home", "root", "Users"))
)
REGISTRIES = re.compile(
    r"|".join(
        re.escape(".".join(parts))
        for parts in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("npmjs", "com"),
            ("maven", "org"),
            ("maven", "apache", "org"),
            ("proxy", "golang", "org"),
            ("docker", "io"),
            ("ghcr", "io"),
            ("quay", "io"),
            ("gcr", "io"),
        )
    )
    + r"|--(extra-)?index-url[ =]|--find-links[ =]"
)
LEFT_OUT = {".git", ".venv", ".refstream", "build", "dist", "node_modules", "__pycache__"}


def _files() -> Iterator[Path]:
    stack = [ROOT]
    while stack:
        for path in sorted(stack.pop().iterdir()):
            hidden_cache = path.name.startswith(".") and path.is_dir() and path.name not in (".ci", ".github")
            if path.name in LEFT_OUT or hidden_cache or path.name.endswith(".egg-info"):
                continue
            if path.is_dir():
                stack.append(path)
            elif path.stat().st_size < 2_000_000:
                yield path


def test_no_file_names_a_registry_or_a_path_of_some_machine() -> None:
    found = []
    for path in _files():
        text = path.read_text(encoding="utf-8", errors="replace")
        for pattern in (MACHINE_PATHS, REGISTRIES):
            found += [f"{_name(path)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []
