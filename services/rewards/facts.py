"""What the stage `rewards.people` remembers of one id: as a customer, whether an active referral; as a partner, the
own accounts and payments, the referrals and the verifications. The parts do not touch each other.

Times are microseconds since 1970 UTC, amounts minor units of the currency beside them, months are like 2026-02.
"""

from typing import Literal

from msgspec import Struct

from services.runtime.repeats import Seen

Span = tuple[int, int | None]
"""A half-open span of time `[from, until)`; no `until`: open."""


class Binding(Struct, frozen=True, array_like=True):
    """The partner and program version that the person is bound to, as a customer."""

    partner_id: str
    program_id: str
    program_version: int
    attributed_at: int


class SubscriptionStep(Struct, frozen=True, array_like=True):
    """A step of a subscription's life that matters here."""

    subscription_id: str
    at: int
    kind: Literal["trial", "activated", "cancelled"]
    trial_ends_at: int | None = None


class Paying(Struct, frozen=True, array_like=True):
    """A payment of the person: when it was announced, and when it first succeeded or failed."""

    pending_at: int | None = None
    succeeded_at: int | None = None
    failed_at: int | None = None
    subscription_id: str | None = None
    trial: bool = False

    def is_pending(self, as_of: int) -> bool:
        """Whether it was announced, and neither succeeded nor failed, by what happened strictly before an instant."""
        settled = (at for at in (self.succeeded_at, self.failed_at) if at is not None)
        return self.pending_at is not None and self.pending_at < as_of and all(at >= as_of for at in settled)


class Account(Struct, frozen=True, array_like=True):
    """An account of the person. `created_at` is None while only its closing has arrived."""

    created_at: int | None = None
    closed_at: int | None = None


class Order(Struct, frozen=True, array_like=True):
    """An order of accounts, in force from `effective_at` until the next one."""

    effective_at: int
    account_ids: tuple[str, ...]


class Discount(Struct, frozen=True, array_like=True):
    """What a verification gave to one account. `invoice_id`: which invoice took it; `lapsed_at`: when it ended unused.

    An invoice that was issued in time but sent late can take what has lapsed.
    """

    account_id: str
    percent: int
    referrals_counted: int
    lapsed_at: int | None = None
    invoice_id: str | None = None
    used_at: int = 0
    off_minor: int = 0
    currency: str = ""


class Verification(Struct, frozen=True, array_like=True):
    """A month of a program as it was decided for the partner, once."""

    program_id: str
    month: str
    as_of: int
    active_referrals: int
    withheld: bool = False
    discounts: tuple[Discount, ...] = ()


class Person(Struct, frozen=True, array_like=True):
    """`told`: the spans that were last said of the person as a referral. `orders`: by program, as they were set."""

    seen: Seen = {}
    binding: Binding | None = None
    steps: tuple[SubscriptionStep, ...] = ()
    payments: dict[str, Paying] = {}
    told: tuple[Span, ...] = ()
    accounts: dict[str, Account] = {}
    activations: dict[str, int] = {}
    orders: dict[str, tuple[Order, ...]] = {}
    verifications: tuple[Verification, ...] = ()


class Referral(Struct, frozen=True, array_like=True, tag="r"):
    """A partner's row per referred customer, `r:<customer>`."""

    customer_id: str
    program_id: str
    active: tuple[Span, ...]


class Invoice(Struct, frozen=True, array_like=True, tag="i"):
    """A partner's row per invoice that asked for a discount, `i:<invoice>`, with the answer. No program: none held."""

    invoice_id: str
    account_id: str
    issued_at: int
    percent: int
    off_minor: int
    minor: int
    currency: str
    program_id: str = ""
    month: str = ""


PersonRow = Referral | Invoice


def referral_row_id(customer_id: str) -> str:
    return f"r:{customer_id}"


def invoice_row_id(invoice_id: str) -> str:
    return f"i:{invoice_id}"


def account_name(account_id: str) -> str:
    """The name under which an account's owner is found."""
    return f"account:{account_id}"


class Ask(Struct, frozen=True, array_like=True):
    """A command that waits for a month to be verified."""

    command_id: str
    body_hash: str
    caller: str


class Month(Struct, frozen=True, array_like=True):
    """A month of a program in one cell of `rewards.verifications`.

    Every cell: `started` once it has asked its own partners. The cell that the program's id belongs to also counts:
    `cells` (partition → partners asked) of `of_cells`, how many are `done`, what came out, and the commands that wait.
    """

    started: bool = False
    of_cells: int = 0
    cells: dict[int, int] = {}
    done: int = 0
    assigned: int = 0
    withheld: int = 0
    lapsed: int = 0
    asks: tuple[Ask, ...] = ()

    @property
    def partners(self) -> int:
        return sum(self.cells.values())

    @property
    def is_complete(self) -> bool:
        """Whether every partner of every cell has decided the month."""
        return 0 < self.of_cells == len(self.cells) and self.done == self.partners


class Months(Struct, frozen=True, array_like=True):
    """The months of one program."""

    months: dict[str, Month] = {}


class Member(Struct, frozen=True, array_like=True):
    """A cell's row per partner of a program."""

    activated_at: int
