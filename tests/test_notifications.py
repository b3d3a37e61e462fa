"""Messages reach people as they were written, whatever carries them."""

from __future__ import annotations

import email
import smtplib
from email import policy
from html import unescape

import orjson
import pytest
import responses

from mautic_sync.destinations import notifications

# What Apprise imports to know all its services.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

DISCORD = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"
LONGEST_IN_DISCORD = 2_000


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


@pytest.fixture
def posts():
    """What a chat was told: it takes everything."""
    with responses.RequestsMock() as chat:
        chat.post("https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", status=204)
        yield lambda: [orjson.loads(call.request.body)["content"] for call in chat.calls]


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


def digest() -> str:
    return "\n".join(
        f"- become hot: Pat {number} is hot: Reads pricing 6 [become-hot-{number:012}]" for number in range(50)
    )


def test_a_digest_that_is_too_long_for_a_chat_comes_in_parts(posts):
    """Discord refuses what is longer than 2,000 characters, and all of its messages would be lost."""
    notifications.send(DISCORD, "mautic-sync: 50 messages in one", digest())
    parts = posts()
    assert len(parts) > 1
    assert max(map(len, parts)) <= LONGEST_IN_DISCORD
    assert all(f"become-hot-{number:012}" in "".join(parts) for number in range(50))


def test_an_address_says_itself_what_becomes_of_what_is_too_long(posts):
    """Apprise's own `overflow` is obeyed."""
    notifications.send(f"{DISCORD}?overflow=truncate", "mautic-sync: 50 messages in one", digest())
    assert len(posts()) == 1
