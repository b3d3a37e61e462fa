"""The credentials of one Mautic: an OAuth2 bearer, fetched once however many threads ask, or Basic as the fallback.

A token is renewed a minute before it expires, and once more when Mautic refuses it early.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

RENEW_BEFORE = 60.0  # seconds
DEFAULT_LIFETIME = 3600.0  # seconds, where the answer names none


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the moment, by our clock, at which it expires."""

    value: str
    expires_at: float


class Credentials(Protocol):
    """What the transport asks of either kind."""

    def header(self) -> str:
        """The value of the Authorization header, valid now."""

    def renew(self, refused: str) -> bool:
        """Mautic refused the header `refused`: true when there is another one to try."""


class Basic:
    """A user name and a password: half a second of server time per call (docs/mautic.md: "Speed")."""

    def __init__(self, username: str, password: str) -> None:
        self._header = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")

    def header(self) -> str:
        return self._header

    def renew(self, refused: str) -> bool:  # noqa: ARG002 - a password has no successor
        return False


class ClientCredentials:
    """OAuth2 client credentials. `fetch` gets a new token and raises the errors of the transport."""

    def __init__(self, fetch: Callable[[], Token], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None

    def header(self) -> str:
        with self._lock:
            if self._token is None or self._clock() >= self._token.expires_at - RENEW_BEFORE:
                self._token = self._fetch()
            return f"Bearer {self._token.value}"

    def renew(self, refused: str) -> bool:
        with self._lock:
            # Another thread may have renewed it while this one waited for its 401.
            if self._token is None or f"Bearer {self._token.value}" == refused:
                self._token = self._fetch()
            return True
