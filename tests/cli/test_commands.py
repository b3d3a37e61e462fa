"""The command line as its users meet it: a real process, a real terminal's streams, exit codes, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from mautic_sync.sandbox import Sandbox

CONTACTS = 60
# The command as a terminal starts it: tests that run in the background of a shell ignore Ctrl-C, and so would it.
INTERRUPTIBLE = """
import signal
from mautic_sync.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
# Mautic is gone when all was written.
FAILING = """
from mautic_sync.cli import main
from mautic_sync.errors import StopError
from mautic_sync.pipeline import push
write = push.push
def write_and_fail(run):
    write(run)
    raise StopError("nothing answers any more")
push.push = write_and_fail
main()
"""


class Shell:
    def __init__(self, directory: Path, box: Sandbox) -> None:
        self.directory, self.box = directory, box
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MAUTIC_SYNC_")},
            "MAUTIC_SYNC_MAUTIC__BASE_URL": box.url,
            "MAUTIC_SYNC_MAUTIC__CLIENT_ID": "sandbox",
            "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "sandbox-secret",
            "MAUTIC_SYNC_ZEROBOUNCE__API_KEY": "sandbox-key",
            "MAUTIC_SYNC_ZEROBOUNCE__BASE_URL": box.zerobounce_url,
            "MAUTIC_SYNC_ZEROBOUNCE__MAX_PER_SECOND": "50",
        }

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mautic_sync", *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def json(self, *arguments: str, code: int = 0) -> dict:
        done = self(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """One world for the whole module: `init`, `plan`, the first `sync` and `status` have happened, in this order."""
    with Sandbox(contacts=CONTACTS, seed=4) as box:
        shell = Shell(tmp_path_factory.mktemp("shell"), box)
        shell.init = shell.json("init", "--yes")
        shell.plan = shell.json("plan")
        shell.first = shell.json("sync")
        shell.status = shell.json("status")
        yield shell


def test_init_writes_settings_for_its_owner_alone_and_no_secret_of_the_environment(shell):
    config = shell.directory / "config" / "mautic_sync.toml"
    assert config.stat().st_mode & 0o077 == 0
    assert shell.box.url in config.read_text()
    assert "sandbox-secret" not in config.read_text()
    assert {one["what"] for one in shell.init["created"]} == {"stage", "field", "segment"}


def test_init_says_which_credentials_it_left_in_the_environment(shell, tmp_path):
    own = Shell(tmp_path, shell.box)
    told = " ".join(own("init", "--yes").stdout.split())
    assert "MAUTIC_SYNC_MAUTIC__CLIENT_ID, MAUTIC_SYNC_MAUTIC__CLIENT_SECRET, MAUTIC_SYNC_ZEROBOUNCE__API_KEY." in told
    assert "set these wherever mautic-sync runs" in told
    assert "wherever mautic-sync runs" not in own("init", "--yes").stdout


def test_init_is_safe_to_repeat(shell):
    assert shell.json("init", "--yes")["created"] == []


def test_plan_has_the_documented_keys_and_shows_each_change(shell):
    plan = shell.plan
    assert {"plan_id", "as_of", "changes", "moves", "kinds", "verdicts_needed", "verdicts_to_buy", "listed"} <= set(
        plan
    )
    assert plan["changes"] > CONTACTS / 2
    assert {"contact", "old", "new", "reason"} <= set(plan["listed"][0])


def test_a_plan_says_that_without_a_key_addresses_count_as_accepted(shell):
    assert not shell.plan["gate_open"]
    keyless = shell("plan", MAUTIC_SYNC_ZEROBOUNCE__API_KEY="")
    assert keyless.returncode == 0, keyless.stderr
    assert "There is no ZeroBounce key: addresses count as accepted" in " ".join(keyless.stdout.split())


def test_a_plan_names_rules_that_never_match(shell):
    rules = shell.directory.parent / "odd"
    rules.mkdir()
    (rules / "validation.yaml").write_text("version: 1\nonly_if: {all: [{kind: lead}, {kind: ghost}]}\n")
    odd = {"MAUTIC_SYNC_MAPPINGS__DIR": str(rules)}
    told = " ".join(shell("plan", **odd).stdout.split())
    assert "Note: " in told
    assert "validation.yaml, line 2, only_if: this never holds: `{kind: lead}` and `{kind: ghost}` exclude each" in told
    assert len(json.loads(shell("plan", "--json", **odd).stdout)["warnings"]) == 1
    assert shell.plan["warnings"] == []


def test_a_plan_says_what_init_has_to_create_before_a_sync(shell):
    assert shell.plan["lacking"] == []
    rules = shell.directory.parent / "more"
    rules.mkdir()
    (rules / "stages.yaml").write_text(
        "version: 1\nstages:\n"
        "  - {stage: Friend, kind: lead, weight: 15, when: {tag: friend}}\n"
        "  - {stage: Ghost, kind: ghost, weight: 10}\n"
    )
    more = {"MAUTIC_SYNC_MAPPINGS__DIR": str(rules)}
    assert json.loads(shell("plan", "--json", **more).stdout)["lacking"] == ["stage Friend"]
    told = " ".join(shell("plan", **more).stdout.split())
    assert (
        "A sync refuses it: Mautic lacks what the mappings write: stage Friend. Create it with `mautic-sync init`."
        in told
    )
    assert "nothing was written. Then carry it out with `mautic-sync sync" in told
    assert shell("sync", **more).returncode == 2


def test_init_accepts_no_first_push_that_was_long_ago(shell):
    told = shell("init", "--yes").stdout
    assert "The first push is accepted" not in told
    assert "`mautic-sync plan` shows what a sync would change now." in told


def test_check_of_a_directory_points_to_the_tests_of_that_directory(shell):
    rules = shell.directory.parent / "my rules"
    (rules / "tests").mkdir(parents=True)
    (rules / "tests" / "a.yaml").write_text("version: 1\ntests:\n  - {name: A, expect: {kind: ghost}}\n")
    assert f"`mautic-sync test-rules '{rules}'`" in shell("check", str(rules)).stdout
    assert "`mautic-sync test-rules`" in shell("check").stdout


def test_a_plan_that_a_sync_would_stop_at_says_how_it_is_carried_out(shell):
    with Sandbox(contacts=30, seed=4) as box:
        other = Shell(shell.directory.parent / "careful", box)
        other.directory.mkdir()
        other.env["MAUTIC_SYNC_PUSH__FIRST_RUN_MAX"] = "10"
        other.json("init", "--yes")
        assert other.json("plan")["safety_stop"] is None  # accepted beforehand
        (other.directory / "var" / "mautic_sync.db").unlink()
        plan = other.json("plan")
        assert "more than push.first_run_max = 10" in plan["safety_stop"]
        told = " ".join(other("plan").stdout.split())
        assert "mautic-sync sync --accept 20" in told
        stop = other.json("sync", code=3)
        assert stop["exit_code"] == 3
        assert f"--accept {stop['plan']}" in stop["error"]
        assert stop["safety_stop"] == plan["safety_stop"]
        assert stop["planned"]["changes"] == plan["changes"]
        assert other.json("sync", "--accept", stop["plan"])["pushed"]["stages"] > 10
        assert other.json("plan")["safety_stop"] is None


def test_sync_has_every_key_of_the_contract(shell):
    document = shell.first
    assert {
        "run_id",
        "started_at",
        "seconds",
        "pulled",
        "kinds",
        "transitions",
        "validated",
        "pushed",
        "merged",
        "quarantined",
        "failed",
    } <= set(document)
    assert set(document["pulled"]) >= {"contacts", "activities", "calls"}
    assert set(document["kinds"]) == {"ghost", "lead", "customer"}
    assert sum(document["kinds"].values()) == CONTACTS
    assert set(document["validated"]) >= {"credits", "accept", "hold", "reject", "cached"}
    assert set(document["pushed"]) >= {"stages", "points", "fields", "calls"}
    assert sum(move["count"] for move in document["transitions"]) == document["pushed"]["stages"]


def test_what_is_printed_beside_json_goes_to_standard_error(shell):
    done = shell("sync", "--json")
    assert json.loads(done.stdout)["pushed"]["calls"] == 0
    for line in done.stderr.splitlines():
        assert json.loads(line)["run"]


def test_no_address_and_no_secret_appears_in_any_log(shell):
    with Sandbox(contacts=40, seed=9) as box:
        other = Shell(shell.directory.parent / "fresh", box)
        other.directory.mkdir()
        for arguments in (("init", "--yes"), ("sync",), ("sync", "--full")):
            done = other(*arguments, MAUTIC_SYNC_LOG__LEVEL="debug")
            assert "@" not in done.stderr
            assert "sandbox-secret" not in done.stderr + done.stdout
            assert "sandbox-key" not in done.stderr + done.stdout


def test_explain_by_number_and_by_address_tells_the_same(shell):
    lead = next(row for row in shell.plan["listed"] if row["reason"].startswith("Customer"))["contact"]
    document = shell.json("explain", str(lead))
    assert {"id", "kind", "stage", "score", "trace", "verdict", "points", "identity"} <= set(document)
    assert (document["id"], document["kind"]) == (lead, "customer")
    address = document["identity"]["email"]
    if address:
        assert shell.json("explain", address.upper())["id"] == lead
    text = shell("explain", str(lead)).stdout
    assert "Rules, from top to bottom" in text


def test_explain_says_in_brackets_why_mautic_shows_another_stage(tmp_path):
    with Sandbox(contacts=20, seed=4) as box:
        shell = Shell(tmp_path, box)
        shell.json("init", "--yes")
        changes = shell.json("status", shell.json("sync")["run_id"])["changes"]
        ghost = next(row["contact"] for row in changes if row["new"].get("stage") == "Ghost")
        act = {"do": "set_stage", "contact": ghost, "stage": "Customer"}
        requests.post(f"{box.url}/_sandbox/act", json=act, timeout=10).raise_for_status()
        shell.json("plan")
        assert "in Mautic now: Customer (stage Customer was set by hand" in shell("explain", str(ghost)).stdout


def test_explain_says_why_an_address_of_low_value_has_no_verdict(tmp_path):
    with Sandbox(empty=True) as box:
        shell = Shell(tmp_path, box)
        rival = {"email": "pat@rival.example", "company": "Acme Rival"}
        url = f"{box.url}/api/contacts/new"
        requests.post(url, json=rival, auth=("admin", "sandbox"), timeout=10).raise_for_status()
        shell.json("init", "--yes")
        assert shell.json("sync")["validated"]["credits"] == 0
        told = shell("explain", rival["email"]).stdout
        assert "Verdict: missing; no credit is spent on whoever is of low value" in told
        assert "waits" not in told
        verdict = shell.json("explain", rival["email"])["verdict"]
        assert (verdict["needed"], verdict["not_asked"]) == (False, "low_value")


@pytest.mark.parametrize("word", ["", "somebody", "ann@", str(2**63)])
def test_explain_of_what_is_no_contact_shows_nobody(shell, word):
    done = shell("explain", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert "neither a Mautic id nor an e-mail address" in done.stderr


def test_explain_of_a_stranger_says_what_to_do(shell):
    done = shell("explain", "999999")
    assert done.returncode == 1
    assert "mautic-sync plan" in done.stderr


def test_status_tells_runs_cursors_pending_and_credits(shell):
    document = shell.status
    assert {"runs", "cursors", "pending", "credits", "kinds"} <= set(document)
    assert [one["command"] for one in document["runs"]] == ["sync", "plan", "init"]
    assert document["credits"] > 0
    run = shell.json("status", shell.first["run_id"])
    assert len(run["changes"]) >= shell.first["pushed"]["stages"]


def test_validate_asks_once_and_then_answers_from_what_is_held(shell):
    first = shell.json("validate", "someone@validate-by-hand.example", "not an address")
    assert first["verdicts"][0]["source"] == "zerobounce"
    assert (first["verdicts"][1]["outcome"], first["verdicts"][1]["source"]) == ("reject", "syntax")
    again = shell.json("validate", "Someone@validate-by-hand.example")
    assert (again["credits"], again["verdicts"][0]["source"]) == (0, "cache")


def test_quarantine_and_retry_show_and_try_what_was_held_back(shell):
    assert shell.json("quarantine") == {"quarantined": [], "failed": [], "actions": []}
    shell.box.instance.malformed[5] = "nested_value"
    held = shell.json("sync", "--full", code=4)
    assert held["quarantined"] == 1
    assert shell.json("quarantine")["quarantined"][0]["key"] == "5"
    shell.box.instance.malformed.clear()
    assert shell.json("retry")["retried"]["contacts"] == 1
    assert shell.json("quarantine")["quarantined"] == []


def test_dry_run_is_a_plan(shell):
    shell.box.reset_stats()
    document = shell.json("sync", "--dry-run")
    assert "plan_id" in document
    assert shell.box.stats()["writes"] == 0


def test_push_disabled_is_a_plan_too(shell):
    document = json.loads(shell("sync", "--json", MAUTIC_SYNC_PUSH__ENABLED="false").stdout)
    assert "plan_id" in document
    assert set(shell.first) <= set(document)
    assert (document["pushed"]["calls"], document["transitions"]) == (0, [])


def test_no_push_decides_and_writes_nothing(shell):
    shell.box.reset_stats()
    shell.json("sync", "--no-push")
    assert shell.box.stats()["writes"] == 0


def test_as_of_decides_for_another_day_and_keeps_nothing(shell):
    document = shell.json("plan", "--as-of", "2031-01-01")
    assert document["as_of"] == "2031-01-01T00:00:00Z"
    assert shell.json("plan")["changes"] == 0
    assert "Mautic shows the truth" not in shell("plan", "--as-of", "2020-01-01").stdout
    assert shell("plan", "--as-of", "tomorrow").returncode == 2


def test_one_contact_alone(shell):
    assert shell.json("sync", "--contact", "3")["pulled"]["contacts"] == 1


def test_a_human_sees_sentences(shell):
    out = shell("sync").stdout
    assert "Nothing had to be written." in out
    assert "leads" in out


@pytest.mark.parametrize(
    ("arguments", "env", "code", "told"),
    [
        (["sync", "--nonsense"], {}, 2, "nonsense"),
        (["nonsense"], {}, 2, "nonsense"),
        (["plan", "--limit", "9" * 20], {}, 2, "--limit"),
        (["sync", "--accept", "20200101T000000-abcdef"], {}, 2, "there is no plan"),
        (["sync", "--config", "nowhere.toml"], {}, 2, "nowhere.toml"),
        (["sync"], {"MAUTIC_SYNC_MAUTIC__BASE_ULR": "x"}, 2, "MAUTIC_SYNC_MAUTIC__BASE_URL"),
        (["sync"], {"MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "wrong"}, 1, "mautic.client_secret"),
        (["sync"], {"MAUTIC_SYNC_MAUTIC__BASE_URL": "http://127.0.0.1:9"}, 2, "belongs to the Mautic"),
        (["sync"], {"MAUTIC_SYNC_MAUTIC__BASE_URL": "http://mautic.example.com"}, 2, "mautic.allow_http"),
        (["sync"], {"MAUTIC_SYNC_MAUTIC__CA_BUNDLE": "/none.pem"}, 2, "mautic.ca_bundle: /none.pem cannot be used: No"),
        (["sync"], {"MAUTIC_SYNC_MAUTIC__CA_BUNDLE": __file__}, 2, "no certificate"),
        (["sync"], {"MAUTIC_SYNC_STORE__URL": "nosuch://x"}, 2, "store.url"),
        (["status"], {"MAUTIC_SYNC_STORE__URL": "sqlite:////proc/nowhere/x.db"}, 1, "store"),
        (["check", "nowhere"], {}, 2, "nowhere"),
        (["validate", "a@b.example"], {"MAUTIC_SYNC_ZEROBOUNCE__API_KEY": ""}, 2, "zerobounce.api_key"),
        (["status", "20200101T000000-abcdef"], {}, 2, "there is no run"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_a_sentence(shell, arguments, env, code, told):
    done = shell(*arguments, **env)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    if arguments[0] != "check":
        document = json.loads(shell(*arguments, "--json", **env).stdout)
        assert (document["exit_code"], told in document["error"]) == (code, True)


def test_a_sandbox_on_a_busy_port_names_the_port(shell):
    port = shell.box.url.rpartition(":")[2]
    done = shell("sandbox", "--port", port)
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [(["schema"], 1, "the output could not be written"), (["status", "nowhere", "--json"], 2, "nowhere")],
)
def test_output_that_finds_no_room_is_exit_1_and_a_sentence(shell, arguments, code, told):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mautic_sync", *arguments],
            cwd=shell.directory,
            env=shell.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_without_our_signs_shows_which_rules_hold(shell):
    done = shell("explain", "1", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    shown = shell("explain", "1").stdout
    assert "✗ not tag customer" in shown
    assert "[ ] not tag customer" in done.stdout
    assert "?" not in done.stdout
    assert done.stdout.count("[ ]") == shown.count("✗")


def test_an_unreachable_mautic_is_exit_1(tmp_path, shell):
    alone = Shell(tmp_path, shell.box)
    done = alone("plan", MAUTIC_SYNC_MAUTIC__BASE_URL="http://127.0.0.1:9", MAUTIC_SYNC_MAUTIC__TIMEOUT="2")
    assert done.returncode == 1
    assert "mautic.base_url" in done.stderr
    assert "What was done" not in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_run_that_fails_after_it_has_written_says_where_that_is_shown(tmp_path, as_json):
    with Sandbox(contacts=5, seed=4) as box:
        shell = Shell(tmp_path, box)
        shell.json("init", "--yes")
        done = subprocess.run(
            [sys.executable, "-c", FAILING, "sync", *(["--json"] if as_json else [])],
            cwd=tmp_path,
            env=shell.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        told, hint = done.stderr.splitlines()[-2:]
        assert told == "mautic-sync: nothing answers any more"
        run_id = hint.split("`")[1].removeprefix("mautic-sync status ")
        ended = shell.json("status", run_id)
        assert (ended["exit_code"], ended["summary"]["pushed"]["stages"]) == (1, 5)
        if as_json:
            document = json.loads(done.stdout)
            assert (document["error"], document["run_id"]) == ("nothing answers any more", run_id)
            assert document["summary"]["pushed"] == ended["summary"]["pushed"]


def test_a_run_that_was_refused_everything_points_to_nothing(tmp_path):
    with Sandbox(contacts=5, seed=4) as box:
        shell = Shell(tmp_path, box)
        rights = ["contacts:view", "contacts:edit", "stages:view", "stages:create", "fields:view", "segments:view"]
        requests.post(
            f"{box.url}/_sandbox/act", json={"do": "restrict", "rights": rights}, timeout=5
        ).raise_for_status()
        done = shell("init", "--yes")
        assert done.returncode == 1
        assert "403" in done.stderr
        assert "What was done" not in done.stderr


def test_a_second_run_is_exit_5_and_waits_when_told(shell):
    from mautic_sync.store.engine import open_engine, run_lock

    engine = open_engine(f"sqlite:///{shell.directory}/var/mautic_sync.db")
    try:
        with run_lock(engine):
            assert shell.json("sync", code=5)["exit_code"] == 5
            assert shell("sync", "--wait", "0.3").returncode == 5
        assert shell("sync", "--wait", "5").returncode == 0
    finally:
        engine.dispose()


def test_check_reads_the_rules_without_mautic_and_names_file_line_and_nearest_word(tmp_path, shell):
    assert shell.json("check")["ok"]
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "stages.yaml").write_text("version: 1\nstages:\n  - stage: Ghost\n    knid: ghost\n    weight: 10\n")
    done = shell("check", str(rules))
    assert done.returncode == 2
    assert "stages.yaml, line 4" in done.stderr
    assert "`kind`" in done.stderr
    found = shell.json("check", str(rules), code=2)
    assert not found["ok"]
    assert {(one["file"], one["line"]) for one in found["problems"]} >= {(str(rules / "stages.yaml"), 4)}
    (problem,) = shell.json("check", "--config", "nowhere.toml", code=2)["problems"]
    assert "nowhere.toml" in problem["text"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAUTIC__BASE_URL", "http://mautic.example.com"),
        ("MAUTIC__BASE_URL", "https://host:port"),
        ("MAUTIC__CA_BUNDLE", "/none.pem"),
        ("STORE__URL", "nonsense"),
        ("ZEROBOUNCE__BASE_URL", "http://zerobounce.example.com"),
    ],
)
def test_check_refuses_what_a_run_would_refuse(shell, variable, value):
    done = shell("check", **{f"MAUTIC_SYNC_{variable}": value})
    assert done.returncode == 2
    assert variable.replace("__", ".").lower() in done.stderr


def test_check_says_when_no_rule_is_read_from_the_directory(tmp_path, shell):
    assert f"{tmp_path} holds none of stages.yaml" in shell.json("check", str(tmp_path))["warnings"][0]


def test_a_rule_on_a_field_that_mautic_lacks_is_exit_2_before_anything_is_read(tmp_path, shell):
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "stages.yaml").write_text(
        "version: 1\nstages:\n"
        "  - stage: Lead\n    kind: lead\n    weight: 20\n    when: {field: fristname, not_empty: true}\n"
        "  - stage: Ghost\n    kind: ghost\n    weight: 10\n"
    )
    shell.box.reset_stats()
    done = shell("plan", MAUTIC_SYNC_MAPPINGS__DIR=str(rules))
    assert done.returncode == 2
    assert "did you mean `firstname`" in done.stderr
    assert not any("contacts" in call and "fields" not in call for call in shell.box.stats()["calls"])


def test_schema_is_json_schema_of_settings_and_mappings(shell):
    document = json.loads(shell("schema").stdout)
    assert document["settings"]["properties"]["mautic"]
    assert "stages" in str(document["mappings"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_loses_nothing(tmp_path, number, code):
    """Stopped in the middle of the push: the next run ends where an undisturbed one would."""
    with Sandbox(contacts=90, seed=2, cost="measured") as box:
        shell = Shell(tmp_path, box)
        assert shell("init", "--yes").returncode == 0
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, "sync"],
            cwd=tmp_path,
            env=shell.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while not any("batch/edit" in call for call in box.stats()["calls"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        shell.json("sync")
        last = shell.json("sync")
        assert last["pushed"]["calls"] == 0
        assert box.stats()["stages"].get("none", 0) == 0


def test_demo_ends_in_a_result_that_a_stranger_understands(tmp_path, shell):
    done = Shell(tmp_path, shell.box)("demo", "--contacts", "150")
    assert done.returncode == 0, done.stderr
    for words in ("Mautic says: 150 contacts", "ghost", "lead", "customer", "Customer:", "0 writes, 0 credits"):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []
