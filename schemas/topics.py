"""The table of topics: what is on them, under which key, who writes and who first reads them.

Every topic has the same number of partitions and the key's murmur2 partition, so all records of a key, whatever their
topic, meet in one cell. Every topic but `programs` and `profiles` keeps everything: the log is the system of record.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas import commands, events, internal
from schemas.events import Payload

KeyOf = Callable[[Payload], str]


def by(field: str, otherwise: str | None = None) -> KeyOf:
    """The key is the payload's `field`; `otherwise` where that one is empty."""

    def key_of(payload: Payload) -> str:
        key = getattr(payload, field, None) or (getattr(payload, otherwise) if otherwise else None)
        if not isinstance(key, str):
            raise ValueError(f"{payload.type} has no {field}")  # noqa: TRY004  # a payload without a key is a bad value
        return key

    return key_of


def by_partition(payload: Payload) -> str:
    """The key of a record that each partition has one of: the partition's number. Its writer names the partition."""
    if not isinstance(payload, events.DayReached):
        raise ValueError(f"{payload.type} has no partition")  # noqa: TRY004  # as above
    return str(payload.partition or 0)


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table.

    `writer` is the one service that writes (or "platform"); `first_reader` the stage that writes the topic's bad
    records to the dead letters and puts wrongly keyed ones back. `compacted`: only the latest record of a key stays.
    """

    name: str
    key: KeyOf
    key_name: str
    writer: str
    types: tuple[type[Payload], ...]
    first_reader: str = ""
    compacted: bool = False
    internal: bool = False

    @property
    def from_outside(self) -> bool:
        return self.writer == "platform"

    @property
    def log_append_time(self) -> bool:
        """The broker dates the records: "in the future" means the same in a rebuild, and by whose clock it was said."""
        return self.from_outside or events.DayReached in self.types


CUSTOMERS = Topic(
    "customers",
    by("customer_id"),
    "customer id",
    "platform",
    (
        events.CustomerSignedUp,
        events.AccountCreated,
        events.AccountClosed,
        events.TrialStarted,
        events.SubscriptionActivated,
        events.SubscriptionChanged,
        events.SubscriptionCancelled,
    ),
    first_reader="attribution.people",
)
PROFILES = Topic(
    "profiles",
    by("customer_id"),
    "customer id",
    "platform",
    (events.CustomerProfile,),
    first_reader="attribution.profiles",
    compacted=True,
)
PAYMENTS = Topic(
    "payments",
    by("customer_id"),
    "customer id",
    "platform",
    (
        events.PaymentPending,
        events.PaymentSucceeded,
        events.PaymentFailed,
        events.PaymentRefunded,
        events.PaymentDisputed,
        events.DisputeClosed,
    ),
    first_reader="commission.sales",
)
CLICKS = Topic(
    "clicks",
    by("visitor_id"),
    "visitor id",
    "attribution",
    (events.ClickRecorded,),
    first_reader="attribution.clicks",
)
PROGRAMS = Topic("programs", by("program_id"), "program id", "attribution", (events.ProgramPublished,), compacted=False)
PARTNERS = Topic(
    "partners",
    by("partner_id"),
    "partner id",
    "attribution",
    (
        events.PartnerActivated,
        events.LinkCreated,
        events.PromoCodeCreated,
        events.AccountsOrdered,
        events.RetentionRequested,
        events.RetentionApproved,
        events.RetentionRejected,
    ),
)
REFERRALS = Topic(
    "referrals",
    by("customer_id"),
    "customer id",
    "attribution",
    (events.ReferralAttributed, events.ReferralDeclined),
)
COMMISSIONS = Topic(
    "commissions",
    by("partner_id", otherwise="customer_id"),
    "partner id (customer id where there is none)",
    "commission",
    (
        events.CommissionAccrued,
        events.CommissionAdjusted,
        events.CommissionReversed,
        events.CommissionHeld,
        events.CommissionDeclined,
        events.TierReached,
        events.ActivityChanged,
    ),
)
REWARDS = Topic(
    "rewards",
    by("partner_id"),
    "partner id (customer id for a customer's own bonus)",
    "rewards",
    (
        events.CreditGranted,
        events.CreditReversed,
        events.ClaimRequested,
        events.ClaimFulfilled,
        events.ClaimFailed,
        events.BonusGranted,
        events.BonusUsed,
        events.BonusExpired,
        events.DiscountAssigned,
        events.DiscountWithheld,
        events.DiscountUsed,
        events.DiscountLapsed,
    ),
)
PAYOUTS = Topic(
    "payouts",
    by("partner_id"),
    "partner id",
    "payouts",
    (
        events.WithdrawalRequested,
        events.WithdrawalPaid,
        events.WithdrawalRejected,
        events.WithdrawalCancelled,
        events.TopupApplied,
        events.DepositInvoiced,
        events.DepositReceived,
        events.ClientPaymentMade,
    ),
)
CALENDAR = Topic("calendar", by_partition, "partition number", "rewards", (events.DayReached,))
DEAD_LETTERS = Topic("dead-letters", by("key"), "original key", "every service", ())

COMMANDS_ATTRIBUTION = Topic(
    "commands.attribution",
    by("partner_id"),
    "partner id",
    "attribution",
    (
        commands.ActivatePartner,
        commands.CreateLink,
        commands.CreatePromoCode,
        commands.OrderAccounts,
        commands.RequestRetention,
        commands.SettleRetention,
        commands.PublishProgram,
    ),
    first_reader="attribution.people",
    internal=True,
)
COMMANDS_REWARDS = Topic(
    "commands.rewards",
    by("partner_id"),
    "partner id",
    "rewards",
    (commands.RequestClaim, commands.SettleClaim, commands.VerifyMonth, commands.UseDiscount),
    first_reader="rewards.wallets",
    internal=True,
)
COMMANDS_PAYOUTS = Topic(
    "commands.payouts",
    by("partner_id"),
    "partner id",
    "payouts",
    (
        commands.RequestWithdrawal,
        commands.SettleWithdrawal,
        commands.RequestTopup,
        commands.RequestDeposit,
        commands.ConfirmDeposit,
        commands.PayForClient,
    ),
    first_reader="payouts.ledger",
    internal=True,
)
SALES = Topic("sales", by("partner_id"), "partner id", "commission", (internal.SaleStated,), internal=True)
CODES = Topic("codes", by("code"), "code", "attribution", (internal.CodeRequested,), internal=True)
ROSTER = Topic(
    "roster",
    by("partner_id"),
    "partner id",
    "attribution",
    (internal.ReferralListed, internal.ClickCounted),
    internal=True,
)
BINDINGS = Topic(
    "bindings", by("customer_id"), "customer id", "attribution", (internal.BindingRequested,), internal=True
)
FORGOTTEN = Topic("forgotten", by("person_id"), "person id", "attribution", (internal.PersonForgotten,), internal=True)
CLIENT_PAYMENTS = Topic(
    "client-payments", by("customer_id"), "customer id", "payouts", (internal.ClientPaid,), internal=True
)
ACTIVES = Topic(
    "actives",
    by("partner_id"),
    "partner id",
    "rewards",
    (internal.ReferralActivity, internal.VerificationDue),
    internal=True,
)
VERIFICATIONS = Topic(
    "verifications",
    by("program_id"),
    "program id",
    "rewards",
    (internal.VerificationStarted, internal.VerificationDone),
    internal=True,
)
ANSWERS_ATTRIBUTION = Topic(
    "answers.attribution", by("command_id"), "the command's key", "attribution", (commands.Answered,), internal=True
)
ANSWERS_REWARDS = Topic(
    "answers.rewards", by("command_id"), "the command's key", "rewards", (commands.Answered,), internal=True
)
ANSWERS_PAYOUTS = Topic(
    "answers.payouts", by("command_id"), "the command's key", "payouts", (commands.Answered,), internal=True
)

CELLS = (
    "attribution.people",
    "attribution.profiles",
    "attribution.codes",
    "attribution.clicks",
    "commission.sales",
    "commission.partners",
    "rewards.wallets",
    "rewards.customers",
    "rewards.people",
    "rewards.verifications",
    "payouts.ledger",
    "payouts.clients",
)
"""The stages. Each has a journal of its own: in which order its cells folded what."""
JOURNALS: dict[str, Topic] = {
    stage: Topic(f"journal.{stage}", by("key"), "cell", stage.partition(".")[0], (), internal=True) for stage in CELLS
}

TOPICS: tuple[Topic, ...] = (
    CLICKS,
    CUSTOMERS,
    PROFILES,
    PAYMENTS,
    PROGRAMS,
    PARTNERS,
    REFERRALS,
    COMMISSIONS,
    REWARDS,
    PAYOUTS,
    CALENDAR,
    DEAD_LETTERS,
    COMMANDS_ATTRIBUTION,
    COMMANDS_REWARDS,
    COMMANDS_PAYOUTS,
    SALES,
    CODES,
    ROSTER,
    BINDINGS,
    FORGOTTEN,
    CLIENT_PAYMENTS,
    ACTIVES,
    VERIFICATIONS,
    ANSWERS_ATTRIBUTION,
    ANSWERS_REWARDS,
    ANSWERS_PAYOUTS,
    *JOURNALS.values(),
)
BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}
TOPIC_OF: dict[type[Payload], Topic] = {payload: topic for topic in TOPICS for payload in topic.types}
