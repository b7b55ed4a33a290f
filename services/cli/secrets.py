"""`refstream secrets`: the secrets of a deployment, as files."""

import json
import secrets as random
from pathlib import Path
from typing import Annotated

import typer

from services.cli.state import private_dir, write_private
from services.runtime.settings import Settings

KEY_ID = "1"


def secrets(
    folder: Annotated[Path, typer.Argument(help="Where to; settings look into /run/secrets.")],
) -> None:
    """Make the secrets that a folder lacks: what signs tokens, what signs click cookies, what seals personal data.

    One file for each, named as its variable in lower case, as containers and clusters mount them; a file that is there
    stays as it is. Keep them: without the last one, what Redis holds of people cannot be read any more.
    """
    prefix = Settings.model_config["env_prefix"].lower()
    made = []
    for name in ("auth_secret", "click_secrets", "data_secrets"):
        file = private_dir(folder) / f"{prefix}{name}"
        if not file.exists():
            secret = random.token_hex(32)
            write_private(file, secret if name == "auth_secret" else json.dumps({KEY_ID: secret}))
            made.append(str(file))
    print("\n".join(made) or f"all secrets are in {folder}")
