"""What the four HTTP APIs share: who calls, errors, lists, commands, and the app around a service's routes.

router = APIRouter()

@router.post("/partners/{partner_id}/withdrawals", status_code=201, response_model=Withdrawal)
async def withdraw(
    request: Request, partner_id: Id, body: WithdrawalBody, who: ThePartner, commands: TheCommands
) -> Response:
    return await commands.run(request, who, STAGES, RequestWithdrawal, body, partner_id=partner_id)

def create_app(settings: Settings, resources: Resources | None = None) -> FastAPI:
    return service_app("payouts", settings, router, STAGES, resources)
"""

from services.runtime.http.app import service_app
from services.runtime.http.auth import (
    EVERYBODY,
    PARTNERS,
    Caller,
    TheAdmin,
    TheCaller,
    ThePartner,
    ThePlatform,
    TheStaff,
    own_partner,
)
from services.runtime.http.bodies import Body, Moment, NoBody, Text
from services.runtime.http.commands import Commands
from services.runtime.http.named import names_program
from services.runtime.http.pages import Page, Paging, ThePaging, cut, page
from services.runtime.http.problems import FieldError, Problem, invalid, not_found, program_required
from services.runtime.http.queries import AsOf, Search, wants_csv
from services.runtime.http.rates import TheVisitor
from services.runtime.http.resources import Resources, TheCommands, TheResources

__all__ = [
    "EVERYBODY",
    "PARTNERS",
    "AsOf",
    "Body",
    "Caller",
    "Commands",
    "FieldError",
    "Moment",
    "NoBody",
    "Page",
    "Paging",
    "Problem",
    "Resources",
    "Search",
    "Text",
    "TheAdmin",
    "TheCaller",
    "TheCommands",
    "ThePaging",
    "ThePartner",
    "ThePlatform",
    "TheResources",
    "TheStaff",
    "TheVisitor",
    "cut",
    "invalid",
    "names_program",
    "not_found",
    "own_partner",
    "page",
    "program_required",
    "service_app",
    "wants_csv",
]
