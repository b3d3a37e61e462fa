"""Carries requests to Mautic and answers back, and sorts what goes wrong by what the worker does next.

A read is repeated while the fault is a passing one. A write is repeated only when it surely was not applied; when that
is unknown it ends in DoubtfulError. No redirect is followed, so credentials go nowhere but to `base_url`.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit, urlunsplit

import orjson
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import NewConnectionError

from mautic_sync.errors import (
    ConfigError,
    DoubtfulError,
    ForbiddenError,
    MauticSyncError,
    RefusedError,
    RetryError,
    StopError,
    UnreadableError,
)
from mautic_sync.mautic.auth import DEFAULT_LIFETIME, Basic, ClientCredentials, Credentials, Token
from mautic_sync.mautic.decoding import NotJsonError, decode
from mautic_sync.mautic.load import Change, Gate, Load, sort_of
from mautic_sync.mautic.redaction import redact, shorten

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]

ATTEMPTS = 5
CONNECT_TIMEOUT = 10.0  # seconds
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is left until the next run
MOST_SAID = 5_000  # characters of an error that are looked at
PASSING_STATUSES = frozenset({502, 503, 504})
BUSY_STATUSES = frozenset({429, 503, 504})  # too many requests, overloaded, too slow for what stands before it
OLDEST_FOR_WRITING = (5, 0, 0)
_DEADLOCK = ("sqlstate[40001]", "deadlock found", "lock wait timeout")
# Classes of MariaDB and MySQL for connections, transactions, interruptions, and errors without a class of their own.
_DATABASE_FAULT = re.compile(r"SQLSTATE\[(HY000|08\w{3}|40\w{3}|70\w{3})\]|server has gone away", re.IGNORECASE)
# The first words of a path and the right that it needs. docs/mautic.md: "Rights and versions"
_RIGHTS = {
    "contacts": ("lead:leads:viewown and viewother", "lead:leads:editown and editother"),
    "stages": ("stage:stages:view", "stage:stages:create, and lead:leads:editown and editother"),
    "stats": ("lead:leads:viewown", "lead:leads:editown"),
    "segments": ("lead:lists:viewother", "lead:lists:create"),
    "fields": ("lead:fields:view", "lead:fields:full"),
    "hooks": ("webhook:webhooks:viewown", "webhook:webhooks:create"),
    "points": ("point:points:view", "lead:leads:editown and editother"),
    "points/groups": ("point:groups:view", "point:groups:create"),
    "points/triggers": ("point:triggers:view", "point:triggers:edit"),
    "forms": ("form:forms:viewother", "form:forms:create"),
    "assets": ("asset:assets:viewother", "asset:assets:create"),
    "emails": ("email:emails:viewother", "email:emails:create"),
    "pages": ("page:pages:viewother", "page:pages:create"),
    "campaigns": ("campaign:campaigns:view", "campaign:campaigns:edit"),
    "notes": ("lead:leads:viewown and viewother", "that of an administrator (no role can be given the right to notes)"),
    "users": ("user:users:view", "user:users:edit"),
}


class _Passing(Exception):
    """A fault that another try may not meet; `then` is what it becomes when none of them helps."""

    def __init__(self, then: MauticSyncError, wait: float | None = None) -> None:
        super().__init__(str(then))
        self.then = then
        self.wait = wait


class _Header(AuthBase):
    """Sets the Authorization header; being an auth object it also keeps requests from asking .netrc for another."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


class Transport:
    """One Mautic, reached over a pool of connections; safe to share between threads.

    `version` is what Mautic calls itself, None until an answer has told; `calls` counts HTTP requests, tokens included,
    `writes` those that may change something, `repaired` the answers that were no clean JSON. `load` says how many
    requests may be in flight now, at most `concurrency`; `tell` is told when that changes.
    """

    attempts = ATTEMPTS
    """How often a call is made at most that fails for a passing reason."""

    def __init__(
        self,
        base_url: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        username: str | None = None,
        password: str | None = None,
        timeout: float = 60.0,
        concurrency: int = 2,
        verify_tls: bool = True,
        ca_bundle: str | None = None,
        allow_http: bool = False,
        user_agent: str = "mautic-sync/0.1.0",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        tell: Callable[..., None] | None = None,
    ) -> None:
        self.base_url = check_address(base_url, setting="mautic.base_url", allow_http=allow_http)
        self.concurrency = concurrency
        self.version: str | None = None
        self.calls = 0
        self.writes = 0
        self.repaired = 0
        self._timeout = (min(CONNECT_TIMEOUT, timeout), timeout)
        self._sleep = sleep
        self._clock = clock
        self._monotonic = monotonic
        self._tell = tell
        self._counting = threading.Lock()
        self._decoding = threading.Lock()
        self.load = Load(concurrency)
        # However many readings go on side by side, Mautic has no more to do at once than it was promised.
        self._gate = Gate(self.load)
        if verify_tls and ca_bundle is not None:
            check_certificates(ca_bundle)
        self._verify: bool | str = (ca_bundle or True) if verify_tls else False
        self._secrets = [secret for secret in (client_secret, password) if secret]
        self._session = _session(concurrency, user_agent)
        if is_loopback(self.base_url):
            self._session.trust_env = False  # a proxy of the environment cannot reach our own loopback
        self._credentials: Credentials
        self.server_user: str | None = None
        if client_id and client_secret:
            self._client = (client_id, client_secret)
            self._credentials = ClientCredentials(self._fetch_token, clock)
            # Client ids are `<row>_<random>`; the audit log shows `<client name> [<row>]`.
            self.server_user = f"[{client_id.partition('_')[0]}]"
        elif username and password:
            self._credentials = Basic(username, password)
            self._secrets.append(self._credentials.header().removeprefix("Basic "))
        else:
            raise ConfigError(
                "Mautic has no credentials: set mautic.client_id and mautic.client_secret "
                "(or mautic.username and mautic.password)."
            )

    def usual_latencies(self) -> dict[str, float]:
        """What `load.remember` takes in a later run."""
        return self._gate.usual()

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def is_own(self, user_name: str) -> bool:
        """Whether an audit row with this `user_name` was written by our own OAuth client."""
        return self.server_user is not None and user_name.endswith(f" {self.server_user}")

    def read(self, path: str, params: Params = (), *, shape: Callable[[Any], Any] | None = None) -> Any:
        """What `GET /api/<path>` answers, or what `shape` makes of it.

        A large page is shaped before the next is decoded: so only one at a time takes ten times its size.

        Raises StopError (unreachable, credentials, rights, no Mautic), RetryError (a fault that outlasted its retries)
        and RefusedError (any other no, errors inside a 200 included).
        """
        doing = f"reading {_shown(path)} from Mautic"
        return self._persist(lambda: self._read_once(path, params, doing, shape))

    def write(self, method: str, path: str, json: Any = None) -> Any:
        """What `<method> /api/<path>` answers.

        Raises DoubtfulError when it may have been applied (time-out, broken connection, 5xx, an answer that cannot be
        read), else StopError, RetryError and RefusedError as `read` does: then nothing was changed by this call.
        """
        doing = f"writing {method} {_shown(path)} to Mautic"
        with self._counting:
            self.writes += 1
        body = self._persist(lambda: self._write_once(method, path, json, doing))
        _raise_errors_in(body, path, doing, self._clean, writing=True)
        return body

    # -- one exchange ---------------------------------------------------------------------------------------------

    def _read_once(self, path: str, params: Params, doing: str, shape: Callable[[Any], Any] | None) -> Any:
        pairs = list(params.items()) if isinstance(params, Mapping) else list(params)

        def send(header: str) -> requests.Response:
            try:
                return self._send("GET", self._api(path), header, params=pairs)
            except requests.RequestException as error:
                self._fail_read(error, doing)

        response = self._authorised(send, path, doing, writing=False)
        if response.status_code in PASSING_STATUSES or (response.status_code == 500 and _is_deadlock(response.text)):
            self._raise_passing(response, f"While {doing}, Mautic answered {response.status_code}", NEXT_RUN)
        self._raise_refusal(response, doing, writing=False)
        with self._decoding:
            try:
                body = self._decoded(response)
            except NotJsonError:
                if _is_html(response):
                    raise self._html(doing) from None
                raise _Passing(
                    RetryError(f"While {doing}, the answer was cut off or no JSON, also when asked again. {NEXT_RUN}")
                ) from None
            _raise_errors_in(body, path, doing, self._clean, writing=False)
            return body if shape is None else shape(body)

    def _write_once(self, method: str, path: str, json: Any, doing: str) -> Any:
        data = None if json is None else orjson.dumps(json)

        def send(header: str) -> requests.Response:
            try:
                return self._send(method, self._api(path), header, data=data)
            except requests.RequestException as error:
                if _never_sent(error):
                    self._fail_read(error, doing)
                raise DoubtfulError(
                    f"While {doing}, {_fault(error)}: the change may have been made, or may still be. "
                    "It is looked up before anything else is written there."
                ) from None

        response = self._authorised(send, path, doing, writing=True)
        status = response.status_code
        if status >= 500 or (status >= 400 and is_database_fault(response.text)):
            # A failing webhook, or a broken connection to the database, can turn a stored change into an error.
            # docs/mautic.md: "Writing"
            said = self._said(response, prefix="")
            raise DoubtfulError(
                f"While {doing}, Mautic answered {status}{f' ({said})' if said else ''}. The change may have been made: "
                "it is looked up before anything else is written there."
            )
        self._raise_refusal(response, doing, writing=True)
        try:
            return self._decoded(response)
        except NotJsonError:
            raise DoubtfulError(
                f"While {doing}, Mautic answered {status} with something that is no JSON"
                f"{' but a page' if _is_html(response) else ''}: whether the change was made is unknown. "
                "It is looked up before anything else is written there."
            ) from None

    def _authorised(
        self, send: Callable[[str], requests.Response], path: str, doing: str, *, writing: bool
    ) -> requests.Response:
        """Sends with valid credentials, once more after a token that Mautic no longer takes: a 401 changes nothing."""
        header = self._credentials.header()
        response = send(header)
        if response.status_code == 401 and self._credentials.renew(header):
            response = send(self._credentials.header())
        self._raise_for_everyone(response, path, doing, writing=writing)
        return response

    def _send(
        self,
        method: str,
        url: str,
        header: str | None,
        *,
        params: Iterable[tuple[str, Any]] | None = None,
        data: bytes | Mapping[str, str] | None = None,
    ) -> requests.Response:
        with self._counting:
            self.calls += 1
        headers = {"Content-Type": "application/json"} if isinstance(data, bytes) else None
        pairs = list(params) if params is not None else []
        with self._gate:
            # Whoever holds a place waits in it: while Mautic wants to be left alone, nobody sends anything.
            pause = self._gate.pause(self._monotonic())
            if pause > 0:
                self._sleep(pause)
            began = self._monotonic()
            try:
                response = self._session.request(
                    method,
                    url,
                    params=pairs or None,
                    data=data,
                    headers=headers,
                    auth=_Header(header),
                    timeout=self._timeout,
                    allow_redirects=False,
                    verify=self._verify,
                )
            except requests.exceptions.ReadTimeout:
                self._heed(self._gate.refused(began, self._monotonic(), None))
                raise
            self._weigh(
                response, sort_of(method, url.removeprefix(self.base_url), len(pairs), len(response.content)), began
            )
        version = response.headers.get("Mautic-Version")
        if version and self.version != version:
            self.version = version
        return response

    def _weigh(self, response: requests.Response, sort: str, began: float) -> None:
        """What this answer tells of the load on Mautic."""
        ended = self._monotonic()
        if response.status_code in BUSY_STATUSES:
            wait = self._wait_of(response)
            # Whoever meets a longer one gives up, and so do the others when they ask.
            self._heed(self._gate.refused(began, ended, wait if wait is not None and wait <= LONGEST_WAIT else None))
        elif response.status_code < 400:
            self._heed(self._gate.answered(sort, began, ended))

    def _heed(self, change: Change | None) -> None:
        if change is not None and self._tell is not None:
            self._tell("load", allowed=change.allowed, before=change.before, most=self.load.most, cause=change.cause)

    def _persist(self, once: Callable[[], Any]) -> Any:
        retrying = Retrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(self.attempts),
            wait=self._wait_before,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(once)
        except _Passing as passing:
            raise passing.then from None

    def _wait_before(self, state: RetryCallState) -> float:
        """Seconds before the next attempt."""
        return _wait(state)

    def _fetch_token(self) -> Token:
        doing = "asking Mautic for an access token"
        client_id, client_secret = self._client
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}

        def once() -> Token:
            asked_at = self._clock()
            try:
                response = self._send("POST", f"{self.base_url}/oauth/v2/token", None, data=form)
            except requests.RequestException as error:
                self._fail_read(error, doing)
            self._raise_for_everyone(response, "", doing, writing=False)
            if response.status_code >= 500:
                self._raise_passing(response, f"While {doing}, it answered {response.status_code}", NEXT_RUN)
            try:
                body = self._decoded(response)
            except NotJsonError:
                raise self._html(doing) from None
            if response.status_code == 200 and isinstance(body, dict) and isinstance(body.get("access_token"), str):
                lifetime = body.get("expires_in")
                seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else DEFAULT_LIFETIME
                return Token(body["access_token"], asked_at + seconds)
            if "invalid_client" in _types(body):
                raise StopError(
                    "Mautic does not know this OAuth2 client: check mautic.client_id and mautic.client_secret "
                    "against Settings → API Credentials in Mautic (grant type: client credentials)."
                )
            raise StopError(
                f"While {doing}, it answered {response.status_code}{self._said(response)}. "
                "Check mautic.base_url, mautic.client_id and mautic.client_secret."
            )

        token = self._persist(once)
        if not isinstance(token, Token):  # pragma: no cover - for the type checker
            raise TypeError(token)
        return token

    # -- what an answer means -------------------------------------------------------------------------------------

    def _raise_for_everyone(self, response: requests.Response, path: str, doing: str, *, writing: bool) -> None:
        """What means the same for reads, writes and tokens, and surely changed nothing: 3xx, 401, 403, 429."""
        status = response.status_code
        if 300 <= status < 400:
            raise StopError(self._redirected(response, doing))
        if status == 429:
            slower = "Lower mautic.concurrency or raise the rate limit in Mautic; the next run tries again."
            self._raise_passing(response, f"While {doing}, Mautic answered 429 (too many requests)", slower)
        if status == 401:
            raise StopError(
                f"While {doing}, Mautic refused the credentials{self._said(response)}. Check "
                + (
                    "mautic.client_id and mautic.client_secret."
                    if isinstance(self._credentials, ClientCredentials)
                    else "mautic.username and mautic.password, and that Basic Auth is enabled "
                    "(Settings → Configuration → API Settings)."
                )
            )
        if status == 403:
            self._raise_forbidden(response, path, doing, writing=writing)

    def _raise_passing(self, response: requests.Response, told: str, then: str) -> NoReturn:
        """What another try may not meet; no other is made where the server asks to wait for longer than a run does."""
        wait = self._wait_of(response)
        if wait is not None and wait > LONGEST_WAIT:
            raise RetryError(f"{told} and asks to wait {wait:.0f} s. {then}")
        raise _Passing(RetryError(f"{told}, also when asked again. {then}"), wait)

    def _raise_forbidden(self, response: requests.Response, path: str, doing: str, *, writing: bool) -> NoReturn:
        text = response.text
        if "api_disabled" in text:
            raise StopError(
                f"While {doing}: the API is switched off. Enable it in Mautic under Settings → Configuration → "
                "API Settings, then clear Mautic's cache."
            )
        if "basic auth disabled" in text.lower():
            raise StopError(
                f"While {doing}: Basic Auth disabled. Enable it in Mautic under Settings → Configuration → API Settings, "
                "or set mautic.client_id and mautic.client_secret."
            )
        if _is_html(response):
            raise ForbiddenError(
                f"While {doing}, a page with status 403 came back: what stands before Mautic (a firewall, a proxy) did not "
                f"let it through; its log knows why. Or {missing_right(path, writing=writing)}"
            )
        raise ForbiddenError(f"While {doing}, Mautic answered 403: {missing_right(path, writing=writing)}")

    def _raise_refusal(self, response: requests.Response, doing: str, *, writing: bool) -> None:
        status = response.status_code
        if status < 400:
            return
        if not writing and _is_html(response):
            raise self._html(doing)
        reason = self._said(response, prefix="")
        raise RefusedError(
            f"While {doing}, Mautic answered {status}: {reason or 'without a reason'}.", status=status, reason=reason
        )

    def _redirected(self, response: requests.Response, doing: str) -> str:
        target = urlsplit(response.headers.get("Location", ""))
        where = (
            urlunsplit((target.scheme, target.hostname or "", target.path, "", "")) if target.hostname else target.path
        )
        if self.base_url.startswith("http://") and target.scheme == "https":
            return (
                f"While {doing}: Mautic redirects http to https ({where}). Set mautic.base_url to the https address; "
                "the credentials have just crossed the network unencrypted."
            )
        return (
            f"While {doing}: the answer was a redirect ({response.status_code}) to {self._clean(where) or 'nowhere'}. "
            "Set mautic.base_url to the address at which Mautic answers itself."
        )

    def _html(self, doing: str) -> UnreadableError:
        return UnreadableError(
            f"While {doing}, a page came back instead of JSON. Is the API enabled (Settings → Configuration → API "
            f"Settings), and is there a Mautic at {self.base_url} (mautic.base_url)?"
        )

    def _fail_read(self, error: requests.RequestException, doing: str) -> NoReturn:
        if _is_untrusted(error):
            raise StopError(
                f"While {doing}: the certificate of {self._host()} is not trusted. Set mautic.ca_bundle to the "
                "certificate of your authority (or, knowing the risk, mautic.verify_tls = false)."
            ) from None
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
            raise StopError(f"While {doing}: mautic.base_url is no address that can be called.") from None
        if _never_sent(error):
            raise _Passing(
                StopError(
                    f"While {doing}, {self._host()} could not be reached: {_fault(error)}. "
                    "Check mautic.base_url, the network, and that Mautic is up."
                )
            ) from None
        raise _Passing(RetryError(f"While {doing}, {_fault(error)}, also when asked again. {NEXT_RUN}")) from None

    # -- small things ---------------------------------------------------------------------------------------------

    def _api(self, path: str) -> str:
        return f"{self.base_url}/api/{_shown(path)}"

    def _host(self) -> str:
        parts = urlsplit(self.base_url)
        return parts.netloc

    def _clean(self, text: str) -> str:
        return redact(text, self._secrets)

    def _said(self, response: requests.Response, *, prefix: str = ": ") -> str:
        """What Mautic gives as the reason, shortened, without addresses and secrets; blank when it gives none."""
        try:
            body, _ = decode(response.content)
        except NotJsonError:
            return ""
        messages = list(_messages(body))
        return prefix + shorten(self._clean("; ".join(messages)[:MOST_SAID])).rstrip(".!") if messages else ""

    def _decoded(self, response: requests.Response) -> Any:
        value, repaired = decode(response.content)
        if repaired:
            with self._counting:
                self.repaired += 1
        return value

    def _wait_of(self, response: requests.Response) -> float | None:
        """Seconds that the server asks us to wait, by its own clock where it shows one."""
        after = response.headers.get("Retry-After", "").strip()
        if after.isdigit():
            return float(after)
        now = moment_of(response.headers.get("Date")) or self._clock()
        if after:
            moment = moment_of(after)
            return max(0.0, moment - now) if moment is not None else None
        reset = response.headers.get("X-RateLimit-Reset", "").strip()
        return max(0.0, float(reset) - now) if reset.isdigit() else None


NEXT_RUN = "The next run tries again."


def check_address(address: str, *, setting: str, allow_http: bool) -> str:
    """The address without a trailing slash; ConfigError naming `setting` where it cannot or must not be called."""
    address = address.strip()
    try:
        parts = urlsplit(address)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{setting} is no address: write https://mautic.example.com.") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"{setting} must begin with https:// and name a host, such as https://mautic.example.com.")
    if parts.username or parts.password:
        raise ConfigError(f"{setting} contains a user name or password: they belong in settings of their own.")
    if parts.query or parts.fragment:
        raise ConfigError(f"{setting} must end with the path: no '?' and no '#'.")
    address = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    if parts.scheme == "http" and not allow_http and not is_loopback(address):
        raise ConfigError(
            f"{setting} is plain http, which shows credentials and addresses to the network: use https"
            + (
                ", or set mautic.allow_http = true inside a network of your own."
                if setting.startswith("mautic")
                else "."
            )
        )
    return address


def check_certificates(path: str) -> None:
    """ConfigError where this file holds nothing that TLS could trust."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        reason = "there is no certificate in PEM form in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"mautic.ca_bundle: {path} cannot be used: {reason}.") from error


def is_loopback(address: str) -> bool:
    """Whether the address names this machine."""
    host = (urlsplit(address).hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_version(text: str) -> tuple[int, ...]:
    """`5.1.0-beta2` → `(5, 1, 0)`."""
    numbers = []
    for part in text.split("-", maxsplit=1)[0].split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def refuse_old(version: str | None) -> None:
    """StopError when Mautic is older than what writing was tried with. docs/mautic.md: "Rights and versions"."""
    if version is None:
        return
    numbers = parse_version(version)
    if numbers and numbers < OLDEST_FOR_WRITING[: len(numbers)]:
        raise StopError(
            f"This Mautic is {version}; writing needs 5.0 or newer (older ones merge contacts silently on an edit). "
            "Set push.enabled = false to read only, or update Mautic."
        )


def missing_right(path: str, *, writing: bool) -> str:
    """Which right a 403 at this path is most likely about, and where to give it."""
    first, _, rest = _shown(path).partition("/")
    second = f"{first}/{rest.partition('/')[0]}"
    view, edit = _RIGHTS.get(second) or _RIGHTS.get(first) or ("the right to view this", "the right to edit this")
    return (
        f"a right is missing, most likely {edit if writing else view}. Give it to the role of the API user "
        "(Settings → Roles); an OAuth2 client has the role of who made it."
    )


def _session(concurrency: int, user_agent: str) -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=max(concurrency, 1) + 2, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # PHP locks a session for as long as a request lasts: with its cookie, requests would queue behind each other.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update({"User-Agent": user_agent, "Accept": "application/json"})
    return session


_backoff = wait_random_exponential(multiplier=0.5, max=20)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, _Passing) and error.wait is not None:
        return error.wait + 0.5
    return _backoff(state)


def _shown(path: str) -> str:
    return path.strip("/").removeprefix("api/").partition("?")[0]


def _never_sent(error: requests.RequestException) -> bool:
    """Whether the request surely did not reach the server: no connection was ever made."""
    if isinstance(error, requests.exceptions.ConnectTimeout) or _is_untrusted(error):
        return True
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return True
    if not isinstance(error, requests.exceptions.ConnectionError) or not error.args:
        return False
    return isinstance(getattr(error.args[0], "reason", None), NewConnectionError)


def _is_untrusted(error: requests.RequestException) -> bool:
    """Whether the handshake failed over the certificate: other TLS faults may come after the request was sent."""
    return isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower()


def _fault(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no connection was made in time"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer came in time (mautic.timeout)"
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if reason is not None and type(reason).__name__ == "NameResolutionError":
        return "its name is not known to DNS"
    if isinstance(reason, NewConnectionError):
        return "the connection was refused"
    return "the connection broke"


def _is_html(response: requests.Response) -> bool:
    kind = response.headers.get("Content-Type", "").lower()
    return "html" in kind or response.content[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _is_deadlock(text: str) -> bool:
    lowered = text[:10_000].lower()
    return any(sign in lowered for sign in _DEADLOCK)


def is_database_fault(text: str) -> bool:
    """Whether an answer tells that Mautic's database failed, and not that it did not like a value: the change may have
    been stored before.
    """
    return _is_deadlock(text) or _DATABASE_FAULT.search(text[:10_000]) is not None


def _errors(body: Any) -> list[Mapping[str, Any]]:
    errors = body.get("errors") if isinstance(body, Mapping) else None
    if isinstance(errors, Mapping):
        errors = list(errors.values())
    if isinstance(errors, list):
        return [error if isinstance(error, Mapping) else {"message": str(error)} for error in errors]
    return []


def _messages(body: Any) -> Iterable[str]:
    for error in _errors(body):
        message = error.get("message")
        if isinstance(message, str) and message:
            yield message


def _types(body: Any) -> set[str]:
    return {str(error.get("type")) for error in _errors(body)}


def _raise_errors_in(body: Any, path: str, doing: str, clean: Callable[[str], str], *, writing: bool) -> None:
    """Feeds answer 200 with nothing but `errors`. docs/mautic.md: "Shapes that surprise"."""
    if not isinstance(body, Mapping) or set(body) != {"errors"} or not body["errors"]:
        return
    codes = [error.get("code") for error in _errors(body)]
    if 403 in codes:
        raise ForbiddenError(f"While {doing}, Mautic answered 403: {missing_right(path, writing=writing)}")
    reason = shorten(clean("; ".join(_messages(body))[:MOST_SAID]))
    code = next((code for code in codes if isinstance(code, int) and 400 <= code < 600), 400)
    if writing and code >= 500:
        raise DoubtfulError(f"While {doing}, Mautic answered with an error ({code}: {reason}): it may have been done.")
    raise RefusedError(f"While {doing}, Mautic answered with an error: {reason}.", status=code, reason=reason)


def moment_of(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
