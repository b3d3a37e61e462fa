"""How many requests Mautic is given at once: half as many when it grows slow or says so, one more at a time when calm.

`Load` is the rule, pure and by a given clock; `Gate` lets threads through by it, in the order in which they came.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

WARM_UP = 12  # answers of one sort before its latency is judged
RECENT = 5  # answers of one sort whose median is its latency of now
SLOWER = 2.0  # times the usual latency
LEAST_EXCESS = 0.1  # seconds; what is less is a hiccup of the network, whatever its ratio
DRIFT = 0.01  # part by which one answer moves the usual latency: it follows the median of some hundred answers
GROWS_EVERY = 15.0  # seconds without trouble until one more request may be in flight

Cause = Literal["slow", "refused", "calm"]
MOST_SORTS = 200  # that are remembered from run to run


@dataclass(frozen=True, slots=True)
class Change:
    """The number of requests that may be in flight went from `before` to `allowed`."""

    before: int
    allowed: int
    cause: Cause


@dataclass(slots=True)
class _Latency:
    """Seconds that one sort of call takes: usually, and just now."""

    usual: float | None = None
    recent: deque[float] = field(default_factory=deque)
    epoch: int = 0
    seen: bool = False


class Load:
    """How many requests may be in flight: between 1 and `most`, which it begins with.

    Every time is in seconds of one clock that never goes back. `began` is when a request was sent, `ended` when it was
    answered. What was sent before the last halving says nothing about the load after it.
    """

    def __init__(self, most: int) -> None:
        self.most = max(most, 1)
        self.allowed = self.most
        self.lowest = self.most
        self.lowered = 0
        self._sorts: dict[str, _Latency] = {}
        self._epoch = 0
        self._halved_at = float("-inf")
        self._troubled_at = float("-inf")
        self._paused_until = float("-inf")

    def remember(self, usual: Mapping[str, float]) -> None:
        """Begin with the usual latencies (sort → seconds) of an earlier run: most runs are too short to learn them."""
        for sort, seconds in usual.items():
            self._sorts.setdefault(sort, _Latency(seconds))

    def usual(self) -> dict[str, float]:
        """Sort of call → the seconds that it usually takes: what was called now, and of what was not the first few."""
        known = sorted(self._sorts.items(), key=lambda item: not item[1].seen)
        found = {sort: round(latency.usual, 4) for sort, latency in known if latency.usual is not None}
        return dict(list(found.items())[:MOST_SORTS])

    def pause(self, now: float) -> float:
        """Seconds for which Mautic asked to be left alone."""
        return max(0.0, self._paused_until - now)

    def answered(self, sort: str, began: float, ended: float) -> Change | None:
        """A good answer to a call of this sort: calls of one sort usually take about the same time."""
        if self._is_slow(sort, ended - began, began):
            self._troubled_at = ended
            return self._halve("slow", ended)
        if self.allowed < self.most and ended - self._troubled_at >= GROWS_EVERY:
            self._troubled_at = ended
            self.allowed += 1
            return Change(self.allowed - 1, self.allowed, "calm")
        return None

    def refused(self, began: float, ended: float, wait: float | None = None) -> Change | None:
        """Mautic had too much to do for this call, and asks to be left alone for `wait` seconds."""
        if wait is not None:
            self._paused_until = max(self._paused_until, ended + wait)
        self._troubled_at = max(ended, self._paused_until)
        return self._halve("refused", ended) if began >= self._halved_at else None

    def _halve(self, cause: Cause, now: float) -> Change | None:
        self._epoch += 1
        self._halved_at = now
        if self.allowed == 1:
            return None
        before, self.allowed = self.allowed, self.allowed // 2
        self.lowest = min(self.lowest, self.allowed)
        self.lowered += 1
        return Change(before, self.allowed, cause)

    def _is_slow(self, sort: str, seconds: float, began: float) -> bool:
        latency = self._sorts.setdefault(sort, _Latency())
        latency.seen = True
        if latency.usual is None:
            latency.recent.append(seconds)
            if len(latency.recent) == WARM_UP:
                latency.usual = statistics.median(latency.recent)
                latency.recent.clear()
            return False
        latency.usual *= 1 + DRIFT if seconds > latency.usual else 1 / (1 + DRIFT)
        if latency.epoch != self._epoch:
            latency.epoch = self._epoch
            latency.recent.clear()
        if began < self._halved_at:
            return False
        latency.recent.append(seconds)
        if len(latency.recent) < RECENT:
            return False
        if len(latency.recent) > RECENT:
            latency.recent.popleft()
        now = sorted(latency.recent)[RECENT // 2]
        return now > max(SLOWER * latency.usual, latency.usual + LEAST_EXCESS)


class Gate:
    """A context for each request: inside are never more threads than `load` allowed when the last of them came in.

    Whoever waits is let in before whoever comes later. When fewer are allowed than are inside, nobody is let in until
    enough have left.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self._guard = threading.Lock()
        self._inside = 0
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            # Whenever there is room, whoever waited has been let in already.
            if self._inside < self.load.allowed:
                self._inside += 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:
            # Ctrl-C while waiting: the place in the queue, or inside, goes to the next.
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._inside -= 1
                self._admit()
            raise

    def __exit__(self, *_exc: object) -> None:
        with self._guard:
            self._inside -= 1
            self._admit()

    def usual(self) -> dict[str, float]:
        with self._guard:
            return self.load.usual()

    def pause(self, now: float) -> float:
        with self._guard:
            return self.load.pause(now)

    def answered(self, sort: str, began: float, ended: float) -> Change | None:
        with self._guard:
            change = self.load.answered(sort, began, ended)
            self._admit()
            return change

    def refused(self, began: float, ended: float, wait: float | None) -> Change | None:
        with self._guard:
            return self.load.refused(began, ended, wait)

    def _admit(self) -> None:
        while self._waiting and self._inside < self.load.allowed:
            self._inside += 1
            self._waiting.popleft().release()


def sort_of(method: str, path: str, parameters: int, size: int) -> str:
    """What calls have in common that take about the same time: the path without ids, how much is asked and answered.

    `parameters` is their number, `size` the bytes of the answer, of which only the power of two counts.
    """
    named = [part for part in path.split("/") if not part.lstrip("-").isdigit()]
    return " ".join((method, *named, str(parameters), str(size.bit_length())))
