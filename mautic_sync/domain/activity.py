"""Activity: one thing a contact did, whatever feed told it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mautic_sync.domain.contact import NOTHING

# The words that rules use for activity, in the order of docs/mautic.md, "What is read from where".
ACTIVITY_TYPES: tuple[str, ...] = (
    "page.hit",
    "email.sent",
    "email.read",
    "email.click",
    "email.replied",
    "email.bounced",
    "form.submitted",
    "asset.download",
    "video.hit",
    "dnc.unsubscribed",
    "dnc.bounced",
    "dnc.manual",
    "segment.added",
    "segment.removed",
    "campaign.added",
    "campaign.removed",
    "campaign.event",
)

# What `where:` may name. `form`, `asset`, `email`, `page`, `campaign`, `segment` are names as marketers see them in
# Mautic; `url` and `referer` are addresses; `utm_*` come from the address of the page.
ACTIVITY_ATTRIBUTES: tuple[str, ...] = (
    "url",
    "page",
    "referer",
    "form",
    "asset",
    "email",
    "campaign",
    "segment",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
)

_UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
# What a type of activity tells, so that a `where` about anything else is known to match nothing. A type that is
# missing here, an event of the intake, may tell everything.
ATTRIBUTES_OF: Mapping[str, tuple[str, ...]] = {
    "page.hit": ("url", "page", "referer", *_UTM),
    "email.sent": ("email",),
    "email.read": ("email",),
    "email.click": ("email", "url", *_UTM),
    "email.replied": ("email",),
    "email.bounced": ("email",),
    "form.submitted": ("form", "referer"),
    "asset.download": ("asset", "referer"),
    "video.hit": ("url", "referer", *_UTM),
    "dnc.unsubscribed": (),
    "dnc.bounced": (),
    "dnc.manual": (),
    "segment.added": ("segment",),
    "segment.removed": ("segment",),
    "campaign.added": ("campaign",),
    "campaign.removed": ("campaign",),
    "campaign.event": ("campaign",),
}


class Activity(NamedTuple):
    """One activity. `at` is in seconds since 1970, UTC; `attributes` has keys of `ACTIVITY_ATTRIBUTES`."""

    type: str
    at: int
    attributes: Mapping[str, str] = NOTHING
