"""The command line: the only code that prints. Standard output is for results, standard error for everything else."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from mautic_sync import __version__
from mautic_sync.cli import configuration, demo, hot, inspection, passes, provisioning, simulation
from mautic_sync.errors import MauticSyncError, Terminated

app = typer.Typer(
    name="mautic-sync",
    help="Sorts Mautic contacts into ghosts, leads and customers, and keeps Mautic's stages true.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (demo, provisioning, passes, configuration, inspection, hot, simulation):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mautic-sync {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    del version


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> NoReturn:
    """Run a command; every error that we raise on purpose becomes one sentence and its documented exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(standalone_mode=True)
        code = 0
    except MauticSyncError as error:
        print(f"mautic-sync: {error}", file=sys.stderr)
        code = error.exit_code
    except DBAPIError as error:
        print(f"mautic-sync: the store failed: {error.orig}. Check store.url, free disk and rights.", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("mautic-sync: stopped; what was done is kept, the next run goes on from there", file=sys.stderr)
        code = 130
    except Terminated as stop:
        print("mautic-sync: stopped; what was done is kept, the next run goes on from there", file=sys.stderr)
        code = stop.exit_code
    except BrokenPipeError:
        code = 1
    sys.exit(code)
