"""`mautic-sync doctor` as its users meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mautic_sync.doctor import CHECKS
from mautic_sync.sandbox import Sandbox


@pytest.fixture
def box():
    with Sandbox(contacts=20, seed=2) as box:
        yield box


@pytest.fixture
def shell(box, tmp_path):
    def run(*arguments, **env):
        settings = {
            "MAUTIC_SYNC_MAUTIC__BASE_URL": box.url,
            "MAUTIC_SYNC_MAUTIC__CLIENT_ID": "sandbox",
            "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET": "sandbox-secret",
            "MAUTIC_SYNC_ZEROBOUNCE__API_KEY": "sandbox-key",
            "MAUTIC_SYNC_ZEROBOUNCE__BASE_URL": box.zerobounce_url,
        }
        return subprocess.run(
            [sys.executable, "-m", "mautic_sync", *arguments],
            cwd=tmp_path,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("MAUTIC_SYNC_")}, **settings, **env},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    run.directory = tmp_path
    return run


def states(done):
    return {one["id"]: one["state"] for one in json.loads(done.stdout)["checks"]}


def test_before_init_it_fails_and_says_what_to_do_and_after_it_is_well(shell):
    done = shell("doctor", "--json")
    assert done.returncode == 1
    assert list(shell.directory.iterdir()) == []
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert set(document["checks"][0]) == {"id", "title", "state", "told", "fix", "facts"}
    assert sum(document["counts"].values()) == len(document["checks"]) == len(CHECKS)
    init = shell("init", "--yes")
    assert "mautic-sync doctor" in init.stdout
    done = shell("doctor", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)
    assert done.stderr == ""


def test_the_table_shows_every_check_with_its_fix(shell):
    done = shell("doctor", COLUMNS="250")
    assert done.returncode == 1
    for check in CHECKS:
        assert check.title in done.stdout
    assert "Run `mautic-sync init`, which creates it." in done.stdout
    assert "sandbox-secret" not in done.stdout + done.stderr


def test_bad_settings_are_told_and_nothing_else_is_tried(shell):
    done = shell("doctor", "--json", MAUTIC_SYNC_MAUTIC__TIMEOUT="soon")
    assert done.returncode == 2
    found = states(done)
    assert found.pop("settings") == "failed"
    assert set(found.values()) == {"skipped"}
    assert "mautic.timeout" in json.loads(done.stdout)["checks"][0]["told"]


def test_bad_mappings_leave_the_rest_of_the_table(shell):
    rules = shell.directory / "mappings"
    rules.mkdir()
    (rules / "stages.yaml").write_text("version: 1\nstages: []\n")
    done = shell("doctor", "--json")
    assert done.returncode == 2
    found = states(done)
    assert (found["settings"], found["mappings"]) == ("ok", "failed")
    assert found["mautic.credentials"] == found["rights.contacts"] == found["zerobounce.key"] == "ok"
    assert found["stages"] == found["names"] == "skipped"
