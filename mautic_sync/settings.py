"""Every setting, in one model.

Precedence: command line > environment > `*_FILE` secrets > TOML file > defaults. Environment names are
`MAUTIC_SYNC_` + section + `__` + key. Whatever is wrong is told at once, with its place and the nearest right name.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from mautic_sync.cron import Cron
from mautic_sync.errors import ConfigError

ENV_PREFIX = "MAUTIC_SYNC_"
DEFAULT_CONFIG_PATH = Path("config/mautic_sync.toml")
# Names with our prefix that are no settings: where the configuration lies, and what `make live` reads.
OTHER_ENV = {"MAUTIC_SYNC_CONFIG"}
LIVE_ENV_PREFIX = "MAUTIC_SYNC_LIVE_"

DURATION_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LONGEST_DAYS = 36_500


def parse_duration(value: object) -> object:
    """'10m', '10 min', '400d' or a number of seconds → timedelta; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?\s*", value)
        if not found:
            msg = f"{value!r} is no duration; write for example 90s, 10m, 6h or 400d"
            raise ValueError(msg)
        seconds = float(found[1]) * DURATION_UNITS[found[2] or "s"]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    else:
        return value
    if not 0 <= seconds <= LONGEST_DAYS * 86400:
        msg = f"{value!r} is not between 0 and {LONGEST_DAYS} days"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


def _parse_list(value: object) -> object:
    """What a variable or a secret file holds: a JSON list. What it holds is never shown."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        msg = 'this is no JSON list; write for example ["one", "two"]'
        raise ValueError(msg) from None


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        msg = f"{name!r} is no time zone; write for example UTC or Europe/Berlin"
        raise ValueError(msg) from error
    return name


def _cron(expression: str) -> str:
    try:
        Cron(expression)
    except ValueError as error:
        msg = f"{expression!r} is no cron expression (minute hour day month weekday): {error}"
        raise ValueError(msg) from error
    return expression


def web_address(url: str) -> str:
    """The address without a slash at its end. Raises ValueError where it is none, or has a password in it."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = "this is no web address; write for example https://mautic.example.com"
        raise ValueError(msg)
    if parts.username or parts.password:
        msg = "the address contains a user name or password; use mautic.username and mautic.password"
        raise ValueError(msg)
    return url.rstrip("/")


def _region(code: str) -> str:
    if code.upper() not in phonenumbers.SUPPORTED_REGIONS:
        msg = f"{code!r} is no region; write a two-letter country code, for example DE"
        raise ValueError(msg)
    return code.upper()


def _window(text: str) -> str:
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
    if not found or text[:5] == text[6:]:
        msg = f"{text!r} is no window; write for example 22:00-06:00"
        raise ValueError(msg)
    return text


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MauticSettings(Section):
    base_url: Annotated[str, AfterValidator(web_address)] | None = Field(
        None, description="Where Mautic is, for example `https://mautic.example.com`."
    )
    public_url: Annotated[str, AfterValidator(web_address)] | None = Field(
        None, description="Where people open Mautic, for links in notes and messages, if that is not `base_url`."
    )
    client_id: str | None = Field(None, description="OAuth2 client id (client credentials): preferred over Basic auth.")
    client_secret: SecretStr | None = Field(None, description="Secret of the OAuth2 client.")
    username: str | None = Field(None, description="User for Basic auth, the fallback: ten times dearer per call.")
    password: SecretStr | None = Field(None, description="Password for Basic auth.")
    timeout: float = Field(60, gt=0, le=600, description="Seconds to wait for an answer.")
    concurrency: int = Field(
        2, ge=1, le=8, description="Requests in flight at once, at most; half as many when Mautic grows slow."
    )
    page_size: int = Field(500, ge=1, le=5000, description="Contacts per page when reading.")
    batch_size: int = Field(50, ge=1, le=200, description="Contacts per batch when writing; only those without points.")
    settle_after: Duration = Field(
        timedelta(minutes=10),
        description="When a doubtful write that cannot be found counts as not done; at least twice the time-out.",
    )
    verify_tls: bool = Field(default=True, description="Check Mautic's certificate.")
    ca_bundle: Path | None = Field(None, description="File with the certificates of a private authority.")
    allow_http: bool = Field(
        default=False, description="Allow plain HTTP to a host that is not this machine, inside a private network."
    )

    @model_validator(mode="after")
    def _settles_after_the_timeout(self) -> MauticSettings:
        if self.settle_after.total_seconds() < 2 * self.timeout:
            msg = f"settle_after must be at least twice the time-out of {self.timeout:g} s"
            raise ValueError(msg)
        return self


class ZeroBounceSettings(Section):
    api_key: SecretStr | None = Field(None, description="ZeroBounce key. Without one the gate holds nobody.")
    base_url: Annotated[str, AfterValidator(web_address)] = Field(
        "https://api-eu.zerobounce.net/v2", description="Host of ZeroBounce; the EU one unless you choose another."
    )
    bulk_url: Annotated[str, AfterValidator(web_address)] | None = Field(
        None,
        description="Host of ZeroBounce's file API, for `bulk_above` in validation.yaml; not set: "
        "`https://bulkapi.zerobounce.net/v2`, or `base_url` where that is no host of ZeroBounce.",
    )
    max_per_second: float = Field(5, gt=0, le=50, description="Questions to ZeroBounce per second, at most.")
    max_credits_per_run: int = Field(1000, ge=0, description="Hard cap on credits in one run.")
    max_credits_per_day: int = Field(5000, ge=0, description="Hard cap on credits in one day of `time_zone`.")


class StoreSettings(Section):
    url: str = Field("sqlite:///var/mautic_sync.db", description="SQLAlchemy URL of the store.")
    keep_activity: Duration | None = Field(
        None,
        description="How long activity is kept row by row, at least `pull.history`; what is older is folded by full runs "
        "into what the rules need of it. Unset = for ever: rules written later can count only what was not folded.",
    )


class MappingsSettings(Section):
    dir: Path = Field(
        Path("mappings"),
        description="Directory of the rules. A file that it lacks is taken from the packaged copy, and all of them where "
        "there is no `mappings`; a directory that is named here has to exist.",
    )


class PushSettings(Section):
    enabled: bool = Field(default=True, description="false = plan only: nothing is written and no credit is spent.")
    max_change_ratio: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Safety stop: a run that would take more than this share, and at least 20, out of any one kind, "
        "or into `customer`, is refused (exit 3). 1 = off.",
    )
    first_run_max: int = Field(
        1000, ge=0, description="A first push that would change more contacts than this waits for `sync --accept PLAN`."
    )
    max_seconds: float = Field(600, gt=0, description="Writing time per run in seconds; the rest stays pending.")
    window: Annotated[str, AfterValidator(_window)] | None = Field(
        None, description="Hours of `time_zone` in which ghosts are written, for example `22:00-06:00`."
    )


class PullSettings(Section):
    history: Duration = Field(
        timedelta(days=400), description="How far back activity is read at first; rules that look further are refused."
    )


class PhoneSettings(Section):
    default_region: Annotated[str, AfterValidator(_region)] | None = Field(
        None, description="Country of numbers without a country code, unless the contact has one."
    )


class ScheduleSettings(Section):
    sync: Annotated[str, AfterValidator(_cron)] = Field("8-59/15 * * * *", description="Cron of the usual run.")
    full_sync: Annotated[str, AfterValidator(_cron)] = Field("20 3 * * *", description="Cron of the full run.")
    report: Annotated[str, AfterValidator(_cron)] = Field("0 6 * * *", description="Cron of the report.")


class WebSettings(Section):
    host: str = Field("127.0.0.1", description="Address on which the web application listens.")
    port: int = Field(8765, ge=1, le=65535, description="Port on which the web application listens.")
    token: SecretStr | None = Field(None, description="Token of the dashboard; without one there is no dashboard.")
    write_keys: Annotated[list[SecretStr], BeforeValidator(_parse_list)] = Field(
        default_factory=list, description="Keys of the intake; none = no intake."
    )


class LogSettings(Section):
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto`: console on a terminal, JSON lines elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")


class _SecretFiles(PydanticBaseSettingsSource):
    """`MAUTIC_SYNC_MAUTIC__CLIENT_SECRET_FILE=/run/secrets/x` → the content of that file, without its line end."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, path in os.environ.items():
            if not (_is_secret_file(name) and path):
                continue
            try:
                content = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                msg = f"{name}: cannot read the secret from {path}: {reason}"
                raise ConfigError(msg) from error
            if not content:
                msg = f"{name}: the file {path} is empty; put the secret into it"
                raise ConfigError(msg)
            section, _, key = name.upper().removeprefix(ENV_PREFIX).removesuffix("_FILE").lower().partition("__")
            if key:
                values.setdefault(section, {})[key] = content
            else:
                values[section] = content
        return values


class _TomlFile(PydanticBaseSettingsSource):
    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Settings.config_path
        if path is None:
            return {}
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            way_out = (
                "Write it with `mautic-sync init`"
                if isinstance(error, FileNotFoundError)
                else "Give this user the right to read it, or name another with --config"
            )
            msg = f"{path}: cannot be read: {error.strerror}. {way_out}."
            raise ConfigError(msg) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            msg = f"{path}: is not valid TOML: {error}"
            raise ConfigError(msg) from error


class Settings(BaseSettings):
    """All settings. Use `load_settings`, which finds the file and explains what is wrong."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True
    )
    config_path: ClassVar[Path | None] = None

    @model_validator(mode="after")
    def _keeps_what_is_read(self) -> Settings:
        keep, history = self.store.keep_activity, self.pull.history
        if keep is not None and keep < history:
            msg = (
                f"store.keep_activity is {keep.days} d, less than the {history.days} d of pull.history, as far as rules "
                "may look back: lengthen it, or shorten pull.history"
            )
            raise ValueError(msg)
        return self

    mautic: MauticSettings = Field(default_factory=MauticSettings)
    zerobounce: ZeroBounceSettings = Field(default_factory=ZeroBounceSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    mappings: MappingsSettings = Field(default_factory=MappingsSettings)
    push: PushSettings = Field(default_factory=PushSettings)
    pull: PullSettings = Field(default_factory=PullSettings)
    phone: PhoneSettings = Field(default_factory=PhoneSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        "UTC", description="Zone of days: budgets, schedules, date fields."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del env_settings, dotenv_settings, file_secret_settings
        return (init_settings, _Env(settings_cls), _SecretFiles(settings_cls), _TomlFile(settings_cls))


class _Env(EnvSettingsSource):
    """The environment without the `*_FILE` names, which `_SecretFiles` reads. Lists come as they are written there."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        del field_name, field
        return value

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name: value for name, value in super()._load_env_vars().items() if not _is_secret_file(name)}


def _is_secret_file(name: str) -> bool:
    return name.upper().startswith(ENV_PREFIX) and name.upper().endswith("_FILE")


def setting_names() -> dict[str, Any]:
    """Dotted name of each setting → its pydantic field, in the order of the documentation."""
    names: dict[str, Any] = {}
    for section, section_field in Settings.model_fields.items():
        model = section_field.annotation
        if isinstance(model, type) and issubclass(model, Section):
            names.update({f"{section}.{key}": field for key, field in model.model_fields.items()})
        else:
            names[section] = section_field
    return names


def env_name(setting: str) -> str:
    return ENV_PREFIX + setting.upper().replace(".", "__")


def settings_schema() -> dict[str, Any]:
    """JSON Schema of the TOML file."""
    return Settings.model_json_schema()


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read all settings, or raise ConfigError with one line for each thing that is wrong.

    `config` is the file from the command line; else `MAUTIC_SYNC_CONFIG`, else `config/mautic_sync.toml` if there is
    one. `overrides` maps dotted names to values of the command line.
    """
    if config is None and os.environ.get("MAUTIC_SYNC_CONFIG"):
        config = Path(os.environ["MAUTIC_SYNC_CONFIG"])
    if config is None and DEFAULT_CONFIG_PATH.is_file():
        config = DEFAULT_CONFIG_PATH
    _refuse_unknown_env()
    given: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        if key:
            given.setdefault(section, {})[key] = value
        else:
            given[section] = value
    Settings.config_path = config
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem, config) for problem in error.errors())) from None
    finally:
        Settings.config_path = None


def _refuse_unknown_env() -> None:
    known = {env_name(setting) for setting in setting_names()}
    known |= {name + "_FILE" for name in known} | OTHER_ENV
    for name in sorted(os.environ):
        if name.startswith(ENV_PREFIX) and name not in known and not name.startswith(LIVE_ENV_PREFIX):
            within = sorted(one for one in known if one.startswith(f"{name}__") and not one.endswith("_FILE"))
            if within:
                msg = f"environment variable {name} is a section; its settings are {', '.join(within)}"
                raise ConfigError(msg)
            # Without what all of them begin with: else the shortest is near to anything.
            told = _nearest(name.removeprefix(ENV_PREFIX), {one.removeprefix(ENV_PREFIX) for one in known}, ENV_PREFIX)
            msg = f"environment variable {name} names no setting{told}"
            raise ConfigError(msg)


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _explain(problem: Any, config: Path | None) -> str:
    """One line: where, which setting, what is wrong, the nearest right name. Values of secrets are never shown."""
    name = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
    place = _place(name, config)
    if problem["type"] == "extra_forbidden":
        sections = () if "." in name else Settings.model_fields
        return f"{place}: there is no setting {name}{_nearest(name, [*sections, *setting_names()])}"
    message = problem["msg"].removeprefix("Value error, ")
    if not name:  # two settings that do not fit: the message names both
        return f"{_place('store.keep_activity', config)}: {message}"
    return f"{place}: {name}: {message}"


def _place(name: str, config: Path | None) -> str:
    for variable in (env_name(name), f"{env_name(name)}_FILE"):
        if os.environ.get(variable):
            return f"environment variable {variable}"
    if config is None:
        return "settings"
    section, _, key = name.rpartition(".")
    current = ""
    for number, line in enumerate(config.read_text(encoding="utf-8").splitlines(), start=1):
        header = re.fullmatch(r"\s*\[([\w.]+)\]\s*(?:#.*)?", line)
        if header:
            current = header[1]
            if current == name:
                return f"{config}, line {number}"
        elif current == section and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return f"{config}, line {number}"
    return str(config)
