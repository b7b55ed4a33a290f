"""`refstream demo`: a year of five referral programs, played through the real system and checked to the cent."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from schemas.moments import micros
from services.cli.demo.data import Customer, History, Partner, arrived, history
from services.cli.demo.discounts_play import Discounts
from services.cli.demo.integrators_play import Integrators
from services.cli.demo.lines import CONFLICTS, customer_lines, partner_lines
from services.cli.demo.platform import DemoFailed, Platform, several
from services.cli.demo.promise import KEYCRM_LEAST_WITHDRAWAL, Promise, promises
from services.cli.demo.purchases_play import Credits
from services.cli.demo.report import Compared, decimal, show, show_answers, show_scene
from services.cli.demo.scene import Scene
from services.cli.demo.settled import Watch
from services.cli.demo.steps import Step, Steps
from services.cli.demo.takings import too_little, topping_up, withdrawing
from services.cli.down import stop
from services.cli.publish import publish
from services.cli.state import RunState, is_running, private_dir
from services.cli.token import Role, sign_in_link
from services.cli.up import start_detached
from services.runtime.settings import Settings

LEAST_CUSTOMERS, MOST_CUSTOMERS = 100, 50_000
MOST_VISITORS, CUSTOMERS_PER_VISITOR = 200, 10
LOOK_SECONDS, SETTLED_SECONDS = 0.4, 900.0
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def demo(
    seed: Annotated[int, typer.Option(help="What the platform is made up from: the same seed, the same facts.")] = 1,
    customers: Annotated[
        int, typer.Option(min=LEAST_CUSTOMERS, max=MOST_CUSTOMERS, help="How many customers it has.")
    ] = 3000,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Leave the stack running, or stop it if the demo started it.")
    ] = True,
    data: Annotated[
        Path | None, typer.Option(help="File to write the events to; otherwise one under REFSTREAM_DATA_DIR.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Play on a refstream that runs there, with the Kafka, Redis and secrets of the environment."),
    ] = None,
) -> None:
    """Play a year of five referral programs through the real system, and check every figure.

    Starts what is missing (as `up --detach`) and makes up a platform with some 60 partners in the programs keycrm and
    jupsoft, and a handful in each of proxy-credits, message-help and active-referrals. Activates the partners and
    creates their links over HTTP, clicks links as browsers do, publishes the platform's events (signups, accounts,
    subscriptions, payments, refunds, disputes; some twice, some late), waits until all services have caught up, and has
    partners withdraw money, top up their accounts, claim data for credits and pay for clients; a month is verified.

    Then every partner's figures are held against what the programs promise, worked out from the same facts by a
    calculation of its own. Exits with 1 when any figure differs. It can run again on the same stack: each run has ids
    of its own.
    """
    settings, steps = Settings.load(), Steps()
    starts_here = url is None and not is_running(settings.data_path)
    try:
        if url is None:
            with steps.step("Kafka, Valkey, four workers and the API are up"):
                state = start_detached(settings)
            settings, at = _running(settings, state), str(state.url)
        else:
            at = url.rstrip("/")
        run = _run_id(micros(settings.now()))
        file = data or private_dir(settings.data_path / "demo") / f"{run}.jsonl"
        differing = asyncio.run(_Play(settings, at, steps, file).play(run, seed, customers))
    except DemoFailed as failed:
        steps.console.print(f"refstream: the demo cannot go on: {failed}", style="red", highlight=False)
        raise typer.Exit(1) from failed
    finally:
        if starts_here and not keep:
            stop(settings.data_path)
    if url is None and not (starts_here and not keep):
        steps.console.print("The stack is running on; stop it with `refstream down`.", highlight=False)
    if differing:
        raise typer.Exit(1)


def _running(settings: Settings, state: RunState) -> Settings:
    """The settings of the stack that runs."""
    told = {name: getattr(state, name) for name in ("kafka", "redis", "partitions", "clock_offset", "port")}
    secret = SecretStr(state.auth_secret) if state.auth_secret else settings.auth_secret
    return settings.model_copy(update={**told, "auth_secret": secret, "local": True})


def _run_id(now: int) -> str:
    """What all ids of this run begin with: the time, so that no other run has it."""
    number, text = now // 1000, ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return f"d{text}"


class _Play:
    """One run, from the partners' signups to the last figure."""

    def __init__(self, settings: Settings, url: str, steps: Steps, file: Path) -> None:
        self._settings, self._url, self._steps, self._file = settings, url, steps, file

    async def play(self, run: str, seed: int, customers: int) -> int:
        """Play it and report; returns how many figures differ. Errors: DemoFailed."""
        visitors = min(MOST_VISITORS, customers // CUSTOMERS_PER_VISITOR)
        now = micros(self._settings.now())
        past = history(seed=seed, customers=customers, visitors=visitors, now=now, run=run)
        scenes: tuple[Scene, ...] = (
            Credits(run, now),
            Integrators(run, now, seed, self._settings),
            Discounts(run, now),
        )
        partners = past.partners + tuple(partner for scene in scenes for partner in scene.partners)
        async with Platform(self._url, self._settings) as platform, Watch(self._settings) as watch:
            with self._steps.step("partners sign up as customers of the platform") as step:
                file = self._file.with_name(f"{self._file.stem}-partners{self._file.suffix}")
                await self._publish(file, partner_lines(run, partners))
                await self._settle(watch, step)
            codes = await self._activate(platform, scenes, partners)
            everybody = past.customers + await self._arrive(platform, past, codes)
            more = [fact for scene in scenes for fact in scene.facts(codes)]
            await self._fold(watch, customer_lines(run, seed, everybody, codes, more))
            promised = promises(past.partners, everybody, micros(self._settings.now()))
            differing = await self._pay(platform, watch, past.partners, promised)
            for scene in scenes:
                differing += await self._act(platform, scene)
            with self._steps.step("all services have caught up again") as step:
                await self._settle(watch, step)
            compared = await self._compare(platform, past.partners, promised)
            with self._steps.step("credits, partner accounts and discounts read over HTTP"):
                scored = [(scene.title, await scene.compare(platform)) for scene in scenes]
        differing += show(self._steps.console, compared)
        differing += sum(show_scene(self._steps.console, *each) for each in scored)
        self._close(past, scenes, differing)
        return differing

    # --- partners and visitors ------------------------------------------------------------------------------------

    async def _activate(
        self, platform: Platform, scenes: Sequence[Scene], partners: Sequence[Partner]
    ) -> dict[str, str]:
        """Partner id → the code of its link."""
        count = len(partners)
        with self._steps.step(f"{count} partners activated, each with a link, over HTTP", count) as step:
            for scene in scenes:
                await scene.publish(platform)
            codes = await several(platform.activate, partners, step.advance)
            for scene in scenes:
                await scene.open(platform)
        return {partner.partner_id: code for partner, code in zip(partners, codes, strict=True)}

    async def _arrive(self, platform: Platform, past: History, codes: dict[str, str]) -> tuple[Customer, ...]:
        """Visitors click and sign up, with what the cookie then says."""
        with self._steps.step("clicks through real links", len(past.visitors)) as step:
            visited = await several(lambda visitor: platform.visit(visitor, codes), past.visitors, step.advance)
            clicks = sum(len(each.clicks) for each in visited)
            step.said = f"{clicks} clicks of {len(visited)} browsers through real links, over HTTP"
        now = micros(self._settings.now())
        return tuple(arrived(past, each.visitor, each.clicks, each.cookie, now) for each in visited)

    # --- events ---------------------------------------------------------------------------------------------------

    async def _publish(self, file: Path, lines: Sequence[bytes]) -> None:
        """Write the file, and publish it as `refstream publish` does."""

        def write() -> None:
            file.write_bytes(b"\n".join(lines) + b"\n")
            publish(str(file))

        await asyncio.to_thread(write)

    async def _fold(self, watch: Watch, lines: Sequence[bytes]) -> None:
        began = time.monotonic()
        with self._steps.step(f"{len(lines)} events checked and published from {self._file}"):
            await self._publish(self._file, lines)
        with self._steps.step("all services have caught up") as step:
            await self._settle(watch, step)
            seconds = time.monotonic() - began
            step.said = (
                f"all services have caught up: {len(lines)} events in {seconds:.1f} s from the first to the last "
                f"figure, {len(lines) / seconds:,.0f} events/s"
            )

    async def _settle(self, watch: Watch, step: Step) -> None:
        """Return when every service has read everything. Errors: DemoFailed when that takes too long."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while not (behind := await watch.behind()).settled:
            if time.monotonic() > deadline:
                raise DemoFailed(f"{behind.records} records are unread after {SETTLED_SECONDS:.0f} s; see its logs")
            step.left(behind.records)
            await asyncio.sleep(LOOK_SECONDS)

    # --- money ----------------------------------------------------------------------------------------------------

    async def _pay(
        self, platform: Platform, watch: Watch, partners: Sequence[Partner], promised: dict[str, Promise]
    ) -> int:
        """Withdrawals and top-ups by the partners with most; returns how many answers differ from the promise."""
        with self._steps.step("withdrawals and top-ups") as step:
            told, differing = [], 0
            for partner in withdrawing(partners, promised):
                minor = promised[partner.partner_id].available * 3 // 5
                await platform.withdraw(partner, minor)
                promised[partner.partner_id].withdraw(minor)
                told.append(f"{partner.partner_id} withdrew {decimal(minor)}")
            for partner in topping_up(partners, promised):
                minor = promised[partner.partner_id].available // 2
                topup_id, credited = await platform.top_up(partner, minor)
                worth = promised[partner.partner_id].top_up(minor)
                differing += credited != worth
                told.append(
                    f"{partner.partner_id} topped up with {decimal(minor)}, worth {decimal(worth)} as promised"
                    + ("" if credited == worth else f"; refstream DIFFERS: {decimal(credited)} ({topup_id})")
                )
            poor = too_little(partners, promised)
            if poor:
                code = await platform.refused_withdrawal(poor, KEYCRM_LEAST_WITHDRAWAL - 1)
                differing += code != "below_minimum"
                told.append(f"{poor.partner_id} asked for {decimal(KEYCRM_LEAST_WITHDRAWAL - 1)}: {code}")
            await self._settle(watch, step)
        for line in told:
            self._steps.console.print(f"          {line}", highlight=False)
        return differing

    async def _act(self, platform: Platform, scene: Scene) -> int:
        """What the scene's partners do; returns how many answers differ from the promise."""
        with self._steps.step(scene.title):
            answers = await scene.play(platform)
        return show_answers(self._steps.console, answers)

    async def _compare(
        self, platform: Platform, partners: Sequence[Partner], promised: dict[str, Promise]
    ) -> list[Compared]:
        async def one(partner: Partner) -> Compared:
            balance, clients = await platform.balance(partner), await platform.paying_clients(partner)
            return Compared(partner, promised[partner.partner_id], balance, clients)

        with self._steps.step(f"balances of {len(partners)} partners read over HTTP", len(partners)) as step:
            return await several(one, partners, step.advance)

    def _close(self, past: History, scenes: Iterable[Scene], differing: int) -> None:
        console, shown = self._steps.console, {partner.shows: partner for partner in past.partners if partner.shows}
        if differing:
            console.print(f"{differing} figures DIFFER from what the programs promise.", style="red", highlight=False)
        else:
            console.print("Every figure is as promised, to the cent.", style="green", highlight=False)
        console.print(f"The demo took {self._steps.seconds:.1f} s. Look further:", highlight=False)
        more = [(f"refstream explain {name}", why) for scene in scenes for name, why in scene.look()]
        for command, why in (*_where_to_look(past, list(shown.values())), *more):
            console.print(f"  {command:<52} {why}", highlight=False, soft_wrap=True)
        console.print(f"  {self._url}/attribution/openapi.json (also commission, rewards, payouts)", highlight=False)
        self._show_pages(next(iter(shown.values())))

    def _show_pages(self, partner: Partner) -> None:
        """Links that sign a browser in; each alone in its line, so that a terminal can open it."""
        console = self._steps.console
        at = self._settings.model_copy(update={"public_url": self._settings.public_url or self._url})
        for whose, role, sub in (
            (f"The pages of {partner.partner_id}", Role.partner, partner.partner_id),
            ("The administrator's desk", Role.admin, Role.admin.value),
        ):
            console.print(f"{whose}, for 15 minutes (then: refstream token --link --role {role.value} --sub {sub})")
            console.print(f"  {sign_in_link(at, role, sub)}", highlight=False, soft_wrap=True)


def _where_to_look(past: History, shown: Sequence[Partner]) -> Iterable[tuple[str, str]]:
    """Commands worth trying, with ids of this run."""
    of = {partner.shows.split()[0]: partner for partner in shown}
    paid = {
        click.partner_id: customer
        for customer in past.customers
        for click in customer.clicks[:1]
        if customer.payments and click.partner_id in {partner.partner_id for partner in shown}
    }
    refunded, declined = paid[of["refund"].partner_id], paid[of["self-referral"].partner_id]
    yield f"refstream explain {refunded.payments[0].payment_id}", "a payment and its refund"
    yield f"refstream explain {declined.customer_id}", "a signup that was declined"
    yield f"refstream explain {shown[0].partner_id}", "a partner's balance"
    yield "refstream dead-letters list", f"{CONFLICTS} payments that came again with another amount"
    yield "refstream status", "what runs, and how far behind it is"
