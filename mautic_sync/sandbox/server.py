"""The sandbox as a whole: one HTTP server with a simulated Mautic, a simulated ZeroBounce, and its own books."""

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self

import orjson

from .control import Control
from .cost import Meter, price
from .faults import Dice, Faults
from .http import Request, Response, Server
from .instance import Credentials, Instance
from .routes import Mautic, json_response
from .versions import traits_of
from .world import build_world
from .zerobounce import ZeroBounce

_COSTS = ("none", "measured")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_LATE = (0.3, 3.0)
#: Calls that read although they are POSTs.
_ONE_CONTACT = re.compile(r"^/api/(contacts/\d+(/|$)|notes/new$|\w+/\d+/contact/\d+/)")
_NO_WRITE = re.compile(r"^/(oauth|zerobounce|_sandbox)")


class Sandbox:
    """A Mautic and a ZeroBounce on 127.0.0.1, in background threads of this process; a context manager."""

    def __init__(
        self,
        *,
        port: int = 0,
        contacts: int = 200,
        seed: int = 1,
        empty: bool = False,
        version: str = "5.1",
        faults: Faults | None = None,
        cost: str = "none",
        credentials: Credentials | None = None,
        activities_per_contact: float | None = None,
    ) -> None:
        if cost not in _COSTS:
            raise ValueError(f"the cost is {' or '.join(_COSTS)}, not {cost!r}")
        self.instance = Instance(traits_of(version), credentials or Credentials(), seed=seed)
        self.mautic = Mautic(self.instance)
        self.zerobounce = ZeroBounce(self.instance)
        self._server = Server(self._handle, port)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.zerobounce_url = f"{self.url}/zerobounce"
        self.instance.base_url = self.url
        self.dice = Dice(faults or Faults())
        self._meter = Meter(cost == "measured")
        self.mautic.batch_step = self._batch_step
        self._calls: Counter[str] = Counter()
        self._hits: Counter[str] = Counter()
        self._writes = 0
        self._in_flight = self._peak = 0
        self._guard = threading.Lock()
        self._late: list[threading.Timer] = []
        self.html_next = 0
        self._control = Control(self)
        if not empty:
            build_world(self.mautic, contacts=contacts, seed=seed, activities_per_contact=activities_per_contact)
        if self.dice.faults.skew:
            self.instance.clock.advance(self.dice.faults.skew)

    # -- life

    def start(self) -> Self:
        self._server.start()
        return self

    def stop(self) -> None:
        for timer in self._late:
            timer.cancel()
        self._server.stop()

    def serve_forever(self) -> None:
        """Serves until interrupted."""
        self.start()
        with contextlib.suppress(KeyboardInterrupt):
            self._server.join()
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- time and books

    def advance(self, seconds: float) -> None:
        self.instance.clock.advance(seconds)

    def now(self) -> datetime:
        return self.instance.clock.now()

    def use_faults(self, faults: Faults) -> None:
        self.instance.clock.advance(faults.skew - self.dice.faults.skew)
        self.dice.use(faults)

    def stats(self) -> dict[str, Any]:
        """What was called, what was written, and the books, as `GET /_sandbox/stats` shows them."""
        with self._guard:
            calls, hits, writes = dict(sorted(self._calls.items())), dict(self._hits), self._writes
            peak = self._peak
        with self.instance.lock:
            return {
                "version": self.instance.traits.version, "now": self.now().isoformat(),
                "calls": calls, "total": sum(calls.values()), "writes": writes, "faults": hits, "peak": peak,
                **self._control.books(),
            }  # fmt: skip

    def reset_stats(self) -> None:
        with self._guard:
            self._calls.clear()
            self._hits.clear()
            self._writes = 0
            self._peak = self._in_flight

    def note_fault(self, kind: str) -> None:
        with self._guard:
            self._hits[kind] += 1

    # -- requests

    def _handle(self, request: Request) -> Response:
        if request.path.startswith("/_sandbox"):
            return self._control.answer(request)
        self._count(request)
        with (
            self._flying() if request.path.startswith("/api") else contextlib.nullcontext(),
            self._meter.workers if self._meter.measured else contextlib.nullcontext(),
        ):
            response = self._faulty(request)
        response.headers.append(("Date", format_datetime(self.now().astimezone(UTC), usegmt=True)))
        return response

    @contextlib.contextmanager
    def _flying(self) -> Iterator[None]:
        with self._guard:
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
        try:
            if self.dice.faults.slow:
                time.sleep(self.dice.faults.slow)
            yield
        finally:
            with self._guard:
                self._in_flight -= 1

    def _count(self, request: Request) -> None:
        writes = request.method not in _READS and not _NO_WRITE.match(request.path)
        with self._guard:
            self._calls[f"{request.method} {pattern_of(request.path)}"] += 1
            self._writes += writes

    def _faulty(self, request: Request) -> Response:
        """The request, with the fault that the dice hold for it."""
        fault = self.dice.draw(_allowed(request))
        if fault is not None:
            self.note_fault(fault)
        if self.html_next > 0 and request.path.startswith("/api"):
            self.html_next -= 1
            return Response(200, b"<!DOCTYPE html>\n<html><body><h1>Maintenance</h1></body></html>", "text/html")
        if fault == "before":
            return _dropped_or(self.dice.number(), 502, 503)
        if fault == "rate":
            reset = int((self.now() + timedelta(seconds=2)).timestamp())
            error = {"errors": [{"message": "Too many requests", "code": 429, "type": None}]}
            return json_response(error, 429, [("X-RateLimit-Reset", str(reset))])
        if fault == "busy":
            return Response(503, b"<html><body><h1>Busy</h1></body></html>", "text/html", [("Retry-After", "1")])
        if fault == "late":
            delay = _LATE[0] + self.dice.number() * (_LATE[1] - _LATE[0])
            timer = threading.Timer(delay, self._dispatch, (request,))
            timer.daemon = True
            timer.start()
            self._late.append(timer)
            return Response(drop=True)
        if fault == "broken":
            return self._broken(request)
        if fault in {"moving", "merge"}:
            self._control.disturb(fault)
        response = self._dispatch(request)
        if fault == "after":
            return _dropped_or(self.dice.number(), 504, 504)
        if fault == "truncate":
            response.cut_after = len(response.body) // 2
        if fault == "echo":
            response.body = _wrong_echo(response.body)
        return response

    def _broken(self, request: Request) -> Response:
        """What Mautic says when its connection to the database breaks: docs/mautic.md, "Shapes that surprise"."""
        drawn = self.dice.number()
        if drawn < 1 / 3:
            return _error(404, "Item was not found.")
        if request.method != "GET" and drawn < 2 / 3:
            self._dispatch(request)
        if "/points/plus/" in request.path:
            return _error(400, "SQLSTATE[HY000]: General error: 2006 MySQL server has gone away")
        return _error(500, "Looks like I encountered an error (error #500).")

    def _dispatch(self, request: Request) -> Response:
        if request.path.startswith("/zerobounce"):
            response = self.zerobounce.answer(request)
        else:
            response = self.mautic.answer(request)
            response.body = self._control.malformed(request, response.body)
        if self._meter.measured:
            rows = _rows(request.path, response.body)
            auth = request.headers.get("authorization", "")
            newer = self.instance.traits.modified_frozen
            self._meter.spend(price(request.method, request.path, request.query, auth, rows, newer=newer))
        return response

    @contextlib.contextmanager
    def _batch_step(self) -> Iterator[None]:
        with self.instance.lock:
            yield
        self._meter.item()


@dataclass(frozen=True)
class Options:
    """What the command `mautic-sync sandbox` takes."""

    port: int = 8000
    contacts: int = 200
    seed: int = 1
    faults: Faults | None = None
    mautic_version: str = "5.1"
    empty: bool = False
    cost: str = "none"
    credentials: Credentials | None = None


def make_sandbox(options: Options) -> Sandbox:
    return Sandbox(
        port=options.port,
        contacts=options.contacts,
        seed=options.seed,
        empty=options.empty,
        version=options.mautic_version,
        faults=options.faults,
        cost=options.cost,
        credentials=options.credentials,
    )


def serve(options: Options) -> None:
    """Serves a sandbox until interrupted."""
    make_sandbox(options).serve_forever()


def read_credentials(path: str | Path) -> Credentials:
    """A JSON file with client_id, client_secret, client_name, username, password, zerobounce_key; all optional."""
    try:
        found = orjson.loads(Path(path).read_bytes())
    except orjson.JSONDecodeError as broken:
        raise ValueError(f"{path} is not JSON: {broken}") from None
    names = {f.name for f in fields(Credentials)}
    if not isinstance(found, Mapping) or not all(isinstance(v, str) for v in found.values()):
        raise ValueError(f"{path} must hold an object of texts, with {', '.join(sorted(names))}")
    unknown = sorted(set(found) - names)
    if unknown:
        raise ValueError(f"{path} names {unknown[0]!r}; known are {', '.join(sorted(names))}")
    return Credentials(**found)


def pattern_of(path: str) -> str:
    """A path with its ids replaced, for counting."""
    path = re.sub(r"/points/(plus|minus|times|divide)/[^/]+", r"/points/\1/{n}", path.rstrip("/") or "/")
    path = re.sub(r"/(email|r|email/unsubscribe|emails/reply)/[0-9a-f]{16,}", r"/\1/{id}", path)
    return re.sub(r"/\d+(?=/|$|:)", "/{id}", path)


def _allowed(request: Request) -> frozenset[str]:
    kinds = {"before", "rate", "busy"}
    if request.path.startswith("/zerobounce"):
        return frozenset({"before", "after", "late", "truncate"})
    if request.path.startswith("/oauth"):
        return frozenset({"before"})
    if not request.path.startswith("/api"):
        return frozenset({"before", "after", "late"})
    if _ONE_CONTACT.search(request.path):
        kinds |= {"broken"}
    if request.method == "GET":
        return frozenset(kinds | {"truncate", "after", "moving", "merge"})
    if "/batch/edit" in request.path:
        kinds |= {"echo"}
    return frozenset(kinds | {"after", "late", "merge"})


def _error(status: int, message: str) -> Response:
    return json_response({"errors": [{"message": message, "code": status, "type": None}]}, status)


def _dropped_or(drawn: float, first: int, second: int) -> Response:
    if drawn < 1 / 3:
        return Response(drop=True)
    status = first if drawn < 2 / 3 else second
    return Response(status, b"<html><body><h1>Bad gateway</h1></body></html>", "text/html")


def _wrong_echo(body: bytes) -> bytes:
    """A batch answer whose first contact has another id and an old stage."""
    try:
        answer = orjson.loads(body)
        contacts = answer["contacts"]
        first = contacts[0] if isinstance(contacts, list) else next(iter(contacts.values()))
        first["id"] += 1
        first["stage"] = None
    except (orjson.JSONDecodeError, LookupError, TypeError, StopIteration):
        return body
    return orjson.dumps(answer)


def _rows(path: str, body: bytes) -> int:
    if path == "/api/contacts":
        return body.count(b'"isPublished":true,"dateAdded"')
    if path.startswith("/api/stats/"):
        return body.count(b"},{") + 1 if b'"stats":[{' in body else 0
    return body.count(b'"eventId"')
