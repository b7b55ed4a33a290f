"""The `refstream` command: its table of contents. Each command is a module beside this one."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from services.cli import (
    api,
    dead_letters,
    down,
    erase,
    explain,
    pages,
    programs,
    publish,
    rebuild,
    secrets,
    status,
    token,
    topics,
    up,
    verify,
    whatif,
    worker,
)
from services.cli.bench import command as bench
from services.cli.demo import command as demo


class Commands(TyperGroup):
    """Turns what a user can put right (settings, missing software, topics) into a message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        from services.local.refusal import StackRefused
        from services.runtime.codec import Unsealable
        from services.runtime.settings import SettingsRefused
        from services.runtime.topics_admin import TopicsRefused

        try:
            return super().invoke(ctx)
        except (SettingsRefused, StackRefused, TopicsRefused, Unsealable) as refused:
            print(f"refstream: {refused}", file=sys.stderr)
            raise typer.Exit(1) from refused


app = typer.Typer(
    name="refstream",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Self-hosted, event-driven referral platform on Kafka and Redis.\n\n"
    "Settings come from the environment, prefix REFSTREAM_; with neither REFSTREAM_KAFKA nor REFSTREAM_REDIS a real "
    "Kafka and a real Valkey run as local child processes.",
)

LOCAL, DEPLOYED, EVENTS, STATE = (
    "Local stack",
    "What a container runs",
    "Events, programs and access",
    "Redis against the log",
)
app.command("demo", rich_help_panel=LOCAL)(demo.demo)
app.command("up", rich_help_panel=LOCAL)(up.up)
app.command("down", rich_help_panel=LOCAL)(down.down)
app.command("status", rich_help_panel=LOCAL)(status.status)
app.add_typer(bench.app, name="bench", rich_help_panel=LOCAL)
app.command("worker", rich_help_panel=DEPLOYED)(worker.worker)
app.command("api", rich_help_panel=DEPLOYED)(api.api)
app.command("pages", rich_help_panel=DEPLOYED)(pages.pages)
app.command("topics", rich_help_panel=DEPLOYED)(topics.topics)
app.command("secrets", rich_help_panel=DEPLOYED)(secrets.secrets)
app.command("publish", rich_help_panel=EVENTS)(publish.publish)
app.command("explain", rich_help_panel=EVENTS)(explain.explain)
app.command("whatif", rich_help_panel=EVENTS)(whatif.whatif)
app.command("token", rich_help_panel=EVENTS)(token.token)
app.add_typer(programs.app, name="programs", rich_help_panel=EVENTS)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=EVENTS)
app.command("verify", rich_help_panel=STATE)(verify.verify)
app.command("rebuild", rich_help_panel=STATE)(rebuild.rebuild)
app.command("erase", rich_help_panel=STATE)(erase.erase)

if __name__ == "__main__":
    app()
