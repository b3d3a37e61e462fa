"""A doctor beside a worker of the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mautic_sync.doctor import Examination, Finding, examine
from mautic_sync.mappings import load_mappings


class Doctor:
    """Examines what a worker has; `found[id]` is the finding of a check."""

    def __init__(self, worker, now=None) -> None:
        self.worker = worker
        self.now = now

    def __call__(self) -> dict[str, Finding]:
        settings = self.worker.settings
        options = {} if self.now is None else {"now": self.now}
        with Examination(settings=settings, mappings=load_mappings(self.worker.mappings_dir), **options) as exam:
            return {one.check.id: one.finding for one in examine(exam)}


@pytest.fixture
def doctor(make_worker) -> Callable[..., Doctor]:
    """`doctor(version=…, mappings=…, mautic={…})`; `.worker` is beside the sandbox, and has no store yet."""

    def make(**options: Any) -> Doctor:
        worker = make_worker(**options)
        (worker.directory / "store.db").unlink()
        return Doctor(worker)

    return make


@pytest.fixture
def rules(tmp_path: Path) -> Callable[..., Path]:
    """`rules(actions="…")`: a directory with these files, the others packaged."""

    def write(**files: str) -> Path:
        directory = tmp_path / "rules"
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / f"{name}.yaml").write_text(f"version: 1\n{text}", encoding="utf-8")
        return directory

    return write
