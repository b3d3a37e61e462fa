"""The log: one JSON document a line, named by its run, without secrets and addresses, whoever writes it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mautic_sync.cli import logs
from mautic_sync.cli.logs import secrets_of
from mautic_sync.cli.progress import Lines, duration, seconds_left, seen
from mautic_sync.pipeline.context import Counts
from mautic_sync.sandbox import Sandbox
from mautic_sync.settings import Settings

SECRETS = ("client-secret-1", "pass-word-2", "api-key-3", "store-word-4", "token-5", "write-key-6")
SPEAKING = """
import logging, threading, warnings
from mautic_sync.cli.logs import configure_logs, log_crash, observer, run_named
from mautic_sync.settings import Settings
settings = Settings(
    mautic={"client_secret": "client-secret-1", "password": "pass-word-2"},
    zerobounce={"api_key": "api-key-3"}, store={"url": "postgresql://user:store-word-4@host/db"},
    web={"token": "token-5", "write_keys": ["write-key-6"]}, log={"format": FORMAT, "level": "debug"},
)
configure_logs(settings)
configure_logs(settings)
everything = "eve@example.com client-secret-1 pass-word-2 api-key-3 store-word-4 token-5 write-key-6"
with run_named("20261101T120000-abcdef"):
    observer()("refused", reason=everything, deep={"list": [everything], "error": ValueError(everything)})
    logging.getLogger("urllib3").warning("retrying %s", everything)
    logging.getLogger("apscheduler").info("not shown")
    logging.getLogger("urllib3").debug("not shown")
    warnings.warn(everything)
    try:
        raise RuntimeError(everything)
    except RuntimeError as error:
        log_crash(error)
        logging.getLogger("some.package").exception("package: %s", everything)
    thread = threading.Thread(target=lambda: observer()("pushed", changes=1))
    thread.start()
    thread.join()
"""


def speak(form: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SPEAKING.replace("FORMAT", repr(form))], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return done.stderr


def test_every_line_is_one_document_with_its_run():
    lines = [json.loads(line) for line in speak("json").splitlines()]
    assert [line["event"].split()[0] for line in lines][:2] == ["refused", "retrying"]
    assert len(lines) == 6
    assert {line["run"] for line in lines} == {"20261101T120000-abcdef"}
    assert [line["level"] for line in lines] == ["warning", "warning", "warning", "error", "error", "info"]
    assert "RuntimeError" in lines[3]["exception"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_and_no_whole_address_in_whatever_is_logged(form):
    told = speak(form)
    assert "e***@example.com" in told
    assert "eve@" not in told
    assert [secret for secret in SECRETS if secret in told] == []
    assert "not shown" not in told


def test_every_secret_setting_is_known_to_the_masks():
    settings = Settings(
        mautic={"client_secret": "a-1"}, web={"write_keys": ["b-2"]}, store={"url": "mysql://u:c%403@h/d"}
    )
    assert secrets_of(settings) == {"a-1", "b-2", "c@3"}


def test_an_unforeseen_fault_shows_no_secret_and_no_traceback_on_the_terminal(tmp_path):
    code = (
        "import sys; sys.argv = ['mautic-sync', 'status']\n"
        "from mautic_sync.cli import inspection, main\n"
        "def fail(*_): raise RuntimeError('password=hunter22 of eve@example.com')\n"
        "inspection._status_document = fail\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "hunter22" not in done.stdout + done.stderr
    assert "eve@" not in done.stdout + done.stderr
    assert json.loads(done.stderr.splitlines()[0])["event"] == "crashed"


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "left"),
    [
        (50, 100, 60, 60),
        (100, 100, 60, 0),
        (1, 100, 60, None),  # too little to tell
        (50, 100, 1, None),  # too early to tell
        (50, None, 60, None),
        (0, 0, 60, None),
    ],
)
def test_the_time_left_is_told_only_when_it_can_be_known(done, total, elapsed, left):
    assert seconds_left(done, total, elapsed) == left


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (40, "40 s"),
        (720, "12 min"),
        (3 * 3600 + 300, "3 h 5 min"),
        (7200, "2 h"),
        (52 * 3600, "2 d 4 h"),
        (172800, "2 d"),
    ],
)
def test_durations_look_as_exact_as_they_are(seconds, told):
    assert duration(seconds) == told


def test_many_small_writes_become_one_line_and_none_is_lost():
    told = []
    lines = Lines(lambda event, **facts: told.append((event, facts)))
    lines.counts = Counts()
    lines("pushing", changes=3)
    for _ in range(3):
        lines.counts.landed += 1
        lines("pushed", changes=1)
    lines("acted", contact=1, rule="x")
    assert [event for event, _ in told] == ["pushing", "pushed", "acted"]
    assert told[1][1] == {"changes": 3, "done": 3, "of": 3, "eta_seconds": None}


def test_the_last_line_of_a_run_names_it_too():
    told = []
    lines = Lines(lambda event, **_facts: told.append((event, logs._Now.run)))
    with seen(SimpleNamespace(id="20261101T120000-abcdef", counts=Counts()), lines):
        lines("pushing", changes=1)
        lines("pushed", changes=1)
    assert told == [("pushing", "20261101T120000-abcdef"), ("pushed", "20261101T120000-abcdef")]


def test_a_terminal_shows_progress_and_no_page_lines(tmp_path):
    with Sandbox(contacts=30, seed=3) as box:
        env = {
            **os.environ,
            "TERM": "xterm",
            "MAUTIC_SYNC_MAUTIC__BASE_URL": box.url,
            "MAUTIC_SYNC_MAUTIC__CLIENT_ID": "sandbox",
            "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "sandbox-secret",
        }
        command = [sys.executable, "-m", "mautic_sync"]
        subprocess.run([*command, "init", "--yes"], cwd=tmp_path, env=env, capture_output=True, check=True)
        ours, theirs = pty.openpty()
        process = subprocess.Popen([*command, "sync"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert process.wait(60) == 0
    assert b"30 read" in shown
    assert b"event" not in shown
    assert b"gate_open" in shown, "other events stand above the bars"
