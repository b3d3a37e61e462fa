"""A sandbox in a process of its own, and what happens in it between two runs."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import requests

ROOT = Path(__file__).resolve().parents[2]
MILLISECONDS_A_CONTACT = 10
"""How long making the world may take, on a busy machine."""


class World:
    """One sandbox, started at once and waited for on entering; ends with the `with` block."""

    def __init__(self, contacts: int, activities: float, cost: str, seed: int) -> None:
        self.contacts = contacts
        self.cost = cost
        self._random = random.Random(seed)
        self._url = ""
        self._began = time.monotonic()
        command = [
            *(sys.executable, "-c", "from mautic_sync.cli import main; main()", "sandbox", "--port", "0"),
            *("--contacts", str(contacts), "--activities", str(activities), "--seed", str(seed), "--cost", cost),
        ]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment())
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def url(self) -> str:
        """Where it answers, as soon as the world is made."""
        if not self._url:
            patience = 60 + self.contacts * MILLISECONDS_A_CONTACT / 1000
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], patience)
            line = self._process.stdout.readline().decode() if ready else ""
            if "http://" not in line:
                raise SystemExit(f"the sandbox did not start within {patience:.0f} s")
            self._url = line[line.index("http://") :].split(",")[0].strip()
        return self._url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._session.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def change(self, contacts: int) -> None:
        """So many contacts are edited by somebody else (half of them) or visit a page."""
        chosen = self._random.sample(range(1, self.contacts + 1), min(contacts, self.contacts))
        for number, contact in enumerate(chosen):
            if number % 2:
                act = {"do": "visit", "contact": contact, "url": "https://shop.example/pricing"}
            else:
                act = {"do": "edit", "contact": contact, "values": {"mobile": f"+49 151 {contact:07}"}}
            answer = self._session.post(f"{self.url}/_sandbox/act", json=act, timeout=60)
            # Editing a contact whose address another one has is refused by every Mautic.
            if answer.status_code != 200 and "refuses the edit" not in answer.text:
                raise SystemExit(f"the sandbox did not do {act['do']}: {answer.text[:200]}")


def environment() -> dict[str, str]:
    """The environment of the processes that are measured: nobody's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAUTIC_SYNC_")}
    return {**kept, "PYTHONPATH": str(ROOT)}
