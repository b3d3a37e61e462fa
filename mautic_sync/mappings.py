"""The rules people edit, read and checked: the YAML files of `mappings/` become domain objects here and nowhere else.

`load_mappings` reads a directory without any Mautic and lists all that is wrong at once, each with file, line, key
and what to do. `Mappings.bind` compiles the same rules against what one Mautic has. A file that the directory lacks
is taken from the packaged defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from html import unescape
from pathlib import Path
from typing import Literal

from mautic_sync.domain.actions import ActionRules
from mautic_sync.domain.classification import Decision, LoopGuard, StageRule, StageRules
from mautic_sync.domain.conditions import Condition, exists, names_in
from mautic_sync.domain.contact import NOTHING, Catalogue, Outcome
from mautic_sync.domain.countries import fold
from mautic_sync.domain.grammar import Leaf, Named, Requirement, leaves, nearest, requirements_of, suggestion
from mautic_sync.domain.journey import SPANS, STEPS, moment_text
from mautic_sync.domain.matchers import ActivityMatcher
from mautic_sync.domain.scoring import Decay, HotRule, ScoreRule, ScoreRules
from mautic_sync.domain.validation import ValidationRules, Verdict
from mautic_sync.mapping_actions import action_rules, segment_alias
from mautic_sync.mapping_checks import CIRCLE, DAY, Checked, Checker, place_of, segments_of
from mautic_sync.mapping_files import (
    FILES,
    PERSONAL_PLACEHOLDERS,
    SHARED_PLACEHOLDERS,
    ActionsFile,
    IdentityFile,
    fill,
    mappings_schema,
    placeholders,
)
from mautic_sync.mapping_problems import FileProblem, MappingsError, SourceFile
from mautic_sync.yaml_text import Document, YamlProblem, read_yaml

__all__ = [
    "FieldRules",
    "FileProblem",
    "Mappings",
    "MappingsError",
    "NewField",
    "SegmentOf",
    "Templates",
    "load_mappings",
    "load_written",
    "mappings_schema",
    "packaged_mappings_dir",
]

LONGEST_WRITTEN = 191  # characters; a longer text is refused by Mautic (mautic.md: "Writing")
MOST_RENDERED = 4_096  # sets of values that are remembered
_NAMES = {
    "field": "contact field", "segment": "segment", "campaign": "campaign", "stage": "stage", "form": "form", "asset": "asset",
    "email": "e-mail", "page": "landing page",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewField:
    """A contact field that `init` may create; `type` is Mautic's name of the type."""

    alias: str
    label: str
    type: str


@dataclass(frozen=True, slots=True)
class SegmentOf:
    """What a segment that `init` creates filters on: one stage or one tag."""

    stage: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class FieldRules:
    """`mappings/fields.yaml`: fields that may be created, templates by field, and segments by name."""

    create: tuple[NewField, ...] = ()
    write: Mapping[str, str] = field(default_factory=dict)
    create_segments: Mapping[str, SegmentOf] = field(default_factory=dict)


@dataclass(frozen=True)
class Mappings:
    """All rules of one directory.

    `fingerprint` changes when the content of the files, the time zone or, once bound, anything in Mautic changes
    that the rules depend on; comments and layout do not count. `matchers` are those of which evidence must be kept,
    `score_matchers` those whose days are tallied, `activity_types` all types that any file names. `warnings` are
    sentences about what is allowed but looks odd.

    The order of a decision: the score, with which the stages are decided, with which the flags are.
    """

    stages: StageRules
    validation: ValidationRules
    fields: FieldRules
    identity: IdentityFile
    scores: ScoreRules
    actions: ActionsFile
    fingerprint: str
    matchers: tuple[ActivityMatcher, ...]
    activity_types: frozenset[str]
    requirements: tuple[Requirement, ...]
    warnings: tuple[str, ...] = ()
    time_zone: str = "UTC"
    action_rules: ActionRules = field(default_factory=ActionRules)
    _scored_activity: tuple[Leaf, ...] = field(default=(), repr=False, compare=False)
    _sources: Mapping[str, SourceFile] = field(default_factory=dict, repr=False, compare=False)
    _base_fingerprint: str = field(default="", repr=False, compare=False)

    def bind(self, catalogue: Catalogue) -> Mappings:
        """The same rules for one Mautic; MappingsError naming everything they need that it lacks."""
        problems = [*self._missing(catalogue), *self._stage_segments_read(catalogue)]
        if problems:
            raise MappingsError(problems)
        stages = replace(
            self.stages,
            stages=tuple(
                replace(stage, condition=self._compiled(stage.condition, catalogue)) for stage in self.stages.stages
            ),
        )
        has = _Existing(catalogue)
        typo = self.validation.typo_field
        absent = typo is not None and not has.field(typo, self.fields)
        validation = replace(
            self.validation,
            only_if=self._compiled(self.validation.only_if, catalogue),
            typo_field=None if absent else typo,
        )
        warnings = self.warnings
        if absent:
            told = f"this Mautic has no contact field `{typo}`, so suggested spellings are not written; create it, or list it under `create` in fields.yaml"
            warnings = (*warnings, str(self._sources["validation"].problem(("on_typo", "field"), told)))
        warnings = (*warnings, *(str(one) for one in self._unknown_members(catalogue)))
        depends = sorted(
            {
                (one.kind, one.name, has.one(one.kind, one.name), has.type(one.name) if one.kind == "field" else "")
                for one in self.requirements
            }
        )
        return replace(
            self,
            stages=stages,
            validation=validation,
            scores=self._bound_scores(catalogue),
            action_rules=replace(
                self.action_rules,
                rules=tuple(
                    replace(rule, condition=self._compiled(rule.condition, catalogue))
                    for rule in self.action_rules.rules
                ),
            ),
            warnings=warnings,
            fingerprint=_fingerprint([self._base_fingerprint, depends, absent]),
        )

    def as_written(self) -> dict[str, dict[str, object]]:
        """The files as they were read, for `load_written`."""
        return {
            name: {"name": source.name, "packaged": source.packaged, "text": source.text}
            for name, source in self._sources.items()
        }

    def fields_read(self, catalogue: Catalogue) -> frozenset[str]:
        """Aliases of the fields of this Mautic that a rule reads or that we write or fill."""
        named = {one.name for one in self.requirements if one.kind == "field"}
        named |= {*self.fields.write, *self.validation.append, *filter(None, [self.validation.typo_field])}
        wanted = {fold(name) for name in named}
        return frozenset(alias for alias in catalogue.fields if fold(alias) in wanted)

    @property
    def score_matchers(self) -> tuple[ActivityMatcher, ...]:
        """Activity whose days are tallied for the score."""
        return self.scores.matchers

    @property
    def reads_idle(self) -> bool:
        """Whether the time of somebody's last activity decides anything."""
        return any(leaf.subject == "idle" for condition in self._conditions() for leaf in leaves(condition.node))

    def named(self, kind: Named) -> frozenset[str]:
        """Folded names of one kind that rules read: segments by alias, forms, campaigns and so on by name."""
        return frozenset(fold(one.name) for one in self.requirements if one.kind == kind)

    @property
    def catalogues_needed(self) -> frozenset[str]:
        """Which parts of a catalogue `bind` needs beside the fields."""
        needed = {f"{one.kind}s" for one in self.requirements if one.kind != "field"}
        if any(name.endswith(".campaign") for name in self.placeholders | self.placeholders_of_actions):
            needed |= {"campaigns", "emails"}
        rules = self.action_rules.rules
        needed |= {"segments"} if any(rule.do.segments.named for rule in rules) else set()
        needed |= {"campaigns"} if any(rule.do.campaigns.named for rule in rules) else set()
        return frozenset(needed)

    def shown_reasons(self) -> frozenset[str]:
        """Fields that tell the reason of a decision."""
        return frozenset(alias for alias, template in self.fields.write.items() if "{reason}" in template)

    @property
    def placeholders(self) -> frozenset[str]:
        """The placeholders that the templates of fields.yaml name."""
        return frozenset(name for template in self.fields.write.values() for name in placeholders(template))

    @property
    def placeholders_of_actions(self) -> frozenset[str]:
        """Those that the texts of actions name and that are computed person by person."""
        texts = (text for rule in self.action_rules.rules for text in rule.do.texts)
        named = {name for text in texts for name in placeholders(text)}
        return frozenset(name for name in named if name in PERSONAL_PLACEHOLDERS or name.startswith("score."))

    @property
    def shows_points(self) -> bool:
        """Whether a field tells the points that Mautic shows."""
        return "points" in self.placeholders

    @property
    def shown_steps(self) -> frozenset[str]:
        """Types of activity each of which may change a field that tells the first or the last."""
        return STEPS if any(name.startswith(("first.", "last.")) for name in self.placeholders) else frozenset()

    @property
    def written_tags(self) -> frozenset[str]:
        """Tags that we add or remove."""
        tags = {tag for action in self.actions.on for tag in (*action.do.tags.add, *action.do.tags.remove)}
        return frozenset(tags | set(filter(None, [self.validation.reject_tag])))

    @property
    def added_tags(self) -> frozenset[str]:
        """Tags that we add."""
        tags = {tag for action in self.actions.on for tag in action.do.tags.add}
        return frozenset(tags | set(filter(None, [self.validation.reject_tag])))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition of the rules, whatever file has it."""
        return tuple(self._conditions())

    def _conditions(self) -> Iterator[Condition]:
        for stage in self.stages.stages:
            if stage.condition is not None:
                yield stage.condition
        if self.validation.only_if is not None:
            yield self.validation.only_if
        yield from self.scores.conditions
        yield from (condition for _flag, condition in self.action_rules.named)

    def _compiled(self, condition: Condition | None, catalogue: Catalogue) -> Condition | None:
        if condition is None or condition.node is None:
            return condition
        return Condition.build(condition.node, catalogue=catalogue, time_zone=self.time_zone, by_day=condition.by_day)

    def _bound_scores(self, catalogue: Catalogue) -> ScoreRules:
        scores, hot = self.scores, self.scores.hot
        return replace(
            scores,
            rules=tuple(replace(rule, condition=self._compiled(rule.condition, catalogue)) for rule in scores.rules),
            hot=None
            if hot is None
            else HotRule(self._compiled(hot.when, catalogue) or hot.when, self._compiled(hot.until, catalogue)),
            low_value=self._compiled(scores.low_value, catalogue),
        )

    def _missing(self, catalogue: Catalogue) -> Iterator[FileProblem]:
        has = _Existing(catalogue)
        stages, validation, fields, identity = (self._sources[name] for name in FILES[:4])
        per_file = [(stages, stage.condition) for stage in self.stages.stages] + [(validation, self.validation.only_if)]
        for source, condition in per_file:
            for one in condition.requirements if condition else ():
                if not one.optional and not has.one(one.kind, one.name) and not self._created(one):
                    told = _and(self._lacks(has, one), "If it may be missing, add `optional: true`")
                    yield source.problem(one.path, told)
        scoring = self._sources["scoring"]
        for condition in self.scores.conditions:
            for one in condition.requirements:
                if not one.optional and not has.one(one.kind, one.name) and not self._created(one):
                    told = _and(self._lacks(has, one), "If it may be missing, add `optional: true`")
                    yield scoring.problem(one.path, told)
        for one in (one for leaf in self._scored_activity for one in requirements_of(leaf)):
            if not one.optional and not has.one(one.kind, one.name):
                yield scoring.problem(one.path, has.lacks(one.kind, one.name))
        actions = self._sources["actions"]
        for _flag, condition in self.action_rules.named:
            for one in condition.requirements:
                if not one.optional and not has.one(one.kind, one.name) and not self._created(one):
                    told = _and(self._lacks(has, one), "If it may be missing, add `optional: true`")
                    yield actions.problem(one.path, told)
        for index, action in enumerate(self.actions.on):
            for alias in action.do.fields:
                if not has.field(alias, self.fields):
                    yield actions.problem(("on", index, "do", "fields", alias), has.lacks("field", alias))
        for alias in self.fields.write:
            if not has.field(alias, self.fields):
                told = _and(has.lacks("field", alias), "List it under `create` to have it made")
                yield fields.problem(("write", alias), told)
        for alias in self.validation.append:
            if not has.field(alias, self.fields):
                yield validation.problem(("append", alias), has.lacks("field", alias))
        user = self.identity.keys.user.field
        if user is not None and not has.field(user, self.fields):
            yield identity.problem(("keys", "user", "field"), has.lacks("field", user))

    def _unknown_members(self, catalogue: Catalogue) -> Iterator[FileProblem]:
        """Segments and campaigns of actions that this Mautic lacks: that part is left out, or waits for `retry`."""
        ours = _left_by_default()
        made = {segment_alias(name) for name in self.fields.create_segments}
        for index, action in enumerate(self.actions.on):
            for kind, members in (("segment", action.do.segments), ("campaign", action.do.campaigns)):
                present = (catalogue.segments, catalogue.segment_names) if kind == "segment" else (catalogue.campaigns,)
                known = list(present[0].values())
                for key in ("add", "remove"):
                    for place, name in enumerate(getattr(members, key)):
                        if (f"{kind}s", key, name) in ours:
                            continue  # whoever keeps the default and has no such segment is not to blame for it
                        if member_named(name, *present) is not None or (
                            kind == "segment" and segment_alias(name) in made
                        ):
                            continue
                        told = f"this Mautic has no {kind} `{name}`{suggestion(name, known)}"
                        yield self._sources["actions"].problem(("on", index, "do", f"{kind}s", key, place), told)

    def _lacks(self, has: _Existing, requirement: Requirement) -> str:
        ours = [stage.name for stage in self.stages.stages] if requirement.kind == "stage" else []
        return has.lacks(requirement.kind, requirement.name, ours)

    def _created(self, requirement: Requirement) -> bool:
        """Whether `init` makes it."""
        if requirement.kind == "stage":
            return any(fold(stage.name) == fold(requirement.name) for stage in self.stages.stages)
        return requirement.kind == "field" and any(new.alias == requirement.name for new in self.fields.create)

    def _stage_segments_read(self, catalogue: Catalogue) -> Iterator[FileProblem]:
        ours = {fold(alias) for alias in catalogue.stage_segments}
        read = [
            *(("stages", leaf) for stage in self.stages.stages for leaf in _leaves_of(stage.condition)),
            *(("scoring", leaf) for rule in self.scores.rules for leaf in _leaves_of(rule.condition)),
            *(("scoring", leaf) for leaf in self._scored_activity),
        ]
        for file, leaf in read:
            for name in segments_of(leaf):
                if fold(name) in ours:
                    told = f"the segment `{name}` is built in Mautic on what we write (a stage, points, one of our tags or fields): {CIRCLE}"
                    yield self._sources[file].problem(place_of(leaf), told)


@cache
def _left_by_default() -> frozenset[tuple[str, str, str]]:
    """`(segments, remove, nurture)` and the like: what the packaged actions leave, where it exists."""
    default = read_yaml((packaged_mappings_dir() / "actions.yaml").read_bytes()).value
    return frozenset(
        (what, "remove", name)
        for action in default["on"]
        for what in ("segments", "campaigns")
        for name in action["do"].get(what, {}).get("remove", ())
    )


def member_named(name: str, *present: Mapping[int, str]) -> int | None:
    """The number of the segment (by its alias, its name, or the alias that comes of the name) or campaign (by its name)
    that is meant. `present` maps numbers to aliases or names, in the order in which they are looked through.
    """
    for wanted in (fold(name), segment_alias(name)):
        for names in present:
            for number, shown in names.items():
                # Mautic 5 shows entities where quotes, ampersands and angle brackets were typed.
                if wanted in {fold(shown), fold(unescape(shown))}:
                    return number
    return None


def _leaves_of(condition: Condition | None) -> Iterator[Leaf]:
    return leaves(condition.node if condition is not None else None)


@dataclass(frozen=True)
class _Existing:
    """What a Mautic has, by name."""

    catalogue: Catalogue

    def names(self, kind: Named) -> list[str]:
        return list(names_in(self.catalogue, kind))

    def one(self, kind: Named, name: str) -> bool:
        return exists(self.catalogue, kind, name)

    def field(self, alias: str, rules: FieldRules) -> bool:
        return self.one("field", alias) or any(new.alias == alias for new in rules.create)

    def type(self, alias: str) -> str:
        return next((kind for known, kind in self.catalogue.fields.items() if fold(known) == fold(alias)), "")

    def lacks(self, kind: Named, name: str, to_come: Iterable[str] = ()) -> str:
        near = nearest(name, [*self.names(kind), *to_come])
        return f"this Mautic has no {_NAMES[kind]} `{name}`" + (f"; did you mean `{near}`?" if near else "")


def _and(told: str, more: str) -> str:
    return f"{told}{' ' if told.endswith('?') else '. '}{more}"


class Templates:
    """What `fields.yaml` writes: template by alias.

    Mautic keeps no text with angle brackets, nothing above 191 characters and no bare zero (mautic.md: "Writing"), so
    none is written.
    """

    def __init__(self, templates: Mapping[str, str]) -> None:
        named = {alias: frozenset(placeholders(template)) for alias, template in templates.items()}
        self.names = frozenset(name for names in named.values() for name in names).difference(SHARED_PLACEHOLDERS)
        """Placeholders whose values `render` must be told of each person."""
        self._templates = {alias: text for alias, text in templates.items() if not named[alias] & self.names}
        self._personal = {alias: text for alias, text in templates.items() if named[alias] & self.names}
        self._tells_score = any("score" in names for names in named.values())
        self._rendered: dict[tuple[object, ...], dict[str, str | None]] = {}

    def render(
        self, decision: Decision, verdict: Verdict | None, personal: Mapping[str, str] = NOTHING
    ) -> Mapping[str, str | None]:
        """The value wanted in each field; None: empty.

        `personal` has a value for each of `names`. What needs none of them is remembered, because the same is said
        of thousands.
        """
        told = ("", "", None) if verdict is None else (verdict.status, verdict.sub_status, verdict.at)
        key = (decision.reason, decision.stage, decision.score if self._tells_score else None, told)
        found = self._rendered.get(key)
        if found is None:
            if len(self._rendered) >= MOST_RENDERED:
                self._rendered.clear()
            found = self._rendered[key] = _rendered(self._templates, _shared(decision, *told))
        if not self._personal:
            return found
        return {**found, **_rendered(self._personal, {**_shared(decision, *told), **personal})}


def _shared(decision: Decision, status: str, sub_status: str, at: int | None) -> dict[str, str]:
    return {
        "reason": decision.reason,
        "stage": decision.stage,
        "kind": decision.kind,
        "score": str(decision.score),
        "verdict.status": status,
        "verdict.sub_status": sub_status,
        "verdict.at": "" if at is None else moment_text(at),
    }


def _rendered(templates: Mapping[str, str], values: dict[str, str]) -> dict[str, str | None]:
    return {alias: _writable(fill(template, values)) for alias, template in templates.items()}


def _writable(text: str) -> str | None:
    clean = " ".join(text.replace("<", " ").replace(">", " ").split())
    if clean == "0":
        return None
    return (clean if len(clean) <= LONGEST_WRITTEN else f"{clean[: LONGEST_WRITTEN - 1]}…") or None


# --- Loading ----------------------------------------------------------------------------------------------------


def packaged_mappings_dir() -> Path:
    """The defaults that come with the program: in a wheel inside the package, in a checkout at its top."""
    here = Path(__file__).resolve().parent
    packaged = here / "packaged" / "mappings"
    return packaged if packaged.is_dir() else here.parent / "mappings"


def load_mappings(
    directory: Path | None = None, *, time_zone: str = "UTC", history_seconds: int | None = None
) -> Mappings:
    """Read and check a directory of rules, or the packaged ones.

    `history_seconds` is how far back activity is read (`pull.history`): rules that look further are refused. Raises
    MappingsError with all problems of all files.
    """
    sources, problems = _read_sources(directory)
    mappings = _checked(sources, problems, time_zone, history_seconds)
    if directory is None or not all(source.packaged for source in sources.values()):
        return mappings
    told = f"{directory} holds none of {', '.join(_FILE_NAMES)}: the packaged rules are used"
    return replace(mappings, warnings=(told, *mappings.warnings))


def load_written(
    written: Mapping[str, Mapping[str, str | bool]], *, time_zone: str = "UTC", history_seconds: int | None = None
) -> Mappings:
    """Mappings as `Mappings.as_written` gave them; MappingsError where this version cannot read them any more."""
    sources = {
        name: SourceFile(
            str(one["name"]), read_yaml(str(one["text"]).encode()), bool(one["packaged"]), str(one["text"])
        )
        for name, one in written.items()
        if name in FILES
    }
    packaged, problems = _read_sources(None)
    return _checked({**packaged, **sources}, problems, time_zone, history_seconds)


def _checked(
    sources: dict[str, SourceFile], problems: list[FileProblem], time_zone: str, history_seconds: int | None
) -> Mappings:
    checker = Checker(sources, history=history_seconds, time_zone=time_zone)
    checked = checker.read()
    problems += checker.problems
    if problems or checked is None:
        order = {source.name: number for number, source in enumerate(sources.values())}
        raise MappingsError(sorted(problems, key=lambda one: (order.get(one.file, -1), one.line)))
    return _assembled(checked, sources, checker.warnings, time_zone)


def _read_sources(directory: Path | None) -> tuple[dict[str, SourceFile], list[FileProblem]]:
    packaged = packaged_mappings_dir()
    problems = []
    if directory is not None and not directory.is_dir():
        raise MappingsError(
            [
                FileProblem(
                    str(directory),
                    1,
                    "",
                    "there is no such directory; set `mappings.dir`, or copy the packaged mappings there",
                )
            ]
        )
    if directory is not None:
        for path in sorted(directory.iterdir()):
            meant = path.name.lower().removesuffix(".txt")  # which editors of Windows add, and its folders do not show
            if meant.endswith((".yaml", ".yml")) and not path.name.startswith(".") and path.name not in _FILE_NAMES:
                told = f"no file of this name is read{suggestion(meant, _FILE_NAMES)}"
                problems.append(FileProblem(str(path), 1, "", told))
    sources = {}
    for name in FILES:
        path = (directory or packaged) / f"{name}.yaml"
        given = path.exists()
        path = path if given else packaged / path.name
        raw = b""
        try:
            raw = path.read_bytes()
            document = read_yaml(raw)
        except OSError as error:
            document = Document(problems=[YamlProblem(1, (), f"this cannot be read: {error.strerror}")])
        text = raw.decode("utf-8-sig", "replace")
        sources[name] = SourceFile(str(path), document, packaged=directory is None or not given, text=text)
    return sources, problems


_FILE_NAMES = tuple(f"{name}.yaml" for name in FILES)


def _fingerprint(content: object) -> str:
    told = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _assembled(
    checked: Checked, sources: Mapping[str, SourceFile], warnings: Iterable[str], time_zone: str
) -> Mappings:
    def compiled(file: Literal["stages", "validation", "scoring", "actions"], *path: str | int) -> Condition | None:
        node = checked.conditions.get((file, path))
        # Points are counted by day.
        by_day = file == "scoring" and path[0] == "groups"
        return None if node is None else Condition.build(node, time_zone=time_zone, by_day=by_day)

    stages = checked.stages
    rules = StageRules(
        stages=tuple(
            StageRule(one.stage, one.kind, one.weight, one.sticky, compiled("stages", "stages", index, "when"))
            for index, one in enumerate(stages.stages)
        ),
        takes_over=frozenset(stages.takes_over),
        respect_manual=stages.respect_manual,
        loop_guard=LoopGuard(stages.loop_guard.changes, stages.loop_guard.within),
    )
    validation = _validation_rules(checked, compiled("validation", "only_if"))
    scores = _score_rules(checked, lambda *path: compiled("scoring", *path), time_zone)
    scored = tuple(
        leaf
        for (file, path), node in checked.conditions.items()
        if file == "scoring" and path[-1] in {"on", "unless"}
        for leaf in leaves(node)
    )
    actions = action_rules(checked.actions, rules.by_name, lambda index: compiled("actions", "on", index, "when"))
    decided = (
        *(stage.condition for stage in rules.stages),
        validation.only_if,
        *scores.conditions,
        *(condition for _flag, condition in actions.named),
    )
    conditions = [one for one in decided if one is not None]
    files = (stages, checked.validation, checked.fields, checked.identity, checked.scoring, checked.actions)
    fingerprint = _fingerprint([time_zone, *(file.model_dump(mode="json") for file in files)])
    return Mappings(
        stages=rules,
        validation=validation,
        fields=FieldRules(
            create=tuple(NewField(new.alias, new.label, new.type) for new in checked.fields.create),
            write=dict(checked.fields.write),
            create_segments={
                name: SegmentOf(one.stage, one.tag)
                for name, one in checked.fields.create_segments.items()
                if name not in checked.left_out
            },
        ),
        identity=checked.identity,
        scores=scores,
        actions=checked.actions,
        fingerprint=fingerprint,
        matchers=tuple({one.key: one for condition in conditions for one in condition.matchers}.values()),
        activity_types=_activity_types(checked),
        requirements=(
            *(one for condition in conditions for one in condition.requirements),
            *(one for leaf in scored for one in requirements_of(leaf)),
        ),
        warnings=tuple(warnings),
        time_zone=time_zone,
        action_rules=actions,
        _scored_activity=scored,
        _sources=sources,
        _base_fingerprint=fingerprint,
    )


def _activity_types(checked: Checked) -> frozenset[str]:
    named = {leaf.names[0] for node in checked.conditions.values() for leaf in leaves(node) if leaf.matcher}
    done = [action.do for action in checked.actions.on]
    texts = [*checked.fields.write.values(), *(text for one in done for text in one.texts)]
    shown = {name.partition(".")[0] for text in texts for name in placeholders(text)}
    return frozenset(named | STEPS if shown.intersection(SPANS) else named)


def _score_rules(checked: Checked, compiled: Callable[..., Condition | None], time_zone: str) -> ScoreRules:
    """`compiled` gives the condition at a place of scoring.yaml."""
    file = checked.scoring

    def activity(*path: str | int) -> Leaf | None:
        node = checked.conditions.get(("scoring", path))
        return node if isinstance(node, Leaf) else None

    rules = []
    for group, texts in file.groups.items():
        for index, one in enumerate(texts):
            here = ("groups", group, index)
            counted, unless = activity(*here, "on"), activity(*here, "unless")
            rules.append(
                ScoreRule(
                    one.name,
                    group,
                    one.points,
                    condition=compiled(*here, "when"),
                    matcher=counted.matcher if counted is not None else None,
                    at_most=1 if one.once else one.at_most,
                    per=None if one.per is None else one.per // DAY,
                    unless=unless.matcher if unless is not None else None,
                    waits=(unless.within or 0) // DAY if unless is not None else 0,
                )
            )
    hot = compiled("hot", "when")
    return ScoreRules(
        rules=tuple(rules),
        groups=tuple(file.groups),
        decay={
            one.group: Decay(
                None if one.half_life is None else one.half_life // DAY,
                tuple((step.after // DAY, float(step.keep)) for step in one.steps or ()),
            )
            for one in file.decay
        },
        grid=file.grid // DAY,
        time_zone=time_zone,
        hot=None if hot is None else HotRule(hot, compiled("hot", "until")),
        low_value=compiled("low_value", "when"),
        start=file.start,
        push_to=file.push.to,
        push_groups=tuple(file.push.groups),
    )


def _validation_rules(checked: Checked, only_if: Condition | None) -> ValidationRules:
    file = checked.validation
    outcomes: dict[str, Outcome] = {}
    groups: tuple[tuple[list[str], Outcome], ...] = (
        (file.policy.accept, "accepted"),
        (file.policy.hold, "held"),
        (file.policy.reject, "rejected"),
    )
    for words, outcome in groups:
        outcomes |= {word.lower(): outcome for word in words}
    return ValidationRules(
        outcomes=outcomes,
        ask_accepted=file.ask_again.accepted,
        ask_held=tuple(file.ask_again.held),
        ask_rejected=file.ask_again.rejected,
        order=checked.order,
        per_run=file.budget.per_run,
        per_day=file.budget.per_day,
        bulk_above=file.bulk_above,
        only_if=only_if,
        append=dict(file.append),
        reject_dnc=file.on_reject.dnc,
        reject_tag=file.on_reject.tag,
        typo_field=file.on_typo.field if file.on_typo else None,
    )
