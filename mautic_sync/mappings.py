"""The rules people edit, read and checked: the YAML files of `mappings/` become domain objects here and nowhere else.

`load_mappings` reads a directory without any Mautic and lists all that is wrong at once, each with file, line, key
and what to do. `Mappings.bind` compiles the same rules against what one Mautic has. A file that the directory lacks
is taken from the packaged defaults.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from mautic_sync.domain.activity import ACTIVITY_TYPES
from mautic_sync.domain.classification import Decision, LoopGuard, StageRule, StageRules
from mautic_sync.domain.conditions import Condition, exists, names_in
from mautic_sync.domain.contact import KINDS, Catalogue, Outcome
from mautic_sync.domain.countries import country_key, fold, is_country_code
from mautic_sync.domain.grammar import (
    STATUSES,
    SUB_STATUSES,
    Leaf,
    Named,
    Node,
    Problem,
    Requirement,
    duration_text,
    leaves,
    nearest,
    parse_condition,
    parse_duration,
    parse_where,
    path_text,
    suggestion,
    unusable_scores,
)
from mautic_sync.domain.matchers import ActivityMatcher
from mautic_sync.domain.validation import ORDER_KEYS, OrderKey, ValidationRules, Verdict
from mautic_sync.errors import ConfigError
from mautic_sync.mapping_files import (
    ACTION_PLACEHOLDERS,
    FIELD_PLACEHOLDERS,
    FILES,
    LATER_PLACEHOLDERS,
    MODELS,
    ZEROBOUNCE_FIELDS,
    ActionsFile,
    FieldsFile,
    IdentityFile,
    ScoringFile,
    StagesFile,
    ValidationFile,
    fill,
    mappings_schema,
    placeholders,
)
from mautic_sync.yaml_text import Document, read_yaml

__all__ = [
    "FieldRules",
    "FileProblem",
    "Mappings",
    "MappingsError",
    "NewField",
    "SegmentOf",
    "load_mappings",
    "mappings_schema",
    "packaged_mappings_dir",
]

LONGEST_WRITTEN = 191  # characters; a longer text is refused by Mautic (mautic.md: "Writing")
NOT_OURS_TO_WRITE = frozenset({"email", "id", "last_active", "owner", "points", "stage", "tags"})
_NAMES = {
    "field": "contact field", "segment": "segment", "campaign": "campaign", "form": "form", "asset": "asset",
    "email": "e-mail", "page": "landing page",
}  # fmt: skip
_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing to correct: where it stands, and a sentence that says what is wrong and what would be right."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}{f', {self.key}' if self.key else ''}: {self.text}"


class MappingsError(ConfigError):
    """The rules cannot be used as they are written; `problems` lists everything to correct."""

    def __init__(self, problems: Iterable[FileProblem]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"The mappings have {count}:", *(f"  {problem}" for problem in self.problems)]))


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
class _Source:
    """One file as it was read: where it came from and the line of each of its keys."""

    name: str
    document: Document
    packaged: bool = False

    def problem(self, path: _Path, text: str) -> FileProblem:
        return FileProblem(self.name, self.document.line(path), path_text(path), text)


@dataclass(frozen=True)
class Mappings:
    """All rules of one directory.

    `fingerprint` changes when the content of the files, the time zone or, once bound, anything in Mautic changes
    that the rules depend on; comments and layout do not count. `matchers` are those of which evidence must be kept,
    `activity_types` all types that any file names. `warnings` are sentences about what is allowed but looks odd.
    """

    stages: StageRules
    validation: ValidationRules
    fields: FieldRules
    identity: IdentityFile
    scoring: ScoringFile
    actions: ActionsFile
    fingerprint: str
    matchers: tuple[ActivityMatcher, ...]
    activity_types: frozenset[str]
    requirements: tuple[Requirement, ...]
    warnings: tuple[str, ...] = ()
    time_zone: str = "UTC"
    _sources: Mapping[str, _Source] = field(default_factory=dict, repr=False, compare=False)
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
            warnings=warnings,
            fingerprint=_fingerprint([self._base_fingerprint, depends, absent]),
        )

    def fields_read(self, catalogue: Catalogue) -> frozenset[str]:
        """Aliases of the fields of this Mautic that a rule reads or that we write or fill."""
        named = {one.name for one in self.requirements if one.kind == "field"}
        named |= {*self.fields.write, *self.validation.append, *filter(None, [self.validation.typo_field])}
        wanted = {fold(name) for name in named}
        return frozenset(alias for alias in catalogue.fields if fold(alias) in wanted)

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
        return frozenset(f"{one.kind}s" for one in self.requirements if one.kind != "field")

    def shown_reasons(self) -> frozenset[str]:
        """Fields that tell the reason of a decision."""
        return frozenset(alias for alias, template in self.fields.write.items() if "{reason}" in template)

    @property
    def written_tags(self) -> frozenset[str]:
        """Tags that we add or remove."""
        tags = {tag for action in self.actions.on for tag in (*action.do.tags.add, *action.do.tags.remove)}
        return frozenset(tags | set(filter(None, [self.validation.reject_tag])))

    def _conditions(self) -> Iterator[Condition]:
        for stage in self.stages.stages:
            if stage.condition is not None:
                yield stage.condition
        if self.validation.only_if is not None:
            yield self.validation.only_if

    def render_fields(self, decision: Decision, verdict: Verdict | None) -> dict[str, str | None]:
        """What `fields.yaml` wants in each field; None: empty.

        Mautic keeps no text with angle brackets, nothing above 191 characters and no bare zero (mautic.md:
        "Writing"), so none is written.
        """
        values = {
            "reason": decision.reason,
            "stage": decision.stage,
            "kind": decision.kind,
            "score": str(decision.score),
            "verdict.status": verdict.status if verdict else "",
            "verdict.sub_status": verdict.sub_status if verdict else "",
            "verdict.at": datetime.fromtimestamp(verdict.at, UTC).strftime("%Y-%m-%d %H:%M:%S") if verdict else "",
        }
        return {alias: _writable(fill(template, values)) for alias, template in self.fields.write.items()}

    def _compiled(self, condition: Condition | None, catalogue: Catalogue) -> Condition | None:
        if condition is None or condition.node is None:
            return condition
        return Condition.build(condition.node, catalogue=catalogue, time_zone=self.time_zone)

    def _missing(self, catalogue: Catalogue) -> Iterator[FileProblem]:
        has = _Existing(catalogue)
        stages, validation, fields, identity = (self._sources[name] for name in FILES[:4])
        per_file = [(stages, stage.condition) for stage in self.stages.stages] + [(validation, self.validation.only_if)]
        for source, condition in per_file:
            for one in condition.requirements if condition else ():
                if not one.optional and not has.one(one.kind, one.name) and not self._created(one):
                    told = _and(has.lacks(one.kind, one.name), "If it may be missing, add `optional: true`")
                    yield source.problem(one.path, told)
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

    def _created(self, requirement: Requirement) -> bool:
        return requirement.kind == "field" and any(new.alias == requirement.name for new in self.fields.create)

    def _stage_segments_read(self, catalogue: Catalogue) -> Iterator[FileProblem]:
        ours = {fold(alias) for alias in catalogue.stage_segments}
        for stage in self.stages.stages:
            for leaf in leaves(stage.condition.node if stage.condition else None):
                for name in _segments_of(leaf):
                    if fold(name) in ours:
                        told = f"the segment `{name}` is built in Mautic on what we write (a stage, one of our tags or fields): {_CIRCLE}"
                        yield self._sources["stages"].problem((*leaf.path, leaf.subject), told)


_CIRCLE = "a rule that reads it would swap people for ever; read what they did or are instead"


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

    def lacks(self, kind: Named, name: str) -> str:
        near = nearest(name, self.names(kind))
        return f"this Mautic has no {_NAMES[kind]} `{name}`" + (f"; did you mean `{near}`?" if near else "")


def _and(told: str, more: str) -> str:
    return f"{told}{' ' if told.endswith('?') else '. '}{more}"


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
    reader = _Checker(sources, time_zone=time_zone, history=history_seconds)
    mappings = reader.read()
    problems += reader.problems
    if problems or mappings is None:
        order = {source.name: number for number, source in enumerate(sources.values())}
        raise MappingsError(sorted(problems, key=lambda one: (order.get(one.file, -1), one.line)))
    return mappings


def _read_sources(directory: Path | None) -> tuple[dict[str, _Source], list[FileProblem]]:
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
            if path.suffix in {".yaml", ".yml"} and not path.name.startswith(".") and path.name not in _FILE_NAMES:
                told = f"no file of this name is read{suggestion(path.name, _FILE_NAMES)}"
                problems.append(FileProblem(str(path), 1, "", told))
    sources = {}
    for name in FILES:
        path = (directory or packaged) / f"{name}.yaml"
        given = path.exists()
        path = path if given else packaged / path.name
        try:
            document = read_yaml(path.read_bytes())
        except OSError as error:
            document = Document()
            problems.append(FileProblem(str(path), 1, "", f"this cannot be read: {error.strerror}"))
        sources[name] = _Source(str(path), document, packaged=directory is None or not given)
    return sources, problems


_FILE_NAMES = tuple(f"{name}.yaml" for name in FILES)


def _fingerprint(content: object) -> str:
    told = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()[:32]


class _Checker:
    """Turns six documents into rules, collecting problems; lives as long as that takes."""

    def __init__(self, sources: Mapping[str, _Source], *, time_zone: str, history: int | None) -> None:
        self.sources = sources
        self.time_zone = time_zone
        self.history = history
        self.problems: list[FileProblem] = []
        self.warnings: list[str] = []
        self.nodes: dict[tuple[str, _Path], Node] = {}
        self.left_out: set[str] = set()

    def read(self) -> Mappings | None:
        """All of it, or None when something is wrong (`problems`)."""
        files = {name: self.file(name) for name in FILES}
        for name in FILES:
            for path, spec in _conditions_in(name, self.sources[name].document.value):
                self.condition(name, path, spec)
        stages, validation, fields, identity, scoring, actions = (files[name] for name in FILES)
        if isinstance(stages, StagesFile):
            self.check_stages(stages)
        if isinstance(validation, ValidationFile):
            self.check_validation(validation)
        if isinstance(fields, FieldsFile):
            self.check_fields(fields, stages if isinstance(stages, StagesFile) else None)
        if isinstance(scoring, ScoringFile):
            self.check_scoring(scoring)
        if isinstance(actions, ActionsFile):
            self.check_actions(actions, stages if isinstance(stages, StagesFile) else None)
        self.check_circles(stages, validation, fields, actions)
        if (
            self.problems
            or not isinstance(stages, StagesFile)
            or not isinstance(validation, ValidationFile)
            or not isinstance(fields, FieldsFile)
            or not isinstance(identity, IdentityFile)
            or not isinstance(scoring, ScoringFile)
            or not isinstance(actions, ActionsFile)
        ):
            return None
        return self.mappings(stages, validation, fields, identity, scoring, actions)

    def problem(self, file: str, path: _Path, text: str) -> None:
        self.problems.append(self.sources[file].problem(path, text))

    # The form of a file

    def file(self, name: str) -> object:
        """The model of one file, or None."""
        source = self.sources[name]
        self.problems += [
            FileProblem(source.name, one.line, path_text(one.path), one.text) for one in source.document.problems
        ]
        value = source.document.value
        if value is None:
            if not source.document.problems and not any(one.file == source.name for one in self.problems):
                self.problem(
                    name, (), "this file is empty; begin with `version: 1`, or remove the file to use the default"
                )
            return None
        if not isinstance(value, dict):
            self.problem(name, (), f"this file is a map of keys, beginning with `version: 1`, not {_shape(value)}")
            return None
        # A key left blank, everything below it commented out, means its default.
        written = {key: inner for key, inner in value.items() if inner is not None or key == "version"}
        try:
            return MODELS[name].model_validate(written)
        except ValidationError as error:
            schema = mappings_schema()[name]
            for one in error.errors(include_url=False, include_context=True):
                path = _existing_path(one["loc"], written)
                self.problem(name, path, _sentence(dict(one), path, schema))
            return None

    def condition(self, file: str, path: _Path, spec: object) -> None:
        found: list[Problem] = []
        node = parse_condition(spec, found, path)
        if node is not None:
            if file in {"stages", "validation"}:
                found += unusable_scores(node)
            found += self.too_long(node)
            found += _unknown_countries(node)
            self.nodes[file, path] = node
        for one in found:
            told = self.sources[file].problem(one.path, one.text)
            if one.warning:
                self.warnings.append(str(told))
            else:
                self.problems.append(told)

    def too_long(self, node: Node) -> Iterator[Problem]:
        """Windows that reach further back than activity is read."""
        if self.history is None:
            return
        for leaf in leaves(node):
            spans: list[tuple[str, int | None]] = [("within", leaf.within)]
            if leaf.subject == "activity":
                spans += [
                    (key, parse_duration(text[1:]))
                    for key in ("after", "before")
                    if (text := leaf.operators.get(key, "")).startswith("-")
                ]
            elif leaf.subject == "age":
                spans.append(("age", leaf.at_least_age))
                for key, operand in leaf.operators.items():
                    spans += [(key, one) for one in (operand if isinstance(operand, tuple) else (operand,))]
            for key, seconds in spans:
                if seconds is not None and seconds > self.history:
                    yield Problem((*leaf.path, key), self.beyond(seconds))

    def beyond(self, seconds: int) -> str:
        reach = duration_text(self.history or 0)
        return f"this looks {duration_text(seconds)} back, but activity is read only {reach} back; shorten it, or raise `pull.history`"

    # The meaning of each file

    def check_stages(self, file: StagesFile) -> None:
        names: dict[str, str] = {}
        weights: dict[int, str] = {}
        last = len(file.stages) - 1
        for index, stage in enumerate(file.stages):
            here: _Path = ("stages", index)
            if fold(stage.stage) in names:
                self.problem(
                    "stages",
                    (*here, "stage"),
                    f"there are two stages `{stage.stage}`; Mautic tells stages apart by name, rename one",
                )
            if stage.weight in weights:
                self.problem(
                    "stages",
                    (*here, "weight"),
                    f"`{stage.stage}` and `{weights[stage.weight]}` both weigh {stage.weight}; give each a weight of its own",
                )
            names[fold(stage.stage)] = weights[stage.weight] = stage.stage
            if index < last and stage.when is None:
                self.problem(
                    "stages",
                    here,
                    f"`{stage.stage}` has no `when`, so no stage below it is ever reached; give it one, or move it to the end",
                )
            if index == last and stage.when is not None:
                self.problem(
                    "stages",
                    (*here, "when"),
                    "the last stage takes everybody else, so it has no `when`; remove it, or add a stage below",
                )
            if index == last and stage.kind != "ghost":
                self.problem(
                    "stages",
                    (*here, "kind"),
                    f"the last stage takes everybody of whom nothing is known, so its kind is `ghost`, not `{stage.kind}`",
                )
        self.check_weights(file)
        for index, name in enumerate(file.takes_over):
            if fold(name) in names:
                self.problem(
                    "stages",
                    ("takes_over", index),
                    f"`{name}` is one of the stages above, which we manage anyway; remove it here",
                )

    def check_weights(self, file: StagesFile) -> None:
        spans = {kind: [stage.weight for stage in file.stages if stage.kind == kind] for kind in KINDS}
        present = [kind for kind in KINDS if spans[kind]]
        for lower, higher in pairwise(present):
            for index, stage in enumerate(file.stages):
                if stage.kind == higher and stage.weight <= max(spans[lower]) and spans[lower].count(stage.weight) == 0:
                    self.problem(
                        "stages",
                        ("stages", index, "weight"),
                        f"`{stage.stage}` is a {higher} and weighs {stage.weight}, less than a {lower} with {max(spans[lower])}; weights rise from ghost to lead to customer",
                    )

    def check_validation(self, file: ValidationFile) -> None:
        seen: dict[str, str] = {}
        for group in ("accept", "hold", "reject"):
            for index, word in enumerate(getattr(file.policy, group)):
                path: _Path = ("policy", group, index)
                folded = word.lower()
                if folded in seen:
                    self.problem(
                        "validation",
                        path,
                        f"`{word}` stands under `{seen[folded]}` already; each status has one outcome",
                    )
                elif folded not in {*STATUSES, *SUB_STATUSES}:
                    told = f"ZeroBounce is not known to answer `{word}`{suggestion(word, (*STATUSES, *SUB_STATUSES))}"
                    self.warnings.append(str(self.sources["validation"].problem(path, told)))
                seen[folded] = group
        held = file.ask_again.held
        for index in range(1, len(held)):
            if held[index] <= held[index - 1]:
                self.problem(
                    "validation",
                    ("ask_again", "held", index),
                    f"the distances grow: {duration_text(held[index])} does not come after {duration_text(held[index - 1])}",
                )
        self.order(file)
        if file.budget.per_run > file.budget.per_day:
            told = f"a run may spend {file.budget.per_run} credits, but a day only {file.budget.per_day}"
            self.warnings.append(str(self.sources["validation"].problem(("budget", "per_run"), told)))
        for alias, answer in file.append.items():
            if answer not in ZEROBOUNCE_FIELDS:
                self.problem(
                    "validation",
                    ("append", alias),
                    f"ZeroBounce's answer has no field `{answer}`{suggestion(answer, ZEROBOUNCE_FIELDS)}",
                )
            if alias in NOT_OURS_TO_WRITE:
                self.problem("validation", ("append", alias), f"`{alias}` is not ours to fill; remove it")

    def order(self, file: ValidationFile) -> tuple[tuple[OrderKey, bool], ...]:
        """Who is asked first, as (key, largest first)."""
        known = {key: key for key in ORDER_KEYS}
        found = []
        for index, text in enumerate(file.order):
            word, _space, direction = text.strip().partition(" ")
            if word not in known:
                self.problem(
                    "validation", ("order", index), f"nobody can be ordered by `{word}`{suggestion(word, ORDER_KEYS)}"
                )
            elif direction.strip() not in {"", "asc", "desc"}:
                self.problem(
                    "validation",
                    ("order", index),
                    f"`{text}` ends in asc (smallest first) or desc (largest first), not `{direction.strip()}`",
                )
            else:
                found.append((known[word], direction.strip() != "asc"))
        return tuple(found)

    def check_fields(self, file: FieldsFile, stages: StagesFile | None) -> None:
        seen: set[str] = set()
        for index, new in enumerate(file.create):
            if new.alias in seen:
                self.problem("fields", ("create", index, "alias"), f"`{new.alias}` is created twice; remove one")
            if new.alias in NOT_OURS_TO_WRITE:
                self.problem(
                    "fields", ("create", index, "alias"), f"Mautic has `{new.alias}` itself; choose another alias"
                )
            seen.add(new.alias)
        for alias, template in file.write.items():
            if alias in NOT_OURS_TO_WRITE:
                self.problem("fields", ("write", alias), f"`{alias}` is not ours to write; choose a field of its own")
            self.template("fields", ("write", alias), template, FIELD_PLACEHOLDERS)
        known = {fold(stage.stage): stage.stage for stage in stages.stages} if stages else None
        for name, segment in file.create_segments.items():
            here: _Path = ("create_segments", name)
            self.exactly_one("fields", here, {"stage": segment.stage, "tag": segment.tag})
            if segment.stage is None or known is None or fold(segment.stage) in known:
                continue
            told = f"no stage `{segment.stage}` is managed here"
            if self.sources["fields"].packaged:
                # Whoever writes stages of their own and keeps this default is not to blame for it.
                self.left_out.add(name)
                told += f", so the segment `{name}` is not made; a fields.yaml of your own can name others"
                self.warnings.append(str(self.sources["fields"].problem((*here, "stage"), told)))
            else:
                self.problem("fields", (*here, "stage"), told + suggestion(segment.stage, known.values()))

    def template(self, file: str, path: _Path, template: str, known: tuple[str, ...]) -> None:
        try:
            names = placeholders(template)
        except ValueError as error:
            self.problem(file, path, str(error))
            return
        for name in names:
            if name in known:
                continue
            if name in LATER_PLACEHOLDERS:
                self.problem(file, path, f"`{{{name}}}` is known but not computed in this version; remove it for now")
            else:
                self.problem(file, path, f"there is no placeholder `{{{name}}}`{suggestion(name, known)}")

    def exactly_one(self, file: str, path: _Path, keys: Mapping[str, object]) -> None:
        given = [key for key, value in keys.items() if value is not None]
        if len(given) != 1:
            wanted = " or ".join(f"`{key}`" for key in keys)
            self.problem(file, path, f"this takes {wanted}, {'not both' if given else 'and has none of them'}")

    def check_scoring(self, file: ScoringFile) -> None:
        for group, rules in file.groups.items():
            names: set[str] = set()
            for index, rule in enumerate(rules):
                here: _Path = ("groups", group, index)
                if rule.name in names:
                    self.problem(
                        "scoring",
                        (*here, "name"),
                        f"`{rule.name}` stands twice in `{group}`; points are accounted by name, rename one",
                    )
                names.add(rule.name)
                if not rule.points:
                    self.problem(
                        "scoring", (*here, "points"), "0 points change nothing; remove the rule, or give it points"
                    )
                self.exactly_one("scoring", here, {"when": rule.when, "on": rule.on})
                self.activity_name("scoring", (*here, "on"), rule.on)
                for key in ("where", "at_most", "per", "unless"):
                    if rule.on is None and getattr(rule, key) is not None:
                        self.problem(
                            "scoring", (*here, key), f"`{key}` counts activity; it goes with `on`, not with `when`"
                        )
                if rule.where is not None:
                    self.where("scoring", (*here, "where"), rule.where)
                if rule.once and (rule.at_most is not None or rule.per is not None):
                    self.problem(
                        "scoring", (*here, "once"), "`once` already says how often; remove `at_most` and `per`"
                    )
                if rule.per is not None and rule.at_most is None:
                    self.problem("scoring", (*here, "per"), "`per` goes with `at_most`: at most how many times?")
                if rule.per is not None and self.history is not None and rule.per > self.history:
                    self.problem("scoring", (*here, "per"), self.beyond(rule.per))
        if file.decay is not None and file.decay.group not in file.groups:
            self.problem(
                "scoring",
                ("decay", "group"),
                f"there is no group `{file.decay.group}`{suggestion(file.decay.group, file.groups)}",
            )
        for index, name in enumerate(file.push.groups):
            if name not in file.groups:
                self.problem(
                    "scoring", ("push", "groups", index), f"there is no group `{name}`{suggestion(name, file.groups)}"
                )

    def where(self, file: str, path: _Path, spec: object) -> None:
        found: list[Problem] = []
        parse_where(spec, found, path)
        for one in found:
            self.problem(file, one.path, one.text)

    def activity_name(self, file: str, path: _Path, name: str | None) -> None:
        if name is not None and "." in name and name not in ACTIVITY_TYPES:
            self.problem(file, path, f"there is no activity `{name}`{suggestion(name, ACTIVITY_TYPES)}")

    def check_actions(self, file: ActionsFile, stages: StagesFile | None) -> None:
        known = {fold(stage.stage): stage.stage for stage in stages.stages} if stages else None
        names: set[str] = set()
        for index, action in enumerate(file.on):
            here: _Path = ("on", index)
            self.exactly_one("actions", here, {"enter": action.enter, "become": action.become, "when": action.when})
            if action.when is not None and action.name is None:
                self.problem("actions", here, "an action with `when` needs a `name`, under which its state is kept")
            if action.name is not None and action.name in names:
                self.problem("actions", (*here, "name"), f"there are two actions `{action.name}`; rename one")
            if action.name is not None:
                names.add(action.name)
            if action.enter is not None:
                self.exactly_one("actions", (*here, "enter"), {"kind": action.enter.kind, "stage": action.enter.stage})
                stage = action.enter.stage
                if stage is not None and known is not None and fold(stage) not in known:
                    self.problem(
                        "actions",
                        (*here, "enter", "stage"),
                        f"no stage `{stage}` is managed here{suggestion(stage, known.values())}",
                    )
            done = action.do
            for key, names_in in (("segments", done.segments), ("campaigns", done.campaigns), ("tags", done.tags)):
                for name in sorted(set(names_in.add) & set(names_in.remove)):
                    self.problem(
                        "actions", (*here, "do", key), f"`{name}` is added and removed at once; do one of them"
                    )
            if done.note is not None:
                self.template("actions", (*here, "do", "note"), done.note, ACTION_PLACEHOLDERS)
            if done.notify is not None:
                self.template("actions", (*here, "do", "notify", "text"), done.notify.text, ACTION_PLACEHOLDERS)

    # Circles: rules that read what we write

    def check_circles(self, stages: object, validation: object, fields: object, actions: object) -> None:
        tags: dict[str, str] = {}
        scored_tags: dict[str, str] = {}
        written: dict[str, str] = {"points": "points are ours to give"}
        segments: dict[str, str] = {}
        managed: dict[str, str] = {}
        if isinstance(actions, ActionsFile):
            for action in actions.on:
                named = {
                    tag: f"actions.yaml sets the tag `{tag}`" for tag in (*action.do.tags.add, *action.do.tags.remove)
                }
                tags |= named
                scored_tags |= {} if action.enter is not None else named
        if isinstance(validation, ValidationFile):
            if validation.on_reject.tag is not None:
                tags[validation.on_reject.tag] = (
                    f"validation.yaml sets the tag `{validation.on_reject.tag}` (on_reject)"
                )
            if validation.on_typo is not None:
                written[validation.on_typo.field] = (
                    f"validation.yaml writes the field `{validation.on_typo.field}` (on_typo)"
                )
        scored = {"points": written["points"]}
        if isinstance(fields, FieldsFile):
            for alias, template in fields.write.items():
                written[alias] = f"fields.yaml writes the field `{alias}`"
                if "{score" in template or "{reason" in template:
                    scored[alias] = written[alias]
            for name in fields.create_segments.keys() - self.left_out:
                segments[_slug(name)] = f"fields.yaml builds the segment `{name}` on what we write"
        if isinstance(stages, StagesFile):
            managed = {fold(stage.stage): stage.stage for stage in stages.stages}
        for (file, _path), node in self.nodes.items():
            for leaf in leaves(node):
                if file == "stages":
                    self.circle(file, leaf, tags, written, segments)
                    self.circle_of_stages(leaf, managed)
                elif file == "scoring":
                    self.circle(file, leaf, scored_tags, scored, {})

    def circle(
        self, file: str, leaf: Leaf, tags: Mapping[str, str], fields: Mapping[str, str], segments: Mapping[str, str]
    ) -> None:
        told: list[str | None] = []
        if leaf.subject == "tag":
            told = [tags.get(name) for name in leaf.names]
        elif leaf.subject == "field":
            told = [fields.get(name.lower()) for name in leaf.names]
        told += [segments.get(_slug(name)) for name in _segments_of(leaf)]
        for one in told:
            if one is not None:
                self.problem(file, (*leaf.path, leaf.subject), f"{one}: {_CIRCLE}")

    def circle_of_stages(self, leaf: Leaf, managed: Mapping[str, str]) -> None:
        if leaf.subject == "kind":
            self.problem("stages", (*leaf.path, "kind"), f"the kind follows from the stages: {_CIRCLE}")
        if leaf.subject == "stage":
            for name in leaf.names:
                if fold(name) in managed:
                    self.problem("stages", (*leaf.path, "stage"), f"`{name}` is a stage that we set: {_CIRCLE}")

    # The result

    def mappings(
        self,
        stages: StagesFile,
        validation: ValidationFile,
        fields: FieldsFile,
        identity: IdentityFile,
        scoring: ScoringFile,
        actions: ActionsFile,
    ) -> Mappings:
        rules = StageRules(
            stages=tuple(
                StageRule(
                    stage.stage,
                    stage.kind,
                    stage.weight,
                    stage.sticky,
                    self.compiled("stages", ("stages", index, "when")),
                )
                for index, stage in enumerate(stages.stages)
            ),
            takes_over=frozenset(stages.takes_over),
            respect_manual=stages.respect_manual,
            loop_guard=LoopGuard(stages.loop_guard.changes, stages.loop_guard.within),
        )
        checks = self.validation_rules(validation)
        conditions = [stage.condition for stage in rules.stages if stage.condition] + [checks.only_if] * bool(
            checks.only_if
        )
        compiled = [one for one in conditions if one is not None]
        files = (stages, validation, fields, identity, scoring, actions)
        content = [self.time_zone, *(file.model_dump(mode="json") for file in files)]
        fingerprint = _fingerprint(content)
        named = {leaf.names[0] for node in self.nodes.values() for leaf in leaves(node) if leaf.subject == "activity"}
        scored = {rule.on for group in scoring.groups.values() for rule in group if rule.on is not None}
        return Mappings(
            stages=rules,
            validation=checks,
            fields=FieldRules(
                create=tuple(NewField(new.alias, new.label, new.type) for new in fields.create),
                write=dict(fields.write),
                create_segments={
                    name: SegmentOf(one.stage, one.tag)
                    for name, one in fields.create_segments.items()
                    if name not in self.left_out
                },
            ),
            identity=identity,
            scoring=scoring,
            actions=actions,
            fingerprint=fingerprint,
            matchers=tuple({one.key: one for condition in compiled for one in condition.matchers}.values()),
            activity_types=frozenset(named | scored),
            requirements=tuple(one for condition in compiled for one in condition.requirements),
            warnings=tuple(self.warnings),
            time_zone=self.time_zone,
            _sources=self.sources,
            _base_fingerprint=fingerprint,
        )

    def validation_rules(self, file: ValidationFile) -> ValidationRules:
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
            order=self.order(file),
            per_run=file.budget.per_run,
            per_day=file.budget.per_day,
            bulk_above=file.bulk_above,
            only_if=self.compiled("validation", ("only_if",)),
            append=dict(file.append),
            reject_dnc=file.on_reject.dnc,
            reject_tag=file.on_reject.tag,
            typo_field=file.on_typo.field if file.on_typo else None,
        )

    def compiled(self, file: Literal["stages", "validation"], path: _Path) -> Condition | None:
        node = self.nodes.get((file, path))
        return None if node is None else Condition.build(node, time_zone=self.time_zone)


def _segments_of(leaf: Leaf) -> list[str]:
    if leaf.subject == "segment":
        return list(leaf.names)
    if leaf.matcher is None:
        return []
    named = leaf.matcher.where.get("segment", [])
    return [named] if isinstance(named, str) else named


def _slug(name: str) -> str:
    """The alias that Mautic makes of a segment's name."""
    return re.sub(r"[^a-z0-9]+", "-", fold(name)).strip("-")


def _unknown_countries(node: Node) -> Iterator[Problem]:
    for leaf in leaves(node):
        if leaf.subject != "field" or leaf.names[0] != "country":
            continue
        for operator in ("is", "is_not", "in", "not_in"):
            operand = leaf.operators.get(operator, ())
            for one in operand if isinstance(operand, tuple) else (operand,):
                if isinstance(one, str) and is_country_code(one) and one.isupper() and country_key(one) == fold(one):
                    told = f"`{one}` is no ISO 3166 code of a country; write the English name if in doubt"
                    yield Problem((*leaf.path, operator), told)


def _conditions_in(file: str, value: Any) -> Iterator[tuple[_Path, Any]]:
    """Every place of a file that holds a condition, whatever else is wrong with the file."""

    def at(*path: str | int) -> Any:
        found = value
        for part in path:
            if isinstance(part, int):
                found = found[part] if isinstance(found, list) and part < len(found) else None
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found

    def items(*path: str | int) -> Iterable[int]:
        found = at(*path)
        return range(len(found)) if isinstance(found, list) else ()

    places: list[_Path] = []
    if file == "stages":
        places = [("stages", index, "when") for index in items("stages")]
    elif file == "validation":
        places = [("only_if",)]
    elif file == "scoring":
        groups = at("groups")
        for group in groups if isinstance(groups, dict) else ():
            places += [("groups", group, i, key) for i in items("groups", group) for key in ("when", "unless")]
        places += [("hot", "when"), ("hot", "until"), ("low_value", "when")]
    elif file == "actions":
        places = [("on", index, "when") for index in items("on")]
    for path in places:
        spec = at(*path)
        if spec is not None:
            yield path, spec


# --- What pydantic found, in words ------------------------------------------------------------------------------


def _existing_path(location: tuple[str | int, ...], value: Any) -> _Path:
    """Pydantic's location without the names of types it tried, down to one key that need not be there."""
    path: list[str | int] = []
    for part in location:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
        path.append(part)
    return tuple(path)


def _keys_at(path: _Path, schema: dict[str, Any]) -> list[str]:
    """The keys that the schema allows beside the last of a path."""
    part: Any = schema

    def resolved(one: Any) -> Any:
        while isinstance(one, dict) and "$ref" in one:
            one = schema["$defs"][one["$ref"].removeprefix("#/$defs/")]
        if isinstance(one, dict) and "anyOf" in one:
            return resolved(next((each for each in one["anyOf"] if each.get("type") != "null"), {}))
        return one

    for step in path[:-1]:
        part = resolved(part)
        if isinstance(step, int):
            part = part.get("items", {})
        else:
            part = part.get("properties", {}).get(step) or part.get("additionalProperties") or {}
    found = resolved(part)
    return list(found.get("properties", {})) if isinstance(found, dict) else []


_TAKES = {
    "bool_type": "true or false",
    "string_type": "text; put it in quotes if it looks like something else",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list, like [a, b]",
    "dict_type": "a map of keys",
    "model_type": "a map of keys",
    "model_attributes_type": "a map of keys",
    "finite_number": "a finite number",
}


def _sentence(error: dict[str, Any], path: _Path, schema: dict[str, Any]) -> str:
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    key = path[-1] if path else ""
    if kind == "extra_forbidden":
        return f"there is no key `{key}` here{suggestion(key, _keys_at(path, schema))}"
    if kind == "missing":
        return f"`{key}` is missing" + ("; begin the file with `version: 1`" if key == "version" else "; add it")
    if kind == "literal_error":
        wanted = str(context.get("expected", "")).replace("'", "")
        words = re.split(r", | or ", wanted)
        return f"{_shape(given)} is not one of: {', '.join(words)}{_meant(given, words)}"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind in _TAKES:
        return f"`{key}` takes {_TAKES[kind]}, not {_shape(given)}"
    if kind in {"greater_than_equal", "greater_than"}:
        return f"{_shape(given)} is too small; write {context.get('ge', context.get('gt'))} or more"
    if kind in {"too_short", "string_too_short"}:
        return f"`{key}` is empty; give it at least one entry" if kind == "too_short" else f"`{key}` is empty"
    if kind == "string_too_long":
        return f"this is longer than {context.get('max_length')} characters"
    if kind == "string_pattern_mismatch":
        if "a-z" in str(context.get("pattern")):
            return f"{_shape(given)} is no alias of a field; aliases are lower case letters, digits and _, and begin with a letter"
        return f"{_shape(given)} begins or ends with a blank, or has several lines"
    return f"{_shape(given)} does not fit: {error['msg']}"


def _meant(given: object, words: list[str]) -> str:
    near = nearest(given, words)
    return f"; did you mean `{near}`?" if near else ""


def _shape(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (dict, list)):
        return "a map" if isinstance(value, dict) else "a list"
    text = str(value)
    return f"`{text[:60]}{'…' if len(text) > 60 else ''}`"
