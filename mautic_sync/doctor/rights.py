"""What our credentials may do, endpoint by endpoint.

Reading is tried, with one row each. Writing is not: the role tells, or the first write will.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.finding import Finding, failed, listed, ok, skipped, warning
from mautic_sync.errors import ForbiddenError, RefusedError
from mautic_sync.mautic.feeds import feed_max_id
from mautic_sync.mautic.points import LOG
from mautic_sync.mautic.probing import count_shown

GIVE = "Give it to the role of the API user (Settings → Roles); an OAuth 2 client has the role of who made it."
FOR_CONTACTS = ("lead:leads:editown", "lead:leads:editother")
FOR_INIT = {
    "stage": "stage:stages:create",
    "field": "lead:fields:full",
    "segment": "lead:lists:create",
}


@dataclass(frozen=True)
class Endpoint:
    """A list that the worker reads; `unneeded` says why it is not read, or None. `without` says what its lack means."""

    path: str
    right: str
    unneeded: Callable[[Examination], str | None]
    without: str
    optional: bool = False


def _always(_exam: Examination) -> str | None:
    return None


def _named(part: str) -> Callable[[Examination], str | None]:
    return lambda exam: None if part in exam.rules.catalogues_needed else f"no rule names {part}"


def _segments(exam: Examination) -> str | None:
    needed = "segments" in exam.rules.catalogues_needed or exam.rules.fields.create_segments
    return None if needed else "no rule names segments"


def _tags(exam: Examination) -> str | None:
    on_tags = any(one.tag for one in exam.rules.fields.create_segments.values())
    needed = "tags" in exam.rules.catalogues_needed or on_tags
    return None if needed else "no rule names tags"


def _users(exam: Examination) -> str | None:
    return None if any(rule.do.owners for rule in exam.rules.action_rules.rules) else "no action names an owner"


def _points(exam: Examination) -> str | None:
    return None if exam.rules.scores.push_to == "points" else "points are not pushed"


def _groups(exam: Examination) -> str | None:
    return None if exam.rules.scores.push_groups else "no sub-scores are pushed"


ENDPOINTS = {
    "stages": Endpoint("stages", "stage:stages:view", _always, "nothing can be read or written"),
    "fields": Endpoint("fields/contact", "lead:fields:view", _always, "nothing can be read or written"),
    "segments": Endpoint("segments", "lead:lists:viewother", _segments, "rules and actions that name segments fail"),
    "tags": Endpoint("tags", "lead:leads:viewown", _tags, "segments on tags cannot be made"),
    "campaigns": Endpoint(
        "campaigns", "campaign:campaigns:view", _named("campaigns"), "rules and actions that name campaigns fail"
    ),
    "forms": Endpoint("forms", "form:forms:viewother", _named("forms"), "rules that name forms fail"),
    "assets": Endpoint("assets", "asset:assets:viewother", _named("assets"), "rules that name assets fail"),
    "emails": Endpoint("emails", "email:emails:viewother", _named("emails"), "rules that name e-mails fail"),
    "pages": Endpoint("pages", "page:pages:viewother", _named("pages"), "rules that name landing pages fail"),
    "triggers": Endpoint(
        "points/triggers",
        "point:triggers:view",
        _points,
        "points begin with what comes later instead of with the history (start in scoring.yaml)",
        optional=True,
    ),
    "groups": Endpoint(
        "points/groups", "point:groups:view", _groups, "sub-scores cannot be written, and no run ends well"
    ),
    "users": Endpoint("users", "user:users:view", _users, "actions that set an owner fail"),
}


def may_read(name: str) -> Callable[[Examination], Finding]:
    """The check of one of `ENDPOINTS`."""
    endpoint = ENDPOINTS[name]

    def check(exam: Examination) -> Finding:
        unneeded = endpoint.unneeded(exam)
        if unneeded is not None:
            return skipped(unneeded)
        try:
            exam.probe.read(endpoint.path, {"limit": 1})
        except ForbiddenError:
            told = f"the right {endpoint.right} is missing: {endpoint.without}"
            return warning(told, GIVE) if endpoint.optional else failed(told, GIVE)
        except RefusedError as refused:
            if refused.status != 404:
                raise
            return ok("this Mautic has none: it is switched off")
        return ok("may be read")

    return check


def contacts(exam: Examination) -> Finding:
    """With the right to view one's own contacts alone, the plain list is empty while any condition shows everybody."""
    everybody = exam.contacts
    if everybody and not count_shown(exam.probe):
        return failed("the right lead:leads:viewother is missing: the contacts of others are not all shown", GIVE)
    return ok(f"{everybody:,} contacts may be read", contacts=everybody)


def feeds(exam: Examination) -> Finding:
    """The statistics tables that the mappings need, and those that every run needs."""
    always = ["audit_log", *([LOG] if exam.rules.scores.push_to == "points" else [])]
    try:
        for name in always:
            feed_max_id(exam.probe, name)
        rows = exam.feeds
    except ForbiddenError:
        return failed("the right lead:leads:viewown is missing: changes and activity cannot be read", GIVE)
    return ok(f"{listed(sorted({*always, *rows}), 20)} may be read", **rows)


def writing(exam: Examination) -> Finding:
    """Of the role alone: there is no write that changes nothing."""
    if not exam.set.push.enabled:
        return skipped("nothing is written (push.enabled = false)")
    role = exam.role
    if role.is_admin:
        return ok(f"the role {role.name} may do everything")
    if role.granted is None:
        return skipped(f"Mautic does not tell the rights of the role {role.name}: seen at the first write")
    missing = [right for right in FOR_CONTACTS if role.lacks(right)]
    if missing:
        return failed(f"the role {role.name} lacks {listed(missing)}: nothing can be written", GIVE)
    for what, right in FOR_INIT.items():
        missing += [right] if role.lacks(right) and _to_be_made(exam, what) else []
    if missing:
        return warning(
            f"the role {role.name} lacks {listed(missing)}: `init` cannot create what is missing",
            f"{GIVE} Or let an administrator create it by hand.",
        )
    if any(rule.do.note is not None for rule in exam.rules.action_rules.rules):
        return warning(
            f"the role {role.name} may write no notes, for which Mautic has no right to give: actions with a note are refused",
            "Give the API user an administrator's role, or take `note` out of actions.yaml.",
        )
    return ok(f"the role {role.name} may edit the contacts of everybody")


def _to_be_made(exam: Examination, what: str) -> bool:
    try:
        return _is_missing(exam, what)
    except ForbiddenError:
        return False  # the row of that list says so


def _is_missing(exam: Examination, what: str) -> bool:
    if what == "stage":
        present = {one.name for one in exam.stages}
        return any(rule.name not in present for rule in exam.rules.stages.stages)
    if what == "field":
        aliases = {one.alias for one in exam.fields}
        return any(one.alias not in aliases for one in exam.rules.fields.create)
    names = {one.name.casefold() for one in exam.segments}
    return any(name.casefold() not in names for name in exam.rules.fields.create_segments)
