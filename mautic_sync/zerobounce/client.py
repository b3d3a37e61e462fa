"""A client of ZeroBounce's API v2 that never pays twice for one question.

Statuses and sub-statuses are an open vocabulary: what ZeroBounce says is handed on as it is, with the raw answer.
"""

from __future__ import annotations

import csv
import io
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from mautic_sync.errors import DoubtfulError, MalformedError, RefusedError, RetryError, StopError
from mautic_sync.mautic.decoding import NotJsonError, decode
from mautic_sync.mautic.redaction import redact, shorten
from mautic_sync.mautic.transport import check_address, is_loopback

CONNECT_TIMEOUT = 5.0  # seconds
READ_MARGIN = 10.0  # seconds that we wait longer than ZeroBounce was told to take
LONGEST_TIMEOUT = 60  # seconds; what ZeroBounce accepts as its own limit
SHORTEST_TIMEOUT = 3
FILE_READ_TIMEOUT = 300.0  # seconds for a file of many megabytes, there or back
BULK_URL = "https://bulkapi.zerobounce.net/v2"
OWN_HOST = ".zerobounce.net"
DEFAULT_WAIT = 60.0  # seconds, where a 403 or 429 names none
_SECRET_KEYS = frozenset({"api_key", "apikey", "account"})


class BadKeyError(StopError):
    """ZeroBounce does not know the key."""


class NoCreditsError(RetryError):
    """The account has no credits left: validation goes on when there are some."""


class SlowDownError(RetryError):
    """ZeroBounce wants to be left alone for `wait` seconds."""

    def __init__(self, message: str, *, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Answer:
    """What ZeroBounce says about one address. `address` is as it was asked, `at` seconds since 1970, UTC.

    `raw` is the whole answer without key and account; true and false in it are booleans, whatever ZeroBounce sent.
    """

    address: str
    status: str
    sub_status: str = ""
    did_you_mean: str = ""
    at: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict)


class ZeroBounce:
    """One account at ZeroBounce; safe to share between threads, at most `max_per_second` requests each second."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = "https://api-eu.zerobounce.net/v2/",
        bulk_url: str | None = None,
        timeout: float = 30.0,
        max_per_second: float = 5,
        user_agent: str = "mautic-sync/0.1.0",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = _versioned(check_address(base_url, setting="zerobounce.base_url", allow_http=False))
        self.bulk_url = self._bulk_address(bulk_url)
        self.calls = 0
        self._key = api_key
        self._refused: BadKeyError | None = None
        self._limit = int(min(max(timeout, SHORTEST_TIMEOUT), LONGEST_TIMEOUT))
        self._clock = clock
        self._counting = threading.Lock()
        self._singles = _Pace(1 / max_per_second, sleep, monotonic)
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": user_agent, "Accept": "application/json"})
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if is_loopback(self.base_url):
            self._session.trust_env = False  # a proxy of the environment cannot reach our own loopback

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def validate(self, address: str, ip: str = "") -> Answer:
        """Asks about one address: one credit, unless the status is `unknown`.

        Raises DoubtfulError when the answer was lost: a credit may be gone, and the address must not be asked again in
        this run. BadKeyError, NoCreditsError, SlowDownError and RetryError cost nothing; RefusedError neither.
        """
        self._stop_if_refused()
        self._singles.wait()
        form = {"api_key": self._key, "email": address, "ip_address": ip, "timeout": str(self._limit)}
        body = self._request("POST", "validate", self._limit + READ_MARGIN, data=form, costs=True)
        if not isinstance(body, Mapping):
            raise DoubtfulError(
                "ZeroBounce answered a validation with something that is no answer; a credit may be gone."
            )
        self._raise_error_in(body)
        return self._answer(address, body)

    # -- files ----------------------------------------------------------------------------------------------------

    def send_file(self, name: str, addresses: Sequence[str]) -> str:
        """Has a file of different addresses validated, for a credit each; the id by which its result is found.

        Raises DoubtfulError when the answer was lost: the file may be there and its credits spent, and only the
        account shows. BadKeyError, NoCreditsError, SlowDownError, RetryError and RefusedError: nothing was taken.
        """
        self._stop_if_refused()
        self._singles.wait()
        try:
            body = self._request(
                "POST",
                "sendfile",
                FILE_READ_TIMEOUT,
                base=self.bulk_url,
                data={"api_key": self._key, "email_address_column": "1", "has_header_row": "true"},
                files={"file": (name, "\r\n".join(["email", *addresses, ""]).encode(), "text/csv")},
                costs=True,
            )
        except DoubtfulError:
            raise DoubtfulError(
                "The answer to sending a file to ZeroBounce was lost: the file may be there, and paid for."
            ) from None
        file_id = body.get("file_id") if isinstance(body, Mapping) else None
        if isinstance(body, Mapping):
            self._raise_error_in(body)
        if not isinstance(file_id, str) or not file_id.strip():
            raise DoubtfulError("ZeroBounce took a file and did not say under which id: it may be there, and paid for.")
        return file_id.strip()

    def is_complete(self, file_id: str) -> bool:
        """Whether the result of a file is there. RefusedError: ZeroBounce does not know the file."""
        status = self._ask_about("filestatus", file_id).get("file_status")
        # The only status that is sure. docs/zerobounce.md: "Client"
        return isinstance(status, str) and status.strip().lower() == "complete"

    def fetch_file(self, file_id: str) -> list[Answer | None]:
        """The result of a file, row by row; None where a row cannot be read.

        Raises RefusedError where there is no such result, and MalformedError where it has no columns that we know.
        """
        self._stop_if_refused()
        self._singles.wait()
        doing = "fetching a file from ZeroBounce"
        params = {"api_key": self._key, "file_id": file_id}
        response = self._exchange("GET", "getfile", FILE_READ_TIMEOUT, doing, base=self.bulk_url, params=params)
        if response.status_code >= 300 or response.content.lstrip()[:1] in {b"{", b"["}:
            body = self._understood(response, doing, costs=False)
            if isinstance(body, Mapping):
                self._raise_error_in(body)
            raise RetryError(f"While {doing}, something else came back. The next run fetches it again.")
        return self._rows(response.content.decode("utf-8-sig", errors="replace"))

    def delete_file(self, file_id: str) -> None:
        """Deletes a file and its result at ZeroBounce. RefusedError: there is no such file (any more)."""
        self._ask_about("deletefile", file_id)

    def _ask_about(self, path: str, file_id: str) -> Mapping[str, Any]:
        self._stop_if_refused()
        self._singles.wait()
        params = {"api_key": self._key, "file_id": file_id}
        body = self._request("GET", path, 60.0, base=self.bulk_url, params=params, costs=False)
        if not isinstance(body, Mapping):
            raise RetryError(f"ZeroBounce answered {path} with something that is no answer. The next run asks again.")
        self._raise_error_in(body)
        return body

    def _rows(self, text: str) -> list[Answer | None]:
        try:
            head, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
        except csv.Error:
            raise MalformedError("ZeroBounce's file is no CSV.") from None
        names = [_column(name) for name in head]
        if "status" not in names or "sub_status" not in names:
            raise MalformedError("ZeroBounce's file has no columns for status and sub-status: its form has changed.")
        return [self._row(names, line) for line in lines if line]

    def _row(self, names: Sequence[str], line: Sequence[str]) -> Answer | None:
        # The column of addresses is ours, the first.
        if len(line) != len(names):
            return None
        body = {name: value or None for name, value in zip(names[1:], line[1:], strict=True)}
        try:
            return self._answer(line[0], body)
        except DoubtfulError:
            return None

    def _bulk_address(self, given: str | None) -> str:
        if given is None:
            host = urlsplit(self.base_url).hostname or ""
            given = BULK_URL if host.endswith(OWN_HOST) else self.base_url
        return _versioned(check_address(given, setting="zerobounce.bulk_url", allow_http=False))

    # -- the account ----------------------------------------------------------------------------------------------

    def credits(self) -> int:
        """The credits left. Raises BadKeyError where ZeroBounce does not know the key."""
        self._singles.wait()
        # The address of this call contains the key; a POST would keep it out of proxy logs, but is not documented.
        body = self._request("GET", "getcredits", 30.0, params={"api_key": self._key}, costs=False)
        value = body.get("Credits") if isinstance(body, Mapping) else None
        try:
            left = int(str(value).strip())
        except ValueError:
            raise RetryError("ZeroBounce did not say how many credits are left. The next run asks again.") from None
        if left < 0:
            self._refused = BadKeyError(
                "ZeroBounce does not know this key: check zerobounce.api_key, and that zerobounce.base_url is the "
                "region of the account."
            )
            raise self._refused
        return left

    def _stop_if_refused(self) -> None:
        """A bad key stays bad, and a few hundred tries with it block the account."""
        if self._refused is not None:
            raise BadKeyError(str(self._refused))

    # -- one exchange ---------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        read_timeout: float,
        *,
        costs: bool,
        base: str | None = None,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Any:
        """The JSON of an answer. Where the question `costs`, a lost answer is DoubtfulError, else RetryError."""
        doing = f"asking ZeroBounce ({path})"
        response = self._exchange(
            method, path, read_timeout, doing, costs=costs, base=base, params=params, data=data, files=files
        )
        return self._understood(response, doing, costs=costs)

    def _exchange(
        self,
        method: str,
        path: str,
        read_timeout: float,
        doing: str,
        *,
        costs: bool = False,
        base: str | None = None,
        **what: Any,
    ) -> requests.Response:
        with self._counting:
            self.calls += 1
        try:
            return self._session.request(
                method,
                (base or self.base_url) + path,
                timeout=(CONNECT_TIMEOUT, read_timeout),
                allow_redirects=False,
                **what,
            )
        except requests.RequestException as error:
            self._raise_unanswered(error, doing, costs=costs)

    def _understood(self, response: requests.Response, doing: str, *, costs: bool) -> Any:
        status = response.status_code
        if 300 <= status < 400:
            host = urlsplit(response.headers.get("Location", "")).hostname or "another address"
            raise StopError(f"While {doing}: it redirects to {host}. Set zerobounce.base_url to the address itself.")
        if status in {403, 429}:
            wait = self._wait_of(response)
            raise SlowDownError(
                f"While {doing}, it answered {status}: too many requests, or its shield holds us. "
                f"Validation goes on after {wait:.0f} s at the earliest.",
                wait=wait,
            )
        try:
            body, _ = decode(response.content)
        except NotJsonError:
            body = None
        if status >= 500 or body is None:
            if costs:
                raise DoubtfulError(
                    f"While {doing}, it answered {status} without an answer: a credit may be gone. "
                    "It is not asked again in this run."
                )
            raise RetryError(f"While {doing}, it answered {status} without an answer. The next run asks again.")
        if status >= 400:
            if isinstance(body, Mapping):
                self._raise_error_in(body)
            raise RefusedError(
                f"While {doing}, it answered {status}. Check zerobounce.base_url.", status=status, reason=str(status)
            )
        return body

    def _raise_unanswered(self, error: requests.RequestException, doing: str, *, costs: bool) -> NoReturn:
        if isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower():
            raise StopError(
                f"While {doing}: the certificate of {self._host()} is not trusted. Check zerobounce.base_url and "
                "what stands between here and there."
            ) from None
        if _never_sent(error):
            raise RetryError(
                f"While {doing}, {self._host()} could not be reached. Check zerobounce.base_url and the network; "
                "the next run asks again."
            ) from None
        if costs:
            raise DoubtfulError(
                f"While {doing}, no answer came: a credit may be gone. It is not asked again in this run."
            ) from None
        raise RetryError(f"While {doing}, no answer came. The next run asks again.") from None

    # -- what an answer means -------------------------------------------------------------------------------------

    def _raise_error_in(self, body: Mapping[str, Any]) -> None:
        """An error comes with HTTP 200 and a text; a good answer may carry an empty `error`."""
        text = body.get("error") or body.get("Error")
        if text and not body.get("status"):
            self._raise_for_text(str(text))
        if _regular(body.get("success")) is False:
            text = body.get("error_message") or body.get("message") or "no reason"
            self._raise_for_text("; ".join(map(str, text)) if isinstance(text, list) else str(text))

    def _raise_for_text(self, text: str) -> NoReturn:
        lowered = text.lower()
        if "api key" in lowered or "credit" in lowered:
            # The same words for both: only the number of credits tells.
            if self.credits() == 0:
                raise NoCreditsError(
                    "The ZeroBounce account has no credits left: add some; addresses that wait are asked in a later run."
                )
            raise RetryError(
                "ZeroBounce refused to answer although the key is known and credits are left. The next run asks again."
            )
        reason = shorten(self._clean(text[:5_000]))
        raise RefusedError(f"ZeroBounce refused the question: {reason}.", status=200, reason=reason)

    def _answer(self, asked: str, body: Mapping[str, Any]) -> Answer:
        status = body.get("status")
        if not isinstance(status, str) or not status.strip():
            raise DoubtfulError("ZeroBounce answered a validation without a status; a credit may be gone.")
        raw = {
            str(key): _regular(value)
            for key, value in body.items()
            if str(key).lower() not in _SECRET_KEYS and value != self._key
        }
        return Answer(
            address=asked,
            status=status.strip().lower(),
            sub_status=_word(body.get("sub_status")),
            did_you_mean=str(body.get("did_you_mean") or "").strip(),
            at=_moment(body.get("processed_at")) or int(self._clock()),
            raw=raw,
        )

    def _clean(self, text: str) -> str:
        return redact(text, [self._key])

    def _host(self) -> str:
        return urlsplit(self.base_url).netloc

    def _wait_of(self, response: requests.Response) -> float:
        after = response.headers.get("Retry-After", "").strip()
        if after.isdigit():
            return float(after)
        try:
            return max(0.0, parsedate_to_datetime(after).timestamp() - self._clock())
        except (TypeError, ValueError):
            return DEFAULT_WAIT


class _Pace:
    """Lets one caller through each `interval` seconds, in whatever threads they come."""

    def __init__(self, interval: float, sleep: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._interval = interval
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self) -> None:
        with self._lock:
            now = self._clock()
            pause = self._free_at - now
            self._free_at = max(now, self._free_at) + self._interval
        if pause > 0:
            self._sleep(pause)


def _versioned(address: str) -> str:
    """With `/v2/` at its end, whether the setting names it or not."""
    return f"{address}/" if re.search(r"/v\d+$", address) else f"{address}/v2/"


def _never_sent(error: requests.RequestException) -> bool:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    if not isinstance(error, requests.exceptions.ConnectionError) or not error.args:
        return False
    return isinstance(getattr(error.args[0], "reason", None), NewConnectionError)


def _column(name: str) -> str:
    """`ZB First Name` → `firstname`, `ZB Did You Mean` → `did_you_mean`: as a single answer names it."""
    word = name.strip().lower().removeprefix("zb ").replace(" ", "_")
    return {"first_name": "firstname", "last_name": "lastname"}.get(word, word)


def _word(value: Any) -> str:
    text = str(value or "").strip().lower()
    return "" if text == "none" else text


def _regular(value: Any) -> Any:
    if isinstance(value, str):
        word = value.strip().lower()
        if word == "true":
            return True
        if word == "false":
            return False
    return value


def _moment(value: Any) -> int | None:
    """Seconds since 1970 of `YYYY-MM-DD HH:MM:SS.fff` (UTC) or ISO; None where there is no readable time."""
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())
