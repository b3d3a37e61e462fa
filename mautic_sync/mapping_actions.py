"""What `actions.yaml` means: its mistakes, the circles it could close, and the rules that come of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from mautic_sync.domain.actions import ENDS, LEFT, LOW_VALUE, WHEN, ActionRule, ActionRules, Do, Members
from mautic_sync.domain.activity import Activity
from mautic_sync.domain.conditions import Condition
from mautic_sync.domain.countries import fold
from mautic_sync.domain.grammar import CHANNELS, Leaf, Path, suggestion
from mautic_sync.mapping_files import ActionsFile, ActionText, DoText, StagesFile

LONGEST_KEY = 24
FROM_ENVIRONMENT = "env:"
"""How an address of `notify.to` begins that stands in the environment."""
Problems = Iterator[tuple[Path, str]]


# --- What is wrong with them


def problems_of(file: ActionsFile, stages: StagesFile | None, not_ours: Collection[str]) -> Problems:
    """Place and sentence of each mistake but those of conditions and templates."""
    known = {fold(stage.stage): stage.stage for stage in stages.stages} if stages else None
    names: set[str] = set()
    for index, action in enumerate(file.on):
        here: Path = ("on", index)
        moves = {"enter": action.enter, "leave": action.leave}
        yield from _one_of(here, {**moves, "become": action.become, "when": action.when})
        if action.when is not None and action.name is None:
            yield here, "an action with `when` needs a `name`, under which its state is kept"
        if action.name is not None and action.name in names:
            yield (*here, "name"), f"there are two actions `{action.name}`; rename one"
        if action.name is not None:
            names.add(action.name)
        for key, move in moves.items():
            if move is None:
                continue
            yield from _one_of((*here, key), {"kind": move.kind, "stage": move.stage})
            if move.stage is not None and known is not None and fold(move.stage) not in known:
                told = f"no stage `{move.stage}` is managed here{suggestion(move.stage, known.values())}"
                yield (*here, key, "stage"), told
        yield from _problems_of_do((*here, "do"), action.do, not_ours)


def _one_of(path: Path, keys: Mapping[str, object]) -> Problems:
    given = [key for key, value in keys.items() if value is not None]
    if len(given) != 1:
        wanted = " or ".join(f"`{key}`" for key in keys)
        yield path, f"this takes {wanted}, {'not both' if given else 'and has none of them'}"


def _problems_of_do(here: Path, do: DoText, not_ours: Collection[str]) -> Problems:
    if do == DoText():
        yield here, "this does nothing; say what is to be done, like `{tags: {add: [hot]}}`, or remove the action"
    both = {"segments": do.segments, "campaigns": do.campaigns, "tags": do.tags, "dnc": do.dnc}
    for key, members in both.items():
        for name in sorted(set(members.add) & set(members.remove)):
            yield (*here, key), f"`{name}` is added and removed at once; do one of them"
    for key in ("add", "remove"):
        for index, name in enumerate(getattr(do.tags, key)):
            if name.startswith("-"):
                yield (*here, "tags", key, index), f"`{name}` begins with `-`, which Mautic takes for a removal"
        for index, channel in enumerate(getattr(do.dnc, key)):
            if channel not in CHANNELS:
                told = f"there is no channel `{channel}`{suggestion(channel, CHANNELS)}"
                yield (*here, "dnc", key, index), told
    for alias in do.fields:
        if alias in not_ours:
            yield (*here, "fields", alias), f"`{alias}` is not ours to write; choose a field of its own"
    for place, entry in enumerate(do.notify.to if do.notify is not None else ()):
        if "://" not in entry and not entry.startswith(FROM_ENVIRONMENT):
            told = "this is no address of Apprise, which begins with its service, like `mailtos://` or `slack://`"
            yield (
                (*here, "notify", "to", place),
                f"{told}; where it stands in the environment write `{FROM_ENVIRONMENT}NAME`",
            )


def unset_addresses(file: ActionsFile) -> Problems:
    """Addresses in the environment that are not there now; the worker may have them."""
    for index, action in enumerate(file.on):
        for place, entry in enumerate(action.do.notify.to if action.do.notify is not None else ()):
            name = entry.removeprefix(FROM_ENVIRONMENT)
            if name != entry and not os.environ.get(name):
                path = ("on", index, "do", "notify", "to", place)
                yield path, f"the environment has no {name} here; without it the message is refused"


def templates_of(file: ActionsFile) -> Iterator[tuple[Path, str]]:
    """Every text with placeholders."""
    for index, action in enumerate(file.on):
        here: Path = ("on", index, "do")
        if action.do.note is not None:
            yield (*here, "note"), action.do.note
        if action.do.notify is not None:
            yield (*here, "notify", "text"), action.do.notify.text
        for alias, template in action.do.fields.items():
            yield (*here, "fields", alias), template


# --- Circles: rules that read what actions do


def circles(
    file: ActionsFile,
    readers: Sequence[tuple[str, Path, Leaf]],
    *,
    stages_read_scores: bool,
    follows: Callable[[Leaf], bool],
) -> Iterator[tuple[str, Path, str]]:
    """File, place and what is read, for each leaf of a condition that reads what an action does.

    Points for what a change of stage sets off are no circle while no stage reads points. Tags read by stages and
    scores are looked at where those of validation.yaml are. Activity that an action causes is a circle where what
    counts it decides when the action is done, over however many steps; `follows` tells whether a leaf reads what else
    follows from stages and scores.
    """
    deciding = [_deciding(place, file, readers, follows) for place in range(len(file.on))]
    for name, path, leaf in readers:
        if name not in {"stages", "scoring", "actions"}:
            continue
        for place, action in enumerate(file.on):
            if name != "scoring" or not action.by_stages or stages_read_scores:
                for what in _reads(leaf, action.do, tags=name == "actions"):
                    yield name, path, f"actions.yaml {what}"
            if _part(name, path) in deciding[place]:
                for what in _counts(leaf, action.do):
                    yield name, path, f"actions.yaml {what}"


def _part(file: str, path: Path) -> Path:
    """The part of the rules that a place belongs to: all stages, all groups of scores, a flag, or one action."""
    return path[:2] if file == "actions" else path[:1]


def _deciding(
    place: int, file: ActionsFile, readers: Sequence[tuple[str, Path, Leaf]], follows: Callable[[Leaf], bool]
) -> set[Path]:
    """The parts of the rules that decide when an action is done, those included that decide about these."""
    todo, found = [_decided_in(place, file.on[place])], set[Path]()
    while todo:
        part = todo.pop()
        if part in found:
            continue
        found.add(part)
        for leaf in (leaf for name, path, leaf in readers if _part(name, path) == part):
            ours = follows(leaf)
            todo += [("groups",)] if ours or leaf.subject == "score" else []
            todo += [("stages",)] if ours or leaf.subject in {"kind", "stage"} else []
            todo += [
                _decided_in(other, action)
                for other, action in enumerate(file.on)
                if any(_reads(leaf, action.do, tags=True)) or any(_counts(leaf, action.do))
            ]
    return found


def _decided_in(place: int, action: ActionText) -> Path:
    if action.become is not None:
        return ("low_value" if action.become in {LOW_VALUE, ENDS[LOW_VALUE]} else "hot",)
    return ("stages",) if action.by_stages else ("on", place)


def _reads(leaf: Leaf, do: DoText, *, tags: bool) -> Iterator[str]:
    written = {
        "segment": (do.segments, "changes the members of the segment"),
        "campaign": (do.campaigns, "changes the members of the campaign"),
        "dnc": (do.dnc, "sets do-not-contact for"),
        **({"tag": (do.tags, "sets the tag")} if tags else {}),
    }
    if leaf.subject in written:
        members, told = written[leaf.subject]
        ours = {fold(name) for name in (*members.add, *members.remove)}
        yield from (f"{told} `{name}`" for name in leaf.names if fold(name) in ours)
    if leaf.subject == "field":
        yield from (f"writes the field `{name}`" for name in leaf.names if name.lower() in do.fields)


def _counts(leaf: Leaf, do: DoText) -> Iterator[str]:
    """What an action does that Mautic tells as activity, where the leaf counts that."""
    if leaf.matcher is None:
        return
    caused = {
        "segment.added": ("segment", do.segments.add, "adds to the segment"),
        "segment.removed": ("segment", do.segments.remove, "removes from the segment"),
        "campaign.added": ("campaign", do.campaigns.add, "adds to the campaign"),
        "campaign.removed": ("campaign", do.campaigns.remove, "removes from the campaign"),
        "campaign.event": ("campaign", do.campaigns.add, "adds to the campaign"),
        "dnc.manual": ("channel", do.dnc.add, "sets do-not-contact for"),
    }
    what, names, told = caused.get(leaf.matcher.type, ("", (), ""))
    for name in names:
        spelled = {name, segment_alias(name)} if what == "segment" else {name}
        if any(leaf.matcher.matches(Activity(leaf.matcher.type, 0, {what: one})) for one in spelled):
            yield f"{told} `{name}`"


def segment_alias(name: str) -> str:
    """The alias that Mautic makes of a segment's name."""
    return re.sub(r"[^a-z0-9]+", "-", fold(name)).strip("-")


# --- Rules


def action_rules(file: ActionsFile, stages: Iterable[str], compiled: Callable[[int], Condition | None]) -> ActionRules:
    """`stages` are the names as stages.yaml spells them; `compiled` gives the condition at a place of the list."""
    spelled = {fold(stage): stage for stage in stages}
    plain = Counter(text.name or _plain_name(text) for text in file.on)
    keys: set[str] = set()
    rules: list[ActionRule] = []
    for index, text in enumerate(file.on):
        occasion = _occasion(text, spelled)
        name = text.name or _plain_name(text)
        key, numbered = _slug(name), plain[name] > 1
        if key in keys:
            key = f"{key}-{index + 1}"
        if any(rule.name == name for rule in rules):
            name = f"{name} ({index + 1})"
        keys.add(key)
        rules.append(ActionRule(name, key, occasion, _do(text.do), compiled(index), numbered))
    return ActionRules(tuple(rules), file.notify.max_per_run)


def _occasion(text: ActionText, spelled: Mapping[str, str]) -> str:
    move = text.enter or text.leave
    if move is not None:
        of = f"kind:{move.kind}" if move.stage is None else f"stage:{spelled.get(fold(move.stage), move.stage)}"
        return of if text.enter is not None else f"{LEFT}{of}"
    return text.become if text.become is not None else f"{WHEN}{text.name}"


def _plain_name(text: ActionText) -> str:
    for verb, move in (("enter", text.enter), ("leave", text.leave)):
        if move is not None:
            return f"{verb} {move.kind or move.stage}"
    return f"become {text.become}"


def _slug(name: str) -> str:
    """`become low_value` → `become-low-value`; what is longer or has other letters ends in a digest of all of it."""
    plain = re.sub(r"[^a-z0-9]+", "-", fold(name)).strip("-")
    if len(plain) <= LONGEST_KEY and plain and plain.isascii():
        return plain
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{plain[: LONGEST_KEY - 9].rstrip('-')}-{digest}".lstrip("-")


def _do(text: DoText) -> Do:
    def members(names: str) -> Members:
        both = getattr(text, names)
        return Members(tuple(both.add), tuple(both.remove))

    return Do(
        tags=members("tags"),
        segments=members("segments"),
        campaigns=members("campaigns"),
        dnc=members("dnc"),
        fields=dict(text.fields),
        note=text.note or None,
        owners=tuple(text.owner.round_robin) if text.owner is not None else (),
        replace_owner=text.owner is not None and text.owner.replace,
        notify_to=tuple(dict.fromkeys(text.notify.to)) if text.notify is not None else (),
        notify_text=text.notify.text if text.notify is not None else None,
    )
