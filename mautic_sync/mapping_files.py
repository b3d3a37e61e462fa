"""The six files of `mappings/` as people write them: their keys, defaults and JSON Schema, nothing about meaning.

What a file says beyond its form (that stages differ in name, that no rule depends on itself) is checked by
`mautic_sync.mappings`, which turns these models into domain objects.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from mautic_sync.domain.contact import Kind
from mautic_sync.domain.grammar import DURATION_PATTERN, condition_schema, parse_duration
from mautic_sync.domain.journey import FACTS, SPANS
from mautic_sync.mapping_problems import shape

FILES = ("stages", "validation", "fields", "identity", "scoring", "actions")
ZEROBOUNCE_FIELDS = (
    "firstname", "lastname", "gender", "city", "region", "zipcode", "country", "domain", "account", "free_email",
    "mx_found", "mx_record", "smtp_provider", "domain_age_days", "did_you_mean", "active_in_days",
    "active_first_seen", "processed_at",
)  # fmt: skip
"""Fields of ZeroBounce's answer that can be kept in a contact."""
MOST_POINTS = 1_000_000


def without_blanks(model: type[BaseModel], value: object) -> object:
    """A key left blank, everything below it commented out, means its default, where it has one."""
    if not isinstance(value, dict):
        return value
    optional = {key for key, field in model.model_fields.items() if not field.is_required()}
    return {key: inner for key, inner in value.items() if inner is not None or key not in optional}


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: object) -> object:
        return without_blanks(cls, value)


def _never(value: object) -> int | None:
    return None if value == "never" else _some_time(value)


def _some_time(value: object) -> int:
    seconds = parse_duration(value)
    if not seconds:
        raise ValueError(f"`{value}` is no time at all; write at least 1{str(value)[-1]}")
    return seconds


def _version(value: object) -> object:
    if isinstance(value, (bool, float)):  # to Python they equal 1
        raise ValueError(f"{shape(value)} is no version; write `version: 1`")  # noqa: TRY004  # pydantic tells ValueErrors alone
    return value


def _user(value: object) -> object:
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    name = isinstance(value, str) and re.fullmatch(NAME_PATTERN, value) is not None and len(value) <= LONGEST_NAME
    if not number and not name:
        raise ValueError(f"{shape(value)} is no user of Mautic; write an id, like 3, an e-mail address or a name")
    return value


def _text(value: object) -> object:
    if isinstance(value, str) and not value.strip():
        raise ValueError("this text is empty; write some, or leave the key out")
    return value


_DURATION = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["30d", "6h", "15m"]}
Duration = Annotated[int, BeforeValidator(_some_time), WithJsonSchema(_DURATION)]
DurationOrZero = Annotated[int, BeforeValidator(parse_duration), WithJsonSchema(_DURATION)]
DurationOrNever = Annotated[
    int | None, BeforeValidator(_never), WithJsonSchema({"anyOf": [_DURATION, {"const": "never"}]})
]
ConditionText = Annotated[dict[str, Any], WithJsonSchema({"$comment": "condition"})]
NAME_PATTERN = r"^\S(.*\S)?$"
LONGEST_NAME = 191  # characters
Version = Annotated[Literal[1], BeforeValidator(_version)]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=NAME_PATTERN)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
User = Annotated[Positive | Name, BeforeValidator(_user)]
Points = Annotated[int, Field(ge=-MOST_POINTS, le=MOST_POINTS)]
Cap = Annotated[int, Field(ge=1, le=10_000)]


# --- stages.yaml


class StageText(_Model):
    """One stage: its name in Mautic, the kind it stands for and the condition for being in it."""

    stage: Name = Field(description="The stage's name in Mautic.")
    kind: Kind = Field(description="ghost, lead or customer.")
    weight: Count = Field(description="The stage's weight in Mautic: higher kinds have higher weights.")
    sticky: bool = Field(False, description="Whoever has been in it leaves it upwards only.")
    when: ConditionText | None = Field(None, description="Who is in it. The last stage has none: everybody else.")


class LoopGuardText(_Model):
    """When a contact whose stage flips is held."""

    changes: Positive = 3
    within: Duration = 86_400


class StagesFile(_Model):
    """Stages, read from top to bottom: the first whose `when` holds is the contact's stage."""

    version: Version
    stages: list[StageText] = Field(min_length=1)
    takes_over: list[Name] = Field(default=[], description="Stages set by others that we may replace.")
    respect_manual: DurationOrZero = Field(
        90 * 86_400, description="How long a stage that somebody set by hand downwards is left alone."
    )
    loop_guard: LoopGuardText = Field(default=LoopGuardText(), description="Contacts that flip more often are held.")


# --- validation.yaml


class PolicyText(_Model):
    """ZeroBounce's statuses and sub-statuses, sorted by what we make of them."""

    accept: list[Name] = []
    hold: list[Name] = []
    reject: list[Name] = []


class AskAgainText(_Model):
    """How long a verdict is good."""

    accepted: DurationOrNever = 180 * 86_400
    held: list[Duration] = Field(default=[21_600, 86_400, 259_200, 604_800, 2_592_000], min_length=1)
    rejected: DurationOrNever = None


class BudgetText(_Model):
    """Credits that may be spent."""

    per_run: Count = 1_000
    per_day: Count = 5_000


class OnRejectText(_Model):
    """What a contact with a rejected address gets."""

    dnc: bool = False
    tag: Name | None = None


class OnTypoText(_Model):
    """Where a suggested spelling goes."""

    field: Alias


class ValidationFile(_Model):
    """What ZeroBounce's answers mean, when to ask again, and how much may be spent."""

    version: Version
    policy: PolicyText = Field(
        default=PolicyText(
            accept=["valid"],
            hold=[
                "catch-all",
                "unknown",
                "accept_all",
                "role_based_accept_all",
                "ai_agent_mailbox",
                "mailbox_quota_exceeded",
            ],
            reject=["invalid", "spamtrap", "abuse", "do_not_mail"],
        ),
        description="A sub-status decides before the status; what is not named is held.",
    )
    ask_again: AskAgainText = AskAgainText()
    order: list[str] = Field(
        default=["score desc", "identified desc"],
        description="Who is asked first when the budget is short: a key and asc or desc.",
    )
    budget: BudgetText = BudgetText()
    bulk_above: Count = Field(2_000, description="When more addresses wait, they are sent as one file.")
    only_if: ConditionText | None = Field(None, description="Whose address may be sent to ZeroBounce.")
    append: dict[Alias, str] = Field(
        default={}, description="Mautic field: field of the answer. Fills blanks, never overwrites."
    )
    on_reject: OnRejectText = OnRejectText()
    on_typo: OnTypoText | None = None


# --- fields.yaml


class NewFieldText(_Model):
    """A contact field that `init` may create."""

    alias: Alias
    label: Name
    type: Literal["text", "textarea", "number", "boolean", "date", "datetime", "url"] = "text"


class SegmentText(_Model):
    """A dynamic segment over one stage or one tag."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["stage"]}, {"required": ["tag"]}]},
    )
    stage: Name | None = None
    tag: Name | None = None


class FieldsFile(_Model):
    """What is written into Mautic besides stage and points."""

    version: Version
    create: list[NewFieldText] = Field(default=[], description="The only fields that `init` may create.")
    write: dict[Alias, str] = Field(default={}, description="Field: text with placeholders in braces.")
    create_segments: dict[Name, SegmentText] = Field(
        default={}, description="Segments that `init` creates: name and what is in it."
    )


# --- identity.yaml


class PlainKeyText(_Model):
    """A key with nothing to set."""


class UserKeyText(_Model):
    """The client's own user id."""

    field: Alias | None = Field(None, description="The Mautic field that holds it.")


class KeysText(_Model):
    """What tells people apart."""

    email: PlainKeyText = PlainKeyText()
    user: UserKeyText = UserKeyText()
    tracker: PlainKeyText = PlainKeyText()
    subscription: PlainKeyText = PlainKeyText()


class MergeText(_Model):
    """How two contacts in Mautic become one."""

    strategy: Literal["form", "fields", "report"] = "form"
    fallback: Literal["fields", "report"] = "fields"
    delete_loser: bool = False
    non_ghosts: bool = False


class HealText(_Model):
    """What is repaired after a merge that Mautic made by itself."""

    dnc: Literal["always"] = "always"
    stage: bool = True
    fields: bool = True
    static_segments: bool = True


class CapsText(_Model):
    """Beyond these an identity is quarantined."""

    merges_into_one: Positive = 100
    keys_of_a_kind: Positive = 25


class IdentityFile(_Model):
    """Who is who: keys, merges and their limits."""

    version: Version
    keys: KeysText = KeysText()
    never_trust: list[Name] = Field(default=[], description="Values that identify nobody, besides the built-in list.")
    merge: MergeText = MergeText()
    heal: HealText = HealText()
    unknown_subscription: Literal["create", "attach"] = "create"
    ghosts_in_mautic: bool = False
    settle: Duration = 120
    caps: CapsText = CapsText()


# --- scoring.yaml


class ScoreRuleText(_Model):
    """Points for what somebody is (`when`) or does (`on`)."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["when"]}, {"required": ["on"]}]})
    name: Name
    when: ConditionText | None = None
    on: Name | None = Field(None, description="An activity.")
    where: dict[str, Any] | None = None
    unless: ConditionText | None = None
    points: Points
    at_most: Cap | None = Field(None, description="How many times it counts …")
    per: Duration | None = Field(None, description="… in any so many days; for ever without it.")
    once: bool = Field(False, description="It counts the first time only.")


class DecayStepText(_Model):
    """What is left from an age on."""

    after: Duration = Field(description="Age of the activity, in whole days.")
    keep: float = Field(ge=0, lt=1, allow_inf_nan=False, description="Share of the points.")


class DecayText(_Model):
    """How points of a group fade."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["half_life"]}, {"required": ["steps"]}]})
    group: Name = "interest"
    half_life: Duration | None = Field(None, description="The points halve in this time.")
    steps: list[DecayStepText] | None = Field(None, min_length=1, description="Or: what is left from which age on.")


def _none_yet(value: object) -> object:
    return [] if value is None else value


def _several(value: object) -> object:
    if not isinstance(value, (dict, list)):
        told = "`decay` takes a map, like {group: interest, half_life: 90d}, or a list of maps"
        raise ValueError(f"{told}, not {shape(value)}")  # noqa: TRY004  # pydantic tells ValueErrors alone
    return [value] if isinstance(value, dict) else value


def _one_or_several(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [schema["items"], {"type": schema.pop("type"), "items": schema.pop("items")}]


class ScorePushText(_Model):
    """Where scores go in Mautic."""

    to: Literal["points", "none"] = "points"
    groups: list[Name] = []


class HotText(_Model):
    """When somebody becomes hot, and until when they stay so."""

    when: ConditionText
    until: ConditionText | None = None


class LowValueText(_Model):
    """When somebody is of low value."""

    when: ConditionText


class ScoringFile(_Model):
    """Points for fit and interest."""

    version: Version
    grid: Duration = Field(86_400, description="How often scores are evaluated, in whole days.")
    start: Literal["auto", "history", "now"] = "auto"
    groups: dict[Name, Annotated[list[ScoreRuleText], BeforeValidator(_none_yet)]] = {}
    decay: Annotated[list[DecayText], BeforeValidator(_several)] = Field(
        default=[], description="How points fade; one group, or a list.", json_schema_extra=_one_or_several
    )
    push: ScorePushText = ScorePushText()
    hot: HotText | None = None
    low_value: LowValueText | None = None


# --- actions.yaml


class StageOrKindText(_Model):
    """A stage, or any stage of a kind."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["kind"]}, {"required": ["stage"]}]})
    kind: Kind | None = None
    stage: Name | None = None


class AddRemoveText(_Model):
    """Names to add and to remove."""

    add: list[Name] = []
    remove: list[Name] = []


class OwnerText(_Model):
    """Who gets the contact."""

    round_robin: list[User] = Field(description="Ids, e-mail addresses or names of Mautic users, in turn.")
    replace: bool = Field(False, description="Whoever has an owner already gets another one; else they keep theirs.")


class NotifyText(_Model):
    """A message to people."""

    to: list[Name] = Field(
        description="Addresses as Apprise has them, or env:NAME: the address stands in the environment."
    )
    text: Text


class DoText(_Model):
    """What is done."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    segments: AddRemoveText = AddRemoveText()
    campaigns: AddRemoveText = AddRemoveText()
    tags: AddRemoveText = AddRemoveText()
    dnc: AddRemoveText = Field(
        default=AddRemoveText(), description="Channels, like email, for which somebody is not to be contacted."
    )
    fields: dict[Alias, str] = Field(default={}, description="Field: text with placeholders in braces.")
    note: Text | None = None
    owner: OwnerText | None = None
    notify: NotifyText | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All templates."""
        told = (self.note, self.notify.text if self.notify is not None else None)
        return (*self.fields.values(), *filter(None, told))


class ActionText(_Model):
    """One transition and what it sets off."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["enter"]},
                {"required": ["leave"]},
                {"required": ["become"]},
                {"required": ["when", "name"]},
            ]
        }
    )
    enter: StageOrKindText | None = None
    leave: StageOrKindText | None = None
    become: Literal["hot", "cold", "low_value", "not_low_value"] | None = None
    when: ConditionText | None = Field(None, description="Any condition becoming true.")
    name: Name | None = None
    do: DoText

    @property
    def by_stages(self) -> bool:
        """Whether a change of stage sets it off."""
        return self.enter is not None or self.leave is not None


class NotifyLimitText(_Model):
    """Above this many one digest is sent."""

    max_per_run: Count = 20


class ActionsFile(_Model):
    """What is done once per transition."""

    version: Version
    on: list[ActionText] = []
    notify: NotifyLimitText = NotifyLimitText()


MODELS: dict[str, type[_Model]] = {
    "stages": StagesFile,
    "validation": ValidationFile,
    "fields": FieldsFile,
    "identity": IdentityFile,
    "scoring": ScoringFile,
    "actions": ActionsFile,
}


def mappings_schema() -> dict[str, Any]:
    """JSON Schema of each file by its name (`stages`, …), from the models that read it."""
    return {name: _schema(name, model) for name, model in MODELS.items()}


def _schema(name: str, model: type[_Model]) -> dict[str, Any]:
    schema: dict[str, Any] = _with_conditions(model.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"{name}.yaml"
    if "#/$defs/Condition" in str(schema):
        schema.setdefault("$defs", {})["Condition"] = condition_schema()
    return schema


def _with_conditions(part: Any) -> Any:
    if isinstance(part, dict):
        if part.get("$comment") == "condition":
            kept = {key: value for key, value in part.items() if key not in {"$comment", "title"}}
            return {"$ref": "#/$defs/Condition", **kept}
        # Lengths of time are seconds here and text in a file, so their defaults would not fit the schema.
        dropped = {"default"} if "$ref" in part or DURATION_PATTERN in str(part) else set()
        return {key: _with_conditions(value) for key, value in part.items() if key not in dropped}
    if isinstance(part, list):
        return [_with_conditions(one) for one in part]
    return part


# --- Templates --------------------------------------------------------------------------------------------------

SHARED_PLACEHOLDERS = ("reason", "stage", "kind", "score", "verdict.status", "verdict.sub_status", "verdict.at")
"""What the same is said of thousands of people with."""
PERSONAL_PLACEHOLDERS = (
    "reasons", "points", "name", "link", *(f"{span}.{fact}" for span in SPANS for fact in FACTS),
)  # fmt: skip
"""Computed person by person, and only where a template names them; `score.` and a group of scoring.yaml as well."""
FIELD_PLACEHOLDERS = (*SHARED_PLACEHOLDERS, *PERSONAL_PLACEHOLDERS)
ACTION_PLACEHOLDERS = (*FIELD_PLACEHOLDERS, "email", "company", "phone", "mobile", "country")
"""Those of notes and messages."""


def placeholders(template: str) -> list[str]:
    """The names in braces; ValueError with a sentence when a brace stands alone."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the braces do not match ({error}); write {{{{ for a plain brace") from None
    if any(spec or conversion for _text, name, spec, conversion in parts if name is not None):
        raise ValueError("a placeholder is a name alone, without `:` or `!`")
    return [name for _text, name, _spec, _conversion in parts if name is not None]


def fill(template: str, values: dict[str, str]) -> str:
    """The text with every placeholder replaced."""
    return "".join([text if name is None else text + values[name] for text, name in _parts(template)])


@lru_cache(maxsize=1_024)
def _parts(template: str) -> tuple[tuple[str, str | None], ...]:
    return tuple((text, name) for text, name, _spec, _conversion in string.Formatter().parse(template))
