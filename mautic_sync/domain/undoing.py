"""The reverse of what a run wrote: pure, and nothing of what somebody has changed since."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mautic_sync.domain.contact import FieldValue
from mautic_sync.domain.plan import CONTACT, POINTS, VALUE_OF_DNC, Change, differing_fields

UNDOES = "undoes"
"""In the `new` of a change: the run that it takes back. It is nobody's transition."""


class LeftAlone(NamedTuple):
    """A part that is not taken back (`stage`, `points`, the alias of a field, `tag:…`, `dnc:…`), and why."""

    what: str
    why: str


@dataclass
class Written:
    """What one run did to one contact, from first to last: stage, fields and tags before and after."""

    stage: tuple[str | None, str] | None = None
    fields: dict[str, tuple[FieldValue, str | None]] = field(default_factory=dict)
    tags: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """Tag → whether the contact carried it before, and after."""
    verdict: str = ""
    flags: dict[str, bool] = field(default_factory=dict)
    """Flag whose coming or going set off an action → whether the contact had it before."""

    def add(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """One change more, `old` and `new` as `Change` has them."""
        if "stage" in new:
            before = old.get("stage") if self.stage is None else self.stage[0]
            self.stage = (before, new["stage"])
        for alias, value in new.get("fields", {}).items():
            first = self.fields.get(alias, (old.get("fields", {}).get(alias), None))[0]
            self.fields[alias] = (first, value)
        for tag in new.get("tags", ()):
            name, carried = tag.removeprefix("-"), not tag.startswith("-")
            self.tags[name] = (self.tags.get(name, (not carried, carried))[0], carried)
        for flag in new.get("flags", ()):
            self.flags.setdefault(flag.removeprefix("-"), flag.startswith("-"))
        self.verdict = new.get("verdict", self.verdict)


def inverted(edits: Iterable[str]) -> list[str]:
    """Edits of tags or flags (`vip`, `-old`) the other way round."""
    return [edit[1:] if edit.startswith("-") else f"-{edit}" for edit in edits]


class Shown(NamedTuple):
    """The contact as Mautic shows it now. `written`: what we asked for, and what Mautic made of it (`Standing`)."""

    stage: str | None
    fields: Mapping[str, FieldValue]
    tags: Collection[str]
    written: Mapping[str, Any]


def undo_contact(
    written: Written, shown: Shown, *, stages: Collection[str], undone: str, value: int
) -> tuple[Change | None, list[LeftAlone]]:
    """One edit that brings stage, fields and tags back to what they were before the run, as far as they still are what
    it made of them. `stages` are those that Mautic lets us set.
    """
    left: list[LeftAlone] = []
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    if written.stage is not None and shown.stage != written.stage[0]:
        before, after = written.stage
        if shown.stage != after:
            left.append(LeftAlone("stage", f"is {shown.stage or 'no stage'} now, no more {after}"))
        elif before is not None and before not in stages:
            left.append(LeftAlone("stage", f"Mautic has no published stage {before} any more"))
        else:
            old["stage"], new["stage"] = after, before
    fields = _fields_back(written, shown, left)
    if fields:
        old["fields"], new["fields"] = {alias: shown.fields.get(alias) for alias in fields}, fields
    tags = [_edit(name, carry=before) for name, (before, _) in _tags_back(written, shown)]
    if tags:
        old["tags"], new["tags"] = [], sorted(tags)
        if written.flags:
            # Not sent: with it the undo can be undone as well.
            new["flags"] = sorted(_edit(flag, carry=before) for flag, before in written.flags.items())
        if written.verdict:
            new["verdict"] = written.verdict
    if not new:
        return None, left
    return Change(CONTACT, old, {**new, UNDOES: undone}, f"undo of {undone}", value), left


def _fields_back(written: Written, shown: Shown, left: list[LeftAlone]) -> dict[str, FieldValue]:
    back: dict[str, FieldValue] = {}
    for alias, (before, after) in written.fields.items():
        there = shown.fields.get(alias)
        if (before or None) == (there or None):
            continue
        if differing_fields({alias: after}, shown.fields, shown.written):
            left.append(LeftAlone(alias, "has another value now"))
        elif isinstance(before, float) and 0 < abs(before) < 1:
            left.append(LeftAlone(alias, "was a number between -1 and 1, which Mautic cannot store over its API"))
        else:
            back[alias] = before
    return back


def _tags_back(written: Written, shown: Shown) -> Iterable[tuple[str, tuple[bool, bool]]]:
    """Tags that are as the run left them; a tag that somebody has taken or given since is as it was before."""
    return ((name, kept) for name, kept in written.tags.items() if kept[0] != kept[1] == (name in shown.tags))


def _edit(name: str, *, carry: bool) -> str:
    return name if carry else f"-{name}"


def undo_dnc(
    target: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    present: int | None,
    ours: bool,
    undone: str,
) -> tuple[Change | None, list[LeftAlone]]:
    """Do-not-contact as it was before the run. What was only put back after a merge stays: somebody asked for it.

    `present` is Mautic's reason now, `ours` whether it is known to be set by us.
    """
    if "verdict" not in new and UNDOES not in new:
        return None, [LeftAlone(target, "was lost in Mautic and put back; whoever unsubscribed stays so")]
    if present == old["reason"]:
        return None, []
    if present != new["reason"] or (present is not None and not ours):
        return None, [LeftAlone(target, "was changed since")]
    after = {"reason": old["reason"], UNDOES: undone}
    if "verdict" in new:
        after["verdict"] = new["verdict"]
    return Change(target, {"reason": present}, after, f"undo of {undone}", VALUE_OF_DNC), []


def undo_points(granted: int, by_run: int, undone: str, value: int) -> Change | None:
    """One signed grant that takes back what the run granted; `granted` is the sum of the account now."""
    if not by_run:
        return None
    new = {"points": granted - by_run, "delta": -by_run, UNDOES: undone}
    return Change(POINTS, {"points": granted}, new, f"undo of {undone}", value)
