"""A transport whose time stands still until a test moves it, and the recorded answers of real Mautics."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from hypothesis import settings

from mautic_sync.mautic.transport import Transport

# How long an example takes says more about what else the machine is doing.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

RECORDINGS = Path(__file__).parents[1] / "recordings"
BASE = "https://mautic.example"


class FakeTime:
    """A clock that only sleeping moves; `slept` lists the naps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def http() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def connect(fake_time: FakeTime) -> Iterator[Callable[..., Transport]]:
    """Makes transports (Basic, unless told otherwise) and closes them."""
    made: list[Transport] = []

    def make(base_url: str = BASE, **options: Any) -> Transport:
        if "client_id" not in options:
            options = {"username": "admin", "password": "pass-word", **options}
        transport = Transport(
            base_url, sleep=fake_time.sleep, clock=fake_time.clock, monotonic=fake_time.clock, **options
        )
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def transport(connect: Callable[..., Transport]) -> Transport:
    return connect()


@functools.cache
def _recorded(name: str) -> list[dict[str, Any]]:
    lines = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


NAMES = ("mautic-5.1.0", "mautic-5.1.0-more", "mautic-7.0.0", "mautic-7.0.0-more")


@pytest.fixture(params=NAMES)
def recording(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Every exchange of one recording."""
    return _recorded(request.param)


@pytest.fixture(params=["5.1.0", "7.0.0"])
def step(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """The recorded JSON answer to the step of this name, for either version."""
    exchanges = {
        exchange["name"]: exchange["response"]
        for name in (f"mautic-{request.param}-more", f"mautic-{request.param}")
        for exchange in _recorded(name)
    }

    def answer(name: str) -> Any:
        return json.loads(json.dumps(exchanges[name]["json"]))

    answer.version = request.param  # type: ignore[attr-defined]
    return answer
