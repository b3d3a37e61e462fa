"""Takes secrets and addresses out of any text that people or logs may see: the one place that does."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The "@" of an address may be percent-encoded where it stands in a URL. The first character stays, so that people
# recognise their own contact; bounded, so that a megabyte without any "@" costs no time.
_ADDRESS = re.compile(
    r"([A-Za-z0-9!#$%'+^_`{|}~\u0080-\uffff.-])[^\s@\"<>(),;:=&?\\]{0,128}?(?:@|%40)([^\s@\"'<>(),;:&?\\/%]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")
_NAMED = re.compile(
    r"(?i)([\"']?\b(?:access_token|refresh_token|client_secret|secret|password|api_key|apikey|token)\b[\"']?\s*[=:]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s&,;}\"']+)"
)
_USERINFO = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/@]+@")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without the given secrets, tokens and passwords, and with every e-mail address masked."""
    for secret in sorted({secret for secret in secrets if len(secret) >= 3}, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USERINFO.sub(r"\1***@", text)
    text = _BEARER.sub(r"\1 ***", text)
    text = _NAMED.sub(r"\1***", text)
    return _ADDRESS.sub(r"\1***@\2", text)


def shorten(text: str, limit: int = 300) -> str:
    """The text on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
