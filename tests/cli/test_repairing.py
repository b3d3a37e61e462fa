"""`undo`, `release`, `quarantine`, `retry`, `backup` and `restore` as their users meet them."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys

import pytest
import requests
import sqlalchemy as sa

from mautic_sync.sandbox import Sandbox
from mautic_sync.store import actions, people
from mautic_sync.store.engine import open_engine
from mautic_sync.store.schema import action, change
from tests.cli.test_commands import Shell

CONTACTS = 20


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A Mautic whose first push has happened; `first` is its summary."""
    with Sandbox(contacts=CONTACTS, seed=4) as box:
        shell = Shell(tmp_path_factory.mktemp("repair"), box)
        shell.json("init", "--yes")
        shell.first = shell.json("sync")
        yield shell


def stages(shell) -> dict[str, int]:
    return shell.box.stats()["stages"]


def on_a_terminal(shell, answer: str, *arguments: str, meanwhile=lambda: None) -> tuple[int, str]:
    """Run a command on a terminal of its own, and type this when it asks, after something happened."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mautic_sync", *arguments],
        cwd=shell.directory, env=shell.env, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    said, asked = "", False
    while True:
        ready, _, _ = select.select([ours], [], [], 60)
        try:
            part = os.read(ours, 65536) if ready else b""
        except OSError:
            part = b""
        if not part:
            break
        said += part.decode(errors="replace")
        if not asked and "[y/N]" in said:
            asked = True
            meanwhile()
            os.write(ours, f"{answer}\n".encode())
    os.close(ours)
    return process.wait(60), said


def test_undo_shows_its_plan_asks_and_takes_no_for_an_answer(shell):
    before = stages(shell)
    code, said = on_a_terminal(shell, "n", "undo", shell.first["run_id"])
    assert code == 0
    assert "no stage" in said
    assert "Nothing was written." in said
    assert stages(shell) == before


def test_undo_without_a_terminal_wants_to_be_told(shell):
    for arguments in ((), ("--json",)):
        done = shell("undo", shell.first["run_id"], *arguments)
        assert (done.returncode, bool(done.stdout)) == (2, bool(arguments))
        assert not done.stdout or json.loads(done.stdout)["exit_code"] == 2
        assert "--yes" in done.stderr
        assert "--dry-run" in done.stderr
    assert shell("undo", "never").returncode == 2
    assert shell("undo", shell.first["run_id"], "--yes", MAUTIC_SYNC_PUSH__ENABLED="false").returncode == 2


def test_a_dry_run_shows_what_would_be_taken_back(shell):
    before = stages(shell)
    document = shell.json("undo", shell.first["run_id"], "--dry-run", "--limit", "3")
    assert (document["undoes"], document["dry_run"], document["held"]) == (shell.first["run_id"], True, 0)
    assert len(document["listed"]) == 3 < document["changes"]
    assert {"contact", "target", "old", "new", "reason", "state"} <= set(document["listed"][0])
    assert {"left_alone", "cannot_be_undone", "pushed", "run_id", "unwritten"} <= set(document)
    assert stages(shell) == before


def test_undo_release_and_sync_lead_back(shell):
    before = stages(shell)
    code, said = on_a_terminal(shell, "y", "undo", shell.first["run_id"])
    assert code == 0, said
    assert stages(shell).keys() != before.keys()
    status = shell.json("status")
    assert status["held"] > 0
    assert shell.json("plan")["held"] == status["held"]
    listed = shell.json("release")
    assert (listed["held"], len(listed["listed"])) == (status["held"], status["held"])
    who = listed["listed"][0]["contact"]
    assert shell.json("explain", str(who))["held"]["undone"] == shell.first["run_id"]
    assert "held since" in shell("explain", str(who)).stdout
    assert "Nothing of it is left to be taken back." in shell("undo", shell.first["run_id"], "--dry-run").stdout
    assert shell.json("release", str(who)) == {"released": 1}
    assert shell("release", str(who)).returncode == 2
    assert shell("release", "nobody@example.com").returncode == 2
    assert shell("release", "").returncode == 2
    assert shell("release", "somebody").returncode == 2
    assert shell("release", str(who), "--all").returncode == 2
    assert shell.json("release", "--all") == {"released": status["held"] - 1}
    assert "Nobody is held." in shell("release").stdout
    shell.json("sync")
    assert stages(shell) == before
    assert shell.json("sync")["pushed"]["calls"] == 0


def act(shell, **what):
    with requests.Session() as session:
        session.trust_env = False
        assert session.post(f"{shell.box.url}/_sandbox/act", json=what, timeout=10).ok


def test_undo_names_what_somebody_changed_while_it_asked(tmp_path):
    with Sandbox(contacts=3, seed=4) as box:
        shell = Shell(tmp_path, box)
        shell.json("init", "--yes")
        run_id = shell.json("sync")["run_id"]
        who = shell.json("undo", run_id, "--dry-run")["listed"][0]["contact"]

        def by_hand():
            act(shell, do="set_stage", contact=who, stage="Customer")

        code, said = on_a_terminal(shell, "y", "undo", run_id, meanwhile=by_hand)
        asked, answered = said.split("[y/N]")
        assert (code, "left alone" in asked) == (0, False)
        assert f"left alone: contact {who}: stage: " in answered
        assert shell.json("explain", str(who))["in_mautic"]["stage"] == "Customer"


def test_quarantine_tells_why_when_and_how_often_and_one_is_tried_again_alone(shell):
    shell.json("sync")
    for number in (5, 6):
        act(shell, do="malform", contact=number, how="nested_value")
    shell("sync", "--full")
    shell("sync", "--full")
    first, second = shell.json("quarantine")["quarantined"]
    assert (first["key"], first["times"], first["id"][0]) == ("5", 2, "q")
    assert first["first_at"] <= first["last_at"]
    assert f"{first['id']}  contact 5" in shell("quarantine").stdout
    # Really read again, and still broken.
    document = shell.json("retry", first["id"], code=4)
    assert (document["retried"]["contacts"], document["failed_again"]) == (1, 1)
    assert shell.json("quarantine")["quarantined"][0]["times"] == 3
    for number in (5, 6):
        act(shell, do="malform", contact=number, how=None)
    document = shell.json("retry", second["id"])
    assert (document["retried"]["contacts"], document["failed_again"]) == (1, 0)
    assert [one["key"] for one in shell.json("quarantine")["quarantined"]] == ["5"]
    assert shell.json("retry")["failed_again"] == 0
    assert shell.json("quarantine") == {"quarantined": [], "failed": [], "actions": []}
    assert "Nothing is held back." in shell("quarantine").stdout
    done = shell("retry", "q99")
    assert (done.returncode, "q99" in done.stderr) == (2, True)


def test_a_refused_write_that_nobody_needs_is_let_go(shell):
    engine = open_engine(f"sqlite:///{shell.directory}/var/mautic_sync.db")
    with engine.begin() as connection:
        settled = connection.execute(sa.select(change).where(change.c.state == "settled").limit(1)).mappings().one()
        values = {"target": "dnc:sms", "old": '{"reason": null}', "new": '{"reason": 3}'}
        refused = {**settled, **values, "state": "refused", "error": "no"}
        del refused["id"]
        connection.execute(sa.insert(change), refused)
    engine.dispose()
    runs = shell.json("status")["runs"]
    wrote = next(one["run_id"] for one in runs if (one["summary"] or {}).get("pushed", {}).get("stages"))
    shell.json("undo", wrote, "--yes")
    # Who is held is not decided, so that nobody knows yet.
    assert "Let 1 write go" not in shell("retry").stdout
    assert shell.json("status")["failed"] == 1
    shell.json("release", "--all")
    done = shell("retry")
    assert (done.returncode, "Let 1 write go: it is not needed any more." in done.stdout) == (0, True)
    assert shell.json("quarantine")["failed"] == []


def refuse(shell, occasion="hot", rule="become hot", contact=7) -> str:
    """A refused action of this contact, by its id of `quarantine`."""
    engine = open_engine(f"sqlite:///{shell.directory}/var/mautic_sync.db")
    with engine.begin() as connection:
        (person,) = people.persons_of(connection, [contact]).values()
        known = {row["id"] for row in actions.refused(connection)}
        row = {"key": f"test-{len(known)}-{occasion}", "person_id": person, "rule": rule, "occasion": occasion}
        actions.queue(connection, [{**row, "todo": {"tags": ["tried"]}, "value": 250}], run_id="test", now=1)
        connection.execute(
            sa.update(action)
            .where(action.c.key == row["key"])
            .values(state="refused", attempts=1, error="no", settled_at=1)
        )
        (made,) = {row["id"] for row in actions.refused(connection)} - known
    engine.dispose()
    return f"a{made}"


def test_a_refused_action_is_let_go(shell):
    first, second = refuse(shell), refuse(shell, occasion="cold")
    assert shell("retry", "--discard").returncode == 2
    assert shell("retry", first, "q1", "--discard").returncode == 2
    assert shell.json("retry", first, "--discard") == {"discarded": 1}
    assert [one["id"] for one in shell.json("quarantine")["actions"]] == [second]
    assert shell("retry", second, "--discard").stdout == "Let 1 action go.\n"


def test_only_what_still_holds_is_tried_again(shell):
    person = shell.json("explain", "7")
    still = [f"stage:{person['stage']}", f"kind:{person['kind']}", "cold"]
    over = ["hot", "when:Vip", "low_value", "stage:Elsewhere", "kind:elsewhere"]
    for occasion in (*over, *still):
        refuse(shell, occasion)
    document = shell.json("retry")
    assert (document["retried"]["actions"], document["retried"]["outdated"]) == (len(still), len(over))
    assert document["actions"]["done"] == len(still)
    assert shell.json("quarantine")["actions"] == []
    found = {one["key"].split("-")[-1]: (one["state"], one["error"]) for one in shell.json("explain", "7")["actions"]}
    assert {found[occasion] for occasion in over} == {("superseded", "it holds no more")}
    refuse(shell)
    assert "Let 1 action go: what had set it off holds no more." in shell("retry").stdout


def test_backup_and_restore(shell, tmp_path):
    path = tmp_path / "store.backup"
    taken = shell.json("backup", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (taken["mautic"], taken["tables"]["contact"]) == (shell.box.url, CONTACTS)
    assert shell("restore", str(path)).returncode == 1
    url = {"MAUTIC_SYNC_STORE__URL": f"sqlite:///{tmp_path}/moved.db"}
    done = shell("restore", str(path), "--json", **url)
    assert json.loads(done.stdout)["rows"] == taken["rows"]
    done = shell("sync", "--json", **url)
    assert json.loads(done.stdout)["pushed"]["calls"] == 0
    assert "Restored" in shell("restore", str(path), "--force", **url).stdout
    done = shell("restore", str(tmp_path / "moved.db"), "--force", **url)
    assert (done.returncode, "no backup of mautic-sync" in done.stderr) == (1, True)
