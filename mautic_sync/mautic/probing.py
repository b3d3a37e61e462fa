"""Looks at a Mautic without changing anything in it: reachability, certificate, headers, counts.

`Probe` is a transport that refuses to write, asks twice at most, and keeps what each answer said about the server.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies
from tenacity import RetryCallState

from mautic_sync.errors import RefusedError, StopError
from mautic_sync.mautic.contacts import Where, where_params
from mautic_sync.mautic.transport import Transport, is_loopback, moment_of

PAUSE = 0.5  # seconds before the second attempt
TOKEN = "/oauth/v2/token"  # noqa: S105  # an address


@dataclass(frozen=True, slots=True)
class Heard:
    """One exchange: the path, what it took in seconds, and what its headers tell.

    `skew` is the server's clock less ours, in seconds, with the second that the header lacks; None without a Date.
    `limit` and `remaining` are Mautic's rate limit, None where it shows none.
    """

    path: str
    status: int
    seconds: float
    skew: float | None
    limit: int | None
    remaining: int | None


class Probe(Transport):
    """A transport for looking only."""

    attempts = 2
    heard: list[Heard]

    def __init__(self, base_url: str, **options: Any) -> None:
        super().__init__(base_url, **options)
        self.heard = []

    def write(self, method: str, path: str, json: Any = None) -> NoReturn:  # noqa: ARG002
        """Nothing is ever written."""
        raise TypeError(f"a probe must not write, and was asked for {method} {path}")

    def knock(self) -> int:
        """The status of the API's answer to a call without credentials: 401 from every Mautic whose API is on.

        Raises StopError and RetryError for whatever cannot be reached, is switched off or is no Mautic.
        """
        doing = "calling Mautic's API without credentials"

        def once() -> int:
            try:
                response = self._send("GET", self._api("users/self"), None)
            except requests.RequestException as error:
                self._fail_read(error, doing)
            if response.status_code == 401:
                if "basic" in response.headers.get("WWW-Authenticate", "").lower() and not response.content[:1] == b"{":
                    raise StopError(
                        f"While {doing}, something in front of Mautic asked for a password. Let the worker pass there."
                    )
                return 401
            self._raise_for_everyone(response, "users/self", doing, writing=False)
            self._raise_refusal(response, doing, writing=False)
            if not response.content.lstrip()[:1] == b"{":
                raise self._html(doing)
            return response.status_code

        status: int = self._persist(once)
        return status

    def _wait_before(self, state: RetryCallState) -> float:  # noqa: ARG002
        return PAUSE

    def _send(
        self,
        method: str,
        url: str,
        header: str | None,
        *,
        params: Iterable[tuple[str, Any]] | None = None,
        data: bytes | Mapping[str, str] | None = None,
    ) -> requests.Response:
        if method != "GET" and not url.endswith(TOKEN):
            raise TypeError(f"a probe must not send {method}")
        began, started = self._clock(), time.monotonic()
        response = super()._send(method, url, header, params=params, data=data)
        seconds = time.monotonic() - started
        date = moment_of(response.headers.get("Date"))
        self.heard.append(
            Heard(
                path=urlsplit(url).path.rpartition("/api/")[2],
                status=response.status_code,
                seconds=seconds,
                # Between our two moments, and the header has no fraction of a second.
                skew=None if date is None else date + 0.5 - (began + seconds / 2),
                limit=_number(response, "X-RateLimit-Limit"),
                remaining=_number(response, "X-RateLimit-Remaining"),
            )
        )
        return response


def _number(response: requests.Response, header: str) -> int | None:
    text = response.headers.get(header, "").strip()
    return int(text) if text.isdigit() else None


# -- certificate ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """Until when, in seconds since 1970, and by whom."""

    expires_at: int
    issuer: str


def read_certificate(base_url: str, *, ca_bundle: str | None, timeout: float) -> Certificate:
    """The certificate that this address shows, if it is to be trusted. Raises StopError with what is wrong with it."""
    parts = urlsplit(base_url)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.create_default_context(cafile=ca_bundle or DEFAULT_CA_BUNDLE_PATH)
    try:
        with (
            socket.create_connection((host, port), timeout) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            shown: dict[str, Any] = dict(secured.getpeercert() or {})
    except ssl.SSLCertVerificationError as error:
        raise StopError(
            f"The certificate of {parts.netloc} is not valid: {error.verify_message}. Renew it, set mautic.base_url to "
            "the name that it is for, or set mautic.ca_bundle to the certificate of your own authority."
        ) from None
    except ssl.SSLError as error:
        raise StopError(
            f"{parts.netloc} does not speak TLS as it should ({error.reason}). Check mautic.base_url and its port."
        ) from None
    except OSError as error:
        raise StopError(
            f"No connection to {parts.netloc}: {error.strerror or 'no answer in time'}. Check mautic.base_url."
        ) from None
    issuer = {name: value for group in shown.get("issuer", ()) for name, value in group}
    return Certificate(
        int(ssl.cert_time_to_seconds(shown["notAfter"])),
        str(issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"),
    )


def behind_proxy(base_url: str) -> bool:
    """Whether a proxy of the environment carries our calls: then it is not Mautic's own certificate that we would see."""
    return not is_loopback(base_url) and "https" in get_environ_proxies(base_url)


# -- counts ---------------------------------------------------------------------------------------------------------


def count_contacts(transport: Transport, where: Sequence[Where] = ()) -> int:
    """How many contacts there are; all of them whatever rights we have, for there is always a condition."""
    conditions = [("id", "gt", 0), *where]
    return _total(transport, "contacts", [("minimal", 1), ("select[]", "id"), *where_params(conditions)])


def count_shown(transport: Transport) -> int:
    """How many contacts the plain list has: without the right to view those of others it is empty."""
    return _total(transport, "contacts", [("minimal", 1), ("select[]", "id")])


def count_rows(transport: Transport, table: str, where: Sequence[Where] = ()) -> int:
    """How many rows of a statistics table. Raises RefusedError for a table that this Mautic does not have."""
    return _total(transport, f"stats/{table}", where_params(where))


def _total(transport: Transport, path: str, params: Sequence[tuple[str, Any]]) -> int:
    body = transport.read(path, [*params, ("limit", 1)])
    if not isinstance(body, Mapping) or "total" not in body:
        raise RefusedError(f"Mautic's {path} does not say how many there are.", status=404, reason="no total")
    try:
        return int(body["total"])
    except (TypeError, ValueError):
        raise StopError(f"Mautic's {path} counts in a way that is no number: is mautic.base_url a Mautic?") from None
