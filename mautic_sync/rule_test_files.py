"""Rule tests as people write them, `mappings/tests/*.yaml`: their keys, and what is wrong with a file, line by line.

Only the form: whether what a test expects is true is found out by `mautic_sync.rule_tests`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from mautic_sync.domain.activity import ACTIVITY_ATTRIBUTES, ACTIVITY_TYPES, ATTRIBUTES_OF
from mautic_sync.domain.conditions import moment_of
from mautic_sync.domain.contact import Kind
from mautic_sync.domain.grammar import (
    CALLED,
    OUTCOMES,
    RELATIVE_PATTERN,
    STATUSES,
    SUB_STATUSES,
    parse_duration,
    parse_moment,
    suggestion,
)
from mautic_sync.mapping_files import Name, Version, without_blanks
from mautic_sync.mapping_problems import FileProblem, MappingsError, SourceFile, existing_path, sentence, shape
from mautic_sync.yaml_text import Document, read_yaml

NAME = "tests"
"""The directory inside the mappings, and the name of the schema."""
NOW = "2026-11-01T12:00:00Z"
MOST_TIMES = 1_000
FIRST_YEAR, LAST_YEAR = 1970, 2999
"""Of any moment: what lies a hundred years before or after it is still a day of the calendar."""
VERDICTS = (*OUTCOMES, *STATUSES)
"""Verdicts in one word; other statuses of ZeroBounce stand in a map."""


def _moment(value: object) -> str:
    text = str(value)
    if parse_moment(text) is None:
        raise ValueError(f"{shape(value)} is no day or moment; write 2026-11-01 or 2026-11-01T12:00:00Z")
    return _in_our_time(text)


def _in_our_time(text: str) -> str:
    if not FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
        raise ValueError(f"`{text}` is out of reach; write a year from {FIRST_YEAR} to {LAST_YEAR}")
    return text


def _when(value: object) -> str:
    text = str(value)
    if text[:1] in {"+", "-"}:
        parse_duration(text[1:])
        if text[0] == "+":
            raise ValueError(f"`{text}` lies ahead of `now`; write how long ago it was, like -2d")
        return text
    if parse_moment(text) is None:
        raise ValueError(f"{shape(value)} is no day or moment; write 2026-11-01, 2026-11-01T12:00:00Z or -30d")
    return _in_our_time(text)


def _one_value(value: object) -> object:
    if isinstance(value, (list, dict)):
        raise ValueError(f"a field has one value, not {shape(value)}; the choices of a multiselect are joined: `a|b`")  # noqa: TRY004  # pydantic tells ValueErrors alone
    return value


_MOMENT_SCHEMA = {"type": "string", "examples": [NOW, "2026-11-01"]}
_WHEN_SCHEMA = {"anyOf": [{"type": "string", "pattern": RELATIVE_PATTERN}, _MOMENT_SCHEMA], "examples": ["-30d"]}
Moment = Annotated[str, BeforeValidator(_moment), WithJsonSchema(_MOMENT_SCHEMA)]
When = Annotated[str, BeforeValidator(_when), WithJsonSchema(_WHEN_SCHEMA)]


class Strict(BaseModel):
    """Nothing but the keys that are named, and nothing made fit."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: object) -> object:
        return without_blanks(cls, value)


class VerdictText(Strict):
    """What ZeroBounce said, and when: whether that still counts is for validation.yaml to say."""

    status: Name
    sub_status: Name | None = None
    at: When | None = Field(None, description="When it said so; now unless given.")


class WasText(Strict):
    """What was decided of the person before."""

    stage: Name | None = None
    kind: Kind | None = None
    hot: bool = False
    low_value: bool = False
    holds: list[Name] = Field(default=[], description="Actions whose `when` held before, by name.")


class PersonText(Strict):
    """One person, as Mautic shows it."""

    fields: dict[Name, Annotated[str | int | float | bool | None, BeforeValidator(_one_value)]] = Field(
        default={}, description="Contact fields by alias."
    )
    tags: list[Name] = []
    segments: list[Name] = Field(default=[], description="Aliases of segments.")
    campaigns: list[Name] = []
    dnc: dict[Literal["email", "sms", "notification"], Literal["unsubscribed", "bounced", "manual"]] = Field(
        default={}, description="Do-not-contact: channel and reason."
    )
    verdict: str | VerdictText | None = Field(
        None, description="accepted, held, rejected, missing; a status of ZeroBounce, or status/sub-status; or a map."
    )
    stage: Name | None = Field(None, description="The stage in Mautic now; that of `was` unless given.")
    kind: Kind | None = Field(None, description="That of `was` unless given.")
    first_seen: When | None = None
    last_active: When | None = None
    was: WasText = WasText()


class ActivityText(Strict):
    """One thing that the person did."""

    type: Name
    at: When | None = Field(None, description="A day, a moment or a distance like -2d …")
    days_ago: int | None = Field(None, ge=0, le=36_600, description="… or whole days before now.")
    times: int = Field(1, ge=1, le=MOST_TIMES, description="How often, all at once.")
    url: str | None = None
    page: str | None = None
    referer: str | None = None
    form: str | None = None
    asset: str | None = None
    email: str | None = None
    campaign: str | None = None
    segment: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None

    @property
    def attributes(self) -> dict[str, str]:
        told = ((name, getattr(self, name)) for name in ACTIVITY_ATTRIBUTES)
        return {name: text for name, text in told if text is not None}


class ExpectText(Strict):
    """What must come of it; at least one of these."""

    kind: Kind | None = None
    stage: Name | None = None
    score: int | None = Field(None, description="The total.")
    scores: dict[Name, int] = Field(default={}, description="Points by group.")
    hot: bool | None = None
    low_value: bool | None = None
    waiting: bool | None = Field(None, description="Kept or held back until a verdict arrives.")
    reason: str | None = Field(None, min_length=1, description="Words that the reason contains.")
    actions: list[Name] | None = Field(
        None, description="Exactly these are set off: names, or `enter customer`, `leave lead`."
    )


class RuleTest(Strict):
    """One person, what it did, and what must come of it."""

    name: Name
    person: PersonText = PersonText()
    activity: list[ActivityText] = []
    expect: ExpectText


class RuleTestsFile(Strict):
    """Examples of what the rules shall say, tried without any Mautic."""

    version: Version
    now: Moment = NOW
    tests: list[RuleTest] = Field(min_length=1)


@dataclass(frozen=True)
class RuleTests:
    """One file with nothing wrong in its form."""

    source: SourceFile
    file: RuleTestsFile

    def line(self, index: int) -> int:
        """Where the test with this number stands."""
        return self.source.document.line(("tests", index))


@lru_cache(maxsize=1)
def rule_tests_schema() -> dict[str, Any]:
    """JSON Schema of the files."""
    schema = RuleTestsFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"{NAME}/*.yaml"
    return schema


def read_rule_tests(directory: Path) -> list[RuleTests]:
    """Every YAML file in `directory`/tests and below, by name. Raises MappingsError with all problems of all files."""
    folder = directory / NAME
    found: list[RuleTests] = []
    problems: list[FileProblem] = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.is_dir() or path.suffix.lower() not in {".yaml", ".yml"}:
            continue
        try:
            document = read_yaml(path.read_bytes())
        except OSError as error:
            problems.append(FileProblem(str(path), 1, "", f"this cannot be read: {error.strerror}"))
            continue
        source = SourceFile(str(path), document)
        file = _form(source, document, problems)
        if file is not None:
            problems += _meaning(source, file)
            found.append(RuleTests(source, file))
    if problems:
        raise MappingsError(problems)
    return found


def _form(source: SourceFile, document: Document, problems: list[FileProblem]) -> RuleTestsFile | None:
    problems += source.problems_of_text()
    if document.problems:
        return None
    if not isinstance(document.value, dict):
        problems.append(
            source.problem((), f"this file is a map of keys, beginning with `version: 1`, not {shape(document.value)}")
        )
        return None
    value = document.value
    try:
        return RuleTestsFile.model_validate(value)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=True):
            path = existing_path(one["loc"], value)
            problems.append(source.problem(path, sentence(dict(one), path, rule_tests_schema())))
    return None


def _meaning(source: SourceFile, file: RuleTestsFile) -> Iterable[FileProblem]:
    """What the models cannot see: activity without a time, empty expectations, names that stand twice."""
    names: set[str] = set()
    for index, test in enumerate(file.tests):
        here = ("tests", index)
        if test.name in names:
            yield source.problem((*here, "name"), f"there are two tests `{test.name}`; rename one")
        names.add(test.name)
        if test.expect == ExpectText():
            told = f"`expect` expects nothing; say what must come of it: {', '.join(ExpectText.model_fields)}"
            yield source.problem((*here, "expect"), told)
        verdict = test.person.verdict
        if isinstance(verdict, str):
            status, slash, sub_status = verdict.partition("/")
            if slash and sub_status not in SUB_STATUSES:
                told = f"there is no sub-status `{sub_status}`{suggestion(sub_status, SUB_STATUSES)}"
                yield source.problem((*here, "person", "verdict"), told)
            if status in SUB_STATUSES:
                told = f"a sub-status stands behind its status, like `invalid/{status}`"
                yield source.problem((*here, "person", "verdict"), told)
            elif status not in (STATUSES if slash else VERDICTS):
                told = f"there is no verdict `{status}`{suggestion(status, VERDICTS)}"
                yield source.problem((*here, "person", "verdict"), told)
        for number, one in enumerate(test.activity):
            at = (*here, "activity", number)
            if "." in one.type and one.type not in ACTIVITY_TYPES:
                told = f"there is no activity `{one.type}`{suggestion(one.type, ACTIVITY_TYPES, CALLED)}"
                yield source.problem((*at, "type"), told)
            if (one.at is None) == (one.days_ago is None):
                yield source.problem(at, "this takes `at` or `days_ago`, one of them")
            known = ATTRIBUTES_OF.get(one.type, ACTIVITY_ATTRIBUTES)
            for name in one.attributes:
                if name not in known:
                    yield source.problem((*at, name), f"`{one.type}` tells no `{name}`{suggestion(name, known)}")


def moment(text: str, time_zone: str, now: int) -> int:
    """Seconds since 1970 of a day, a moment or a distance like -30d; a bare day begins at midnight in the zone."""
    if text[:1] == "-":
        return now - parse_duration(text[1:])
    found = moment_of(text, ZoneInfo(time_zone))
    if found is None:
        raise ValueError(f"{text} was checked to be a moment")
    return found
