"""The grammar of conditions: what may be written, and everything that is wrong with what was.

A condition is a map with one subject (`field`, `tag`, `activity`, …) and an operator; `all`, `any` and `not` nest.
`parse_condition` reads it into leaves and groups; `mautic_sync.domain.conditions` compiles those. The tables here
are the one definition: the reader, its messages and the JSON Schema (`condition_schema`) follow them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Literal

from mautic_sync.domain.activity import ACTIVITY_ATTRIBUTES, ACTIVITY_TYPES
from mautic_sync.domain.backtracking import many_readings, many_steps
from mautic_sync.domain.contact import DNC_REASONS, KINDS, NOTHING
from mautic_sync.domain.countries import fold
from mautic_sync.domain.matchers import ActivityMatcher, listed

LONGEST_DURATION = 100 * 366 * 86_400  # seconds
DEEPEST = 30  # levels of all, any and not
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (1, "s")),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), (1, "m")),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), (1, "h")),
    **dict.fromkeys(("d", "day", "days"), (1, "d")),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), (1, "w")),
    **dict.fromkeys(("mo", "month", "months"), (30, "d")),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), (365, "d")),
}
"""What people call units of time, in units of the grammar."""
DURATION_PATTERN = r"^[0-9]{1,10}(s|m|h|d|w)$"
RELATIVE_PATTERN = r"^[+-][0-9]{1,10}(s|m|h|d|w)$"

OUTCOMES = ("accepted", "held", "rejected", "missing")
STATUSES = ("valid", "catch-all", "invalid", "do_not_mail", "unknown", "spamtrap", "abuse")
SUB_STATUSES = (
    "accept_all", "ai_agent_mailbox", "alias_address", "allowed", "alternate", "antispam_system", "blocked",
    "disposable", "does_not_accept_mail", "exception_occurred", "failed_smtp_connection", "failed_syntax_check",
    "forcible_disconnect", "global_suppression", "gold", "greylisted", "leading_period_removed",
    "mail_server_did_not_respond", "mail_server_temporary_error", "mailbox_not_found", "mailbox_quota_exceeded",
    "mx_forward", "no_dns_entries", "possible_trap", "possible_typo", "role_based", "role_based_accept_all",
    "role_based_catch_all", "timeout_exceeded", "toxic", "unroutable_ip_address",
)  # fmt: skip
"""ZeroBounce's words as far as they are known: an open vocabulary, so an unknown one is a warning and no error."""
UNCHECKED = "unchecked"
"""Sub-status of an address that counts as accepted because there is nothing to check it with."""
TOTAL = "total"
"""The score that is the sum of all groups; the other scores are groups of scoring.yaml."""
CHANNELS = ("email", "sms", "notification")
"""Of do-not-contact; what extends Mautic may add others, so an unknown one in a condition is a warning."""

CALLED = {
    **dict.fromkeys(
        ("email.open", "email.opened", "email.opens", "mail.open", "mail.opened", "mail.read"), "email.read"
    ),
    **dict.fromkeys(("email.send", "email.delivered", "mail.sent"), "email.sent"),
    **dict.fromkeys(("email.clicked", "email.clicks", "mail.click", "link.click", "link.clicked"), "email.click"),
    **dict.fromkeys(("email.reply", "email.answered"), "email.replied"),
    **dict.fromkeys(("page.view", "page.viewed", "page.visit", "page.visited", "page.open", "url.hit"), "page.hit"),
    **dict.fromkeys(("form.submit", "form.sent", "form.filled", "form.submission"), "form.submitted"),
    **dict.fromkeys(("asset.downloaded", "file.download", "file.downloaded"), "asset.download"),
    **dict.fromkeys(("video.view", "video.watch", "video.watched", "video.play", "video.played"), "video.hit"),
    **dict.fromkeys(("email.unsubscribe", "email.unsubscribed"), "dnc.unsubscribed"),
    **dict.fromkeys(("segment.join", "segment.joined"), "segment.added"),
    **dict.fromkeys(("segment.left", "segment.leave"), "segment.removed"),
    **dict.fromkeys(("campaign.join", "campaign.joined"), "campaign.added"),
    **dict.fromkeys(("campaign.left", "campaign.leave"), "campaign.removed"),
}
"""What people call types of activity."""
Path = tuple[str | int, ...]
Named = Literal["field", "segment", "campaign", "stage", "form", "asset", "email", "page"]
NAMED_WHERE: tuple[Named, ...] = ("form", "asset", "email", "page", "campaign", "segment")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at one place of what a person wrote: the path of keys to it, and a sentence."""

    path: Path
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that a condition names and Mautic must have, unless it is optional."""

    kind: Named
    name: str
    optional: bool
    path: Path


# --- Grammar ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What one kind of condition may say: what its own value is, which operators and which further keys it takes."""

    value: Literal["text", "texts", "duration"]
    operators: tuple[str, ...]
    further: tuple[str, ...] = ()
    needs_operator: bool = False
    several: bool = False  # more than one operator at once
    words: tuple[str, ...] = ()


_ORDER = ("gt", "gte", "lt", "lte", "between")
SUBJECTS: Mapping[str, Subject] = {
    "field": Subject(
        "text",
        (
            "is", "is_not", "in", "not_in", "empty", "not_empty", *_ORDER,
            "like", "starts_with", "ends_with", "matches", "after", "before",
        ),
        needs_operator=True,
    ),
    "tag": Subject("texts", ()),
    "segment": Subject("texts", ()),
    "campaign": Subject("texts", ()),
    "activity": Subject(
        "text", ("at_least", "at_most", "after", "before"), ("where", "within"), several=True
    ),
    "verdict": Subject("texts", ()),
    "score": Subject("text", ("is", "is_not", *_ORDER), needs_operator=True),
    "stage": Subject("texts", ()),
    "kind": Subject("texts", (), words=KINDS),
    "dnc": Subject("texts", ("is", "is_not", "in", "not_in")),
    "age": Subject("duration", _ORDER),
    "idle": Subject("duration", _ORDER),
}  # fmt: skip
GROUPS = ("all", "any", "not")
JOINED = {"and": "all", "or": "any", "none": "not"}
"""What people call the words that join conditions."""
OPTIONAL = "optional"  # may stand beside every subject; it matters where the condition names something of Mautic
OPERATORS: Mapping[str, str] = {
    "is": "value", "is_not": "value", "in": "values", "not_in": "values", "empty": "flag", "not_empty": "flag",
    "gt": "number", "gte": "number", "lt": "number", "lte": "number", "between": "pair", "like": "text",
    "starts_with": "text", "ends_with": "text", "matches": "regex", "at_least": "count", "at_most": "count",
    "after": "date", "before": "date",
}  # fmt: skip
"""Every operator and the shape of what follows it."""


def condition_schema() -> dict[str, Any]:
    """JSON Schema of a condition, from the same tables that read it; it refers to itself as `#/$defs/Condition`."""
    scalar = {"type": ["string", "number", "boolean"]}
    span = {"type": "string", "pattern": DURATION_PATTERN}
    moment = {"type": "string", "pattern": r"^([+-][0-9]{1,10}(s|m|h|d|w)|[0-9]{4}-[0-9]{2}-[0-9]{2}.*)$"}
    shapes: dict[str, dict[str, Any]] = {
        "value": scalar,
        "values": {"type": "array", "items": scalar},
        "flag": {"type": "boolean"},
        "number": {"type": ["number", "string"]},
        "pair": {"type": "array", "items": {"type": ["number", "string"]}, "minItems": 2, "maxItems": 2},
        "text": {"type": ["string", "number"]},
        "regex": {"type": "string", "format": "regex"},
        "count": {"type": "integer", "minimum": 0},
        "date": moment,
    }
    text = {"type": ["string", "number"]}
    this = {"$ref": "#/$defs/Condition"}
    several = {"type": "array", "items": this, "minItems": 1}
    variants: list[dict[str, Any]] = [
        {"type": "object", "required": ["all"], "additionalProperties": False, "properties": {"all": several}},
        {"type": "object", "required": ["any"], "additionalProperties": False, "properties": {"any": several}},
        {"type": "object", "required": ["not"], "additionalProperties": False, "properties": {"not": this}},
    ]
    for name, subject in SUBJECTS.items():
        own: dict[str, Any] = {"enum": list(subject.words)} if subject.words else text
        if subject.value == "texts":
            own = {"anyOf": [own, {"type": "array", "items": own, "minItems": 1}]}
        elif subject.value == "duration":
            own = {"anyOf": [span, {"type": "null"}]}
        further: dict[str, dict[str, Any]] = {
            "optional": {"type": "boolean"},
            "within": span,
            "where": {
                "type": "object",
                "additionalProperties": False,
                "minProperties": 1,
                "properties": {
                    one: {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}
                    for one in ACTIVITY_ATTRIBUTES
                },
            },
        }
        properties: dict[str, Any] = {name: own}
        for operator in subject.operators:
            shape = shapes[OPERATORS[operator]]
            if subject.value == "duration":
                shape = (
                    {"type": "array", "items": span, "minItems": 2, "maxItems": 2} if operator == "between" else span
                )
            properties[operator] = shape
        properties |= {key: further[key] for key in (*subject.further, OPTIONAL)}
        variant = {"type": "object", "required": [name], "additionalProperties": False, "properties": properties}
        if subject.needs_operator:
            variant["oneOf"] = [{"required": [operator]} for operator in subject.operators]
        variants.append(variant)
    return {
        "title": "Condition",
        "description": "One subject with an operator, or all, any, not. See docs/mappings.md.",
        "oneOf": variants,
    }


# --- Parsing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """One subject with its operators, checked."""

    path: Path
    subject: str
    names: tuple[str, ...]
    operators: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False
    matcher: ActivityMatcher | None = None
    within: int | None = None
    at_least_age: int | None = None


@dataclass(frozen=True)
class Group:
    """`all`, `any` or `not` of parts."""

    path: Path
    operator: str
    parts: tuple[Node, ...]


Node = Leaf | Group


def leaves(node: Node | None) -> Iterator[Leaf]:
    """All leaves below a node, in the order in which they are written."""
    if isinstance(node, Leaf):
        yield node
    elif node is not None:
        for part in node.parts:
            yield from leaves(part)


def parse_condition(spec: object, problems: list[Problem], path: Path = (), depth: int = 0) -> Node | None:
    """Read one condition; what is wrong is appended to `problems`, and None returned."""
    if not isinstance(spec, Mapping) or not spec:
        join = "; join several with `all` or `any`" if isinstance(spec, list) and spec else ""
        problems.append(
            Problem(path, f"a condition is a map with one subject, like `{{tag: vip}}`, not {_shown(spec)}{join}")
        )
        return None
    if depth > DEEPEST:
        problems.append(Problem(path, f"conditions nest at most {DEEPEST} deep; split this one"))
        return None
    subjects = [key for key in spec if key in SUBJECTS or key in GROUPS]
    if not subjects:
        word = next(iter(spec))
        problems.append(
            Problem((*path, word), f"no condition begins with `{word}`{suggestion(word, (*SUBJECTS, *GROUPS), JOINED)}")
        )
        return None
    if len(subjects) > 1:
        both = " and ".join(f"`{key}`" for key in subjects)
        problems.append(
            Problem(
                (*path, subjects[1]), f"a condition has one subject, this has {both}; join them with `all` or `any`"
            )
        )
        return None
    if subjects[0] in GROUPS:
        return _parse_group(subjects[0], spec, problems, path, depth)
    return _LeafReader(subjects[0], spec, problems, path).read()


def _parse_group(
    operator: str, spec: Mapping[Any, Any], problems: list[Problem], path: Path, depth: int
) -> Group | None:
    before = len(problems)
    problems.extend(
        Problem((*path, key), f"`{key}` cannot stand beside `{operator}`; put it into a condition of its own")
        for key in spec
        if key != operator
    )
    inner, here = spec[operator], (*path, operator)
    parts: list[Node | None]
    if operator == "not":
        parts = [parse_condition(inner, problems, here, depth + 1)]
    elif not isinstance(inner, list):
        problems.append(Problem(here, f"`{operator}` takes a list of conditions, not {_shown(inner)}"))
        return None
    elif not inner:
        problems.append(Problem(here, f"`{operator}` of an empty list says nothing; give it conditions or remove it"))
        return None
    else:
        parts = [parse_condition(one, problems, (*here, index), depth + 1) for index, one in enumerate(inner)]
    whole = tuple(part for part in parts if part is not None)
    return Group(path, operator, whole) if len(problems) == before or len(whole) == len(parts) else None


class _LeafReader:
    """Reads one leaf; lives as long as that takes."""

    def __init__(self, name: str, spec: Mapping[Any, Any], problems: list[Problem], path: Path) -> None:
        self.name = name
        self.subject = SUBJECTS[name]
        self.spec = spec
        self.problems = problems
        self.path = path
        self.wrong = False

    def problem(self, key: object, text: str, *, warning: bool = False) -> None:
        self.problems.append(Problem((*self.path, str(key)), text, warning))
        self.wrong = self.wrong or not warning

    def read(self) -> Leaf | None:
        allowed = (*self.subject.operators, *self.subject.further, OPTIONAL)
        for key in self.spec:
            if key != self.name and key not in allowed:
                told = (
                    f"`{self.name}` has no operator `{key}`"
                    if key in OPERATORS
                    else f"there is no key `{key}` beside `{self.name}`"
                )
                self.problem(key, told + suggestion_for_key(key, self.spec[key], allowed))
        names = self.names()
        operators = {key: self.operand(key, self.spec[key]) for key in self.subject.operators if key in self.spec}
        self.count_operators(operators)
        optional = self.spec.get("optional", False)
        if not isinstance(optional, bool):
            self.problem("optional", f"`optional` is true or false, not {_shown(optional)}{_by_quotes(optional)}")
        matcher = within = at_least_age = None
        if self.name == "activity":
            matcher, within = self.activity(names)
        if self.subject.value == "duration":
            at_least_age = self.duration(self.name, self.spec[self.name]) if self.spec[self.name] is not None else None
        if self.wrong:
            return None
        return Leaf(self.path, self.name, names, operators, optional, matcher, within, at_least_age)

    def names(self) -> tuple[str, ...]:
        value = self.spec[self.name]
        if self.subject.value == "duration":
            return ()
        many = value if isinstance(value, list) and self.subject.value == "texts" else [value]
        if not many:
            self.problem(self.name, f"`{self.name}` of an empty list says nothing; name at least one")
        found = []
        for one in many:
            if isinstance(one, bool) or not isinstance(one, (str, int, float)) or not str(one).strip():
                self.problem(self.name, f"`{self.name}` takes a name, not {_shown(one)}")
                continue
            found.append(self.name_known(str(one).strip()))
        return tuple(found)

    def name_known(self, name: str) -> str:
        words = self.subject.words
        if self.name == "activity":
            if "." in name and name not in ACTIVITY_TYPES:
                self.problem("activity", f"there is no activity `{name}`{suggestion(name, ACTIVITY_TYPES, CALLED)}")
            elif meant := _type_meant(name):
                told = f"a name without a dot is an event of the intake, spelt exactly so; did you mean `{meant}`?"
                self.problem("activity", told, warning=True)
        elif self.name == "verdict":
            folded = fold(name)
            if folded not in (*OUTCOMES, *STATUSES, *SUB_STATUSES):
                near = difflib.get_close_matches(folded, OUTCOMES, n=1, cutoff=0.75)
                if near:
                    self.problem("verdict", f"there is no verdict `{name}`; did you mean `{near[0]}`?")
                else:
                    self.problem(
                        "verdict",
                        f"ZeroBounce is not known to answer `{name}`{suggestion(name, (*STATUSES, *SUB_STATUSES))}",
                        warning=True,
                    )
            return folded
        elif self.name == "dnc" and name not in CHANNELS:
            told = f"Mautic is not known to have a channel `{name}`{suggestion(name, CHANNELS)}"
            self.problem("dnc", told, warning=True)
        elif words and name not in words:
            self.problem(self.name, f"there is no {self.name} `{name}`{suggestion(name, words)}")
        return name

    def count_operators(self, operators: Mapping[str, Any]) -> None:
        if len(operators) > 1 and not self.subject.several:
            both = " and ".join(f"`{key}`" for key in operators)
            self.problem(
                list(operators)[1], f"a condition has one operator, this has {both}; join two conditions with `all`"
            )
        if self.subject.needs_operator and not any(key in self.spec for key in self.subject.operators):
            self.problem(self.name, f"`{self.name}` needs an operator, one of: {', '.join(self.subject.operators)}")
        if self.subject.value == "duration":
            given = self.spec[self.name] is not None
            if given and operators:
                key = next(iter(operators))
                self.problem(
                    key,
                    f"`{self.name}: {self.spec[self.name]}` already means “at least”; leave it blank to use `{key}`",
                )
            elif not given and not operators:
                self.problem(self.name, f"`{self.name}` needs a length of time, like `{{{self.name}: 30d}}`")

    def activity(self, names: tuple[str, ...]) -> tuple[ActivityMatcher | None, int | None]:
        within = self.duration("within", self.spec["within"]) if "within" in self.spec else None
        for key in ("after", "before"):
            if within is not None and key in self.spec:
                self.problem(key, f"`within` and `{key}` contradict each other; write one of them")
        least, most = self.spec.get("at_least"), self.spec.get("at_most")
        if least == 0 and not isinstance(least, bool):
            self.problem("at_least", "`at_least: 0` always holds; write 1 or more")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            self.problem("at_most", f"nothing is at least {least} and at most {most}")
        where = parse_where(self.spec["where"], self.problems, (*self.path, "where")) if "where" in self.spec else {}
        if where is None:
            self.wrong = True
            return None, within
        return (ActivityMatcher.of(names[0], where) if names else None), within

    def duration(self, key: str, value: object) -> int | None:
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.problem(key, str(error))
            return None
        if not seconds:
            self.problem(key, f"`{key}: {value}` is no time at all; write at least 1{str(value)[-1]}")
        return seconds

    def operand(self, key: str, value: Any) -> Any:
        if self.subject.value == "duration":
            return self.durations(key, value)
        return getattr(self, f"{OPERATORS[key]}_operand")(key, value)

    def durations(self, key: str, value: Any) -> Any:
        if key != "between":
            return self.duration(key, value)
        if not isinstance(value, list) or len(value) != 2:
            self.problem(key, f"`between` takes two values, like [7d, 30d], not {_shown(value)}")
            return None
        low, high = (self.duration(key, one) for one in value)
        if low is not None and high is not None and low > high:
            self.problem(key, f"`between` takes the smaller value first: [{value[1]}, {value[0]}]")
        return low, high

    def value_operand(self, key: str, value: Any) -> Any:
        if self.name == "dnc":
            return self.dnc_reason(key, value)
        if self.name == "score":
            return self.number_operand(key, value)
        if value is None or isinstance(value, (list, Mapping)):
            hint = "for several values write `in`" if isinstance(value, list) else "for no value write `empty: true`"
            self.problem(key, f"`{key}` takes one value, not {_shown(value)}; {hint}")
            return None
        return self.finite(key, value)

    def values_operand(self, key: str, value: Any) -> Any:
        if not isinstance(value, list):
            self.problem(key, f"`{key}` takes a list, like [a, b], not {_shown(value)}")
            return ()
        if any(one is None or isinstance(one, (list, Mapping)) for one in value):
            self.problem(key, f"`{key}` takes a list of texts or numbers, not {_shown(value)}")
            return ()
        if self.name == "dnc":
            return tuple(self.dnc_reason(key, one) for one in value)
        return tuple(self.finite(key, one) for one in value)

    def dnc_reason(self, key: str, value: Any) -> int | None:
        for number, word in DNC_REASONS.items():
            if word == value:
                return number
        self.problem(key, f"do-not-contact has no reason {_shown(value)}{suggestion(value, DNC_REASONS.values())}")
        return None

    def finite(self, key: str, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            self.problem(key, f"{value} is no number that anything could be compared with")
        return value.strip() if isinstance(value, str) else value

    def flag_operand(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.problem(key, f"`{key}` is true or false, not {_shown(value)}{_by_quotes(value)}")
        return value is True

    def number_operand(self, key: str, value: Any) -> float | None:
        number = None if isinstance(value, bool) else as_number(value)
        if number is None:
            dated = isinstance(value, str) and (parse_day(value) or re.fullmatch(RELATIVE_PATTERN, value))
            hint = "; for dates write `after` or `before`" if dated else with_a_point(value)
            self.problem(key, f"`{key}` takes a number, not {_shown(value)}{hint}")
        return number

    def pair_operand(self, key: str, value: Any) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            self.problem(key, f"`between` takes two values, like [1, 10], not {_shown(value)}")
            return None
        if self.name == "field" and all(isinstance(one, str) and parse_day(one) for one in value):
            if parse_day(value[0]) > parse_day(value[1]):  # type: ignore[operator]  # both are days, just checked
                self.problem(key, f"`between` takes the earlier day first: [{value[1]}, {value[0]}]")
            return tuple(value)
        low, high = (self.number_operand(key, one) for one in value)
        if low is not None and high is not None and low > high:
            self.problem(key, f"`between` takes the smaller value first: [{value[1]}, {value[0]}]")
        return low, high

    def text_operand(self, key: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
            self.problem(key, f"`{key}` takes a text, not {_shown(value)}")
        return str(value).strip()

    def regex_operand(self, key: str, value: Any) -> re.Pattern[str] | None:
        if not isinstance(value, str) or not value:
            self.problem(key, f"`{key}` takes a regular expression in quotes, not {_shown(value)}")
            return None
        try:
            return compile_regex(value)
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def count_operand(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            told = f"`{key}` takes a whole number, 0 or more, not {_shown(value)}{_by_quotes(value)}"
            self.problem(key, told)
            return 0
        return value

    def date_operand(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not (re.fullmatch(RELATIVE_PATTERN, value) or parse_moment(value)):
            self.problem(
                key, f"`{key}` takes a day like 2026-11-12 or a distance from now like -30d, not {_shown(value)}"
            )
            return ""
        if value[0] in "+-":
            try:
                parse_duration(value[1:])
            except ValueError as error:
                self.problem(key, str(error))
        return value


def parse_where(spec: Any, problems: list[Problem], path: Path) -> dict[str, str | list[str]] | None:
    """Read what stands under `where:`; None when something is wrong with it."""
    if not isinstance(spec, Mapping) or not spec:
        what = "is empty; write what it compares" if spec == {} else f"is a map, not {_shown(spec)}; write it"
        problems.append(Problem(path, f'`where` {what}, like `{{url: "*/pricing*"}}`'))
        return None
    before = len(problems)
    where: dict[str, str | list[str]] = {}
    for name, wanted in spec.items():
        if name not in ACTIVITY_ATTRIBUTES:
            problems.append(Problem((*path, name), f"`where` knows no `{name}`{suggestion(name, ACTIVITY_ATTRIBUTES)}"))
            continue
        many = wanted if isinstance(wanted, list) else [wanted]
        texts = [str(one).strip() for one in many if isinstance(one, (str, int, float)) and not isinstance(one, bool)]
        if len(texts) != len(many) or not many or not all(texts):
            problems.append(Problem((*path, name), f"`{name}` takes a text or a list of texts, not {_shown(wanted)}"))
            continue
        where[name] = texts if isinstance(wanted, list) else texts[0]
    return where if len(problems) == before else None


_ESCAPED_BY_YAML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""What no text has; YAML makes it of `\\b`, `\\a`, `\\f`, `\\v` and `\\e` in double quotes."""


def compile_regex(text: str) -> re.Pattern[str]:
    """A regular expression that is safe to run on every contact; ValueError with a sentence otherwise."""
    if _ESCAPED_BY_YAML.search(text):
        shown = _ESCAPED_BY_YAML.sub(lambda sign: ascii(sign[0])[1:-1], text)
        raise ValueError(
            f"`{shown}` has a control character: in double quotes YAML takes `\\b` for a backspace; "
            "use single quotes, or write `\\\\b`"
        )
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"`{text}` is not a regular expression: {error}") from None
    if _repeats_repetition(text):
        raise ValueError(
            f"`{text}` repeats a repetition, which can take for ever; write it without the inner or the outer one"
        )
    if many_readings(text):
        raise ValueError(
            f"`{text}` repeats what can be read in several ways, like `(a|aa)+`, which can take for ever; write "
            "alternatives of which each begins or ends with something of its own"
        )
    if many_steps(text):
        raise ValueError(
            f"`{text}` has several repetitions that can match the same characters, like `a*a*a*b`, which can take for "
            "ever; write fewer of them, or between them what they do not match"
        )
    return pattern


_OPEN_END = re.compile(r"[*+]|\{\d*,\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


def _repeats_repetition(text: str) -> bool:
    """Whether a valid expression repeats a group that itself repeats without end, like `(a+)+`: exponential time."""
    inside = [False]
    closed = False
    at = 0
    while at < len(text):
        repeat = _OPEN_END.match(text, at)
        if repeat and closed:
            return True
        if repeat:
            inside[-1], at = True, repeat.end()
        elif text[at] == "(":
            inside.append(False)
            at += 1
        elif text[at] == ")":
            closed = inside.pop()
            inside[-1] = inside[-1] or closed
            at += 1
            continue
        else:
            group = _CLASS.match(text, at)
            at = group.end() if group else at + (2 if text[at] == "\\" else 1)
        closed = False
    return False


def _type_meant(name: str) -> str | None:
    """The type that a name like `page_hit` was likely meant for. Names of several words are events: `Form Submitted`."""
    by_letters = {one.replace(".", ""): one for one in ACTIVITY_TYPES}
    letters = re.sub(r"[^a-z]", "", fold(name))
    found = difflib.get_close_matches(letters, by_letters, n=1, cutoff=0.8)
    return by_letters[found[0]] if found and " " not in name and "." not in name else None


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = str(value)
    return f"`{text}`" if len(text) <= 60 else f"`{text[:60]}…`"


def _by_quotes(value: object) -> str:
    """What to do about a `"3"` or a `"true"`, which only its quotes make a text."""
    return "; remove its quotes" if isinstance(value, str) and re.fullmatch(r"true|false|[0-9]+", value) else ""


def in_typographic_quotes(text: str) -> bool:
    """Whether a text begins or ends with quotes that an editor has made of straight ones, and that YAML takes for text."""
    return text[:1] in _DOUBLE or text[-1:] in _DOUBLE or (text[:1] in _SINGLE and text[-1:] in _SINGLE)


def without_typographic_quotes(text: str) -> str:
    return text.strip("".join(_DOUBLE | _SINGLE) + " ")


_DOUBLE = frozenset("„“”«»")
_SINGLE = frozenset("‚‘’")


def path_text(path: Path) -> str:
    """`('when', 'any', 0)` as people read it: `when.any[0]`."""
    told = ""
    for part in path:
        told += f"[{part}]" if isinstance(part, int) else f".{part}" if told else str(part)
    return told


def requirements_of(leaf: Leaf) -> Iterator[Requirement]:
    """What a Mautic must have for this leaf. Tags are made by use, so they are never required."""
    if leaf.subject in {"field", "segment", "campaign", "stage"}:
        for name in leaf.names:
            yield Requirement(leaf.subject, name, leaf.optional, (*leaf.path, leaf.subject))  # type: ignore[arg-type]
    if leaf.matcher is not None:
        for kind in NAMED_WHERE:
            for name in listed(leaf.matcher.where.get(kind, [])):
                yield Requirement(kind, name, leaf.optional, (*leaf.path, "where", kind))


# --- Words and values


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant, or None."""
    by_fold = {fold(one): one for one in known}
    found = difflib.get_close_matches(fold(str(word)), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None


def suggestion(word: object, known: Iterable[str], called: Mapping[str, str] = NOTHING) -> str:
    """`; did you mean …?`, or a list of what is known when nothing is near.

    `called` has other words for what is known, which are less like it than what is something else.
    """
    known = list(known)
    near = called.get(fold(str(word))) or nearest(word, known)
    if near is not None:
        return f"; did you mean `{near}`?"
    if not known:
        return ""
    listed = ", ".join(f"`{one}`" for one in known[:20])
    return f"; known: {listed}" + (", …" if len(known) > 20 else "")


def suggestion_for_key(key: object, value: object, known: Iterable[str], called: Mapping[str, str] = NOTHING) -> str:
    """The same for a key, which between braces may be the end of a value with a comma: `{keep: 0,5}`, `{in: DE, AT}`."""
    told = suggestion(key, known, called)
    if value is not None or "did you mean" in told:
        return told
    return "; if it ends the value before it: a number has a point (0.5), a list brackets ([a, b]), a text with a comma quotes"


def parse_duration(value: object) -> int:
    """Seconds of `30d`, `6h`, `2w`, `15m`, `90s`; ValueError with a sentence otherwise."""
    if isinstance(value, str) and re.fullmatch(DURATION_PATTERN, value):
        seconds = int(value[:-1]) * SECONDS[value[-1]]
        if seconds <= LONGEST_DURATION:
            return seconds
        raise ValueError(f"`{value}` is longer than a hundred years")
    meant = _duration_meant(value)
    what = f"did you mean `{meant}`?" if meant else "write a whole number and a unit, like 90s, 15m, 6h, 30d, 2w"
    raise ValueError(f"{_shown(value)} is not a length of time; {what}")


def _duration_meant(value: object) -> str | None:
    """`7d` for `7 days`, as far as a whole number and a word for a unit are written."""
    written = re.fullmatch(r"([0-9]{1,10})[\s-]*([a-z]+)\.?", str(value).strip().lower())
    if written is None or written[2] not in _UNITS:
        return None
    times, unit = _UNITS[written[2]]
    return f"{int(written[1]) * times}{unit}"


def duration_text(seconds: int) -> str:
    """The shortest way to write a length of time: `30d`, `36h`, `90s`."""
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % SECONDS[unit] == 0 and (unit != "w" or seconds % (4 * SECONDS["w"])):
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


def as_number(value: object) -> float | None:
    """The number that a value is or spells; booleans are 1 and 0, text that is no finite number is None."""
    if isinstance(value, (int, float)):
        return value if isinstance(value, int) or math.isfinite(value) else None
    if isinstance(value, str):
        return _number_in(value)
    return None


@lru_cache(maxsize=16_384)
def _number_in(text: str) -> float | None:
    if len(text) > 40 or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def with_a_point(value: object) -> str:
    """`; did you mean `0.5`?` for `0,5`; empty for all else."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+,[0-9]+", value):
        return f"; did you mean `{value.replace(',', '.')}`?"
    return ""


def parse_day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None


@lru_cache(maxsize=16_384)
def parse_moment(text: str) -> date | datetime | None:
    """A day, or a moment (UTC unless it names its zone), in ISO 8601 as Mautic sends it."""
    day = parse_day(text)
    if day is not None:
        return day
    if len(text) < 11 or len(text) > 40:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
