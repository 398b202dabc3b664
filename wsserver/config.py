"""Settings: flags over environment over a TOML file over defaults.

Every field is a flag of ``wsserver serve`` (``--admin-port``), a variable (``WSSERVER_ADMIN_PORT``)
and a key of the TOML file (``admin_port``).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    PlainValidator,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wsschema.fields import Email, FieldError, lower_email
from wsserver.bus.choosing import NONE as NO_BUS
from wsserver.bus.choosing import is_bus_url
from wsserver.gate import GateLimits
from wsserver.logs import LogFormat
from wsserver.mail import parse_sender
from wsserver.passwords import WAITING_MAX
from wsserver.smtp import parse_smtp_url
from wsserver.throttle import Rate, parse_rate

PREFIX = "WSSERVER_"
_GATE = GateLimits()


class ConfigurationError(Exception):
    """Settings that can't be served with; the text has a line for each."""


def _split(value: Any) -> Any:
    # A variable that is set to nothing is an empty list: a compose file can't leave one out.
    return re.findall(r"[^,\s]+", value) if isinstance(value, str) else value


def _read_rate(value: Any) -> Rate:
    return value if isinstance(value, Rate) else parse_rate(str(value))


RateSetting = Annotated[Rate, NoDecode, PlainValidator(_read_rate)]


class Settings(BaseSettings):
    """All settings, checked. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    checks_conflicts: ClassVar = True

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8090, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    admin_host: str = Field("127.0.0.1", description="Address of the admin port.")
    admin_port: int = Field(
        8091,
        ge=0,
        le=65535,
        description="Port of the status page, /healthz, /readyz and /metrics; 0 is off.",
    )
    lbry_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the HTTP interface, version 3, of lbryio's wallet-sync-server; 0 is "
        "off. Needs the extra lbry.",
    )
    database_url: str = Field(
        "sqlite:///wallet-sync.db",
        description="SQLAlchemy URL of the database: sqlite:///FILE, or "
        "postgresql://USER:PASSWORD@HOST/DATABASE, which needs the extra postgresql.",
    )
    database_lanes: int = Field(
        4,
        ge=1,
        le=64,
        description="Connections that write to PostgreSQL at once, besides two that read; SQLite "
        "has one.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that serve, one a core; more than one need PostgreSQL.",
    )
    verification: Literal["open", "allowlist", "email"] = Field(
        "allowlist",
        description="Who may register: open (everyone; for development), allowlist, or email.",
    )
    allowlist: Annotated[frozenset[str], NoDecode, BeforeValidator(_split)] = Field(
        frozenset(),
        description="Addresses that may register in mode allowlist, separated by commas.",
    )
    history_depth: int = Field(
        10, ge=1, le=1000, description="States of a wallet kept readable, the latest included."
    )
    wallet_bytes: int = Field(
        256 * 1024, ge=1024, le=16 * 2**20, description="Largest encrypted wallet."
    )
    devices_max: int = Field(64, ge=1, le=1000, description="Devices of one account.")
    token_lifetime_s: int = Field(
        14 * 86_400, ge=60, description="How long a token lives from its last use."
    )
    connections_max: int | None = Field(
        None,
        ge=1,
        description="Open connections; unless given, what the limit of descriptors allows.",
    )
    auth_timeout_s: float = Field(
        30, gt=0, description="How long a connection may take to authenticate."
    )
    ping_interval_s: float = Field(25, gt=0, description="How often the server pings.")
    pong_timeout_s: float = Field(20, gt=0, description="How long a pinged peer may stay silent.")
    drain_timeout_s: float = Field(
        10, gt=0, description="How long a stop may take, from the signal to the exit."
    )
    password_workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="Passwords hashed at once, 32 MiB each. Unless given, the number of cores.",
    )
    password_waiting_max: int = Field(
        WAITING_MAX,
        ge=1,
        description="Logins that may wait for a password to be hashed; more get 429.",
    )
    rate_limits: Literal["on", "off"] = Field(
        "on",
        description="Limits by address, account and connection; off, for load tests, lifts those "
        "from message_rate to sessions_by_account_max.",
    )
    message_rate: RateSetting = Field(
        _GATE.message_rate, description="Messages of one connection; more get 429."
    )
    refusals_max: int = Field(
        _GATE.refusals_max,
        ge=1,
        description="Calls answered with 429 in a row after which a connection is closed.",
    )
    credential_call_rate: RateSetting = Field(
        _GATE.credential_call_rate,
        description="Calls that cost a password hash or a mail, by address; more get 429.",
    )
    prelogin_rate: RateSetting = Field(
        _GATE.prelogin_rate, description="Preludes to a login, by address; more get 429."
    )
    wrong_password_rate: RateSetting = Field(
        _GATE.wrong_password_rate,
        description="Wrong passwords, by account and address together; then logins get 429.",
    )
    letter_rate: RateSetting = Field(
        _GATE.letter_rate, description="Mails to one address; more are not sent."
    )
    connect_rate: RateSetting = Field(
        _GATE.connect_rate,
        description="New connections that don't log in, by address; more are dropped.",
    )
    anonymous_max: int = Field(
        _GATE.anonymous_max,
        ge=1,
        description="Connections that are not authenticated, in all; half of connections_max at "
        "most.",
    )
    anonymous_by_address_max: int = Field(
        _GATE.anonymous_by_address_max,
        ge=1,
        description="Connections that are not authenticated, by address.",
    )
    sessions_by_account_max: int = Field(
        _GATE.sessions_by_account_max,
        ge=1,
        description="Sessions of one account; one more closes the one idle longest.",
    )
    smtp_url: SecretStr | None = Field(
        None,
        description="Mail relay of mode email: smtp://USER:PASSWORD@HOST:587, smtps:// or console:",
    )
    mail_from: str | None = Field(
        None, description="Sender of mails; unless given, wallet-sync@ the public URL's host."
    )
    public_url: str | None = Field(
        None, description="URL that the links in mails lead to, e.g. https://sync.example.com"
    )
    tls_cert: Path | None = Field(None, description="PEM file with the certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's key.")
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)] = (
        Field((), description="Addresses or networks of proxies whose X-Forwarded-For counts.")
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Origins of the pages that may connect; unless given, all."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged; SIGUSR1 switches to debug and back."
    )
    log_format: LogFormat = Field(
        "auto",
        description="How it is: console, for people, json, a document a line, or auto: console on "
        "a terminal, else json.",
    )
    bus_url: SecretStr | None = Field(
        None,
        description="Bus between the nodes of one database: postgresql://, nats:// or tls:// (with "
        "commas between servers), or none: one process alone. Unless given, PostgreSQL itself.",
    )
    bus_credentials: Path | None = Field(
        None, description="File with the credentials for a bus on NATS."
    )
    bus_authorities: Path | None = Field(
        None,
        description="PEM file with the authorities that a bus with tls:// is trusted by. Unless "
        "given, the system's.",
    )

    @field_validator("allowlist")
    @classmethod
    def _check_addresses(cls, addresses: frozenset[str]) -> frozenset[str]:
        for address in addresses:
            try:
                Email().read(address, "", lenient=False)
            except FieldError as error:
                raise ValueError(f"an address {error.text}") from None
        return frozenset(map(lower_email, addresses))

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/?#\s]+", origin):
                raise ValueError(f"{origin!r} is no origin; it looks like https://app.example.com")
        return origins

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, public_url: str | None) -> str | None:
        if public_url is not None and not re.fullmatch(
            r"https?://[^/?#\s]+(/[^?#\s]*)?", public_url
        ):
            raise ValueError("must be a URL like https://sync.example.com")
        return public_url

    @field_validator("smtp_url")
    @classmethod
    def _check_smtp_url(cls, smtp_url: SecretStr | None) -> SecretStr | None:
        if smtp_url is not None:
            parse_smtp_url(smtp_url.get_secret_value())
        return smtp_url

    @field_validator("mail_from")
    @classmethod
    def _check_mail_from(cls, mail_from: str | None) -> str | None:
        if mail_from is not None:
            parse_sender(mail_from)
        return mail_from

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        conflicts = [text for _, text in find_conflicts(self)]
        if conflicts and self.checks_conflicts:
            raise ValueError("\n".join(conflicts))
        return self

    @field_validator("bus_url")
    @classmethod
    def _check_bus(cls, bus_url: SecretStr | None) -> SecretStr | None:
        if bus_url is not None and not is_bus_url(bus_url.get_secret_value()):
            raise ValueError(
                "must be none, or a URL like nats://bus1:4222,nats://bus2:4222, tls://bus:4222 or "
                "postgresql://HOST/DATABASE"
            )
        return bus_url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


@dataclass(frozen=True, slots=True)
class Examined:
    """What the sources give. ``faults``: a line for each; without any, the settings are in force.

    ``wrong``: what can't be used of it; there, the settings have their defaults.
    """

    settings: Settings
    faults: tuple[str, ...] = ()
    wrong: frozenset[str] = frozenset()


def load_settings(flags: dict[str, Any]) -> Settings:
    """The settings in force, with the flags that are not None before all other sources.

    Raises ConfigurationError that says everything that is wrong at once.
    """
    examined = examine(flags)
    if examined.faults:
        raise ConfigurationError("\n".join(examined.faults))
    return examined.settings


def examine(flags: dict[str, Any]) -> Examined:
    """The settings as far as they can be used, and all that is wrong with them.

    Raises ConfigurationError where the file can't be read, which may hold anything.
    """
    path = find_file(flags)
    flags = {name: flags[name] for name in Settings.model_fields if flags.get(name) is not None}

    class FromAll(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    class Lenient(FromAll):
        model_config = SettingsConfigDict(extra="ignore")
        checks_conflicts = False

    try:
        return Examined(FromAll(**flags))
    except ValidationError as error:
        found = [
            (str(item["loc"][0]), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False, include_context=False, include_input=False)
            if item["loc"]
        ]
    except ValueError as error:
        raise ConfigurationError(f"the configuration file can't be read: {error}") from None
    wrong = frozenset(name for name, _ in found)
    defaults = {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in Settings.model_fields.items()
        if name in wrong
    }
    settings = Lenient(**{**flags, **defaults})
    faults = [_describe_fault(name, text) for name, text in found]
    faults += [text for names, text in find_conflicts(settings) if not wrong & names]
    return Examined(settings, tuple(faults), wrong)


def find_file(flags: dict[str, Any]) -> Path | None:
    """The file with settings, if one is named; raises ConfigurationError where it is not there."""
    path = flags.get("config") or os.environ.get(f"{PREFIX}CONFIG")
    if path and not Path(path).is_file():
        raise ConfigurationError(f"the configuration file {path} does not exist")
    return Path(path) if path else None


def find_conflicts(settings: Settings) -> Iterator[tuple[frozenset[str], str]]:
    """What settings that are right one by one can't be together: their names, and a sentence."""
    if settings.verification == "email":
        if settings.smtp_url is None:
            yield (
                frozenset({"verification", "smtp_url"}),
                "verification 'email' needs WSSERVER_SMTP_URL: the relay that mails go to, or "
                "console: to print them",
            )
        if settings.public_url is None:
            yield (
                frozenset({"verification", "public_url"}),
                "verification 'email' needs WSSERVER_PUBLIC_URL: where the links in mails lead",
            )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        yield (
            frozenset({"tls_cert", "tls_key"}),
            "WSSERVER_TLS_CERT and WSSERVER_TLS_KEY go together",
        )
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        yield (
            frozenset({"workers", "database_url"}),
            f"WSSERVER_WORKERS is {settings.workers}, and one process serves a SQLite file; more "
            "than one need a PostgreSQL database (WSSERVER_DATABASE_URL)",
        )
    if settings.workers > 1 and is_without_bus(settings):
        yield (
            frozenset({"workers", "bus_url"}),
            f"WSSERVER_WORKERS is {settings.workers}, and WSSERVER_BUS_URL is none: without a bus, "
            "a device would not hear of what is pushed at another worker",
        )


def is_without_bus(settings: Settings) -> bool:
    """Whether the bus is turned off."""
    return settings.bus_url is not None and settings.bus_url.get_secret_value() == NO_BUS


def suggest(name: str, known: Collection[str]) -> str:
    """The known name that is nearest, as the end of a sentence; empty where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _describe_fault(name: str, text: str) -> str:
    if name not in Settings.model_fields:
        return f"{name}: there is no such setting{suggest(name, Settings.model_fields)}"
    return f"{name} (--{name.replace('_', '-')}, {PREFIX}{name.upper()}): {text}"
