"""How long what is planned will take to write, at the speed of the last runs that wrote."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import Connection

from mautic_sync.domain.plan import VALUE_OF_KIND
from mautic_sync.settings import PushSettings
from mautic_sync.store import changes, notes

PACE = "push_pace"
FADES = 0.5
"""So much of what earlier runs measured counts beside the last one."""


def note_pace(connection: Connection, landed: int, seconds: float) -> None:
    """A run has had `landed` changes answered in so many seconds of writing."""
    if not landed:
        return
    before = notes.get_json(connection, PACE) or {"changes": 0, "seconds": 0}
    notes.put_json(
        connection,
        PACE,
        {"changes": before["changes"] * FADES + landed, "seconds": before["seconds"] * FADES + seconds},
    )


def eta(connection: Connection, push: PushSettings, pending: int, *, ghosts: int | None = None) -> dict[str, Any]:
    """Seconds of writing and runs that `pending` changes need, and how many of them wait for `push.window`.

    Seconds and runs are None where nothing is pending, or nothing was ever written and no speed is known. `ghosts` are
    those of the least value; None: as the store has planned them.
    """
    pace = notes.get_json(connection, PACE)
    seconds = None
    if pending and pace is not None:
        seconds = max(1, round(pending * pace["seconds"] / pace["changes"]))
    if push.window is None:
        ghosts = 0
    elif ghosts is None:
        ghosts = changes.count_planned(connection, most_value=VALUE_OF_KIND["ghost"])
    return {
        "pending_eta_seconds": seconds,
        "pending_runs": None if seconds is None else math.ceil(seconds / push.max_seconds),
        "pending_in_window": ghosts,
    }
