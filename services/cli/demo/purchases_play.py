"""proxy-credits in the demo, over HTTP: claims, and every partner's wallet, store and history."""

from collections import Counter
from collections.abc import Mapping, Sequence

from services.cli.demo.data import Partner
from services.cli.demo.lines import Fact
from services.cli.demo.platform import Platform
from services.cli.demo.purchases import PROGRAM_ID, PROVIDER, REDEMPTION_RATE, facts, played, promises
from services.cli.demo.scene import Answer, Scored
from services.cli.token import Role


class Credits:
    """The scene of proxy-credits; see `scene.Scene`."""

    title = "proxy-credits in whole credits"

    def __init__(self, run: str, now: int) -> None:
        self._made = played(run, now)
        self._promised, self._endings = promises(self._made)
        self._claim_ids: list[str] = []

    @property
    def partners(self) -> Sequence[Partner]:
        return self._made.partners

    async def publish(self, platform: Platform) -> None:
        """The shipped program is published already."""

    async def open(self, platform: Platform) -> None:
        """Links are enough."""

    def facts(self, codes: Mapping[str, str]) -> list[Fact]:
        return list(facts(self._made.friends, codes))

    async def play(self, platform: Platform) -> list[Answer]:
        by_id = {partner.partner_id: partner for partner in self.partners}
        answers = []
        for (partner_id, settling), promised in zip(self._made.claims, self._endings, strict=True):
            answered = await self._claim(platform, by_id[partner_id], settling)
            answers.append(Answer(f"{partner_id} claims 1 GB of {PROVIDER}", promised, answered))
        return answers

    async def _claim(self, platform: Platform, partner: Partner, settling: str) -> str:
        """The claim's status in the end, or the code with which it was refused."""
        body = {"program_id": PROGRAM_ID, "provider": PROVIDER}
        claim = await platform.try_to(f"/rewards/partners/{partner.partner_id}/claims", body, partner)
        if "claim_id" not in claim:
            return str(claim["code"])
        self._claim_ids.append(claim["claim_id"])
        settled = await platform.tell(f"/rewards/claims/{claim['claim_id']}/{settling}", {}, Role.platform)
        return str(settled["status"])

    async def compare(self, platform: Platform) -> list[Scored]:
        return [await self._one(platform, partner) for partner in self.partners]

    async def _one(self, platform: Platform, partner: Partner) -> Scored:
        promise, own = self._promised[partner.partner_id], f"/rewards/partners/{partner.partner_id}"
        friends = await platform.read(f"/attribution/partners/{partner.partner_id}/referrals", partner)
        wallet = await platform.read(f"{own}/wallet", partner)
        store = await platform.read(f"{own}/store?program_id={PROGRAM_ID}", partner)
        history = (await platform.read(f"{own}/history?limit=100", partner))["items"]
        moved: Counter[str] = Counter()
        for line in history:
            moved[line["type"]] += line.get("credits", 0)
        return Scored(
            partner,
            {
                "friends": str(promise.friends),
                "granted": str(promise.granted),
                "taken back": str(promise.taken_back),
                "claimed": str(promise.claimed),
                "balance": str(promise.balance),
                "in store": "claimable" if promise.balance >= REDEMPTION_RATE else "not yet",
            },
            {
                "friends": str(len(friends["items"])),
                "granted": str(moved["credit.granted"]),
                "taken back": str(moved["credit.reversed"]),
                "claimed": str(moved["claim.fulfilled"]),
                "balance": str(next((each["balance"] for each in wallet["credits"]), 0)),
                "in store": next(
                    "claimable" if offer["claimable"] else "not yet"
                    for offer in store["offers"]
                    if offer["provider"] == PROVIDER
                ),
            },
        )

    def look(self) -> list[tuple[str, str]]:
        purchase = self._made.friends[0].purchases[1]
        claims = [(claim_id, "a claim on credits") for claim_id in self._claim_ids[:1]]
        return [(purchase.payment_id, "a purchase that earned credits"), *claims]
