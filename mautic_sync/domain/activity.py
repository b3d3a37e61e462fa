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


class Activity(NamedTuple):
    """One activity. `at` is in seconds since 1970, UTC; `attributes` has keys of `ACTIVITY_ATTRIBUTES`."""

    type: str
    at: int
    attributes: Mapping[str, str] = NOTHING
