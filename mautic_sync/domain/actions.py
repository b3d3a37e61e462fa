"""What sets off an action, and what an action is: pure.

An occasion is a word for one transition of one person: `stage:Lead` and `kind:lead` (entered, and settled in Mautic),
`-stage:Lead` and `-kind:lead` (left), `hot` and `cold`, `low_value` and `not_low_value`, and `when:<name>` for a
condition that became true.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import orjson

from mautic_sync.domain.conditions import Condition

HOT, LOW_VALUE = "hot", "low_value"
ENDS = {HOT: "cold", LOW_VALUE: "not_low_value"}
"""Flag → the occasion of its end."""
WHEN = "when:"
"""Beginning of the flag of a condition that is true, and of the occasion when it becomes so."""
LEFT = "-"
"""Beginning of the occasion that somebody leaves what follows."""


@dataclass(frozen=True, slots=True)
class Members:
    """Names to add and to remove."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        return (*self.add, *self.remove)


@dataclass(frozen=True, slots=True)
class Do:
    """What is done to one person; texts are templates. `notify_to` holds addresses, which may be secrets."""

    tags: Members = Members()
    segments: Members = Members()
    campaigns: Members = Members()
    dnc: Members = Members()
    fields: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    owners: tuple[int | str, ...] = ()
    replace_owner: bool = False
    notify_to: tuple[str, ...] = field(default=(), repr=False)
    notify_text: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All templates."""
        return (*self.fields.values(), *filter(None, (self.note, self.notify_text)))


@dataclass(frozen=True, slots=True)
class ActionRule:
    """One action of `mappings/actions.yaml`.

    `name` is what people read, `key` the same in [a-z0-9-], both different for each rule. `condition` belongs to the
    occasion `when:<name>`. `numbered`: others have no name of their own either, and which is meant depends on their order.
    """

    name: str
    key: str
    occasion: str
    do: Do
    condition: Condition | None = None
    numbered: bool = False


@dataclass(frozen=True)
class ActionRules:
    """All actions, and how many messages a run may send one by one."""

    rules: tuple[ActionRule, ...] = ()
    notify_max: int = 20
    by_occasion: Mapping[str, tuple[ActionRule, ...]] = field(init=False, repr=False, compare=False)
    named: tuple[tuple[str, Condition], ...] = field(init=False, repr=False, compare=False)
    """Flag and condition of the rules with `when`."""

    def __post_init__(self) -> None:
        by: dict[str, tuple[ActionRule, ...]] = {}
        for rule in self.rules:
            by[rule.occasion] = (*by.get(rule.occasion, ()), rule)
        object.__setattr__(self, "by_occasion", by)
        named = tuple((rule.occasion, rule.condition) for rule in self.rules if rule.condition is not None)
        object.__setattr__(self, "named", named)

    def of(self, occasions: Collection[str]) -> tuple[ActionRule, ...]:
        """The actions that these occasions set off, in the order of the file."""
        found = {rule.key for occasion in occasions for rule in self.by_occasion.get(occasion, ())}
        return tuple(rule for rule in self.rules if rule.key in found)

    def meant(self, name: str, occasion: str, *, numbered: bool) -> ActionRule | None:
        """The rule that an action was stored for, `numbered` or not, as it is now; None where it cannot be told."""
        rule = next((rule for rule in self.rules if (rule.name, rule.occasion) == (name, occasion)), None)
        return None if rule is None or rule.numbered or numbered else rule


def moved(from_stage: str | None, from_kind: str | None, to_stage: str, to_kind: str) -> tuple[str, ...]:
    """The occasions of a change of stage: what is left, then what is entered.

    A kind is left only for another one, and entered only from another one or from none.
    """
    left = [f"{LEFT}stage:{from_stage}"] if from_stage is not None and from_stage != to_stage else []
    if from_kind == to_kind:
        return (*left, f"stage:{to_stage}")
    left += [f"{LEFT}kind:{from_kind}"] if from_kind is not None else []
    return (*left, f"stage:{to_stage}", f"kind:{to_kind}")


class Turn(NamedTuple):
    """One flag that came or went: the occasion, and the one that it takes back while nothing was done about it."""

    occasion: str | None
    takes_back: str | None


def flag_edit(occasion: str) -> str | None:
    """The flag that came (`hot`) or went (`-hot`) with an occasion; None for those of stages and kinds."""
    if occasion in ENDS or occasion.startswith(WHEN):
        return occasion
    return next((f"-{flag}" for flag, end in ENDS.items() if end == occasion), None)


def occasion_of(edit: str) -> str | None:
    """The occasion at which a flag comes (`hot`) or goes (`-hot`), as `flag_edit` has them; None for one without an end."""
    return ENDS.get(edit[1:]) if edit.startswith("-") else edit


def turns(before: Collection[str], now: Collection[str]) -> tuple[Turn, ...]:
    """What the flags `before` and `now` set off."""
    came = (Turn(flag, ENDS.get(flag)) for flag in sorted(set(now) - set(before)))
    went = (Turn(ENDS.get(flag), flag) for flag in sorted(set(before) - set(now)))
    return (*came, *went)


def stands(occasion: str, *, stage: str, kind: str, flags: Collection[str]) -> bool:
    """Whether it is still as the occasion says, for somebody who is decided to be so."""
    what, _, name = occasion.removeprefix(LEFT).partition(":")
    if what in {"stage", "kind"}:
        return (name == (stage if what == "stage" else kind)) != occasion.startswith(LEFT)
    ended = next((flag for flag, end in ENDS.items() if end == occasion), None)
    return occasion in flags if ended is None else ended not in flags


# --- Flags as they are kept


NO_FLAGS = "[]"
"""What `flags_text` writes for none."""


@lru_cache(maxsize=4_096)
def flags_text(hot: bool, low_value: bool, named: tuple[str, ...] = ()) -> str:
    """The flags as JSON: `hot`, `low_value`, and `when:<name>` of conditions that are true."""
    flags = [*([HOT] if hot else []), *([LOW_VALUE] if low_value else []), *named]
    return orjson.dumps(flags).decode()


@lru_cache(maxsize=4_096)
def read_flags(text: str | None) -> frozenset[str]:
    """The flags that `flags_text` wrote; none where nothing was decided before."""
    return frozenset(orjson.loads(text)) if text else frozenset()
