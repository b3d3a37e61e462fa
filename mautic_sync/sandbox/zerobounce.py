"""The simulated ZeroBounce: scripted answers, the vendor's test addresses, and a rule for everything else."""

import csv
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from .http import Request, Response
from .instance import Instance

_PLENTY = 1_000_000
_NO_KEY = "Invalid API key or your account ran out of credits"
_MAX_BATCH = 100
#: Test addresses at example.com: (status, sub_status).
_TEST: dict[str, tuple[str, str]] = {
    "valid": ("valid", ""), "free_email": ("valid", ""), "gold": ("valid", "gold"), "catch_all": ("catch-all", ""),
    "leading_period_removed": ("valid", "leading_period_removed"),
    "role_based_accept_all": ("valid", "role_based_accept_all"), "invalid": ("invalid", "mailbox_not_found"),
    "spamtrap": ("spamtrap", ""), "abuse": ("abuse", ""), "donotmail": ("do_not_mail", "role_based"),
    "unknown": ("unknown", "mail_server_temporary_error"),
    **{
        name: ("invalid", name)
        for name in ["mailbox_not_found", "does_not_accept_mail", "failed_syntax_check", "mailbox_quota_exceeded", "no_dns_entries", "possible_typo", "unroutable_ip_address"]
    },
    **{
        name: ("do_not_mail", name)
        for name in ["role_based", "role_based_catch_all", "disposable", "toxic", "global_suppression", "possible_trap"]
    },
    **{
        name: ("unknown", name)
        for name in ["antispam_system", "exception_occurred", "failed_smtp_connection", "forcible_disconnect", "greylisted", "mail_server_did_not_respond", "mail_server_temporary_error", "timeout_exceeded"]
    },
}  # fmt: skip
_TEST_IP = "99.110.204.1"
_TEST_PLACE = {"city": "Oakland", "region": "California", "zipcode": "94601", "country": "United States"}
TYPOS = {
    "gmial.com": "gmail.com", "gmai.com": "gmail.com", "gamil.com": "gmail.com", "hotmial.com": "hotmail.com",
    "outlok.com": "outlook.com", "yaho.com": "yahoo.com", "gmx.dee": "gmx.de", "web.dee": "web.de",
}  # fmt: skip
DISPOSABLE = frozenset(
    [
        "mailinator.com",
        "guerrillamail.com",
        "tempmail.example",
        "trashmail.com",
        "yopmail.com",
        "10minutemail.com",
        "discard.email",
    ]
)
CATCH_ALL = frozenset(["catchall.example", "acceptall.example", "anything.example"])
DEAD = frozenset(["gone.example", "no-such-domain.example", "closed-shop.example"])
FREE = frozenset(
    ["gmail.com", "outlook.com", "hotmail.com", "yahoo.com", "gmx.de", "web.de", "icloud.com", "proton.me", "posteo.de"]
)
_ROLES = frozenset(["noreply", "no-reply", "abuse", "postmaster", "mailer-daemon"])
_SYNTAX = re.compile(r"^[^@\s]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}$")
#: How the hash of an address decides, in per mille.
_SHARES: tuple[tuple[int, tuple[str, str]], ...] = (
    (750, ("valid", "")), (765, ("valid", "alias_address")), (790, ("catch-all", "")),
    (860, ("invalid", "mailbox_not_found")), (880, ("invalid", "does_not_accept_mail")),
    (890, ("invalid", "mailbox_quota_exceeded")), (905, ("do_not_mail", "global_suppression")),
    (915, ("do_not_mail", "possible_trap")), (922, ("spamtrap", "")), (932, ("abuse", "")),
    (955, ("unknown", "greylisted")), (975, ("unknown", "mail_server_temporary_error")),
    (990, ("unknown", "timeout_exceeded")), (1000, ("valid", "accept_all")),
)  # fmt: skip


@dataclass
class Upload:
    """A file on its way through the bulk API."""

    name: str
    head: list[str]
    rows: list[list[str]]
    answers: list[dict[str, Any]]
    polls: int = 0


class ZeroBounce:
    """Answers under /zerobounce."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.credits = _PLENTY
        self.scripted: dict[str, dict[str, Any]] = {}
        self.usage: dict[str, int] = {}
        self.uploads: dict[str, Upload] = {}
        #: a file is complete when it is asked for so often
        self.polls_needed = 2
        #: addresses that a result leaves out
        self.left_out: set[str] = set()

    def answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/zerobounce").removeprefix("/v2").strip("/")
        handler = {
            "validate": self._validate, "validatebatch": self._batch, "getcredits": self._credits,
            "getapiusage": self._usage, "sendfile": self._send_file, "filestatus": self._file_status,
            "getfile": self._get_file, "deletefile": self._delete_file,
        }.get(path)  # fmt: skip
        if handler is None:
            return Response(404, b'{"Message":"No HTTP resource was found that matches the request URI."}')
        with self._instance.lock:
            return handler(request, _parameters(request))

    # -- single and batch

    def _validate(self, _request: Request, sent: dict[str, Any]) -> Response:
        if not self._opens(sent) or self.credits <= 0:
            return _json({"error": _NO_KEY})
        if not sent.get("email"):
            return _json({"error": "Invalid input parameters. Missing parameter: email."}, 400)
        return _json(self.verdict(str(sent["email"]), str(sent.get("ip_address") or "")))

    def _batch(self, _request: Request, sent: dict[str, Any]) -> Response:
        entries = sent.get("email_batch")
        if not self._opens(sent) or self.credits <= 0:
            return _json({"email_batch": [], "errors": [{"error": _NO_KEY, "email_address": "all"}]})
        if not isinstance(entries, list) or len(entries) > _MAX_BATCH:
            text = f"The batch may hold up to {_MAX_BATCH} addresses."
            return _json({"email_batch": [], "errors": [{"error": text, "email_address": "all"}]})
        answers, errors = [], []
        for entry in entries:
            address = str(entry.get("email_address") or "")
            if self.credits <= 0:
                errors.append({"error": _NO_KEY, "email_address": address})
            else:
                answers.append(self.verdict(address, str(entry.get("ip_address") or "")))
        answers.sort(key=lambda a: hashlib.sha256(str(a["address"]).encode()).digest())  # the order is not promised
        return _json({"email_batch": answers, "errors": errors})

    def verdict(self, address: str, ip: str = "") -> dict[str, Any]:
        """The answer for an address; spends its credit."""
        key = address.strip().lower()
        answer = self._decide(address, key, ip) | self.scripted.get(key, {})
        status = str(answer["status"])
        self.usage[status] = self.usage.get(status, 0) + 1
        spent = self._instance.books.credits_spent
        if status != "unknown" and not is_test_address(key):
            self.credits -= 1
            spent[key] = spent.get(key, 0) + 1
        elif status == "unknown":
            spent.setdefault(key, 0)
        return answer

    def _decide(self, address: str, key: str, ip: str) -> dict[str, Any]:
        local, _, domain = key.rpartition("@")
        status, sub_status = classify(key)
        digest = _digest(key)
        exists = domain not in DEAD and bool(domain)
        place = dict(_TEST_PLACE) if ip == _TEST_IP else dict.fromkeys(_TEST_PLACE)
        names = re.findall(r"[a-z]+", local)
        known_person = status == "valid" and digest % 3 == 0
        return {
            "address": address, "status": status, "sub_status": sub_status,
            "free_email": domain in FREE if digest % 2 else str(domain in FREE).lower(),
            "did_you_mean": f"{local}@{TYPOS[domain]}" if domain in TYPOS else None,
            "account": local, "domain": domain, "domain_age_days": str(100 + digest % 9000) if exists else None,
            "catchall_domain": domain in CATCH_ALL if exists else None,
            "smtp_provider": "g-suite" if domain == "gmail.com" else "" if not exists else "microsoft",
            "mx_found": "true" if exists else "false", "mx_record": f"mx.{domain}" if exists else "",
            "firstname": names[0].title() if known_person and names else None,
            "lastname": names[1].title() if known_person and len(names) > 1 else None, "gender": None, **place,
            "active_in_days": str(digest % 365) if status == "valid" else None, "active_first_seen": None,
            "processed_at": self._instance.clock.now().astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        }  # fmt: skip

    def _opens(self, sent: Mapping[str, Any]) -> bool:
        return str(sent.get("api_key") or "") == self._instance.credentials.zerobounce_key

    def _credits(self, _request: Request, sent: dict[str, Any]) -> Response:
        return _json({"Credits": str(self.credits) if self._opens(sent) else "-1"})

    def _usage(self, _request: Request, sent: dict[str, Any]) -> Response:
        if not self._opens(sent):
            return _json({"error": _NO_KEY})
        statuses = {f"status_{s.replace('-', '_')}": n for s, n in self.usage.items()}
        answer = {"total": sum(self.usage.values()), **statuses}
        return _json(answer | {"start_date": sent.get("start_date"), "end_date": sent.get("end_date")})

    # -- files

    def _send_file(self, request: Request, sent: dict[str, Any]) -> Response:
        if not self._opens(sent) or self.credits <= 0:
            return _json({"success": False, "message": _NO_KEY, "error_message": _NO_KEY})
        name, content = request.file_names.get("file", ""), request.parts.get("file", ("", b""))[0]
        has_header = str(sent.get("has_header_row", "true")).lower() == "true"
        rows = list(csv.reader(io.StringIO(content)))
        column = int(sent.get("email_address_column") or 0)
        if not rows or column < 1:
            return _json({"success": False, "message": ["Error: the file or the e-mail column is missing."]}, 400)
        file_id = f"{self._instance.hex(8)}-{self._instance.hex(4)}-4{self._instance.hex(3)}-a{self._instance.hex(3)}"
        file_id += f"-{self._instance.hex(12)}"
        if has_header:
            head, *rows = rows
        else:
            head = [f"Column {i + 1}" for i in range(len(rows[0]))]
        rows = [row for row in rows if len(row) >= column]
        if len(rows) > self.credits:
            return _json({"success": False, "message": _NO_KEY, "error_message": _NO_KEY})
        # Paid for from now on, whether anybody asks for it or not, and each row for itself.
        self.uploads[file_id] = Upload(name, head, rows, [self.verdict(row[column - 1]) for row in rows])
        return _json({"success": True, "message": "File Accepted", "file_name": name, "file_id": file_id})

    def _file_status(self, _request: Request, sent: dict[str, Any]) -> Response:
        upload = self.uploads.get(str(sent.get("file_id")))
        if not self._opens(sent) or upload is None:
            return _json({"success": False, "error_message": "file_id is invalid."})
        upload.polls += 1
        complete = upload.polls >= self.polls_needed
        return _json(
            {
                "success": True, "file_id": sent["file_id"], "file_name": upload.name,
                "upload_date": datetime.now(UTC).isoformat(), "file_status": "Complete" if complete else "Processing",
                "complete_percentage": "100%" if complete else "50%", "error_reason": None, "return_url": None,
            }
        )  # fmt: skip

    def _get_file(self, _request: Request, sent: dict[str, Any]) -> Response:
        upload = self.uploads.get(str(sent.get("file_id")))
        if not self._opens(sent) or upload is None or upload.polls < self.polls_needed:
            return _json({"success": False, "message": "File cannot be found."})
        added = ("ZB Status", "ZB Sub Status", "ZB Account", "ZB Domain", "ZB First Name", "ZB Last Name", "ZB Free Email",
                 "ZB MX Found", "ZB MX Record", "ZB SMTP Provider", "ZB Did You Mean")  # fmt: skip
        keys = ("status", "sub_status", "account", "domain", "firstname", "lastname", "free_email", "mx_found",
                "mx_record", "smtp_provider", "did_you_mean")  # fmt: skip
        out = io.StringIO()
        writer = csv.writer(out, quoting=csv.QUOTE_ALL)
        writer.writerow([*upload.head, *added])
        for row, answer in zip(upload.rows, upload.answers, strict=True):
            if str(answer["address"]).strip().lower() in self.left_out:
                continue
            writer.writerow([*row, *("" if answer[k] is None else str(answer[k]) for k in keys)])
        return Response(200, out.getvalue().encode(), "application/octet-stream")

    def _delete_file(self, _request: Request, sent: dict[str, Any]) -> Response:
        gone = self.uploads.pop(str(sent.get("file_id")), None) if self._opens(sent) else None
        if gone is None:
            return _json({"success": False, "message": "File cannot be found."})
        return _json({"success": True, "message": "File Deleted", "file_name": gone.name, "file_id": sent["file_id"]})


def classify(address: str) -> tuple[str, str]:
    """Status and sub-status of an address by the sandbox's rule; the same address gets the same answer for ever."""
    local, _, domain = address.rpartition("@")
    if is_test_address(address):
        return _TEST[local]
    if not _SYNTAX.match(address):
        return "invalid", "failed_syntax_check"
    if domain in TYPOS:
        return "invalid", "possible_typo"
    if domain in DISPOSABLE:
        return "do_not_mail", "disposable"
    if domain in CATCH_ALL:
        return "catch-all", ""
    if domain in DEAD:
        return "invalid", "no_dns_entries"
    if local in _ROLES:
        return "do_not_mail", "role_based"
    drawn = _digest(address) % 1000
    return next(answer for limit, answer in _SHARES if drawn < limit)


def is_test_address(address: str) -> bool:
    """The vendor's own addresses are free."""
    local, _, domain = address.rpartition("@")
    return domain == "example.com" and local in _TEST


def _digest(address: str) -> int:
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:4], "big")


def _parameters(request: Request) -> dict[str, Any]:
    sent: dict[str, Any] = dict(request.query)
    if request.body[:1] in {b"{", b"["}:
        try:
            found = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return sent
        return sent | found if isinstance(found, dict) else sent
    return sent | request.form if request.body else sent


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value))
