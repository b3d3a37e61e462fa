"""Scores at scale, without any Mautic: `python -m tests.bench.scores [PERSONS] [ACTIVITIES PER PERSON]`.

A store is filled with persons, activity and points that were granted and lost again, by the packaged rules and a fixed
seed. Measured are, each in a process of its own: tallies and evidence made anew, everybody scored, everybody scored
again a day later, new activity of one person in a hundred stored, and these scored: of persons all over the store,
each on pages of their own, which is the worst that there is, and of the newest. All of them get another score. Once that is
decided and stored, and once, for as many others, what to do about it in Mautic is planned as well. How fast that could be at
most is measured beside it: their rows read and one number of each written, without any rule.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.table import Table as Shown
from sqlalchemy import Engine

from tests.bench.worker import measured, peak_mb

AIM_PERSONS_A_SECOND = 20_000
MOST_MEGABYTES = 200
ROWS = 10_000
DAY = 86_400
NOW = 1_795_000_000  # 2026-11-18, 11:06 UTC
LATER = NOW + DAY + 3_600  # an hour after everybody was decided again
PAST = (3, -3, 5, -5)
URLS = ("pricing", "blog/one", "blog/two", "", "order/thank-you", "about", "contact", "docs")
KINDS = ("page_hits page.hit", "page_hits page.hit", "page_hits page.hit", "email_stats email.sent",
         "email_stats email.read", "asset_downloads asset.download")  # fmt: skip
TITLES = ("CEO", "Engineer", "Head of Sales", "Student")


def fill(path: str, persons: int, each: float) -> None:
    """Persons, contacts and activity, straight into the tables; nothing is counted yet."""
    from mautic_sync.store import notes
    from mautic_sync.store.activities import NEXT_ACTIVITY
    from mautic_sync.store.bulk import insert_rows
    from mautic_sync.store.engine import open_engine
    from mautic_sync.store.schema import activity, alias, contact, dirty, person

    chance = random.Random(1)
    engine = open_engine(f"sqlite:///{path}")
    for start in range(1, persons + 1, ROWS):
        numbers = range(start, min(start + ROWS, persons + 1))
        known = {number: chance.random() < 0.3 for number in numbers}
        with engine.begin() as connection:
            insert_rows(connection, person, ("id", "created_at"), [(number, NOW) for number in numbers])
            insert_rows(
                connection, alias, ("mautic_id", "person_id", "current"), [(number, number, True) for number in numbers]
            )
            insert_rows(
                connection,
                contact,
                (
                    *("person_id", "address", "fields", "tags", "points", "dnc", "date_added", "last_active"),
                    *("digest", "seen"),
                ),
                [
                    (
                        number,
                        f"p{number}@scale.example" if known[number] else None,
                        _fields(number, chance) if known[number] else "{}",
                        *("[]", 0, "{}", NOW - chance.randrange(300) * DAY, NOW - chance.randrange(100) * DAY),
                        *(f"{number:x}", 0),
                    )
                    for number in numbers
                ],
            )
            insert_rows(connection, dirty, ("person_id",), [(number,) for number in numbers])
    _fill_past(engine, persons)
    columns = ("id", "source", "source_id", "type", "person_id", "at", "object_id", "attributes")
    for rows in _chunks(_activity(persons, int(persons * each), chance)):
        with engine.begin() as connection:
            insert_rows(connection, activity, columns, rows)
            notes.put(connection, NEXT_ACTIVITY, str(rows[-1][0] + 1))
    engine.dispose()


def _fill_past(engine: Engine, persons: int) -> None:
    """Points that everybody was granted and lost again, run by run: a store that has worked for long."""
    from mautic_sync.store.bulk import insert_rows
    from mautic_sync.store.schema import change, ledger

    settled = ("person_id", "target", "state", "value", "old", "new", "reason", "baseline", "attempts", "planned_at",
               "settled_at", "run_id", "settled_run", "event_key", "log_above")  # fmt: skip
    granted = ("person_id", "at", "run_id", "change_id", "event_key", "delta", "reason")
    reason = "Pricing page 3, Opens 2"
    for round_, delta in enumerate(PAST):
        for start in range(0, persons, ROWS):
            some, at = range(start + 1, min(start + ROWS, persons) + 1), NOW - (300 - 10 * round_) * DAY + start
            run = f"{at}-bench"
            first = round_ * persons + start + 1
            keyed = [(number, f"{first + place:016x}", first + place) for place, number in enumerate(some)]
            texts = (
                "points",
                "settled",
                1,
                '{"points":3}',
                f'{{"points":{3 + delta}}}',
                reason,
                False,
                1,
                at,
                at,
                run,
                run,
            )
            with engine.begin() as connection:
                insert_rows(connection, change, settled, [(number, *texts, key, 0) for number, key, _ in keyed])
                lines = [(number, at, run, change_id, key, delta, reason) for number, key, change_id in keyed]
                insert_rows(connection, ledger, granted, lines)


def _fields(number: int, chance: random.Random) -> str:
    country = chance.choice(("Germany", "France", "Austria", "Spain"))
    return json.dumps({"country": country, "email": f"p{number}@scale.example", "position": chance.choice(TITLES)})


def _activity(persons: int, count: int, chance: random.Random) -> Iterator[tuple[Any, ...]]:
    for number in range(1, count + 1):
        source, type_ = chance.choice(KINDS).split()
        url = f'{{"url":"https://shop.example/{chance.choice(URLS)}"}}' if type_ == "page.hit" else "{}"
        at = NOW - 300 * DAY + int(300 * DAY * number / count)
        yield number, source, str(number), type_, chance.randint(1, persons), at, None, url


def _chunks(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while page := [row for _, row in zip(range(ROWS), rows, strict=False)]:
        yield page


# -- what is measured, each in a process of its own -----------------------------------------------------------------


def _run(path: str, now: int) -> Any:
    """A run without a Mautic: what decides needs none."""
    from mautic_sync.domain.contact import Catalogue
    from mautic_sync.mappings import load_mappings
    from mautic_sync.pipeline.context import Run
    from mautic_sync.settings import Settings
    from mautic_sync.store.engine import open_engine

    aliases = ("email", "phone", "mobile", "position", "country", "company", "firstname", "lastname", "city", "state")
    fields = dict.fromkeys(aliases, "text")
    catalogue = Catalogue(fields=fields)
    unreached: Any = SimpleNamespace(base_url="https://mautic.example")
    return Run(
        id="bench",
        now=now,
        settings=Settings(store={"url": f"sqlite:///{path}"}),
        mappings=load_mappings().bind(catalogue),
        engine=open_engine(f"sqlite:///{path}"),
        mautic=unreached,
        zerobounce=None,
        catalogue=catalogue,
        stage_names={1: "Ghost", 2: "Lead", 3: "Customer"},
    )


def count(path: str) -> dict[str, Any]:
    """Tallies and evidence of all activity."""
    from mautic_sync.store.activities import count_anew

    told: dict[str, Any] = {}
    run = _run(path, NOW)
    with measured(told), run.engine.begin() as connection:
        count_anew(connection, run.counting, run.catalogue)
    return told


def first(path: str) -> dict[str, Any]:
    """Everybody's first decision; points and stages are planned for them, too."""
    return _decide(path, NOW)


def again(path: str) -> dict[str, Any]:
    """Everybody a day later: some scores fade, everybody's day moves on."""
    from mautic_sync.store import people

    run = _run(path, NOW)
    _show_everything(run)
    with run.engine.begin() as connection:
        people.mark_everyone_dirty(connection)
    run.engine.dispose()
    return _decide(path, NOW + DAY)


def _show_everything(run: Any) -> None:
    """As if all that is planned had been pushed."""
    from sqlalchemy import case, delete, func, insert, literal, select, update

    from mautic_sync.store.schema import change, contact, decision, ledger, standing

    def text(value: str) -> Any:
        return literal(value).label(value or "nothing")

    with run.engine.begin() as connection:
        connection.execute(delete(change).where(change.c.open_key.is_not(None)))
        stage_of = select(decision.c.stage).where(decision.c.person_id == contact.c.person_id).scalar_subquery()
        numbers = {name: number for number, name in run.stage_names.items()}
        connection.execute(update(contact).values(stage_id=case(numbers, value=stage_of)))
        connection.execute(delete(standing))
        stands = select(decision.c.person_id, decision.c.stage, literal("{}"))
        connection.execute(insert(standing).from_select(["person_id", "stage", "written"], stands))
        columns = ["person_id", "delta", "at", "run_id", "change_id", "event_key", "reason"]
        received = select(ledger.c.person_id, func.sum(ledger.c.delta).label("points")).group_by(ledger.c.person_id)
        had = received.subquery()
        delta = decision.c.score - func.coalesce(had.c.points, 0)
        granted = (
            select(decision.c.person_id, delta, literal(NOW), text("run"), literal(1), text("key"), text("why"))
            .join_from(decision, had, had.c.person_id == decision.c.person_id, isouter=True)
            .where(delta != 0)
        )
        connection.execute(insert(ledger).from_select(columns, granted))


def arrive(path: str) -> dict[str, Any]:
    """All is pushed; then one person in a hundred loads a page, each on other pages of the file."""
    return _arrive(path, lambda place, _persons: place * 100)


def others(path: str) -> dict[str, Any]:
    """The same for as many others, who lie between them."""
    return _arrive(path, lambda place, _persons: place * 100 - 50)


def newest(path: str) -> dict[str, Any]:
    """The same for as many who came last, and lie together in the file."""
    return _arrive(path, lambda place, persons: persons - place + 1)


def recent(path: str) -> dict[str, Any]:
    """The same for as many who came before the newest."""
    return _arrive(path, lambda place, persons: persons - persons // 100 - place + 1)


def _arrive(path: str, who: Callable[[int, int], int]) -> dict[str, Any]:
    from sqlalchemy import func, select

    from mautic_sync.mautic.feeds import FeedActivity
    from mautic_sync.store.activities import add_activities
    from mautic_sync.store.schema import activity, contact

    run = _run(path, LATER)
    _show_everything(run)
    told: dict[str, Any] = {}
    with run.engine.begin() as connection:
        persons = connection.execute(select(func.count()).select_from(contact)).scalar() or 0
        last = connection.execute(select(func.max(activity.c.id))).scalar() or 0
    url = "https://shop.example/pricing"
    rows = [
        FeedActivity("page_hits", str(last + place), "page.hit", who(place, persons), LATER - 60, url)
        for place in range(1, persons // 100 + 1)
    ]
    with measured(told):
        for start in range(0, len(rows), 2_500):
            with run.engine.begin() as connection:
                add_activities(connection, rows[start : start + 2_500], run.counting, run.catalogue, known_above=last)
    return {**told, "persons": len(rows)}


def bare(path: str) -> dict[str, Any]:
    """What SQLite itself needs for these: three rows of each are read, and one number is written; taken back after."""
    from mautic_sync.pipeline.decide import PERSONS_PER_TRANSACTION

    told: dict[str, Any] = {}
    store = sqlite3.connect(path)
    store.execute("PRAGMA synchronous=FULL")
    numbers = [number for (number,) in store.execute("SELECT person_id FROM dirty ORDER BY person_id")]
    change = "UPDATE decision SET score = score + ? WHERE person_id = ?"
    with measured(told):
        for start in range(0, len(numbers), PERSONS_PER_TRANSACTION):
            some = numbers[start : start + PERSONS_PER_TRANSACTION]
            store.execute(
                "SELECT * FROM dirty JOIN contact USING (person_id) JOIN decision USING (person_id) "
                "LEFT JOIN tally USING (person_id) WHERE dirty.person_id BETWEEN ? AND ?",
                (some[0], some[-1]),
            ).fetchall()
            store.executemany(change, [(1, number) for number in some])
            store.commit()
    store.executemany(change, [(-1, number) for number in numbers])
    store.commit()
    store.close()
    return {**told, "persons": len(numbers)}


def decided(path: str) -> dict[str, Any]:
    """Those who did something: all have another score."""
    return _decide(path, LATER, grants=False)


def planned(path: str) -> dict[str, Any]:
    """The same, and what Mautic is to be granted for it is planned."""
    return _decide(path, LATER)


def _decide(path: str, now: int, *, grants: bool = True) -> dict[str, Any]:
    from mautic_sync.pipeline.decide import decide_changed

    told: dict[str, Any] = {}
    run = _run(path, now)
    run.grants = grants
    with measured(told):
        told["persons"] = decide_changed(run, baseline=True)
    return told


TASKS: dict[str, Callable[[str], dict[str, Any]]] = {
    task.__name__: task for task in (count, first, again, arrive, others, newest, recent, bare, decided, planned)
}


def main() -> None:
    if sys.argv[1:2] == ["task"]:
        from mautic_sync.cli.common import spare_memory

        _, _, task, path = sys.argv
        spare_memory()
        told = TASKS[task](path)
        print(json.dumps({**told, "peak_mb": peak_mb()}))
        return
    persons, each = int([*sys.argv[1:], "1000000"][0]), float([*sys.argv[2:], "10"][0])
    with tempfile.TemporaryDirectory(prefix="mautic-sync-scores-") as directory:
        path = str(Path(directory) / "store.db")
        began = time.perf_counter()
        fill(path, persons, each)
        print(f"{persons:,} persons, {int(persons * each):,} activities, filled in {time.perf_counter() - began:.0f} s")
        table = Shown("", "seconds", "CPU s", "peak MB", "persons/s", "aim", box=None)
        for task, what in (
            ("count", "tallies and evidence made anew"),
            ("first", "everybody decided, points and stages planned"),
            ("again", "everybody scored again, a day later"),
            ("arrive", "one in a hundred did something, stored"),
            ("bare", "their rows read, one number of each written, no rules"),
            ("decided", "these decided"),
            ("others", "as many others did something, stored"),
            ("planned", "these decided, points and stages planned"),
            ("newest", "the newest hundredth did something, stored"),
            ("decided", "these decided"),
            ("recent", "the hundredth before it did something, stored"),
            ("planned", "these decided, points and stages planned"),
        ):
            command = [sys.executable, "-m", "tests.bench.scores", "task", task, path]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            told = json.loads(done.stdout)
            rate = told.get("persons", 0) / told["seconds"]
            figures = (f"{told['seconds']:.1f}", f"{told['cpu']:.1f}", f"{told['peak_mb']:.0f}")
            aim = (
                f"≥ {AIM_PERSONS_A_SECOND:,}/s, < {MOST_MEGABYTES} MB"
                if task in {"again", "decided", "planned"}
                else ""
            )
            table.add_row(what, *figures, f"{rate:,.0f}" if rate else "", aim)
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
