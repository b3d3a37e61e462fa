from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings, strategies as st

from mautic_sync.errors import StopError
from mautic_sync.mautic.windows import _Pace, in_windows


def fetcher(ids, limit, asked=None):
    def fetch(low, high):
        if asked is not None:
            asked.append((low, high))
        return [number for number in ids if low < number <= high][:limit]

    return fetch


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.integers(1, 5_000), max_size=300).map(sorted),
    st.integers(1, 50),
    st.integers(1, 4),
    st.floats(0, 1),
    st.integers(0, 5_000),
)
def test_every_id_comes_once_and_in_order(ids, limit, concurrency, density, after):
    """Whatever the gaps and whatever density was guessed; windows join without a gap."""
    pages = list(in_windows(fetcher(ids, limit), after, 5_000, limit, concurrency, density, lambda number: number))
    assert [number for _, _, rows in pages for number in rows] == [number for number in ids if number > after]
    assert [low for low, _, _ in pages[1:]] == [high for _, high, _ in pages[:-1]]
    if after < 5_000:
        assert (pages[0][0], pages[-1][1]) == (after, 5_000)


def test_a_dense_list_takes_one_call_a_page():
    asked = []
    list(in_windows(fetcher(range(1, 1001), 50, asked), 0, 1000, 50, 2, 1.0, lambda number: number))
    assert len(asked) == 20


def test_a_desert_is_crossed_in_few_calls():
    asked = []
    ids = [*range(1, 101), *range(10_000_000, 10_000_100)]
    list(in_windows(fetcher(ids, 50, asked), 0, 10_000_100, 50, 2, 1.0, lambda number: number))
    assert len(asked) < 40


def test_no_more_requests_are_in_flight_than_allowed():
    running = threading.Semaphore(3)

    def fetch(low, high):
        assert running.acquire(blocking=False)
        try:
            return list(range(low + 1, high + 1))
        finally:
            running.release()

    pages = list(in_windows(fetch, 0, 1000, 10, 3, 1.0, lambda number: number))
    assert len(pages) == 100


def test_reading_is_no_further_ahead_than_the_requests_in_flight():
    asked = []
    pages = in_windows(fetcher(range(1, 1001), 10, asked), 0, 1000, 10, 2, 1.0, lambda number: number)
    next(pages)
    assert len(asked) <= 3
    pages.close()


def test_a_failing_request_ends_the_reading():
    def fetch(low, high):
        raise StopError("no")

    with pytest.raises(StopError):
        list(in_windows(fetch, 0, 100, 10, 2, 1.0, lambda number: number))


def test_a_full_page_without_ids_does_not_pass_for_the_end():
    with pytest.raises(StopError, match="no ids"):
        list(in_windows(lambda low, high: [0] * 10, 0, 100, 10, 1, 0.1, lambda number: number))


def test_a_server_that_becomes_slow_is_asked_for_fewer_at_once():
    """Answers that take more than twice as long as the best ones; quick ones bring the second request back."""
    pace = _Pace(2)
    for seconds in (1.0, 1.1, 2.5, 2.5):
        pace.note(seconds, 500)
        assert pace.allowed == 2
    pace.note(2.5, 500)
    assert pace.allowed == 1
    for _ in range(9):
        pace.note(3.0, 500)
    assert pace.allowed == 1
    pace.note(1.2, 500)
    assert pace.allowed == 2


def test_short_answers_say_nothing_about_how_busy_a_server_is():
    pace = _Pace(2)
    for seconds in (0.001, *[0.2] * 10):
        pace.note(seconds, 500)
    assert pace.allowed == 2
