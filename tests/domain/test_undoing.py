"""What a run wrote goes back to what it was, where it is still as the run left it; the rest is left alone."""

from __future__ import annotations

from hypothesis import given, strategies as st

from mautic_sync.domain.plan import CONTACT, EMAIL_DNC
from mautic_sync.domain.undoing import UNDOES, Shown, Written, undo_contact, undo_dnc, undo_points

STAGES = ("Ghost", "Lead", "Customer")
FIELDS = ("city", "score", "reason")
TAGS = ("vip", "rejected")
RUN = "20261101T120000-abcdef"

stages = st.sampled_from([None, *STAGES])
values = st.one_of(st.none(), st.sampled_from(["Rome", "Paris", "9"]))


@st.composite
def contacts(draw):
    fields = {alias: value for alias in FIELDS if (value := draw(values)) is not None}
    return {"stage": draw(stages), "fields": fields, "tags": draw(st.sets(st.sampled_from(TAGS)))}


def applied(contact, new):
    """The contact after an edit."""
    fields = {**contact["fields"], **new.get("fields", {})}
    tags = set(contact["tags"])
    for tag in new.get("tags", ()):
        tags = tags - {tag[1:]} if tag.startswith("-") else tags | {tag}
    return {
        "stage": new.get("stage", contact["stage"]),
        "fields": {alias: value for alias, value in fields.items() if value is not None},
        "tags": tags,
    }


@st.composite
def edits(draw, contact):
    """A change as a run plans it: only what differs."""
    new: dict = {}
    wanted = draw(st.sampled_from(STAGES))
    if wanted != contact["stage"]:
        new["stage"] = wanted
    chosen = draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=3))
    fields = {alias: value for alias, value in chosen.items() if value != contact["fields"].get(alias)}
    if fields:
        new["fields"] = fields
    flipped = sorted(draw(st.sets(st.sampled_from(TAGS))))
    if flipped:
        new["tags"] = [f"-{tag}" if tag in contact["tags"] else tag for tag in flipped]
    old = {"stage": contact["stage"], "fields": {alias: contact["fields"].get(alias) for alias in fields}, "tags": []}
    return old, new


def undone(written, now):
    shown = Shown(now["stage"], now["fields"], now["tags"], {})
    return undo_contact(written, shown, stages=STAGES, undone=RUN, value=100)


@given(st.data())
def test_undoing_leads_back_to_where_the_run_began(data):
    before = data.draw(contacts())
    written, now = Written(), before
    for _ in range(data.draw(st.integers(1, 3))):
        old, new = data.draw(edits(now))
        written.add(old, new)
        now = applied(now, new)
    change, left = undone(written, now)
    assert left == []
    assert applied(now, change.new if change else {}) == before
    assert change is None or (change.target, change.new[UNDOES]) == (CONTACT, RUN)


@given(st.data())
def test_undoing_twice_changes_nothing_more(data):
    before = data.draw(contacts())
    old, new = data.draw(edits(before))
    written = Written()
    written.add(old, new)
    assert undone(written, before) == (None, [])


@given(st.data())
def test_what_somebody_changed_since_is_left_alone_and_named(data):
    before = data.draw(contacts())
    old, new = data.draw(edits(before))
    written = Written()
    written.add(old, new)
    theirs = data.draw(contacts())
    change, left = undone(written, theirs)
    after = applied(theirs, change.new if change else {})
    run_left = applied(before, new)
    for alias in FIELDS:
        ours = theirs["fields"].get(alias) == run_left["fields"].get(alias)
        if not ours:
            assert after["fields"].get(alias) == theirs["fields"].get(alias)
    if theirs["stage"] not in {run_left["stage"], before["stage"]} and "stage" in new:
        assert after["stage"] == theirs["stage"]
        assert "stage" in {what for what, _ in left}


def test_a_stage_that_mautic_no_longer_has_is_left_alone():
    written = Written()
    written.add({"stage": "Trial"}, {"stage": "Lead"})
    change, ((what, why),) = undone(written, {"stage": "Lead", "fields": {}, "tags": set()})
    assert (change, what) == (None, "stage")
    assert "Trial" in why


def test_what_mautic_made_of_a_value_counts_as_that_value():
    written = Written()
    written.add({"fields": {"score": 3.0}}, {"fields": {"score": "7.25"}})
    shown = Shown(None, {"score": 7.3}, (), {"score": ["7.25", 7.3]})
    change, left = undo_contact(written, shown, stages=STAGES, undone=RUN, value=1)
    assert (change.new["fields"], left) == ({"score": 3.0}, [])


def test_a_number_that_mautic_cannot_store_is_left_alone():
    written = Written()
    written.add({"fields": {"score": 0.5}}, {"fields": {"score": "7"}})
    change, left = undo_contact(written, Shown(None, {"score": 7}, (), {}), stages=STAGES, undone=RUN, value=1)
    assert (change, [what for what, _ in left]) == (None, ["score"])


def test_do_not_contact_of_ours_goes_and_what_was_put_back_stays():
    ours = ({"reason": None}, {"reason": 3, "verdict": "mark"})
    change, left = undo_dnc(EMAIL_DNC, *ours, present=3, ours=True, undone=RUN)
    assert (change.new, left) == ({"reason": None, "verdict": "mark", UNDOES: RUN}, [])
    for present, known in ((1, True), (3, False)):
        change, left = undo_dnc(EMAIL_DNC, *ours, present=present, ours=known, undone=RUN)
        assert (change, len(left)) == (None, 1)
    assert undo_dnc(EMAIL_DNC, *ours, present=None, ours=True, undone=RUN) == (None, [])
    change, left = undo_dnc(EMAIL_DNC, {"reason": None}, {"reason": 1}, present=1, ours=True, undone=RUN)
    assert (change, len(left)) == (None, 1)


@given(st.integers(-50, 50), st.integers(-50, 50))
def test_points_go_back_by_what_the_run_granted(granted, by_run):
    change = undo_points(granted, by_run, RUN, 1)
    if by_run == 0:
        assert change is None
    else:
        assert granted + change.new["delta"] == change.new["points"] == granted - by_run
