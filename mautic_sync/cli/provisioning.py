"""`init`: asks for what is missing, writes the settings, and creates in Mautic what the mappings name."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from mautic_sync.cli.common import ConfigOption, JsonOption, console, print_json, read_settings
from mautic_sync.cli.passes import make_plan, show_plan, show_summary, started
from mautic_sync.errors import ConfigError, MauticSyncError, StopError
from mautic_sync.mappings import packaged_mappings_dir
from mautic_sync.mautic.probing import Probe
from mautic_sync.mautic.provisioning import who_am_i
from mautic_sync.mautic.transport import refuse_old
from mautic_sync.pipeline.decide import BASELINE
from mautic_sync.pipeline.provision import provision
from mautic_sync.pipeline.pull import meet_instance
from mautic_sync.pipeline.run import (
    ACCEPTED_BEFOREHAND,
    Options,
    connect_by,
    connect_zerobounce,
    summary,
    sync,
)
from mautic_sync.settings import DEFAULT_CONFIG_PATH, MappingsSettings, Settings, load_settings, web_address
from mautic_sync.store import notes
from mautic_sync.zerobounce.client import BadKeyError

PLAN_ROWS = 20
CREDENTIALS = (
    *(f"MAUTIC_SYNC_MAUTIC__{name}" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")),
    "MAUTIC_SYNC_ZEROBOUNCE__API_KEY",
)
"""Names in the environment of what `init` never writes into a file."""
POINT_TO_DOCTOR = "`mautic-sync doctor` checks what a run needs, and says what to do about what it finds."


def register(app: typer.Typer) -> None:
    app.command("init")(init_command)


def init_command(
    config: ConfigOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; accept the first push beforehand.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the settings and create stages, fields and segments in Mautic. Safe to repeat."""
    path = config or Path(os.environ.get("MAUTIC_SYNC_CONFIG", DEFAULT_CONFIG_PATH))
    settings = read_settings(path if path.exists() else None)
    answers = {} if yes or as_json else _ask(settings, path)
    new = not path.exists()
    if answers or new:
        _write_config(path, settings, answers)
    settings = read_settings(path if path.exists() else None)
    _copy_mappings(settings, ask=not yes and not as_json)
    pushed = False
    with started(settings, "init") as run:
        meet_instance(run, adopt=False)
        user = who_am_i(run.mautic)
        refuse_old(run.mautic.version)
        made = provision(run)
        if yes:
            with run.engine.begin() as connection:
                pushed = notes.get(connection, BASELINE) is not None
                notes.put(connection, ACCEPTED_BEFOREHAND, run.id)
        document = {
            "mautic": run.mautic.base_url,
            "version": run.mautic.version,
            "user": user.username,
            "config": str(path),
            "created": [{"what": one.what, "name": one.name} for one in made if one.created],
            "present": [
                {"what": one.what, "name": one.name, "amiss": one.amiss or None} for one in made if not one.created
            ],
        }
    if as_json:
        print_json(document)
    else:
        print(f"Connected to Mautic {document['version']} at {document['mautic']} as {document['user']}.")
        for one in made:
            amiss = f", but it {one.amiss}" if one.amiss else ""
            print(f"  {'created' if one.created else 'present'}: {one.what} {one.name}{amiss}")
        kept_out = [name for name in CREDENTIALS if os.environ.get(name)]
        if new and kept_out:
            print(f"{path} has no credentials: set these wherever mautic-sync runs: {', '.join(kept_out)}.")
    if yes or as_json:
        if not as_json:
            first = "The first push is accepted beforehand. Run `mautic-sync sync` now."
            print("`mautic-sync plan` shows what a sync would change now." if pushed else first)
            print(POINT_TO_DOCTOR)
        return
    _offer_baseline(settings)
    print(POINT_TO_DOCTOR)


def _offer_baseline(settings: Settings) -> None:
    """The plan of the first push, and the question whether to carry it out."""
    with started(settings, "plan") as run:
        document = make_plan(run, PLAN_ROWS)
    show_plan(console(), document)
    if not document["changes"] or not typer.confirm("Carry this plan out now?", default=False):
        print("Nothing was written to contacts. `mautic-sync plan` shows it again, `mautic-sync sync` carries it out.")
        return
    with started(settings, "sync") as run:
        sync(run, Options(accept=document["plan_id"]))
        done = summary(run)
    show_summary(console(), run, done)


def _ask(settings: Settings, path: Path) -> dict[str, Any]:
    """Answers for what no setting says yet, by dotted name; each was tried before the next is asked for."""
    answers: dict[str, Any] = {}
    mautic = settings.mautic
    has_credentials = bool((mautic.client_id and mautic.client_secret) or (mautic.username and mautic.password))
    missing = mautic.base_url is None or not has_credentials
    if missing and not sys.stdin.isatty():
        msg = (
            "init has nobody to ask: set MAUTIC_SYNC_MAUTIC__BASE_URL, MAUTIC_SYNC_MAUTIC__CLIENT_ID and "
            "MAUTIC_SYNC_MAUTIC__CLIENT_SECRET, and use --yes"
        )
        raise ConfigError(msg)
    while missing:
        if mautic.base_url is None:
            answers["mautic.base_url"] = typer.prompt(
                "Where is Mautic? (https://mautic.example.com)",
                default=answers.get("mautic.base_url"),
                value_proc=_web_address,
            )
        if not has_credentials:
            print(
                "In Mautic, as an administrator: Settings → API Credentials → New: OAuth 2, any name and redirect address."
            )
            answers["mautic.client_id"] = typer.prompt(
                "Client id (public key)", default=answers.get("mautic.client_id")
            ).strip()
            answers["mautic.client_secret"] = typer.prompt("Client secret (secret key)", hide_input=True).strip()
        try:
            with connect_by(Probe, _with(path, answers), "init") as transport:
                who_am_i(transport)
            missing = False
        except MauticSyncError as error:
            print(f"{error}\nNothing was written. Once more, or leave with Ctrl-C:")
    if settings.zerobounce.api_key is None and sys.stdin.isatty():
        _ask_for_key(path, answers)
    return answers


def _ask_for_key(path: Path, answers: dict[str, Any]) -> None:
    while True:
        key = typer.prompt("ZeroBounce API key (empty: addresses are not checked)", default="", hide_input=True).strip()
        if not key:
            answers.pop("zerobounce.api_key", None)
            return
        answers["zerobounce.api_key"] = key
        try:
            zerobounce = connect_zerobounce(_with(path, answers), "init")
            if zerobounce is not None:
                with closing(zerobounce):
                    print(f"ZeroBounce: {zerobounce.credits():,} credits left.")
            return
        except BadKeyError as error:
            print(error)
        except MauticSyncError as error:
            print(f"The key could not be tried and is kept: {error}")
            return


def _with(path: Path, answers: dict[str, Any]) -> Settings:
    """The settings as they will be with these answers."""
    return load_settings(path if path.exists() else None, answers)


def _web_address(answer: str) -> str:
    try:
        # As it stands in the browser's bar: pages of the administration begin with /s/.
        return web_address(re.sub(r"(?<!/)/s(/.*)?$", "", answer.strip()))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _write_config(path: Path, settings: Settings, answers: dict[str, Any]) -> None:
    """The answers into the settings there are, or into the example; a new file is readable for its owner alone.

    Secrets of the environment stay there.
    """
    try:
        if path.exists():
            text = with_answers(path.read_text(encoding="utf-8"), answers)
            _refuse_broken(text, path, answers)
            path.write_text(text, encoding="utf-8")
            return
        values = {"mautic.base_url": settings.mautic.base_url, **answers}
        text = with_answers(example_config().read_text(encoding="utf-8"), values)
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        if answers:
            msg = f"cannot write the settings to {path}: {error.strerror}. Choose another place with --config."
            raise StopError(msg) from error
        print(f"Note: the settings file {path} was not written ({error.strerror}).", file=sys.stderr)


def _refuse_broken(text: str, path: Path, answers: Mapping[str, Any]) -> None:
    """Settings that are written otherwise than the example (`mautic = {…}`) are left to whoever wrote them."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        names = ", ".join(name for name, value in answers.items() if value is not None)
        msg = f"cannot put the answers into {path}, which stays as it is: {error}. Write them there by hand: {names}."
        raise ConfigError(msg) from error


def with_answers(text: str, answers: Mapping[str, Any]) -> str:
    """The text of a settings file with these values, by dotted name, and everything else as it stands.

    A value takes the place of its line, or of the line that is only a comment; else it begins its section.
    """
    lines = text.splitlines()
    for name, value in answers.items():
        if value is None:
            continue
        section, _, key = name.partition(".")
        quoted = '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        begin = next((at for at, line in enumerate(lines) if line.strip() == f"[{section}]"), None)
        if begin is None:
            lines += ["", f"[{section}]"]
            begin = len(lines) - 1
        end = next((at for at in range(begin + 1, len(lines)) if lines[at].startswith("[")), len(lines))
        places = [at for at in range(begin + 1, end) if re.match(rf"(# )?{key}\s*=", lines[at])]
        at = next((at for at in places if not lines[at].startswith("#")), places[0] if places else None)
        if at is None:
            lines.insert(begin + 1, f"{key} = {quoted}")
        else:
            lines[at] = f"{key} = {quoted}"
    return "\n".join(lines) + "\n"


def example_config() -> Path:
    """The example settings: packaged with the wheel, at the top of a source checkout."""
    packaged = Path(__file__).parent.parent / "packaged" / "config" / "mautic_sync.example.toml"
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "config" / "mautic_sync.example.toml"


def _copy_mappings(settings: Settings, *, ask: bool) -> None:
    """Offer the rules as files to edit; without them the packaged ones hold."""
    target = settings.mappings.dir
    if target.exists() or target != MappingsSettings().dir:
        return
    if (
        not ask
        or not sys.stdin.isatty()
        or not typer.confirm(f"Copy the rules to {target}/ for editing?", default=True)
    ):
        return
    shutil.copytree(packaged_mappings_dir(), target)
