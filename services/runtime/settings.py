"""Every setting of refstream, in one typed class. Environment variables with the prefix `REFSTREAM_`."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.cache import CACHE_MB

# Secrets that stand in examples and tutorials; whoever knows one could sign tokens for any partner.
KNOWN_SECRETS = frozenset({"secret", "changeme", "change-me", "development", "refstream", "password", "test"})
SECRETS_DIR = Path("/run/secrets")
"""Where containers and clusters mount secrets: a file for each, named as its variable in lower case."""
MIN_SECRET_CHARACTERS = 32  # HS256 wants a key as long as its hash: 256 bits


class SettingsRefused(Exception):
    """A setting is missing or unsafe. The message names the variable and the cure, for the terminal."""


class Settings(BaseSettings):
    """What a process is told from outside; nothing else reads the environment."""

    model_config = SettingsConfigDict(env_prefix="REFSTREAM_", env_ignore_empty=True, frozen=True, extra="ignore")

    kafka: str | None = Field(None, description="Kafka bootstrap servers, `host:port,host:port`; unset: a local Kafka.")
    redis: str | None = Field(
        None,
        description="Redis or Valkey URL, `redis://…` or `rediss://…`; of a cluster `redis+cluster://…` or "
        "`rediss+cluster://…` with some of its servers, `a:6379,b:6379`. Unset: a local Valkey.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak to Kafka."
    )
    kafka_security_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, where the protocol is a SASL one."
    )
    kafka_security_username: str | None = Field(None, description="SASL user name.")
    kafka_security_password: SecretStr | None = Field(None, description="SASL password.")
    kafka_security_cafile: Path | None = Field(
        None, description="PEM file of the authority that signed Kafka's certificate; unset: the system's authorities."
    )
    kafka_security_certfile: Path | None = Field(None, description="PEM file of a client certificate, for mutual TLS.")
    kafka_security_keyfile: Path | None = Field(None, description="PEM file of that certificate's private key.")
    replication_factor: int = Field(
        0, ge=0, description="Replicas of each topic that `topics` creates; 0: 3, or as many as there are brokers."
    )
    partitions: int = Field(
        4,
        ge=1,
        le=1024,
        description="Partitions of each topic: the most workers a service can use. Never changed later.",
    )

    session_seconds: float = Field(
        10.0, ge=1, le=300, description="After so long without a sign of life a worker's cells are taken over."
    )
    cache_mb: int = Field(
        CACHE_MB,
        ge=1,
        description="About so many MB of a worker's memory hold the states it used last; it takes some 250 beside.",
    )

    auth_secret: SecretStr | None = Field(
        None, description="Shared secret of HS256 bearer tokens, 32 characters or more; or set AUTH_JWKS_URL."
    )
    auth_jwks_url: str | None = Field(None, description="Address of the key set that bearer tokens are signed with.")
    auth_issuer: str = Field("refstream", description="`iss` that a bearer token must carry.")
    auth_audience: str = Field("refstream", description="`aud` that a bearer token must carry.")
    oidc_issuer: str | None = Field(
        None, description="OpenID Connect provider that signs people in to the pages; unset: signed links alone."
    )
    oidc_client_id: str | None = Field(None, description="What the pages are called there.")
    oidc_client_secret: SecretStr | None = Field(None, description="The pages' secret there.")
    click_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="JSON object of key id to secret that sign the click cookie; the last one signs, all are accepted, "
        'so that secrets can be rotated: `{"2025": "…", "2026": "…"}`.',
    )
    data_secrets: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="JSON object of key id to secret that encrypt personal data in Redis; the last one encrypts, all "
        "decrypt. An old one can go after a `refstream rebuild`.",
    )

    rate_limit_partner: int = Field(
        50, ge=0, description="Requests a second of one partner, over 30 s and all API processes; 0: no limit."
    )
    rate_limit_trusted: int = Field(2000, ge=0, description="The same for one `sub` of the platform or of an admin.")
    rate_limit_public: int = Field(
        500, ge=0, description="The same for one network address that follows links without a token."
    )

    public_url: str | None = Field(
        None, description="Address under which browsers reach the API; stands in referral links. Unset: the local port."
    )
    api_url: str | None = Field(
        None, description="Address under which the pages reach the APIs. Unset: the local port."
    )
    port: int = Field(8080, ge=0, le=65535, description="Port of the HTTP API; 0: a free one.")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port on which a worker answers Prometheus and probes; unset: it does not."
    )
    otlp_url: str | None = Field(
        None,
        description="Address of an OpenTelemetry collector (OTLP over HTTP), `http://collector:4318`: workers tell it "
        "of records that have a `traceparent`. Unset: they tell nobody.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; containers set 0.0.0.0.")
    data_dir: Path = Field(Path(".refstream"), description="Data of the local stack: Kafka, Valkey, logs, secrets.")
    cache_dir: Path = Field(
        Path("~/.cache/refstream"), description="Kafka's jars for the local stack, resolved once per machine."
    )
    clock_offset: int = Field(
        0, description="Seconds added to the clock. Local stack only, for trying the calendar; tokens follow it too."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    local: bool = Field(
        False, description="Set by `refstream up` for its own processes: this is a local stack, with generated secrets."
    )
    ready_file: Path | None = Field(
        None, description="Set by `refstream up`: the file that a worker touches when its partitions are opened."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_security_username and self.kafka_security_password
        ):
            raise ValueError(
                "REFSTREAM_KAFKA_SECURITY_PROTOCOL is a SASL one: set REFSTREAM_KAFKA_SECURITY_USERNAME and _PASSWORD"
            )
        return self

    @classmethod
    def load(cls) -> Self:
        """The settings of the environment, then of the files in SECRETS_DIR.

        Raises SettingsRefused that names each variable at fault.
        """
        try:
            return cls(_secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None)
        except ValidationError as error:
            faults = [
                ": ".join(filter(None, ("_".join(["REFSTREAM", *map(str, fault["loc"])]).upper(), fault["msg"])))
                for fault in error.errors()
            ]
            raise SettingsRefused("settings cannot be read:\n  " + "\n  ".join(faults)) from None

    def now(self) -> datetime:
        """The present as an aware UTC time, moved by CLOCK_OFFSET. For the shell only; rules take time from events."""
        return datetime.now(UTC) + timedelta(seconds=self.clock_offset)

    @property
    def data_path(self) -> Path:
        return self.data_dir.expanduser().absolute()

    @property
    def cache_path(self) -> Path:
        return self.cache_dir.expanduser().absolute()

    def kafka_bootstrap(self) -> str:
        """Kafka's address. Raises SettingsRefused where none is set, for processes that start no Kafka themselves."""
        if not self.kafka:
            raise SettingsRefused(
                "REFSTREAM_KAFKA is not set: give Kafka's address, or run `refstream up` for a local one"
            )
        return self.kafka

    def redis_url(self) -> str:
        """Redis' address. Raises SettingsRefused where none is set."""
        if not self.redis:
            raise SettingsRefused(
                "REFSTREAM_REDIS is not set: give Redis' URL, or run `refstream up` for a local Valkey"
            )
        return self.redis

    def kafka_client_options(self) -> dict[str, Any]:
        """Keyword arguments of every aiokafka client: where Kafka is and how to speak to it."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap(),
            "security_protocol": self.kafka_security_protocol,
        }
        if self.kafka_security_protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.kafka_security_cafile)
            if self.kafka_security_certfile:
                context.load_cert_chain(self.kafka_security_certfile, self.kafka_security_keyfile)
            options["ssl_context"] = context
        if self.kafka_security_protocol.startswith("SASL") and self.kafka_security_password:
            options |= {
                "sasl_mechanism": self.kafka_security_sasl_mechanism,
                "sasl_plain_username": self.kafka_security_username,
                "sasl_plain_password": self.kafka_security_password.get_secret_value(),
            }
        return options

    def require_production_secrets(self) -> None:
        """Refuse to serve with secrets that others may know, or with a moved clock.

        Called by every process that checks or signs anything. On the local stack secrets are generated, so there
        only their presence matters. Raises SettingsRefused.
        """
        if not self.auth_secret and not self.auth_jwks_url:
            raise SettingsRefused(
                "REFSTREAM_AUTH_SECRET is not set: give a random secret of 32 characters or more "
                "(`openssl rand -hex 32`), or REFSTREAM_AUTH_JWKS_URL"
            )
        if self.local:
            return
        if self.auth_secret:
            _require_strong("REFSTREAM_AUTH_SECRET", self.auth_secret.get_secret_value())
        for variable, secrets in (("CLICK_SECRETS", self.click_secrets), ("DATA_SECRETS", self.data_secrets)):
            if not secrets:
                raise SettingsRefused(
                    f"REFSTREAM_{variable} is not set: give a JSON object of key id to random secret, "
                    'such as {"1": "<openssl rand -hex 32>"}'
                )
            for key_id, secret in secrets.items():
                _require_strong(f"REFSTREAM_{variable}[{key_id}]", secret.get_secret_value())
        if self.clock_offset:
            raise SettingsRefused("REFSTREAM_CLOCK_OFFSET is for the local stack only: unset it")


def _require_strong(variable: str, secret: str) -> None:
    if secret.lower() in KNOWN_SECRETS or len(set(secret)) < 8:
        raise SettingsRefused(f"{variable} is a default that others know: give a random one (`openssl rand -hex 32`)")
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise SettingsRefused(
            f"{variable} is shorter than {MIN_SECRET_CHARACTERS} characters: give a random one (`openssl rand -hex 32`)"
        )
