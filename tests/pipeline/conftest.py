"""Scores by name: what a test says somebody's score is, it is. And a Mautic that fails at one address."""

from __future__ import annotations

import re

import orjson
import pytest
import requests

from mautic_sync.domain.scoring import Score
from mautic_sync.pipeline import decide as deciding
from mautic_sync.store import people


@pytest.fixture
def scores(monkeypatch):
    """First name → score, decided of everybody who has one."""
    found: dict[str, int] = {}

    def score(signals, _rules, now, not_before, _parts):
        total = found.get(str(signals.fields.get("firstname")), 0)
        return Score(total, {"fit": total}, max(not_before, now // 86_400))

    monkeypatch.setattr(deciding, "score", score)
    return found


@pytest.fixture
def no_actions(monkeypatch):
    """Calls are counted, and nothing but points is looked at: nobody is tagged for becoming hot."""
    monkeypatch.setattr(deciding.occasions, "queue_flags", lambda *_: None)


def rescore(worker, scores, **by_name):
    """Other scores from now on; everybody is decided again."""
    scores.update(by_name)
    everyone_again(worker)


def everyone_again(worker):
    with worker.run("look") as run, run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)


def resubscribe(worker, contact: int) -> None:
    """Somebody else makes a contact contactable by e-mail again."""
    with requests.Session() as session:
        session.trust_env = False
        address = f"{worker.box.url}/api/contacts/{contact}/dnc/email/remove"
        assert session.post(address, auth=("admin", "sandbox"), timeout=5).ok


@pytest.fixture
def unshown(monkeypatch):
    """Begins to answer calls whose path, or body, this pattern finds with 500, as JSON or as a page, or as told.

    Returns what ends it.
    """

    def begin(pattern, *, page=False, status=500):
        real, live = requests.Session.request, [True]

        def request(session, verb, url, **more):
            body = more.get("data")
            if not live or not re.search(pattern, f"{url} {body.decode() if isinstance(body, bytes) else ''}"):
                return real(session, verb, url, **more)
            answer = requests.Response()
            answer.status_code, answer.url = status, url
            answer.headers["Content-Type"] = "text/html" if page else "application/json"
            said = {"errors": [{"message": "no", "code": status}]}
            answer._content = b"<html>no</html>" if page else orjson.dumps(said)
            return answer

        monkeypatch.setattr(requests.Session, "request", request)
        return live.clear

    return begin
