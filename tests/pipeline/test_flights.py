"""Writes in flight: how many there are, and that a stop at any step leaves none that is stored as sent and was not."""

from __future__ import annotations

import threading
import time

import pytest

from mautic_sync import stopping
from mautic_sync.errors import MauticSyncError, Terminated
from mautic_sync.pipeline.flights import keep_in_flight


class Writes:
    """Ten batches; `stop_in` names the step in which a stop is asked for, at the third batch."""

    def __init__(self, stop_in: str = "") -> None:
        self.left = list(range(10))
        self.stop_in = stop_in
        self.intended: list[int] = []
        self.sent: list[int] = []
        self.landed: list[int] = []
        self.flying = self.peak = 0
        self.guard = threading.Lock()

    def _step(self, name: str, number: int) -> None:
        if name == self.stop_in and number == 2:
            stopping.ask(Terminated())

    def intend(self) -> list[int] | None:
        if not self.left:
            return None
        number = self.left.pop(0)
        self.intended.append(number)
        self._step("intend", number)
        return [number]

    def send(self, rows: list[int]) -> int:
        with self.guard:
            self.flying += 1
            self.peak = max(self.peak, self.flying)
        time.sleep(0.002)
        with self.guard:
            self.flying -= 1
            self.sent += rows
        return rows[0]

    def land(self, rows, future) -> None:
        self._step("land", rows[0])
        assert future.result() == rows[0]
        self.landed += rows

    def go(self, most: int = 2) -> None:
        keep_in_flight(most, time.monotonic() + 60, intend=self.intend, send=self.send, land=self.land)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_all_are_sent_and_landed_and_no_more_at_once_than_asked_for(most):
    writes = Writes()
    writes.go(most)
    assert sorted(writes.landed) == list(range(10))
    assert writes.peak <= most


@pytest.mark.parametrize("step", ["intend", "land"])
def test_a_stop_in_the_middle_of_a_step_comes_when_the_step_is_done(step):
    writes = Writes(step)
    with pytest.raises(Terminated):
        writes.go()
    assert sorted(writes.intended) == sorted(writes.sent) == sorted(writes.landed)
    assert writes.left


def test_a_stop_is_raised_at_once_where_nothing_holds_it_back():
    with pytest.raises(KeyboardInterrupt):
        stopping.ask(KeyboardInterrupt())


def test_the_outermost_block_lets_a_stop_go_and_it_does_not_come_twice():
    steps = []

    def stopped_within() -> None:
        with stopping.held():
            with stopping.held():
                stopping.ask(Terminated())
                steps.append("inner")
            steps.append("outer")

    with pytest.raises(Terminated):
        stopped_within()
    assert steps == ["inner", "outer"]
    with stopping.held():
        pass


def test_a_stop_wins_over_an_error_in_the_block():
    def fails() -> None:
        with stopping.held():
            stopping.ask(Terminated())
            raise MauticSyncError("beside it")

    with pytest.raises(Terminated) as stopped:
        fails()
    assert isinstance(stopped.value.__context__, MauticSyncError)
