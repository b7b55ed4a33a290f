"""Rewards' HTTP: what a partner's wallet holds."""

from fastapi import APIRouter, FastAPI

from schemas.ids import Id
from schemas.moments import micros
from services.rewards import discounts_api, stages, views
from services.rewards.rules import WALLETS
from services.runtime.http import AsOf, Resources, TheCaller, TheResources, own_partner, service_app
from services.runtime.settings import Settings

router = APIRouter()
router.include_router(discounts_api.router)


def create_app(settings: Settings, resources: Resources | None = None) -> FastAPI:
    """The rewards API. `resources`: instead of Redis and Kafka, for tests."""
    return service_app("rewards", settings, router, stages(settings), resources)


@router.get("/partners/{partner_id}/wallet", summary="A partner's credits and bonuses")
async def wallet(partner_id: Id, who: TheCaller, has: TheResources, as_of: AsOf = None) -> views.WalletShown:
    own_partner(who, partner_id)
    state = await has.reader.state(WALLETS, partner_id)
    return views.wallet(state, as_of if as_of is not None else micros(has.settings.now()))
