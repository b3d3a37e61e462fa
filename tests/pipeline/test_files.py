"""Many addresses at once: a file at ZeroBounce over several runs, paid for once whatever happens to it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import orjson
import pytest
import requests
from sqlalchemy import func, select

from mautic_sync.errors import ConfigError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.pipeline import files
from mautic_sync.sandbox.http import Response
from mautic_sync.store import runs, uploads
from mautic_sync.store.engine import open_engine
from mautic_sync.store.schema import credit, upload
from mautic_sync.store.verdicts import get_verdict

DAY = 86400
ABOVE = 5
PEOPLE = 12
HANDLERS = {"sendfile": "_send_file", "filestatus": "_file_status", "deletefile": "_delete_file"}


@pytest.fixture
def worker(make_worker, tmp_path):
    """A worker whose rules use a file from six addresses on."""
    rules = tmp_path / "rules"
    shutil.copytree(packaged_mappings_dir(), rules)
    validation = rules / "validation.yaml"
    changed = re.sub(r"bulk_above: \d+", f"bulk_above: {ABOVE}", validation.read_text(encoding="utf-8"))
    validation.write_text(changed, encoding="utf-8")
    worker = make_worker(mappings=rules)
    worker.init()
    worker.sync()  # the baseline of an empty Mautic
    return worker


def handle(worker, path: str, answer) -> None:
    """Have ZeroBounce's `path` answered by `answer(request, sent)`."""
    setattr(worker.box.zerobounce, HANDLERS[path], answer)


def as_usual(worker, path: str):
    return getattr(type(worker.box.zerobounce), HANDLERS[path]).__get__(worker.box.zerobounce)


def said(value, status: int = 200):
    return lambda _request, _sent: Response(status, orjson.dumps(value))


def lose_the_file(worker, when: str = "before") -> None:
    """The connection breaks before ZeroBounce takes the file, after, or a while before it takes it."""
    send, box = as_usual(worker, "sendfile"), worker.box

    def late(request, sent) -> None:
        with box.instance.lock:
            send(request, sent)

    def lose(request, sent):
        if when == "after":
            send(request, sent)
        elif when == "late":
            threading.Timer(0.3, late, (request, sent)).start()
        return Response(drop=True)

    handle(worker, "sendfile", lose)


def command(worker, *arguments: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """`mautic-sync` as a process of its own, beside the same sandbox and with the same store."""
    env = {
        "MAUTIC_SYNC_MAUTIC__BASE_URL": worker.box.url,
        "MAUTIC_SYNC_MAUTIC__CLIENT_ID": "sandbox",
        "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "sandbox-secret",
        "MAUTIC_SYNC_ZEROBOUNCE__API_KEY": "sandbox-key",
        "MAUTIC_SYNC_ZEROBOUNCE__BASE_URL": worker.box.zerobounce_url,
        "MAUTIC_SYNC_STORE__URL": worker.settings.store.url,
        "MAUTIC_SYNC_MAPPINGS__DIR": str(worker.mappings_dir),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "mautic_sync", *arguments],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )


def told_by(process: subprocess.Popen[bytes]) -> bytes:
    return process.communicate(timeout=60)[0]


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def people(worker, count: int = PEOPLE, status: str = "valid", name: str = "p") -> list[str]:
    return [somebody(worker, f"{name}{number}@file.example", status) for number in range(count)]


def somebody(worker, address: str, status: str) -> str:
    worker.post("/_sandbox/zerobounce", {"email": address, "status": status})
    worker.new(email=address)
    return address


def spent(worker) -> dict[str, int]:
    return worker.box.stats()["credits"]["by_address"]


def booked(worker) -> int:
    """What our own ledger says was spent."""
    engine = open_engine(worker.settings.store.url)
    with engine.connect() as connection:
        total = int(connection.execute(select(func.sum(credit.c.credits))).scalar() or 0)
    engine.dispose()
    return total


def states(worker) -> list[str]:
    engine = open_engine(worker.settings.store.url)
    with engine.connect() as connection:
        found = list(connection.execute(select(upload.c.state).order_by(upload.c.id)).scalars())
    engine.dispose()
    return found


def calls(worker, path: str) -> int:
    return sum(count for name, count in worker.box.stats()["calls"].items() if name.endswith(f"/{path}"))


def answered_for(worker, file_id: str | None = None) -> dict:
    """What `mautic-sync retry` does with an answer about files in doubt, and the run after it."""
    with worker.run("retry") as run:
        if file_id is None:
            files.give_up(run)
        else:
            files.adopt(run, file_id, None)
    return worker.sync()


# -- the good way ---------------------------------------------------------------------------------------------------


def test_many_addresses_go_as_one_file_and_later_runs_look_fetch_and_clean_up(worker):
    asked = people(worker)
    first = worker.sync()
    assert (first["validated"]["credits"], first["kinds"]["lead"]) == (PEOPLE, 0)
    assert first["uploads"] == {"open": 1, "addresses": PEOPLE, "doubtful": 0}
    assert (calls(worker, "sendfile"), calls(worker, "validate")) == (1, 0)
    second = worker.sync()  # not complete yet
    assert (second["uploads"]["open"], second["kinds"]["lead"], second["validated"]["credits"]) == (1, 0, 0)
    third = worker.sync()
    assert (third["kinds"]["lead"], third["validated"]["accept"]) == (PEOPLE, PEOPLE)
    assert third["uploads"] == {"open": 0, "addresses": 0, "doubtful": 0}
    assert worker.box.stats()["files"] == []
    assert states(worker) == [uploads.DONE]
    worker.sync()
    assert spent(worker) == dict.fromkeys(asked, 1)
    assert booked(worker) == PEOPLE
    assert calls(worker, "sendfile") == 1


def test_few_addresses_are_asked_one_by_one(worker):
    people(worker, ABOVE)
    assert worker.sync()["kinds"]["lead"] == ABOVE
    assert calls(worker, "sendfile") == 0


def test_each_row_becomes_its_verdict_with_all_that_it_tells(worker):
    valid = people(worker, 6)
    somebody(worker, "gone@file.example", "invalid")
    somebody(worker, "later@file.example", "unknown")
    worker.post(
        "/_sandbox/zerobounce",
        {"email": valid[0], "status": "valid", "sub_status": "alias_address", "firstname": "Ada, Countess"},
    )
    for _ in range(3):
        document = worker.sync()
    assert document["validated"] | {"cached": 0} == {"credits": 0, "accept": 6, "hold": 1, "reject": 1, "cached": 0}
    with worker.run("look") as run, run.engine.begin() as connection:
        known = get_verdict(connection, valid[0])
        assert (known.status, known.sub_status, known.raw["firstname"]) == ("valid", "alias_address", "Ada, Countess")
    assert sum(spent(worker).values()) == booked(worker) == 7  # what is unknown is free


def test_addresses_in_a_file_are_asked_in_no_other_way(worker):
    in_file = people(worker)
    worker.box.zerobounce.polls_needed = 4
    worker.sync()
    later = people(worker, 3, name="later")
    document = worker.sync()
    assert document["kinds"]["lead"] == 3
    with worker.run("look") as run, run.engine.begin() as connection:
        assert uploads.is_on_its_way(connection, in_file[0])
        assert not uploads.is_on_its_way(connection, later[0])
    assert spent(worker) == dict.fromkeys([*in_file, *later], 1)


def test_a_second_file_may_follow_while_the_first_is_on_its_way(worker):
    worker.box.zerobounce.polls_needed = 3
    asked = people(worker)
    worker.sync()
    asked += people(worker, name="q")
    assert worker.sync()["uploads"] == {"open": 2, "addresses": 2 * PEOPLE, "doubtful": 0}
    for _ in range(4):
        document = worker.sync()
    assert (document["kinds"]["lead"], spent(worker)) == (2 * PEOPLE, dict.fromkeys(asked, 1))


# -- budgets --------------------------------------------------------------------------------------------------------


def test_a_file_counts_when_it_is_sent_against_the_run_and_the_day(worker):
    people(worker)
    short = worker.but(zerobounce={"max_credits_per_run": 5, "max_credits_per_day": 8})
    assert [short.sync()["validated"]["credits"] for _ in range(4)] == [5, 3, 0, 0]
    assert sum(spent(worker).values()) == 8
    short.skew = DAY
    short.sync()
    assert sum(spent(worker).values()) == PEOPLE


def test_what_yesterdays_file_did_not_cost_makes_today_no_richer(worker):
    people(worker, status="unknown")
    worker.sync()
    worker.skew = DAY
    people(worker, 4, name="today")
    careful = worker.but(zerobounce={"max_credits_per_day": 2})
    careful.skew = DAY
    for _ in range(3):
        careful.sync()
    assert sum(spent(worker).values()) == 2


def test_no_more_addresses_are_sent_than_the_account_has_credits(worker):
    people(worker)
    worker.post("/_sandbox/credits", {"credits": 7})
    assert worker.sync()["uploads"]["addresses"] == 7
    assert worker.sync()["failed"] == 1  # for the others, none are left
    assert (sum(spent(worker).values()), booked(worker)) == (7, 7)


# -- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after", "late"])
def test_a_file_whose_answer_was_lost_is_never_sent_again_by_itself(worker, when):
    asked = people(worker)
    lose_the_file(worker, when)
    document = worker.sync()
    assert document["uploads"] == {"open": 1, "addresses": PEOPLE, "doubtful": 1}
    for _ in range(3):
        assert worker.sync()["uploads"]["doubtful"] == 1
    assert calls(worker, "sendfile") == 1
    assert calls(worker, "validate") == 0
    if when == "late":
        until(lambda: worker.box.stats()["files"])
    there = worker.box.stats()["files"]
    assert len(there) == (0 if when == "before" else 1)
    handle(worker, "sendfile", as_usual(worker, "sendfile"))
    answered_for(worker, there[0]["file_id"] if there else None)
    for _ in range(3):
        document = worker.sync()
    assert document["kinds"]["lead"] == PEOPLE
    assert spent(worker) == dict.fromkeys(asked, 1)
    assert booked(worker) == PEOPLE


@pytest.mark.parametrize("moment", ["before it arrived", "before it was noted"])
def test_a_worker_killed_while_it_sends_a_file_leaves_a_question_and_pays_nothing_twice(worker, moment):
    asked = people(worker)
    box, send, processes = worker.box, as_usual(worker, "sendfile"), []

    def kill(request, sent):
        if moment == "before it was noted":
            send(request, sent)
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].wait(20)
        return Response(drop=True)

    handle(worker, "sendfile", kill)
    processes.append(command(worker, "sync"))
    assert processes[0].wait(60) == -signal.SIGKILL
    handle(worker, "sendfile", send)
    told = orjson.loads(told_by(command(worker, "status", "--json", output=subprocess.PIPE)))["uploads"]
    assert [one["state"] for one in told] == ["doubtful"]
    assert told[0]["file"] in told[0]["question"]
    assert worker.sync()["uploads"]["doubtful"] == 1
    there = box.stats()["files"]
    assert [one["file_name"] for one in there] == ([told[0]["file"]] if moment == "before it was noted" else [])
    option = ["--file-id", there[0]["file_id"]] if there else ["--uploads"]
    assert command(worker, "retry", *option).wait(60) == 0
    for _ in range(3):
        document = worker.sync()
    assert (document["kinds"]["lead"], spent(worker), booked(worker)) == (PEOPLE, dict.fromkeys(asked, 1), PEOPLE)


def test_a_run_that_dies_between_two_rows_of_a_result_goes_on_there(worker, monkeypatch):
    asked = people(worker)
    worker.sync()
    worker.sync()
    monkeypatch.setattr(files, "ROWS_PER_TRANSACTION", 5)
    taken = []

    def die(run, one, part, take=files._take):
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(part)
        take(run, one, part)

    with monkeypatch.context() as dying:
        dying.setattr(files, "_take", die)
        with pytest.raises(KeyboardInterrupt):
            worker.sync()
    document = worker.sync()
    assert (document["validated"]["accept"], document["quarantined"]) == (2, 0)
    assert (document["kinds"]["lead"], spent(worker), booked(worker)) == (PEOPLE, dict.fromkeys(asked, 1), PEOPLE)


def test_what_a_result_lacks_is_looked_for_once_more_then_held_and_asked_singly(worker):
    asked = people(worker)
    worker.box.zerobounce.left_out = set(asked[:2])
    worker.post("/_sandbox/zerobounce", {"email": asked[2], "status": ""})  # a row without a status
    worker.sync()
    worker.sync()
    assert worker.sync()["failed"] == 1
    assert worker.box.stats()["files"] != []
    document = worker.sync()
    assert (document["validated"]["hold"], document["quarantined"], document["uploads"]["open"]) == (3, 1, 0)
    assert document["kinds"]["lead"] == PEOPLE - 3
    assert worker.sync()["validated"]["credits"] == 0
    worker.post("/_sandbox/zerobounce", {"email": asked[2], "status": "valid"})
    worker.skew = 7 * 3600
    assert worker.sync()["kinds"]["lead"] == PEOPLE
    assert calls(worker, "validate") == 3


def test_a_row_that_nobody_asked_for_is_quarantined(worker):
    people(worker)
    worker.sync()
    (there,) = worker.box.zerobounce.uploads.values()
    there.rows.append(["stranger@other.example"])
    there.answers.append(worker.box.zerobounce.verdict("stranger@other.example"))
    worker.sync()
    document = worker.sync()
    assert (document["quarantined"], document["kinds"]["lead"]) == (1, PEOPLE)
    assert "stranger@" not in str(worker.told)
    with worker.run("retry") as run:
        with run.engine.begin() as connection:
            (held,) = runs.in_quarantine(connection)
        assert files.release_rows(run, {held["id"] + 1}) == 0
        assert files.release_rows(run, {held["id"]}) == 1


def test_the_result_of_another_file_is_not_taken_for_ours(worker):
    people(worker)
    worker.box.zerobounce.polls_needed = 1
    other = "stranger@other.example"
    data = {"api_key": "sandbox-key", "email_address_column": "1", "has_header_row": "false"}
    there = requests.post(
        f"{worker.box.zerobounce_url}/sendfile", data=data, files={"file": ("x.csv", other)}, timeout=10
    ).json()
    lose_the_file(worker)
    worker.sync()
    assert answered_for(worker, there["file_id"])["uploads"]["doubtful"] == 1
    assert [one["file_name"] for one in worker.box.stats()["files"]] == ["x.csv"]  # and it is not deleted
    assert answered_for(worker, "no-such-file")["uploads"]["doubtful"] == 1


def test_a_file_that_zerobounce_refuses_costs_nothing_and_its_addresses_are_asked_one_by_one(worker):
    people(worker)
    handle(worker, "sendfile", said({"success": False, "message": "Error: the file type is not allowed."}, 400))
    document = worker.sync()
    assert (document["kinds"]["lead"], document["failed"]) == (PEOPLE, 1)
    assert (states(worker), booked(worker)) == ([uploads.RELEASED], PEOPLE)


def test_a_block_leaves_nothing_behind(worker):
    people(worker)
    handle(worker, "sendfile", said({}, 429))
    assert worker.sync()["failed"] == 1
    assert (states(worker), booked(worker), spent(worker)) == ([uploads.RELEASED], 0, {})


def test_a_file_that_never_completes_becomes_a_question(worker):
    people(worker)
    worker.box.zerobounce.polls_needed = 99
    worker.sync()
    worker.skew = 2 * DAY
    assert worker.sync()["uploads"]["doubtful"] == 0
    worker.skew = 4 * DAY
    assert worker.sync()["uploads"]["doubtful"] == 1


def test_while_a_file_is_in_doubt_others_are_asked_one_by_one(worker):
    people(worker)
    lose_the_file(worker)
    worker.sync()
    people(worker, name="q")
    assert worker.sync()["kinds"]["lead"] == PEOPLE
    assert calls(worker, "sendfile") == 1


def test_an_answer_to_a_question_that_nobody_asked_is_refused(worker):
    with pytest.raises(ConfigError, match="no file is in doubt"):
        answered_for(worker)
    with pytest.raises(ConfigError, match="no file is in doubt"):
        answered_for(worker, "x")


def test_a_file_that_cannot_be_deleted_is_deleted_later(worker):
    people(worker)
    for _ in range(2):
        worker.sync()
    handle(worker, "deletefile", said({}, 503))
    document = worker.sync()
    assert (document["kinds"]["lead"], document["failed"], document["uploads"]["open"]) == (PEOPLE, 1, 1)
    handle(worker, "deletefile", as_usual(worker, "deletefile"))
    assert worker.sync()["uploads"]["open"] == 0
    assert worker.box.stats()["files"] == []


def test_a_key_by_hand_does_not_ask_for_what_is_in_a_file(worker):
    asked = people(worker)
    worker.sync()
    (row,) = orjson.loads(told_by(command(worker, "validate", asked[0], "--json", output=subprocess.PIPE)))["verdicts"]
    assert (row["outcome"], row["sub_status"], row["source"]) == ("hold", "in_file", "file")
    assert calls(worker, "validate") == 0
