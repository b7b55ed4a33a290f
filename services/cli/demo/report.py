"""What was promised beside what refstream paid, as tables for a terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.table import Table

from services.cli.demo.data import PROGRAM_IDS, Partner
from services.cli.demo.promise import Promise
from services.cli.demo.scene import Answer, Scored

TOP = 5
FIELDS = ("accrued", "reversed", "pending", "processing", "paid", "topped_up", "available")


@dataclass(frozen=True, slots=True)
class Compared:
    """One partner: the promise, and what refstream answers. `clients` are refstream's paying clients."""

    partner: Partner
    promise: Promise
    balance: Mapping[str, int]
    clients: int

    @property
    def differences(self) -> list[str]:
        """Each figure that differs, as text."""
        promised = self.promise.figures
        found = [
            f"{name}: promised {decimal(promised[name])}, refstream {decimal(self.balance.get(name, 0))}"
            for name in FIELDS
            if promised[name] != self.balance.get(name, 0)
        ]
        if self.promise.clients != self.clients:
            found.append(f"paying clients: promised {self.promise.clients}, refstream {self.clients}")
        return found


def decimal(minor: int) -> str:
    """Cents, a point before them."""
    whole, cents = divmod(abs(minor), 100)
    return f"{'-' if minor < 0 else ''}{whole:,}.{cents:02}"


def show(console: Console, compared: Sequence[Compared]) -> int:
    """Print a table per program and every difference; returns how many figures differ."""
    count = 0
    for program_id in PROGRAM_IDS:
        own = [each for each in compared if each.partner.program_id == program_id]
        console.print(_table(program_id, own))
        for each in own:
            count += len(each.differences)
            for difference in each.differences:
                console.print(f"  differs: {each.partner.partner_id} {difference}", style="red", highlight=False)
    return count


def show_answers(console: Console, answers: Iterable[Answer]) -> int:
    """Print what was answered, as promised or not; returns how many answers differ."""
    count = 0
    for each in answers:
        if each.differs:
            count += 1
            told = f"DIFFERS: promised {each.promised}, refstream {each.answered}"
            console.print(f"          {each.what}: {told}", style="red", highlight=False)
        else:
            console.print(f"          {each.what}: {each.answered}, as promised", highlight=False)
    return count


def show_scene(console: Console, title: str, scored: Sequence[Scored]) -> int:
    """Print a scene's table and every difference; returns how many figures differ."""
    run = scored[0].partner.partner_id.rpartition(".")[0]
    table = Table(title=f"{title}, partners {run}.…", title_justify="left", box=SIMPLE_HEAVY, padding=(0, 1, 0, 0))
    table.add_column("partner", no_wrap=True)
    table.add_column("what it shows", overflow="fold")
    for name in ("", *scored[0].promised, ""):
        table.add_column(name, justify="right", overflow="fold")
    for each in scored:
        name = each.partner.partner_id.rpartition(".")[2]
        table.add_row(name, each.partner.shows, "promised", *each.promised.values(), "")
        answered = [each.answered.get(figure, "nothing") for figure in each.promised]
        mark = "[red]differs[/red]" if each.differences else "[green]ok[/green]"
        table.add_row("", "", "refstream", *answered, mark)
        table.add_section()
    console.print(table)
    for each in scored:
        for difference in each.differences:
            console.print(f"  differs: {each.partner.partner_id} {difference}", style="red", highlight=False)
    return sum(len(each.differences) for each in scored)


def _table(program_id: str, compared: Sequence[Compared]) -> Table:
    run = compared[0].partner.partner_id.rpartition(".")[0]
    table = Table(
        title=f"{program_id} in USD, partners {run}.…", title_justify="left", box=SIMPLE_HEAVY, padding=(0, 1, 0, 0)
    )
    table.add_column("partner")
    table.add_column("what it shows", overflow="fold")
    for name in ("clients", "earned:\npromised", "\nrefstream", "pending", "taken\nout"):
        table.add_column(name, justify="right")
    for name in ("available:\npromised", "\nrefstream"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in _of_interest(compared):
        shows = each.partner.shows or "many customers"
        table.add_row(each.partner.partner_id.rpartition(".")[2], shows, *_cells([each]))
    table.add_section()
    table.add_row(f"all {len(compared)}", "", *_cells(compared))
    return table


def _of_interest(compared: Sequence[Compared]) -> list[Compared]:
    """The partners that earned most, and those that show a rule."""
    drawn = [each for each in compared if not each.partner.shows]
    best = sorted(drawn, key=lambda each: -each.promise.figures["accrued"])[:TOP]
    return best + [each for each in compared if each.partner.shows]


def _cells(compared: Sequence[Compared]) -> list[str]:
    """Sums over the partners. `pending` and `taken out` are refstream's; they are compared like the others."""
    promised = _summed(each.promise.figures for each in compared)
    answered = _summed(each.balance for each in compared)
    differs = any(each.differences for each in compared)
    return [
        str(sum(each.clients for each in compared)),
        decimal(promised["accrued"] - promised["reversed"]),
        decimal(answered["accrued"] - answered["reversed"]),
        decimal(answered["pending"]),
        decimal(answered["paid"] + answered["topped_up"]),
        decimal(promised["available"]),
        decimal(answered["available"]),
        "[red]differs[/red]" if differs else "[green]ok[/green]",
    ]


def _summed(figures: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in figures:
        total.update(each)
    return total
