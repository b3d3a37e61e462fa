"""Errors, named by what the worker does next.

Each carries one sentence for the person in front of it: what was being done, to what, what came back, and what to
do next. Secrets and addresses never appear in it. `exit_code` is the documented code of the command that it ends,
`facts` what a program is told beside the sentence; where it ends a run, that one's `run_id` and `summary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MauticSyncError(Exception):
    """The base of every error that we raise on purpose: shown without a traceback."""

    exit_code = 1
    facts: Mapping[str, Any] = {}


class StopError(MauticSyncError):
    """The run cannot go on (unreachable, wrong credentials, missing rights): fix it and run again."""


class UnreadableError(StopError):
    """A page came back where JSON was due: the API is off, this is no Mautic, or one contact makes Mautic fail."""


class ForbiddenError(StopError):
    """A right is missing for what was asked; other things may be allowed."""


class ConfigError(MauticSyncError):
    """Settings, mappings or arguments are wrong: nothing was read or written."""

    exit_code = 2


class SafetyStop(MauticSyncError):
    """The run would change more than it may on its own: a person decides.

    Its facts: `safety_stop`, why; `plan`, the id to accept, and `planned`, what that plan holds, or None without one.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, why: str, plan_id: str | None = None, planned: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.facts = {"safety_stop": why, "plan": plan_id, "planned": planned}


class StoreBusyError(MauticSyncError):
    """Another run holds the store."""

    exit_code = 5


class RetryError(MauticSyncError):
    """A passing fault that outlasted its retries: the next run tries again."""


class RefusedError(MauticSyncError):
    """Mautic or ZeroBounce looked at one request and said no: repeating it would not help.

    `status` is the HTTP status (or the status of the item in a batch), `reason` what came back, shortened and
    without addresses.
    """

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class DoubtfulError(MauticSyncError):
    """A write whose answer was lost: it may have happened, or may still happen."""


class MalformedError(MauticSyncError):
    """One piece of input cannot be understood: it is quarantined and the run goes on."""


class Terminated(BaseException):
    """SIGTERM arrived: the run ends like after Ctrl-C, with the exit code of that signal."""

    exit_code = 143
