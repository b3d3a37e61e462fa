"""A contact as Mautic shows it, and the signals that rules read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

Kind = Literal["ghost", "lead", "customer"]
KINDS: tuple[Kind, ...] = ("ghost", "lead", "customer")
FieldValue = str | int | float | bool | None
NOTHING: Mapping[str, Any] = MappingProxyType({})

DNC_REASONS = {1: "unsubscribed", 2: "bounced", 3: "manual"}


@dataclass(frozen=True, slots=True)
class Contact:
    """One contact of Mautic, its shapes made regular.

    `fields` holds the values that are not empty, by alias: text as trimmed `str`, numbers as `int`/`float`, booleans
    as `bool`, dates as ISO text in UTC. Times are seconds since 1970, UTC. `dnc` maps a channel (`email`) to Mautic's
    reason (1 unsubscribed, 2 bounced, 3 manual). `complete` is false when custom fields were not part of the answer.
    """

    id: int
    fields: Mapping[str, FieldValue]
    tags: frozenset[str] = frozenset()
    points: int = 0
    stage_id: int | None = None
    owner_id: int | None = None
    dnc: Mapping[str, int] = field(default_factory=dict)
    date_added: int | None = None
    date_modified: int | None = None
    date_identified: int | None = None
    last_active: int | None = None
    complete: bool = True


Outcome = Literal["accepted", "held", "rejected", "missing"]


class VerdictSignal(NamedTuple):
    """What we hold about an address, as rules read it: the policy's outcome and ZeroBounce's own words.

    `expires_at` is the second from which the verdict is no longer fresh; None when it stays so.
    """

    outcome: Outcome
    status: str = ""
    sub_status: str = ""
    at: int | None = None
    fresh: bool = True
    expires_at: int | None = None


NO_VERDICT = VerdictSignal("missing")


class Signals(NamedTuple):
    """Everything that rules may read about one person at one moment.

    `evidence` maps the key of an activity matcher to the ascending times of the matching activity. `segments` and
    `campaigns` hold aliases or names as `Catalogue` gives them. `first_seen` and `last_active` are seconds, UTC.
    `tallies` maps the key of a matcher that scores read to (day, count, day, count, …), days ascending, as `day_of`
    numbers them. `scores` are the points by group, and `total`.
    """

    fields: Mapping[str, FieldValue]
    tags: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    campaigns: frozenset[str] = frozenset()
    dnc: Mapping[str, int] = NOTHING
    evidence: Mapping[str, tuple[int, ...]] = NOTHING
    verdict: VerdictSignal = NO_VERDICT
    first_seen: int | None = None
    last_active: int | None = None
    stage: str | None = None
    kind: Kind | None = None
    tallies: Mapping[str, Sequence[int]] = NOTHING
    scores: Mapping[str, int] = NOTHING

    # As `_replace` does, at a quarter of its cost: it is done for everybody who is decided.

    def with_verdict(self, verdict: VerdictSignal) -> Signals:
        return Signals(*self[:6], verdict, *self[7:])

    def with_kind(self, kind: Kind | None) -> Signals:
        return Signals(*self[:10], kind, *self[11:])


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a Mautic instance has, for rules that name it: read once, kept in the store.

    `fields` maps the alias of a published contact field to its type; the others map Mautic's id to the name that
    people write in rules (segments: alias; stages, forms, assets, emails, pages, campaigns: name). Actions may name a segment by
    its name too, as `segment_names` has it.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[int, str] = field(default_factory=dict)
    segment_names: Mapping[int, str] = field(default_factory=dict)
    campaigns: Mapping[int, str] = field(default_factory=dict)
    stages: Mapping[int, str] = field(default_factory=dict)
    forms: Mapping[int, str] = field(default_factory=dict)
    assets: Mapping[int, str] = field(default_factory=dict)
    emails: Mapping[int, str] = field(default_factory=dict)
    pages: Mapping[int, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    stage_segments: frozenset[str] = frozenset()
    """Aliases of dynamic segments whose filters read a stage, a tag or a field that we may write."""
