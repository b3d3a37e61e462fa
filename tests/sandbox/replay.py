"""Holds a simulated Mautic to a recording: sends its requests in order and compares each answer.

What cannot be equal (times, hashes, tokens, device ids, the server's address) becomes a placeholder on both sides; ids
that one answer gave are carried into later requests.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

RECORDINGS = Path(__file__).parent.parent / "recordings"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
CREDENTIALS = {"client_id": "1_rid123", "client_secret": "sec456", "username": "admin", "password": "Maut1cR0cks!x9"}

_PLACEHOLDERS = (
    (re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00)?"), "<time>"),
    (re.compile(r"https?://127\.0\.0\.1:(?!9999)\d+"), "<server>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\bapi-[0-9a-z]{10}\b"), "<message>"),
    (re.compile(r"\bnew[0-9a-f]{40}\b"), "<new field>"),
    (re.compile(r"\b(?=[a-z]*[0-9])[0-9a-z]{22,26}\b"), "<hash>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<session>"),
    (re.compile(r"\b[A-Za-z0-9]{86}\b"), "<token>"),
    (re.compile(r"\bYTo[A-Za-z0-9+/]{60,}(=|%3D)*"), "<click through>"),
    (re.compile(r's:\d+:"(?=<)'), 's:_:"'),
)
_CARRIED = re.compile(r"\b(?=[a-z]*[0-9])[0-9a-z]{22,26}\b")
#: Recordings keep so many characters of a page.
_KEPT_TEXT = 300
_TIME = re.compile(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d")


@dataclass
class Step:
    file: str
    number: int
    name: str
    recorded: dict
    differences: list[str] = field(default_factory=list)


def load(file: str) -> list[Step]:
    lines = (RECORDINGS / file).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [Step(file, r["step"], r["name"], r) for r in found]


def plain(value):
    """The value with placeholders for what cannot be equal."""
    if isinstance(value, str):
        for pattern, mark in _PLACEHOLDERS:
            value = pattern.sub(mark, value)
        return value
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def differences(recorded, answered, path=""):
    """Where two values differ: types count, and so does int against float; the order of keys does not."""
    if type(recorded) is not type(answered):
        return [f"{path or '/'}: recorded {shown(recorded)}, answered {shown(answered)}"]
    if isinstance(recorded, dict):
        found = [f"{path}/{k}: missing, recorded {shown(recorded[k])}" for k in recorded if k not in answered]
        found += [f"{path}/{k}: not recorded, answered {shown(answered[k])}" for k in answered if k not in recorded]
        for key in recorded:
            if key in answered:
                found += differences(recorded[key], answered[key], f"{path}/{key}")
        return found
    if isinstance(recorded, list):
        found = []
        if len(recorded) != len(answered):
            found.append(f"{path}: recorded {len(recorded)} entries, answered {len(answered)}")
        for index, (one, other) in enumerate(zip(recorded, answered, strict=False)):
            found += differences(one, other, f"{path}/{index}")
        return found
    return [] if recorded == answered else [f"{path or '/'}: recorded {shown(recorded)}, answered {shown(answered)}"]


def shown(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 300 else f"{text[:300]}…"


class Replay:
    """One recording against one server."""

    def __init__(self, url: str, clock=None) -> None:
        self._url = url
        self._clock = clock
        self._sessions: dict[str, requests.Session] = {}
        self._carried: dict[str, str] = {}
        self._token: str | None = None

    def run(self, steps: list[Step], left_out) -> None:
        for step, moment in zip(steps, self._moments(steps), strict=True):
            if self._clock is not None:
                self._clock(moment)
            response = self._send(step.recorded)
            step.differences = self._compare(step, response, left_out)
        for session in self._sessions.values():
            session.close()

    def _moments(self, steps: list[Step]) -> list[datetime]:
        """When each request was sent: where no answer tells, evenly between those that do."""
        known = {0: self._first_time(steps)}
        for index, step in enumerate(steps):
            latest = max(known.values())
            moments = self._times(step, latest)
            if moments:
                known[index] = max(moments)
        anchors = sorted(known)
        found = []
        for index in range(len(steps)):
            before = max(a for a in anchors if a <= index)
            after = min((a for a in anchors if a > index), default=before)
            share = (index - before) / (after - before) if after > before else index - before
            whole = known[after] - known[before] if after > before else timedelta(milliseconds=1)
            found.append(known[before] + whole * share)
        return found

    @staticmethod
    def _times(step: Step, after: datetime) -> list[datetime]:
        """Times in the recorded answer that can be the moment of the request: soon after the step before."""
        if step.recorded["request"]["method"] == "GET":
            return []
        texts = _TIME.findall(json.dumps(step.recorded["response"]["json"]))
        moments = (datetime.fromisoformat(t.replace(" ", "T")).replace(tzinfo=UTC) for t in texts)
        return [m for m in moments if after < m < after + timedelta(minutes=2)]

    @staticmethod
    def _first_time(steps: list[Step]) -> datetime:
        for step in steps:
            if step.recorded["request"]["method"] == "POST":
                found = _TIME.search(json.dumps(step.recorded["response"]["json"]))
                if found:
                    return datetime.fromisoformat(found[0]).replace(tzinfo=UTC)
        raise AssertionError("the recording shows no time")

    def _carry(self, text):
        if not isinstance(text, str):
            return text
        if text.startswith("YTo"):
            inner = base64.b64decode(text).decode()
            return base64.b64encode(self._carry(inner).encode()).decode()
        return _CARRIED.sub(lambda m: self._carried.get(m[0], m[0]), text)

    def _send(self, recorded: dict) -> requests.Response:
        actor, request = recorded["actor"], recorded["request"]
        session = self._sessions.setdefault(actor, requests.Session())
        headers = {"User-Agent": BROWSER if actor not in {"api", "basic", "bearer"} else "recorder/1.0"}
        headers |= {k: self._carry(v) for k, v in (request["headers"] or {}).items()}
        if actor == "api":
            headers["Authorization"] = f"Bearer {self._bearer()}"
        if actor == "bearer":
            headers["Authorization"] = f"Bearer {recorded['auth']}"
        query = request["query"] or {}
        pairs = [(k, self._carry(v)) for k, v in (query.items() if isinstance(query, dict) else query)]
        options = {}
        if isinstance(request["form"], str):
            options["data"] = request["form"]
        elif request["json"] is not None:
            options["json"] = request["json"]
        elif request["form"]:
            options["data"] = {k: self._carry(v) for k, v in request["form"].items()}
        return session.request(
            request["method"],
            self._url + self._carry(request["path"]),
            params=pairs,
            headers=headers,
            auth=tuple(recorded["auth"]) if actor == "basic" else None,
            allow_redirects=False,
            timeout=30,
            **options,
        )

    def _bearer(self) -> str:
        if self._token is None:
            sent = {k: CREDENTIALS[k] for k in ("client_id", "client_secret")} | {"grant_type": "client_credentials"}
            response = requests.post(f"{self._url}/oauth/v2/token", data=sent, timeout=30)
            self._token = response.json()["access_token"]
        return self._token

    def _compare(self, step: Step, response: requests.Response, left_out) -> list[str]:
        wanted = step.recorded["response"]
        answered = {
            "status": response.status_code,
            "content_type": response.headers.get("Content-Type"),
            "json": self._json(response),
            "text": None,
            "location": response.headers.get("Location"),
            "cookies": {c.name: c.value for c in response.cookies},
        }
        if wanted["json"] is None and wanted["text"] is not None:
            answered["text"] = "<binary>" if wanted["text"] == "<binary>" else response.text
            answered["json"] = None
        self._learn(wanted, answered)
        compared, given = {k: wanted[k] for k in answered}, answered
        for path in left_out(step):
            compared, given = without(compared, path), without(given, path)
        compared, given = plain(compared), plain(given)
        cut = wanted["text"] is not None and len(wanted["text"]) == _KEPT_TEXT
        if cut and compared.get("text") and str(given["text"]).startswith(compared["text"]):
            given["text"] = compared["text"]
        return differences(compared, given)

    @staticmethod
    def _json(response):
        try:
            return response.json()
        except ValueError:
            return None

    def _learn(self, wanted, answered) -> None:
        """Which of our ids stands for which recorded one."""
        if isinstance(wanted, str) and isinstance(answered, str):
            for one, other in zip(_CARRIED.findall(wanted), _CARRIED.findall(answered), strict=False):
                self._carried[one] = other
        elif isinstance(wanted, dict) and isinstance(answered, dict):
            for key in wanted.keys() & answered.keys():
                self._learn(wanted[key], answered[key])
        elif isinstance(wanted, list) and isinstance(answered, list):
            for one, other in zip(wanted, answered, strict=False):
                self._learn(one, other)


def without(value, path):
    """The value without what a path such as `json/events/*/details` names."""
    head, _, rest = path.partition("/")
    if isinstance(value, list) and head == "*":
        return [without(v, rest) for v in value]
    if not isinstance(value, dict):
        return value
    if head == "*":
        return {k: without(v, rest) for k, v in value.items()}
    if not rest:
        return {k: v for k, v in value.items() if k != head}
    return {k: without(v, rest) if k == head else v for k, v in value.items()}
