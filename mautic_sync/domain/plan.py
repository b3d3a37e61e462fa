"""From a decision to the writes that make Mautic show it: pure, and silent when nothing differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mautic_sync.domain.classification import Decision, StageRules
from mautic_sync.domain.contact import NOTHING, FieldValue

CONTACT = "contact"
"""Target of a change that edits a contact: stage, fields and tags in one item."""
POINTS = "points"
"""Target of a change that grants points, or takes them back."""
GROUPS = "groups"
"""Target of a change that sets sub-scores in Mautic's point groups, all that differ at once."""
GROUP = "group:"
"""Beginning of the names under which `Standing.written` keeps what stands in a point group."""
DNC = "dnc:"
"""Beginning of the targets of changes that set or take back do-not-contact, one for each channel."""
EMAIL_DNC = f"{DNC}email"

# Who is written first when time is short (docs/configuration.md, `push.max_seconds`).
VALUE_OF_KIND = {"ghost": 100, "lead": 200, "customer": 300}
VALUE_OF_DNC = 400


class Standing(NamedTuple):
    """What we last settled in Mautic for a person, and a stage that somebody else set since."""

    stage: str | None = None
    written: Mapping[str, Any] = NOTHING
    """Alias → [what we asked for, what Mautic made of it]; `tag:…` and `dnc:…` → the verdict because of which we did it
    and what we did; `group:…` → the sub-score in a point group and the epoch of that Mautic in which we set it, None
    for one that a merge may have lost."""
    manual_stage: str | None = None
    manual_since: int | None = None


NOTHING_STANDS = Standing()


class Change(NamedTuple):
    """One planned write: what is there, what shall be there, and why."""

    target: str
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    reason: str
    value: int


class StagePlan(NamedTuple):
    """Whether the stage is to be set, and if not, why it is left alone."""

    set_to: str | None = None
    adopted: str | None = None
    """The stage in Mautic is the one decided, though we did not set it: from now on it counts as ours."""
    left_alone: str = ""
    foreign: bool = False
    manual_stage: str | None = None
    manual_since: int | None = None
    due_at: int | None = None


NO_CHANGE = StagePlan()


def plan_stage(decided: str, current: str | None, standing: Standing, rules: StageRules, now: int) -> StagePlan:
    """Whether we may replace `current`, the stage in Mautic now, by the one decided (mappings/stages.yaml).

    An empty stage is filled, and one that we set ourselves replaced, also when no mapping names it any more: it was
    renamed or taken out of the mappings. Any other stage that no mapping names is foreign and left alone unless
    `takes_over` lists it. A managed stage that somebody else set stays: upwards until our evidence overtakes it (then
    it is ours), downwards for `respect_manual` seconds from when we first saw it.
    """
    if current == decided:
        ours = standing.stage == decided and standing.manual_stage is None
        return NO_CHANGE if ours else StagePlan(adopted=decided)
    if current is None or current in rules.takes_over:
        return StagePlan(set_to=decided)
    if current == standing.stage and standing.manual_stage is None:
        return StagePlan(set_to=decided)
    if current not in rules.by_name:
        return StagePlan(left_alone=f"stage {current} was not set by us", foreign=True)
    since = standing.manual_since if standing.manual_stage == current and standing.manual_since else now
    if rules.by_name[current].weight > rules.by_name[decided].weight:
        return StagePlan(
            left_alone=f"stage {current} was set by hand and is higher", manual_stage=current, manual_since=since
        )
    until = since + rules.respect_manual
    if now >= until:
        return StagePlan(set_to=decided)
    return StagePlan(
        left_alone=f"stage {current} was set by hand", manual_stage=current, manual_since=since, due_at=until
    )


def channel_of(target: str) -> str | None:
    """The channel of a do-not-contact target; None for any other target."""
    return target[len(DNC) :] if target.startswith(DNC) else None


def differing_fields(
    wanted: Mapping[str, str | None], present: Mapping[str, FieldValue], written: Mapping[str, Any]
) -> dict[str, str | None]:
    """The fields whose value in Mautic is not the wanted one.

    Mautic may store a value otherwise than it was sent; what it made of our last value counts as that value, so that
    nothing is written again and again.
    """
    changed: dict[str, str | None] = {}
    for alias, value in wanted.items():
        there = present.get(alias)
        if value == there:
            continue
        if (value or None) == (None if there is None else str(there)):
            continue
        asked = written.get(alias)
        if asked is not None and asked[0] == value and asked[1] == there:
            continue
        changed[alias] = value
    return changed


def plan_contact(
    decision: Decision,
    stage: StagePlan,
    *,
    current: str | None,
    fields: Mapping[str, FieldValue],
    tags: frozenset[str],
    standing: Standing,
    wanted_fields: Mapping[str, str | None],
    wanted_tags: Mapping[str, bool],
    verdict: str = "",
) -> Change | None:
    """One edit that brings stage, fields and tags to what they should be, or None when all is well.

    `wanted_tags` maps a tag to whether the contact should carry it because of `verdict`, whatever names that. A tag is
    set or taken away once per verdict: what somebody does about it afterwards stands.
    """
    changed = differing_fields(wanted_fields, fields, standing.written)
    if stage.set_to is None and not changed and not wanted_tags:
        return None
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    if stage.set_to is not None:
        old["stage"], new["stage"] = current, stage.set_to
    if changed:
        old["fields"] = {alias: fields.get(alias) for alias in changed}
        new["fields"] = changed
    edits = [
        tag if carry else f"-{tag}"
        for tag, carry in sorted(wanted_tags.items())
        if (tag in tags) != carry and standing.written.get(f"tag:{tag}") != [verdict, carry]
    ]
    if edits:
        old["tags"], new["tags"], new["verdict"] = [], edits, verdict
    if not new:
        return None
    return Change(CONTACT, old, new, decision.reason, VALUE_OF_KIND[decision.kind])


def plan_points(score: int, granted: int, reason: str, value: int) -> Change | None:
    """One signed grant that brings what Mautic has received from us to `score`, or None when it has that already.

    `granted` is the sum of the ledger. What Mautic itself granted is not in it and stays untouched.
    """
    if score == granted:
        return None
    return Change(POINTS, {"points": granted}, {"points": score, "delta": score - granted}, reason, value)


def plan_groups(
    scores: Mapping[str, int], groups: Sequence[str], written: Mapping[str, Any], epoch: int, value: int
) -> Change | None:
    """The sub-scores of these groups that Mautic's point groups do not have, as absolute values; None: it has them.

    `written` is that of `Standing`. A group that we never wrote to is empty. What was written in another `epoch`, before
    Mautic was set back to a backup, or to somebody who was merged since, may be anything: `old` has None for it.
    """
    old: dict[str, int | None] = {}
    new: dict[str, int] = {}
    for name in groups:
        stands = written.get(f"{GROUP}{name}", (0, epoch))
        there = stands[0] if stands[1] == epoch else None
        if there != scores[name]:
            old[name], new[name] = there, scores[name]
    if not new:
        return None
    told = ", ".join(f"{name} {score}" for name, score in new.items())
    return Change(GROUPS, {"groups": old}, {"groups": new, "epoch": epoch}, f"sub-scores: {told}", value)


@dataclass(frozen=True)
class SafetyLimit:
    """`push.max_change_ratio` with its floor."""

    ratio: float
    floor: int = 20

    def broken_by(
        self, moves: Mapping[tuple[str | None, str], int], totals: Mapping[str, int], vanished: Mapping[str, int]
    ) -> list[str]:
        """Sentences naming each kind that would lose, or `customer` gain, more than the limit.

        `moves` counts planned changes by (kind in Mautic now, kind decided), `totals` the contacts of each kind in
        Mautic now, `vanished` those that disappeared since the last run: they count as taken out.
        """
        if self.ratio >= 1:
            return []
        told = []
        for kind in sorted(totals.keys() | vanished.keys()):
            gone = vanished.get(kind, 0)
            out = gone + sum(count for (source, to), count in moves.items() if source == kind and to != kind)
            before = totals.get(kind, 0) + gone
            if out >= self.floor and out > self.ratio * before:
                told.append(
                    f"{out} of {before} would leave {kind}" + (f" ({gone} vanished from Mautic)" if gone else "")
                )
        into = sum(count for (source, to), count in moves.items() if to == "customer" and source != "customer")
        customers = totals.get("customer", 0)
        if into >= self.floor and into > self.ratio * customers:
            told.append(f"{into} would become customer, beside {customers} there are now")
        return told
