"""What a program document may say. A program is data: a new one is one document, a new kind of rule one variant here.

`Program.terms` lists what the program rewards and how; each variant is one kind of rule, and every place that acts on
terms matches them exhaustively. A document has versions; which one prices a referral is `pricing`.
"""

import re
from decimal import Decimal
from functools import cache, cached_property
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import ExactDecimal, Money, PositiveAmount, Rate

T = TypeVar("T", bound="Document")

MAX_DESTINATION_CHARACTERS = 2048
_STANDARD_PORT = {"http": ":80", "https": ":443"}
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")


def destination_host(destination: str) -> str | None:
    """Where an absolute http or https address leads: its host, with a port that is not the scheme's own.

    None for any other text, and for what two readers could take for two addresses: user names, backslashes, blanks,
    characters beyond ASCII.
    """
    if len(destination) > MAX_DESTINATION_CHARACTERS or _UNPRINTABLE.search(destination) or not destination.isascii():
        return None
    try:
        parts = urlsplit(destination)
        named = parts.hostname and parts.port != 0  # reading a port raises ValueError where it is none
    except ValueError:
        return None
    if parts.scheme not in _STANDARD_PORT or not named or "@" in parts.netloc:
        return None
    return parts.netloc.lower().removesuffix(_STANDARD_PORT[parts.scheme])


_NO_ZONES = frozenset({"localtime", "Factory"})
"""What a tree of zones holds besides: whatever zone a machine is in, and none."""


@cache
def _zones() -> frozenset[str]:
    """Every IANA zone that this machine knows: asked once, it reads a directory tree."""
    return frozenset(available_timezones())


class Document(BaseModel):
    """A part of a program document: unknown fields are refused, so that a typing error is not a silent default.

    A check of a value that earlier versions took holds for what is published (context `WIRE`) alone: a document that
    is on the log must stay readable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class Attribution(Document):
    """Which evidence binds a customer to a partner.

    `model`: `first_click` judges each partner's first click, the earliest accepted one wins; `last_click` judges the
    latest click alone. `window_days`: the longest time from the judged click to the signup (none: any age).
    """

    model: Literal["first_click", "last_click"]
    window_days: Annotated[StrictInt, Field(ge=1, le=3650)] | None = None
    promo_codes: StrictBool = True
    account_required: StrictBool = Field(False, description="a partner must own an account before activating")
    default_destination: str = Field(description="where a link leads when the partner names nothing else")
    destination_hosts: tuple[str, ...] = Field((), description="hosts that a partner's links may lead to")

    @field_validator("default_destination")
    @classmethod
    def _address(cls, destination: str, info: ValidationInfo) -> str:
        if info.context and destination_host(destination) is None:
            raise ValueError("write an http or https address in ASCII, like https://crm.example.com/signup")
        return destination


class Tier(Document):
    """`rate` holds from the partner's `from_clients`-th paying client on."""

    from_clients: Annotated[StrictInt, Field(ge=1)]
    rate: Rate


class EarningWindow(Document):
    """Payments earn in `[start, start + months)`.

    `starts`: `first_payment`, the customer's first payment since the binding; `first_account`, the creation of the
    customer's first account, or the signup while there is none at the payment's time.
    """

    months: Annotated[StrictInt, Field(ge=1, le=1200)]
    starts: Literal["first_payment", "first_account"]


class Share(Document):
    """A share of each payment, by the number of the partner's paying clients, this payment's client included."""

    kind: Literal["share"] = "share"
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)]
    window: EarningWindow | None = None
    first_product_only: StrictBool = Field(False, description="only the product of the first payment earns")
    hold_days: Annotated[StrictInt, Field(ge=0, le=3650)] | None = Field(
        None, description="accruals are pending until the first payment plus so many days"
    )
    ends_with_subscription: StrictBool = Field(
        False,
        description="the end of the first payment's subscription ends earning, "
        "before the hold's end also what is pending",
    )
    ends_with_downgrade_of: tuple[Literal["month", "year"], ...] = Field(
        (), description="a downgrade of a plan of these intervals ends earning"
    )

    @field_validator("tiers")
    @classmethod
    def _tiers_rise(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        steps = [tier.from_clients for tier in tiers]
        if steps[0] != 1 or steps != sorted(set(steps)):
            raise ValueError("tiers start at from_clients 1 and rise")
        return tiers


MAX_RATE = 10**6  # credits per GB


class Provider(Document):
    product_rate: Annotated[ExactDecimal, Field(ge=0, le=MAX_RATE)] = Field(description="credits earned per GB bought")
    redemption_rate: Annotated[ExactDecimal, Field(gt=0, le=MAX_RATE)] = Field(
        description="credits needed per GB claimed"
    )


class Credits(Document):
    """Whole credits for a customer's first purchase of one product family, by provider (`Program.providers`)."""

    kind: Literal["credits"] = "credits"
    product_family: str
    claim_gb: Annotated[StrictInt, Field(ge=1)] = 1


class SignupBonus(Document):
    """A bonus for a new customer who came in a certain way, once; the platform applies it."""

    kind: Literal["signup_bonus"] = "signup_bonus"
    amount: PositiveAmount
    methods: tuple[Literal["click", "promo_code"], ...]


class ClientDiscount(Document):
    """From the `from_clients`-th client on that the partner pays for in the family."""

    from_clients: Annotated[StrictInt, Field(ge=1)]
    rate: Rate


class IntegrationFamily(Document):
    integrations: Annotated[tuple[str, ...], Field(min_length=1)]
    discounts: Annotated[tuple[ClientDiscount, ...], Field(min_length=1)]

    @field_validator("discounts")
    @classmethod
    def _discounts_rise(cls, discounts: tuple[ClientDiscount, ...]) -> tuple[ClientDiscount, ...]:
        steps = [discount.from_clients for discount in discounts]
        if steps != sorted(set(steps)):
            raise ValueError("discounts rise by from_clients")
        return discounts

    def rate(self, clients: int) -> Decimal:
        """The discount for so many clients that a partner pays for in the family; 0 below its first step."""
        reached = [step.rate for step in self.discounts if step.from_clients <= clients]
        return reached[-1] if reached else Decimal(0)


class IntegratorAccount(Document):
    """The partner pays for clients from the partner account, at list price minus the family's discount."""

    kind: Literal["integrator_account"] = "integrator_account"
    families: dict[str, IntegrationFamily]

    def family_of(self, integration: str) -> IntegrationFamily | None:
        """The family that an integration belongs to, or None for an unknown one."""
        return next((family for family in self.families.values() if integration in family.integrations), None)


class WelcomeBonus(Document):
    """A bonus of the partner for one whole month of a client not paid for before, at list price; never withdrawn."""

    kind: Literal["welcome_bonus"] = "welcome_bonus"
    amount: PositiveAmount
    usable_days: Annotated[StrictInt, Field(ge=1)]


class Retention(Document):
    """A partner may claim a client who is a customer already, with evidence; an admin decides."""

    kind: Literal["retention"] = "retention"


class DiscountStep(Document):
    from_referrals: Annotated[StrictInt, Field(ge=0)]
    percent: Annotated[StrictInt, Field(ge=0, le=100)]


class MonthlyDiscount(Document):
    """A discount for the partner's own accounts by the number of active referrals on one day of each month."""

    kind: Literal["monthly_discount"] = "monthly_discount"
    day: Annotated[StrictInt, Field(ge=1, le=28)]
    referrals_per_account: Annotated[StrictInt, Field(ge=1)]
    scale: Annotated[tuple[DiscountStep, ...], Field(min_length=1)]

    @field_validator("scale")
    @classmethod
    def _scale_rises(cls, scale: tuple[DiscountStep, ...]) -> tuple[DiscountStep, ...]:
        steps = [step.from_referrals for step in scale]
        if steps != sorted(set(steps)):
            raise ValueError("a scale rises by from_referrals")
        return scale


Term = Annotated[
    Share | Credits | SignupBonus | IntegratorAccount | WelcomeBonus | Retention | MonthlyDiscount,
    Field(discriminator="kind"),
]


class Topup(Document):
    """Used for the partner's own account, bonus money is worth `points` more of the original payment."""

    points: Rate


class Payouts(Document):
    """How a partner gets at the money.

    `minimums`: the least withdrawal per currency; where any is named, others are refused.
    """

    withdrawals: StrictBool = True
    minimums: tuple[PositiveAmount, ...] = ()
    topup: Topup | None = None

    @field_validator("minimums")
    @classmethod
    def _one_per_currency(cls, minimums: tuple[Money, ...]) -> tuple[Money, ...]:
        if len({m.currency for m in minimums}) != len(minimums):
            raise ValueError("name one minimum per currency")
        return minimums


class Program(Document):
    """A program document: all that differs between one referral program and another."""

    program_id: Id
    version: Annotated[StrictInt, Field(ge=1)] = 1
    name: str = ""
    enabled: StrictBool
    timezone: str = "UTC"
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    effective_at: Instant | None = None
    pricing: Literal["at_binding", "at_event"] = "at_binding"
    attribution: Attribution
    terms: tuple[Term, ...]
    payouts: Payouts = Payouts()
    providers: dict[str, Provider] = {}

    @field_validator("timezone")
    @classmethod
    def _iana(cls, name: str, info: ValidationInfo) -> str:
        if name not in _zones() or (info.context and name in _NO_ZONES):
            raise ValueError(f"{name!r} is no IANA time zone, like Europe/Kyiv")
        return name

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> "Program":
        kinds = [term.kind for term in self.terms]
        if len(set(kinds)) != len(kinds):
            raise _fault_at("terms", "name each kind of terms once")
        if self.providers and "credits" not in kinds:
            raise _fault_at("providers", "providers belong to a program with credits")
        if {"share", "credits"} <= set(kinds):
            raise _fault_at("terms", "a program pays a share of payments or credits, not both")
        if info.context and "share" in kinds and self.pricing == "at_event":
            raise _fault_at("pricing", "write at_binding: the window and the hold of a share belong to the referral")
        return self

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def term(self, kind: type[T]) -> T | None:
        """The program's terms of one kind, or none."""
        found: Any = self._terms_by_kind.get(kind)
        return cast("T | None", found)

    @cached_property
    def _terms_by_kind(self) -> dict[type, Any]:
        return {type(term): term for term in self.terms}

    def as_document(self) -> dict[str, Any]:
        """The document as JSON holds it."""
        return self.model_dump(mode="json", exclude_none=True)


def _fault_at(field: str, says: str) -> ValidationError:
    """What is wrong between fields, as an error of the one to mend."""
    fault = {"type": PydanticCustomError("terms", says), "loc": (field,), "input": None}
    return ValidationError.from_exception_data("Program", [fault])  # type: ignore[list-item]


def place_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where in a document an error of pydantic's lies: it also names the kind of a term, which is no step there."""
    return (*location[:2], *location[3:]) if location[:1] == ("terms",) else location


def faults(error: ValidationError) -> list[tuple[str, str]]:
    """The fields of a document that are at fault, each as it stands there and dotted, and what is wrong with it."""
    return [
        (".".join(map(str, place_of(each["loc"]))), each["msg"].removeprefix("Value error, "))
        for each in error.errors()
    ]
