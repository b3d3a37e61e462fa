"""A real Mautic, named by the environment; what the tests make there they remove."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from mautic_sync.sandbox import Sandbox

NAMES = ("MAUTIC_SYNC_LIVE_URL", "MAUTIC_SYNC_LIVE_CLIENT_ID", "MAUTIC_SYNC_LIVE_CLIENT_SECRET")
# Mautic leaves no hit for a browser that it takes for a bot.
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


class LiveMautic:
    """Calls of the admin and of visitors, and a list of all that was made."""

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self.url, self.client_id, self.client_secret = url.rstrip("/"), client_id, client_secret
        self.session = requests.Session()
        self.session.trust_env = False
        self.contacts: list[int] = []
        self.others: list[str] = []
        self.mark = f"live-{int(time.time())}"
        token = self.session.post(
            f"{self.url}/oauth/v2/token",
            data={"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret},
            timeout=30,
        )
        token.raise_for_status()
        self.session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"

    def call(self, method: str, path: str, **more: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/api/{path}", timeout=60, **more)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def new(self, **values: Any) -> int:
        number: int = self.call("POST", "contacts/new", json=values)["contact"]["id"]
        self.contacts.append(number)
        return number

    def contact(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"contacts/{number}")["contact"]
        return found

    def stage(self, number: int) -> str | None:
        stage = self.contact(number).get("stage")
        return stage["name"] if stage else None

    def dnc(self, number: int) -> dict[str, int]:
        return {row["channel"]: row["reason"] for row in self.contact(number)["doNotContact"]}

    def visit(self, url: str, device: str | None = None, page: str = "mtracking.gif") -> tuple[int, str]:
        """A hit of a new browser, or of the one with this device id; returns the contact and the device."""
        with requests.Session() as browser:
            browser.trust_env = False
            headers = {"User-Agent": BROWSER}
            if device:
                headers["Cookie"] = f"mautic_device_id={device}"
            answer = browser.get(
                f"{self.url}/{page}", params={"page_url": url, "page_title": self.mark}, headers=headers, timeout=30
            )
            assert answer.ok
            cookies = {name: value.partition(";")[0] for name, _, value in _cookies(answer)}
            device = cookies.get("mautic_device_id", device)
        hit = self.call(
            "GET",
            "stats/page_hits",
            params={"order[0][col]": "id", "order[0][dir]": "desc", "limit": 1},
        )["stats"][0]
        number = int(hit["lead_id"])
        if number not in self.contacts:
            self.contacts.append(number)
        assert device
        return number, device

    def submit(self, form: int, values: dict[str, str], device: str) -> None:
        """The form, sent from the browser with this device id."""
        with requests.Session() as browser:
            browser.trust_env = False
            body = {f"mauticform[{name}]": value for name, value in values.items()}
            body |= {"mauticform[formId]": str(form), "mauticform[return]": "", "mauticform[formName]": "live"}
            answer = browser.post(
                f"{self.url}/form/submit",
                data=body,
                headers={"User-Agent": BROWSER, "Cookie": f"mautic_device_id={device}"},
                timeout=30,
                allow_redirects=False,
            )
            assert answer.status_code < 400, answer.text[:300]

    def clean(self) -> None:
        """Delete what was made. A merged number leads to the survivor: read the id back before any delete."""
        for number in self.contacts:
            answer = self.session.get(f"{self.url}/api/contacts/{number}", timeout=60)
            if answer.ok and answer.json()["contact"]["id"] == number:
                self.call("DELETE", f"contacts/{number}/delete")
        for path in self.others:
            self.call("DELETE", path)
        self.session.close()


def _cookies(answer: requests.Response) -> Iterator[tuple[str, str, str]]:
    for header in answer.raw.headers.getlist("Set-Cookie"):
        name, _, value = header.partition("=")
        yield name, "=", value


@pytest.fixture(scope="module")
def live() -> Iterator[LiveMautic]:
    missing = [name for name in NAMES if not os.environ.get(name)]
    if missing:
        pytest.skip(f"no real Mautic: {', '.join(missing)} not set")
    mautic = LiveMautic(*(os.environ[name] for name in NAMES))
    yield mautic
    mautic.clean()


@pytest.fixture(scope="module")
def zerobounce() -> Iterator[Sandbox]:
    """ZeroBounce from the sandbox: the live one would cost credits."""
    with Sandbox(empty=True) as box:
        yield box


@pytest.fixture(scope="module")
def live_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")
