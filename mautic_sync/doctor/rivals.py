"""Two writers: what Mautic itself does to stages that we manage and for things that we give points for.

Nothing of it is wrong by itself. But people whom two move go to and fro, and what is rewarded twice counts twice.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.finding import Finding, listed, ok, skipped, warning
from mautic_sync.errors import ForbiddenError
from mautic_sync.mautic.automation import Campaign, Webhook, list_webhooks
from mautic_sync.mautic.transport import parse_version

# Mautic's name of a point rule, or of a decision in a campaign → our name of the activity.
ACTIVITY_OF = {
    "asset.download": "asset.download",
    "email.open": "email.read",
    "email.send": "email.sent",
    "email.click": "email.click",
    "email.reply": "email.replied",
    "form.submit": "form.submitted",
    "page.hit": "page.hit",
    "page.pagehit": "page.hit",
    "url.hit": "page.hit",
}
REFUSES_PRIVATE = (7,)
"""The first version whose webhooks call no private address unless told to."""


def stages(exam: Examination) -> Finding:
    """Campaigns, and triggers from 7.x on, that move people into or out of managed stages."""
    managed = {one.id: one.name for one in exam.stages if one.name in exam.rules.stages.managed}
    try:
        movers = [
            f"the campaign {campaign.name} (to {managed[act.stage_id]})"
            for campaign in exam.campaigns
            if campaign.published
            for act in campaign.acts
            if act.stage_id is not None and act.stage_id in managed
        ]
    except ForbiddenError:
        return _unseen("campaign:campaigns:view", "campaigns")
    movers += _moving_triggers(exam, managed)
    if movers:
        return warning(
            f"managed stages are also moved by {listed(movers)}",
            "Take that action out of Mautic, or the stage out of stages.yaml: only one may decide about a stage.",
        )
    return ok("nothing published in Mautic moves people between managed stages")


def _moving_triggers(exam: Examination, managed: dict[int, str]) -> list[str]:
    try:
        return [
            f"the point trigger {one.name}"
            for one in exam.triggers
            if one.published and any(act.moves_stage and act.stage_id in {None, *managed} for act in one.acts)
        ]
    except ForbiddenError:
        return []  # two_writers.triggers says so


def points(exam: Examination) -> Finding:
    """Point rules, campaigns and forms that grant points for what scoring.yaml gives points for."""
    scores = exam.rules.scores
    if scores.push_to == "none":
        return skipped("points are not pushed")
    scored: dict[str, list[str]] = {}
    for rule in scores.rules:
        if rule.matcher is not None and rule.points > 0:
            scored.setdefault(rule.matcher.type, []).append(rule.name)
    try:
        both = [
            f"the point rule {one.name} ({one.delta:+d}) and {listed(scored[ACTIVITY_OF[one.type]])}"
            for one in exam.point_rules
            if one.published and ACTIVITY_OF.get(one.type) in scored
        ]
        others = sum(one.published for one in exam.point_rules) - len(both)
        for campaign in exam.campaigns:
            rewarded = sorted(_rewarded_by(campaign) & scored.keys())
            if campaign.published and any(act.grants_points for act in campaign.acts):
                names = listed([name for activity in rewarded for name in scored[activity]])
                both += [f"the campaign {campaign.name} and {names}"] if rewarded else []
                others += not rewarded
        both += [
            f"the form {form.name} and {listed(scored['form.submitted'])}"
            for form in exam.forms
            if form.published and "form.submitted" in scored and any(act.grants_points for act in form.acts)
        ]
    except ForbiddenError:
        return _unseen("point:points:view, campaign:campaigns:view and form:forms:viewother", "point rules")
    if both:
        return warning(
            f"the same thing counts twice, in Mautic and in scoring.yaml: {listed(both)}",
            "Unpublish Mautic's (Points → Manage Actions, the campaign, the form), or take the rule out of scoring.yaml.",
        )
    apart = f"; {others} published in Mautic reward something else" if others else ""
    return ok(f"nothing published in Mautic rewards what scoring.yaml does{apart}")


def _rewarded_by(campaign: Campaign) -> set[str]:
    """Activity after which this campaign may grant points: what it waits for, and the forms that lead into it."""
    found = {ACTIVITY_OF[one] for one in campaign.waits_for if one in ACTIVITY_OF}
    return found | ({"form.submitted"} if campaign.starts_with_form else set())


def triggers(exam: Examination) -> Finding:
    if exam.rules.scores.push_to == "none":
        return skipped("points are not pushed")
    try:
        published = [f"{one.name} (at {one.points})" for one in exam.triggers if one.published]
    except ForbiddenError:
        return _unseen("point:triggers:view", "point triggers")
    if published:
        return warning(
            f"points that we grant fire Mautic's point triggers too: {listed(published)}",
            "Unpublish them (Points → Manage Triggers) if they are meant for Mautic's own points alone. With `start: auto` in "
            "scoring.yaml points begin with what comes later when history could fire one; `mautic-sync plan` says so.",
        )
    return ok("no point trigger is published")


def _unseen(right: str, what: str) -> Finding:
    return skipped(f"the right {right} is missing: {what} cannot be looked at")


# -- webhooks -------------------------------------------------------------------------------------------------------


def webhooks(exam: Examination) -> Finding:
    """Mautic 7 calls no private address unless its own settings list it."""
    try:
        found = list_webhooks(exam.probe)
    except ForbiddenError:
        return _unseen("webhook:webhooks:viewown", "webhooks")
    return judge_webhooks(found, exam.probe.version)


def judge_webhooks(found: list[Webhook], version: str | None) -> Finding:
    if not found:
        return ok("Mautic has none, and none is needed: they only say sooner where to look")
    private = [one.name for one in found if one.published and is_private(one.url)]
    if private and parse_version(version or "") >= REFUSES_PRIVATE:
        return warning(
            f"this Mautic calls no private address unless told to: {listed(private)}",
            "Add the address to `webhook_allowed_private_addresses` in Mautic's config/local.php, and clear its cache.",
        )
    return ok(f"{sum(one.published for one in found)} published")


def is_private(url: str) -> bool:
    """Whether this address is one of a private network: by its numbers, or as a name that only such a network has."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost", ".lan"))
    return number.is_private or number.is_loopback
