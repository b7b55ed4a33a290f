"""Settings: read from the environment, refused with the name of the variable and the cure."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.cli.secrets import secrets
from services.runtime.settings import Settings, SettingsRefused

STRONG = "0123456789abcdef" * 4
SECRETS = {"click_secrets": {"1": STRONG}, "data_secrets": {"1": STRONG}}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [n for n in os.environ if n.startswith("REFSTREAM_")]:
        monkeypatch.delenv(name)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSTREAM_KAFKA", "kafka:9092")
    monkeypatch.setenv("REFSTREAM_CLICK_SECRETS", '{"1": "old", "2": "new"}')
    settings = Settings()
    assert settings.kafka_client_options() == {"bootstrap_servers": "kafka:9092", "security_protocol": "PLAINTEXT"}
    assert [secret.get_secret_value() for secret in settings.click_secrets.values()] == ["old", "new"]


def test_secrets_come_from_files_that_the_command_made_and_the_environment_goes_before_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("services.runtime.settings.SECRETS_DIR", tmp_path)
    secrets(tmp_path)
    made = Settings.load()
    made.require_production_secrets()
    assert len(capsys.readouterr().out.splitlines()) == 3
    secrets(tmp_path)
    assert Settings.load() == made
    monkeypatch.setenv("REFSTREAM_AUTH_SECRET", STRONG)
    monkeypatch.setenv("REFSTREAM_CLICK_SECRETS", "")
    given = Settings.load()
    assert given.auth_secret is not None
    assert given.auth_secret.get_secret_value() == STRONG
    assert given.click_secrets == made.click_secrets


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSTREAM_KAFKA", "")
    assert Settings().kafka is None


def test_now_is_utc_and_follows_the_clock_offset() -> None:
    moved = Settings(clock_offset=86_400).now()
    assert moved.tzinfo is UTC
    assert timedelta(hours=23) < moved - datetime.now(UTC) <= timedelta(days=1)


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_sasl_options_reach_the_client() -> None:
    options = Settings(
        kafka="k:9092",
        kafka_security_protocol="SASL_SSL",
        kafka_security_username="u",
        kafka_security_password="p",
    ).kafka_client_options()
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_password"] == "p"
    assert options["ssl_context"].check_hostname


def test_sasl_without_credentials_names_the_variables() -> None:
    with pytest.raises(ValidationError, match="REFSTREAM_KAFKA_SECURITY_USERNAME"):
        Settings(kafka_security_protocol="SASL_SSL")


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({}, "REFSTREAM_AUTH_SECRET"),
        ({"auth_secret": "secret"}, "REFSTREAM_AUTH_SECRET"),  # pragma: allowlist secret
        ({"auth_secret": "a" * 64}, "REFSTREAM_AUTH_SECRET"),
        ({"auth_secret": STRONG[:31]}, "REFSTREAM_AUTH_SECRET"),
        ({"auth_secret": STRONG}, "REFSTREAM_CLICK_SECRETS"),
        ({"auth_secret": STRONG, "click_secrets": {"1": "changeme"}}, r"REFSTREAM_CLICK_SECRETS\[1\]"),
        ({"auth_secret": STRONG, "click_secrets": {"1": STRONG}}, "REFSTREAM_DATA_SECRETS"),
        (
            {"auth_secret": STRONG, "click_secrets": {"1": STRONG}, "data_secrets": {"1": "changeme"}},
            r"REFSTREAM_DATA_SECRETS\[1\]",
        ),
        ({"auth_secret": STRONG, **SECRETS, "clock_offset": 1}, "REFSTREAM_CLOCK_OFFSET"),
    ],
)
def test_missing_and_default_secrets_are_refused_outside_the_local_stack(
    values: dict[str, object], variable: str
) -> None:
    with pytest.raises(SettingsRefused, match=variable):
        Settings.model_validate(values).require_production_secrets()


@pytest.mark.parametrize(
    "values",
    [
        {"auth_secret": STRONG, **SECRETS},
        {"auth_jwks_url": "https://id.example/keys", **SECRETS},
        {"auth_secret": "short", "clock_offset": 5, "local": True},  # pragma: allowlist secret
    ],
)
def test_strong_secrets_and_the_local_stack_are_accepted(values: dict[str, object]) -> None:
    Settings.model_validate(values).require_production_secrets()


def test_secrets_are_not_printed() -> None:
    assert STRONG not in repr(Settings(auth_secret=STRONG, **SECRETS))


def test_an_unreadable_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSTREAM_PORT", "eighty")
    with pytest.raises(SettingsRefused, match=r"REFSTREAM_PORT: .*integer"):
        Settings.load()
