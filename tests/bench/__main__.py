"""Measures the worker against the sandbox, which runs in another process, and prints one table.

Every measurement runs in a fresh process, so that its peak of memory is its own; repeated ones tell the best. Loopback
only, a temporary directory, and an end of its own after some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.bench.world import ROOT, World, environment

QUICK_CONTACTS = 5_000
LONGEST_MINUTES = 30
LEAST_SHARE_OF_BARE = 0.9
LEAST_PERSONS_A_SECOND = 20_000
MOST_MEGABYTES = 150
MOST_GROWTH_MEGABYTES = 30
FULL_PAGES_CONTACTS = 5_000
LONGEST_COMMAND_SECONDS = 1.0


@dataclass(frozen=True)
class Line:
    """One line of the table. `met` is None where there is no aim."""

    what: str
    cost: str
    seconds: float
    result: str
    calls: int | None = None
    cpu_seconds: float | None = None
    peak_mb: float | None = None
    aim: str = ""
    met: bool | None = None


class MeasurementError(Exception):
    """A worker ended with an error: what was measured before is shown."""


class Bench:
    """The measurements of one machine at one time, line by line."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.deadline = time.monotonic() + options.minutes * 60
        self.lines: list[Line] = []

    def add(self, line: Line) -> None:
        self.lines.append(line)
        print(f"  {line.cost:<8} {line.what}: {line.seconds:.2f} s, {line.result}", file=sys.stderr, flush=True)

    def work(self, task: str, **job: Any) -> dict[str, Any]:
        """One task in a fresh process."""
        left = max(1.0, self.deadline - time.monotonic())
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.worker"],
            cwd=ROOT,
            env=environment(),
            input=json.dumps({"task": task, "concurrency": self.options.concurrency, **job}).encode(),
            stdout=subprocess.PIPE,
            timeout=left,
            check=False,
        )
        if done.returncode:
            raise MeasurementError(f"the measurement `{task}` failed")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    def store(self, name: str) -> Path:
        """The path of a store, nothing of an earlier one left."""
        path = self.directory / name
        for old in self.directory.glob(f"{name}*"):
            old.unlink()
        return path

    # -- what is measured -----------------------------------------------------------------------------------------

    def commands(self) -> None:
        """How long a command takes that does nothing."""
        seconds = min(self._time_command() for _ in range(5))
        met = seconds < LONGEST_COMMAND_SECONDS
        self.add(Line("mautic-sync --version", "–", seconds, "", aim=f"< {LONGEST_COMMAND_SECONDS:g} s", met=met))

    def _time_command(self) -> float:
        began = time.perf_counter()
        # Byte code is kept, as in any installation.
        kept = {**environment(), "PYTHONPYCACHEPREFIX": str(self.directory / "byte-code")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-c", "from mautic_sync.cli import main; main()", "--version"]
        subprocess.run(command, cwd=ROOT, env=kept, stdout=subprocess.DEVNULL, timeout=60, check=True)
        return time.perf_counter() - began

    def pull(self, world: World, name: str, *, growth_of: float | None = None) -> tuple[Path, float, float]:
        """A full pull beside the bare loop; returns the store, the seconds and the peak."""
        url, cost = world.url, world.cost
        self.work("init", url=url, store=str(self.store(f"{name}-init.db")))
        pulls, bares = [], []
        for number in range(self.options.repeat if cost == "none" else 1):
            store = self.store(f"{name}-{number}.db")
            pulls.append(self.work("pull", url=url, store=str(store)))
            bares.append(self.work("bare", url=url, urls=pulls[-1].pop("urls")))
        best, bare = min(pulls, key=_seconds), min(bares, key=_seconds)
        seconds, peak = best["seconds"], max(one["peak_mb"] for one in pulls)
        share = bare["seconds"] / seconds
        told = (
            f"{best['contacts'] / seconds:,.0f} contacts/s, {best['activities'] / seconds:,.0f} activities/s "
            f"({best['contacts']:,} and {best['activities']:,}; store {best['store_mb']:.0f} MB)"
        )
        aim, met = f"< {MOST_MEGABYTES} MB", peak < MOST_MEGABYTES
        if growth_of is not None:
            aim = f"+ < {MOST_GROWTH_MEGABYTES} MB"
            # Fewer do not fill a page, and say nothing.
            full_pages = world.contacts >= FULL_PAGES_CONTACTS
            met = growth_of - peak < MOST_GROWTH_MEGABYTES if full_pages else None
            aim = aim if full_pages else ""
            told += f"; ten times as many take {growth_of - peak:+.0f} MB"
        self.add(Line(f"full pull{_of(name)}", cost, seconds, told, best["calls"], best["cpu"], peak, aim, met))
        if growth_of is None:
            aimed = cost == "measured"
            self.add(
                Line(
                    "bare loop over its pages",
                    cost,
                    bare["seconds"],
                    f"{bare['bytes'] / 2**20:,.0f} MB read; the pull runs at {share:.0%} of it",
                    bare["calls"],
                    bare["cpu"],
                    aim=f"≥ {LEAST_SHARE_OF_BARE:.0%}" if aimed else "",
                    met=share >= LEAST_SHARE_OF_BARE if aimed else None,
                )
            )
        return store, seconds, peak

    def decide(
        self, world: World, store: Path, *, what: str, gate: bool = False, again: bool = False
    ) -> dict[str, Any]:
        """Decide everybody in a copy of the store; with the gate open the store itself is decided the last time.

        The first time, what is to be written is planned for each: the aim is for the decisions alone.
        """
        told = []
        repeats = self.options.repeat if world.cost == "none" else 1
        for number in range(repeats):
            last = number == repeats - 1 and not gate
            copy = store if last else self.store(f"copy-{store.name}")
            if not last:
                shutil.copy(store, copy)
            told.append(self.work("decide", url=world.url, store=str(copy), gate=gate, again=again))
        best = min(told, key=_seconds)
        rate = best["persons"] / best["seconds"]
        self.add(
            Line(
                what,
                world.cost,
                best["seconds"],
                f"{rate:,.0f} persons/s ({best['persons'] / best['cpu']:,.0f} a second of CPU)",
                best["calls"],
                best["cpu"],
                max(one["peak_mb"] for one in told),
                f"≥ {LEAST_PERSONS_A_SECOND:,}/s" if again else "",
                rate >= LEAST_PERSONS_A_SECOND if again else None,
            )
        )
        return best

    def push(self, world: World, store: Path) -> None:
        told = self.work("push", url=world.url, store=str(store))
        rate = told["persons"] / told["seconds"]
        result = f"{rate:,.0f} contacts/s ({told['persons']:,}; {told['failed']} failed)"
        self.add(
            Line("baseline push", world.cost, told["seconds"], result, told["calls"], told["cpu"], told["peak_mb"])
        )

    def runs(self, world: World, store: Path, full_seconds: float, *, writing: bool) -> None:
        """A run with no news, and one with some; read only where writing would take Mautic hours."""
        job = {"url": world.url, "store": str(store), "push": writing}
        suffix = "" if writing else ", not pushing"
        self.work("sync", **job)  # the echo of our own writes
        quiet = min((self.work("sync", **job) for _ in range(self.options.repeat)), key=_seconds)
        nothing = "no writes" if not quiet["writes"] else f"{quiet['writes']} WRITES"
        self.add(
            Line(
                f"run with no news{suffix}",
                world.cost,
                quiet["seconds"],
                nothing,
                quiet["calls"],
                quiet["cpu"],
                quiet["peak_mb"],
                "no writes",
                not quiet["writes"],
            )
        )
        world.change(self.options.changed)
        some = self.work("sync", **job)
        self.add(
            Line(
                f"run with {self.options.changed:,} changed contacts{suffix}",
                world.cost,
                some["seconds"],
                f"{some['seconds'] / full_seconds:.1%} of pulling and deciding everybody; "
                f"{some['pulled']['contacts']:,} contacts read, {some['pushed']['stages']:,} stages set",
                some["calls"],
                some["cpu"],
                some["peak_mb"],
            )
        )


def measure(bench: Bench) -> None:
    options = bench.options
    small = max(500, options.contacts // 10)
    with ExitStack() as worlds:

        def world(contacts: int, cost: str) -> World:
            return worlds.enter_context(World(contacts, options.activities, cost, options.seed))

        # All are made at once: that takes a minute and a core each.
        made = {cost: world(options.contacts, cost) for cost in options.costs}
        tenth = world(small, "none") if "none" in made else None
        for one in [*made.values(), *([tenth] if tenth else [])]:
            print(f"  {one.contacts:,} contacts at {one.url}, cost {one.cost}", file=sys.stderr, flush=True)
        bench.commands()
        if "none" in made:
            free = made["none"]
            store, seconds, peak = bench.pull(free, "free")
            if tenth is not None:
                bench.pull(tenth, f"{small}-contacts", growth_of=peak)
            bench.decide(free, store, gate=True, what="decide and plan for everybody, verdicts missing")
            best = bench.decide(free, store, what="decide and plan for everybody, no ZeroBounce key")
            bench.push(free, store)
            bench.decide(free, store, again=True, what="decide everybody anew")
            bench.runs(free, store, seconds + best["seconds"], writing=True)
        if "measured" in made:
            slow = made["measured"]
            store, seconds, _ = bench.pull(slow, "slow")
            best = bench.decide(slow, store, what="decide and plan for everybody, no ZeroBounce key")
            bench.runs(slow, store, seconds + best["seconds"], writing=False)


# -- telling --------------------------------------------------------------------------------------------------------


def _seconds(told: Mapping[str, Any]) -> float:
    return float(told["seconds"])


def _of(name: str) -> str:
    return f" of {name.replace('-', ' ')}" if name[0].isdigit() else ""


def show(lines: list[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("measured", "cost", "seconds", "CPU s", "calls", "peak MB", "result", "aim", ""):
        right = heading in {"seconds", "CPU s", "calls", "peak MB"}
        table.add_column(heading, justify="right" if right else "left")
    for line in lines:
        table.add_row(
            line.what,
            line.cost,
            f"{line.seconds:.2f}",
            "" if line.cpu_seconds is None else f"{line.cpu_seconds:.2f}",
            "" if line.calls is None else f"{line.calls:,}",
            "" if line.peak_mb is None else f"{line.peak_mb:.0f}",
            line.result,
            line.aim,
            {None: "", True: "met", False: "MISSED"}[line.met],
        )
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """SIGTERM ends the sandboxes too."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--contacts", type=int, default=100_000, help="how many the world has (100000)")
    parser.add_argument("--activities", type=float, default=5.0, help="per contact, about (5)")
    parser.add_argument("--changed", type=int, default=1_000, help="contacts that change between two runs (1000)")
    parser.add_argument("--cost", choices=("none", "measured", "both"), default="both", help="of a call (both)")
    parser.add_argument("--repeat", type=int, default=3, help="how often at cost none; the best counts (3)")
    parser.add_argument("--concurrency", type=int, default=2, help="requests in flight (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the world (1)")
    parser.add_argument("--minutes", type=float, default=LONGEST_MINUTES, help=f"at most ({LONGEST_MINUTES})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CONTACTS:,} contacts, once: a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    options = parser.parse_args()
    if options.quick:
        options.contacts, options.repeat = min(options.contacts, QUICK_CONTACTS), 1
        options.changed = min(options.changed, options.contacts // 20)
    options.costs = ("none", "measured") if options.cost == "both" else (options.cost,)
    with _ended_cleanly(), tempfile.TemporaryDirectory(prefix="mautic-sync-bench-") as directory:
        bench = Bench(options, Path(directory))
        complete = True
        try:
            measure(bench)
        except subprocess.TimeoutExpired:
            complete = False
            print(f"stopped after {options.minutes:g} minutes (--minutes)", file=sys.stderr)
        except MeasurementError as error:
            complete = False
            print(error, file=sys.stderr)
    if options.json:
        print(json.dumps({"options": vars(options), "lines": [asdict(line) for line in bench.lines]}, indent=2))
    else:
        load = statistics.fmean(os.getloadavg())
        print(f"{options.contacts:,} contacts, {os.cpu_count()} cores, load {load:.1f}; best of {options.repeat}")
        show(bench.lines)
    raise SystemExit(not complete or any(line.met is False for line in bench.lines))


if __name__ == "__main__":
    main()
