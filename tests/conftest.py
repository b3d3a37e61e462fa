"""A worker beside a sandbox: real HTTP, a real store, runs at any time of day."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests

from mautic_sync.mappings import Mappings, load_mappings
from mautic_sync.mautic.contacts import contacts_by_id
from mautic_sync.pipeline.provision import provision
from mautic_sync.pipeline.run import Options, opened_run, plan_only, plan_totals, summary, sync
from mautic_sync.sandbox import Sandbox
from mautic_sync.settings import Settings
from mautic_sync.store import changes
from mautic_sync.store.engine import open_engine
from mautic_sync.store.schema import change

DAY = 86400
LONG = int(os.environ.get("KILLS", "20")) > 20
"""`make reliability`: random tests go on for longer."""

# What was imported stays: to look for garbage in it again and again took a sixth of the time of the tests.
gc.freeze()
gc.set_threshold(20_000, 20, 20)

# The tests start some hundred commands: they are compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")


SLOWEST_FIRST = ("reliability", "pipeline", "cli", "store")
"""Directories whose files take minutes: begun last, one of them would be waited for alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))


@cache
def packaged_rules() -> Mappings:
    return load_mappings(None)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings of the machine that it runs on."""
    for name in list(os.environ):
        if name.startswith("MAUTIC_SYNC_") and not name.startswith("MAUTIC_SYNC_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class Worker:
    """mautic-sync beside one sandbox, with a store of its own."""

    def __init__(self, box: Sandbox, directory: Path, *, mappings: Path | None = None, **sections: Any) -> None:
        self.box = box
        self.directory = directory
        self.mappings_dir = mappings
        self.settings = self._settings(sections)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.skew = 0

    def _settings(self, sections: dict[str, Any]) -> Settings:
        given: dict[str, Any] = {
            "mautic": {
                "base_url": self.box.url,
                "client_id": "sandbox",
                "client_secret": "sandbox-secret",
                "timeout": 5,
            },
            "zerobounce": {"api_key": "sandbox-key", "base_url": self.box.zerobounce_url, "max_per_second": 50},
            "store": {"url": f"sqlite:///{self.directory / 'store.db'}"},
        }
        for name, values in sections.items():
            given[name] = {**given.get(name, {}), **values} if isinstance(values, dict) else values
        return Settings(**given)

    def but(self, **sections: Any) -> Worker:
        """The same store with other settings."""
        return Worker(self.box, self.directory, mappings=self.mappings_dir, **sections)

    @contextmanager
    def run(self, command: str = "sync", **options: Any) -> Iterator[Any]:
        engine = open_engine(self.settings.store.url)
        try:
            with opened_run(
                self.settings,
                load_mappings(self.mappings_dir) if self.mappings_dir else packaged_rules(),
                engine,
                command=command,
                now=int(time.time()) + self.skew,
                tell=lambda event, **facts: self.told.append((event, facts)),
                **options,
            ) as run:
                yield run
        finally:
            engine.dispose()

    def patience(self, seconds: int) -> None:
        """As if so much time had passed since doubtful writes were sent."""
        with self.run("look") as run, run.engine.begin() as connection:
            connection.execute(change.update().values(sent_at=change.c.sent_at - seconds))

    def init(self) -> None:
        with self.run("init") as run:
            provision(run)

    def sync(self, **options: Any) -> dict[str, Any]:
        with self.run(with_actions=options.get("with_actions", False)) as run:
            sync(run, Options(**options))
            return summary(run)

    def plan(self) -> dict[str, Any]:
        with self.run("plan") as run:
            plan_id = plan_only(run, Options())
            with run.engine.begin() as connection:
                listed = changes.listed(connection, [changes.PLANNED])
            return {"plan_id": plan_id, **plan_totals(run), "listed": listed}

    def contact(self, number: int) -> Any:
        """The contact as Mautic shows it now, with the name of its stage as `stage`."""
        return self.contacts([number])[number]

    def contacts(self, numbers: list[int]) -> dict[int, Any]:
        with self.run("look") as run:
            return {one.id: one for one in contacts_by_id(run.mautic, numbers).contacts}

    def stage(self, number: int) -> str | None:
        """The name of the stage that Mautic shows."""
        found = self.contact(number).stage_id
        return None if found is None else self.box.instance.stages[found].name

    def act(self, do: str, **what: Any) -> dict[str, Any]:
        """Make something happen in Mautic that is not ours."""
        return self.post("/_sandbox/act", {"do": do, **what})

    def post(self, path: str, body: Any) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(self.box.url + path, json=body, timeout=10)
            assert answer.ok, answer.text
            found: dict[str, Any] = answer.json()
            return found

    def new(self, **values: Any) -> int:
        """A new contact, made by the admin user."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(
                f"{self.box.url}/api/contacts/new", json=values, timeout=10, auth=("admin", "sandbox")
            )
            assert answer.ok, answer.text
            number: int = answer.json()["contact"]["id"]
            return number

    def visitor(self, url: str = "https://shop.example/") -> int:
        """A new anonymous contact that loaded a page."""
        number: int = self.act("visit", url=url)["contact"]
        return number


@pytest.fixture(params=["5.1", "7.0"])
def mautic_version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as the first command leaves it: to make one takes longer than many a test."""
    path = tmp_path_factory.mktemp("empty") / "store.db"
    open_engine(f"sqlite:///{path}").dispose()
    return path


@pytest.fixture
def make_worker(tmp_path: Path, empty_store: Path) -> Iterator[Callable[..., Worker]]:
    """`make_worker(version=…, contacts=…, push={…})`: a sandbox (empty unless `contacts`) and a worker beside it."""
    boxes: list[Sandbox] = []

    def make(
        *, version: str = "5.1", contacts: int = 0, seed: int = 1, mappings: Path | None = None, **sections: Any
    ) -> Worker:
        box = Sandbox(contacts=contacts, seed=seed, empty=contacts == 0, version=version).start()
        boxes.append(box)
        directory = tmp_path / f"worker-{len(boxes)}"
        directory.mkdir()
        shutil.copy(empty_store, directory / "store.db")
        return Worker(box, directory, mappings=mappings, **sections)

    yield make
    for box in boxes:
        box.stop()
