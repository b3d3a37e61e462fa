"""Settings: where they come from, which wins, and what is told when they are wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mautic_sync.errors import ConfigError
from mautic_sync.settings import env_name, load_settings, setting_names, settings_schema


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_of_the_contract_hold():
    settings = load_settings()
    assert settings.mautic.base_url is None
    assert (settings.mautic.timeout, settings.mautic.concurrency) == (60, 2)
    assert (settings.mautic.page_size, settings.mautic.batch_size) == (500, 50)
    assert settings.mautic.settle_after == timedelta(minutes=10)
    assert (settings.zerobounce.max_credits_per_run, settings.zerobounce.max_credits_per_day) == (1000, 5000)
    assert "api-eu" in settings.zerobounce.base_url
    assert settings.store.url == "sqlite:///var/mautic_sync.db"
    assert str(settings.mappings.dir) == "mappings"
    assert (settings.push.enabled, settings.push.max_change_ratio) == (True, 0.1)
    assert (settings.push.first_run_max, settings.push.max_seconds, settings.push.window) == (1000, 600, None)
    assert settings.pull.history == timedelta(days=400)
    assert settings.time_zone == "UTC"
    assert (settings.schedule.sync, settings.schedule.full_sync) == ("8-59/15 * * * *", "20 3 * * *")
    assert settings.schedule.report == "0 6 * * *"
    assert (settings.web.host, settings.web.port, settings.web.token) == ("127.0.0.1", 8765, None)
    assert (settings.log.format, settings.log.level) == ("auto", "info")


def test_command_line_beats_environment_beats_secret_file_beats_toml(tmp_path, monkeypatch):
    config = write(tmp_path / "c.toml", '[mautic]\nclient_secret = "toml"\ntimeout = 5\n')
    overrides: dict[str, object] = {}

    def secret() -> str:
        return load_settings(config, overrides).mautic.client_secret.get_secret_value()

    assert secret() == "toml"
    monkeypatch.setenv("MAUTIC_SYNC_MAUTIC__CLIENT_SECRET_FILE", str(write(tmp_path / "secret", "filed\n")))
    assert secret() == "filed"
    monkeypatch.setenv("MAUTIC_SYNC_MAUTIC__CLIENT_SECRET", "env")
    assert secret() == "env"
    overrides["mautic.client_secret"] = "given"
    assert secret() == "given"
    assert load_settings(config).mautic.timeout == 5


def test_the_usual_file_is_found_where_it_is_expected():
    write(Path("config/mautic_sync.toml"), 'time_zone = "Europe/Berlin"\n')
    assert load_settings().time_zone == "Europe/Berlin"


def test_lists_are_json_in_the_environment(monkeypatch):
    monkeypatch.setenv("MAUTIC_SYNC_WEB__WRITE_KEYS", '["a", "b"]')
    assert [key.get_secret_value() for key in load_settings().web.write_keys] == ["a", "b"]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("WEB__WRITE_KEYS", "s3cr3t,b", r'web\.write_keys: this is no JSON list; write for example \["one", "two"\]'),
        ("PULL__HISTORY", "999999999999999d", r"pull\.history: .* is not between 0 and 36500 days"),
    ],
)
def test_what_the_environment_says_wrongly_is_told_with_the_setting(monkeypatch, variable, value, told):
    monkeypatch.setenv(f"MAUTIC_SYNC_{variable}", value)
    with pytest.raises(ConfigError, match=told) as raised:
        load_settings()
    assert "s3cr3t" not in str(raised.value)


def test_any_setting_may_lie_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MAUTIC_SYNC_WEB__WRITE_KEYS_FILE", str(write(tmp_path / "keys", '["a", "b"]\n')))
    monkeypatch.setenv("MAUTIC_SYNC_TIME_ZONE_FILE", str(write(tmp_path / "zone", "Europe/Berlin\n")))
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.web.write_keys] == ["a", "b"]
    assert settings.time_zone == "Europe/Berlin"


def test_a_variable_for_a_file_that_is_empty_says_nothing(monkeypatch):
    monkeypatch.setenv("MAUTIC_SYNC_MAUTIC__CLIENT_SECRET_FILE", "")
    assert load_settings().mautic.client_secret is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[mautic]\nbase_ulr = 'x'\n",
            r"line 2: there is no setting mautic\.base_ulr; did you mean mautic\.base_url\?",
        ),
        ("[mautick]\nbase_url = 'x'\n", r"line 1: there is no setting mautick; did you mean mautic\?"),
        ("[pusch]\nenabled = true\n", r"line 1: there is no setting pusch; did you mean push\?"),
        ("time_zone = 'Mars/Olympus'\n", r"line 1: time_zone: 'Mars/Olympus' is no time zone"),
        ("[push]\nwindow = '22-6'\n", r"line 2: push\.window: '22-6' is no window"),
        ("[push]\nmax_change_ratio = 2\n", r"push\.max_change_ratio"),
        ("[schedule]\nsync = 'often'\n", r"line 2: schedule\.sync: 'often' is no cron expression"),
        ("[mautic]\nsettle_after = '1m'\n", r"settle_after must be at least twice the time-out"),
        ("[mautic]\nbase_url = 'mautic.example.com'\n", r"mautic\.base_url: this is no web address"),
        ("[mautic]\nbase_url = 'https://u:p@mautic.example.com'\n", r"user name or password"),
        ("[phone]\ndefault_region = 'Germany'\n", r"two-letter country code"),
        ("[pull]\nhistory = 'long'\n", r"'long' is no duration"),
        ("[mautic\n", r"is not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_the_nearest_right_name(tmp_path, text, told):
    with pytest.raises(ConfigError, match=told):
        load_settings(write(tmp_path / "c.toml", text))


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    config = write(tmp_path / "c.toml", "[mautic]\ntimeout = -1\npage_size = 0\n[log]\nlevel = 'loud'\n")
    with pytest.raises(ConfigError) as raised:
        load_settings(config)
    assert len(str(raised.value).splitlines()) == 3


def test_an_unknown_name_in_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("MAUTIC_SYNC_MAUTIC__BASE_ULR", "https://x.example")
    with pytest.raises(ConfigError, match="did you mean MAUTIC_SYNC_MAUTIC__BASE_URL"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("FOO", "FOO names no setting$"),
        ("LOG", "LOG is a section; its settings are MAUTIC_SYNC_LOG__FORMAT, MAUTIC_SYNC_LOG__LEVEL$"),
        ("CONFG", "did you mean MAUTIC_SYNC_CONFIG"),
    ],
)
def test_a_name_that_is_near_to_none_is_not_said_to_be(monkeypatch, variable, told):
    monkeypatch.setenv(f"MAUTIC_SYNC_{variable}", "x")
    with pytest.raises(ConfigError, match=told):
        load_settings()


def test_a_missing_or_empty_secret_file_is_told_loudly(tmp_path, monkeypatch):
    monkeypatch.setenv("MAUTIC_SYNC_ZEROBOUNCE__API_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="API_KEY_FILE: cannot read the secret"):
        load_settings()
    monkeypatch.setenv("MAUTIC_SYNC_ZEROBOUNCE__API_KEY_FILE", str(write(tmp_path / "empty", "\n")))
    with pytest.raises(ConfigError, match="is empty"):
        load_settings()


def test_a_file_that_is_there_but_cannot_be_read_is_not_to_be_written_anew(tmp_path):
    with pytest.raises(ConfigError, match="Give this user the right to read it"):
        load_settings(tmp_path)
    with pytest.raises(ConfigError, match="mautic-sync init"):
        load_settings(tmp_path / "none.toml")


def test_a_wrong_secret_is_never_shown(tmp_path):
    config = write(
        tmp_path / "c.toml", "[mautic]\nclient_secret = ['s3cr3t']\n[zerobounce]\napi_key = {a = 's3cr3t'}\n"
    )
    with pytest.raises(ConfigError) as raised:
        load_settings(config)
    assert "s3cr3t" not in str(raised.value)


def test_every_setting_has_a_name_in_the_environment_and_a_sentence():
    for name, field in setting_names().items():
        assert field.description, name
        assert env_name(name).startswith("MAUTIC_SYNC_")


def test_the_schema_knows_every_setting():
    schema = settings_schema()
    for name in setting_names():
        section, _, key = name.rpartition(".")
        if section:
            reference = str(schema["properties"][section])
            model = reference.rpartition("/")[2].strip("'}]")
            assert key in schema["$defs"][model]["properties"], name
        else:
            assert key in schema["properties"]
