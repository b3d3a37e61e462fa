"""Messages reach people as they were written, whatever carries them."""

from __future__ import annotations

import email
import smtplib
from email import policy
from html import unescape

import pytest

from mautic_sync.destinations import notifications

# What Apprise imports to know all its services.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture
def mails(monkeypatch):
    """What is handed to the mail server."""
    found: list[str] = []

    class Server:
        def __init__(self, *_args, **_more):
            pass

        def __getattr__(self, _name):
            return lambda *_args, **_more: None

        def sendmail(self, _sender, _to, message):
            found.append(message)

    monkeypatch.setattr(smtplib, "SMTP", Server)
    return found


def test_a_mail_keeps_its_lines_and_its_signs(mails):
    """Most people get mail: a digest of many lines is no single one, and an address stays what it is."""
    text = "- A & B is hot: https://shop.example/?a=1&copy=2 [k1]\n- C is hot [k2]"
    notifications.send("mailto://user:secret@example.com?to=pat@example.com", "mautic-sync: 2 messages in one", text)
    told = email.message_from_string(mails[0], policy=policy.default)
    part = told.get_body(("html", "plain"))
    shown = part.get_content().strip()
    if part.get_content_type() == "text/html":
        assert shown.count("<br") >= 1
        shown = "\n".join(line.strip() for line in unescape(shown).split("<br />"))
    assert text in shown
