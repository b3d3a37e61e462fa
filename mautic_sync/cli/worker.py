"""`run`: the worker, for a service or a container."""

from __future__ import annotations

import typer

from mautic_sync.cli.common import (
    ConfigOption,
    WaitOption,
    observer,
    open_store,
    read_mappings,
    read_settings,
    spare_memory,
)
from mautic_sync.cli.progress import displayed, seen
from mautic_sync.pipeline.run import connect_mautic
from mautic_sync.schedule import Worker
from mautic_sync.store.engine import worker_lock


def register(app: typer.Typer) -> None:
    app.command("run")(run_command)


def run_command(config: ConfigOption = None, wait: WaitOption = 0) -> None:
    """Work until stopped: a sync and a full sync at the times of `schedule`, the first at once if one is overdue."""
    settings = read_settings(config)
    # What is missing in the settings is told now, not at three in the morning.
    connect_mautic(settings, "check").close()
    with open_store(settings) as engine:
        worker = Worker(
            settings,
            engine,
            lambda: read_mappings(settings),
            observer(),
            watched=lambda tell: displayed(settings, tell),
            seen=seen,
        )
        spare_memory()
        with worker_lock(engine, wait):
            worker.check()
            worker.work()
