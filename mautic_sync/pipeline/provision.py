"""Creates in Mautic what the mappings name and Mautic lacks: stages, fields, segments, point groups. Never changes what is there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mautic_sync.errors import ConfigError
from mautic_sync.mappings import SegmentOf
from mautic_sync.mautic.provisioning import (
    SegmentInfo,
    StageInfo,
    create_field,
    create_point_group,
    create_segment_on_stage,
    create_segment_on_tag,
    create_stage,
    create_tag,
    held_by,
    list_fields,
    list_segments,
    list_stages,
    list_tags,
    stored_tag,
)
from mautic_sync.mautic.transport import Transport
from mautic_sync.pipeline import groups
from mautic_sync.pipeline.context import Run
from mautic_sync.pipeline.pull import CATALOGUE, READ_FIELDS
from mautic_sync.store import changes, notes

CORRECT = "correct its filter in Mautic, or delete it and run `mautic-sync init` again"


@dataclass(frozen=True)
class Made:
    """One thing that was created, or found: `what` stage, field, segment or point group.

    `amiss` says what is wrong with what was found, and what to do: it is never changed.
    """

    what: str
    name: str
    created: bool
    amiss: str = ""


def provision(run: Run) -> list[Made]:
    """Create what is missing; safe to repeat. Raises ConfigError for what a person has to put right first."""
    made = _stages(run)
    made += _fields(run)
    made += _segments(run)
    made += _point_groups(run)
    stages = [one.name for one in made if one.created and one.what == "stage"]
    fields = [one.name for one in made if one.created and one.what == "field"]
    with run.engine.begin() as connection:
        notes.drop(connection, CATALOGUE)
        if changes.stands_in_any(connection, stages, fields):
            # It was deleted in Mautic, which tells nobody whose it was: everybody is read again.
            notes.drop(connection, READ_FIELDS)
    return made


def _stages(run: Run) -> list[Made]:
    present = list_stages(run.mautic)
    published = [stage.name for stage in present if stage.published]
    hidden = {stage.name for stage in present if not stage.published} - set(published)
    taken = {stage.weight for stage in present}
    made = []
    for rule in run.mappings.stages.stages:
        if published.count(rule.name) > 1:
            msg = f"Mautic has two published stages named {rule.name}: only one can be set. Rename or unpublish one."
            raise ConfigError(msg)
        if rule.name in hidden:
            msg = f"the stage {rule.name} is unpublished in Mautic. Publish it, or name another in stages.yaml."
            raise ConfigError(msg)
        if rule.name not in published:
            # Each stage wants a weight of its own: docs/mautic.md, "Rights and versions".
            weight = next(number for number in range(rule.weight, rule.weight + len(taken) + 1) if number not in taken)
            taken.add(weight)
            create_stage(run.mautic, rule.name, weight, f"Set by mautic-sync: {rule.kind}")
        made.append(Made("stage", rule.name, rule.name not in published))
    return made


def _fields(run: Run) -> list[Made]:
    present = {field.alias: field for field in list_fields(run.mautic)}
    made = []
    for wanted in run.mappings.fields.create:
        known = present.get(wanted.alias)
        if known is None:
            create_field(run.mautic, wanted.alias, wanted.label, wanted.type)
        elif not known.published:
            msg = f"the field {wanted.alias} is unpublished in Mautic. Publish it, or name another in fields.yaml."
            raise ConfigError(msg)
        elif known.type != wanted.type:
            msg = (
                f"the field {wanted.alias} has the type {known.type} in Mautic, not {wanted.type} as in fields.yaml. "
                "Name another alias there."
            )
            raise ConfigError(msg)
        made.append(Made("field", wanted.alias, known is None))
    return made


def _segments(run: Run) -> list[Made]:
    wanted = run.mappings.fields.create_segments
    if not wanted:
        return []
    present = list_segments(run.mautic)
    stages = list_stages(run.mautic)
    stage_ids = {stage.name: stage.id for stage in stages if stage.published}
    tags = list_tags(run.mautic)
    made = []
    for name, on in wanted.items():
        found = called(name, present)
        alias = _alias(name)
        if not found and on.stage is not None:
            create_segment_on_stage(run.mautic, name, alias, stage_ids[on.stage])
        elif not found and on.tag is not None:
            # Mautic's segment filters name tags by number, so the tag must be there first.
            stored = stored_tag(run.mautic, on.tag)
            if stored not in tags:
                tags[stored] = create_tag(run.mautic, stored)
            create_segment_on_tag(run.mautic, name, alias, tags[stored])
        wrong = wrong_filter(run.mautic, found, on, stages, tags) if found else ""
        made.append(Made("segment", name, not found, f"{wrong}: {CORRECT}" if wrong else ""))
    return made


def called(name: str, segments: Iterable[SegmentInfo]) -> list[SegmentInfo]:
    """The segments that `init` takes for the one of this name."""
    return [one for one in segments if one.name.casefold() == name.casefold() or one.alias == _alias(name)]


def wrong_filter(
    mautic: Transport,
    found: Sequence[SegmentInfo],
    on: SegmentOf,
    stages: Sequence[StageInfo],
    tags: Mapping[str, int],
) -> str:
    """`filters stage 3, not Lead (5)`, of segments that are there; empty where one asks for what it should.

    What it asks for besides is the marketers' business.
    """
    if on.stage is not None:
        what, field, name = "stage", "stage", on.stage
        number = next((stage.id for stage in stages if stage.published and stage.name == name), None)
    else:
        what, field, name = "tag", "tags", on.tag or ""
        number = tags.get(stored_tag(mautic, name))
    asked = set[str]().union(*(held_by(segment, field) for segment in found))
    if str(number) in asked:
        return ""
    there = f"{what} {', '.join(sorted(asked))}" if asked else f"no {what}"
    return f"filters {there}, not {name} ({number or 'Mautic has none of this name'})"


def _point_groups(run: Run) -> list[Made]:
    groups.read(run)
    made = []
    for name in run.mappings.scores.push_groups:
        if name not in run.group_ids:
            create_point_group(run.mautic, name, "Set by mautic-sync")
        made.append(Made("point group", name, name not in run.group_ids))
    groups.read(run)
    return made


def _alias(name: str) -> str:
    """`Hot leads` → `hot-leads`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "segment"
