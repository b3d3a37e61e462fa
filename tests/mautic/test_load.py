"""How many requests are in flight: the rule for itself, its gate among threads, and both over real HTTP."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, strategies as st

from mautic_sync.errors import MauticSyncError, RetryError
from mautic_sync.mautic.load import GROWS_EVERY, MOST_SORTS, RECENT, WARM_UP, Change, Gate, Load, sort_of
from mautic_sync.mautic.transport import Transport
from mautic_sync.sandbox import Faults, Sandbox

PAGE, WRITE = "GET contacts", "PATCH contacts"
CAP = 4


class Calls:
    """Calls one after the other, by a clock that moves with them."""

    def __init__(self, load: Load) -> None:
        self.load, self.now = load, 1000.0

    def answered(self, seconds: float, times: int = 1, sort=PAGE) -> list[Change]:
        found = []
        for _ in range(times):
            began, self.now = self.now, self.now + seconds
            found.append(self.load.answered(sort, began, self.now))
        return [change for change in found if change is not None]

    def refused(self, seconds: float = 0.1, wait: float | None = None) -> Change | None:
        began, self.now = self.now, self.now + seconds
        return self.load.refused(began, self.now, wait)


# -- the rule -------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["answered", "refused"]),
        st.floats(0.0, 100.0),  # until it is sent
        st.floats(0.0, 70.0),  # until it is answered
        st.sampled_from([PAGE, WRITE]),
        st.none() | st.floats(0.0, 120.0),
    ),
    max_size=200,
)


@given(st.integers(1, 8), EVENTS)
def test_whatever_happens_the_number_stays_within_its_bounds_and_moves_by_half_or_by_one(most, events):
    load, now, last_change = Load(most), 0.0, float("-inf")
    for what, idle, seconds, sort, wait in events:
        before, began = load.allowed, now + idle
        now = began + seconds
        change = load.answered(sort, began, now) if what == "answered" else load.refused(began, now, wait)
        assert 1 <= load.lowest <= load.allowed <= most
        if change is None:
            assert load.allowed == before
            continue
        assert (change.before, change.allowed) == (before, load.allowed)
        if change.cause == "calm":
            assert load.allowed == before + 1
            assert now - last_change >= GROWS_EVERY
        else:
            assert load.allowed == before // 2
        last_change = now


@given(st.integers(2, 8), st.lists(st.floats(0.02, 0.035), min_size=100, max_size=100))
def test_latency_that_only_trembles_changes_nothing(most, seconds):
    load, now = Load(most), 0.0
    for one in seconds:
        assert load.answered(PAGE, now, now := now + one) is None


def test_it_halves_when_latency_has_doubled_and_not_at_one_slow_answer():
    load = Load(8)
    calls = Calls(load)
    assert calls.answered(0.3, 50) == []
    assert calls.answered(3.0) == []
    assert calls.answered(0.3, 20) == []
    assert calls.answered(0.9, RECENT) == [Change(8, 4, "slow")]


def test_each_sort_of_call_is_held_against_its_own_kind():
    """A page takes twenty times as long as a write, and neither makes the other slow."""
    load = Load(4)
    calls = Calls(load)
    for _ in range(60):
        assert calls.answered(1.0, 1, PAGE) == []
        assert calls.answered(0.05, 1, WRITE) == []
    calls.answered(0.05, 1, PAGE)
    assert calls.answered(0.2, RECENT, WRITE) == [Change(4, 2, "slow")]


def test_a_latency_that_stays_becomes_the_usual_one():
    load = Load(2)
    calls = Calls(load)
    calls.answered(0.5, WARM_UP + RECENT)
    assert calls.answered(1.4, 20)[0] == Change(2, 1, "slow")
    assert calls.answered(1.4, 100)[-1] == Change(1, 2, "calm")


def test_it_grows_back_by_one_at_a_time_up_to_the_cap():
    load = Load(8)
    calls = Calls(load)
    calls.refused()
    calls.refused()
    assert load.allowed == 2
    changes = calls.answered(1.0, int(GROWS_EVERY) * 8)
    assert [(change.before, change.allowed) for change in changes] == [(n, n + 1) for n in range(2, 8)]
    assert (load.allowed, load.lowest, load.lowered) == (8, 2, 2)


def test_one_refusal_halves_once_however_many_were_in_flight():
    load = Load(8)
    assert load.refused(10.0, 11.0) == Change(8, 4, "refused")
    assert [load.refused(10.5, 11.0 + n) for n in range(7)] == [None] * 7
    assert load.refused(20.0, 21.0) == Change(4, 2, "refused")


def test_answers_to_what_was_sent_before_a_halving_do_not_halve_again():
    load = Load(8)
    calls = Calls(load)
    calls.answered(0.1, WARM_UP + RECENT)
    calls.refused()
    assert load.allowed == 4
    began = calls.now - 10
    assert [load.answered(PAGE, began, calls.now + n / 10) for n in range(4 * RECENT)] == [None] * 4 * RECENT


def test_it_is_left_alone_for_as_long_as_it_asks_and_grows_only_after():
    load = Load(2)
    load.refused(0.0, 1.0, 30.0)
    assert (load.pause(1.0), load.pause(21.0), load.pause(31.0)) == (30.0, 10.0, 0.0)
    load.refused(0.0, 2.0, 5.0)
    assert load.pause(21.0) == 10.0
    assert load.answered(PAGE, 31.0, 31.0 + GROWS_EVERY - 1) is None
    assert load.answered(PAGE, 31.0, 31.0 + GROWS_EVERY) == Change(1, 2, "calm")


def test_a_run_begins_with_what_earlier_ones_learnt():
    """Most runs make too few calls of a sort to learn how long they usually take."""
    first = Load(4)
    Calls(first).answered(0.25, WARM_UP)
    Calls(first).answered(3.0, 2, WRITE)
    assert first.usual() == {PAGE: 0.25}
    second = Load(4)
    second.remember(first.usual())
    assert Calls(second).answered(0.9, RECENT) == [Change(4, 2, "slow")]


def test_what_is_remembered_does_not_grow_without_end_and_forgets_what_is_not_called():
    load = Load(4)
    load.remember({f"GET old {number}": 0.1 for number in range(MOST_SORTS)})
    Calls(load).answered(0.25, WARM_UP)
    assert len(load.usual()) == MOST_SORTS
    assert load.usual()[PAGE] == 0.25


def test_calls_are_sorted_by_what_they_ask_and_how_much_comes_back():
    one = sort_of("GET", "https://x.example/api/contacts/17", 0, 9_000)
    assert one == sort_of("GET", "https://x.example/api/contacts/18000", 0, 8_500)
    assert one != sort_of("GET", "https://x.example/api/contacts/17", 0, 90_000)
    assert one != sort_of("PATCH", "https://x.example/api/contacts/17", 0, 9_000)
    points = "https://x.example/api/contacts/3/points/plus/{}"
    assert sort_of("POST", points.format(4), 0, 20) == sort_of("POST", points.format(-11), 0, 20)


# -- the gate among threads -----------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.sampled_from(["refused", "calm", "pass"]), min_size=1, max_size=60))
def test_everybody_gets_through_and_never_more_at_once_than_allowed(most, events):
    """Whoever enters sees no more inside than are allowed, though permits go while they are held."""
    gate, guard = Gate(Load(most)), threading.Lock()
    inside, too_many, clock = 0, [], [0.0]

    def pass_through(what: str) -> None:
        nonlocal inside
        with gate:
            with guard:
                inside += 1
                too_many.extend([inside] if inside > most else [])
                clock[0] += GROWS_EVERY
                now = clock[0]
            if what == "refused":
                gate.refused(now, now, None)
            elif what == "calm":
                gate.answered(PAGE, now, now)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=pass_through, args=(what,), daemon=True) for what in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [thread for thread in threads if thread.is_alive()] == []
    assert too_many == []


def test_whoever_waits_longer_is_let_in_first_and_nobody_until_enough_have_left():
    gate, order = Gate(Load(2)), []

    def pass_through(name: int) -> None:
        with gate:
            order.append(name)

    gate.__enter__()
    gate.__enter__()
    waiting = []
    for name in range(5):
        thread = threading.Thread(target=pass_through, args=(name,), daemon=True)
        thread.start()
        waiting.append(thread)
        deadline = time.monotonic() + 10
        while len(gate._waiting) <= name:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    gate.refused(0.0, 1.0, None)
    gate.__exit__()
    assert order == []  # two were inside, one is allowed, one is still inside
    gate.__exit__()
    for thread in waiting:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


def test_who_is_interrupted_while_waiting_takes_no_place_along(monkeypatch):
    gate = Gate(Load(1))
    real = threading.Lock

    class Interrupted:
        """The turn of a thread that Ctrl-C meets while it waits."""

        def __init__(self) -> None:
            self.taken = 0

        def acquire(self) -> None:
            self.taken += 1
            if self.taken == 2:
                raise KeyboardInterrupt

        def release(self) -> None:
            raise AssertionError("nobody waits there any more")

    with gate:
        monkeypatch.setattr("mautic_sync.mautic.load.threading.Lock", Interrupted)
        with pytest.raises(KeyboardInterrupt), gate:
            pass
        monkeypatch.setattr("mautic_sync.mautic.load.threading.Lock", real)
    with gate:
        pass


# -- over real HTTP -------------------------------------------------------------------------------------------------


class Scene:
    """A sandbox and a transport of it, whose clock a test can move on."""

    def __init__(self, box: Sandbox) -> None:
        self.box, self.ahead = box, 0.0
        self.told: list[dict] = []
        self.transport = Transport(
            box.url,
            client_id="sandbox",
            client_secret="sandbox-secret",
            concurrency=CAP,
            monotonic=lambda: time.monotonic() + self.ahead,
            tell=lambda event, **facts: self.told.append({"event": event, **facts}),
        )

    def call(self, times: int) -> int:
        """So many reads and as many writes by more threads than may call; the most that the sandbox saw at once."""
        self.box.reset_stats()

        def read(_: int) -> None:
            self.transport.read("contacts", {"limit": 5, "orderBy": "id"})

        def write(number: int) -> None:
            self.transport.write("PATCH", "contacts/1/edit", {"firstname": f"F{number}"})

        with ThreadPoolExecutor(4 * CAP) as pool:
            for _ in pool.map(lambda n: (read, write)[n % 2](n), range(2 * times)):
                pass
        return int(self.box.stats()["peak"])


@pytest.fixture
def scene():
    with Sandbox(contacts=10) as box:
        made = Scene(box)
        with made.transport:
            yield made


def test_the_sandbox_sees_half_as_many_at_once_when_it_grows_slow_and_one_more_when_it_is_calm(scene):
    assert scene.call(WARM_UP + 2 * RECENT) <= CAP
    scene.box.use_faults(Faults(slow=0.3))
    assert scene.call(2 * RECENT) <= CAP
    lowered = scene.transport.load.allowed
    assert lowered < CAP
    assert scene.told[0] == {"event": "load", "allowed": CAP // 2, "before": CAP, "most": CAP, "cause": "slow"}
    assert scene.call(2) <= lowered
    scene.box.use_faults(Faults())
    scene.call(3 * RECENT)
    scene.ahead += GROWS_EVERY + 1
    lowered = scene.transport.load.allowed
    scene.call(1)
    assert scene.transport.load.allowed == lowered + 1
    assert scene.told[-1]["cause"] == "calm"
    scene.box.use_faults(Faults(slow=0.05))
    assert scene.call(4) == lowered + 1


@pytest.mark.parametrize("fault", ["rate", "busy"])
def test_a_refusal_halves_and_the_server_is_left_alone_for_as_long_as_it_asks(scene, fault):
    naps: list[float] = []
    scene.transport._sleep = lambda seconds: (naps.append(seconds), setattr(scene, "ahead", scene.ahead + seconds))
    scene.call(2)
    scene.box.use_faults(Faults(seed=3, **{fault: 1.0}))
    with pytest.raises(RetryError):
        scene.transport.read("contacts", {"limit": 5})
    assert scene.transport.load.allowed == 1
    assert scene.told[-1]["cause"] == "refused"
    assert max(naps) >= 1
    scene.box.use_faults(Faults())
    assert scene.call(3) == 1


def test_everybody_else_leaves_the_server_alone_too(scene):
    """One thread is told to wait, sleeps, and another one wants to call meanwhile."""
    naps: list[float] = []
    other_may_call, told = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        if threading.current_thread() is first:
            scene.box.use_faults(Faults())
            told.set()
            assert other_may_call.wait(10)
        else:
            naps.append(seconds)

    scene.call(1)
    scene.transport._sleep = sleep
    scene.box.use_faults(Faults(busy=1.0))
    first = threading.Thread(target=lambda: scene.transport.read("contacts", {"limit": 5}), daemon=True)
    first.start()
    assert told.wait(10)
    scene.transport.read("contacts", {"limit": 5})
    other_may_call.set()
    first.join(10)
    assert len(naps) == 1
    assert 0 < naps[0] <= 1  # what the sandbox asks for


def test_a_call_that_is_not_answered_in_time_is_a_refusal(scene):
    scene.transport._timeout = (5, 0.1)
    scene.call(1)
    scene.box.use_faults(Faults(slow=0.5))
    with pytest.raises(MauticSyncError):
        scene.transport.write("PATCH", "contacts/1/edit", {"firstname": "Late"})
    assert scene.told[-1] == {"event": "load", "allowed": 2, "before": 4, "most": 4, "cause": "refused"}
