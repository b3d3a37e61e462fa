"""ZeroBounce: the key, and the credits that are left. Asking for them costs none."""

from __future__ import annotations

from contextlib import closing

from mautic_sync.doctor.examination import Examination
from mautic_sync.doctor.finding import Finding, failed, ok, skipped, warning
from mautic_sync.pipeline.run import connect_zerobounce
from mautic_sync.zerobounce import BadKeyError


def key(exam: Examination) -> Finding:
    zerobounce = connect_zerobounce(exam.set, "doctor")
    if zerobounce is None:
        return warning(
            "no key: the gate is open, and addresses become leads unchecked",
            "Set zerobounce.api_key, or MAUTIC_SYNC_ZEROBOUNCE__API_KEY_FILE to a file with the key.",
        )
    with closing(zerobounce):
        try:
            exam.credits = zerobounce.credits()
        except BadKeyError as error:
            told, _, fix = str(error).partition(": ")
            return failed(told, f"{fix[:1].upper()}{fix[1:]}")
    return ok(f"{zerobounce.base_url} knows it")


def credits_left(exam: Examination) -> Finding:
    if exam.credits is None:
        return skipped("the key is not set, or ZeroBounce did not answer")
    return judge_credits(exam.credits, exam.set.zerobounce.max_credits_per_run)


def judge_credits(left: int, per_run: int) -> Finding:
    fix = "Buy credits at ZeroBounce: until then newcomers with an address wait as ghosts, and nobody loses a stage."
    if left == 0:
        return failed("none are left: no new address is checked", fix, credits=0)
    if left < per_run:
        return warning(f"{left:,} are left, one run may spend {per_run:,}", fix, credits=left)
    return ok(f"{left:,} are left, at most {per_run:,} a run", credits=left)
