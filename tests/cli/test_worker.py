"""`mautic-sync run` as a real process: signals, a second one, kill -9, status and health."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from mautic_sync.sandbox import Sandbox
from mautic_sync.sandbox.cost import Meter
from mautic_sync.sandbox.http import Request

LONGEST = 60
# As a terminal or an init system starts it: tests that run in the background of a shell ignore Ctrl-C.
START = """
import signal
from mautic_sync.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


IMPATIENT = START.replace("main()", "import mautic_sync.cli; mautic_sync.cli.STOP_SECONDS = 1; main()")


class Service:
    """One sandbox, one directory, and workers that are started and stopped in it."""

    def __init__(self, directory, box: Sandbox) -> None:
        self.directory, self.box = directory, box
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MAUTIC_SYNC_")},
            "MAUTIC_SYNC_MAUTIC__BASE_URL": box.url,
            "MAUTIC_SYNC_MAUTIC__CLIENT_ID": "sandbox",
            "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "sandbox-secret",
            "MAUTIC_SYNC_SCHEDULE__SYNC": "0 0 1 1 *",  # what it does, it does at once
        }
        self.workers: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mautic_sync", *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    def start(self, *arguments: str, program: str = START, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "run", *arguments],
            cwd=self.directory,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.workers.append(process)
        return process

    def until(self, process: subprocess.Popen[str], event: str) -> dict:
        """The first line of the log with this event."""
        for line in process.stderr:
            told = json.loads(line)
            if told["event"] == event:
                return told
        raise AssertionError(f"the worker ended without {event}: {process.wait()}")

    def status(self, *arguments: str) -> dict:
        done = self("status", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def service(tmp_path):
    with Sandbox(contacts=30, seed=4) as box:
        service = Service(tmp_path, box)
        assert service("init", "--yes").returncode == 0
        yield service
        for process in service.workers:
            process.kill()
            process.communicate()


def test_works_is_alone_can_be_looked_at_and_stops(service):
    assert service("status", "--healthy").returncode == 1
    process = service.start()
    done = service.until(process, "run_done")
    assert done["exit_code"] == 0
    assert done["run"]

    second = service("run")
    assert second.returncode == 5
    assert "mautic-sync run" in second.stderr
    assert service("run", "--wait", "0.3").returncode == 5
    assert service("sync").returncode == 0, "between two runs the store is free"

    healthy = service("status", "--healthy")
    assert (healthy.returncode, healthy.stdout.split(":")[0]) == (0, "healthy")
    status = service.status()
    assert status["healthy"]
    assert status["worker"]["alive"]
    assert status["worker"]["pid"] == process.pid
    assert set(status["schedule"]) == {"sync", "full_sync"}
    assert status["schedule"]["sync"]["last_success"]
    assert status["rules"]["fingerprint"]
    run = service.status(done["run"])
    assert (run["command"], run["exit_code"], run["summary"]["run_id"]) == ("run sync", 0, done["run"])
    assert len(run["changes"]) >= 30
    assert "no stage → " in service("status", done["run"]).stdout
    assert done["run"] in service("status").stdout

    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert not service.status()["worker"]["alive"]
    assert service.status()["worker"]["stopped_at"]


def test_every_request_names_its_run(service, monkeypatch):
    agents: set[str] = set()
    said = Request.user_agent.fget
    monkeypatch.setattr(Request, "user_agent", property(lambda request: agents.add(said(request)) or said(request)))
    run = json.loads(service("sync", "--json").stdout)["run_id"]
    assert len(agents) == 1
    assert f"(run {run})" in agents.pop()


def test_ctrl_c_is_exit_130(service):
    process = service.start()
    service.until(process, "run_done")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_kill_9_leaves_no_lock_behind(service):
    process = service.start()
    service.until(process, "run_started")
    process.kill()
    process.wait()
    again = service.start()
    assert service.until(again, "run_done")["exit_code"] == 0
    assert service.status()["kinds"]["ghost"] > 0


def test_a_second_worker_takes_over_when_it_waits(service):
    first = service.start()
    service.until(first, "run_done")
    second = service.start("--wait", str(LONGEST), MAUTIC_SYNC_SCHEDULE__SYNC="* * * * *")
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 143
    service.until(second, "worker_started")


def test_a_stop_ends_soon_though_mautic_does_not_answer(service, monkeypatch):
    """What was sent and is not answered for is looked up by the next run."""
    reached, let_go = threading.Event(), threading.Event()

    def hang(_meter) -> None:
        reached.set()
        let_go.wait(LONGEST)

    monkeypatch.setattr(Meter, "item", hang)
    process = service.start(program=IMPATIENT)
    assert reached.wait(LONGEST)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert "looks them up" in process.stderr.read()
    monkeypatch.undo()
    let_go.set()
    assert service("sync").returncode in {0, 4}
    assert service("sync").returncode == 0
    assert service.status()["pending"] == {}


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"MAUTIC_SYNC_SCHEDULE__SYNC": "61 * * * *"}, "MAUTIC_SYNC_SCHEDULE__SYNC"),
        ({"MAUTIC_SYNC_SCHEDULE__FULL_SYNC": "0 0 31 2 *"}, "schedule.full_sync"),
        ({"MAUTIC_SYNC_TIME_ZONE": "Berlin"}, "time_zone"),
        ({"MAUTIC_SYNC_MAUTIC__BASE_URL": ""}, "mautic.base_url"),
    ],
)
def test_a_mistake_in_the_settings_is_exit_2_by_name(tmp_path, env, told):
    done = Service(tmp_path, type("Nowhere", (), {"url": "http://127.0.0.1:9"}))("run", **env)
    assert done.returncode == 2
    assert told in done.stderr
