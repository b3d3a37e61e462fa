"""What each call costs a real server, as measured (docs/mautic.md: "Speed: what the server costs")."""

import threading
import time
from dataclasses import dataclass, field

_WORKERS = 4
_CORES = 2
_BASIC, _BASIC_7, _BEARER, _BASE = 0.5, 0.85, 0.03, 0.025
_PLAIN_ROW, _MINIMAL_ROW, _SELECT_ROW, _SHORT_ROW = 0.0022, 0.0015, 0.0011, 0.0002
_OFFSET_ROW = 7e-6
_FEED_ROW = 4.6e-5
_ACTIVITY_ROW = 0.004
_BATCH_ITEM = 0.035
_SMALL_WRITE = 0.05
_FORM = 0.11
_HIT = 0.05


@dataclass
class Meter:
    """Makes calls take their time: so many PHP workers, two of them computing at a time."""

    measured: bool
    workers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_WORKERS))
    cores: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_CORES))

    def spend(self, seconds: float) -> None:
        if self.measured and seconds > 0:
            with self.cores:
                time.sleep(seconds)

    def item(self) -> None:
        """One contact of a batch."""
        self.spend(_BATCH_ITEM)


def price(method: str, path: str, query: dict[str, object], auth: str, rows: int, *, newer: bool) -> float:
    """Seconds for a call; batch items are paid one by one."""
    if path.startswith(("/zerobounce", "/oauth")):
        return _BEARER
    if path == "/form/submit":
        return _FORM
    if not path.startswith("/api"):
        return _HIT
    login = (_BASIC_7 if newer else _BASIC) if auth.lower().startswith("basic") else _BEARER
    spent = login + _BASE
    if path == "/api/contacts":
        minimal, select = bool(query.get("minimal")), bool(query.get("select"))
        row = _SHORT_ROW if minimal and select else _SELECT_ROW if select else _MINIMAL_ROW if minimal else _PLAIN_ROW
        start = str(query.get("start") or 0)
        return spent + row * rows + _OFFSET_ROW * (int(start) if start.isdigit() else 0)
    if path.startswith("/api/stats"):
        return spent + _FEED_ROW * rows
    if path.endswith("/activity"):
        return spent + _ACTIVITY_ROW * rows
    if "/batch/" in path:
        return spent
    return spent if method == "GET" else spent + _SMALL_WRITE
