"""What the six files of rules mean together: everything that is wrong with them, found before anything is decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from mautic_sync.domain.activity import ACTIVITY_ATTRIBUTES, ATTRIBUTES_OF, Activity
from mautic_sync.domain.contact import KINDS
from mautic_sync.domain.contradictions import Known
from mautic_sync.domain.countries import country_key, fold, is_country_code, mautic_countries, translated_country
from mautic_sync.domain.grammar import (
    STATUSES,
    SUB_STATUSES,
    TOTAL,
    Leaf,
    Node,
    Path,
    Problem,
    duration_text,
    in_typographic_quotes,
    leaves,
    nearest,
    parse_condition,
    parse_duration,
    suggestion,
    without_typographic_quotes,
)
from mautic_sync.domain.validation import ORDER_KEYS, OrderKey
from mautic_sync.mapping_actions import circles, problems_of, segment_alias, templates_of, unset_addresses
from mautic_sync.mapping_contradictions import never_matching, reach_of
from mautic_sync.mapping_files import (
    ACTION_PLACEHOLDERS,
    FIELD_PLACEHOLDERS,
    FILES,
    MODELS,
    MOST_POINTS,
    ZEROBOUNCE_FIELDS,
    ActionsFile,
    FieldsFile,
    IdentityFile,
    ScoreRuleText,
    ScoringFile,
    StagesFile,
    ValidationFile,
    mappings_schema,
    placeholders,
)
from mautic_sync.mapping_problems import FileProblem, SourceFile, existing_path, sentence, shape

NAMED_BY = frozenset({"company", "firstname", "lastname"})
"""Fields that the placeholder `{name}` is made of."""
NAME_CALLED = dict.fromkeys(
    ("firstname", "first_name", "first name", "lastname", "last_name", "last name", "fullname", "full_name", "contact"),
    "name",
)
NOT_OURS_TO_WRITE = frozenset({"email", "id", "last_active", "owner", "points", "stage", "tags"})
DAY = 86_400  # seconds
CIRCLE = "a rule that reads it would swap people for ever; read what they did or are instead"


@dataclass(frozen=True)
class Checked:
    """Six files with nothing wrong in them, and their conditions by file and place."""

    stages: StagesFile
    validation: ValidationFile
    fields: FieldsFile
    identity: IdentityFile
    scoring: ScoringFile
    actions: ActionsFile
    conditions: Mapping[tuple[str, Path], Node]
    order: tuple[tuple[OrderKey, bool], ...]
    left_out: frozenset[str]
    """Names of packaged segments that cannot be made with these stages."""


class Checker:
    """Reads six documents, collecting all that is wrong with them; lives as long as that takes."""

    def __init__(self, sources: Mapping[str, SourceFile], *, history: int | None, time_zone: str) -> None:
        self.sources = sources
        self.history = history
        self.time_zone = time_zone
        self.problems: list[FileProblem] = []
        self.warnings: list[str] = []
        self.nodes: dict[tuple[str, Path], Node] = {}
        self.left_out: set[str] = set()
        self.groups: tuple[str, ...] | None = ()
        """Of scores; None where scoring.yaml does not even tell their names."""

    def read(self) -> Checked | None:
        """All of it, or None when something is wrong (`problems`)."""
        files = {name: self.file(name) for name in FILES}
        for name in FILES:
            for path, spec in _conditions_in(name, self.sources[name].document.value):
                self.condition(name, path, spec)
        stages, validation, fields, identity, scoring, actions = (files[name] for name in FILES)
        self.groups = _groups_in(self.sources["scoring"].document.value)
        if isinstance(stages, StagesFile):
            self.check_stages(stages)
        if isinstance(validation, ValidationFile):
            self.check_validation(validation)
        if isinstance(fields, FieldsFile):
            self.check_fields(fields, stages if isinstance(stages, StagesFile) else None)
        if isinstance(scoring, ScoringFile):
            self.check_scoring(scoring)
        else:
            self.check_score_rules(_sound_rules(self.sources["scoring"].document.value))
        if isinstance(actions, ActionsFile):
            self.check_actions(actions, stages if isinstance(stages, StagesFile) else None)
        if isinstance(actions, ActionsFile) and isinstance(fields, FieldsFile):
            self.check_fields_of_actions(actions, fields)
        self.check_circles(stages, validation, fields, actions)
        reach = reach_of(scoring) if isinstance(scoring, ScoringFile) else {}
        known = Known(reach, ZoneInfo(self.time_zone))
        self.warnings += map(str, never_matching(self.nodes, self.sources, known))
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
        return Checked(
            stages,
            validation,
            fields,
            identity,
            scoring,
            actions,
            conditions=self.nodes,
            order=self.order(validation),
            left_out=frozenset(self.left_out),
        )

    def problem(self, file: str, path: Path, text: str) -> None:
        self.problems.append(self.sources[file].problem(path, text))

    # The form of a file

    def file(self, name: str) -> object:
        """The model of one file, or None."""
        source = self.sources[name]
        self.problems += source.problems_of_text()
        value = source.document.value
        if value is None:
            if not source.document.problems and not any(one.file == source.name for one in self.problems):
                self.problem(
                    name, (), "this file is empty; begin with `version: 1`, or remove the file to use the default"
                )
            return None
        if not isinstance(value, dict):
            self.problem(name, (), f"this file is a map of keys, beginning with `version: 1`, not {shape(value)}")
            return None
        try:
            return MODELS[name].model_validate(value)
        except ValidationError as error:
            schema = mappings_schema()[name]
            conditions = {path for path, _spec in _conditions_in(name, value)}
            for one in error.errors(include_url=False, include_context=True):
                path = existing_path(one["loc"], value)
                if one["type"] == "dict_type" and path in conditions:
                    continue  # told by whoever reads the condition
                self.problem(name, path, sentence(dict(one), path, schema))
            return None

    def condition(self, file: str, path: Path, spec: object) -> None:
        found: list[Problem] = []
        node = parse_condition(spec, found, path)
        if node is not None:
            found += self.too_long(node)
            found += _unknown_countries(node)
            found += _unknown_attributes(node)
            found += _typographic_quotes(node)
            self.nodes[file, path] = node
        self.keep(file, found)

    def keep(self, file: str, found: Iterable[Problem]) -> None:
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
            here: Path = ("stages", index)
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
                path: Path = ("policy", group, index)
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
            if alias in NAMED_BY and "{name}" in template:
                told = f"`{{name}}` is made of `{alias}`, so it would grow with every run; choose another field"
                self.problem("fields", ("write", alias), told)
        known = {fold(stage.stage): stage.stage for stage in stages.stages} if stages else None
        for name, segment in file.create_segments.items():
            here: Path = ("create_segments", name)
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

    def template(self, file: str, path: Path, template: str, known: tuple[str, ...]) -> None:
        try:
            names = placeholders(template)
        except ValueError as error:
            self.problem(file, path, str(error))
            return
        groups = self.groups or ()
        known = (*known, *(f"score.{group}" for group in groups))
        called = {**NAME_CALLED, **{fold(f"points.{group}"): f"score.{group}" for group in groups}}
        for name in names:
            if name not in known and not (self.groups is None and name.startswith("score.")):
                self.problem(file, path, f"there is no placeholder `{{{name}}}`{suggestion(name, known, called)}")

    def exactly_one(self, file: str, path: Path, keys: Mapping[str, object]) -> None:
        given = [key for key, value in keys.items() if value is not None]
        if len(given) != 1:
            wanted = " or ".join(f"`{key}`" for key in keys)
            self.problem(file, path, f"this takes {wanted}, {'not both' if given else 'and has none of them'}")

    def check_scoring(self, file: ScoringFile) -> None:
        self.whole_days(("grid",), file.grid)
        for group in file.groups:
            if fold(group) == TOTAL:
                self.problem("scoring", ("groups", group), "`total` is the sum of all groups; name this one otherwise")
        self.check_score_rules(
            (group, index, rule) for group, rules in file.groups.items() for index, rule in enumerate(rules)
        )
        self.check_decay(file)
        for index, name in enumerate(file.push.groups):
            if name not in file.groups:
                told = f"there is no group `{name}`{suggestion(name, file.groups)}"
                told += ("" if told.endswith("?") else ".") + " Only groups of scores go to Mautic's point groups"
                self.problem("scoring", ("push", "groups", index), told)
            elif name in file.push.groups[:index]:
                self.problem("scoring", ("push", "groups", index), f"`{name}` is named twice; remove one of them")
            elif name.casefold() in (before := {one.casefold(): one for one in file.push.groups[:index]}):
                told = f"`{before[name.casefold()]}` and `{name}` would be one point group in Mautic, whose letter case does not count; rename one of them"
                self.problem("scoring", ("push", "groups", index), told)
        self.check_score_names(file)

    def check_score_rules(self, rules: Iterable[tuple[str, int, ScoreRuleText]]) -> None:
        """Each by itself, with its group and its place there, and that no two have one name."""
        groups: dict[str, str] = {}
        for group, index, rule in rules:
            here: Path = ("groups", group, index)
            first = groups.get(fold(rule.name))
            if first is not None:
                where = f"in `{group}`" if first == group else f"in `{first}` and in `{group}`"
                told = f"there are two rules `{rule.name}`, {where}; points are accounted by name, rename one"
                self.problem("scoring", (*here, "name"), told)
            groups.setdefault(fold(rule.name), group)
            self.check_score_rule(here, rule)

    def check_score_rule(self, here: Path, rule: ScoreRuleText) -> None:
        if not rule.points:
            self.problem("scoring", (*here, "points"), "0 points change nothing; remove the rule, or give it points")
        self.exactly_one("scoring", here, {"when": rule.when, "on": rule.on})
        for key in ("where", "at_most", "per", "unless"):
            if rule.on is None and getattr(rule, key) is not None:
                self.problem("scoring", (*here, key), f"`{key}` counts activity; it goes with `on`, not with `when`")
        if rule.once and rule.on is None:
            self.problem("scoring", (*here, "once"), "`once` counts activity; it goes with `on`, not with `when`")
        if rule.on is not None:
            self.scored_activity(here, rule.on, rule.where)
        if rule.once and (rule.at_most is not None or rule.per is not None):
            self.problem("scoring", (*here, "once"), "`once` already says how often; remove `at_most` and `per`")
        if rule.per is not None:
            self.whole_days((*here, "per"), rule.per)
            if rule.at_most is None and not rule.once:
                self.problem("scoring", (*here, "per"), "`per` goes with `at_most`: at most how many times?")
            if self.history is not None and rule.per > self.history:
                self.problem("scoring", (*here, "per"), self.beyond(rule.per))
        if rule.at_most is not None and rule.at_most * abs(rule.points) > MOST_POINTS:
            told = f"{rule.at_most} times {abs(rule.points)} points are more than {MOST_POINTS}; lower one of them"
            self.problem("scoring", (*here, "at_most"), told)
        unless = self.nodes.get(("scoring", (*here, "unless")))
        if unless is not None and rule.on is not None:
            self.check_unless((*here, "unless"), unless)

    def scored_activity(self, here: Path, name: str, where: object) -> None:
        """Reads what a rule counts, as if it were a condition about activity."""
        found: list[Problem] = []
        spec = {"activity": name} if where is None else {"activity": name, "where": where}
        node = parse_condition(spec, found, here)
        if node is not None:
            found += _unknown_attributes(node)
            found += _typographic_quotes(node)
            self.nodes["scoring", (*here, "on")] = node
        written = {(*here, "activity"): (*here, "on")}
        self.keep("scoring", (replace(one, path=written.get(one.path, one.path)) for one in found))

    def check_unless(self, here: Path, node: Node) -> None:
        if not isinstance(node, Leaf) or node.matcher is None:
            told = "`unless` waits for one activity, like `{activity: email.read, within: 7d}`; for all else write a rule with `when`"
            self.problem("scoring", here, told)
            return
        for key in node.operators:
            self.problem("scoring", (*here, key), f"`unless` looks for one activity; it has no `{key}`, remove it")
        if node.within is None:
            self.problem("scoring", here, "`unless` needs `within`: how many days are waited for the activity?")
        else:
            self.whole_days((*here, "within"), node.within)

    def check_decay(self, file: ScoringFile) -> None:
        several = isinstance(self.sources["scoring"].document.value.get("decay"), list)
        seen: set[str] = set()
        for index, decay in enumerate(file.decay):
            here: Path = ("decay", index) if several else ("decay",)
            if decay.group not in file.groups:
                told = f"there is no group `{decay.group}`{suggestion(decay.group, file.groups)}"
                self.problem("scoring", (*here, "group"), told)
            if decay.group in seen:
                told = f"`{decay.group}` fades twice; each group has one `decay`, remove one"
                self.problem("scoring", (*here, "group"), told)
            elif decay.group in file.groups and all(rule.on is None for rule in file.groups[decay.group]):
                told = f"this does nothing: only points for activity fade, and no rule of `{decay.group}` has `on`"
                self.warnings.append(str(self.sources["scoring"].problem((*here, "group"), told)))
            seen.add(decay.group)
            self.exactly_one("scoring", here, {"half_life": decay.half_life, "steps": decay.steps})
            self.whole_days((*here, "half_life"), decay.half_life)
            steps = decay.steps or []
            for number, step in enumerate(steps):
                at: Path = (*here, "steps", number)
                self.whole_days((*at, "after"), step.after)
                if number and step.after <= steps[number - 1].after:
                    told = f"the steps rise: {duration_text(step.after)} does not come after {duration_text(steps[number - 1].after)}"
                    self.problem("scoring", (*at, "after"), told)
                if number and step.keep >= steps[number - 1].keep:
                    told = f"points only fade: {step.keep:g} is not less than {steps[number - 1].keep:g}"
                    self.problem("scoring", (*at, "keep"), told)

    def whole_days(self, path: Path, seconds: int | None) -> None:
        if seconds is not None and seconds % DAY:
            more = -(-seconds // DAY)
            length = duration_text(seconds)
            minutes = " (`m` are minutes; for months write days, like 30d)" if length.endswith("m") else ""
            told = f"`{length}` is not a number of whole days, and points are counted by day; write {more}d{minutes}"
            self.problem("scoring", path, told)

    def check_score_names(self, file: ScoringFile) -> None:
        """Conditions, of whatever file, about scores that nobody gives points to."""
        known = (TOTAL, *(group for group in file.groups if fold(group) != TOTAL))
        for (name, _path), node in self.nodes.items():
            for leaf in leaves(node):
                if leaf.subject == "score" and leaf.names[0] not in known:
                    told, place = f"there is no score `{leaf.names[0]}`", (*leaf.path, "score")
                    if self.sources[name].packaged:
                        # Whoever writes groups of their own and keeps this default is not to blame for it.
                        told += f", which counts as 0 here; a file {name}.yaml of your own can name another"
                        self.warnings.append(str(self.sources[name].problem(place, told)))
                    else:
                        self.problem(name, place, told + suggestion(leaf.names[0], known))

    def check_actions(self, file: ActionsFile, stages: StagesFile | None) -> None:
        for path, told in problems_of(file, stages, NOT_OURS_TO_WRITE):
            self.problem("actions", path, told)
        for path, template in templates_of(file):
            self.template("actions", path, template, ACTION_PLACEHOLDERS)
        for path, told in unset_addresses(file):
            self.warnings.append(str(self.sources["actions"].problem(path, told)))

    def check_fields_of_actions(self, file: ActionsFile, kept: FieldsFile) -> None:
        for index, action in enumerate(file.on):
            for alias in action.do.fields:
                if alias in kept.write:
                    told = f"`{alias}` is kept by fields.yaml, which writes over this with the next sync; choose another field"
                    self.warnings.append(
                        str(self.sources["actions"].problem(("on", index, "do", "fields", alias), told))
                    )

    # Circles: rules that read what we write

    def check_circles(self, stages: object, validation: object, fields: object, actions: object) -> None:
        tags: dict[str, str] = {}
        scored_tags: dict[str, str] = {}
        staged_tags: dict[str, str] = {}
        written: dict[str, str] = {"points": "points are ours to give"}
        segments: dict[str, str] = {}
        scored_segments: dict[str, str] = {}
        managed: dict[str, str] = {}
        if isinstance(actions, ActionsFile):
            for action in actions.on:
                named = {
                    tag: f"actions.yaml sets the tag `{tag}`" for tag in (*action.do.tags.add, *action.do.tags.remove)
                }
                tags |= named
                staged_tags |= named if action.by_stages else {}
                scored_tags |= {} if action.by_stages else named
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
        staged: dict[str, str] = {}
        if isinstance(fields, FieldsFile):
            for alias, template in fields.write.items():
                written[alias] = f"fields.yaml writes the field `{alias}`"
                if any(begin in template for begin in ("{score", "{reason", "{points")):
                    scored[alias] = written[alias]
                elif any(begin in template for begin in ("{stage", "{kind", "{before_")):
                    staged[alias] = written[alias]
            for name in (one for one in fields.create_segments if one not in self.left_out):
                segments[segment_alias(name)] = f"fields.yaml builds the segment `{name}` on what we write"
                if fields.create_segments[name].tag in scored_tags:
                    scored_segments[segment_alias(name)] = segments[segment_alias(name)]
        if isinstance(stages, StagesFile):
            managed = {fold(stage.stage): "is a stage that we set" for stage in stages.stages}
            managed |= {fold(name): "is a stage that we replace (takes_over)" for name in stages.takes_over}
        if any(leaf.subject == "score" for leaf in self.leaves_of("stages")):
            # What follows from the stages then follows from the scores as well.
            scored_tags, scored, scored_segments = scored_tags | staged_tags, scored | staged, segments
        if isinstance(actions, ActionsFile):
            readers = [(file, place_of(leaf), leaf) for (file, _), node in self.nodes.items() for leaf in leaves(node)]
            reading = any(leaf.subject == "score" for leaf in self.leaves_of("stages"))

            def follows(leaf: Leaf) -> bool:
                read = {name.lower() for name in leaf.names} if leaf.subject == "field" else set()
                return not read.isdisjoint(written) or bool(_read_of(leaf, segments))

            for file, path, told in circles(actions, readers, stages_read_scores=reading, follows=follows):
                if self.sources["actions"].packaged:
                    # Whoever keeps the default is not to blame for it.
                    hint = f"{told}, and this reads it; an actions.yaml of your own can leave that out"
                    self.warnings.append(str(self.sources[file].problem(path, hint)))
                else:
                    self.problem(file, path, f"{told}: {CIRCLE}")
        for (file, path), node in self.nodes.items():
            for leaf in leaves(node):
                if file == "stages":
                    self.circle(file, leaf, tags, written, segments)
                    self.circle_of_stages(file, leaf, managed)
                elif file == "scoring":
                    self.circle(file, leaf, scored_tags, scored, scored_segments)
                    if path[0] == "groups":
                        self.circle_of_stages(file, leaf, managed)

    def leaves_of(self, file: str) -> Iterator[Leaf]:
        """All leaves of all conditions of a file."""
        for (name, _path), node in self.nodes.items():
            if name == file:
                yield from leaves(node)

    def circle(
        self, file: str, leaf: Leaf, tags: Mapping[str, str], fields: Mapping[str, str], segments: Mapping[str, str]
    ) -> None:
        told: list[str | None] = []
        if leaf.subject == "tag":
            told = [tags.get(name) for name in leaf.names]
        elif leaf.subject == "field":
            told = [fields.get(name.lower()) for name in leaf.names]
        named = {segment_alias(name) for name in segments_of(leaf)}
        for alias in _read_of(leaf, segments):
            if alias in named or not self.sources["fields"].packaged:
                told.append(segments[alias])
            else:  # Whoever keeps the default is not to blame for it.
                hint = f"{segments[alias]}, and this counts who joins it; name those that are meant under `where`"
                self.warnings.append(str(self.sources[file].problem(place_of(leaf), hint)))
        for one in told:
            if one is not None:
                self.problem(file, place_of(leaf), f"{one}: {CIRCLE}")

    def circle_of_stages(self, file: str, leaf: Leaf, managed: Mapping[str, str]) -> None:
        if leaf.subject == "kind":
            told = "the kind follows from the stages" if file == "stages" else "the kind may follow from the score"
            self.problem(file, (*leaf.path, "kind"), f"{told}: {CIRCLE}")
        if leaf.subject == "stage":
            for name in leaf.names:
                if fold(name) in managed:
                    self.problem(file, (*leaf.path, "stage"), f"`{name}` {managed[fold(name)]}: {CIRCLE}")
        if leaf.subject == "score" and file == "scoring":
            told = f"the score `{leaf.names[0]}` follows from rules like this: {CIRCLE}"
            self.problem(file, (*leaf.path, "score"), told)


def place_of(leaf: Leaf) -> Path:
    """Where a leaf names what it reads."""
    if leaf.matcher is None:
        return (*leaf.path, leaf.subject)
    named = [("where", kind) for kind in ("segment", "campaign") if kind in leaf.matcher.where]
    return (*leaf.path, *(named[0] if named else ()))


def segments_of(leaf: Leaf) -> list[str]:
    if leaf.subject == "segment":
        return list(leaf.names)
    if leaf.matcher is None:
        return []
    named = leaf.matcher.where.get("segment", [])
    return [named] if isinstance(named, str) else named


def _read_of(leaf: Leaf, segments: Iterable[str]) -> list[str]:
    """Which of these segments, by alias, a leaf reads, or counts who joins or leaves them."""
    named = {segment_alias(name) for name in segments_of(leaf)}
    matcher = leaf.matcher if leaf.names[:1] in {("segment.added",), ("segment.removed",)} else None
    return [
        alias
        for alias in segments
        if alias in named or (matcher is not None and matcher.matches(Activity(matcher.type, 0, {"segment": alias})))
    ]


def _groups_in(value: Any) -> tuple[str, ...] | None:
    """The groups that scoring.yaml names, whatever else is wrong with it."""
    if not isinstance(value, dict):
        return None
    groups = value.get("groups")
    if groups is None:
        return ()
    return tuple(groups) if isinstance(groups, dict) else None


def _sound_rules(value: Any) -> Iterator[tuple[str, int, ScoreRuleText]]:
    """The rules of scoring.yaml whose form is right, with group and place, where the file as a whole has another."""
    groups = value.get("groups") if isinstance(value, dict) else None
    for group, rules in groups.items() if isinstance(groups, dict) else ():
        for index, one in enumerate(rules if isinstance(rules, list) else ()):
            try:
                yield group, index, ScoreRuleText.model_validate(one)
            except ValidationError:
                continue


def _unknown_countries(node: Node) -> Iterator[Problem]:
    for leaf in leaves(node):
        if leaf.subject != "field" or leaf.names[0] != "country":
            continue
        for operator in ("is", "is_not", "in", "not_in"):
            operand = leaf.operators.get(operator, ())
            for one in operand if isinstance(operand, tuple) else (operand,):
                if not isinstance(one, str) or not one or country_key(one) != fold(one) or in_typographic_quotes(one):
                    continue
                place = (*leaf.path, operator)
                if is_country_code(one) and one.isupper():
                    told = f"`{one}` is no ISO 3166 code of a country; write the English name if in doubt"
                    yield Problem(place, told)
                    continue
                meant = translated_country(one) or nearest(one, mautic_countries())
                told = f"Mautic's list of countries has no `{one}`, so nobody is from there; "
                told += f"did you mean `{meant}`?" if meant else "write the English name, or the ISO code"
                yield Problem(place, told, warning=True)


def _typographic_quotes(node: Node) -> Iterator[Problem]:
    """Values whose quotes are part of the text, so that nothing is called so."""
    for leaf in leaves(node):
        written: list[tuple[Path, Any]] = [((leaf.subject,), leaf.names)]
        written += [((key,), operand) for key, operand in leaf.operators.items()]
        if leaf.matcher is not None:
            written += [(("where", key), wanted) for key, wanted in leaf.matcher.where.items()]
        for place, values in written:
            for one in values if isinstance(values, (list, tuple)) else (values,):
                if isinstance(one, str) and in_typographic_quotes(one):
                    meant = without_typographic_quotes(one)
                    hint = f'the quotes of `{one}` are part of the text; use straight ones, "{meant}", or none'
                    yield Problem((*leaf.path, *place), hint, warning=True)


def _unknown_attributes(node: Node) -> Iterator[Problem]:
    """`where` about something that the activity never tells, so that nothing would ever match."""
    for leaf in leaves(node):
        if leaf.matcher is None:
            continue
        known = ATTRIBUTES_OF.get(leaf.matcher.type, ACTIVITY_ATTRIBUTES)
        for name in leaf.matcher.where:
            if name not in known:
                told = f"`{leaf.matcher.type}` tells no `{name}`, so this never matches"
                told += suggestion(name, known) if known else "; remove `where`"
                yield Problem((*leaf.path, "where", name), told)


def _conditions_in(file: str, value: Any) -> Iterator[tuple[Path, Any]]:
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

    places: list[Path] = []
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
