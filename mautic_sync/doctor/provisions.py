"""What the mappings need in Mautic and in our own environment: stages, fields, names, owners, addresses of messages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from mautic_sync.destinations import notifications
from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.finding import Finding, failed, listed, ok, skipped, warning
from mautic_sync.errors import ConfigError, ForbiddenError
from mautic_sync.mappings import MappingsError
from mautic_sync.mautic.provisioning import list_tags, list_users, read_catalogue
from mautic_sync.pipeline.provision import CORRECT, called, wrong_filter

INIT = "Run `mautic-sync init`, which creates it."


def stages(exam: Examination) -> Finding:
    managed = [rule.name for rule in exam.rules.stages.stages]
    published = Counter(one.name for one in exam.stages if one.published)
    hidden = {one.name for one in exam.stages if not one.published}
    unpublished = [name for name in managed if not published[name] and name in hidden]
    if unpublished:
        return failed(
            f"unpublished in Mautic: {listed(unpublished)}",
            "Publish it (Stages), or name another in stages.yaml: whoever is in an unpublished stage cannot be edited.",
        )
    missing = [name for name in managed if not published[name]]
    if missing:
        return failed(f"missing in Mautic: {listed(missing)}", INIT)
    twice = [name for name in managed if published[name] > 1]
    if twice:
        return failed(
            f"there are two published stages of one name: {listed(twice)}",
            "Rename or unpublish one of them: only one can be set.",
        )
    return _weights(exam, managed)


def _weights(exam: Examination, managed: list[str]) -> Finding:
    by_weight: dict[int, list[str]] = {}
    for one in exam.stages:
        if one.published:
            by_weight.setdefault(one.weight, []).append(one.name)
    shared = [sorted(names) for names in by_weight.values() if len(names) > 1 and set(names) & set(managed)]
    if shared:
        return warning(
            f"stages of one weight: {listed([' and '.join(names) for names in shared])}",
            "Give each stage a weight of its own in Mautic (Stages → weight); newer versions insist on it.",
        )
    return ok(f"{listed(managed, 20)}: published, each with a name and a weight of its own")


def fields(exam: Examination) -> Finding:
    rules = exam.rules.fields
    present = {one.alias: one for one in exam.fields}
    wanted = [*rules.write, *(one.alias for one in rules.create)]
    missing = sorted({alias for alias in wanted if alias not in present})
    creatable = {one.alias for one in rules.create}
    if foreign := [alias for alias in missing if alias not in creatable]:
        return failed(
            f"missing in Mautic: {listed(foreign)}",
            "Create it in Mautic (Custom Fields), or list it under `create` in fields.yaml and run `mautic-sync init`.",
        )
    if missing:
        return failed(f"missing in Mautic: {listed(missing)}", INIT)
    hidden = sorted({alias for alias in wanted if not present[alias].published})
    if hidden:
        return failed(
            f"unpublished in Mautic: {listed(hidden)}", "Publish it (Custom Fields), or name another in fields.yaml."
        )
    other = [
        f"{one.alias} is {present[one.alias].type}, not {one.type}"
        for one in rules.create
        if present[one.alias].type != one.type
    ]
    if other:
        return failed(listed(other), "Name another alias in fields.yaml: the type of a field cannot be changed.")
    return ok(f"{listed(sorted(set(wanted)), 20)}: published, of the right type" if wanted else "none is written")


def segments(exam: Examination) -> Finding:
    wanted = exam.rules.fields.create_segments
    if not wanted:
        return skipped("fields.yaml names none under create_segments")
    try:
        tags = list_tags(exam.probe) if any(one.tag for one in wanted.values()) else {}
        found = {name: called(name, exam.segments) for name in wanted}
    except ForbiddenError:
        return skipped("a list cannot be read, see the rights")
    wrong = {
        name: wrong_filter(exam.probe, found[name], on, exam.stages, tags) for name, on in wanted.items() if found[name]
    }
    if told := [f"segment {name} {what}" for name, what in wrong.items() if what]:
        return warning("; ".join(told), f"{CORRECT[0].upper()}{CORRECT[1:]}.")
    if missing := [name for name in wanted if not found[name]]:
        return warning(f"missing in Mautic: {listed(missing)}", INIT)
    if left := [
        f"{name} ({one.tag})" for name, one in wanted.items() if one.tag and one.tag not in exam.rules.added_tags
    ]:
        return warning(
            f"no rule sets the tag of {listed(left)}: whoever has it keeps it, and stays in the segment",
            "If the tag was renamed in actions.yaml, name the new one in fields.yaml (create_segments) and take the old one "
            "off in Mautic; if somebody else sets it, all is well.",
        )
    return ok(f"{listed(list(wanted), 20)}: each filters its stage or tag")


def names(exam: Examination) -> Finding:
    """Everything that rules name exists: the same binding that each run begins with."""
    rules = exam.rules
    try:
        catalogue = read_catalogue(
            exam.probe,
            rules.catalogues_needed,
            written_fields=rules.fields.write,
            written_tags=rules.written_tags,
        )
    except ForbiddenError:
        return skipped("a list cannot be read, see the rights")
    try:
        bound = rules.bind(catalogue)
    except MappingsError as error:
        told = listed([str(problem) for problem in error.problems], 20)
        return Finding("failed", told, "Correct the rule there, or create it in Mautic.", configuration=True)
    lacking = list(bound.warnings[len(rules.warnings) :])
    if lacking:
        return warning(listed(lacking, 20), "Create it in Mautic, or take it out of the mappings.")
    return ok("everything that rules name exists in this Mautic")


def owners(exam: Examination) -> Finding:
    wanted = list(dict.fromkeys(name for rule in exam.rules.action_rules.rules for name in rule.do.owners))
    if not wanted:
        return skipped("no action names an owner")
    try:
        users = list_users(exam.probe)
    except ForbiddenError:
        return skipped("users cannot be listed, see rights.users")
    called = {name: [one for one in users if one.is_called(name)] for name in wanted}
    # An owner may be named by address, which is not shown.
    shown = {name: _shown(name, number) for number, name in enumerate(wanted, start=1)}
    if unknown := [shown[name] for name in wanted if not called[name]]:
        return failed(
            f"this Mautic has no such user: {listed(unknown)}",
            "Correct `owner` in actions.yaml (user name, address or number, see Settings → Users), or create the user.",
        )
    if hidden := [shown[name] for name in wanted if not any(one.published for one in called[name])]:
        return failed(
            f"unpublished in Mautic: {listed(hidden)}",
            "Publish the user (Settings → Users), or take it out of `owner` in actions.yaml: nobody is given to it.",
        )
    return ok(f"{len(wanted)} owners exist, published")


def _shown(name: int | str, number: int) -> str:
    return f"the {number}. owner (an address)" if "@" in str(name) else str(name)


def messages(exam: Examination, environment: Mapping[str, str] = os.environ) -> Finding:
    """The form of the addresses alone: nothing is sent, and none is shown."""
    wanted = list(dict.fromkeys(one for rule in exam.rules.action_rules.rules for one in rule.do.notify_to))
    if not wanted:
        return skipped("no action sends messages")
    if not notifications.installed():
        return failed("the package apprise is not installed", "Run `pip install 'mautic-sync[notify]'`.")
    wrong = []
    for number, one in enumerate(wanted, start=1):
        try:
            notifications.look(one, environment)
        except ConfigError as error:
            wrong.append(f"the {number}. of {len(wanted)}: {error}")
    if wrong:
        return failed(listed(wrong), "Correct `notify.to` in actions.yaml, or set the variable where the worker runs.")
    return ok(f"{len(wanted)} addresses that Apprise understands (nothing was sent)")
