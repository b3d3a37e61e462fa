"""The command line: the only code that prints. Standard output is for results, standard error for everything else."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from mautic_sync import __version__, stopping
from mautic_sync.cli import (
    configuration,
    demo,
    doctor,
    hot,
    inspection,
    keeping,
    passes,
    provisioning,
    repairing,
    simulation,
    worker,
)
from mautic_sync.cli.logs import log_crash, masked
from mautic_sync.errors import MauticSyncError, Terminated
from mautic_sync.store import failures

STOP_SECONDS = 20
"""After a signal, so long the requests in flight may take to be answered for."""

app = typer.Typer(
    name="mautic-sync",
    help="Sorts Mautic contacts into ghosts, leads and customers, and keeps Mautic's stages true.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    demo,
    provisioning,
    doctor,
    passes,
    worker,
    configuration,
    inspection,
    repairing,
    keeping,
    hot,
    simulation,
):
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


def _stop(number: int, _frame: FrameType | None) -> None:
    """SIGTERM, or Ctrl-C: what is in flight is answered for, unless Mautic takes too long over it."""
    code = 130 if number == signal.SIGINT else Terminated.exit_code
    last = threading.Timer(STOP_SECONDS, _leave, [code])
    last.daemon = True
    last.start()
    stopping.ask(KeyboardInterrupt() if number == signal.SIGINT else Terminated())


def _leave(code: int) -> None:
    # As after kill -9: what was sent and is not answered for is looked up by the next run.
    print("mautic-sync: stopped while requests were on their way; the next run looks them up", file=sys.stderr)
    sys.stderr.flush()
    os._exit(code)


def main() -> NoReturn:
    """Run a command; every error that we raise on purpose becomes one sentence and its documented exit code."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)
    try:
        app(standalone_mode=True)
        code = 0
    except MauticSyncError as error:
        print(f"mautic-sync: {error}", file=sys.stderr)
        code = error.exit_code
    except DBAPIError as error:
        print(f"mautic-sync: {masked(failures.told(error))}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("mautic-sync: stopped; what was done is kept, the next run goes on from there", file=sys.stderr)
        code = 130
    except Terminated as stop:
        print("mautic-sync: stopped; what was done is kept, the next run goes on from there", file=sys.stderr)
        code = stop.exit_code
    except BrokenPipeError:
        code = 1
    except Exception as error:  # noqa: BLE001 -- the last place: Python's own traceback would show secrets
        log_crash(error)
        print(
            f"mautic-sync: a fault of mautic-sync itself: {masked(str(error))}. Please report the log.", file=sys.stderr
        )
        code = 1
    sys.exit(code)
