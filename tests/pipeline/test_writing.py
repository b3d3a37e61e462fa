"""What a write becomes: redirected by a merge, made into something else, refused in part, undone by hand, or too late."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
import requests
from sqlalchemy import select

from mautic_sync.errors import ForbiddenError, SafetyStop
from mautic_sync.pipeline import push
from mautic_sync.pipeline.context import MOST_ATTEMPTS
from mautic_sync.pipeline.waiting import eta, note_pace
from mautic_sync.store import changes, people
from mautic_sync.store.schema import change, standing, transition

DAY = 86400
ETA = ("pending_eta_seconds", "pending_runs", "pending_in_window")


@pytest.fixture
def worker(make_worker):
    worker = make_worker()
    worker.init()
    worker.sync()  # the baseline of an empty Mautic
    return worker


def scripted(worker, address: str, status: str, sub_status: str = "", **more) -> str:
    worker.post("/_sandbox/zerobounce", {"email": address, "status": status, "sub_status": sub_status, **more})
    return address


def rows_of(worker, table):
    with worker.run("look") as run, run.engine.begin() as connection:
        return list(connection.execute(select(table)))


def written(worker) -> dict:
    (row,) = rows_of(worker, standing)
    return orjson.loads(row.written)


def refused(worker) -> list[str]:
    with worker.run("look") as run, run.engine.begin() as connection:
        return [row["error"] for row in changes.listed(connection, [changes.REFUSED])]


def test_one_contact_that_a_firewall_does_not_let_through_is_written_last_of_all_and_refused_in_the_end(
    worker, unshown
):
    numbers = [worker.new(firstname=f"N{one}", phone=f"+49 30 {one}") for one in range(60)]
    unshown(rf'batch/edit.*"id":{numbers[7]},|/contacts/{numbers[7]}/edit', status=403, page=True)
    document = worker.sync()
    assert (document["pushed"]["stages"], document["pending"], document["failed"]) == (59, 1, 1)
    for _ in range(MOST_ATTEMPTS - 1):
        document = worker.sync()
    assert (document["pending"], document["failed"]) == (0, 1)
    (error,) = refused(worker)
    assert "what stands before Mautic (a firewall, a proxy) did not let it through" in error
    assert worker.sync()["failed"] == 0


def test_one_contact_that_our_user_may_not_edit_is_refused_in_the_end_though_its_batch_is_answered(
    worker, unshown, monkeypatch
):
    """Somebody else's contact, where the role may edit its own only: one item of a batch is 403, and so is its edit."""
    numbers = [worker.new(firstname=f"N{one}", phone=f"+49 30 {one}") for one in range(5)]
    unshown(f"/contacts/{numbers[2]}/edit", status=403)
    real = requests.Session.request

    def request(session, verb, url, **more):
        if not url.endswith("batch/edit"):
            return real(session, verb, url, **more)
        items = orjson.loads(more["data"])
        place = next((place for place, item in enumerate(items) if item["id"] == numbers[2]), None)
        if place is None:
            return real(session, verb, url, **more)
        del items[place]
        answer = real(session, verb, url, **{**more, "data": orjson.dumps(items)})
        body = answer.json()
        body["statusCodes"].insert(place, 403)
        body["contacts"] = {index + (index >= place): contact for index, contact in enumerate(body["contacts"])}
        body["errors"] = {place: {"message": "no", "code": 403}}
        answer._content = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
        return answer

    monkeypatch.setattr(requests.Session, "request", request)
    for times in range(1, MOST_ATTEMPTS + 1):
        document = worker.sync()
        assert document["pushed"]["stages"] == (4 if times == 1 else 0)
        assert (document["failed"], document["doubtful"]) == (1, 0)
        assert document["pending"] == int(times < MOST_ATTEMPTS)
    assert len(refused(worker)) == 1


def test_where_no_edit_is_allowed_the_run_ends(worker, unshown):
    for one in range(60):
        worker.new(firstname=f"N{one}", phone=f"+49 30 {one}")
    give_the_right = unshown("batch/edit|/contacts/[0-9]+/edit", status=403)
    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(ForbiddenError, match="editother"):
            worker.sync()
    assert {(row.state, row.attempts) for row in rows_of(worker, change)} == {("planned", 0)}
    give_the_right()
    assert worker.sync()["pushed"]["stages"] == 60


def test_what_of_a_forbidden_batch_was_not_sent_alone_is_no_failure(worker, unshown):
    """Two are let through, so that no right is missing; the next five are not, and whoever comes after them is not sent."""
    numbers = [worker.new(firstname=f"N{one}", phone=f"+49 30 {one}") for one in range(20)]
    refused_ones = "|".join(map(str, numbers[2:8]))
    unshown(rf"batch/edit|/contacts/({refused_ones})/edit", status=403)
    document = worker.sync()
    assert (document["pushed"]["stages"], document["failed"], document["pending"]) == (2, push.FORBIDDEN_IN_A_ROW, 18)
    tried = [row.attempts for row in rows_of(worker, change) if row.state == "planned"]
    assert sorted(tried) == [0] * 13 + [1] * 5


@pytest.mark.parametrize("right_comes", [True, False])
def test_where_the_few_edits_there_are_are_forbidden_the_run_says_so_until_they_count_as_refused(
    worker, unshown, right_comes
):
    worker.new(firstname="Pat", phone="+49 30 1")
    give_the_right = unshown("batch/edit|/contacts/[0-9]+/edit", status=403)
    with pytest.raises(ForbiddenError, match="editother"):
        worker.sync()
    for _ in range(MOST_ATTEMPTS - 2):
        assert worker.sync()["failed"] == 1
    if right_comes:
        give_the_right()
    document = worker.sync()
    assert (document["pushed"]["stages"], document["pending"]) == (int(right_comes), 0)
    assert len(refused(worker)) == int(not right_comes)


def sql(worker, text: str, *values) -> None:
    worker.box.instance.tables.connection.execute(text, values)


def before_the_push(monkeypatch, happen) -> None:
    """`happen` once, after everything was decided and before anything is sent."""
    real, waiting = push.push, [happen]

    def late(run):
        while waiting:
            waiting.pop()()
        real(run)

    monkeypatch.setattr(push, "push", late)


def call(worker, path: str, body=None) -> None:
    with requests.Session() as session:
        session.trust_env = False
        assert session.post(f"{worker.box.url}/api/{path}", json=body, auth=("admin", "sandbox"), timeout=5).ok


# -- merges during the push -----------------------------------------------------------------------------------------


def test_a_stage_that_mautic_redirected_to_the_survivor_counts_as_ours(worker, monkeypatch):
    visitor, known = worker.visitor(), worker.new(firstname="K")
    worker.sync()
    worker.act("edit", contact=known, values={"email": "valid@example.com"})
    before_the_push(monkeypatch, lambda: worker.act("merge", visitor=visitor, known=known))
    document = worker.sync()
    assert (worker.stage(visitor), document["merged"]) == ("Lead", 1)
    assert [row.stage for row in rows_of(worker, standing)] == ["Lead"]
    worker.act("edit", contact=visitor, values={"email": "invalid@example.com"})
    worker.sync()
    assert worker.stage(visitor) == "Ghost"


def test_what_a_merge_closed_while_it_waited_is_not_sent(worker, monkeypatch):
    visitor, known = worker.visitor(), worker.new(email="valid@example.com")
    worker.sync()
    worker.act("edit", contact=known, values={"tags": ["customer"]})
    worker.act("edit", contact=visitor, values={"phone": "+49 30 1"})
    before_the_push(monkeypatch, lambda: worker.act("merge", visitor=visitor, known=known))
    one_by_one = worker.but(mautic={"batch_size": 1, "concurrency": 1})
    one_by_one.box.reset_stats()
    document = one_by_one.sync()
    assert worker.stage(visitor) == "Customer"
    assert worker.box.stats()["calls"]["PATCH /api/contacts/{id}/edit"] == 1
    assert document["merged"] == 1
    assert worker.sync()["transitions"] == []
    assert worker.stage(visitor) == "Customer"


# -- stages that we decided and did not set -------------------------------------------------------------------------


def test_a_stage_set_by_hand_is_ours_once_our_evidence_overtakes_it(worker):
    number = worker.new(firstname="Pat")
    worker.sync()
    worker.act("set_stage", contact=number, stage="Lead")
    worker.sync()
    assert [row.manual_stage for row in rows_of(worker, standing)] == ["Lead"]
    worker.act("edit", contact=number, values={"phone": "+49 30 1"})
    worker.sync()
    assert [(row.stage, row.manual_stage) for row in rows_of(worker, standing)] == [("Lead", None)]
    worker.act("edit", contact=number, values={"phone": "", "overwriteWithBlank": True})
    worker.sync()
    assert worker.stage(number) == "Ghost"


def test_after_the_store_was_lost_stages_that_we_would_set_are_ours_again(worker):
    number = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    for file in worker.directory.glob("store.db*"):
        file.unlink()
    assert worker.sync()["transitions"] == []
    assert rows_of(worker, transition) == []
    worker.act("edit", contact=number, values={"phone": "", "overwriteWithBlank": True})
    worker.sync()
    assert worker.stage(number) == "Ghost"


# -- do-not-contact -------------------------------------------------------------------------------------------------


def test_do_not_contact_of_every_channel_is_put_back_after_a_merge(worker):
    known = worker.new(email="valid@example.com")
    for channel in ("sms", "email"):
        call(worker, f"contacts/{known}/dnc/{channel}/add", {"reason": 1})
    visitor = worker.visitor()
    worker.sync()
    worker.act("merge", visitor=visitor, known=known)
    assert worker.contact(visitor).dnc == {}
    assert worker.plan()["listed"][0]["target"] == "dnc:email"
    assert worker.sync()["pushed"]["dnc"] == 2
    assert worker.contact(visitor).dnc == {"email": 1, "sms": 1}
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_doubtful_do_not_contact_is_looked_up_in_its_own_channel(worker, monkeypatch):
    known = worker.new(email="valid@example.com")
    call(worker, f"contacts/{known}/dnc/sms/add", {"reason": 1})
    visitor = worker.visitor()
    worker.sync()
    worker.act("merge", visitor=visitor, known=known)
    with monkeypatch.context() as lost:
        lost.setattr(push, "add_dnc", lambda *_: push.Doubtful("no answer"))
        assert worker.sync()["doubtful"] == 1
    call(worker, f"contacts/{visitor}/dnc/email/add", {"reason": 1})
    worker.patience(3600)
    worker.sync()
    assert worker.contact(visitor).dnc == {"email": 1, "sms": 1}


def test_what_a_person_undoes_of_a_reject_stays_undone_until_the_next_verdict(worker):
    address = scripted(worker, "dead@gate.example", "invalid", "mailbox_not_found")
    number = worker.new(email=address)
    worker.sync()
    assert (worker.contact(number).dnc, worker.contact(number).tags) == ({"email": 3}, {"email-rejected"})
    call(worker, f"contacts/{number}/dnc/email/remove")
    worker.act("edit", contact=number, values={"tags": ["-email-rejected"], "firstname": "Alive"})
    assert worker.sync()["pushed"]["calls"] == 0
    assert (worker.contact(number).dnc, worker.contact(number).tags) == ({}, frozenset())
    other = scripted(worker, "dead2@gate.example", "invalid", "mailbox_not_found")
    worker.act("edit", contact=number, values={"email": other})
    worker.sync()
    assert (worker.contact(number).dnc, worker.contact(number).tags) == ({"email": 3}, {"email-rejected"})


# -- values ---------------------------------------------------------------------------------------------------------


def test_a_value_of_which_mautic_makes_something_else_is_written_once(worker):
    address = scripted(worker, "anna@gate.example", "valid", city="<b></b>")
    number = worker.new(email=address, firstname="Anna", lastname="A", country="Germany", state="Berlin")
    document = worker.sync()
    assert (worker.stage(number), document["doubtful"], document["pending"]) == ("Lead", 0, 0)
    assert written(worker)["city"] == ["<b></b>", None]
    told = [facts for event, facts in worker.told if event == "made_otherwise"]
    assert told == [{"contact": number, "values": ["city"]}]
    assert worker.sync()["pushed"]["calls"] == 0
    worker.act("edit", contact=number, values={"lastname": "B"})
    assert worker.sync()["pushed"]["calls"] == 0


def test_what_never_shows_is_refused_after_five_attempts(worker, monkeypatch):
    number = worker.new(firstname="Pat", phone="+49 30 1")
    monkeypatch.setattr(push, "edit_one", lambda *_: push.Doubtful("no answer"))
    for _ in range(5):
        document = worker.sync()
        assert (document["doubtful"], document["failed"]) == (1, 0)
        worker.patience(3600)
    document = worker.sync()
    assert (document["failed"], document["pending"], document["pushed"]["calls"]) == (1, 0, 0)
    assert refused(worker) == ["Mautic does not keep this value: sent 5 times and never found there"]
    assert worker.sync()["failed"] == 0
    assert worker.stage(number) is None


def test_what_was_decided_while_an_edit_was_in_doubt_is_written_once_it_shows(worker, monkeypatch):
    """Though nothing but our own edit has come since it was decided."""
    late: list = []
    edit_one = push.edit_one

    def lost(_transport, edit):
        late.append(edit)
        return push.Doubtful("no answer")

    number = worker.new(firstname="Pat", phone="+49 30 1")
    with monkeypatch.context() as broken:
        broken.setattr(push, "edit_one", lost)
        assert worker.sync()["doubtful"] == 1
    worker.act("edit", contact=number, values={"tags": ["customer"]})
    assert worker.sync()["pending"] == 1
    with worker.run("look") as run:
        edit_one(run.mautic, late.pop())
    worker.sync()
    assert worker.stage(number) == "Customer"
    assert worker.sync()["pushed"]["calls"] == 0


def test_what_did_not_show_once_goes_alone(worker, monkeypatch):
    """It may be what fails its batch."""
    numbers = [worker.new(firstname=f"P{number}", phone=f"+49 30 {number}") for number in range(3)]
    with monkeypatch.context() as broken:
        broken.setattr(
            push, "edit_batch", lambda _, edits: {edit.contact_id: push.Doubtful("no answer") for edit in edits}
        )
        assert worker.sync()["doubtful"] == 3
    worker.patience(3600)
    numbers += [worker.new(firstname=f"Q{number}", phone=f"+49 40 {number}") for number in range(2)]
    worker.box.reset_stats()
    worker.sync()
    calls = worker.box.stats()["calls"]
    assert (calls["PATCH /api/contacts/{id}/edit"], calls["PATCH /api/contacts/batch/edit"]) == (3, 1)
    assert {worker.stage(number) for number in numbers} == {"Lead"}


def test_of_a_shared_address_only_the_stage_counts_as_written(worker):
    """An edit of such a contact is refused, whatever it sets; its stage alone can be set."""
    address = scripted(worker, "anna@one-address.example", "valid")
    first, twin = worker.new(email=address), worker.visitor()
    sql(worker, "UPDATE leads SET email = ? WHERE id = ?", address, twin)
    document = worker.sync()
    assert [worker.stage(first), worker.stage(twin)] == ["Lead", "Lead"]
    assert (document["pushed"]["stages"], document["pushed"]["fields"]) == (2, 0)
    assert [row.written for row in rows_of(worker, standing)] == ["{}", "{}"]
    worker.act("delete", contact=first)
    worker.act("edit", contact=twin, values={"firstname": "Anna"})
    worker.sync()
    assert worker.contact(twin).fields["sync_reason"] == "Lead: e-mail accepted"


def advice(number: int) -> str:
    return f"422 contact {number} has this address too: merge them in Mautic, or change one address; then `mautic-sync retry`"


def test_what_a_shared_address_keeps_from_being_written_is_told_once_and_not_claimed(worker):
    """The stage settles; the fields are a refused change of their own, with what to do, as long as that holds."""
    address = scripted(worker, "anna@one-address.example", "valid")
    first, twin = worker.new(email=address), worker.visitor()
    sql(worker, "UPDATE leads SET email = ? WHERE id = ?", address, twin)
    assert (worker.sync()["failed"], refused(worker)) == (0, [advice(twin), advice(first)])
    settled = [orjson.loads(row.new) for row in rows_of(worker, change) if row.state == changes.SETTLED]
    assert [new for new in settled if "stage" in new] == [{"stage": "Lead"}] * 2
    assert persons_refused(worker) == 2
    for _ in range(2):
        with worker.run("look") as run, run.engine.begin() as connection:
            people.mark_everyone_dirty(connection)
        assert (worker.sync()["failed"], persons_refused(worker)) == (0, 2)
    sql(worker, "UPDATE leads SET email = ? WHERE id = ?", scripted(worker, "ann@other.example", "valid"), twin)
    worker.act("edit", contact=twin, values={"firstname": "Anne"})
    assert worker.sync()["failed"] == 0
    assert worker.contact(twin).fields["sync_reason"] == "Lead: e-mail accepted"
    assert persons_refused(worker) == 1


def test_of_a_shared_address_fields_alone_are_no_failure_of_the_run_either(worker):
    """Somebody is in a stage that is left alone, so that fields are all that could be written."""
    call = {"name": "Partner", "weight": 5, "isPublished": True}
    with worker.run("look") as run:
        run.mautic.write("POST", "stages/new", call)
    first, twin = worker.new(email=scripted(worker, "anna@one-address.example", "valid")), worker.visitor()
    worker.act("set_stage", contact=first, stage="Partner")
    sql(worker, "UPDATE leads SET email = 'anna@one-address.example' WHERE id = ?", twin)
    assert worker.sync()["failed"] == 0
    assert (worker.stage(first), persons_refused(worker)) == ("Partner", 2)


def test_whose_owner_has_left_gets_the_stage_and_is_told_of(worker):
    """Mautic refuses every edit of such a contact, whatever it is about."""
    worker.box.instance.users[2] = {"username": "sal", "email": "sal@example.com", "firstName": "Sal", "lastName": "S"}
    number = worker.new(firstname="Pat", phone="+49 30 1", owner=2)
    worker.box.instance.users[2]["isPublished"] = False
    assert worker.sync()["failed"] == 0
    assert worker.stage(number) == "Lead"
    (told,) = refused(worker)
    assert told.startswith("400 its owner is no published user any more: give it another owner")
    worker.box.instance.users[2]["isPublished"] = True
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)
    worker.sync()
    assert worker.contact(number).fields["sync_reason"] == "Lead: phone known"
    assert persons_refused(worker) == 0


def test_a_value_that_a_field_does_not_take_costs_nobody_the_stage(make_worker, tmp_path):
    """A field of choices that somebody made, and a text of fields.yaml that is none of them."""
    rules = 'version: 1\nwrite: {plan: "{kind}", sync_reason: "{reason}"}\n'
    (tmp_path / "fields.yaml").write_text(f"{rules}create: [{{alias: sync_reason, label: Why}}]\n", encoding="utf-8")
    worker = make_worker(mappings=tmp_path)
    choices = {"list": [{"label": "Ghost", "value": "ghost"}]}
    with worker.run("look") as run:
        made = {"label": "Plan", "alias": "plan", "type": "select", "isPublished": True, "properties": choices}
        run.mautic.write("POST", "fields/contact/new", made)
    worker.init()
    number, ghost = worker.new(firstname="Pat", phone="+49 30 1"), worker.visitor()
    assert worker.sync()["failed"] == 1
    assert (worker.stage(number), worker.stage(ghost)) == ("Lead", "Ghost")
    assert worker.contact(ghost).fields["plan"] == "ghost"
    assert refused(worker) == ["400 plan: This value is not valid"]
    assert (worker.sync()["failed"], persons_refused(worker)) == (0, 1)
    (tmp_path / "fields.yaml").write_text(rules.replace("{kind}", "ghost"), encoding="utf-8")
    worker.sync()
    assert (worker.contact(number).fields["plan"], persons_refused(worker)) == ("ghost", 0)


def test_another_no_to_the_same_person_is_new(worker, monkeypatch):
    number = worker.new(firstname="Pat", phone="+49 30 1")
    said = iter(["no", "no", "never"])
    monkeypatch.setattr(push, "edit_one", lambda *_: push.Refused(400, next(said)))
    failed = []
    for name in ("Pit", "Pot", "Put"):
        worker.act("edit", contact=number, values={"firstname": name})
        failed.append(worker.sync()["failed"])
    assert failed == [1, 0, 1]


def persons_refused(worker) -> int:
    with worker.run("look") as run, run.engine.begin() as connection:
        return len(changes.refused_persons(connection))


def test_a_filled_value_that_mautic_refuses_is_neither_counted_nor_asked_again(worker):
    address = scripted(worker, "anna@gate.example", "valid", firstname="Anna", region="Nowhere")
    number = worker.new(email=address)
    document = worker.sync()
    present = worker.contact(number).fields
    assert (worker.stage(number), document["failed"]) == ("Lead", 0)
    assert document["pushed"]["fields"] == len(present.keys() - {"email"})
    assert written(worker)["state"] == ["Nowhere", None]
    worker.act("edit", contact=number, values={"lastname": "A"})
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_suggested_spelling_is_emptied_when_the_address_was_corrected(worker):
    typo = scripted(worker, "joe@gmial.example", "invalid", "possible_typo", did_you_mean="joe@gmail.example")
    number = worker.new(email=typo)
    worker.sync()
    assert worker.contact(number).fields["email_suggestion"] == "joe@gmail.example"
    worker.act("edit", contact=number, values={"email": scripted(worker, "joe@gmail.example", "valid")})
    worker.sync()
    assert "email_suggestion" not in worker.contact(number).fields
    assert worker.sync()["pushed"]["calls"] == 0


def test_a_suggestion_of_somebody_else_is_left_alone(worker):
    number = worker.new(email=scripted(worker, "joe@gmail.example", "valid"), email_suggestion="me@other.example")
    worker.sync()
    assert worker.contact(number).fields["email_suggestion"] == "me@other.example"


# -- what waits -----------------------------------------------------------------------------------------------------


def test_what_replaces_a_waiting_baseline_change_by_another_stage_counts_for_the_safety_stop(make_worker):
    worker = make_worker()
    worker.init()
    people = [worker.new(firstname=f"L{number}", phone=f"+49 30 {number}") for number in range(30)]
    worker.but(push={"max_seconds": 0.000001}).sync()
    for number in people:
        worker.act("edit", contact=number, values={"tags": ["customer"]})
    with pytest.raises(SafetyStop, match="30 would become customer"):
        worker.sync()


def test_what_is_left_pending_comes_with_the_time_it_will_take(make_worker):
    worker = make_worker(push={"max_seconds": 0.02}, mautic={"batch_size": 1, "concurrency": 1})
    for number in range(40):
        worker.new(firstname=f"L{number}", phone=f"+49 30 {number}")
    worker.init()
    document = worker.sync()
    assert 0 < document["pending"] < 40
    assert document["pending_eta_seconds"] >= 1
    assert worker.but(push={"max_seconds": 600}).sync()["pending_eta_seconds"] is None


def test_plan_and_sync_tell_the_same_time_at_the_speed_that_was_measured(make_worker):
    """Before anything was written no speed is known; then it is 10 changes in a second, and a run has 2 seconds."""
    hour = datetime.now(UTC).hour
    worker = make_worker(push={"max_seconds": 2, "window": f"{(hour + 6) % 24:02}:00-{(hour + 8) % 24:02}:00"})
    for _visitor in range(15):  # each to be given a stage, and points for the visit
        worker.visitor()
    worker.init()
    assert [worker.plan()[key] for key in ETA] == [None, None, 30]
    with worker.run("look") as run, run.engine.begin() as connection:
        note_pace(connection, 10, 1.0)
        note_pace(connection, 0, 100.0)  # nothing was written: nothing was measured
    assert [worker.plan()[key] for key in ETA] == [3, 2, 30]
    document = worker.sync()
    assert [document[key] for key in ("pending", *ETA)] == [30, 3, 2, 30]
    assert [worker.but().sync()[key] for key in ("pending", *ETA)] == [0, None, None, 0]


def test_a_new_speed_soon_outweighs_an_old_one(make_worker):
    worker = make_worker()
    with worker.run("look") as run, run.engine.begin() as connection:
        note_pace(connection, 100, 1000.0)
        for _ in range(8):
            note_pace(connection, 100, 10.0)
        assert eta(connection, run.settings.push, 100)["pending_eta_seconds"] == pytest.approx(12, abs=2)
