"""The sandbox answers as real Mautics did: 272 recorded exchanges a version, replayed over HTTP."""

import re
import sys
from pathlib import Path

import pytest

from mautic_sync.sandbox import Credentials, Sandbox

sys.path.insert(0, str(Path(__file__).parent))
import replay

FILES = {
    "mautic-5.1.0.jsonl": "5.1",
    "mautic-5.1.0-more.jsonl": "5.1",
    "mautic-7.0.0.jsonl": "7.0",
    "mautic-7.0.0-more.jsonl": "7.0",
}
#: What is not compared, with the reason; nothing here is read by the worker.
LEFT_OUT = [
    # (calls, part of the answer, why)
    (r"^(GET|POST) /api/forms", "json/form/cachedHtml", "the markup of a form is Mautic's theme"),
    (r"^GET /email/unsubscribe/", "text", "the page that says good-bye is Mautic's theme"),
    (r"^GET /api/contacts(/\d+)?/activity", "json/events", "the history is read from the feeds, never from here"),
    (r"^GET /api/contacts(/\d+)?/activity", "json/total", "goes with the events"),
    (r"^GET /api/contacts(/\d+)?/activity", "json/maxPages", "goes with the events"),
    (r"^GET /api/companies", "json/companies", "companies have 15 fields of their own that nobody reads"),
]


def left_out(step):
    request = step.recorded["request"]
    call = f"{request['method']} {request['path']}"
    return [part for pattern, part, _why in LEFT_OUT if re.search(pattern, call)]


STEPS = {file: replay.load(file) for file in FILES}


@pytest.fixture(scope="module")
def replayed():
    done = {}

    def run(file):
        if file not in done:
            credentials = Credentials(**replay.CREDENTIALS)
            with Sandbox(empty=True, version=FILES[file], credentials=credentials) as sandbox:
                clock = sandbox.instance.clock
                replay.Replay(sandbox.url, lambda moment: clock.set(moment, freeze=True)).run(STEPS[file], left_out)
            done[file] = {step.number: step.differences for step in STEPS[file]}
        return done[file]

    return run


@pytest.mark.parametrize(
    ("file", "number"),
    [
        pytest.param(s.file, s.number, id=f"{s.file.removesuffix('.jsonl')}-{s.number}-{s.name}")
        for f in STEPS.values()
        for s in f
    ],
)
def test_it_answers_as_the_real_server_did(replayed, file, number):
    found = replayed(file)[number]
    assert not found, "\n" + "\n".join(found[:40])


def test_what_is_left_out_is_used_by_recorded_calls():
    """An entry of the list that no recorded call needs would be a hole for nothing."""
    calls = {f"{s.recorded['request']['method']} {s.recorded['request']['path']}" for f in STEPS.values() for s in f}
    for pattern, _part, _why in LEFT_OUT:
        assert any(re.search(pattern, call) for call in calls), pattern
