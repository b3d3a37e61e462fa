"""A store or a Mautic that was put back from a backup: no point is granted twice, and none is lost."""

from __future__ import annotations

import sqlite3
import time
from contextlib import nullcontext

import pytest
from sqlalchemy import select

from mautic_sync.errors import MalformedError, SafetyStop, StopError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.mautic import contacts as mautic_contacts
from mautic_sync.mautic.writes import Doubtful
from mautic_sync.pipeline import points, reconcile
from mautic_sync.store import backup, notes, people
from mautic_sync.store.engine import open_engine
from mautic_sync.store.schema import change, ledger, transition
from tests.pipeline.conftest import everyone_again, rescore, resubscribe

pytestmark = pytest.mark.usefixtures("no_actions")


@pytest.fixture
def worker(make_worker):
    return ready(make_worker)


def ready(make_worker, **sections):
    worker = make_worker(**sections)
    worker.init()
    worker.sync()
    return worker


def back_up(worker):
    engine = open_engine(worker.settings.store.url)
    backup.take(engine, worker.directory / "backup", int(time.time()))
    engine.dispose()


def put_back(worker):
    backup.restore(worker.settings.store.url, worker.directory / "backup", now=int(time.time()), force=True)


def logged(worker) -> dict[int, int]:
    rows = worker.box.instance.tables.connection.execute(
        "SELECT lead_id, SUM(delta) FROM lead_points_change_log WHERE event_name LIKE 'mautic-sync%' GROUP BY lead_id"
    )
    return {number: total for number, total in rows if total}


def accounts(worker) -> dict[int, int]:
    found: dict[int, int] = {}
    with worker.run("look") as run, run.engine.begin() as connection:
        for row in connection.execute(select(ledger).where(ledger.c.event_key != "opening")):
            home = connection.execute(select(people.person.c.redirect_to).where(people.person.c.id == row.person_id))
            person = home.scalar() or row.person_id
            number = people.current_ids(connection, [person])[person]
            found[number] = found.get(number, 0) + row.delta
    return {number: total for number, total in found.items() if total}


def transitions(worker) -> int:
    with worker.run("look") as run, run.engine.begin() as connection:
        return len(connection.execute(select(transition)).all())


# -- the store was restored


def test_what_was_granted_since_the_backup_is_found_and_not_granted_again(worker, scores):
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    worker.sync()
    back_up(worker)
    rescore(worker, scores, Pat=9)
    worker.sync()
    new = worker.new(firstname="Kim", phone="+49 30 2")
    rescore(worker, scores, Kim=5, Pat=4)
    worker.sync()
    put_back(worker)
    assert accounts(worker) == {pat: 7}
    worker.box.reset_stats()
    document = worker.sync()
    assert (document["reconciled"], document["pushed"]["points"]) == (3, 0)
    assert logged(worker) == accounts(worker) == {pat: 4, new: 5}
    with worker.run("look") as run, run.engine.begin() as connection:
        found = connection.execute(select(ledger.c.delta, ledger.c.reason).where(ledger.c.run_id == document["run_id"]))
        # What Mautic took away again is found as well, and nothing of it was lost.
        assert sorted(map(tuple, found)) == [(-5, reconcile.FOUND), (2, reconcile.FOUND), (5, reconcile.FOUND)]
    assert (worker.contact(pat).points, worker.contact(new).points) == (4, 5)
    assert (worker.sync()["reconciled"], worker.sync()["pushed"]["calls"]) == (0, 0)
    rescore(worker, scores, Pat=10)
    worker.sync()
    assert worker.contact(pat).points == 10


def test_a_full_run_finds_in_the_log_what_was_granted_and_is_in_no_account(worker, scores):
    """However it came about: the worker before this one had taken it for refused, say."""
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    worker.sync()
    assert worker.sync(full=True)["reconciled"] == 0
    worker.act("points", contact=pat, delta=5, name="mautic-sync: Fits 5 0011223344556677")
    assert (worker.sync()["reconciled"], worker.contact(pat).points) == (0, 12)
    document = worker.sync(full=True)
    assert (document["reconciled"], document["pushed"]["points"]) == (1, 1)
    assert (accounts(worker), logged(worker), worker.contact(pat).points) == ({pat: 7}, {pat: 7}, 7)
    assert (worker.sync(full=True)["reconciled"], worker.sync()["pushed"]["calls"]) == (0, 0)


@pytest.mark.parametrize("read", ["before", "with it"])
def test_a_full_run_finds_nothing_in_the_account_of_who_was_merged_or_deleted(worker, scores, read):
    known = worker.new(firstname="Pat", email="valid@example.com", phone="+49 30 1")
    visitor, gone = worker.visitor(), worker.new(firstname="Lou", phone="+49 30 2")
    worker.act("edit", contact=visitor, values={"firstname": "Kim"})
    scores.update(Pat=7, Kim=2, Lou=4)
    worker.sync()
    assert logged(worker) == {known: 7, visitor: 2, gone: 4}
    worker.act("merge", visitor=visitor, known=known)
    worker.act("delete", contact=gone)
    if read == "before":
        worker.sync()
    assert worker.sync(full=True)["reconciled"] == 0
    assert worker.sync(full=True)["reconciled"] == 0
    assert accounts(worker)[visitor] == logged(worker)[visitor] == worker.contact(visitor).points


def test_a_full_run_reads_of_the_log_what_is_new(worker, scores, monkeypatch):
    monkeypatch.setattr(reconcile, "VISIBLE_LATE", 0)
    read: list[int] = []
    real = reconcile.our_grants

    def reading(transport, *, above):
        for rows in real(transport, above=above):
            read.append(len(rows))
            yield rows

    monkeypatch.setattr(reconcile, "our_grants", reading)
    numbers = [worker.new(firstname=f"N{one}", phone=f"+49 30 {one}") for one in range(3)]
    scores.update({f"N{one}": 7 for one in range(3)})
    worker.sync()
    worker.sync(full=True)
    assert sum(read) == len(numbers)
    rescore(worker, scores, N1=9)
    worker.sync(full=True)
    worker.sync(full=True)
    worker.sync(full=True)
    assert sum(read) == len(numbers) + 1


def test_a_plan_compares_too_and_one_contact_alone_is_refused(worker, scores):
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    back_up(worker)
    scores["Pat"] = 7
    worker.sync()
    put_back(worker)
    with pytest.raises(StopError, match="whole `mautic-sync sync` first"):
        worker.sync(contact=pat)
    assert worker.plan()["listed"] == []
    assert accounts(worker) == {pat: 7}


def test_stages_set_since_the_backup_are_ours_and_nobodys_transition(worker):
    pat = worker.new(firstname="Pat")
    worker.sync()
    back_up(worker)
    worker.act("edit", contact=pat, values={"phone": "+49 30 1"})
    new = worker.new(firstname="Kim", phone="+49 30 2")
    worker.sync()
    assert (worker.stage(pat), worker.stage(new)) == ("Lead", "Lead")
    before = transitions(worker)
    put_back(worker)
    assert transitions(worker) == before - 2
    for number in (pat, new):
        worker.act("edit", contact=number, values={"phone": "", "overwriteWithBlank": True})
    worker.sync()
    # Not taken for somebody's hand.
    assert (worker.stage(pat), worker.stage(new)) == ("Ghost", "Ghost")


def test_nobodys_transition_is_repeated_after_a_restore(worker):
    pat = worker.new(firstname="Pat")
    worker.sync()
    back_up(worker)
    worker.act("edit", contact=pat, values={"phone": "+49 30 1"})
    worker.sync()
    before = transitions(worker)
    put_back(worker)
    assert worker.sync()["pushed"]["stages"] == 0
    assert (worker.stage(pat), transitions(worker)) == ("Lead", before - 1)


@pytest.mark.parametrize("known", [True, False], ids=["known to the backup", "came since"])
def test_a_lead_whose_verdict_the_backup_lacks_stays_one_until_it_is_asked_again(worker, known):
    """Else the next run would plan to take everybody back who was validated since, and stop for safety."""
    new = [worker.new(firstname=f"Kim {one}", email=f"kim.{one}@example.org") for one in range(25)] if known else []
    if known:
        worker.plan()
    back_up(worker)
    new = new or [worker.new(firstname=f"Kim {one}", email=f"kim.{one}@example.org") for one in range(25)]
    worker.sync()
    leads = [number for number in new if worker.stage(number) == "Lead"]
    assert leads
    put_back(worker)
    assert [row for row in worker.plan()["moves"] if row["from"] == "lead"] == []
    document = worker.sync()
    assert (document["transitions"], document["validated"]["credits"] > 0) == ([], True)
    assert [worker.stage(number) for number in leads] == ["Lead"] * len(leads)


def test_a_stage_that_somebody_set_since_the_backup_is_theirs(worker):
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    worker.sync()
    back_up(worker)
    worker.act("set_stage", contact=pat, stage="Customer")
    worker.sync()
    put_back(worker)
    worker.sync()
    assert worker.stage(pat) == "Customer"


def test_points_that_were_on_their_way_when_the_backup_was_taken_are_entered_once(worker, scores, monkeypatch):
    """The backup knows the intent with its key; Mautic has received it since."""
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    real = points.add_points

    def meanwhile(*args, **more):
        answer = real(*args, **more)
        back_up(worker)
        return answer

    with monkeypatch.context() as taking:
        taking.setattr(points, "add_points", meanwhile)
        worker.sync()
    put_back(worker)
    assert accounts(worker) == {}
    for _ in range(2):
        worker.sync()
        assert accounts(worker) == logged(worker) == {pat: 7}
    assert worker.contact(pat).points == 7


@pytest.mark.parametrize("now", [7, 9, 0], ids=["same score", "higher score", "no score"])
@pytest.mark.parametrize("first", ["lost", "not made"])
def test_points_that_waited_under_their_key_when_the_backup_was_taken_are_entered_once(
    worker, scores, monkeypatch, first, now
):
    """What became of the first call is watched for a day; the backup is put back after two."""
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7

    def call(*_args, **_more):
        if first == "lost":
            return points.Doubtful("no answer came in time")
        raise StopError("nothing was changed")

    with monkeypatch.context() as failing:
        failing.setattr(points, "add_points", call)
        with nullcontext() if first == "lost" else pytest.raises(StopError):
            worker.sync()
    worker.patience(3600)
    worker.but(push={"max_seconds": 0.000001}).sync()
    with worker.run("look") as run, run.engine.begin() as connection:
        (waiting,) = connection.execute(select(change).where(change.c.target == "points"))
    assert (waiting.state, waiting.event_key is None) == ("planned", False)
    back_up(worker)
    worker.sync()
    assert logged(worker) == {pat: 7}
    worker.post("/_sandbox/clock", {"advance": 2 * 86_400})
    worker.skew += 2 * 86_400
    put_back(worker)
    rescore(worker, scores, Pat=now)
    worker.plan()
    for _ in range(2):
        worker.sync()
    log = worker.box.instance.tables.connection.execute("SELECT event_name, delta FROM lead_points_change_log")
    assert [delta for name, delta in log if name.endswith(waiting.event_key)] == [7]
    assert accounts(worker) == logged(worker) == ({pat: now} if now else {})
    assert worker.contact(pat).points == now


def test_a_comparison_that_is_cut_short_is_made_again_and_enters_nothing_twice(worker, scores, monkeypatch):
    numbers = [worker.new(firstname="Pat", phone=f"+49 30 {one}") for one in range(3)]
    back_up(worker)
    scores["Pat"] = 7
    worker.sync()
    put_back(worker)

    class Killed(BaseException):
        pass

    real, compared = reconcile._compare, []

    def dying(run, contacts, **more):
        real(run, contacts, **more)
        compared.append(contacts)
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(reconcile, "_compare", dying)
        killing.setattr(reconcile, "CONTACTS_AT_ONCE", 1)
        with pytest.raises(Killed):
            worker.sync()
    assert len(compared) == 1
    assert worker.sync()["reconciled"] == 2
    assert accounts(worker) == logged(worker) == dict.fromkeys(numbers, 7)
    with worker.run("look") as run, run.engine.begin() as connection:
        assert notes.get(connection, backup.RESTORED) is None


def test_what_was_merged_since_the_backup_is_one_account(worker, scores):
    known = worker.new(firstname="Pat", email="valid@example.com")
    scores["Pat"] = 7
    worker.sync()
    back_up(worker)
    visitor = worker.visitor()
    worker.sync()
    worker.act("merge", known=known, visitor=visitor)
    rescore(worker, scores, Pat=9)
    worker.sync()
    worker.sync()
    total = logged(worker)
    put_back(worker)
    for _ in range(2):
        worker.sync()
    assert accounts(worker) == logged(worker) == total == {visitor: 9}


@pytest.fixture
def beginning_now(make_worker, tmp_path):
    """A worker whose points begin `now`, before it has pushed anything."""
    (tmp_path / "rules").mkdir()
    text = (packaged_mappings_dir() / "scoring.yaml").read_text()
    (tmp_path / "rules" / "scoring.yaml").write_text(text.replace("start: auto", "start: now"))
    return make_worker(mappings=tmp_path / "rules")


def test_history_that_was_never_to_be_granted_is_not_after_a_restore_either(beginning_now, scores):
    """Points began `now` after the backup: what came before is no more granted than it was."""
    worker = beginning_now
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    worker.init()
    worker.plan()
    back_up(worker)
    worker.sync()
    rescore(worker, scores, Pat=9)
    worker.sync()
    assert logged(worker) == {pat: 2}
    put_back(worker)
    for _ in range(2):
        worker.sync()
    assert accounts(worker) == logged(worker) == {pat: 2}
    rescore(worker, scores, Pat=10)
    worker.sync()
    assert logged(worker) == {pat: 3}


# -- the store was lost


def lose(worker):
    for file in worker.directory.glob("*.db*"):
        file.unlink()


def test_a_new_store_finds_what_the_one_before_had_granted(worker, scores):
    pat, kim = (worker.new(firstname=name, phone=f"+49 30 {name}") for name in ("Pat", "Kim"))
    scores.update(Pat=7, Kim=2)
    worker.sync()
    lose(worker)
    scores.update(Pat=9)
    assert worker.sync()["pushed"]["points"] == 1
    assert accounts(worker) == logged(worker) == {pat: 9, kim: 2}
    assert (worker.contact(pat).points, worker.contact(kim).points) == (9, 2)
    assert worker.sync()["reconciled"] == 0


def test_one_contact_alone_in_a_new_store_is_granted_nothing_twice(worker, scores):
    pat, kim = (worker.new(firstname=name, phone=f"+49 30 {name}") for name in ("Pat", "Kim"))
    scores.update(Pat=7, Kim=2)
    worker.sync()
    lose(worker)
    worker.sync(contact=pat)
    assert accounts(worker) == {pat: 7}
    worker.sync()
    assert accounts(worker) == logged(worker) == {pat: 7, kim: 2}


@pytest.mark.parametrize("merged", [False, True], ids=["alone", "merged"])
def test_a_new_store_whose_points_begin_now_takes_nothing_back(beginning_now, scores, merged):
    """Also of whoever has no score any more: the account begins where the score stands."""
    worker = beginning_now
    worker.init()
    worker.sync()
    pat, kim = (worker.new(firstname=name, phone=f"+49 30 {name}") for name in ("Pat", "Kim"))
    scores.update(Pat=7, Kim=9)
    worker.sync()
    lose(worker)
    scores.update(Pat=0, Kim=4)
    if merged:
        # Read before points begin, so that the account is that of the person who is gone.
        worker.plan()
        gone, pat = pat, worker.visitor()
        worker.act("merge", visitor=pat, known=gone)
    before = {pat: 7, kim: 9}
    assert logged(worker) == before
    for _ in range(2):
        assert worker.sync()["pushed"]["points"] == 0
        assert accounts(worker) == logged(worker) == before
        everyone_again(worker)
    rescore(worker, scores, Pat=2)
    worker.sync()
    assert accounts(worker) == logged(worker) == {pat: 9, kim: 9}


@pytest.mark.parametrize("how", ["lost", "restored"])
def test_who_is_merged_into_somebody_unknown_before_the_accounts_are_compared_has_one_account(
    worker, scores, monkeypatch, how
):
    """To read everybody takes long, and a form that is sent meanwhile makes a contact that nobody has read."""
    monkeypatch.setattr(reconcile, "VISIBLE_LATE", 0)
    known = worker.new(email="valid@example.com", firstname="Pat")
    scores["Pat"] = 7
    worker.sync()
    back_up(worker)
    lose(worker)
    if how == "restored":
        put_back(worker)
    compare, visitors = reconcile.compare_accounts, []

    def meanwhile(run, **more):
        visitors.append(worker.visitor())
        worker.act("merge", visitor=visitors[0], known=known)
        compare(run, **more)

    with monkeypatch.context() as once:
        once.setattr(reconcile, "compare_accounts", meanwhile)
        worker.sync()
    for full in (False, True, True):
        worker.sync(full=full)
    assert accounts(worker) == logged(worker) == {visitors[0]: 7}
    assert worker.contact(visitors[0]).points == 7


def test_a_new_store_finds_what_was_granted_to_whom_it_cannot_read_at_first(worker, scores, monkeypatch):
    monkeypatch.setattr(reconcile, "VISIBLE_LATE", 0)
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    worker.sync()
    lose(worker)
    parse = mautic_contacts.parse_contact

    def unreadable(raw, **more):
        if str(raw["id"]) == str(pat):
            raise MalformedError("no contact")
        return parse(raw, **more)

    with monkeypatch.context() as once:
        once.setattr(mautic_contacts, "parse_contact", unreadable)
        assert worker.sync()["quarantined"] == 1
    worker.act("edit", contact=pat, values={"lastname": "P"})
    worker.sync()
    assert accounts(worker) == logged(worker) == {pat: 7}
    assert worker.contact(pat).points == 7


# -- Mautic was restored


class Snapshot:
    """A backup of the sandbox's database, put back while it runs."""

    def __init__(self, worker) -> None:
        self.worker = worker
        self.copy = sqlite3.connect(":memory:", check_same_thread=False)
        with worker.box.instance.lock:
            worker.box.instance.tables.connection.backup(self.copy)

    def put_back(self) -> None:
        with self.worker.box.instance.lock:
            self.copy.backup(self.worker.box.instance.tables.connection)


def test_a_mautic_that_was_restored_gets_again_what_it_lost(worker, scores):
    pat, kim = (worker.new(firstname=name, phone=f"+49 30 {name}") for name in ("Pat", "Kim"))
    scores.update(Pat=7, Kim=2)
    worker.sync()
    mautic = Snapshot(worker)
    rescore(worker, scores, Pat=9, Kim=1)
    for _ in range(4):
        worker.visitor()
    worker.act("edit", contact=kim, values={"city": "Rome"})
    worker.sync()
    assert logged(worker) == {pat: 9, kim: 1}
    mautic.put_back()
    assert worker.contact(pat).points == 7
    with pytest.raises(SafetyStop, match="sync --full"):
        worker.sync()
    document = worker.sync(full=True)
    assert document["reconciled"] == 2
    assert accounts(worker) == logged(worker) == {pat: 9, kim: 1}
    assert (worker.contact(pat).points, worker.contact(kim).points) == (9, 1)
    assert worker.sync()["pushed"]["calls"] == 0


@pytest.mark.parametrize("store", ["as it was", "begun anew", "restored too"])
def test_a_restored_mautic_that_has_written_on_beyond_what_was_read_is_seen(worker, scores, store):
    """Its audit log and hits end above our cursors again; the last row that we read is another one."""
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    worker.sync()
    mautic = Snapshot(worker)
    worker.act("edit", contact=pat, values={"city": "Rome"})
    if store == "begun anew":
        lose(worker)
    rescore(worker, scores, Pat=9)
    worker.sync()
    if store != "begun anew":
        worker.sync()
    back_up(worker)
    mautic.put_back()
    worker.post("/_sandbox/clock", {"advance": 3600})
    worker.skew += 3600
    for number in range(20):
        worker.act("edit", contact=pat, values={"city": f"Rome {number}"})
        worker.visitor()
    assert (logged(worker), accounts(worker)) == ({pat: 7}, {pat: 9})
    if store == "restored too":
        put_back(worker)
        worker.sync()
    else:
        with pytest.raises(SafetyStop, match="another row where the last one was read"):
            worker.sync()
        worker.sync(full=True)
    assert accounts(worker) == logged(worker) == {pat: 9}
    assert worker.contact(pat).points == 9
    assert worker.sync()["reconciled"] == 0


def test_whoever_a_restored_mautic_shows_unmerged_again_keeps_the_points_that_it_has(worker, scores):
    known = worker.new(firstname="Pat", email="valid@example.com", phone="+49 30 1")
    visitor = worker.visitor()
    worker.act("edit", contact=visitor, values={"firstname": "Kim"})
    scores.update(Pat=7, Kim=2)
    worker.sync()
    before = logged(worker)
    mautic = Snapshot(worker)
    worker.act("merge", known=known, visitor=visitor)
    rescore(worker, scores, Pat=9, Kim=9)
    for _ in range(2):
        worker.sync()
    assert (before, accounts(worker)) == ({known: 7, visitor: 2}, {visitor: 9})
    mautic.put_back()
    scores.update(Pat=7, Kim=2)
    with pytest.raises(SafetyStop):
        worker.sync()
    document = worker.sync(full=True)
    assert document["pushed"]["points"] == 0
    worker.sync()
    assert accounts(worker) == logged(worker) == before
    assert (worker.contact(known).points, worker.contact(visitor).points) == (7, 2)


@pytest.mark.parametrize("arrives", ["before", "after"])
def test_points_in_doubt_that_arrive_in_a_restored_mautic_are_found_there(worker, scores, monkeypatch, arrives):
    """Its log goes on below where it stood when they were sent."""
    monkeypatch.setattr(reconcile, "VISIBLE_LATE", 0)
    pat, kim = (worker.new(firstname=name, phone=f"+49 30 {name}") for name in ("Pat", "Kim"))
    scores.update(Pat=0, Kim=1)
    worker.sync()
    past = Snapshot(worker)
    for score in (2, 3, 4):
        rescore(worker, scores, Kim=score)
        worker.act("edit", contact=kim, values={"lastname": f"K{score}"})
        worker.sync()
    rescore(worker, scores, Pat=7)
    add_points, late = points.add_points, []

    def lost(*args, **more):
        late.append(lambda: add_points(*args, **more))
        return Doubtful("no answer came in time")

    with monkeypatch.context() as breaking:
        breaking.setattr(points, "add_points", lost)
        assert worker.sync()["doubtful"] == 1
    past.put_back()
    if arrives == "before":
        late.pop()()
    worker.sync(full=True)
    if arrives == "after":
        late.pop()()
    worker.patience(3600)
    for full in (False, True):
        worker.sync(full=full)
    assert accounts(worker) == logged(worker) == {pat: 7, kim: 4}


def test_a_stage_that_a_restored_mautic_lost_is_set_again_and_not_taken_for_a_hand(worker):
    pat = worker.new(firstname="Pat")
    worker.sync()
    mautic = Snapshot(worker)
    worker.act("edit", contact=pat, values={"phone": "+49 30 1"})
    worker.visitor()
    worker.sync()
    assert worker.stage(pat) == "Lead"
    mautic.put_back()
    worker.act("edit", contact=pat, values={"phone": "+49 30 1"})
    with pytest.raises(SafetyStop):
        worker.sync()
    worker.sync(full=True)
    assert worker.stage(pat) == "Lead"


@pytest.mark.parametrize("taken", ["before it was asked for", "while a merge had lost it"])
def test_do_not_contact_that_a_restored_mautic_lost_is_put_back(worker, taken):
    known = worker.new(firstname="Pat", email="valid@example.com", phone="+49 30 1")
    other = worker.new(firstname="Kim", email="kim@example.com")
    worker.sync()
    mautic = Snapshot(worker)
    for number in (known, other):
        worker.act("unsubscribe", contact=number)
    worker.sync()
    if taken == "while a merge had lost it":
        visitor = worker.visitor()
        worker.act("merge", known=known, visitor=visitor)
        mautic, known = Snapshot(worker), visitor
        worker.sync()
        worker.sync()
        assert worker.contact(known).dnc == {"email": 1}
    for _ in range(4):
        worker.visitor()
    worker.act("edit", contact=other, values={"city": "Rome"})
    worker.sync()
    mautic.put_back()
    assert worker.contact(known).dnc == {}
    with pytest.raises(SafetyStop):
        worker.sync()
    worker.sync(full=True)
    assert worker.contact(known).dnc == worker.contact(other).dnc == {"email": 1}
    assert worker.sync()["pushed"]["calls"] == 0
    # Who takes it away afterwards is right.
    resubscribe(worker, other)
    worker.sync(full=True)
    assert (worker.contact(known).dnc, worker.contact(other).dnc) == ({"email": 1}, {})


def test_whoever_unsubscribed_beside_a_rejected_address_is_not_let_go_with_it_after_a_restore(make_worker, scores):
    """Mautic shows our do-not-contact again instead of theirs; the next address is deliverable."""
    worker = ready(make_worker, version="7.0")  # 5.1 keeps ours
    scores.update(Pat=7, Kim=7)
    pat = worker.new(firstname="Pat", email="invalid@example.com")
    kim = worker.new(firstname="Kim", email="kim@no-such-domain.example")
    worker.sync()
    assert worker.contact(pat).dnc == worker.contact(kim).dnc == {"email": 3}
    mautic = Snapshot(worker)
    worker.act("unsubscribe", contact=pat)
    worker.visitor()
    worker.sync()
    assert worker.contact(pat).dnc == {"email": 1}
    mautic.put_back()
    with pytest.raises(SafetyStop):
        worker.sync()
    worker.sync(full=True)
    for number in (pat, kim):
        worker.act("edit", contact=number, values={"email": f"new.{number}@proton.me"})
    worker.sync()
    assert worker.contact(pat).dnc == {"email": 3}
    assert worker.contact(kim).dnc == {}


def test_whoever_a_restored_mautic_shows_unmerged_again_stays_unsubscribed_under_both_numbers(worker):
    known, visitor = worker.new(firstname="Pat", email="valid@example.com"), worker.visitor()
    worker.sync()
    mautic = Snapshot(worker)
    worker.act("merge", known=known, visitor=visitor)
    worker.act("unsubscribe", contact=visitor)
    worker.sync()
    mautic.put_back()
    with pytest.raises(SafetyStop):
        worker.sync()
    worker.sync(full=True)
    assert worker.contact(known).dnc == worker.contact(visitor).dnc == {"email": 1}
    worker.sync()
    assert worker.sync()["pushed"]["calls"] == 0


def test_both_restored_agree_again(worker, scores):
    pat = worker.new(firstname="Pat", phone="+49 30 1")
    scores["Pat"] = 7
    worker.sync()
    back_up(worker)
    rescore(worker, scores, Pat=9)
    worker.sync()
    mautic = Snapshot(worker)
    rescore(worker, scores, Pat=12)
    worker.visitor()
    worker.sync()
    mautic.put_back()
    put_back(worker)
    worker.sync()
    rescore(worker, scores, Pat=12)
    worker.sync(full=True)
    assert accounts(worker) == logged(worker) == {pat: 12}
    assert worker.contact(pat).points == 12
