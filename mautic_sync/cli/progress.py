"""What a run does, live on a terminal; elsewhere the log has one line a page.

The time that is left is told only when it can be known: by the share of a known end that is done, after a few seconds.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from mautic_sync.cli.logs import LEVELS, run_named, shows_console
from mautic_sync.pipeline.context import Counts, Observer, Run
from mautic_sync.settings import Settings

LINE_SECONDS = 10
TRUSTED_SECONDS = 3
"""Before so much time has passed, the speed tells nothing."""
TRUSTED_SHARE = 0.02
# One line a page: on a terminal the display shows these.
PAGES = frozenset({"contacts", "activities", "decided", "pushed", "pushing", "validating"})


def seconds_left(done: float, total: float | None, elapsed: float) -> int | None:
    """How long the rest takes at the speed so far; None while that cannot be told."""
    if not total or elapsed < TRUSTED_SECONDS or done < TRUSTED_SHARE * total:
        return None
    return max(0, round(elapsed * (total - done) / done))


class _Left(ProgressColumn):
    """`about 12 min left`, or nothing."""

    max_refresh = 1.0

    def render(self, task: Task) -> Text:
        if task.finished or not task.total:
            return Text("")
        left = seconds_left(task.completed, task.total, task.elapsed or 0)
        return Text("" if left is None else f"about {duration(left)} left", style="progress.remaining")


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 5 min`, `2 d 4 h`: as exact as an estimate may look."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


class Watcher(ABC):
    """An observer that also looks at a run's counts, once it is told them."""

    counts: Counts | None = None

    @abstractmethod
    def __call__(self, event: str, **facts: Any) -> None: ...


class Lines(Watcher):
    """For a log: writes that are answered for every few milliseconds become one line in ten seconds."""

    def __init__(self, tell: Observer) -> None:
        self._tell = tell
        self._of = self._written = 0
        self._began = self._told = time.monotonic()

    def __call__(self, event: str, **facts: Any) -> None:
        if event == "pushed":
            self._written += facts["changes"]
            if time.monotonic() - self._told >= LINE_SECONDS:
                self.flush()
            return
        self.flush()
        if event == "pushing":
            self._of = facts["changes"]
            self._began = self._told = time.monotonic()
        self._tell(event, **facts)

    def flush(self) -> None:
        """Tell what has been written since the last line."""
        if not self._written:
            return
        done = self.counts.landed if self.counts is not None else None
        left = seconds_left(done, self._of, time.monotonic() - self._began) if done is not None else None
        self._tell("pushed", changes=self._written, done=done, of=self._of or None, eta_seconds=left)
        self._written, self._told = 0, time.monotonic()


class Display(Watcher):
    """For a terminal: one bar a step, fed by what the run tells and, between two events, by its counts."""

    def __init__(self, tell: Observer, out: Console) -> None:
        self._tell = tell
        self._tasks: dict[str, TaskID] = {}
        self._beginnings: dict[str, float] = {}
        self._counted: dict[str, int] = {}
        self.progress = _Counting(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[told]}"),
            _Left(),
            console=out,
            transient=True,
            redirect_stdout=False,
            refresh_per_second=4,
            before=self._count,
        )

    def __call__(self, event: str, **facts: Any) -> None:
        if event not in PAGES:
            self._tell(event, **facts)
            return
        if event in {"contacts", "activities"}:
            self._read(facts.get("feed", event), facts)
        elif event == "decided":
            self._end_reading()
            self._show("decided", f"{facts['persons']} decided", 1, 1)
        elif event == "validating":
            self._show("validating", "", 0, facts["addresses"])
        elif event == "pushing":
            self._show("pushing", "", 0, facts["changes"])

    def _read(self, what: str, facts: dict[str, Any]) -> None:
        self._counted[what] = self._counted.get(what, 0) + facts["rows"]
        told, upto, last = f"{self._counted[what]} read", facts.get("upto"), facts.get("last_id")
        if upto is None or last is None:
            self._show(what, told, None, None)
            return
        begin = self._beginnings.setdefault(what, facts.get("after") or 0)
        self._show(what, told, last - begin, max(upto - begin, 1))

    def _end_reading(self) -> None:
        for what in self._counted:
            self.progress.update(self._tasks[what], completed=1, total=1)

    def _show(self, what: str, told: str, done: float | None, total: float | None) -> None:
        task = self._tasks.get(what)
        if task is None:
            task = self._tasks[what] = self.progress.add_task(what.replace("_", " "), total=total, told=told)
        self.progress.update(task, completed=done, total=total, told=told)

    def _count(self) -> None:
        """Between two events: answers of ZeroBounce, and changes that Mautic has answered for."""
        counts = self.counts
        if counts is None:
            return
        for what, done in (("validating", sum(counts.verdicts.values())), ("pushing", counts.landed)):
            if what in self._tasks:
                total = next(task.total for task in self.progress.tasks if task.id == self._tasks[what])
                self.progress.update(self._tasks[what], completed=done, told=f"{done} of {total:.0f}")


class _Counting(Progress):
    """Looks at the counts before each drawing."""

    def __init__(self, *columns: ProgressColumn, before: Any, **options: Any) -> None:
        self._before = before
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        self._before()
        return super().get_renderables()


@contextmanager
def displayed(settings: Settings, tell: Observer) -> Iterator[Watcher]:
    """The observer of a run: it draws on a terminal, elsewhere it logs a line a page."""
    if not (shows_console(settings) and sys.stderr.isatty() and LEVELS[settings.log.level] <= LEVELS["info"]):
        yield Lines(tell)
        return
    display = Display(tell, Console(stderr=True))
    with display.progress:
        yield display


@contextmanager
def paused(run: Run) -> Iterator[None]:
    """Nothing is drawn meanwhile: a question stands on the terminal."""
    if not isinstance(run.tell, Display):
        yield
        return
    run.tell.progress.stop()
    try:
        yield
    finally:
        run.tell.progress.start()


@contextmanager
def seen(run: Run, tell: Observer) -> Iterator[None]:
    """All lines within speak of this run, the last of its pages too, and its observer looks at its counts."""
    if isinstance(tell, Watcher):
        tell.counts = run.counts
    with run_named(run.id):
        try:
            yield
        finally:
            if isinstance(tell, Lines):
                tell.flush()
