"""What commands print as sentences: one is one, several are several, and nothing is cut off."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from mautic_sync.cli import inspection, repairing
from mautic_sync.cli.common import console, counted, counted_kinds, listing
from mautic_sync.cli.passes import show_plan, show_summary
from mautic_sync.cli.signs import HANDLER
from mautic_sync.pipeline.undo import Found

ETA = {"pending_eta_seconds": 1, "pending_runs": 1, "pending_in_window": 0}
KINDS = {"ghost": 1, "lead": 1, "customer": 1}
ONES = re.compile(r"(?<![\d.,:-])1 (?:\S+[^s\W]s|people)\b")
"""`1 contacts`; `1 address` and `1 s` are well."""


def summary(count):
    return {
        "kinds": dict.fromkeys(KINDS, count),
        "pulled": {"contacts": count, "activities": count, "calls": count},
        "pushed": dict.fromkeys(("stages", "fields", "dnc", "points", "groups", "calls"), count),
        "validated": dict.fromkeys(("credits", "accept", "hold", "reject"), count),
        "actions": {"done": count, "refused": count, "pending": count},
        "uploads": {"open": count, "addresses": count, "doubtful": count},
        "transitions": [],
        "seconds": 1.0,
        **dict.fromkeys(("pending", "quarantined", "failed", "doubtful"), count),
        **ETA,
    }


def plan(count):
    return {
        "kinds": dict.fromkeys(KINDS, count),
        "changes": count,
        "contacts": count,
        "moves": [],
        "refused": count,
        "actions": [{"rule": "become hot", "count": count}],
        "gate_open": False,
        "verdicts_needed": count,
        "verdicts_to_buy": count,
        "held": count,
        "as_of": None,
        "listed": [],
        "warnings": [],
        "plan_id": None,
        "lacking": [],
        "safety_stop": None,
        **ETA,
    }


def undone(count):
    return Found(undone="R", changes=count, contacts=count, left=count, actions=count, unfinished=count)


def shown(count):
    out = console()
    show_summary(out, SimpleNamespace(zerobounce=object()), summary(count))
    show_plan(out, plan(count))
    repairing._show_undo(out, undone(count))
    document = {**summary(count), "run_id": "R", "held": count, "unwritten": count}
    repairing._show_undone(out, document, agreed=True)


def test_one_is_one(capsys):
    shown(1)
    told = capsys.readouterr().out
    assert ONES.findall(told) == []
    assert "Read 1 contact and 1 activity, in a run of 1.0 s." in told
    assert "1 address needs a verdict" in told
    assert "1 change to 1 contact." in told


def test_several_are_several(capsys):
    shown(2)
    told = " ".join(capsys.readouterr().out.split())
    assert "Read 2 contacts and 2 activities, in a run of 1.0 s." in told
    assert "Wrote 2 stages, 2 fields, 2 do-not-contacts and the points of 2 contacts with 2 calls." in told
    assert "2 people are held" in told
    assert "2 writes are in doubt: the next run looks them up" in told


@pytest.mark.parametrize(("number", "told"), [(0, "0 contacts"), (1, "1 contact"), (2, "2 contacts")])
def test_things_are_counted(number, told):
    assert counted(number, "contact") == told


def test_kinds_are_counted():
    assert counted_kinds({"ghost": 0, "lead": 1, "customer": 2}) == "0 ghosts, 1 lead, 2 customers"


def test_a_table_cuts_nothing_off(capsys):
    table = listing("contact", "why")
    place = "on[4].do.segments.add[0]" * 6
    table.add_row("1", place)
    console().print(table)
    assert place in "".join(capsys.readouterr().out.split())


def test_what_was_never_tried_alone_was_tried_once():
    """The fields of a shared address are refused together with the stage, which alone is tried."""
    assert [repairing._times(count) for count in (0, 1, 2)] == ["once", "once", "2 times"]


def test_what_is_held_back_is_named_apart_from_why(capsys):
    refused = {
        "id": "w1",
        "contact": 7,
        "new": {"fields": {"zb_status": "valid"}},
        "error": "422 no",
        "at": "then",
        "times": 1,
    }
    repairing._show_kept_back(console(), {"quarantined": [], "failed": [refused], "actions": []})
    assert "contact 7: zb_status = valid; failed: 422 no (then, tried once)" in capsys.readouterr().out


def test_status_says_where_to_read_of_what_is_held_back(capsys):
    document = {
        "mautic": "m",
        "kinds": KINDS,
        "pending": {},
        "quarantined": 0,
        "failed": 1,
        "actions": {"pending": 0, "refused": 0},
        "held": 0,
        "credits": None,
        "uploads": [],
        "worker": None,
        "rules": {"broken": None},
        "runs": [],
        **ETA,
    }
    inspection._show_status(console(), document)
    assert "What is held back, and why: `mautic-sync quarantine`." in capsys.readouterr().out
    inspection._show_status(console(), {**document, "failed": 0})
    assert "held back" not in capsys.readouterr().out


def test_signs_that_a_terminal_lacks_are_told_in_words():
    told = "✓ verdict, ✗ phone: Ghost → Lüders …".encode("ascii", HANDLER)
    assert told == b"[x] verdict, [ ] phone: Ghost -> L?ders ..."
    assert "Ghost → Lüders".encode("latin-1", HANDLER).decode("latin-1") == "Ghost -> Lüders"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", HANDLER)


@pytest.mark.parametrize("holds", ["changes", "actions", "verdicts_to_buy", None])
def test_a_plan_that_holds_nothing_is_not_to_be_carried_out(capsys, holds):
    document = {**plan(0), "actions": [], "plan_id": "P"}
    if holds is not None:
        document[holds] = plan(1)[holds]
    show_plan(console(), document)
    told = " ".join(capsys.readouterr().out.split())
    assert "Plan P: nothing was written." in told
    assert ("Carry it out with `mautic-sync sync`." in told) == (holds is not None)
