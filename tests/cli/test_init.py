"""`init` at a terminal: a pseudo-terminal, a real process, answers typed one after the other."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import tomllib
from typing import Self

import pytest

from mautic_sync.cli.provisioning import with_answers
from mautic_sync.sandbox import Sandbox

INIT = (sys.executable, "-m", "mautic_sync", "init")
PATIENCE = 60
# With the space behind them: it is shown when typing is not, and what was typed before is thrown away.
SECRET = "Client secret (secret key): "
KEY = "ZeroBounce API key (empty: addresses are not checked) []: "


class Terminal:
    """A process at a terminal of its own, and what it has shown."""

    def __init__(self, directory, *command: str, **more: str) -> None:
        ours, theirs = pty.openpty()
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAUTIC_SYNC_")}
        env.update(more, TERM="dumb")
        self.process = subprocess.Popen(command, cwd=directory, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._terminal = ours
        self.shown = ""
        self._seen = 0

    def wait_for(self, text: str) -> None:
        while text not in self.shown[self._seen :]:
            assert self._read(), f"no {text!r} in:\n{self.shown}"
        self._seen = self.shown.index(text, self._seen) + len(text)

    def answer(self, question: str, answer: str) -> None:
        self.wait_for(question)
        os.write(self._terminal, f"{answer}\n".encode())

    def end(self) -> int:
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], PATIENCE)
        try:
            new = os.read(self._terminal, 65_536) if ready else b""
        except OSError:  # the process has ended
            new = b""
        self.shown += new.decode(errors="replace")
        return bool(new)


@pytest.fixture(scope="module")
def box():
    with Sandbox(contacts=20, seed=4) as box:
        yield box


def test_each_answer_is_tried_before_anything_is_written(tmp_path, box):
    typed_at = Terminal(tmp_path, *INIT, MAUTIC_SYNC_ZEROBOUNCE__BASE_URL=box.zerobounce_url)
    config = tmp_path / "config" / "mautic_sync.toml"
    with typed_at as terminal:
        terminal.answer("Where is Mautic?", "mautic.example")
        terminal.wait_for("this is no web address")
        terminal.answer("Where is Mautic?", f"{box.url}/s/dashboard")  # as the browser shows it
        terminal.answer("Client id", "sandbox")
        terminal.answer(SECRET, "wrong")
        terminal.wait_for("Nothing was written")
        assert not config.exists()
        terminal.answer(f"Where is Mautic? (https://mautic.example.com) [{box.url}]", "")  # the address stays
        terminal.answer("Client id (public key) [sandbox]", "")  # and so does the id
        terminal.answer(SECRET, "sandbox-secret")
        terminal.answer(KEY, "wrong")
        terminal.wait_for("does not know this key")
        terminal.answer(KEY, "")
        terminal.answer("Copy the rules", "n")
        terminal.answer("Carry this plan out now?", "n")
        assert terminal.end() == 0, terminal.shown
    assert 'client_secret = "sandbox-secret"' in config.read_text()
    assert "# api_key" in config.read_text()
    assert "wrong" not in terminal.shown.replace("Nothing", "")


def test_a_key_that_is_given_later_is_written_into_the_settings_that_there_are(tmp_path, box):
    config = tmp_path / "config" / "mautic_sync.toml"
    config.parent.mkdir()
    config.write_text(
        f'time_zone = "Europe/Berlin"\n\n[mautic]\nbase_url = "{box.url}"\nclient_id = "sandbox"\n'
        'client_secret = "sandbox-secret"\n\n[push]\nmax_seconds = 60\n'
    )
    config.chmod(0o600)
    with Terminal(tmp_path, *INIT, MAUTIC_SYNC_ZEROBOUNCE__BASE_URL=box.zerobounce_url) as terminal:
        terminal.answer(KEY, "sandbox-key")
        terminal.answer("Copy the rules", "n")
        terminal.answer("Carry this plan out now?", "n")
        assert terminal.end() == 0, terminal.shown
    read = tomllib.loads(config.read_text())
    assert read["zerobounce"] == {"api_key": "sandbox-key"}
    assert (read["time_zone"], read["mautic"]["client_secret"]) == ("Europe/Berlin", "sandbox-secret")
    assert read["push"] == {"max_seconds": 60}
    assert config.stat().st_mode & 0o077 == 0


def test_settings_that_are_written_otherwise_stay_as_they_are(tmp_path, box):
    config = tmp_path / "config" / "mautic_sync.toml"
    config.parent.mkdir()
    own = f'mautic = {{base_url = "{box.url}", client_id = "sandbox", client_secret = "sandbox-secret"}}\n'
    own += "zerobounce = {max_per_second = 5}\n"
    config.write_text(own)
    with Terminal(tmp_path, *INIT, MAUTIC_SYNC_ZEROBOUNCE__BASE_URL=box.zerobounce_url) as terminal:
        terminal.answer(KEY, "sandbox-key")
        assert terminal.end() == 2, terminal.shown
    assert "zerobounce.api_key" in terminal.shown
    assert config.read_text() == own


def test_answers_take_the_place_of_their_lines_in_their_section():
    text = '[mautic]\n# base_url = "x"\n# client_id = "old"\n\n[zerobounce]\n# base_url = "y"\n[push]\n'
    written = with_answers(text, {"mautic.base_url": 'http://a"b', "mautic.client_id": "c", "zerobounce.api_key": None})
    assert tomllib.loads(written) == {
        "mautic": {"base_url": 'http://a"b', "client_id": "c"}, "zerobounce": {}, "push": {}
    }  # fmt: skip
    assert '# base_url = "y"' in written


def test_a_key_that_zerobounce_knows_shows_its_credits_and_is_kept(tmp_path, box):
    typed_at = Terminal(
        tmp_path,
        *INIT,
        MAUTIC_SYNC_ZEROBOUNCE__BASE_URL=box.zerobounce_url,
        MAUTIC_SYNC_MAUTIC__BASE_URL=box.url,
        MAUTIC_SYNC_MAUTIC__CLIENT_ID="sandbox",
        MAUTIC_SYNC_MAUTIC__CLIENT_SECRET="sandbox-secret",
    )
    with typed_at as terminal:
        terminal.answer(KEY, "sandbox-key")
        terminal.wait_for("credits left")
        terminal.answer("Copy the rules", "y")
        terminal.answer("Carry this plan out now?", "y")
        assert terminal.end() == 0, terminal.shown
    written = (tmp_path / "config" / "mautic_sync.toml").read_text()
    assert 'api_key = "sandbox-key"' in written
    assert "sandbox-secret" not in written
    assert (tmp_path / "mappings" / "stages.yaml").is_file()
