"""Transitions → due actions, each stored with its texts rendered in the transaction that saw the transition."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from mautic_sync.destinations.notifications import name_of
from mautic_sync.domain.actions import HOT, LEFT, ActionRule, Do, Members, moved, read_flags, turns
from mautic_sync.domain.journey import moment_text
from mautic_sync.domain.plan import VALUE_OF_KIND
from mautic_sync.mapping_files import fill, placeholders
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.placeholders import placeholders_of
from mautic_sync.store import actions, changes, notes
from mautic_sync.store.changes import Transition

if TYPE_CHECKING:
    from mautic_sync.pipeline.decide import Considered

OWNERS_TURN = "owners_turn"
"""How many contacts each rule has given an owner: rule → count."""
VALUE_OF_HOT = VALUE_OF_KIND["customer"] - 50
LONGEST_TEXT = 2_000
LONGEST_FIELD = 191  # characters; docs/mautic.md: "Writing"


def asked_for(run: Run) -> frozenset[str]:
    """What may set off an action: what rules name, and the stages that had another name when it was set off."""
    former = (f"{sign}stage:{stage}" for stage in run.former_kinds for sign in ("", LEFT))
    return frozenset((*run.mappings.action_rules.by_occasion, *former))


def queue_flags(run: Run, connection: Connection, flagged: Sequence[Considered]) -> None:
    """Store the actions of everybody whose flags were just stored as others than before.

    What is left to do about a flag that went is closed; if nothing was done yet, its opposite has nothing to undo.
    """
    if not flagged or not run.mappings.action_rules.rules:
        return
    found = {one.row.person_id: turns(read_flags(one.row.flags), read_flags(one.flags_text)) for one in flagged}
    back: dict[str, list[int]] = {}
    for number, some in found.items():
        for turn in some:
            if turn.takes_back is not None:
                back.setdefault(turn.takes_back, []).append(number)
    undone = {
        (number, flag)
        for flag, numbers in sorted(back.items())
        for number in actions.take_back(connection, flag, numbers, run.now, run_id=run.id)
    }
    due = []
    for one in flagged:
        number = one.row.person_id
        occasions = [
            turn.occasion
            for turn in found[number]
            if turn.occasion is not None and (number, turn.takes_back) not in undone
        ]
        rules = run.mappings.action_rules.of(occasions)
        due += [(rule, one, key_of(rule, f"{run.id} {number} {rule.occasion}")) for rule in rules]
    queue(run, connection, due)


def queue_by_hand(run: Run, connection: Connection, stages: Mapping[int, str], among: Sequence[Considered]) -> None:
    """Store the actions of those whose stage somebody had set by hand before it was decided; `among` has them."""
    if not stages:
        return
    transitions = changes.settle_by_hand(connection, stages, kinds=run.kinds_ever, run_id=run.id, now=run.now)
    considered = {one.row.person_id: one for one in among}
    due = [
        (rule, considered[one.person_id], key_of(rule, f"{run.id} {one.person_id} stage:{one.to_stage}"))
        for one in transitions
        for rule in set_off(run, one)
    ]
    queue(run, connection, due)


def set_off(run: Run, one: Transition) -> tuple[ActionRule, ...]:
    """The actions of a transition; none where a stage was only put back, or was renamed in the mappings."""
    renamed = one.from_stage not in run.kinds and one.from_kind == one.to_kind
    if not one.moves or renamed:
        return ()
    return run.mappings.action_rules.of(moved(one.from_stage, one.from_kind, one.to_stage, one.to_kind))


def key_of(rule: ActionRule, transition: str) -> str:
    """The key of an action: the rule, and a digest of the transition that set it off."""
    return f"{rule.key}-{hashlib.blake2b(transition.encode(), digest_size=6).hexdigest()}"


def queue(
    run: Run, connection: Connection, due: Sequence[tuple[ActionRule, Considered, str]], *, run_id: str | None = None
) -> None:
    """Store these actions, as those of `run_id`, else of this run.

    Whose turn it is to get a contact moves on in the same transaction.
    """
    if not due:
        return
    personal = {one.row.person_id: one for _, one, _ in due}
    told = placeholders_of(run, run.mappings.placeholders_of_actions).of(connection, list(personal.values()), run.now)
    before: Mapping[str, int] = notes.get_json(connection, OWNERS_TURN) or {}
    counted = dict(before)
    rows = []
    for rule, one, key in due:
        values = _Values(one, told.get(one.row.person_id, {}))
        rows.append(
            {
                "key": key,
                "person_id": one.row.person_id,
                "rule": rule.name,
                "occasion": rule.occasion,
                "todo": _todo(rule, values, counted),
                "value": VALUE_OF_HOT if rule.occasion == HOT else VALUE_OF_KIND[one.decision.kind],
            }
        )
    actions.queue(connection, rows, run_id=run_id or run.id, now=run.now)
    if counted != before:
        notes.put_json(connection, OWNERS_TURN, counted)
    run.tell("actions_due", count=len(rows))


def _todo(rule: ActionRule, values: _Values, counted: dict[str, int]) -> dict[str, Any]:
    """What is to be done, as it is kept: of the addresses of messages, which may be secrets, digests alone."""
    do = rule.do
    todo: dict[str, Any] = {"numbered": True} if rule.numbered else {}
    if do.tags.named:
        todo["tags"] = _tag_edits(do)
    if do.fields:
        todo["fields"] = {
            alias: clean(values.rendered(text).replace("\n", " "))[:LONGEST_FIELD] for alias, text in do.fields.items()
        }
    if do.owners:
        turn = counted.get(rule.name, 0)
        counted[rule.name] = turn + 1
        todo["owner"] = {"user": do.owners[turn % len(do.owners)], "replace": do.replace_owner}
    for name, members in (("dnc", do.dnc), ("segments", do.segments), ("campaigns", do.campaigns)):
        if members.named:
            todo[name] = _as_json(members)
    if do.note is not None:
        todo["note"] = clean(values.rendered(do.note))
    if do.notify_text is not None and do.notify_to:
        todo["notify"] = clean(values.rendered(do.notify_text))
        todo["notify_to"] = [name_of(address) for address in do.notify_to]
    return todo


def named_now(todo: Mapping[str, Any], do: Do, turn: int) -> dict[str, Any]:
    """What is to be done, with all that needs no placeholder as the rule names it now: it may have been corrected.

    The owner whose turn it was comes first of `users`; with an owner who is no longer named, `turn` decides who does.
    """
    told = dict(todo)
    if "tags" in told:
        told["tags"] = _tag_edits(do)
    for name, members in (("dnc", do.dnc), ("segments", do.segments), ("campaigns", do.campaigns)):
        if name in told:
            told[name] = _as_json(members)
    owner = told.pop("owner", None)
    if owner is not None and do.owners:
        first = do.owners.index(owner["user"]) if owner["user"] in do.owners else turn % len(do.owners)
        told["owner"] = {**owner, "users": [*do.owners[first:], *do.owners[:first]]}
    return told


def _tag_edits(do: Do) -> list[str]:
    """Tags as an edit has them."""
    return [*do.tags.add, *(f"-{tag}" for tag in do.tags.remove)]


def _as_json(members: Members) -> dict[str, list[str]]:
    both = {"add": list(members.add), "remove": list(members.remove)}
    return {key: names for key, names in both.items() if names}


def clean(text: str) -> str:
    """Text that Mautic stores as it is sent: without angle brackets, blanks and lines in order, not endless."""
    lines = (" ".join(line.split()) for line in text.replace("<", " ").replace(">", " ").splitlines())
    told = "\n".join(lines).strip()
    return told if len(told) <= LONGEST_TEXT else f"{told[: LONGEST_TEXT - 1]}…"


class _Values:
    """What the placeholders of one person give; `told` has those that are computed person by person."""

    def __init__(self, one: Considered, told: Mapping[str, str]) -> None:
        self._one = one
        self._told = told

    def rendered(self, template: str) -> str:
        return fill(template, {name: self._value(name) for name in placeholders(template)})

    def _value(self, name: str) -> str:
        one, verdict = self._one, self._one.verdict
        if name in self._told:
            return self._told[name]
        if name in {"reason", "stage", "kind", "score"}:
            return str(getattr(one.decision, name))
        if name == "verdict.at":
            return "" if verdict is None else moment_text(verdict.at)
        if name.startswith("verdict."):
            return "" if verdict is None else str(getattr(verdict, name.removeprefix("verdict.")))
        value = one.signals.fields.get(name)
        return "" if value is None else str(value)


def expected(run: Run, planned: Iterable[Transition], waiting: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rule → how often: of what the planned changes of stage will be, and of what is `waiting` already."""
    counted = dict(waiting)
    for one in planned:
        for rule in set_off(run, one):
            counted[rule.name] = counted.get(rule.name, 0) + 1
    return [{"rule": rule, "count": count} for rule, count in sorted(counted.items())]
