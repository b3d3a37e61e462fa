"""What a check finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """`told` is one sentence; `fix` says what to do about a warning or a failure; `facts` are numbers behind it.

    `configuration`: what failed are settings or mappings, so that nothing could be tried.
    """

    state: State
    told: str
    fix: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    configuration: bool = False


def ok(told: str, **facts: Any) -> Finding:
    return Finding("ok", told, facts=facts)


def warning(told: str, fix: str, **facts: Any) -> Finding:
    return Finding("warning", told, fix, facts)


def failed(told: str, fix: str, **facts: Any) -> Finding:
    return Finding("failed", told, fix, facts)


def skipped(why: str) -> Finding:
    return Finding("skipped", why)


def listed(names: list[str], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def spoken(seconds: float) -> str:
    """A duration to be read: `40 ms`, `3 s`, `12 min`, `5 h`."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 90:
        return f"{round(seconds)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h" if seconds < 48 * 3600 else f"{round(seconds / 86400)} days"
